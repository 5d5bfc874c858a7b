//! The cost of one evaluation whose facts are all available: nanoseconds and allocations, compared with the same decision
//! written by hand over hash maps.
//!
//! Does not measure sources, caches or the network.

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a bench panics if it cannot run, and prints its results"
)]

use std::{
    collections::{BTreeMap, HashMap},
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use bson::{Document, doc, oid::ObjectId};
use criterion::Criterion;
use permcached::{
    check::RequestFacts,
    evaluate::{Verdict, evaluate},
    freshness::Moment,
    question::{Answer, Question},
    schema::{Schema, SubjectText},
    source::{Deadline, Source, documents::Documents},
};

/// Files in folders, with shares that apply to everything beneath a folder: the usual structure of a file store.
const SCHEMA: &str = include_str!("file_store.toml");

const NOW: i64 = 1_764_000_000_000;
const DEPTH: u32 = 8;

fn id(kind: u8, number: u32) -> ObjectId {
    let mut bytes = [kind; 12];
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    ObjectId::from_bytes(bytes)
}

fn documents() -> BTreeMap<String, Vec<Document>> {
    let (owner, guest) = (id(1, 1), id(1, 2));
    let users = vec![doc! { "_id": owner, "is_active": true }, doc! { "_id": guest, "is_active": true }];
    let files = vec![doc! { "_id": id(2, 1), "owner_id": owner, "folder_id": id(3, 1), "is_deleted": false }];
    let folder = |number| {
        let parent = (number < DEPTH).then(|| id(3, number + 1));
        doc! { "_id": id(3, number), "owner_id": owner, "parent_id": parent, "is_deleted": false }
    };
    let shares = vec![doc! { "_id": id(4, 1), "folder_id": id(3, DEPTH), "user_id": guest }];
    BTreeMap::from([
        ("users".to_owned(), users),
        ("files".to_owned(), files),
        ("folders".to_owned(), (1..=DEPTH).map(folder).collect()),
        ("shares".to_owned(), shares),
    ])
}

/// Loads every fact that the question requires.
fn request_facts(schema: &Schema, source: &Documents, question: &Question) -> RequestFacts {
    let mut facts = RequestFacts::new(schema.lookup_count());
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    loop {
        let mut missing = Vec::new();
        if let Verdict::Decided(answer) = evaluate(schema, question, &facts, NOW, &mut missing) {
            assert!(matches!(answer, Answer::Allowed { .. }), "{answer:?}");
            return facts;
        }
        let loaded = source.load(missing, Moment::default(), Deadline::after(Duration::from_secs(1)));
        for (key, result) in runtime.block_on(loaded) {
            facts.insert(key, result.expect("documents in memory are always available").into());
        }
    }
}

/// The same decision, written by hand for this question alone.
struct ByHand {
    users: HashMap<ObjectId, bool, foldhash::fast::RandomState>,
    files: HashMap<ObjectId, (ObjectId, ObjectId, bool), foldhash::fast::RandomState>,
    folders: HashMap<ObjectId, (Option<ObjectId>, bool), foldhash::fast::RandomState>,
    shares: HashMap<ObjectId, Vec<(ObjectId, i64)>, foldhash::fast::RandomState>,
}

impl ByHand {
    fn new() -> Self {
        let folder = |number| (id(3, number), ((number < DEPTH).then(|| id(3, number + 1)), false));
        Self {
            users: [(id(1, 1), true), (id(1, 2), true)].into_iter().collect(),
            files: std::iter::once((id(2, 1), (id(1, 1), id(3, 1), false))).collect(),
            folders: (1..=DEPTH).map(folder).collect(),
            shares: std::iter::once((id(3, DEPTH), vec![(id(1, 2), i64::MAX)])).collect(),
        }
    }

    fn may_read(&self, user: ObjectId, file: ObjectId, now: i64) -> bool {
        let shared = |key: &ObjectId| {
            self.shares.get(key).is_some_and(|all| all.iter().any(|(to, until)| *to == user && now < *until))
        };
        let Some((owner, folder, deleted)) = self.files.get(&file) else { return false };
        if !self.users.get(&user).is_some_and(|active| *active) || *deleted {
            return false;
        }
        if *owner == user || shared(&file) {
            return true;
        }
        let mut next = Some(*folder);
        while let Some(folder) = next {
            let Some((parent, deleted)) = self.folders.get(&folder) else { return false };
            if *deleted {
                return false;
            }
            if shared(&folder) {
                return true;
            }
            next = *parent;
        }
        false
    }
}

/// The nanoseconds of one call: the best of several runs, to exclude disturbances.
fn nanoseconds(mut call: impl FnMut()) -> f64 {
    const CALLS: u32 = 200_000;
    let run = |_| {
        let started = Instant::now();
        (0..CALLS).for_each(|_| call());
        started.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS)
    };
    (0..7).map(run).fold(f64::INFINITY, f64::min)
}

fn main() {
    let schema = Arc::new(Schema::parse("bench", SCHEMA).expect("the schema is well formed"));
    let source = Documents::new(&schema, &documents());
    let by_hand = ByHand::new();
    let mut criterion = Criterion::default().configure_from_args();
    let mut table = Vec::new();
    for (name, user) in [("owner", id(1, 1)), ("eight folders deep", id(1, 2))] {
        let file = id(2, 1);
        let subject = SubjectText::Known { kind: "user", id: &user.to_hex() };
        let question = schema.question(subject, "read", "file", &file.to_hex()).expect("the question is valid");
        let facts = request_facts(&schema, &source, &question);
        let mut missing = Vec::new();
        let mut ask = || evaluate(&schema, black_box(&question), &facts, black_box(NOW), &mut missing);
        let allocations = allocation_counter::measure(|| {
            black_box(ask());
        });
        let ours = nanoseconds(|| {
            black_box(ask());
        });
        let theirs = nanoseconds(|| {
            black_box(by_hand.may_read(black_box(user), black_box(file), black_box(NOW)));
        });
        table.push(format!(
            "{name:<20} {ours:>8.0} ns {theirs:>8.0} ns {:>8.1} {:>12}",
            ours / theirs,
            allocations.count_total
        ));

        let mut group = criterion.benchmark_group(name);
        group.bench_function("evaluate", |bencher| bencher.iter(&mut ask));
        group.bench_function("by hand", |bencher| {
            bencher.iter(|| by_hand.may_read(black_box(user), black_box(file), black_box(NOW)));
        });
        group.finish();
    }
    criterion.final_summary();
    println!("\n{:<20} {:>11} {:>11} {:>8} {:>12}", "facts available", "evaluate", "by hand", "ratio", "allocations");
    for row in table {
        println!("{row}");
    }
}
