//! A hit and the memory of a fact, by the number of cached facts, beside a `DashMap` of the same facts, which has neither budget
//! nor eviction. Each is measured in a process of its own.

use std::{fs, hint::black_box, time::Instant};

use dashmap::DashMap;
use foldhash::fast::RandomState;
use permcached::fact::{Fact, FactKey};

use super::{
    child,
    facts::{Files, Tested},
    plot::{Panel, plot},
    resident,
};

/// The first argument of the process that measures.
pub(crate) const ARGUMENT: &str = "measure-cache";

const COUNTS: [u32; 4] = [10_000, 100_000, 1_000_000, 10_000_000];

const CACHES: [&str; 2] = ["DashMap", "permcached"];

/// The bytes of memory that the largest count may take for each fact.
const BYTES_MAX: u64 = 400;

/// How many hits a run has.
const HITS: u32 = 1_000_000;

const RUNS: u32 = 5;

/// An order in which the processor's caches do not help.
const STEP: u64 = 2_654_435_761;

/// The bytes of memory that are free.
fn available() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").expect("this bench runs on Linux");
    let size = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")).expect("a size");
    let kibibytes: u64 = size.trim().trim_end_matches(" kB").parse().expect("the size is a number");
    kibibytes * 1_024
}

pub(crate) fn run() {
    let mut counts = COUNTS.to_vec();
    let last = counts.last_mut().expect("there are some");
    if available() < u64::from(*last) * BYTES_MAX {
        *last = 3_000_000;
        println!("\nthis machine has too little memory for {} facts: {last} instead", COUNTS[3]);
    }
    println!(
        "\n{:<24} {:>12} {:>12} {:>6} {:>12} {:>12}",
        "facts", "ns a hit", "ns a hit", "ratio", "bytes a fact", "bytes a fact"
    );
    println!("{:<24} {:>12} {:>12} {:>6} {:>12} {:>12}", "", "DashMap", "own", "", "DashMap", "own");
    let (mut nanoseconds, mut bytes) = ([const { Vec::new() }; 2], [const { Vec::new() }; 2]);
    for count in &counts {
        for (place, cache) in CACHES.iter().enumerate() {
            let lines = child(&[ARGUMENT, cache, &count.to_string()]);
            nanoseconds[place].push(lines[0][0]);
            bytes[place].push(lines[0][1]);
        }
        let last = nanoseconds[0].len() - 1;
        let (map, own) = (nanoseconds[0][last], nanoseconds[1][last]);
        println!(
            "{count:<24} {map:>12.0} {own:>12.0} {:>6.2} {:>12.0} {:>12.0}",
            own / map,
            bytes[0][last],
            bytes[1][last]
        );
    }
    let names: Vec<String> = counts.iter().map(|count| thousands(*count)).collect();
    let panel = |title, [map, own]: [Vec<f64>; 2]| {
        Panel::of_steps(title, "cached facts", names.clone()).line("DashMap, no budget", map).line("permcached", own)
    };
    plot("growth-facts", &[panel("a hit, ns", nanoseconds), panel("memory of a fact, bytes", bytes)]);
}

fn thousands(count: u32) -> String {
    match count {
        1_000_000.. => format!("{} million", count / 1_000_000),
        _ => format!("{} thousand", count / 1_000),
    }
}

/// Fills a cache. Prints the nanoseconds of a hit, the best of several runs, and the bytes of a fact.
pub(crate) fn measure(arguments: &[String]) {
    let [cache, count] = arguments else { panic!("a cache and a count") };
    let (files, count) = (Files::new(), count.parse().expect("a count"));
    let before = resident();
    if cache == CACHES[1] {
        let tested = Tested::new(
            &files.schema,
            usize::try_from(u64::from(count) * BYTES_MAX + (1 << 20)).expect("a 64-bit machine"),
        );
        (0..count).for_each(|number| tested.insert(&files.file(number)));
        report(before, count, |number| tested.get(&files.file_key(number)));
    } else {
        let map: DashMap<FactKey, Fact, RandomState> = DashMap::with_hasher(RandomState::default());
        (0..count).for_each(|number| drop(map.insert(files.file_key(number), files.file(number))));
        report(before, count, |number| map.get(&files.file_key(number)).map(|fact| fact.clone()).is_some());
    }
}

fn report(before: f64, count: u32, get: impl Fn(u32) -> bool) {
    let bytes = (resident() - before) / f64::from(count);
    let run = |_| {
        let started = Instant::now();
        let mut found = 0;
        for number in 0..u64::from(HITS) {
            let number = u32::try_from(number * STEP % u64::from(count)).expect("a number below the count");
            found += u32::from(get(black_box(number)));
        }
        let nanoseconds = started.elapsed().as_secs_f64() * 1e9 / f64::from(HITS);
        assert!(found >= HITS / 100 * 99, "{found} of {HITS} facts are cached");
        nanoseconds
    };
    let best = (0..RUNS).map(run).fold(f64::INFINITY, f64::min);
    println!("{best} {bytes}");
}
