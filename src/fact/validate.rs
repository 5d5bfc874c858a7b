//! Validates the parts of a fact that this process did not read itself: accepts only parts that
//! [`Fact::read`](super::Fact::read) could have created from some documents.
//!
//! It cannot find out whether such documents ever existed.

use std::ops::Range;

use super::{
    Certainty, DOCUMENTS_MAX, DocumentId, FACT_BYTES_MAX, FactKey, Grant, Grantee, Part, SHOWN_BYTES_MAX, UNBOUNDED,
    Window, grants::concerns,
};
use crate::{
    question::{ID_BYTES_MAX, Id, IdForm, RelationId},
    schema::{Finds, Lookup, Relation, Schema, Target},
};

/// Whether a fact of the key can have these parts.
pub(super) fn are_valid(schema: &Schema, key: &FactKey, parts: &[Part]) -> bool {
    let lookup = schema.lookup(key.lookup);
    match parts {
        [] | [Part::OverLimit] => return true,
        [Part::Silent] => return lookup.is_by_id(),
        [
            Part::OverLimit | Part::Silent | Part::Document(_) | Part::Window(_) | Part::Grant(_) | Part::FilteredTo(_),
            ..,
        ] => {}
    }
    let count = |is_one: fn(&Part) -> bool| parts.iter().take_while(|part| is_one(part)).count();
    let documents = count(|part| matches!(part, Part::Document(_)));
    let grants_from = count(|part| matches!(part, Part::Document(_) | Part::Window(_)));
    let validation = Validation { schema, lookup, key, parts, documents, windows: documents..grants_from };
    validation.has_valid_documents() && validation.has_valid_grants() && validation.bytes(&key.id) <= FACT_BYTES_MAX
}

/// The parts of a fact: documents, then windows, then grants.
struct Validation<'a> {
    schema: &'a Schema,
    lookup: &'a Lookup,
    key: &'a FactKey,
    parts: &'a [Part],
    documents: usize,
    windows: Range<usize>,
}

