//! Documents: facts are read from any documents with any condition. A fact grants only what the documents say, the parts of
//! the code that evaluate conditions agree, what mongod does not find changes no fact, and an answer follows from the fact.

use bson::Document;

use crate::{
    evaluate::{AvailableFacts, Verdict, evaluate},
    fact::{Certainty, DocumentId, Fact, FactKey, Grant, Grantee, Window},
    facts::codec,
    moment::Moment,
    question::{Answer, Id, LookupId, Millis, Question, RelationId, Subject},
    schema::{Condition, Finds, Lookup, Member, Relation, ResourceType, Schema, SubjectText},
    source::mongodb,
};

/// How many documents one input has at most.
const DOCUMENTS_MAX: usize = 8;

/// The time at which questions are answered.
const NOW: Millis = 1_790_000_000_000;

/// Reads facts from documents. The bytes are a condition in TOML, a zero, and documents in BSON, which are
/// decoded as those that mongod returns.
pub fn documents(data: &[u8]) {
    let Some(end) = data.iter().position(|byte| *byte == 0) else { return };
    let (condition, rest) = data.split_at(end);
    let Ok(condition) = std::str::from_utf8(condition) else { return };
    let text = include_str!("../../fuzz/condition.toml")
        .replace("CONDITION_OF_PAGE", &of_kind(condition, "page"))
        .replace("CONDITION_OF_FOLDER", &of_kind(condition, "folder"))
        .replace("CONDITION", condition);
    let Ok(schema) = Schema::parse("schema.toml", &text) else { return };
    let mut rest = rest.get(1..).unwrap_or_default();
    let mut all = Vec::new();
    while all.len() < DOCUMENTS_MAX
        && let Some((document, after)) = next(rest)
    {
        all.push(document);
        rest = after;
    }
    for (lookup, found) in schema.lookups() {
        if found.is_by_id() {
            for document in &all {
                if let DocumentId::Id(id) = DocumentId::of(document) {
                    fact(&schema, &FactKey::whole(lookup, id), &[document]);
                }
            }
        } else {
            let key = match found.finds {
                Finds::DeclaredForm | Finds::EveryForm => FactKey::whole(lookup, Id::ObjectId([7; 12])),
                Finds::Structures => FactKey::structures(lookup),
            };
            fact(&schema, &key, &all.iter().collect::<Vec<_>>());
        }
    }
}

/// The condition, and that the document is of a kind. A condition that is not written as a table stays as it is.
fn of_kind(condition: &str, kind: &str) -> String {
    if condition.trim_start().starts_with('{') {
        format!("{{ \"$and\" = [{condition}, {{ kind = \"{kind}\" }}] }}")
    } else {
        condition.to_owned()
    }
}

/// Decodes the first of some documents, each of which begins with its length.
fn next(bytes: &[u8]) -> Option<(Document, &[u8])> {
    let length = usize::try_from(i32::from_le_bytes(*bytes.first_chunk()?)).ok()?;
    let (first, rest) = bytes.split_at_checked(length)?;
    Some((mongodb::fuzzing::document(first)?, rest))
}

/// Whether mongod finds a document for a lookup. A value that cannot be read makes that uncertain.
fn may_be_found(lookup: &Lookup, document: &Document) -> bool {
    let is_uncertain = || document.to_string().contains('\u{fffd}');
    lookup.wanted.as_ref().is_none_or(|wanted| wanted.matches(document)) || is_uncertain()
}

fn fact(schema: &Schema, key: &FactKey, documents: &[&Document]) {
    let read = |documents: &[&Document]| Fact::read(schema, key.clone(), Moment::new(1_790_000_000, 1), documents);
    let fact = read(documents);
    if let Some(bytes) = codec::encode(schema, &fact) {
        let decoded = codec::decode(schema, key.clone(), &bytes);
        assert!(decoded.is_some_and(|decoded| decoded.has_same_content(&fact)), "{fact:?} survives its encoding");
    }
    if fact.is_over_limit() {
        return;
    }
    let lookup = schema.lookup(key.lookup);
    for id in &lookup.relations {
        let relation = schema.relation(*id);
        for document in documents {
            let own = DocumentId::of(document);
            // Of several documents with the same `_id`, nobody can say which one grants.
            if documents.iter().filter(|other| DocumentId::of(other) == own).count() == 1 {
                let grants: Vec<&Grant> = fact.grants(*id).filter(|grant| fact.document_of(grant) == own).collect();
                grants_follow(relation, document, &grants);
                let is_found = grants.is_empty() || may_be_found(lookup, document);
                assert!(is_found, "mongod would not find {document}, which grants {grants:?}");
            }
        }
    }
    let found: Vec<&Document> = documents.iter().copied().filter(|document| may_be_found(lookup, document)).collect();
    assert_eq!(granted(lookup, &read(&found)), granted(lookup, &fact), "mongod finds {found:?}");
    if lookup.is_by_id() {
        answers_follow(schema, &fact, key);
    }
}

/// What a fact grants.
fn granted<'a>(lookup: &Lookup, fact: &'a Fact) -> Vec<(RelationId, &'a Grantee, Certainty, Window, DocumentId)> {
    let grants = lookup.relations.iter().flat_map(|relation| fact.grants(*relation));
    grants
        .map(|grant| (grant.relation, &grant.grantee, grant.certainty, fact.window(grant), fact.document_of(grant)))
        .collect()
}

