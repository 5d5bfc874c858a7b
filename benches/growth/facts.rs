//! Facts of files, and of the shares of files.

use std::{collections::BTreeMap, sync::Arc};

use bson::{Document, doc, oid::ObjectId};
use permcached::{
    fact::{Fact, FactKey},
    facts::{Facts, FreshnessRequirement, Memory},
    freshness::{Freshness, Moment},
    question::{Id, LookupId},
    schema::Schema,
    source::documents::Documents,
};

use super::calls::SCHEMA;

/// The most shares that a file has.
const SHARES_MAX: f64 = 50.0;

fn id(kind: u8, number: u32) -> [u8; 12] {
    let mut bytes = [kind; 12];
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    bytes
}

fn object_id(kind: u8, number: u32) -> ObjectId {
    ObjectId::from_bytes(id(kind, number))
}

/// Makes facts. Each file has an owner and a folder, and every 20th is deleted. Most files have few shares, and some many.
pub(crate) struct Files {
    pub(crate) schema: Arc<Schema>,
    file_lookup: LookupId,
    share_lookup: LookupId,
}

impl Files {
    pub(crate) fn new() -> Self {
        let schema = Arc::new(Schema::parse("schema.toml", SCHEMA).expect("the schema of this bench is valid"));
        let lookup = |collection: &str, field: &str| {
            let is_it = |lookup: &permcached::schema::Lookup| {
                &*lookup.collection == collection && lookup.by.to_string() == field
            };
            schema.lookups().find(|(_, lookup)| is_it(lookup)).expect("the schema has this lookup").0
        };
        let (file_lookup, share_lookup) = (lookup("files", "_id"), lookup("shares", "file_id"));
        Self { schema, file_lookup, share_lookup }
    }

    pub(crate) fn file_key(&self, number: u32) -> FactKey {
        FactKey::whole(self.file_lookup, Id::ObjectId(id(2, number)))
    }

    pub(crate) fn shares_key(&self, number: u32) -> FactKey {
        FactKey::whole(self.share_lookup, Id::ObjectId(id(2, number)))
    }

    pub(crate) fn file(&self, number: u32) -> Fact {
        let (owner, folder) = (object_id(1, number % 10_000), object_id(3, number / 20));
        let is_deleted = number.is_multiple_of(20);
        let file =
            doc! { "_id": object_id(2, number), "owner_id": owner, "folder_id": folder, "is_deleted": is_deleted };
        Fact::read(&self.schema, self.file_key(number), Moment::from_count(1), &[&file])
    }

    pub(crate) fn shares(&self, number: u32) -> Fact {
        // The same number for the same file each time.
        let part = fastrand::Rng::with_seed(u64::from(number)).f64();
        let mut share = 0_u32;
        let mut documents = Vec::<Document>::new();
        while f64::from(share) < (SHARES_MAX * part.powi(6)).floor() {
            let (share_id, user) =
                (object_id(4, number.wrapping_mul(64) + share), object_id(1, number % 10_000 + share));
            documents.push(doc! { "_id": share_id, "file_id": object_id(2, number), "user_id": user });
            share += 1;
        }
        let documents: Vec<&Document> = documents.iter().collect();
        Fact::read(&self.schema, self.shares_key(number), Moment::from_count(1), &documents)
    }
}

/// L1, and every use of a fact tests its freshness, as the service does.
pub(crate) struct Tested {
    pub(crate) memory: Arc<Memory>,
    facts: Facts,
}

impl Tested {
    pub(crate) fn new(schema: &Arc<Schema>, bytes_max: usize) -> Self {
        let memory = Arc::new(Memory::new(bytes_max));
        let freshness = Arc::new(Freshness::new(schema));
        freshness.begin_at(Moment::from_count(1));
        let source = Arc::new(Documents::new(schema, &BTreeMap::new()));
        let facts = Facts::new(source, freshness, Arc::clone(&memory), None, Arc::default());
        Self { memory, facts }
    }

    pub(crate) fn insert(&self, fact: &Fact) {
        self.memory.insert(fact, || true);
    }

    /// Looks a fact up and takes it, as a check does. Returns whether it was there.
    pub(crate) fn get(&self, key: &FactKey) -> bool {
        let requirement = FreshnessRequirement { as_of: Moment::from_count(1), stamp: Moment::default() };
        self.facts.cached(key.lookup, &key.id, None, requirement).is_some()
    }
}
