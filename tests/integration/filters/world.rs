//! The documents of a case, and what the evaluator answers about them. Finds id sets and flags by asking about every resource.
//!
//! Compiles no filter.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use bson::{Bson, Document};
use permcached::{
    evaluate::{AvailableFacts, Verdict, evaluate},
    fact::{Fact, FactKey},
    freshness::Moment,
    list::{
        Asker, ListQuestion, Secret,
        filter::{FlagValue, IdSet, Known, required},
    },
    question::{
        Answer, Id, IdForm, LookupId, Millis, PermissionId, Question, RelationId, Resource, ResourceTypeId, Subject,
    },
    schema::{Member, Schema},
    source::{Deadline, Source, documents::Documents},
};
use tokio::runtime::Runtime;

use super::cases::{ALWAYS, PROBE};
use crate::evaluator::generate::id_text;

/// How many ids of the default subject type ask. Of each other type, one asks.
const ASKERS: usize = 3;
/// The forms of ids as text.
const FORMATS: [(&str, &str); 3] = [("", ""), ("k:", ""), ("_", "$")];

/// The facts that were read so far.
#[derive(Default)]
struct Read(HashMap<FactKey, Fact>);

impl AvailableFacts for Read {
    fn get(&self, lookup: LookupId, id: &Id, subject: Option<&Subject>) -> Option<&Fact> {
        self.0.get(&FactKey { lookup, id: id.clone(), subject: subject.cloned().map(Box::new) })
    }
}

pub struct World<'a> {
    runtime: &'a Runtime,
    pub schema: Arc<Schema>,
    collections: &'a BTreeMap<String, Vec<Document>>,
    pub now: Millis,
    source: Documents,
    facts: RefCell<Read>,
    /// Every id of each form that is in some document.
    ids: HashMap<IdForm, Vec<Id>>,
    sets: RefCell<HashMap<(Subject, IdSet), Vec<Id>>>,
}

impl<'a> World<'a> {
    pub fn new(
        runtime: &'a Runtime,
        schema: Arc<Schema>,
        collections: &'a BTreeMap<String, Vec<Document>>,
        now: Millis,
    ) -> Self {
        let source = Documents::new(&schema, collections);
        let ids = IdForm::ALL.into_iter().map(|form| (form, ids(collections, form))).collect();
        let (facts, sets) = (RefCell::default(), RefCell::default());
        Self { runtime, schema, collections, now, source, facts, ids, sets }
    }

    /// The documents of a collection.
    pub fn documents(&self, collection: &str) -> &[Document] {
        self.collections.get(collection).map_or(&[], Vec::as_slice)
    }

    /// All subjects that are active, and the anonymous one.
    pub fn askers(&self) -> Vec<Asker> {
        let mut askers = vec![Asker::new(Subject::Anonymous)];
        for (kind, subject) in self.schema.subjects() {
            let count = if kind == self.schema.default_subject() { ASKERS } else { 1 };
            for number in 0..count {
                let text = id_text(subject.id, number);
                let id = Id::parse(&text, subject.id, subject.secret).expect("an id");
                let secret = subject.secret.then(|| Secret::new(&text));
                askers.push(Asker { subject: Subject::Known { kind, id }, secret });
            }
        }
        askers.retain(|asker| self.asks(&asker.subject, PROBE, ALWAYS));
        askers
    }

    /// The permissions of a type.
    pub fn permissions(&self, kind: ResourceTypeId) -> Vec<PermissionId> {
        let members = self.schema.resource(kind).members.values();
        let permissions = members.filter_map(|member| match member {
            Member::Permission(id) => Some(*id),
            Member::Relation(_) => None,
        });
        permissions.collect()
    }

    /// Whether the evaluator allows it.
    pub fn allows(&self, question: &ListQuestion, id: &Id) -> bool {
        let resource = Resource { kind: question.kind, id: id.clone() };
        self.evaluate(&Question { subject: question.asker.subject.clone(), permission: question.permission, resource })
    }

    /// Everything that the filter for a question requires.
    pub fn known(&self, question: &ListQuestion) -> Known {
        let subject = &question.asker.subject;
        let mut known = Known::default();
        let flags = required(&self.schema, question, &known).flags;
        known.flags = flags.into_iter().map(|flag| (flag, self.flag(subject, flag))).collect();
        for set in required(&self.schema, question, &known).id_sets {
            known.id_sets.insert(set, self.id_set(subject, set));
        }
        known
    }

    pub fn describe(&self, question: &ListQuestion) -> String {
        let (kind, permission) = (self.schema.resource(question.kind), self.schema.permission(question.permission));
        let subject = match &question.asker.subject {
            Subject::Anonymous => "anonymous".to_owned(),
            Subject::Known { kind, id } => format!("{}:{id}", self.schema.subject(*kind).name),
        };
        format!("{subject} {}.{}", kind.name, permission.name)
    }