/// What a document grants follows from its fields and from the conditions.
fn grants_follow(relation: &Relation, document: &Document, grants: &[&Grant]) {
    let holds = |condition: &Option<Condition>, document: &Document| {
        let typed = |condition: &Condition| condition.matches(document) && condition.is_typed(document);
        condition.as_ref().is_none_or(typed)
    };
    let bytes = document.to_vec().unwrap_or_default();
    let is_sure = match &relation.each {
        None => holds(&relation.condition, document),
        // Some element of an array makes the grant. Here only the document's own condition is tested.
        Some(_) => holds(&relation.document_condition, document),
    };
    for grant in grants {
        assert!(is_sure || grant.certainty != Certainty::Sure, "{document} does not grant {grant:?} for sure");
        assert!(relation.negated || grant.certainty != Certainty::Suspect, "{grant:?} counts only under a `!`");
        match &grant.grantee {
            Grantee::Id(id) => assert!(contains(&bytes, id), "{id:?} is not in {document}"),
            Grantee::Everyone => assert!(bytes.contains(&b'*'), "no `*` is in {document}"),
            Grantee::Flag | Grantee::Unreadable | Grantee::Unknown(_) | Grantee::OverLimit => {}
        }
    }
    if relation.ids.is_none() && relation.each.is_none() {
        let matches = relation.condition.as_ref().is_none_or(|condition| condition.matches(document));
        assert!(!matches || !grants.is_empty(), "{document} matches and grants nothing");
    }
}

/// Whether the bytes of a document contain an id.
fn contains(bytes: &[u8], id: &Id) -> bool {
    let has = |part: &[u8]| part.is_empty() || bytes.windows(part.len()).any(|window| window == part);
    match id {
        Id::ObjectId(id) => has(id),
        Id::Uuid(id) => has(id),
        Id::String(text) => has(text.as_bytes()),
        // Numbers have several forms, and of a secret there is only the digest.
        Id::Integer(_) | Id::Digest(_) => true,
    }
}

/// The only available fact.
struct Only<'a>(&'a Fact);

impl AvailableFacts for Only<'_> {
    fn get(&self, lookup: LookupId, id: &Id, subject: Option<&Subject>) -> Option<&Fact> {
        self.0.is_of(lookup, id, subject).then_some(self.0)
    }
}

/// Each subject that is named in the fact, and another one, is allowed only what the fact grants for sure.
fn answers_follow(schema: &Schema, fact: &Fact, key: &FactKey) {
    let relations = &schema.lookup(key.lookup).relations;
    let named = relations.iter().flat_map(|relation| fact.grants(*relation)).filter_map(|grant| match &grant.grantee {
        Grantee::Id(id @ Id::ObjectId(_)) => Some(id.to_string()),
        Grantee::Id(_)
        | Grantee::Flag
        | Grantee::Everyone
        | Grantee::Unreadable
        | Grantee::Unknown(_)
        | Grantee::OverLimit => None,
    });
    let Id::ObjectId(_) = &key.id else { return };
    let subjects: Vec<String> = named.chain(["65f000000000000000000009".to_owned()]).take(4).collect();
    for (_, kind) in schema.resources().filter(|(_, kind)| kind.document == Some(key.lookup)) {
        for subject in &subjects {
            for permission in ["read", "see"] {
                let who = SubjectText::Known { kind: "user", id: subject };
                let Ok(question) = schema.question(who, permission, &kind.name, &key.id.to_string()) else { continue };
                let verdict = evaluate(schema, &question, &Only(fact), NOW, &mut Vec::new());
                if let Verdict::Decided(Answer::Allowed { .. }) = verdict {
                    let asked = format!("{subject} is allowed to {permission} {}", kind.name);
                    allowed_by(schema, fact, kind, &question, &asked);
                }
            }
        }
    }
}

/// An answer that allows follows from a fact: something grants it for sure, nothing under a `!` can hold, and the document is
/// surely one of the type's.
fn allowed_by(schema: &Schema, fact: &Fact, kind: &ResourceType, question: &Question, asked: &str) {
    let of_kind: Vec<RelationId> = kind
        .members
        .values()
        .filter_map(|member| match member {
            Member::Relation(id) => Some(*id),
            Member::Permission(_) => None,
        })
        .collect();
    let is_sure = |grant: &Grant| grant.certainty == Certainty::Sure;
    let is_granted = of_kind
        .iter()
        .filter(|id| !schema.relation(**id).negated)
        .flat_map(|id| fact.grants(*id))
        .any(|grant| is_sure(grant) && holds_for(grant, &question.subject) && holds_now(fact, grant));
    assert!(is_granted, "{asked}, and nothing in {fact:?} grants it");
    let is_of_kind = kind.gate.is_none_or(|gate| fact.grants(gate).any(is_sure));
    assert!(is_of_kind, "{asked}, and {fact:?} may be of no {}", kind.name);
    if schema.permission(question.permission).name.as_ref() == "read" {
        let excluded = of_kind.iter().filter(|id| schema.relation(**id).negated).flat_map(|id| fact.grants(*id));
        let excluded: Vec<&Grant> = excluded.filter(|grant| holds_now(fact, grant)).collect();
        assert!(excluded.is_empty(), "{asked}, and {excluded:?} denies it");
    }
}

fn holds_for(grant: &Grant, subject: &Subject) -> bool {
    match (&grant.grantee, subject) {
        (Grantee::Flag | Grantee::Everyone, _) => true,
        (Grantee::Id(granted), Subject::Known { id, .. }) => granted == id,
        (Grantee::Id(_), Subject::Anonymous) | (Grantee::Unreadable | Grantee::Unknown(_) | Grantee::OverLimit, _) => {
            false
        }
    }
}

fn holds_now(fact: &Fact, grant: &Grant) -> bool {
    let window = fact.window(grant);
    window.since <= NOW && NOW < window.until
}
