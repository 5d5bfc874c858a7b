//! Listings: the ids that a query finds, in their order, at a snapshot.
//!
//! Caches no ids. `indexes` knows which queries an index serves.

use std::collections::BTreeSet;

use bson::{Binary, Bson, Document, RawDocument, doc, oid::ObjectId, spec::BinarySubtype};
use tokio::time::timeout_at;
use tracing::Instrument as _;

use super::{
    Mode, MongoDb,
    decode::Decoded,
    find::{BATCH_DOCUMENTS_MAX, COMMAND_BYTES_MAX, Found, Kept, Snapshot, find_command, find_span},
};
use crate::{
    fact::id_to_bson,
    moment::Moment,
    question::{Id, IdForm},
    schema::{End, Format, Lookup, compare},
    source::{Deadline, Listed, Listing, SourceError},
};

/// How many documents one `find` returns first at least. Several documents may have the same id, and some may have none.
const FIRST_DOCUMENTS: usize = 100;

/// How many times as many documents the next `find` returns if one brought too few.
const GROWTH: usize = 4;

impl MongoDb {
    /// See [`Source::list`](crate::source::Source::list).
    pub(super) async fn list_ids(
        &self,
        listing: &Listing,
        at: Moment,
        deadline: Deadline,
    ) -> Result<Listed, SourceError> {
        // Checks must not wait for lists.
        let turn = timeout_at(deadline.instant(), self.listings.acquire()).await;
        let _turn = turn.ok().and_then(Result::ok).ok_or(SourceError::TimedOut)?;
        if listing.indexed_only {
            self.require_index_for(listing, at, deadline).await?;
        }
        let lookup = Lookup::by_id(self.schema.collection_name(listing.collection), listing.collection);
        let mut progress = Pages::new(listing);
        let mut snapshot = Snapshot::After(at);
        let mut first_stamp = None;
        loop {
            let command = progress.command(&lookup)?;
            let decode = |document: &RawDocument| Decoded::of(document);
            let found = self
                .run_find(&lookup, command, snapshot, Kept::All, deadline, decode)
                .instrument(find_span(&lookup, listing.limit))
                .await?;
            // Without snapshots, the listing is as old as its oldest part.
            let stamp = *first_stamp.get_or_insert(found.stamp);
            if self.mode == Mode::ReplicaSet {
                snapshot = Snapshot::Of(stamp);
            }
            if let Some(is_complete) = progress.add(&found)? {
                let Pages { ids, examined, .. } = progress;
                let is_complete = is_complete && ids.len() <= listing.limit;
                let ids = ids.into_iter().take(listing.limit).collect();
                return Ok(Listed { ids, is_complete, examined, stamp });
            }
        }
    }
}

/// A listing that is being read, with as many `find`s as it takes.
struct Pages<'a> {
    listing: &'a Listing,
    /// The ids up to `from`.
    ids: BTreeSet<Id>,
    examined: u64,
    /// The value of the field after which documents remain to be read. It need not be an id: the listing gets past those that are none.
    from: Option<Bson>,
    /// How many documents the next `find` returns at most.
    documents_max: usize,
}

impl<'a> Pages<'a> {
    fn new(listing: &'a Listing) -> Self {
        // In order of the texts, the ids in them are in no order.
        let is_in_order = listing.format.is_none();
        let from =
            listing.after.as_ref().filter(|after| is_in_order && is_of_form(after, listing.form)).map(id_to_bson);
        let documents_max = if is_in_order { listing.limit.max(FIRST_DOCUMENTS) } else { BATCH_DOCUMENTS_MAX };
        Self { listing, ids: BTreeSet::new(), examined: 0, from, documents_max: documents_max.min(BATCH_DOCUMENTS_MAX) }
    }

    /// The `find` for the documents that remain.
    fn command(&self, lookup: &Lookup) -> Result<Document, SourceError> {
        let Listing { condition, field, form, format, .. } = self.listing;
        let field = field.as_str();
        let (least, last) = bracket(*form, format.as_ref());
        let first = self.from.as_ref().map_or(least, |from| doc! { "$gt": from.clone() });
        let bounds = [Some(first), last].into_iter().flatten().map(|bound| doc! { field: bound });
        let all: Vec<Document> = [condition.to_query()].into_iter().chain(bounds).collect();
        let projection = if field == "_id" {
            doc! { "_id": 1 }
        } else {
            doc! { "_id": 0, field: 1 }
        };
        let mut command = find_command(lookup, doc! { "$and": all }, projection, self.documents_max);
        if format.is_none() {
            command.insert("sort", doc! { field: 1 });
        }
        let is_small = command.to_vec().is_ok_and(|bytes| bytes.len() <= COMMAND_BYTES_MAX);
        if is_small { Ok(command) } else { Err(SourceError::TooMuch) }
    }

