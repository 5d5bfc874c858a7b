//! The memory that a million cached file facts take, by the growth of the whole process, and the times of a hit, of an
//! insertion that evicts another fact, and of dropping everything. The same is measured for two established caches with the
//! same keys, facts and budget in bytes, and for a map that is no cache.
//!
//! This program starts a process of its own for each cache. It measures neither a source nor a network.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a bench stops with a message if it cannot run, and prints its results"
)]

use std::{
    env, fs,
    hint::black_box,
    process::{Command, Stdio},
    sync::Arc,
    thread,
    time::Instant,
};

use bson::{doc, oid::ObjectId};
use foldhash::fast::RandomState;
use permcached::{
    fact::{Fact, FactKey},
    facts::{Facts, FreshnessRequirement, Memory},
    freshness::{Freshness, Moment},
    question::{Id, LookupId},
    schema::Schema,
    source::documents::Documents,
};

const FACTS: u32 = 1_000_000;
const BYTES_MAX: u64 = 1 << 30;
const SCHEMA: &str = include_str!("../schemas/fylora-sharing.toml");

/// The environment variable that names the cache to measure. It is set in the processes that measure.
const CACHE: &str = "PERMCACHED_BENCH_CACHE";
const CACHES: [&str; 5] = ["permcached", "permcached, no marks", "dashmap", "quick_cache", "moka"];

fn id(kind: u8, number: u32) -> [u8; 12] {
    let mut bytes = [kind; 12];
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    bytes
}

/// Makes file facts of the shipped schema: each file has an owner and a folder, and every 20th is deleted.
struct Files {
    schema: Arc<Schema>,
    lookup: LookupId,
}

impl Files {
    fn key(&self, number: u32) -> FactKey {
        FactKey::whole(self.lookup, Id::ObjectId(id(2, number)))
    }

    fn fact(&self, number: u32) -> Fact {
        let object_id = |kind, number| ObjectId::from_bytes(id(kind, number));
        let (owner, folder) = (object_id(1, number % 10_000), object_id(3, number / 20));
        let is_deleted = number.is_multiple_of(20);
        let file =
            doc! { "_id": object_id(2, number), "owner_id": owner, "folder_id": folder, "is_deleted": is_deleted };
        Fact::read(&self.schema, self.key(number), Moment::from_count(1), &[&file])
    }
}

/// The resident memory of this process, in bytes.
fn resident() -> u32 {
    let status = fs::read_to_string("/proc/self/status").expect("this bench runs on Linux");
    let size = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process has a resident size");
    let kilobytes: u32 = size.trim().trim_end_matches(" kB").parse().expect("the size is a number");
    kilobytes * 1_024
}

/// A cache under test.
trait Cache: Sync {
    fn insert(&self, fact: Fact);

    /// Looks a fact up and takes it, as a check does. Returns whether it was there.
    fn get(&self, key: FactKey) -> bool;

    fn clear(&self);
}

/// L1, and every use of a fact tests its freshness, as the service does.
struct Tested {
    memory: Arc<Memory>,
    facts: Facts,
}

impl Tested {
    fn new(schema: &Arc<Schema>, bytes_max: u64) -> Self {
        let memory = Arc::new(Memory::new(usize::try_from(bytes_max).expect("a 64-bit machine")));
        let freshness = Arc::new(Freshness::new(schema));
        freshness.begin_at(Moment::from_count(1));
        let source = Arc::new(Documents::new(schema, &std::collections::BTreeMap::new()));
        let facts = Facts::new(source, freshness, Arc::clone(&memory), None, Arc::default());
        Self { memory, facts }
    }
}

impl Cache for Tested {
    fn insert(&self, fact: Fact) {
        self.memory.insert(&fact, || true);
    }

    fn get(&self, key: FactKey) -> bool {
        let requirement = FreshnessRequirement { as_of: Moment::from_count(1), stamp: Moment::default() };
        self.facts.cached(key.lookup, &key.id, None, requirement).is_some()
    }

    fn clear(&self) {
        self.memory.clear();
    }
}

impl Cache for Memory {
    fn insert(&self, fact: Fact) {
        Self::insert(self, &fact, || true);
    }

    fn get(&self, key: FactKey) -> bool {
        Self::get(self, key.lookup, &key.id, None).is_some()
    }

    fn clear(&self) {
        Self::clear(self);
    }
}

/// A map, not a cache: it has no budget and evicts nothing.
impl Cache for dashmap::DashMap<FactKey, Fact, RandomState> {
    fn insert(&self, fact: Fact) {
        drop(Self::insert(self, fact.key(), fact));
    }

    fn get(&self, key: FactKey) -> bool {
        Self::get(self, &key).map(|fact| fact.clone()).is_some()
    }

    fn clear(&self) {
        Self::clear(self);
    }
}

impl Cache for moka::sync::Cache<FactKey, Fact, RandomState> {
    fn insert(&self, fact: Fact) {
        Self::insert(self, fact.key(), fact);
    }

    fn get(&self, key: FactKey) -> bool {
        Self::get(self, &key).is_some()
    }

    fn clear(&self) {
        self.invalidate_all();
        self.run_pending_tasks();
    }
}

#[derive(Clone)]
struct Weighter;

impl quick_cache::Weighter<FactKey, Fact> for Weighter {
    fn weight(&self, _: &FactKey, fact: &Fact) -> u64 {
        u64::try_from(fact.memory()).unwrap_or(u64::MAX)
    }
}

impl Cache for quick_cache::sync::Cache<FactKey, Fact, Weighter, RandomState> {
    fn insert(&self, fact: Fact) {
        Self::insert(self, fact.key(), fact);
    }

    fn get(&self, key: FactKey) -> bool {
        Self::get(self, &key).is_some()
    }

