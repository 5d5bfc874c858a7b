//! L1, the facts in memory: they never exceed their budget, all their bytes are counted, and a hit allocates nothing.
//!
//! Whether a cached fact still counts is tested in `freshness`.

mod model;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use bson::{DateTime, Document, doc, oid::ObjectId};
use futures::FutureExt as _;
use permcached::{
    app::{App, Parts, assemble},
    check::Consistency,
    fact::{Fact, FactKey},
    facts::{FreshnessRequirement, Memory},
    freshness::Moment,
    question::{Id, LookupId, Tier},
    schema::{Lookup, Schema},
    source::{Deadline, documents::Documents},
};

use crate::support::both::{question, shipped_schema};

const BUDGET: usize = 1_024 * 1_024;

fn id(kind: u8, number: u32) -> ObjectId {
    let mut bytes = [kind; 12];
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    ObjectId::from_bytes(bytes)
}

fn lookup(schema: &Schema, collection: &str, by: &str) -> LookupId {
    let mut lookups = schema.lookups();
    let is_it = |lookup: &Lookup| *lookup.collection == *collection && lookup.by.to_string() == by;
    lookups.find(|(_, lookup)| is_it(lookup)).expect("the schema has it").0
}

/// Makes facts of files and of their shares.
struct Files {
    schema: Arc<Schema>,
    by_id: LookupId,
    shares: LookupId,
}

impl Files {
    fn new() -> Self {
        let schema = Arc::new(shipped_schema("fylora-sharing.toml"));
        let (by_id, shares) = (lookup(&schema, "files", "_id"), lookup(&schema, "shares", "file_id"));
        Self { schema, by_id, shares }
    }

    fn key(&self, number: u32) -> FactKey {
        FactKey::whole(self.by_id, Id::ObjectId(id(2, number).bytes()))
    }

    fn file(&self, number: u32, stamp: u64) -> Fact {
        let document =
            doc! { "_id": id(2, number), "owner_id": id(1, number % 1_000), "folder_id": id(3, number / 20) };
        Fact::read(&self.schema, self.key(number), Moment::from_count(stamp), &[&document])
    }

    /// `count` shares of a file. Some have an expiry, and some have a string as `_id`.
    fn shares(&self, number: u32, count: u32, stamp: u64) -> Fact {
        let share = |share| {
            let mut document = doc! {
                "_id": id(4, share), "file_id": id(2, number), "share_type": "internal",
                "shared_with_user_id": id(1, share), "is_active": true,
            };
            match share % 3 {
                0 => document.insert("expires_at", DateTime::from_millis(i64::from(share))),
                1 => document.insert("_id", format!("a share whose id is a text, number {share}")),
                _ => None,
            };
            document
        };
        let documents: Vec<Document> = (0..count).map(share).collect();
        let key = FactKey::whole(self.shares, self.key(number).id);
        Fact::read(&self.schema, key, Moment::from_count(stamp), &documents.iter().collect::<Vec<_>>())
    }
}

fn is_cached(memory: &Memory, key: &FactKey) -> bool {
    memory.get(key.lookup, &key.id, None).is_some()
}

#[test]
fn facts_in_use_stay_while_ten_times_the_budget_is_inserted() {
    const THREADS: u32 = 4;
    const HOT: u32 = 100;
    let files = Files::new();
    let memory = Memory::new(BUDGET);
    let facts_max = u32::try_from(BUDGET / files.file(0, 0).memory()).unwrap();
    let each = facts_max * 10 / THREADS;
    let is_over = AtomicBool::new(false);
    (0..HOT).for_each(|number| memory.insert(&files.file(number, 1), || true));
    thread::scope(|scope| {
        let sampler = scope.spawn(|| {
            let mut most = 0;
            while !is_over.load(Ordering::Relaxed) {
                most = memory.bytes().max(most);
                thread::yield_now();
            }
            most
        });
        let insert = |thread: u32| {
            let (files, memory) = (&files, &memory);
            move || {
                for number in HOT + thread * each..HOT + (thread + 1) * each {
                    memory.insert(&files.file(number, 1), || true);
                    // Some facts are of other sizes, and some are replaced by a larger or a smaller one.
                    if number % 4 == 0 {
                        memory.insert(&files.shares(number, number % 7, 1), || true);
                        memory.insert(&files.shares(number, (number + 3) % 7, 2), || true);
                    }
                    let _used = memory.get(files.by_id, &files.key(number % HOT).id, None);
                    assert!(number % 8 != 0 || memory.bytes() <= BUDGET);
                }
            }
        };
        let inserters: Vec<_> = (0..THREADS).map(|thread| scope.spawn(insert(thread))).collect();
        for inserter in inserters {
            inserter.join().unwrap();
        }
        is_over.store(true, Ordering::Relaxed);
        let most = sampler.join().unwrap();
        assert!(most <= BUDGET && most > BUDGET / 10 * 8, "{most}");
    });
    let cached =
        |numbers: std::ops::Range<u32>| numbers.filter(|number| is_cached(&memory, &files.key(*number))).count();
    let kept = cached(0..HOT);
    // Of the other facts a tenth is left. On a busy machine, a thread may not use one of these for a whole round of the
    // CLOCK hand.
    assert!(kept >= 80, "of {HOT} facts in use, {kept} are cached");
    let (from, newest) = (HOT + THREADS * each, facts_max / 4);
    (from..from + newest).for_each(|number| memory.insert(&files.file(number, 1), || true));
    let kept = cached(from..from + newest);
    assert!(kept as u32 >= newest / 100 * 98, "of the newest {newest} facts, {kept} are cached");
}