    /// Adds what a `find` has returned. Returns whether the ids are complete if there is enough.
    fn add(&mut self, found: &Found) -> Result<Option<bool>, SourceError> {
        self.examined += u64::try_from(found.documents.len()).unwrap_or(u64::MAX);
        let mut ids = Vec::new();
        let mut reached = None;
        for decoded in &found.documents {
            let document = decoded.as_matched();
            self.listing.ids_in(document, &mut |id| ids.push(id));
            reached = self.only_value(document).or(reached);
        }
        if found.is_complete {
            self.ids.extend(ids);
            return Ok(Some(true));
        }
        // Documents come in the order of the least value of each. So those that remain have no value before one that is the only
        // value of a document.
        let is_later = |reached: &Bson| self.from.as_ref().is_none_or(|from| compare(reached, from).is_gt());
        let Some(reached) = reached.filter(|reached| self.listing.format.is_none() && is_later(reached)) else {
            return self.grow().map(|()| None);
        };
        self.ids.extend(ids.into_iter().filter(|id| compare(&id_to_bson(id), &reached).is_le()));
        self.from = Some(reached);
        if self.ids.len() >= self.listing.limit {
            return Ok(Some(false));
        }
        self.documents_max = self.documents_max.saturating_mul(GROWTH).min(BATCH_DOCUMENTS_MAX);
        Ok(None)
    }

    /// Lets the next `find` return more documents, if it may.
    fn grow(&mut self) -> Result<(), SourceError> {
        if self.documents_max >= BATCH_DOCUMENTS_MAX {
            return Err(SourceError::TooMuch);
        }
        self.documents_max = self.documents_max.saturating_mul(GROWTH).min(BATCH_DOCUMENTS_MAX);
        Ok(())
    }

    /// The value of the field, if the document has only one, which is of the type of the ids and can be read.
    fn only_value(&self, document: &Document) -> Option<Bson> {
        let (mut only, mut count) = (None, 0);
        self.listing.field.ends(document, &mut |end| {
            count += 1;
            only = match end {
                End::Value(Bson::Array(_)) | End::Missing | End::Blocked => None,
                End::Value(value) => Some(value.clone()),
            };
        });
        only.filter(|value| count == 1 && is_alike(value, self.listing.form))
    }
}

/// Tests that leave out all values of other types than ids have: of the least value, and of the greatest if the type has others.
fn bracket(form: IdForm, format: Option<&Format>) -> (Document, Option<Document>) {
    if let Some(format) = format {
        let [before, _] = format.parts();
        return (doc! { "$gte": before }, after_prefix(before).map(|end| doc! { "$lt": end }));
    }
    let uuid = |subtype| Bson::Binary(Binary { subtype, bytes: vec![0; 16] });
    match form {
        IdForm::ObjectId => (doc! { "$gte": ObjectId::from_bytes([0; 12]) }, None),
        // Without the empty text.
        IdForm::String => (doc! { "$gt": "" }, None),
        // Without NaN.
        IdForm::Integer => (doc! { "$gte": f64::NEG_INFINITY }, None),
        IdForm::Uuid => (doc! { "$gte": uuid(BinarySubtype::Uuid) }, Some(doc! { "$lt": uuid(BinarySubtype::Md5) })),
    }
}

/// The least text that is greater than all texts that begin like this; none if that is hard to say.
fn after_prefix(prefix: &str) -> Option<String> {
    let (last, rest) = prefix.chars().next_back().map(|last| (last, prefix.strip_suffix(last)))?;
    let next = char::from_u32(u32::from(last).checked_add(1)?)?;
    Some(format!("{}{next}", rest?))
}

/// Whether an id has this form.
fn is_of_form(id: &Id, form: IdForm) -> bool {
    is_alike(&id_to_bson(id), form)
}

/// Whether a value has the type that ids of this form have.
fn is_alike(value: &Bson, form: IdForm) -> bool {
    match form {
        IdForm::ObjectId => matches!(value, Bson::ObjectId(_)),
        IdForm::String => matches!(value, Bson::String(_) | Bson::Symbol(_)),
        IdForm::Integer => matches!(value, Bson::Int32(_) | Bson::Int64(_) | Bson::Double(_) | Bson::Decimal128(_)),
        IdForm::Uuid => matches!(value, Bson::Binary(_)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_after_a_prefix_is_greater_than_all_that_begin_with_it() {
        for (prefix, expected) in
            [("", None), ("a", Some("b")), ("role:", Some("role;")), ("é", Some("ê")), ("\u{d7ff}", None)]
        {
            assert_eq!(after_prefix(prefix).as_deref(), expected, "{prefix}");
        }
    }
}
