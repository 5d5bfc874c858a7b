//! The memory that a million cached file facts take, by the growth of the whole process, and the time of a hit. The same
//! is measured for two established caches with the same keys, facts and budget in bytes, and for a map that is no cache.
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
const BYTES_MAX: u32 = 1 << 30;
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

/// Fills a cache, then looks up every fact, in an order in which the processor's caches do not help. Prints the bytes of
/// a fact and the nanoseconds of a hit: the best of several runs shows what the machine can do.
fn measure(files: &Files, insert: impl Fn(FactKey, Fact), get: impl Fn(FactKey) -> bool) {
    const RUNS: u32 = 5;
    const STEP: u64 = 2_654_435_761;
    let before = resident();
    (0..FACTS).for_each(|number| insert(files.key(number), files.fact(number)));
    let bytes = f64::from(resident() - before) / f64::from(FACTS);
    let run = |_| {
        let started = Instant::now();
        let mut found = 0;
        for number in 0..u64::from(FACTS) {
            let number = u32::try_from(number * STEP % u64::from(FACTS)).expect("a number below FACTS");
            found += u32::from(get(black_box(files.key(number))));
        }
        assert!(found >= FACTS / 100 * 99, "{found} of {FACTS} facts are cached");
        started.elapsed().as_secs_f64() * 1e9 / f64::from(FACTS)
    };
    println!("{bytes} {}", (0..RUNS).map(run).fold(f64::INFINITY, f64::min));
}

fn measure_cache(cache: &str) {
    let schema = Arc::new(Schema::parse("schema.toml", SCHEMA).expect("the shipped schema is valid"));
    let is_it = |lookup: &permcached::schema::Lookup| &*lookup.collection == "files" && lookup.is_by_id();
    let lookup = schema.lookups().find(|(_, lookup)| is_it(lookup)).expect("the schema reads files").0;
    let files = Files { schema: Arc::clone(&schema), lookup };
    let bytes_max = usize::try_from(BYTES_MAX).expect("a 64-bit machine");
    match cache {
        "permcached" => {
            let memory = Arc::new(Memory::new(bytes_max));
            let freshness = Arc::new(Freshness::new(&schema));
            freshness.begin_at(Moment::from_count(1));
            let source = Arc::new(Documents::new(&schema, &std::collections::BTreeMap::new()));
            let facts = Facts::new(source, freshness, Arc::clone(&memory), None, Arc::default());
            let requirement = FreshnessRequirement { as_of: Moment::from_count(1), stamp: Moment::default() };
            let get = |key: FactKey| facts.cached(key.lookup, &key.id, None, requirement).is_some();
            measure(&files, |_, fact| memory.insert(&fact, || true), get);
        }
        "permcached, no marks" => {
            let memory = Memory::new(bytes_max);
            let get = |key: FactKey| memory.get(key.lookup, &key.id, None).is_some();
            measure(&files, |_, fact| memory.insert(&fact, || true), get);
        }
        "dashmap" => {
            // A map, not a cache: it has no budget and evicts nothing.
            let map = dashmap::DashMap::with_hasher(RandomState::default());
            let insert = |key, fact| drop(map.insert(key, fact));
            measure(&files, insert, |key| map.get(&key).map(|fact| fact.clone()).is_some());
        }
        "moka" => {
            let cache = moka::sync::Cache::builder()
                .max_capacity(BYTES_MAX.into())
                .weigher(|_: &FactKey, fact: &Fact| u32::try_from(fact.memory()).unwrap_or(u32::MAX))
                .build_with_hasher(RandomState::default());
            measure(&files, |key, fact| cache.insert(key, fact), |key| cache.get(&key).is_some());
        }
        "quick_cache" => {
            #[derive(Clone)]
            struct Weighter;
            impl quick_cache::Weighter<FactKey, Fact> for Weighter {
                fn weight(&self, _: &FactKey, fact: &Fact) -> u64 {
                    u64::try_from(fact.memory()).unwrap_or(u64::MAX)
                }
            }
            let facts = usize::try_from(FACTS).expect("a 64-bit machine");
            let hasher = RandomState::default();
            let lifecycle = quick_cache::sync::DefaultLifecycle::default();
            let cache = quick_cache::sync::Cache::with(facts, BYTES_MAX.into(), Weighter, hasher, lifecycle);
            measure(&files, |key, fact| cache.insert(key, fact), |key| cache.get(&key).is_some());
        }
        other => panic!("unknown cache {other}"),
    }
}

fn main() {
    if let Ok(cache) = env::var(CACHE) {
        return measure_cache(&cache);
    }
    let program = env::current_exe().expect("this program has a path");
    println!("{:<22} {:>13} {:>8} {:>8} {:>8}", "1,000,000 file facts", "bytes a fact", "ratio", "ns a hit", "ratio");
    let mut first = None;
    for cache in CACHES {
        let child = Command::new(&program).env(CACHE, cache).stderr(Stdio::inherit()).output();
        let printed = String::from_utf8(child.expect("this program runs").stdout).expect("it prints text");
        let numbers: Vec<f64> = printed.split_whitespace().filter_map(|number| number.parse().ok()).collect();
        let [bytes, nanoseconds] = numbers[..] else { panic!("{cache} printed `{printed}`") };
        let (bytes_first, nanoseconds_first) = *first.get_or_insert((bytes, nanoseconds));
        let (bytes_ratio, ratio) = (bytes / bytes_first, nanoseconds / nanoseconds_first);
        println!("{cache:<22} {bytes:>13.0} {bytes_ratio:>8.2} {nanoseconds:>8.0} {ratio:>8.2}");
    }
}