    fn clear(&self) {
        Self::clear(self);
    }
}

/// Looks every fact up, in an order in which the processor's caches do not help, from some threads at once. Returns the
/// nanoseconds of a hit: the best of several runs shows what the machine can do.
fn hit<C: Cache>(files: &Files, cache: &C, threads: u32) -> f64 {
    const RUNS: u32 = 5;
    const STEP: u64 = 2_654_435_761;
    let look_up_all = |thread: u32| {
        let first = u64::from(FACTS / threads * thread);
        let mut found = 0;
        for number in 0..u64::from(FACTS) {
            let number = (first + number) * STEP % u64::from(FACTS);
            let number = u32::try_from(number).expect("a number below FACTS");
            found += u32::from(cache.get(black_box(files.key(number))));
        }
        assert!(found >= FACTS / 100 * 99, "{found} of {FACTS} facts are cached");
    };
    let run = |_| {
        let started = Instant::now();
        thread::scope(|scope| {
            for thread in 1..threads {
                scope.spawn(move || look_up_all(thread));
            }
            look_up_all(0);
        });
        started.elapsed().as_secs_f64() * 1e9 / f64::from(FACTS)
    };
    (0..RUNS).map(run).fold(f64::INFINITY, f64::min)
}

/// The nanoseconds of an insertion into a full cache, which has to evict another fact each time.
fn insert_and_evict<C: Cache>(files: &Files, cache: &C) -> f64 {
    let facts: Vec<Fact> = (0..FACTS).map(|number| files.fact(number)).collect();
    let (first, others) = facts.split_at(facts.len() / 2);
    for fact in first {
        cache.insert(fact.clone());
    }
    let started = Instant::now();
    for fact in others {
        cache.insert(fact.clone());
    }
    started.elapsed().as_secs_f64() * 1e9 / (f64::from(FACTS) / 2.0)
}

/// Prints the bytes of a fact, the nanoseconds of a hit from one and from two threads, the nanoseconds of an insertion that
/// evicts, and the milliseconds that it takes to drop everything.
fn measure<C: Cache>(files: &Files, new: impl Fn(u64) -> C, is_bounded: bool) {
    let before = resident();
    let cache = new(BYTES_MAX);
    (0..FACTS).for_each(|number| cache.insert(files.fact(number)));
    let bytes = f64::from(resident() - before) / f64::from(FACTS);
    let (one, two) = (hit(files, &cache, 1), hit(files, &cache, 2));
    let started = Instant::now();
    cache.clear();
    let clear = started.elapsed().as_secs_f64() * 1e3;
    drop(cache);
    let insert = if is_bounded { insert_and_evict(files, &new(BYTES_MAX / 32)) } else { f64::NAN };
    println!("{bytes} {one} {two} {insert} {clear}");
}

fn measure_cache(cache: &str) {
    let schema = Arc::new(Schema::parse("schema.toml", SCHEMA).expect("the shipped schema is valid"));
    let is_it = |lookup: &permcached::schema::Lookup| &*lookup.collection == "files" && lookup.is_by_id();
    let lookup = schema.lookups().find(|(_, lookup)| is_it(lookup)).expect("the schema reads files").0;
    let files = Files { schema: Arc::clone(&schema), lookup };
    match cache {
        "permcached" => measure(&files, |bytes| Tested::new(&schema, bytes), true),
        "permcached, no marks" => {
            measure(&files, |bytes| Memory::new(usize::try_from(bytes).expect("a 64-bit machine")), true);
        }
        "dashmap" => measure(&files, |_| dashmap::DashMap::with_hasher(RandomState::default()), false),
        "moka" => {
            let new = |bytes| {
                moka::sync::Cache::builder()
                    .max_capacity(bytes)
                    .weigher(|_: &FactKey, fact: &Fact| u32::try_from(fact.memory()).unwrap_or(u32::MAX))
                    .build_with_hasher(RandomState::default())
            };
            measure(&files, new, true);
        }
        "quick_cache" => {
            let facts = usize::try_from(FACTS).expect("a 64-bit machine");
            let new = |bytes| {
                let lifecycle = quick_cache::sync::DefaultLifecycle::default();
                quick_cache::sync::Cache::with(facts, bytes, Weighter, RandomState::default(), lifecycle)
            };
            measure(&files, new, true);
        }
        other => panic!("unknown cache {other}"),
    }
}

fn main() {
    if let Ok(cache) = env::var(CACHE) {
        return measure_cache(&cache);
    }
    let program = env::current_exe().expect("this program has a path");
    println!(
        "{:<22} {:>12} {:>6} {:>9} {:>6} {:>12} {:>18} {:>9}",
        "1,000,000 file facts",
        "bytes a fact",
        "ratio",
        "ns a hit",
        "ratio",
        "two threads",
        "insert and evict",
        "clear"
    );
    let mut first = None;
    for cache in CACHES {
        let child = Command::new(&program).env(CACHE, cache).stderr(Stdio::inherit()).output();
        let printed = String::from_utf8(child.expect("this program runs").stdout).expect("it prints text");
        let numbers: Vec<f64> = printed.split_whitespace().filter_map(|number| number.parse().ok()).collect();
        let [bytes, one, two, insert, clear] = numbers[..] else { panic!("{cache} printed `{printed}`") };
        let (bytes_first, one_first) = *first.get_or_insert((bytes, one));
        let insert = if insert.is_nan() { "-".to_owned() } else { format!("{insert:.0} ns") };
        let (bytes_ratio, ratio) = (bytes / bytes_first, one / one_first);
        println!(
            "{cache:<22} {bytes:>12.0} {bytes_ratio:>6.2} {one:>9.0} {ratio:>6.2} {two:>12.0} {insert:>18} {clear:>6.1} ms"
        );
    }
}
