//! Collects the grants that documents contain, and makes the parts of a fact of them: of all grants for a whole fact, or of
//! those that can concern one subject for a filtered one (docs/schema.md, "Large relations").
//!
//! Reads no document.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

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
    /// The relations of a filtered fact of which no further grant matters: flags that are surely set at all times.
    decided: Vec<RelationId>,
    /// The relations of a filtered fact that have more grants than it keeps.
    beyond: Vec<RelationId>,
    /// The relations of a filtered fact of which not all documents were read.
    unread: Vec<RelationId>,
}

impl<'a> Grants<'a> {
    pub(super) fn new(schema: &'a Schema, lookup: &'a Lookup, subject: Option<&'a Subject>) -> Self {
        Self {
            schema,
            lookup,
            subject,
            all: Vec::new(),
            bytes: 0,
            decided: Vec::new(),
            beyond: Vec::new(),
            unread: Vec::new(),
        }
    }

    /// Adds a grant of the document at `place`, unless it does not concern the subject. Of a whole fact, grants beyond the limit
    /// are dropped.
    pub(super) fn push(&mut self, place: usize, grant: Grant, window: Window) {
        let Some(subject) = self.subject else {
            self.bytes = self.bytes.saturating_add(grant.size());
            if !self.are_too_many() {
                self.all.push((place, grant, window));
            }
            return;
        };
        if !concerns(self.schema, &grant, subject) || self.decided.contains(&grant.relation) {
            return;
        }
        // Of a relation that was not read, only what surely sets a flag counts.
        let is_setting = grant.grantee == Grantee::Flag && grant.certainty == Certainty::Sure;
        if grant.grantee == Grantee::OverLimit {
            self.unread.push(grant.relation);
        } else if self.unread.contains(&grant.relation) && !is_setting {
            return;
        }
        let is_always_set = is_setting && window == Window::default();
        if is_always_set {
            self.decided.push(grant.relation);
            self.all.retain(|(_, other, _)| other.relation != grant.relation);
        } else if self.beyond.contains(&grant.relation) {
            return;
        }
        self.all.push((place, grant, window));
        if self.all.len() >= KEPT_MAX {
            self.shrink();
        }
    }

