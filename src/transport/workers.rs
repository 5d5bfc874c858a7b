//! Workers answer large requests on threads of lower priority, so that the runtime's own threads are free for small ones. Large
//! requests take turns: whenever one yields, the next goes on.
//!
//! How many are worked at is bounded for each caller, so that one caller's requests do not delay those of others by more
//! than their number of turns.

use std::{collections::HashMap, future::Future, sync::Arc, thread::available_parallelism};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinError,
};

use super::low_priority::LowPriority;

/// How many requests of one caller are worked at, for each thread. Most of them may wait for facts at the same time; those
/// that do not take turns, because work yields.
const CALLER_REQUESTS_PER_THREAD: usize = 8;

/// How many requests are worked at, for each thread.
const REQUESTS_PER_THREAD: usize = 64;

/// The workers. They end when this is dropped.
#[derive(Debug)]
pub(super) struct Workers {
    threads: LowPriority,
    /// Free turns of all callers.
    turns: Arc<Semaphore>,
    /// Free turns of each caller, by name.
    caller_turns: HashMap<Arc<str>, Arc<Semaphore>>,
}

impl Workers {
    /// Starts one thread less than there are processors, and at least one, for these callers.
    ///
    /// # Errors
    /// If the threads cannot be started.
    pub(super) fn start<'a>(callers: impl IntoIterator<Item = &'a Arc<str>>) -> std::io::Result<Self> {
        let threads = available_parallelism().map_or(1, |processors| processors.get().saturating_sub(1)).max(1);
        let turns = || Arc::new(Semaphore::new(threads * CALLER_REQUESTS_PER_THREAD));
        let caller_turns = callers.into_iter().map(|name| (Arc::clone(name), turns())).collect();
        let turns = Arc::new(Semaphore::new(threads * REQUESTS_PER_THREAD));
        Ok(Self { threads: LowPriority::start("permcached-large", threads)?, turns, caller_turns })
    }

    /// Waits until a request of this caller, if it is known, may be worked at. Requests of a caller are served in their order.
    pub(super) async fn turn(&self, caller: Option<&str>) -> Turn {
        // Nobody closes the semaphores.
        let own = match caller.and_then(|caller| self.caller_turns.get(caller)) {
            Some(turns) => Arc::clone(turns).acquire_owned().await.ok(),
            None => None,
        };
        Turn { _own: own, _all: Arc::clone(&self.turns).acquire_owned().await.ok() }
    }

    /// As [`LowPriority::run`].
    ///
    /// # Errors
    /// If the future panics, or the workers end.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, JoinError> {
        self.threads.run(work).await
    }
}

/// The right of one request to be worked at.
pub(super) struct Turn {
    _own: Option<OwnedSemaphorePermit>,
    _all: Option<OwnedSemaphorePermit>,
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicBool, Ordering},
        time::Duration,
    };

    use futures::FutureExt as _;
    use tokio::time::timeout;

    use super::*;

    /// How long something may take that has to happen.
    const PATIENCE: Duration = Duration::from_secs(30);

    fn workers() -> Workers {
        Workers::start(&["greedy".into(), "modest".into()]).expect("threads")
    }

    #[tokio::test]
    async fn one_caller_cannot_take_the_turns_of_all() {
        let workers = workers();
        let mut taken = Vec::new();
        while let Some(turn) = workers.turn(Some("greedy")).now_or_never() {
            taken.push(turn);
            assert!(taken.len() < 10_000, "its turns are bounded");
        }
        let waiting = workers.turn(Some("greedy"));
        assert!(workers.turn(Some("modest")).now_or_never().is_some());
        drop(taken);
        assert!(timeout(PATIENCE, waiting).await.is_ok());
    }

    #[tokio::test]
    async fn work_that_yields_takes_turns_with_other_work() {
        let workers = workers();
        let is_done = Arc::new(AtomicBool::new(false));
        // More work than there are threads, none of which ends before the last is done.
        let endless = (0..=available_parallelism().map_or(1, std::num::NonZero::get)).map(|_| {
            let is_done = Arc::clone(&is_done);
            workers.run(async move {
                while !is_done.load(Ordering::Relaxed) {
                    tokio::task::yield_now().await;
                }
            })
        });
        let endless = futures::future::join_all(endless);
        let last = async {
            let done = workers.run(async move { is_done.store(true, Ordering::Relaxed) }).await;
            assert!(done.is_ok());
        };
        let all = timeout(PATIENCE, async { tokio::join!(endless, last) }).await;
        assert!(all.is_ok(), "the last one has its turn");
    }
}
