//! Compares the filter for a question with the evaluator, over documents each of which is a fact of its own.
//!
//! Reads no id sets and no flags of subjects.

use bson::Document;
use permcached::{
    evaluate::{AvailableFacts, Verdict, evaluate},
    fact::{Fact, FactKey},
    freshness::Moment,
    list::{Asker, ListError, ListQuestion, PlanKind, filter},
    question::{Answer, Id, LookupId, Millis, Question, Resource, Subject},
    schema::{Member, Schema},
};

use super::finds::Found;

/// A filter that was compared.
pub struct Compared {
    pub kind: PlanKind,
    pub found: Found,
    /// The places of the documents that it finds although they are denied.
    pub denied: Vec<usize>,
}

/// The fact of one document.
struct Single(Fact);

impl AvailableFacts for Single {
    fn get(&self, lookup: LookupId, id: &Id, subject: Option<&Subject>) -> Option<&Fact> {
        self.0.is_of(lookup, id, subject).then_some(&self.0)
    }
}

/// What a subject asks about a permission of a type.
pub fn question(schema: &Schema, subject: Subject, kind: &str, permission: &str) -> ListQuestion {
    let (kind, resource) = schema.resources().find(|(_, resource)| *resource.name == *kind).expect("a type");
    let Some(Member::Permission(permission)) = resource.members.get(permission) else { panic!("no {permission}") };
    ListQuestion { asker: Asker::new(subject), permission: *permission, kind }
}

/// Panics if the filter finds other documents than it should. None if no query narrows the permission down.
pub fn compare(schema: &Schema, question: &ListQuestion, now: Millis, documents: &[Document]) -> Option<Compared> {
    let filter = match filter::compile(schema, question, &filter::Known::default(), now) {
        Ok(filter) => filter,
        Err(ListError::NotNarrowable { .. }) => return None,
        Err(error) => panic!("{error}"),
    };
    let name = schema.permission(question.permission).name.to_string();
    let query = filter.condition.to_query();
    let (mut ids, mut denied) = (Vec::new(), Vec::new());
    for (place, document) in documents.iter().enumerate() {
        let is_found = filter.condition.matches(document);
        let is_allowed = allows(schema, question, now, document);
        let is_wrong = if filter.kind == PlanKind::Superset { is_allowed && !is_found } else { is_allowed != is_found };
        assert!(
            !is_wrong,
            "{name} of {document}: found: {is_found}, allowed: {is_allowed}, {query}, {:?}",
            filter.kind
        );
        ids.extend(is_found.then_some(place));
        denied.extend((is_found && !is_allowed).then_some(place));
    }
    let found = Found { condition: filter.condition, ids: ids.into_iter().collect(), of: name };
    Some(Compared { kind: filter.kind, found, denied })
}

fn allows(schema: &Schema, question: &ListQuestion, now: Millis, document: &Document) -> bool {
    let lookup = schema.resource(question.kind).document.expect("a collection");
    let id = Id::Integer(document.get_i64("_id").expect("an id"));
    let fact = Fact::read(schema, FactKey::whole(lookup, id.clone()), Moment::from_count(1), &[document]);
    let resource = Resource { kind: question.kind, id };
    let question = Question { subject: question.asker.subject.clone(), permission: question.permission, resource };
    let mut missing = Vec::new();
    match evaluate(schema, &question, &Single(fact), now, &mut missing) {
        Verdict::Decided(answer) => matches!(answer, Answer::Allowed { .. }),
        Verdict::Missing => panic!("{missing:?} is missing"),
    }
}