    /// Whether there are more grants than a fact may contain.
    pub(super) fn are_too_many(&self) -> bool {
        self.bytes > FACT_BYTES_MAX
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

    /// Leaves out what does not change the value of a relation and, if that does not help, the relation with the most grants.
    fn shrink(&mut self) {
        self.merge();
        if self.all.len() < KEPT_MAX / 2 {
            return;
        }
        let mut counts: BTreeMap<RelationId, usize> = BTreeMap::new();
        for (_, grant, _) in &self.all {
            *counts.entry(grant.relation).or_default() += 1;
        }
        if let Some((relation, _)) = counts.into_iter().max_by_key(|(_, count)| *count) {
            self.replace(relation);
        }
    }

    /// Keeps, of the grants that differ only in their documents and times, those that cover the same times.
    fn merge(&mut self) {
        let mut alike: BTreeMap<Alike, Vec<Collected>> = BTreeMap::new();
        let is_read = |(_, grant, _): &mut Collected| match grant.grantee {
            Grantee::Flag | Grantee::Id(_) | Grantee::Everyone | Grantee::OverLimit => true,
            // Nobody knows whether two of them mean the same.
            Grantee::Unreadable | Grantee::Unknown(_) => false,
        };
        for (place, grant, window) in self.all.extract_if(.., is_read) {
            let key = (grant.relation, grant.grantee.clone(), grant.target, grant.certainty);
            alike.entry(key).or_default().push((place, grant, window));
        }
        self.all.extend(alike.into_values().flat_map(cover));
        self.all.sort_unstable();
    }

    /// Keeps one grant in place of all of a relation.
    fn replace(&mut self, relation: RelationId) {
        let place = self.all.iter().find(|(_, grant, _)| grant.relation == relation).map(|(place, ..)| *place);
        self.all.retain(|(_, grant, _)| grant.relation != relation);
        self.all.push((place.unwrap_or_default(), Grant::over_limit(relation), Window::default()));
        self.beyond.push(relation);
    }

    /// Makes the grants of a filtered fact fit into it: keeps those of the relations with the fewest.
    fn fit(&mut self, documents: &[DocumentId]) {
        self.merge();
        let mut of_relations: BTreeMap<RelationId, (usize, BTreeSet<usize>)> = BTreeMap::new();
        for (place, grant, _) in &self.all {
            let (bytes, places) = of_relations.entry(grant.relation).or_default();
            *bytes += grant.size();
            places.insert(*place);
        }
        let mut order: Vec<_> = of_relations.into_iter().collect();
        order.sort_by_key(|(relation, (bytes, places))| (places.len(), *bytes, *relation));
        let (mut left, mut bytes, mut kept) = (order.len(), 0, BTreeSet::new());
        for (relation, (of_grants, places)) in order {
            left -= 1;
            let sizes = places.difference(&kept).filter_map(|place| documents.get(*place)).map(DocumentId::size);
            let of_all = bytes + of_grants + sizes.sum::<usize>();
            // Each relation that does not fit has a grant in one document.
            let fits = kept.union(&places).count() + left <= DOCUMENTS_MAX && of_all <= FACT_BYTES_MAX;
            if fits {
                kept.extend(places);
                bytes = of_all;
            } else {
                kept.extend(places.first());
                self.replace(relation);
            }
        }
        self.all.sort_by_key(|(place, grant, _)| (grant.relation, *place));
    }

    /// The parts of the fact; none if there is more than a fact may contain. `documents` are those that were read, sorted. A
    /// filtered fact keeps those that have a grant.
    pub(super) fn into_parts(mut self, documents: Vec<DocumentId>) -> Option<Vec<Part>> {
        let is_filtered = self.subject.is_some();
        if is_filtered && !self.fits(&documents) {
            self.fit(&documents);
        }
        if !self.fits(&documents) {
            return None;
        }
        let Self { lookup, mut all, .. } = self;
        let is_named_by_key = lookup.is_by_id() && documents.len() == 1;
        let has_grant = has_grant(&all, documents.len(), !is_filtered || is_named_by_key);
        let mut kept: Vec<DocumentId> = Vec::new();
        // The index of each document among those that are kept, or of the next one that is.
        let mut places = Vec::with_capacity(documents.len());
        for (document, has_grant) in documents.into_iter().zip(has_grant) {
            places.push(kept.len());
            kept.extend(has_grant.then_some(document));
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

    /// Whether the fact may contain these grants and their documents.
    fn fits(&self, documents: &[DocumentId]) -> bool {
        let has_grant = has_grant(&self.all, documents.len(), self.subject.is_none());
        let kept =
            || documents.iter().zip(&has_grant).filter(|(_, has_grant)| **has_grant).map(|(document, _)| document);
        let bytes =
            kept().map(DocumentId::size).chain(self.all.iter().map(|(_, grant, _)| grant.size())).sum::<usize>();
        kept().count() <= DOCUMENTS_MAX && bytes <= FACT_BYTES_MAX
    }
}

/// What is the same of grants that differ only in their documents and times.
type Alike = (RelationId, Grantee, u8, Certainty);

/// For each document, whether a fact keeps it: whether it has a grant, or all are kept.
fn has_grant(grants: &[Collected], documents: usize, are_all_kept: bool) -> Vec<bool> {
    let mut has_grant = vec![are_all_kept; documents];
    for (place, ..) in grants {
        if let Some(has_grant) = has_grant.get_mut(*place) {
            *has_grant = true;
        }
    }
    has_grant
}

/// As few of the grants as possible that hold at the same times as all of them.
fn cover(mut grants: Vec<Collected>) -> Vec<Collected> {
    grants.sort_unstable_by_key(|(place, _, window)| (window.since, Reverse(window.until), *place));
    let is_ever = |(_, _, window): &&Collected| window.since < window.until;
    let mut kept: Vec<Collected> = Vec::new();
    let mut lasting = grants.iter().filter(is_ever).peekable();
    while let Some(first) = lasting.next() {
        match kept.last().map(|(_, _, window)| window.until) {
            Some(end) if first.2.since <= end => {
                // The one that reaches farthest among those that begin before the end of what is kept.
                let mut farthest = first;
                while let Some(next) = lasting.next_if(|(_, _, window)| window.since <= end) {
                    farthest = if next.2.until > farthest.2.until { next } else { farthest };
                }
                kept.extend((farthest.2.until > end).then(|| farthest.clone()));
            }
            Some(_) | None => kept.push(first.clone()),
        }
    }
    if kept.is_empty() {
        grants.truncate(1);
        return grants;
    }
    kept
}

/// Whether a grant can concern a subject. Sets and resources have to be followed, and a value that cannot be read could mean any
/// subject.
pub(super) fn concerns(schema: &Schema, grant: &Grant, subject: &Subject) -> bool {
    let ids = schema.relation(grant.relation).ids.as_ref();
    let target = ids.and_then(|ids| ids.targets.get(usize::from(grant.target)));
    let is_followed = match (&grant.grantee, target, subject) {
        (Grantee::Flag | Grantee::Unreadable | Grantee::Unknown(_) | Grantee::OverLimit, _, _)
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
