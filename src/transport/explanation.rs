//! Converts an evaluation's tree to an `ExplainResponse`: a flat list of steps, each with its depth. A nested message
//! could be deeper than clients decode.
//!
//! Evaluates nothing, and shows secrets only as hashes, because the facts contain nothing else.

use prost::Message as _;

use super::{convert, proto};
use crate::{
    check::{Explained, RequestFacts},
    evaluate::{GRANTS_SHOWN, GrantSeen, Outcome, Step, Tree},
    fact::{Certainty, Grant, Grantee, Window},
    freshness::Token,
    question::{Id, LookupId, Millis, Question, RelationId},
    schema::{Condition, Origin, Owner, Relation, Schema, Target},
};

/// The most steps in one explanation.
const STEPS_MAX: usize = 2_000;

/// The most bytes in one explanation. By default clients accept 4 MiB.
const BYTES_MAX: usize = 3 * 1_024 * 1_024;

/// The most documents and the most grants that one step shows. The tree lists grants with an effect first.
const SHOWN_MAX: usize = GRANTS_SHOWN;

/// Converts an explained check to its message.
pub(super) fn response(schema: &Schema, question: &Question, explained: &Explained) -> proto::ExplainResponse {
    let clock = explained.checked.as_of.clock;
    let mut writer =
        Writer { schema, question, facts: &explained.facts, clock, steps: Vec::new(), bytes: 0, truncated: false };
    writer.step(&explained.tree, 0);
    let Writer { steps, truncated, .. } = writer;
    proto::ExplainResponse { answer: Some(convert::answer(schema, &explained.checked)), steps, truncated }
}

struct Writer<'a> {
    schema: &'a Schema,
    question: &'a Question,
    facts: &'a RequestFacts,
    clock: crate::freshness::Clock,
    steps: Vec<proto::Explanation>,
    bytes: usize,
    truncated: bool,
}

