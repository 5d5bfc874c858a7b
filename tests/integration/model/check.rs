//! Going through a run, to the end or to the first promise that is broken.

use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model};

use super::{choices::Action, protocol::Protocol, run::Run, safeguards::Safeguard};

/// A way to break a promise: one of the shortest there are.
#[derive(Debug)]
pub struct Broken {
    pub promise: &'static str,
    pub steps: Vec<Action>,
}

/// Goes through a run, and says what is broken. Where nothing is, all of it has been tried, and all that should come about
/// has.
pub fn check(run: Run, without: &[Safeguard]) -> Option<Broken> {
    let begun = Instant::now();
    let protocol = Protocol::new(run, without);
    let checker = protocol.clone().checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let mut broken = None;
    for property in protocol.properties() {
        let found = checker.discovery(property.name);
        if property.expectation.discovery_is_failure() {
            broken = broken.or(found.map(|path| Broken { promise: property.name, steps: path.into_actions() }));
        } else {
            assert!(found.is_some() || !without.is_empty(), "{}: never came about: {}", run.name, property.name);
        }
    }
    println!(
        "{}{without:?}: {} states, {} of them different, {:.1} s: {broken:?}",
        run.name,
        checker.state_count(),
        checker.unique_state_count(),
        begun.elapsed().as_secs_f32(),
    );
    assert!(checker.is_done(), "{}: not gone through to its end", run.name);
    broken
}
