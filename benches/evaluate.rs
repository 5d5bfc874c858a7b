//! The cost of one evaluation whose facts are all available, and of a whole check, of one question or of a batch, whose facts are
//! all in memory: nanoseconds and allocations, compared with the same decisions written by hand over hash maps.
//!
//! Does not measure sources or the network.

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a bench panics if it cannot run, and prints its results"
)]

use std::{
    collections::{BTreeMap, HashMap},
    hint::black_box,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use bson::{Document, doc, oid::ObjectId};
use criterion::Criterion;
use dashmap::DashMap;
use permcached::{
    app::{App, Parts, assemble},
    check::{Checker, Consistency, RequestFacts},
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
const FILES: u32 = 1_000;
const CALLS: u32 = 200_000;

fn id(kind: u8, number: u32) -> ObjectId {
    let mut bytes = [kind; 12];
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    ObjectId::from_bytes(bytes)
}

fn documents() -> BTreeMap<String, Vec<Document>> {
    let (owner, guest) = (id(1, 1), id(1, 2));
    let users = vec![doc! { "_id": owner, "is_active": true }, doc! { "_id": guest, "is_active": true }];
    let file = |number| doc! { "_id": id(2, number), "owner_id": owner, "folder_id": id(3, 1), "is_deleted": false };
    let folder = |number| {
        let parent = (number < DEPTH).then(|| id(3, number + 1));
        doc! { "_id": id(3, number), "owner_id": owner, "parent_id": parent, "is_deleted": false }
    };
    let shares = vec![doc! { "_id": id(4, 1), "folder_id": id(3, DEPTH), "user_id": guest }];
    BTreeMap::from([
        ("users".to_owned(), users),
        ("files".to_owned(), (1..=FILES).map(file).collect()),
        ("folders".to_owned(), (1..=DEPTH).map(folder).collect()),
        ("shares".to_owned(), shares),
    ])
}

/// Loads every fact that the question requires.
fn request_facts(schema: &Schema, source: &Documents, question: &Question) -> RequestFacts {
    let mut facts = RequestFacts::default();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    loop {
        let mut missing = Vec::new();
        if let Verdict::Decided(answer) = evaluate(schema, question, &facts, NOW, &mut missing) {
            assert!(matches!(answer, Answer::Allowed { .. }), "{answer:?}");
            return facts;
        }
        let loaded = source.load(missing, &[], Moment::default(), Deadline::after(Duration::from_secs(1)));
        for (_, result) in runtime.block_on(loaded) {
            facts.insert(result.expect("documents in memory are always available").into());
        }
    }
}

/// A map for the decisions that are written by hand.
trait Map<V>: FromIterator<(ObjectId, V)> {
    /// The result of `read` for the value of a key, if there is one.
    fn read<T>(&self, key: &ObjectId, read: impl FnOnce(&V) -> T) -> Option<T>;
}

type OfOneThread<V> = HashMap<ObjectId, V, foldhash::fast::RandomState>;
type Shared<V> = DashMap<ObjectId, V, foldhash::fast::RandomState>;

impl<V> Map<V> for OfOneThread<V> {
    fn read<T>(&self, key: &ObjectId, read: impl FnOnce(&V) -> T) -> Option<T> {
        self.get(key).map(read)
    }
}

impl<V> Map<V> for Shared<V> {
    fn read<T>(&self, key: &ObjectId, read: impl FnOnce(&V) -> T) -> Option<T> {
        self.get(key).map(|value| read(&value))
    }
}

/// The same decisions, written by hand for these questions alone.
struct ByHand<Users, Files, Folders, Shares> {
    users: Users,
    files: Files,
    folders: Folders,
    shares: Shares,
}

type File = (ObjectId, ObjectId, bool);
type Folder = (Option<ObjectId>, bool);
type Shares = Vec<(ObjectId, i64)>;

impl<U: Map<bool>, F: Map<File>, D: Map<Folder>, S: Map<Shares>> ByHand<U, F, D, S> {
    fn new() -> Self {
        let folder = |number| (id(3, number), ((number < DEPTH).then(|| id(3, number + 1)), false));
        Self {
            users: [(id(1, 1), true), (id(1, 2), true)].into_iter().collect(),
            files: (1..=FILES).map(|number| (id(2, number), (id(1, 1), id(3, 1), false))).collect(),
            folders: (1..=DEPTH).map(folder).collect(),
            shares: std::iter::once((id(3, DEPTH), vec![(id(1, 2), i64::MAX)])).collect(),
        }
    }

    fn may_read(&self, user: ObjectId, file: ObjectId, now: i64) -> bool {
        let shared = |key: &ObjectId| {
            let is_to_user = |all: &Shares| all.iter().any(|(to, until)| *to == user && now < *until);
            self.shares.read(key, is_to_user).unwrap_or(false)
        };
        let Some((owner, folder, deleted)) = self.files.read(&file, |file| *file) else { return false };
        if !self.users.read(&user, |active| *active).unwrap_or(false) || deleted {
            return false;
        }
        if owner == user || shared(&file) {
            return true;
        }
        let mut next = Some(folder);
        while let Some(folder) = next {
            let Some((parent, deleted)) = self.folders.read(&folder, |folder| *folder) else { return false };
            if deleted {
                return false;
            }
            if shared(&folder) {
                return true;
            }
            next = parent;
        }
        false
    }
}

/// The nanoseconds of one of `calls` calls: the best of several runs, to exclude disturbances.
fn nanoseconds(calls: u32, mut call: impl FnMut()) -> f64 {
    let run = |_| {
        let started = Instant::now();
        (0..calls).for_each(|_| call());
        started.elapsed().as_secs_f64() * 1e9 / f64::from(calls)
    };
    (0..21).map(run).fold(f64::INFINITY, f64::min)
}

/// Polls a future until it is ready.
fn wait<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return output;
        }
    }
}