impl Writer<'_> {
    fn step(&mut self, tree: &Tree, depth: u32) {
        if self.truncated {
            return;
        }
        let (outcome, reason, until) = outcome(tree.outcome);
        let mut step = proto::Explanation {
            outcome: outcome.into(),
            reason: reason.into(),
            valid_until: until,
            grants_total: u32::try_from(tree.grants_total).unwrap_or(u32::MAX),
            depth,
            ..Default::default()
        };
        self.describe(&tree.step, &mut step);
        let relation = match tree.step {
            Step::Gate { relation, .. } | Step::Relation { relation, .. } => Some(relation),
            Step::Walk { edge, .. } => Some(edge),
            Step::Exists { kind, .. } => self.schema.resource(kind).gate,
            Step::Question | Step::Permission { .. } | Step::SubjectFlag { .. } | Step::Not | Step::All | Step::Any => {
                None
            }
        };
        if let Some(relation) = relation {
            step.grants = self.grants(relation, &tree.grants);
        }
        self.bytes += step.encoded_len();
        if self.steps.len() >= STEPS_MAX || self.bytes > BYTES_MAX {
            self.truncated = true;
            return;
        }
        self.steps.push(step);
        for child in &tree.children {
            self.step(child, depth.saturating_add(1));
        }
    }

    /// Fills in what the step is, and the object, name and fact it is about.
    fn describe(&self, what: &Step, step: &mut proto::Explanation) {
        use proto::explanation::Step as Kind;
        let schema = self.schema;
        let kind = match what {
            Step::Question => {
                let resource = &self.question.resource;
                step.object = format!("{}:{}", schema.resource(resource.kind).name, resource.id);
                step.name = schema.permission(self.question.permission).name.to_string();
                Kind::Question
            }
            Step::Gate { relation, id } => {
                self.at(*relation, id, step);
                Kind::Gate
            }
            Step::Exists { kind, id } => {
                let resource = schema.resource(*kind);
                step.object = format!("{}:{id}", resource.name);
                let condition = resource.gate.map(|gate| condition(schema.relation(gate))).unwrap_or_default();
                step.fact =
                    resource.document.map(|lookup| proto::explanation::Fact { condition, ..self.fact(lookup, id) });
                Kind::Document
            }
            Step::Permission { permission, id } => {
                let permission = schema.permission(*permission);
                step.object = format!("{}:{id}", schema.resource(permission.resource).name);
                step.name = permission.name.to_string();
                Kind::Permission
            }
            Step::Relation { relation, id } => {
                self.at(*relation, id, step);
                step.leads_to = self.leads_to(*relation);
                Kind::Relation
            }
            Step::SubjectFlag { flags } => {
                step.object = schema.subject_name(&self.question.subject);
                step.leads_to = self.owners(flags);
                let flag = flags.first().map(|flag| schema.relation(*flag).name.to_string());
                step.name = flag.unwrap_or_default();
                Kind::Relation
            }
            Step::Walk { edge, member, id } => {
                self.at(*edge, id, step);
                step.name = format!("{}.{}", step.name, schema.member_name(*member));
                Kind::Edge
            }
            Step::Not => Kind::Not,
            Step::All => Kind::All,
            Step::Any => Kind::Any,
        };
        step.step = kind.into();
    }

    /// Fills in a relation and its object, and the fact that it was read from, unless the relation cannot lead to the
    /// subject: then no fact was read.
    fn at(&self, number: RelationId, id: &Id, step: &mut proto::Explanation) {
        let relation = self.schema.relation(number);
        let owner = match relation.owner {
            Owner::Resource(kind) => &self.schema.resource(kind).name,
            Owner::Subject(kind) => &self.schema.subject(kind).name,
        };
        step.object = format!("{owner}:{id}");
        step.name = relation.name.to_string();
        let is_read =
            self.schema.can_concern(number, &self.question.subject) || matches!(relation.owner, Owner::Subject(_));
        if let Some(lookup) = relation.lookup().filter(|_| is_read) {
            let condition = condition(relation);
            let mut fact = self.fact(lookup, id);
            let filtered = self.facts.get(lookup, id, Some(&self.question.subject));
            fact.over_limit |= filtered.is_some_and(|cached| cached.fact.is_over_limit_for(number));
            step.fact = Some(proto::explanation::Fact { condition, ..fact });
        }
    }

    /// The types that a relation's ids may be of or, with `of`, the types of the subjects that it can lead to.
    fn leads_to(&self, relation: RelationId) -> Vec<String> {
        let relation = self.schema.relation(relation);
        if let Origin::Subject(of) = &relation.origin {
            return self.owners(of);
        }
        let targets = relation.ids.iter().flat_map(|ids| &ids.targets);
        targets.map(|target| self.target(*target, "")).collect()
    }

    /// The subject types that relations belong to, once each.
    fn owners(&self, relations: &[RelationId]) -> Vec<String> {
        let mut names = Vec::new();
        for relation in relations {
            if let Owner::Subject(kind) = self.schema.relation(*relation).owner
                && let name = self.schema.subject(kind).name.to_string()
                && !names.contains(&name)
            {
                names.push(name);
            }
        }
        names
    }

    fn fact(&self, lookup: LookupId, id: &Id) -> proto::explanation::Fact {
        let whole = self.facts.get(lookup, id, None);
        let is_over_limit = whole.is_some_and(|cached| cached.fact.is_over_limit());
        // Then the evaluation has used the fact that is filtered to the subject.
        let subject = Some(&self.question.subject).filter(|_| is_over_limit);
        let found = subject.map_or(whole, |subject| self.facts.get(lookup, id, Some(subject)));
        let lookup = self.schema.lookup(lookup);
        let documents = found.map(|cached| cached.fact.documents()).unwrap_or_default();
        proto::explanation::Fact {
            collection: lookup.collection.to_string(),
            field: lookup.by.to_string(),
            key: id.to_string(),
            documents: documents.iter().take(SHOWN_MAX).map(ToString::to_string).collect(),
            documents_total: u32::try_from(documents.len()).unwrap_or(u32::MAX),
            over_limit: found.is_some_and(|cached| cached.fact.is_over_limit()),
            tier: found.map(|cached| convert::tier(cached.tier)).unwrap_or_default().into(),
            stamp: found
                .map(|cached| Token { clock: self.clock, moment: cached.fact.stamp() }.to_string())
                .unwrap_or_default(),
            condition: String::new(),
        }
    }

    /// The grants that lead to the subject, then others, up to the limit.
    fn grants(&self, relation: RelationId, grants: &[GrantSeen]) -> Vec<proto::explanation::Grant> {
        let relation = self.schema.relation(relation);
        grants.iter().take(SHOWN_MAX).map(|seen| self.grant(relation, seen)).collect()
    }

    fn grant(&self, relation: &Relation, seen: &GrantSeen) -> proto::explanation::Grant {
        let (outcome, reason, _) = outcome(seen.outcome);
        let Window { since, until } = seen.window;
        proto::explanation::Grant {
            document: seen.document.to_string(),
            field: field(relation),
            grantee: self.grantee(relation, &seen.grant),
            since: Some(since).filter(|since| *since != Millis::MIN).map(convert::timestamp),
            until: Some(until).filter(|until| *until != Millis::MAX).map(convert::timestamp),
            doubtful: seen.grant.certainty != Certainty::Sure,
            outcome: outcome.into(),
            reason: reason.into(),
        }
    }

    fn grantee(&self, relation: &Relation, grant: &Grant) -> String {
        let id = match &grant.grantee {
            Grantee::Flag | Grantee::OverLimit => return String::new(),
            Grantee::Unreadable => return "?".to_owned(),
            Grantee::Unknown(text) => return format!("?{text}"),
            Grantee::Everyone => ":*".to_owned(),
            Grantee::Id(id) => format!(":{id}"),
        };
        let target = relation.ids.as_ref().and_then(|ids| ids.targets.get(usize::from(grant.target)));
        target.map(|target| self.target(*target, &id)).unwrap_or_default()
    }

    /// A target's type, followed by the id if there is one and by the member of a set, as in `team:id#member`.
    fn target(&self, target: Target, id: &str) -> String {
        match target {
            Target::Subject(kind) => format!("{}{id}", self.schema.subject(kind).name),
            Target::Resource(kind) => format!("{}{id}", self.schema.resource(kind).name),
            Target::Set(kind, member) => {
                format!("{}{id}#{}", self.schema.resource(kind).name, self.schema.member_name(member))
            }
        }
    }
}

