//! Listings: ids that a query finds, in their order. Lists read what no fact contains by them.
//!
//! Reads no database. Decides nothing about what the ids mean: for a list they are candidates.

use std::{collections::BTreeSet, fmt};

use bson::{Bson, Document};

use crate::{
    fact::listed_id,
    moment::Moment,
    question::{CollectionId, Id, IdForm},
    schema::{Condition, End, Format, Path},
};

/// What to list. It may contain a bearer secret, so it is never shown.
#[derive(Clone, PartialEq)]
pub struct Listing {
    /// The collection.
    pub collection: CollectionId,
    /// The documents: those that match this.
    pub condition: Condition,
    /// The field of the ids in these documents.
    pub field: Path,
    /// The form of the ids. Other values are left out.
    pub form: IdForm,
    /// How the field writes ids, if it writes them as text.
    pub format: Option<Format>,
    /// Only greater ids.
    pub after: Option<Id>,
    /// How many ids at most.
    pub limit: usize,
    /// Whether it is an error if no index serves the condition, and the collection is not small.
    pub indexed_only: bool,
}

/// The ids of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The ids, sorted, each once.
    pub ids: Vec<Id>,
    /// Whether there are no more. If not, these are the least ones.
    pub is_complete: bool,
    /// How many documents were looked at.
    pub examined: u64,
    /// The moment at which the source was read.
    pub stamp: Moment,
}

impl Listing {
    /// Lists the ids in some documents, which are all of the collection at a moment.
    #[must_use]
    pub fn of_documents<'a>(&self, documents: impl Iterator<Item = &'a Document>, stamp: Moment) -> Listed {
        let mut ids = BTreeSet::new();
        let mut examined = 0;
        for document in documents.filter(|document| self.condition.matches(document)) {
            examined += 1;
            self.ids_in(document, &mut |id| {
                ids.insert(id);
            });
        }
        let is_complete = ids.len() <= self.limit;
        Listed { ids: ids.into_iter().take(self.limit).collect(), is_complete, examined, stamp }
    }

    /// Visits the ids of a document that belong into the listing. An id may be visited more than once.
    pub(super) fn ids_in(&self, document: &Document, visit: &mut impl FnMut(Id)) {
        let mut one = |value: &Bson| {
            let id = listed_id(value, self.form, self.format.as_ref());
            id.into_iter().filter(|id| self.after.as_ref().is_none_or(|after| id > after)).for_each(&mut *visit);
        };
        self.field.ends(document, &mut |end| match end {
            End::Value(Bson::Array(items)) => items.iter().for_each(&mut one),
            End::Value(value) => one(value),
            End::Missing | End::Blocked => {}
        });
    }
}

impl fmt::Debug for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listing")
            .field("collection", &self.collection)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}