    fn flag(&self, subject: &Subject, flag: RelationId) -> FlagValue {
        let name = &self.schema.relation(flag).name;
        match (self.asks(subject, PROBE, &format!("has_{name}")), self.asks(subject, PROBE, &format!("lacks_{name}"))) {
            (true, _) => FlagValue::Holds,
            (_, true) => FlagValue::Fails,
            (false, false) => FlagValue::Indeterminate,
        }
    }

    fn id_set(&self, subject: &Subject, set: IdSet) -> Vec<Id> {
        if let Some(known) = self.sets.borrow().get(&(subject.clone(), set)) {
            return known.clone();
        }
        let permission = set.permission(&self.schema).expect("a permission of its own");
        let holds = |id: &&Id| {
            let resource = Resource { kind: set.kind, id: (*id).clone() };
            self.evaluate(&Question { subject: subject.clone(), permission, resource })
        };
        let ids: Vec<Id> = self.ids[&self.schema.resource(set.kind).id].iter().filter(holds).cloned().collect();
        self.sets.borrow_mut().insert((subject.clone(), set), ids.clone());
        ids
    }

    /// Whether a subject has a permission of a resource type without documents.
    fn asks(&self, subject: &Subject, kind: &str, permission: &str) -> bool {
        let (kind, resource) = self.schema.resources().find(|(_, resource)| *resource.name == *kind).expect("a type");
        let Some(Member::Permission(permission)) = resource.members.get(permission) else { panic!("no {permission}") };
        let resource = Resource { kind, id: Id::String("one".into()) };
        self.evaluate(&Question { subject: subject.clone(), permission: *permission, resource })
    }

    fn evaluate(&self, question: &Question) -> bool {
        loop {
            let mut missing = Vec::new();
            let verdict = evaluate(&self.schema, question, &*self.facts.borrow(), self.now, &mut missing);
            match verdict {
                Verdict::Decided(answer) => return matches!(answer, Answer::Allowed { .. }),
                Verdict::Missing => {}
            }
            let deadline = Deadline::after(Duration::from_mins(10));
            let loaded = self.runtime.block_on(self.source.load(missing, &[], Moment::from_count(1), deadline));
            let loaded = loaded.into_iter().map(|(key, fact)| (key, fact.expect("a fact")));
            self.facts.borrow_mut().0.extend(loaded);
        }
    }
}

/// The id in the `_id` of a document; none if no request can name it.
pub fn id_of(schema: &Schema, kind: ResourceTypeId, value: &Bson) -> Option<Id> {
    id_of_form(value, schema.resource(kind).id)
}

fn id_of_form(value: &Bson, form: IdForm) -> Option<Id> {
    let text = match (value, form) {
        (Bson::ObjectId(id), IdForm::ObjectId) => id.to_hex(),
        (Bson::String(text) | Bson::Symbol(text), IdForm::String) => text.clone(),
        (Bson::Int32(number), IdForm::Integer) => number.to_string(),
        (Bson::Int64(number), IdForm::Integer) => number.to_string(),
        (Bson::Double(number), IdForm::Integer) if number.fract() == 0.0 => format!("{}", *number as i64),
        (Bson::Decimal128(number), IdForm::Integer) => number
            .to_string()
            .parse::<f64>()
            .ok()
            .filter(|number| number.fract() == 0.0)
            .map(|number| (number as i64).to_string())?,
        (Bson::Binary(binary), IdForm::Uuid) => binary.to_uuid().ok()?.to_string(),
        _ => return None,
    };
    Id::parse(&text, form, false).ok()
}

/// Every id of a form that a document may mean.
fn ids(collections: &BTreeMap<String, Vec<Document>>, form: IdForm) -> Vec<Id> {
    let mut ids: BTreeSet<Id> = BTreeSet::new();
    for number in 0..super::hostile::IDS {
        ids.extend(Id::parse(&id_text(form, number), form, false));
    }
    let mut values: Vec<Bson> = collections.values().flatten().cloned().map(Bson::Document).collect();
    while let Some(value) = values.pop() {
        ids.extend(id_of_form(&value, form));
        match value {
            Bson::Array(items) => values.extend(items),
            Bson::Document(inner) => values.extend(inner.into_iter().map(|(_, value)| value)),
            Bson::String(text) => {
                for (prefix, suffix) in FORMATS {
                    let inner = text.strip_prefix(prefix).and_then(|text| text.strip_suffix(suffix));
                    ids.extend(inner.and_then(|inner| Id::parse(inner, form, false).ok()));
                }
            }
            _ => {}
        }
    }
    ids.into_iter().collect()
}
