//! Runs property tests on generated cases, the same ones each time.

use std::fmt::Debug;

use proptest::{
    strategy::Strategy,
    test_runner::{Config, RngAlgorithm, RngSeed, TestCaseResult, TestError, TestRunner},
};

/// The cases that are generated, unless `PROPTEST_RNG_SEED` selects others.
const SEED: u64 = 1;

/// Tests this many cases, or more if `PROPTEST_CASES` is higher. Returns how many.
pub fn run<C: Debug>(
    strategy: &impl Strategy<Value = C>,
    cases: u32,
    max_shrink_time: u32,
    test: impl Fn(&C) -> TestCaseResult,
) -> u32 {
    let default = Config::default();
    let rng_seed = match default.rng_seed {
        RngSeed::Random => RngSeed::Fixed(SEED),
        fixed @ RngSeed::Fixed(_) => fixed,
    };
    let more = std::env::var("PROPTEST_CASES").ok().map(|text| text.parse().expect("PROPTEST_CASES is a number"));
    let cases = more.map_or(cases, |more: u32| more.max(cases));
    let rng_algorithm = RngAlgorithm::XorShift;
    let config = Config { cases, rng_seed, rng_algorithm, failure_persistence: None, max_shrink_time, ..default };
    match TestRunner::new(config).run(strategy, |case| test(&case)) {
        Ok(()) => cases,
        Err(TestError::Fail(reason, case)) => panic!("{reason}\nseed: {rng_seed:?}\n\n{case:?}"),
        Err(TestError::Abort(reason)) => panic!("{reason}"),
    }
}
