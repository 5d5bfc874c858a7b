//! Collects the grants that documents contain, and makes the parts of a fact of them: of all grants for a whole fact, or of
//! those that can concern one subject for a filtered one (docs/schema.md, "Large relations").
//!
//! Reads no document.

use super::{Certainty, DOCUMENTS_MAX, DocumentId, FACT_BYTES_MAX, Fact, Grant, Grantee, Part, UNBOUNDED, Window};
use crate::{
    question::{RelationId, Subject},
    schema::{Lookup, Schema, Target},
};

/// The most grants of a filtered fact that are kept until it is known which of them matter.
const KEPT_MAX: usize = 100_000;

/// A grant, the place of its document among those that were read, and the time in which it holds.
type Collected = (usize, Grant, Window);

/// The grants of a fact.
pub(super) struct Grants<'a> {
    schema: &'a Schema,
    lookup: &'a Lookup,
    /// The subject that the fact is filtered to.
    subject: Option<&'a Subject>,
    all: Vec<Collected>,
    /// The size of the grants in bytes, as it counts towards [`FACT_BYTES_MAX`].
    bytes: usize,
    /// The flags of a filtered fact that are surely set at all times. No other grant of such a flag matters.
    set_flags: Vec<RelationId>,
}

impl<'a> Grants<'a> {
    pub(super) fn new(schema: &'a Schema, lookup: &'a Lookup, subject: Option<&'a Subject>) -> Self {
        Self { schema, lookup, subject, all: Vec::new(), bytes: 0, set_flags: Vec::new() }
    }

    /// Adds a grant of the document at `place`, unless it does not concern the subject. Beyond the limit, grants are dropped.
    pub(super) fn push(&mut self, place: usize, grant: Grant, window: Window) {
        if let Some(subject) = self.subject {
            if !concerns(self.schema, &grant, subject) || self.set_flags.contains(&grant.relation) {
                return;
            }
            let is_always_set = grant.certainty == Certainty::Sure && window == Window::default();
            if grant.grantee == Grantee::Flag && is_always_set {
                self.set_flags.push(grant.relation);
                self.all.retain(|(_, other, _)| other.relation != grant.relation);
                self.bytes = self.all.iter().map(|(_, grant, _)| grant.size()).sum();
            }
        }
        self.bytes = self.bytes.saturating_add(grant.size());
        if !self.are_too_many() {
            self.all.push((place, grant, window));
        }
    }

    /// Whether there are more grants than a fact may contain.
    pub(super) fn are_too_many(&self) -> bool {
        match self.subject {
            None => self.bytes > FACT_BYTES_MAX,
            // A flag may still turn out to be set. Then most of its grants do not count.
            Some(_) => self.all.len() >= KEPT_MAX,
        }
    }

    /// The number of grants so far.
    pub(super) fn count(&self) -> usize {
        self.all.len()
    }

    /// Sorts the grants from index `from` on, which one document has for one relation, and removes duplicates. So an array
    /// that repeats an id causes no work in later checks.
    pub(super) fn deduplicate(&mut self, from: usize) {
        if self.all.len() > from + 1 {
            let mut added = self.all.split_off(from);
            added.sort_unstable();
            added.dedup();
            self.all.append(&mut added);
        }
    }

    /// The parts of the fact; none if there is more than a fact may contain. `documents` are those that were read, sorted. A
    /// filtered fact keeps those that have a grant.
    pub(super) fn into_parts(self, documents: Vec<DocumentId>) -> Option<Vec<Part>> {
        let Self { schema: _, lookup, subject, mut all, .. } = self;
        let is_named_by_key = lookup.is_by_id() && documents.len() == 1;
        let mut has_grant = vec![subject.is_none() || is_named_by_key; documents.len()];
        for (place, ..) in &all {
            if let Some(has_grant) = has_grant.get_mut(*place) {
                *has_grant = true;
            }
        }
        let mut kept: Vec<DocumentId> = Vec::new();
        // The index of each document among those that are kept, or of the next one that is.
        let mut places = Vec::with_capacity(documents.len());
        for (document, has_grant) in documents.into_iter().zip(has_grant) {
            places.push(kept.len());
            kept.extend(has_grant.then_some(document));
        }
        let bytes =
            kept.iter().map(DocumentId::size).chain(all.iter().map(|(_, grant, _)| grant.size())).sum::<usize>();
        if kept.len() > DOCUMENTS_MAX || bytes > FACT_BYTES_MAX {
            return None;
        }
        if is_named_by_key && all.is_empty() {
            return Some(vec![Part::Silent]);
        }
        all.sort_by_key(|(_, grant, _)| grant.relation);
        let mut parts: Vec<Part> = kept.into_iter().filter(|_| !is_named_by_key).map(Part::Document).collect();
        for (place, grant, window) in &mut all {
            grant.document = u16::try_from(*places.get(*place)?).ok()?;
            if *window != Window::default() {
                if parts.last() != Some(&Part::Window(*window)) {
                    parts.push(Part::Window(*window));
                }
                grant.window = u16::try_from(parts.len() - 1).ok().filter(|place| *place != UNBOUNDED)?;
            }
        }
        parts.extend(all.into_iter().map(|(_, grant, _)| Part::Grant(grant)));
        Some(parts)
    }
}

/// Whether a grant can concern a subject. Sets and resources have to be followed, and a value that cannot be read could mean any
/// subject.
pub(super) fn concerns(schema: &Schema, grant: &Grant, subject: &Subject) -> bool {
    let ids = schema.relation(grant.relation).ids.as_ref();
    let target = ids.and_then(|ids| ids.targets.get(usize::from(grant.target)));
    let is_followed = match (&grant.grantee, target, subject) {
        (Grantee::Flag | Grantee::Unreadable | Grantee::Unknown(_), _, _)
        | (_, Some(Target::Set(..) | Target::Resource(_)) | None, _) => true,
        (Grantee::Id(id), Some(Target::Subject(kind)), Subject::Known { kind: asker, id: asker_id }) => {
            kind == asker && id == asker_id
        }
        (Grantee::Everyone, Some(Target::Subject(kind)), Subject::Known { kind: asker, .. }) => kind == asker,
        (Grantee::Id(_) | Grantee::Everyone, Some(Target::Subject(_)), Subject::Anonymous) => false,
    };
    is_followed && schema.can_concern(grant.relation, subject)
}

/// The parts of a whole fact, filtered to a subject.
pub(super) fn filtered(schema: &Schema, fact: &Fact, subject: &Subject) -> Option<Vec<Part>> {
    let lookup = schema.lookup(fact.lookup());
    let mut grants = Grants::new(schema, lookup, Some(subject));
    for relation in &lookup.relations {
        for grant in fact.grants(*relation) {
            let unplaced = Grant { document: 0, window: UNBOUNDED, ..grant.clone() };
            grants.push(usize::from(grant.document), unplaced, fact.window(grant));
        }
    }
    grants.into_parts(fact.documents())
}
