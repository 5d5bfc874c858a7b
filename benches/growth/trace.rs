//! The memory of a cache with a budget over a long simulated trace: look-ups of files and of their shares, most of them for a few
//! files, which change over time, and now and then of every file in turn. Missing facts are loaded and inserted. Beside
//! `quick_cache` with the same budget.

use std::hint::black_box;

use foldhash::fast::RandomState;
use permcached::fact::{Fact, FactKey};

use super::{
    child,
    facts::{Files, Tested},
    plot::{Panel, plot},
    resident,
};

/// The first argument of the process that looks up.
pub(crate) const ARGUMENT: &str = "replay-trace";

/// The budget, in bytes.
const BUDGET: u32 = 64 * 1_024 * 1_024;

/// How many files there are. Their facts would take about ten times the budget.
const FILES: u32 = 2_000_000;

const LOOK_UPS: u32 = 20_000_000;

/// How many look-ups lie between two samples.
const SAMPLE: u32 = 100_000;

/// Of so many look-ups, the first eighth goes through the files in turn.
const SCAN_EVERY: u32 = 1_000_000;

/// After so many look-ups, one more file becomes frequent, in place of another.
const DRIFT: u32 = 50;

const CACHES: [&str; 2] = ["quick_cache", "permcached"];

const MB: f64 = 1e6;

pub(crate) fn run() {
    println!("\n{:<24} {:>10} {:>10} {:>10} {:>10}", "20 million look-ups", "found", "first MB", "most MB", "last MB");
    let mut panel = Panel::new("resident memory of the process, MB", "million look-ups");
    for cache in CACHES {
        let samples = child(&[ARGUMENT, cache]);
        let points: Vec<(f64, f64)> = samples.iter().map(|sample| (sample[0] / 1e6, sample[1] / MB)).collect();
        let found = samples.last().map_or(0.0, |sample| sample[2]);
        let most = points.iter().map(|point| point.1).fold(0.0, f64::max);
        let (first, last) = (points[0].1, points[points.len() - 1].1);
        println!("{cache:<24} {:>8.1} % {first:>10.1} {most:>10.1} {last:>10.1}", 100.0 * found);
        panel = panel.points(cache, points);
    }
    let budget = f64::from(BUDGET);
    for (name, bytes) in [("budget", budget), ("target: 1.3 times the budget, and 25 MB", 1.3 * budget + 25.0 * MB)] {
        panel = panel.points(name, vec![(0.0, bytes / MB), (f64::from(LOOK_UPS) / 1e6, bytes / MB)]);
    }
    plot("growth-trace", &[panel]);
}

/// Looks up in a cache. Prints for each sample the number of look-ups, the resident memory and the share that was found.
pub(crate) fn replay(arguments: &[String]) {
    let files = Files::new();
    if arguments == [CACHES[1]] {
        let tested = Tested::new(&files.schema, usize::try_from(BUDGET).expect("a 64-bit machine"));
        follow(&files, |key| tested.get(key), |fact| tested.insert(&fact));
    } else {
        let lifecycle = quick_cache::sync::DefaultLifecycle::default();
        let hasher = RandomState::default();
        let cache: quick_cache::sync::Cache<FactKey, Fact, Weighter, RandomState> =
            quick_cache::sync::Cache::with(400_000, u64::from(BUDGET), Weighter, hasher, lifecycle);
        follow(&files, |key| cache.get(key).is_some(), |fact| cache.insert(fact.key(), fact));
    }
}

#[derive(Clone)]
struct Weighter;

impl quick_cache::Weighter<FactKey, Fact> for Weighter {
    fn weight(&self, _: &FactKey, fact: &Fact) -> u64 {
        u64::try_from(fact.memory()).unwrap_or(u64::MAX)
    }
}

fn follow(files: &Files, get: impl Fn(&FactKey) -> bool, insert: impl Fn(Fact)) {
    let mut random = fastrand::Rng::with_seed(1);
    let (mut found, mut scanned) = (0_u32, 0_u32);
    for number in 0..LOOK_UPS {
        if number.is_multiple_of(SAMPLE) {
            println!("{number} {} {}", resident(), f64::from(found) / f64::from(number.max(1)));
        }
        let file = if number % SCAN_EVERY < SCAN_EVERY / 8 {
            scanned += 1;
            scanned % FILES
        } else {
            // Half of these look-ups are for one file in sixteen.
            let place = frequent(&mut random);
            (place + number / DRIFT) % FILES
        };
        let is_file = number.is_multiple_of(2);
        let key = if is_file { files.file_key(file) } else { files.shares_key(file) };
        if get(black_box(&key)) {
            found += 1;
        } else {
            insert(if is_file { files.file(file) } else { files.shares(file) });
        }
    }
    println!("{LOOK_UPS} {} {}", resident(), f64::from(found) / f64::from(LOOK_UPS));
}

#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it is between 0 and the number of files"
)]
fn frequent(random: &mut fastrand::Rng) -> u32 {
    (f64::from(FILES) * random.f64().powi(4)) as u32
}
