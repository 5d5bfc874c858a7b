//! Threads of lower priority than those of the runtime, for work that must not delay the calls of others: large requests, and
//! connections whose client has not shown that it may call.
//!
//! Does not bound how much work there is: those who pass it do.

use std::{
    cell::Cell,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    thread,
    time::{Duration, Instant},
};

use tokio::{
    runtime::{Builder, Handle, Runtime},
    task::{JoinError, JoinHandle},
};
use tokio_util::task::AbortOnDropHandle;
use tracing::instrument::WithSubscriber as _;

/// How much the threads lower their priority. With it they have about a sixth of a processor that others keep busy. If they had
/// more, a thread of normal priority that wakes would wait for a millisecond and more, because Linux (6.18) lets each thread have its
/// share of the time that has passed before another one runs.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 7;

/// After how many tasks a thread looks at its sockets. With tokio's 61, a flood of connections could fill all places for new ones
/// before the first bytes of an honest one were noticed.
const TASKS_PER_LOOK: u32 = 8;

/// How long work may take until it gives way.
const WORK_TIME: Duration = Duration::from_micros(50);

thread_local! {
    /// When this thread gave way last; none if it has no low priority.
    static GAVE_WAY: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// The threads. They end when this is dropped.
#[derive(Debug)]
pub(super) struct LowPriority {
    /// None only while this is dropped.
    runtime: Option<Runtime>,
}

impl LowPriority {
    /// Starts threads with this name.
    ///
    /// # Errors
    /// If the threads cannot be started.
    pub(super) fn start(name: &str, threads: usize) -> std::io::Result<Self> {
        let mut builder = Builder::new_multi_thread();
        let runtime = builder
            .worker_threads(threads)
            .thread_name(name)
            .on_thread_start(lower_priority)
            .enable_io()
            .event_interval(TASKS_PER_LOOK)
            .build()?;
        Ok(Self { runtime: Some(runtime) })
    }

    /// Runs a future on the threads. What it starts and the timers that it waits for belong to the runtime of this call. The
    /// future ends, at its next pause, when the one that waits for it is dropped.
    ///
    /// # Errors
    /// If the future panics, or the threads end.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, JoinError> {
        let Some(task) = self.spawn(work) else { std::future::pending().await };
        AbortOnDropHandle::new(task).await
    }

    /// Runs something that creates or accepts a socket, so that the socket wakes these threads. Returns none if they have ended.
    pub(super) fn with_driver<T>(&self, create: impl FnOnce() -> T) -> Option<T> {
        let _entered = self.runtime.as_ref()?.enter();
        Some(create())
    }

    /// As [`LowPriority::run`], for work that nobody waits for. Returns none if the threads have ended.
    pub(super) fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<JoinHandle<T>> {
        // Logs go where they go for the one who starts the work.
        let work = OnRuntime { runtime: Handle::current(), work: Some(Box::pin(work.with_current_subscriber())) };
        self.runtime.as_ref().map(|runtime| runtime.spawn(work))
    }
}

impl Drop for LowPriority {
    fn drop(&mut self) {
        // Dropping a runtime waits for its threads, which is forbidden in asynchronous code.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A future that is polled on one runtime and uses another for what it starts: a load that is shared with small requests
/// must not have the low priority of the large request that started it.
struct OnRuntime<F> {
    runtime: Handle,
    /// None only while this is dropped.
    work: Option<Pin<Box<F>>>,
}

impl<F> Drop for OnRuntime<F> {
    fn drop(&mut self) {
        // What is dropped may start something, too.
        let _entered = self.runtime.enter();
        self.work = None;
    }
}

impl<F: Future> Future for OnRuntime<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        let entered = this.runtime.enter();
        let polled = this.work.as_mut().map_or(Poll::Pending, |work| work.as_mut().poll(context));
        drop(entered);
        yield_processor();
        polled
    }
}

/// Lets a thread of higher priority have this one's processor, if this one has low priority and has not given way for a while. To be called
/// in long work between its pauses: the system lets a thread run on for milliseconds, even if one of higher priority has work,
/// unless it yields.
pub(super) fn give_way() {
    if let Some(since) = GAVE_WAY.get()
        && since.elapsed() >= WORK_TIME
    {
        yield_processor();
    }
}

/// Lets another thread have this one's processor, and notes it.
fn yield_processor() {
    thread::yield_now();
    GAVE_WAY.set(Some(Instant::now()));
}

/// Lowers the priority of this thread. Elsewhere than on Linux, a process has only one priority for all of its threads.
fn lower_priority() {
    GAVE_WAY.set(Some(Instant::now()));
    #[cfg(target_os = "linux")]
    let _only_slower = rustix::process::nice(NICENESS);
}

#[cfg(test)]
mod tests {
    use tokio::{sync::oneshot, time::timeout};

    use super::*;

    /// How long something may take that has to happen.
    const PATIENCE: Duration = Duration::from_secs(30);

    fn threads() -> LowPriority {
        LowPriority::start("low", 1).expect("threads")
    }

    #[tokio::test]
    async fn only_the_work_itself_runs_on_the_threads() {
        let name = || thread::current().name().map(str::to_owned);
        let run =
            threads().run(async move { (name(), tokio::spawn(async move { name() }).await.ok().flatten()) }).await;
        let (own, spawned) = run.expect("no panic");
        assert_eq!(own.as_deref(), Some("low"));
        assert_ne!(spawned.as_deref(), Some("low"));
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn the_threads_have_a_lower_priority_than_that_of_the_one_who_starts_them() {
        let niceness = || rustix::process::nice(0).expect("reading it is permitted");
        let threads = threads();
        let lower = threads.run(async move { niceness() }).await.expect("no panic");
        assert_eq!(lower, (niceness() + NICENESS).min(19));
    }

    #[tokio::test]
    async fn long_work_gives_way_on_the_threads_and_nowhere_else() {
        let gave_way = || {
            thread::sleep(2 * WORK_TIME);
            let before = GAVE_WAY.get();
            give_way();
            (before, GAVE_WAY.get())
        };
        assert_eq!(gave_way(), (None, None));
        let (before, after) = threads().run(async move { gave_way() }).await.expect("no panic");
        assert!(before.is_some() && after > before, "{before:?} {after:?}");
    }

    #[tokio::test]
    async fn work_that_nobody_waits_for_ends() {
        let threads = threads();
        let (alive, ended) = oneshot::channel::<()>();
        let waiting = threads.run(async move {
            std::future::pending::<()>().await;
            drop(alive);
        });
        assert!(timeout(Duration::ZERO, waiting).await.is_err());
        assert!(timeout(PATIENCE, ended).await.expect("it ends").is_err());
    }
}
