//! Runs the model checker over a run: to the end, or to the first world in which a promise is broken.
//!
//! Knows nothing about the protocol.

use std::time::Instant;

use stateright::{Checker, CheckerBuilder, HasDiscoveries, Model};

use super::{choices::Action, protocol::Protocol, run::Run, safeguards::Safeguard};

/// The search for a way to break a promise ends after this many steps.
const STEPS_MAX: usize = 9;

/// Tries everything that can happen in a run, and asserts that every promise holds.
pub fn holds(run: Run) {
    let begun = Instant::now();
    let (protocol, checker) = checker(run, &[]);
    let checker = checker.finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    println!("{}: {} worlds, {:.1} s", run.name, checker.unique_state_count(), begun.elapsed().as_secs_f32());
    for property in protocol.properties() {
        let found = checker.discovery(property.name);
        if property.expectation.discovery_is_failure() {
            let steps = found.map(stateright::Path::into_actions);
            assert!(steps.is_none(), "{}: broken: {}: {steps:#?}", run.name, property.name);
        } else {
            assert!(found.is_some(), "{}: never occurs: {}", run.name, property.name);
        }
    }
    assert!(checker.is_done(), "{}: the checker stopped before the end", run.name);
}

/// A shortest sequence of steps that breaks a promise without a safeguard.
pub fn breaks(run: Run, without: Safeguard, promise: &'static str) -> Vec<Action> {
    // One length after the other, because the checker alone does not guarantee the shortest sequence.
    for length in 0..=STEPS_MAX {
        let (_, checker) = checker(run, &[without]);
        let wanted = HasDiscoveries::AnyOf([promise].into());
        // Two more: the first world counts as depth 1, and the checker does not examine worlds at the maximum depth.
        let checker = checker.finish_when(wanted).target_max_depth(length + 2).spawn_bfs().join();
        if let Some(path) = checker.discovery(promise) {
            return path.into_actions();
        }
    }
    panic!("{without:?}: the promise \"{promise}\" holds without it, for {STEPS_MAX} steps");
}

fn checker(run: Run, without: &[Safeguard]) -> (Protocol, CheckerBuilder<Protocol>) {
    let protocol = Protocol::new(run, without);
    (protocol.clone(), protocol.checker())
}
