//! What one relation grants on one resource, as far as it concerns the subjects of one type.
//!
//! Follows no set and no edge.

use crate::{
    fact::{Certainty, Fact, Grant, Grantee},
    question::{Id, Millis, RelationId, Resource, SubjectTypeId},
    schema::{Member, Schema, Target},
};

/// Where a relation leads to another resource.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    /// The place of the resource in the graph.
    pub(super) resource: usize,
    /// For a set, the member that its subjects have; none for an edge.
    pub(super) member: Option<Member>,
    pub(super) certainty: EndCertainty,
}

/// Whether the document can be relied on that leads to another resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EndCertainty {
    Sure,
    /// What it grants is indeterminate.
    Doubtful,
    /// It was listed: its conditions, its times and their types were not looked at.
    Unknown,
}

/// What a relation grants on one resource.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each answers a question of its own")]
pub(super) struct Granted {
    /// Whether it surely holds for every subject of the type.
    pub(super) is_for_all: bool,
    /// Whether it is indeterminate or holds for every subject of the type.
    pub(super) fails_for_none: bool,
    /// Whether it may hold or be indeterminate for some subject of the type, without the ends.
    pub(super) may_not_fail: bool,
    /// The subjects that it surely names.
    pub(super) named: Vec<Id>,
    /// The sets or resources that it leads to.
    pub(super) ends: Vec<End>,
    /// Whether a fact is over its limit, so that only the ends are known, which were listed.
    pub(super) is_large: bool,
    /// Whether a large relation may lead to everybody.
    pub(super) may_be_for_all: bool,
    /// Whether not all ends of a large relation are known.
    pub(super) has_unknown_ends: bool,
    /// How many grants of all subjects the evaluator looks at here.
    pub(super) grants: usize,
}

/// Reads what a relation grants at a time.
pub(super) struct Reader<'r> {
    pub(super) schema: &'r Schema,
    /// The type of the subjects.
    pub(super) kind: SubjectTypeId,
    pub(super) now: Millis,
}

impl Reader<'_> {
    /// Adds what a fact grants by a relation. `place` gives a resource its place in the graph.
    pub(super) fn read(
        &self,
        fact: &Fact,
        relation: RelationId,
        granted: &mut Granted,
        mut place: impl FnMut(Resource) -> usize,
    ) {
        if fact.is_over_limit() {
            (granted.is_large, granted.may_not_fail) = (true, true);
            return;
        }
        for grant in fact.grants(relation) {
            granted.grants += 1;
            let window = fact.window(grant);
            if window.since <= self.now && self.now < window.until {
                self.add(grant, granted, &mut place);
            }
        }
    }

    fn add(&self, grant: &Grant, granted: &mut Granted, place: &mut impl FnMut(Resource) -> usize) {
        let is_sure = grant.certainty == Certainty::Sure;
        let certainty = if is_sure { EndCertainty::Sure } else { EndCertainty::Doubtful };
        let target = self.schema.relation(grant.relation).ids.as_ref();
        let target = target.and_then(|ids| ids.targets.get(usize::from(grant.target)).copied());
        match (&grant.grantee, target) {
            (Grantee::Flag, _) => granted.add_all(is_sure),
            (Grantee::Everyone, Some(Target::Subject(kind))) if kind == self.kind => granted.add_all(is_sure),
            (Grantee::Id(id), Some(Target::Subject(kind))) if kind == self.kind => {
                granted.may_not_fail = true;
                granted.named.extend(is_sure.then(|| id.clone()));
            }
            (Grantee::Id(id), Some(Target::Set(kind, member))) => {
                let resource = place(Resource { kind, id: id.clone() });
                granted.ends.push(End { resource, member: Some(member), certainty });
            }
            (Grantee::Id(id), Some(Target::Resource(kind))) => {
                let resource = place(Resource { kind, id: id.clone() });
                granted.ends.push(End { resource, member: None, certainty });
            }
            (Grantee::Unreadable | Grantee::Unknown(_), _) => granted.add_all(false),
            (Grantee::OverLimit, _) => granted.may_not_fail = true,
            (Grantee::Id(_) | Grantee::Everyone, _) => {}
        }
    }
}

impl Granted {
    /// Adds what concerns every subject of the type alike.
    fn add_all(&mut self, is_sure: bool) {
        self.is_for_all |= is_sure;
        self.fails_for_none = true;
        self.may_not_fail = true;
    }
}
