//! The HTTP/2 requests of a connection. They run on the connection's own task, so that a request needs no task of its own, and
//! moves to other threads together with its connection.
//!
//! Reads and writes nothing: hyper does.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant},
};

use futures::{StreamExt as _, stream::FuturesUnordered, task::AtomicWaker};
use hyper::rt::Executor;

use super::{giving_way::UntilGivenWay, low_priority::give_way, open_connection::OpenConnection};

/// How often a connection is run again in one turn because its requests have progressed. What is left is done in its next turn.
const RUNS_MAX: u32 = 4;

/// How long requests run in one turn, apart from the last of them, which ends. What is left is done in the next turn, after other
/// connections have had theirs, and maybe on other threads.
const TURN_TIME: Duration = Duration::from_micros(300);

/// For how many requests a connection keeps the memory in which they wait for their first run.
const KEPT_MAX: usize = 32;

/// The requests that hyper has begun to read, and that have not run yet.
#[derive(Clone, Default)]
pub(super) struct Arrived(Arc<Mutex<Vec<UntilGivenWay>>>);

impl Arrived {
    /// Moves them to the end of a queue. Keeps the memory for [`KEPT_MAX`] of them, so that no turn allocates it anew.
    fn move_to(&self, queue: &mut VecDeque<UntilGivenWay>) {
        let mut arrived = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        queue.extend(arrived.drain(..));
        arrived.shrink_to(KEPT_MAX);
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Arrived {
    fn execute(&self, request: F) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(UntilGivenWay::new(request));
    }
}

/// A connection with its requests. When it ends or is dropped, its requests are dropped.
pub(super) struct WithRequests<C> {
    connection: Pin<Box<C>>,
    open: Arc<OpenConnection>,
    arrived: Arrived,
    /// Those that have arrived, and not run yet.
    next: VecDeque<UntilGivenWay>,
    /// Those that have run and wait for something.
    waiting: FuturesUnordered<Request>,
    wakes: Arc<Wakes>,
    waker: Waker,
}

impl<C> WithRequests<C> {
    pub(super) fn new(connection: C, open: Arc<OpenConnection>, arrived: Arrived) -> Self {
        let wakes = Arc::<Wakes>::default();
        let waker = Waker::from(Arc::clone(&wakes));
        let (next, waiting) = (VecDeque::new(), FuturesUnordered::new());
        Self { connection: Box::pin(connection), open, arrived, next, waiting, wakes, waker }
    }

    pub(super) fn connection(&mut self) -> Pin<&mut C> {
        self.connection.as_mut()
    }
}

impl<C: Future> Future for WithRequests<C> {
    type Output = C::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<C::Output> {
        let this = &mut *self;
        this.wakes.task.register(context.waker());
        let waker = this.waker.clone();
        let mut context = Context::from_waker(&waker);
        let turn = this.open.turn();
        for _ in 0..RUNS_MAX {
            // What the last run has woken is run now.
            this.wakes.begin_run();
            // What waits for its turn is bounded by that.
            this.open.hold_input(!this.next.is_empty());
            if let Poll::Ready(ended) = this.connection.as_mut().poll(&mut context) {
                return Poll::Ready(ended);
            }
            if !this.run_requests(turn, &mut context) {
                break;
            }
        }
        if this.open.holds_input() {
            // The socket does not wake it.
            waker.wake_by_ref();
        }
        this.wakes.end_runs();
        Poll::Pending
    }
}

impl<C> WithRequests<C> {
    /// Runs the requests that can go on, until the turn that began then is over. Returns whether the connection is to run again in this
    /// turn: it may have something to write.
    fn run_requests(&mut self, turn: Instant, context: &mut Context<'_>) -> bool {
        self.arrived.move_to(&mut self.next);
        let mut has_progressed = false;
        loop {
            if has_progressed && turn.elapsed() > TURN_TIME {
                // The next turn begins with what these requests have to write.
                context.waker().wake_by_ref();
                return false;
            }
            if let Some(request) = self.next.pop_front() {
                let mut request = Request(request);
                // Most requests have arrived whole, and everything that they need is in memory: they end at once.
                if Pin::new(&mut request).poll(context).is_pending() {
                    self.waiting.push(request);
                }
            } else if self.waiting.is_empty() || self.waiting.poll_next_unpin(context).is_pending() {
                return has_progressed;
            }
            has_progressed = true;
            give_way();
        }
    }
}

/// What wakes a connection. Requests wake it whenever they have something for it to write. As they run on its own task, that need
/// not wake the task, which would cost more than the request.
#[derive(Debug, Default)]
struct Wakes {
    task: AtomicWaker,
    /// Whether the connection or its requests run now.
    is_running: AtomicBool,
    /// Whether it has been woken since the present run began, or since the last one if none runs.
    is_woken: AtomicBool,
}

impl Wakes {
    fn begin_run(&self) {
        self.is_running.store(true, Ordering::SeqCst);
        self.is_woken.swap(false, Ordering::SeqCst);
    }