#[test]
fn the_counted_bytes_match_the_allocated_bytes() {
    let files = Files::new();
    let memory = Memory::new(16 * BUDGET);
    let agrees = |info: allocation_counter::AllocationInfo, before: usize| {
        let counted = memory.bytes() - before;
        let allocated = usize::try_from(info.bytes_current).unwrap();
        // The count includes what the allocator adds, 8 to 24 bytes for each allocation.
        assert!((allocated..=allocated / 4 * 5).contains(&counted), "{counted}: {info:?}");
    };
    let mut before = memory.bytes();
    assert_eq!(before, 0);
    // First files, then shares of many kinds, then shares of other sizes, then facts without documents.
    for (size, stamp) in [(None, 1), (Some(3), 1), (Some(6), 2), (Some(0), 3)] {
        let info = allocation_counter::measure(|| {
            for number in 0..8_000 {
                let fact = size.map_or_else(|| files.file(number, stamp), |size| files.shares(number, size, stamp));
                memory.insert(&fact, || true);
            }
        });
        if info.bytes_current > 0 {
            agrees(info, before);
        }
        before = memory.bytes();
    }
    assert_eq!(memory.count(), 16_000);
    let again = Memory::new(16 * BUDGET);
    for number in 0..8_000 {
        again.insert(&files.file(number, 1), || true);
        again.insert(&files.shares(number, 0, 1), || true);
    }
    let difference = memory.bytes().abs_diff(again.bytes());
    // It is chance when a table grows.
    assert!(difference <= memory.bytes() / 5, "replaced: {}, new: {}", memory.bytes(), again.bytes());
    memory.clear();
    assert_eq!((memory.bytes(), memory.count()), (0, 0));
}

#[test]
fn the_budget_is_not_exceeded_while_a_table_grows() {
    let files = Files::new();
    for budget in [1_000, 50_000, BUDGET / 3, BUDGET] {
        let memory = Memory::new(budget);
        let info = allocation_counter::measure(|| {
            for number in 0..20_000 {
                let fact = files.file(number, 1);
                memory.insert(&fact, || true);
            }
        });
        // The fact that is being inserted, and the document that it is read from.
        let in_progress = 2_000;
        assert!(info.bytes_max as usize <= budget + in_progress, "{budget}: {info:?}");
    }
}

#[test]
fn a_fact_larger_than_the_share_of_a_shard_is_not_cached() {
    let files = Files::new();
    let memory = Memory::new(BUDGET / 16);
    memory.insert(&files.file(1, 1), || true);
    memory.insert(&files.shares(1, 900, 1), || true);
    assert_eq!(memory.count(), 1);
}

#[test]
fn a_newer_fact_is_kept_and_a_fact_of_an_ended_epoch_is_rejected() {
    let files = Files::new();
    let memory = Memory::new(BUDGET);
    let stamp = || memory.get(files.by_id, &files.key(7).id, None).map(|fact| fact.stamp().as_u64());
    memory.insert(&files.file(7, 5), || false);
    assert_eq!(stamp(), None);
    for (inserted, kept) in [(5, 5), (4, 5), (6, 6), (5, 6)] {
        memory.insert(&files.file(7, inserted), || true);
        assert_eq!(stamp(), Some(kept));
    }
    memory.insert(&files.file(7, 9), || false);
    assert_eq!(stamp(), Some(6));
}

#[tokio::test]
async fn a_hit_allocates_nothing() {
    let schema = Arc::new(shipped_schema("fylora-sharing.toml"));
    let collections = BTreeMap::from([
        ("users".to_owned(), vec![doc! { "_id": id(1, 1), "is_active": true }]),
        ("files".to_owned(), vec![doc! { "_id": id(2, 1), "owner_id": id(1, 1), "folder_id": id(3, 1) }]),
    ]);
    let source = Documents::new(&schema, &collections);
    let first = source.revision();
    let App { checker, facts, freshness, .. } = assemble(Parts::new(Arc::clone(&schema), Arc::new(source)));
    freshness.begin_at(first);
    let asked = question(&schema, &format!("user:{}", id(1, 1)), "read", &format!("file:{}", id(2, 1)));
    let questions = std::slice::from_ref(&asked);
    let ask = || checker.check(questions, Consistency::MinimizeLatency, Deadline::after(Duration::from_mins(1)));
    let _loads = ask().await;
    let warm = ask().await.remove(0).expect("an answer");
    assert_eq!(warm.tier, Tier::Memory);

    let by_id = lookup(&schema, "files", "_id");
    let mut cached = None;
    let hit = allocation_counter::measure(|| {
        cached = facts.cached(by_id, &asked.resource.id, None, FreshnessRequirement::default());
    });
    assert_eq!(cached.expect("it is cached").fact.id(), &asked.resource.id);
    assert_eq!(hit.count_total, 0, "{hit:?}");
    let miss = allocation_counter::measure(|| {
        assert!(facts.cached(by_id, &Id::ObjectId([9; 12]), None, FreshnessRequirement::default()).is_none());
    });
    assert_eq!(miss.count_total, 0, "{miss:?}");
    let mut checked = None;
    let whole = allocation_counter::measure(|| {
        let deadline = Deadline::after(Duration::from_mins(1));
        let check = checker.check_one(&asked, Consistency::MinimizeLatency, deadline);
        checked = check.now_or_never();
    });
    let checked = checked.expect("nothing has to be waited for").expect("an answer");
    assert_eq!((checked.answer, checked.tier), (warm.answer, Tier::Memory));
    assert_eq!(whole.count_total, 0, "{whole:?}");
}