/// A checker over the documents, which has all facts in memory.
struct Warm {
    checker: Checker,
    questions: Vec<Question>,
}

impl Warm {
    fn new(schema: &Arc<Schema>, questions: Vec<Question>) -> Self {
        let source = Documents::new(schema, &documents());
        let first = source.revision();
        let App { checker, freshness, .. } = assemble(Parts::new(Arc::clone(schema), Arc::new(source)));
        freshness.begin_at(first);
        Self { checker, questions }
    }

    fn check(&self) {
        let deadline = Deadline::after(Duration::from_secs(1));
        let consistency = Consistency::MinimizeLatency;
        if let [question] = &self.questions[..] {
            assert!(wait(self.checker.check_one(black_box(question), consistency, deadline)).is_ok());
        } else {
            let checked = wait(self.checker.check(black_box(&self.questions), consistency, deadline));
            assert!(black_box(checked).iter().all(Result::is_ok));
        }
    }

    /// The nanoseconds of a check, and how many allocations it makes.
    fn measure(&self) -> (f64, u64) {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().expect("a runtime");
        let _guard = runtime.enter();
        self.check();
        let allocations = allocation_counter::measure(|| self.check()).count_total;
        let questions = u32::try_from(self.questions.len()).expect("a small batch");
        (nanoseconds(20_000 / questions, || self.check()), allocations)
    }
}

/// Prints what checks take whose facts are all in memory, for one question and for batches.
fn measure_checks(schema: &Arc<Schema>) {
    type Hands = ByHand<Shared<bool>, Shared<File>, Shared<Folder>, Shared<Shares>>;
    let by_hand = Hands::new();
    println!("\n{:<28} {:>15} {:>11} {:>8} {:>12}", "facts in memory", "check", "by hand", "ratio", "allocations");
    for (name, user, files) in [
        ("owner", id(1, 1), 1),
        ("eight folders deep", id(1, 2), 1),
        ("owner, batch of 100", id(1, 1), 100),
        ("owner, batch of 1,000", id(1, 1), FILES),
    ] {
        let subject = user.to_hex();
        let subject = SubjectText::Known { kind: "user", id: &subject };
        let ask = |number| schema.question(subject, "read", "file", &id(2, number).to_hex());
        let questions: Result<Vec<Question>, _> = (1..=files).map(ask).collect();
        let (ours, allocations) = Warm::new(schema, questions.expect("the questions are valid")).measure();
        let theirs = nanoseconds(20_000 / files, || {
            let now = black_box(NOW);
            assert!((1..=files).all(|number| by_hand.may_read(black_box(user), id(2, number), now)));
        });
        let (ours, theirs) = (ours / f64::from(files), theirs / f64::from(files));
        println!("{name:<28} {ours:>12.0} ns {theirs:>8.0} ns {:>8.1} {allocations:>12}", ours / theirs);
    }
}

fn main() {
    type Hands = ByHand<OfOneThread<bool>, OfOneThread<File>, OfOneThread<Folder>, OfOneThread<Shares>>;
    let schema = Arc::new(Schema::parse("bench", SCHEMA).expect("the schema is well formed"));
    let source = Documents::new(&schema, &documents());
    let by_hand = Hands::new();
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
        let ours = nanoseconds(CALLS, || {
            black_box(ask());
        });
        let theirs = nanoseconds(CALLS, || {
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
    measure_checks(&schema);
}