    /// Ends a turn. The task is woken if the connection has been, and has not run since.
    fn end_runs(&self) {
        self.is_running.store(false, Ordering::SeqCst);
        if self.is_woken.load(Ordering::SeqCst) {
            self.task.wake();
        }
    }
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let was_woken = self.is_woken.swap(true, Ordering::SeqCst);
        if !was_woken && !self.is_running.load(Ordering::SeqCst) {
            self.task.wake();
        }
    }
}

/// A request. If it panics, it ends, and the others on its connection go on.
struct Request(UntilGivenWay);

impl Future for Request {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let request = Pin::new(&mut self.0);
        // Nothing of a request that has panicked is used again.
        catch_unwind(AssertUnwindSafe(|| request.poll(context))).unwrap_or(Poll::Ready(()))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::{pending, poll_fn},
        sync::atomic::{AtomicUsize, Ordering},
    };

    use futures::FutureExt as _;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn requests_run_on_the_task_of_their_connection_and_one_that_waits_is_run_when_it_is_woken() {
        let arrived = Arrived::default();
        let mut connection = WithRequests::new(pending::<()>(), OpenConnection::new(1), arrived.clone());
        let (wakes, woken) = oneshot::channel::<()>();
        let (ends, ended) = oneshot::channel();
        arrived.execute(async move {
            let _woken = woken.await;
            let _nobody_waits = ends.send(std::thread::current().id());
        });
        assert!((&mut connection).now_or_never().is_none());
        wakes.send(()).expect("it waits");
        tokio::select! {
            biased;
            thread = ended => assert_eq!(thread, Ok(std::thread::current().id())),
            () = connection => panic!("the connection does not end"),
        }
    }

    #[tokio::test]
    async fn requests_that_take_long_together_leave_others_their_turns() {
        let arrived = Arrived::default();
        let mut connection = WithRequests::new(pending::<()>(), OpenConnection::new(1), arrived.clone());
        let count = Arc::new(AtomicUsize::new(0));
        for number in 0..6 {
            let count = Arc::clone(&count);
            arrived.execute(async move {
                // Half of them have waited for something before.
                if number % 2 == 0 {
                    tokio::task::yield_now().await;
                }
                std::thread::sleep(TURN_TIME);
                count.fetch_add(1, Ordering::Relaxed);
            });
        }
        for turns in 1.. {
            poll_fn(|context| {
                assert!(Pin::new(&mut connection).poll(context).is_pending());
                Poll::Ready(())
            })
            .await;
            let ended = count.load(Ordering::Relaxed);
            assert!(ended <= turns, "one in each turn");
            if ended == 6 {
                break;
            }
            // It is woken, or else it would wait for ever.
            assert!(connection.wakes.is_woken.load(Ordering::SeqCst) || ended < turns);
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_request_that_panics_ends_alone() {
        let arrived = Arrived::default();
        let mut connection = WithRequests::new(pending::<()>(), OpenConnection::new(1), arrived.clone());
        let count = Arc::new(AtomicUsize::new(0));
        for number in 0..3 {
            let count = Arc::clone(&count);
            arrived.execute(async move {
                tokio::task::yield_now().await;
                assert!(number != 1, "a request that panics, as this test wants");
                count.fetch_add(1, Ordering::Relaxed);
            });
        }
        poll_fn(|context| {
            assert!(Pin::new(&mut connection).poll(context).is_pending());
            if count.load(Ordering::Relaxed) == 2 { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    #[tokio::test]
    async fn requests_of_a_connection_that_has_ended_are_dropped() {
        let arrived = Arrived::default();
        let (end, ended) = oneshot::channel::<()>();
        let mut connection = WithRequests::new(ended, OpenConnection::new(1), arrived.clone());
        let (alive, dropped) = oneshot::channel::<()>();
        arrived.execute(async move {
            pending::<()>().await;
            drop(alive);
        });
        assert!((&mut connection).now_or_never().is_none());
        end.send(()).expect("it waits");
        (&mut connection).await.expect("it ends");
        drop(connection);
        assert!(dropped.await.is_err());
    }
}
