//! What is known of an open connection: whether its client may call, whether it is idle, and whether it reads its responses.
//!
//! Reads and writes nothing (`paced_io` and hyper do), and closes nothing: `connections` does.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{sync::Notify, time::sleep};
use tokio_util::sync::CancellationToken;

use super::shares::{Begun, Share};

/// How many periods are distinguished: the present one, the one before it, and one to spare.
const PERIODS: u32 = 3;

/// How many bytes of its requests that wait for room may arrive: half of the connection's window, so that others can arrive.
const WAITING_BYTES_MAX: usize = 256 * 1_024;

/// How long a connection stays busy after its caller had more than its share for the last time.
const BUSY_TIME: Duration = Duration::from_millis(250);

/// What the client of a connection is to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// No call on the connection was answered yet.
    Unknown,
    /// A call was answered: the client has a valid token, where one is required.
    Known,
    /// The same, and its caller has so many requests open, or exchanges so much, that others would wait for that.
    Busy,
}

/// An open connection. All requests on it share it.
#[derive(Debug)]
pub(super) struct OpenConnection {
    /// Its number, which no other connection has.
    pub(super) id: u64,
    opened: Instant,
    /// Whether a call on it was answered: then its client has a valid token, where one is required.
    is_known: AtomicBool,
    /// The requests of the caller of its first call.
    share: OnceLock<Arc<Share>>,
    /// Whether its caller has more than its share, and until when that counts, in milliseconds since `opened`.
    is_busy: AtomicBool,
    busy_until: AtomicU64,
    /// Wakes whoever waits for another standing.
    standing_changed: Notify,
    /// When the present turn began, in microseconds since `opened`.
    turn: AtomicU64,
    /// Whether nothing is read, because requests that have arrived wait for their turn.
    holds_input: AtomicBool,
    /// How many requests are open.
    requests: AtomicU32,
    /// When the last request ended, in milliseconds since `opened`; zero if none has.
    last_used: AtomicU64,
    /// How many bytes of requests may arrive and not be read, because these requests wait for room.
    waiting_bytes: AtomicUsize,
    /// How many bytes were read, in all and in this turn.
    bytes_read: AtomicUsize,
    bytes_in_turn: AtomicUsize,
    /// How many were written in this turn.
    written_in_turn: AtomicUsize,
    /// The number of the present period, and how much of what the client has not taken yet was offered in each.
    period: AtomicU32,
    untaken: [AtomicU32; 3],
    /// Closes the connection once its open requests have been answered.
    retire: CancellationToken,
    /// Closes the connection at once.
    close: CancellationToken,
}

impl OpenConnection {
    /// A connection of which nothing is known.
    pub(super) fn new(id: u64) -> Arc<Self> {
        Arc::new(Self {
            id,
            opened: Instant::now(),
            is_known: AtomicBool::new(false),
            share: OnceLock::new(),
            is_busy: AtomicBool::new(false),
            busy_until: AtomicU64::new(0),
            standing_changed: Notify::new(),
            turn: AtomicU64::new(0),
            holds_input: AtomicBool::new(false),
            requests: AtomicU32::new(0),
            last_used: AtomicU64::new(0),
            waiting_bytes: AtomicUsize::new(0),
            bytes_read: AtomicUsize::new(0),
            bytes_in_turn: AtomicUsize::new(0),
            written_in_turn: AtomicUsize::new(0),
            period: AtomicU32::new(0),
            untaken: Default::default(),
            retire: CancellationToken::new(),
            close: CancellationToken::new(),
        })
    }

    pub(super) fn is_known(&self) -> bool {
        self.is_known.load(Ordering::Relaxed)
    }

    /// Notes that a call on it was answered. Returns whether that is new.
    pub(super) fn set_known(&self) -> bool {
        let is_new = !self.is_known() && !self.is_known.swap(true, Ordering::Relaxed);
        if is_new {
            self.standing_changed.notify_waiters();
        }
        is_new
    }

    /// Notes whose call it is that is admitted on it. The requests on it count for the caller of the first one.
    pub(super) fn set_share(&self, share: &Arc<Share>) {
        self.share.get_or_init(|| Arc::clone(share));
    }

    /// The requests of the caller of its first call; none before that.
    pub(super) fn share(&self) -> Option<&Arc<Share>> {
        self.share.get()
    }

    /// Notes that its caller has more than its share. That counts for [`BUSY_TIME`].
    pub(super) fn set_busy(&self) {
        self.busy_until.store(milliseconds(self.opened.elapsed() + BUSY_TIME), Ordering::Relaxed);
        if !self.is_busy.load(Ordering::Relaxed) && !self.is_busy.swap(true, Ordering::Relaxed) {
            self.standing_changed.notify_waiters();
        }
    }

