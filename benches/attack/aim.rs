//! The server that an attacker aims at, and how it answered.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

/// The port of a server, and a count of its answers. Clones share the count.
#[derive(Clone)]
pub(crate) struct Aim {
    pub(crate) address: SocketAddr,
    answers: Arc<Mutex<BTreeMap<String, u64>>>,
}

impl Aim {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, answers: Arc::default() }
    }

    /// Counts an answer: a gRPC code, or what went wrong instead.
    pub(crate) fn count(&self, answer: &str) {
        let mut answers = self.answers.lock().expect("nobody panics");
        *answers.entry(answer.to_owned()).or_default() += 1;
    }

    /// How often each answer was received.
    pub(crate) fn summary(&self) -> String {
        let answers = self.answers.lock().expect("nobody panics");
        let all = answers.iter().map(|(answer, count)| format!("{answer}: {count}"));
        all.collect::<Vec<_>>().join(", ")
    }
}