fn outcome(outcome: Outcome) -> (proto::explanation::Outcome, proto::Reason, Option<prost_types::Timestamp>) {
    use proto::explanation::Outcome as Kind;
    match outcome {
        Outcome::Holds { until } => (Kind::Holds, proto::Reason::Unspecified, until.map(convert::timestamp)),
        Outcome::Fails(reason) => (Kind::Fails, convert::reason(reason), None),
        Outcome::Indeterminate(reason) => (Kind::Indeterminate, convert::reason(reason), None),
        Outcome::Missing => (Kind::Unspecified, proto::Reason::Unspecified, None),
    }
}

/// The field that holds a relation's ids. For a relation without ids, the fields that its condition reads.
fn field(relation: &Relation) -> String {
    let each = relation.each.as_ref().map(|each| format!("{each}.")).unwrap_or_default();
    if let Some(ids) = &relation.ids {
        return format!("{each}{}", ids.field);
    }
    let mut fields = Vec::new();
    if let Some(condition) = &relation.condition {
        condition.paths(&mut |path| {
            let field = format!("{each}{path}");
            if !fields.contains(&field) {
                fields.push(field);
            }
        });
    }
    fields.join(", ")
}

/// The conditions of a relation on a document, as Extended JSON.
fn condition(relation: &Relation) -> String {
    let json = |condition: &Condition| bson::Bson::Document(condition.to_query()).into_relaxed_extjson().to_string();
    let of_document = relation.document_condition.as_ref().map(json);
    let of_part = relation.condition.as_ref().map(json);
    match (&relation.each, of_part) {
        (Some(each), Some(part)) => {
            let inner = format!("{{\"{each}\":{{\"$elemMatch\":{part}}}}}");
            of_document.map_or(inner.clone(), |outer| format!("{{\"$and\":[{outer},{inner}]}}"))
        }
        (None, Some(part)) => part,
        (_, None) => of_document.unwrap_or_default(),
    }
}