    pub(super) fn standing(&self) -> Standing {
        match (self.is_known(), self.is_busy.load(Ordering::Relaxed)) {
            (false, _) => Standing::Unknown,
            (true, false) => Standing::Known,
            (true, true) => Standing::Busy,
        }
    }

    /// Completes when its standing is no longer this one.
    pub(super) async fn leaves(&self, standing: Standing) {
        loop {
            let changed = self.standing_changed.notified();
            if self.standing() != standing {
                return;
            }
            changed.await;
        }
    }

    /// Waits until its caller has had no more than its share for [`BUSY_TIME`], and notes that it is busy no longer.
    pub(super) async fn calm_down(&self) {
        loop {
            let busy_until = Duration::from_millis(self.busy_until.load(Ordering::Relaxed));
            let left = busy_until.saturating_sub(self.opened.elapsed());
            if left.is_zero() {
                break;
            }
            sleep(left).await;
        }
        self.is_busy.store(false, Ordering::Relaxed);
        self.standing_changed.notify_waiters();
    }

    /// Whether it was opened less than this long ago, and no request on it has ended: its first one may be about to be sent, or
    /// to be answered.
    pub(super) fn is_new(&self, age_max: Duration) -> bool {
        self.last_used.load(Ordering::Relaxed) == 0 && self.opened.elapsed() < age_max
    }

    pub(super) fn is_idle(&self) -> bool {
        self.requests.load(Ordering::Relaxed) == 0
    }

    /// When it was opened, or when the last request on it ended.
    pub(super) fn last_used(&self) -> Instant {
        let after = Duration::from_millis(self.last_used.load(Ordering::Relaxed));
        self.opened.checked_add(after).unwrap_or(self.opened)
    }

    /// Counts a request until the guard is dropped. A stream does not count towards its caller's share: it costs little while
    /// it is open.
    pub(super) fn begin_request(self: &Arc<Self>, is_stream: bool) -> OpenRequest {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let begun = self.share().filter(|_| !is_stream).map(Share::begin);
        OpenRequest { connection: Arc::clone(self), _begun: begun }
    }