impl Validation<'_> {
    /// Whether the documents are sorted, no more than [`DOCUMENTS_MAX`], and listed exactly if the lookup is not by `_id`.
    fn has_valid_documents(&self) -> bool {
        let documents = self.parts.iter().map_while(|part| if let Part::Document(id) = part { Some(id) } else { None });
        let is_short = |id: &DocumentId| match id {
            DocumentId::Id(Id::Digest(_)) => false,
            DocumentId::Id(id) => id.size() <= ID_BYTES_MAX,
            DocumentId::Other(_) => true,
        };
        (self.documents == 0) == self.lookup.is_by_id()
            && self.documents <= DOCUMENTS_MAX
            && documents.clone().all(is_short)
            && documents.is_sorted()
    }

    /// Whether the grants are sorted and distinct, each refers to one of the documents, relations and windows, and each
    /// window is used. No other part may stand among them or after them.
    fn has_valid_grants(&self) -> bool {
        let mut last: Option<(&Grant, Window)> = None;
        let mut next_window = self.windows.start;
        for part in self.parts.iter().skip(self.windows.end) {
            let Part::Grant(grant) = part else { return false };
            let Some(window) = self.window(grant, &mut next_window) else { return false };
            let is_later = |(before, until): (&Grant, Window)| order(before, until) < order(grant, window);
            if !self.is_valid(grant, window) || !last.is_none_or(is_later) {
                return false;
            }
            last = Some((grant, window));
        }
        // A document that only the key names has at least one grant: without grants its fact is [`Part::Silent`].
        next_window == self.windows.end && (self.documents > 0 || last.is_some())
    }

    /// The window of a grant; none if it is invalid. A grant uses the same window as the previous grant that has one, or the
    /// next window.
    fn window(&self, grant: &Grant, next: &mut usize) -> Option<Window> {
        if grant.window == UNBOUNDED {
            return Some(Window::default());
        }
        let place = usize::from(grant.window);
        if !self.windows.contains(&place) || place > *next || place + 1 < *next {
            return None;
        }
        let window_at = |place: usize| match self.parts.get(place) {
            Some(Part::Window(window)) => Some(*window),
            Some(Part::OverLimit | Part::Silent | Part::Document(_) | Part::Grant(_) | Part::FilteredTo(_)) | None => {
                None
            }
        };
        let window = window_at(place).filter(|window| *window != Window::default())?;
        if place == *next {
            let before = place.checked_sub(1).and_then(window_at);
            if before == Some(window) {
                return None;
            }
            *next += 1;
        }
        Some(window)
    }

    fn is_valid(&self, grant: &Grant, window: Window) -> bool {
        if !self.lookup.relations.contains(&grant.relation) {
            return false;
        }
        let relation = self.schema.relation(grant.relation);
        usize::from(grant.document) < self.documents.max(1)
            && (relation.negated || grant.certainty != Certainty::Suspect)
            && (self.lookup.finds != Finds::Structures || grant.certainty != Certainty::Sure)
            && (relation.since.is_some() || window.since == Window::default().since)
            && (relation.until.is_some() || window.until == Window::default().until)
            && self.leads_somewhere(relation, grant)
            && (grant.grantee != Grantee::OverLimit || self.is_limit(grant))
            && self.key.subject().is_none_or(|subject| concerns(self.schema, grant, subject))
    }

    /// Whether this is the grant of a filtered fact that keeps not all of a relation.
    fn is_limit(&self, grant: &Grant) -> bool {
        let is_plain = grant.certainty == Certainty::Sure && grant.target == 0 && grant.window == UNBOUNDED;
        let of_relation = self.parts.iter().filter(
            |part| matches!(part, Part::Grant(other) if other.relation == grant.relation && other.grantee == Grantee::OverLimit),
        );
        is_plain && self.key.subject().is_some() && of_relation.count() == 1
    }

    /// Whether the relation can lead to the grantee.
    fn leads_somewhere(&self, relation: &Relation, grant: &Grant) -> bool {
        if grant.grantee == Grantee::OverLimit {
            return true;
        }
        let Some(ids) = &relation.ids else {
            return grant.target == 0 && matches!(grant.grantee, Grantee::Flag | Grantee::Unreadable);
        };
        let target = ids.targets.get(usize::from(grant.target));
        match (&grant.grantee, target) {
            (Grantee::Unreadable, None) => grant.target == 0,
            (Grantee::Unreadable, Some(_)) => true,
            (Grantee::Unknown(text), target) => {
                let is_type = ids.subject_type.is_some() && grant.target == 0;
                let is_id = ids.format.is_some() && target.is_some_and(|target| !self.form(*target).1);
                (is_type || is_id) && text.len() <= SHOWN_BYTES_MAX
            }
            (Grantee::Everyone, Some(Target::Subject(_))) => ids.wildcard,
            (Grantee::Id(id), Some(target)) => self.has_form(id, *target),
            (Grantee::Flag | Grantee::Everyone | Grantee::Id(_) | Grantee::OverLimit, _) => false,
        }
    }

    /// The form of a target's ids, and whether they are secret.
    fn form(&self, target: Target) -> (IdForm, bool) {
        match target {
            Target::Subject(kind) => (self.schema.subject(kind).id, self.schema.subject(kind).secret),
            Target::Set(kind, _) | Target::Resource(kind) => (self.schema.resource(kind).id, false),
        }
    }

    fn has_form(&self, id: &Id, target: Target) -> bool {
        let (form, is_secret) = self.form(target);
        match id {
            Id::ObjectId(_) => form == IdForm::ObjectId,
            Id::Integer(_) => form == IdForm::Integer,
            Id::Uuid(_) => form == IdForm::Uuid,
            Id::Digest(_) => form == IdForm::String && is_secret,
            Id::String(text) => {
                form == IdForm::String && !is_secret && (1..=ID_BYTES_MAX).contains(&text.len()) && **text != *"*"
            }
        }
    }

    /// The size of the fact in bytes, as it counts towards [`FACT_BYTES_MAX`]. A document that only the key names counts
    /// too.
    fn bytes(&self, key: &Id) -> usize {
        let sizes = self.parts.iter().map(|part| match part {
            Part::Document(id) => id.size(),
            Part::Grant(grant) => grant.size(),
            Part::Window(_) | Part::Silent | Part::OverLimit | Part::FilteredTo(_) => 0,
        });
        sizes.sum::<usize>() + if self.documents == 0 { key.size() + 4 } else { 0 }
    }
}

/// The sort key of a grant.
fn order(grant: &Grant, window: Window) -> (RelationId, u16, Certainty, &Grantee, u8, Window) {
    let Grant { relation, document, certainty, grantee, target, window: _ } = grant;
    (*relation, *document, *certainty, grantee, *target, window)
}