    /// Counts the bytes that a request lacks while it waits for room, until the guard is dropped: the connection's window has no
    /// room for others meanwhile. Returns none if those that wait lack [`WAITING_BYTES_MAX`]; one may always wait.
    pub(super) fn begin_waiting(self: &Arc<Self>, bytes: usize) -> Option<Waiting> {
        let bytes = bytes.clamp(1, WAITING_BYTES_MAX);
        let add = |now: usize| now.checked_add(bytes).filter(|sum| *sum <= WAITING_BYTES_MAX);
        self.waiting_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).ok()?;
        Some(Waiting { connection: Arc::clone(self), bytes })
    }

    /// How many bytes were read of it.
    pub(super) fn bytes_read(&self) -> usize {
        self.bytes_read.load(Ordering::Relaxed)
    }

    pub(super) fn bytes_in_turn(&self) -> usize {
        self.bytes_in_turn.load(Ordering::Relaxed)
    }

    pub(super) fn count_read(&self, bytes: usize) {
        self.bytes_read.fetch_add(bytes, Ordering::Relaxed);
        self.bytes_in_turn.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn count_written(&self, bytes: usize) {
        self.written_in_turn.fetch_add(bytes, Ordering::Relaxed);
    }

    /// When the present turn began. What happens in a turn takes less than some milliseconds, so it is the time of all of that.
    pub(super) fn turn(&self) -> Instant {
        let since_opened = Duration::from_micros(self.turn.load(Ordering::Relaxed));
        self.opened.checked_add(since_opened).unwrap_or(self.opened)
    }

    /// Notes whether nothing is to be read now.
    pub(super) fn hold_input(&self, holds: bool) {
        self.holds_input.store(holds, Ordering::Relaxed);
    }

    pub(super) fn holds_input(&self) -> bool {
        self.holds_input.load(Ordering::Relaxed)
    }

    /// Begins a turn. Returns how many bytes were read and written in the last one.
    pub(super) fn begin_turn(&self) -> usize {
        let since_opened = u64::try_from(self.opened.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.turn.store(since_opened, Ordering::Relaxed);
        self.bytes_in_turn.swap(0, Ordering::Relaxed) + self.written_in_turn.swap(0, Ordering::Relaxed)
    }

    /// Counts something that is offered to the client until it has taken it. Then the guard is dropped.
    pub(super) fn untaken(self: &Arc<Self>) -> Untaken {
        let period = self.period.load(Ordering::Relaxed) % PERIODS;
        if let Some(count) = self.untaken.get(index(period)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        Untaken { connection: Arc::clone(self), period }
    }

    /// Ends a period. Returns whether the client has left untaken what was offered to it for a whole period or more, and up
    /// to two.
    pub(super) fn end_period(&self) -> bool {
        let present = self.period.load(Ordering::Relaxed);
        let before = self.untaken.get(index(present.wrapping_add(PERIODS - 1) % PERIODS));
        let is_late = before.is_some_and(|untaken| untaken.load(Ordering::Relaxed) > 0);
        self.period.store((present + 1) % PERIODS, Ordering::Relaxed);
        is_late
    }

    /// Closes the connection once its open requests have been answered.
    pub(super) fn retire(&self) {
        self.retire.cancel();
    }

    /// Completes when the connection is to be closed once its open requests have been answered.
    pub(super) async fn retired(&self) {
        self.retire.cancelled().await;
    }

    /// Closes the connection at once.
    pub(super) fn close(&self) {
        self.close.cancel();
    }

    /// Completes when the connection is to be closed.
    pub(super) async fn closed(&self) {
        self.close.cancelled().await;
    }
}

/// A length of time in milliseconds.
fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn index(period: u32) -> usize {
    usize::try_from(period).unwrap_or(usize::MAX)
}

/// A request that waits for room.
#[derive(Debug)]
pub(super) struct Waiting {
    connection: Arc<OpenConnection>,
    bytes: usize,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.connection.waiting_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A request that is open: until its response has been taken by the connection.
#[derive(Debug)]
pub(super) struct OpenRequest {
    connection: Arc<OpenConnection>,
    _begun: Option<Begun>,
}

impl OpenRequest {
    pub(super) fn connection(&self) -> &Arc<OpenConnection> {
        &self.connection
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        // Zero means never.
        let used = milliseconds(self.connection.turn().saturating_duration_since(self.connection.opened)).max(1);
        self.connection.last_used.store(used, Ordering::Relaxed);
        self.connection.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Something that the client has not taken yet.
#[derive(Debug)]
pub(super) struct Untaken {
    connection: Arc<OpenConnection>,
    period: u32,
}

impl Drop for Untaken {
    fn drop(&mut self) {
        if let Some(count) = self.connection.untaken.get(index(self.period)) {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_taken_is_late_after_one_period_and_before_the_end_of_two() {
        let connection = OpenConnection::new(1);
        for _ in 0..7 {
            let offered = connection.untaken();
            assert!(!connection.end_period(), "less than a period");
            assert!(connection.end_period(), "more than a period");
            drop(offered);
            assert!(!connection.end_period() && !connection.end_period(), "it was taken");
        }
    }

    #[test]
    fn what_is_taken_in_time_is_never_late() {
        let connection = OpenConnection::new(1);
        for _ in 0..7 {
            let offered = [connection.untaken(), connection.untaken()];
            assert!(!connection.end_period());
            drop(offered);
        }
    }

    #[tokio::test]
    async fn a_connection_is_busy_for_a_while_after_its_caller_had_more_than_its_share() {
        let connection = OpenConnection::new(1);
        connection.set_busy();
        assert_eq!(connection.standing(), Standing::Unknown);
        connection.set_known();
        connection.leaves(Standing::Unknown).await;
        assert_eq!(connection.standing(), Standing::Busy);
        tokio::select! {
            biased;
            () = connection.leaves(Standing::Busy) => panic!("it has not calmed down"),
            () = connection.calm_down() => {}
        }
        assert!(connection.opened.elapsed() >= BUSY_TIME);
        assert_eq!(connection.standing(), Standing::Known);
    }

    #[test]
    fn a_connection_is_new_until_its_first_answer_and_for_a_while_only() {
        let connection = OpenConnection::new(1);
        assert!(connection.is_new(Duration::from_mins(1)));
        assert!(!connection.is_new(Duration::ZERO));
        let request = connection.begin_request(false);
        assert!(connection.is_new(Duration::from_mins(1)));
        drop(request);
        assert!(!connection.is_new(Duration::from_mins(1)));
    }

    #[test]
    fn a_connection_is_idle_while_no_request_is_open() {
        let connection = OpenConnection::new(1);
        let requests = [connection.begin_request(false), connection.begin_request(false)];
        assert!(!connection.is_idle());
        let [first, second] = requests;
        drop(first);
        assert!(!connection.is_idle());
        drop(second);
        assert!(connection.is_idle());
    }
}
