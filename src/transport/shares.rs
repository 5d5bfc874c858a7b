//! How many requests each caller has open, how many bytes it exchanges, and whether that is more than its share: then the requests
//! of other callers, who have few, are not to wait for them. Requests without a known caller are those of one.
//!
//! Moves nothing: `connections` does.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many requests a caller may have open before they are more than its share. On two processors, those of another caller
/// wait for half of them at most: some 0.2 ms.
const SHARE_MAX: usize = 32;

/// How many bytes a caller's connections may carry in [`PERIOD`] before they are more than its share: it takes between some
/// hundredths and a fifth of a processor, the more the smaller the pieces are.
const SHARE_BYTES_MAX: u32 = 512 * 1_024;

/// The least that a turn of a connection counts for, in bytes: it costs as much as to carry those.
const TURN_BYTES_MIN: u32 = 256;

/// The time in which bytes are counted.
const PERIOD: Duration = Duration::from_millis(100);

/// How long after its last call a caller still counts as one whom others may delay.
const ACTIVE_TIME: Duration = Duration::from_secs(1);

/// The requests of all callers.
#[derive(Debug)]
pub(super) struct Shares {
    began: Instant,
    callers: HashMap<Arc<str>, Arc<Share>>,
    anonymous: Arc<Share>,
}

/// The requests of one caller.
#[derive(Debug)]
pub(super) struct Share {
    permits: Arc<Semaphore>,
    /// How many requests are open on its connections, those that have not run yet included, and streams not.
    open: AtomicUsize,
    /// The number of the period in which its connections had their last turns, and in the lower half the bytes that they carried.
    carried: AtomicU64,
    /// When its last call was admitted, in milliseconds since the beginning; zero if none was.
    last_call: AtomicU64,
}

impl Shares {
    /// For these callers, each of whom may have so many requests open, and for all others, who may together have so many.
    pub(super) fn new<'a>(
        callers: impl Iterator<Item = &'a Arc<str>>,
        caller_requests_max: usize,
        requests_max: usize,
    ) -> Self {
        let callers = callers.map(|name| (Arc::clone(name), Arc::new(Share::new(caller_requests_max)))).collect();
        Self { began: Instant::now(), callers, anonymous: Arc::new(Share::new(requests_max)) }
    }

    /// The share of this caller.
    pub(super) fn of(&self, caller: Option<&str>) -> &Arc<Share> {
        caller.and_then(|caller| self.callers.get(caller)).unwrap_or(&self.anonymous)
    }

    /// Notes that a call of this caller is admitted.
    pub(super) fn note_call(&self, share: &Share, now: Instant) {
        share.last_call.store(self.milliseconds(now), Ordering::Relaxed);
    }

    /// Whether a caller has more than its share while others call.
    pub(super) fn is_beyond(&self, share: &Arc<Share>, now: Instant) -> bool {
        (share.open.load(Ordering::Relaxed) > SHARE_MAX || share.carried(self.period(now)) > SHARE_BYTES_MAX)
            && self.others_call(share, now)
    }

    /// Counts a turn of a caller's connection, which has carried so many bytes. Returns whether the caller has more than its share
    /// of bytes while others call.
    pub(super) fn carry(&self, share: &Arc<Share>, bytes: usize, now: Instant) -> bool {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).max(TURN_BYTES_MIN);
        share.carry(self.period(now), bytes) > SHARE_BYTES_MAX && self.others_call(share, now)
    }

    /// The number of the present period.
    fn period(&self, now: Instant) -> u32 {
        let since = now.saturating_duration_since(self.began);
        u32::try_from(since.as_millis() / PERIOD.as_millis()).unwrap_or(u32::MAX)
    }

    /// In milliseconds since the beginning, and never zero.
    fn milliseconds(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.began).as_millis()).unwrap_or(u64::MAX).max(1)
    }

    /// Whether a call of another caller was admitted a short time ago.
    fn others_call(&self, share: &Arc<Share>, now: Instant) -> bool {
        let now = self.milliseconds(now);
        let active = u64::try_from(ACTIVE_TIME.as_millis()).unwrap_or(u64::MAX);
        self.callers.values().chain([&self.anonymous]).filter(|other| !Arc::ptr_eq(other, share)).any(|other| {
            let last = other.last_call.load(Ordering::Relaxed);
            last > 0 && now.saturating_sub(last) <= active
        })
    }
}

impl Share {
    fn new(requests_max: usize) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(requests_max)),
            open: AtomicUsize::new(0),
            carried: AtomicU64::new(0),
            last_call: AtomicU64::new(0),
        }
    }

    /// Counts bytes in a period, which do not count in later ones. Returns how many were carried in it.
    fn carry(&self, period: u32, bytes: u32) -> u32 {
        // Another thread may be in the next period already.
        let now = |carried: u64| period.max(u32::try_from(carried >> u32::BITS).unwrap_or(0));
        let add = |carried| Some(join(now(carried), bytes.saturating_add(in_period(carried, now(carried)))));
        let before = self.carried.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).unwrap_or(0);
        bytes.saturating_add(in_period(before, now(before)))
    }

    /// How many bytes were carried in a period.
    fn carried(&self, period: u32) -> u32 {
        in_period(self.carried.load(Ordering::Relaxed), period)
    }

    /// Admits a request. Returns none if as many as there may be are admitted.
    pub(super) fn admit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.permits).try_acquire_owned().ok()
    }

    /// Counts a request as open until the guard is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> Begun {
        self.open.fetch_add(1, Ordering::Relaxed);
        Begun(Arc::clone(self))
    }
}

/// A period and the bytes that were carried in it, as one number.
fn join(period: u32, bytes: u32) -> u64 {
    u64::from(period) << u32::BITS | u64::from(bytes)
}

/// The bytes, if they were carried in this period.
fn in_period(carried: u64, period: u32) -> u32 {
    let bytes = carried.checked_sub(join(period, 0)).and_then(|bytes| u32::try_from(bytes).ok());
    bytes.unwrap_or(0)
}

/// A request that is open.
#[derive(Debug)]
pub(super) struct Begun(Arc<Share>);

impl Drop for Begun {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares() -> Shares {
        let names: [Arc<str>; 2] = ["greedy".into(), "modest".into()];
        Shares::new(names.iter(), 100, 50)
    }

    fn begin(shares: &Shares, caller: Option<&str>, count: usize) -> Vec<Begun> {
        (0..count).map(|_| shares.of(caller).begin()).collect()
    }

    fn is_beyond(shares: &Shares, caller: Option<&str>) -> bool {
        shares.is_beyond(shares.of(caller), Instant::now())
    }

    fn call(shares: &Shares, caller: Option<&str>) {
        shares.note_call(shares.of(caller), Instant::now());
    }

    #[test]
    fn a_caller_has_as_many_requests_admitted_as_it_may_and_leaves_those_of_others() {
        let shares = shares();
        let admit = |caller| (0..200).map_while(|_| shares.of(caller).admit()).collect::<Vec<_>>();
        let admitted = admit(Some("greedy"));
        assert_eq!([admitted.len(), admit(Some("modest")).len(), admit(None).len()], [100, 100, 50]);
        drop(admitted);
        assert_eq!(admit(Some("greedy")).len(), 100);
    }

    #[test]
    fn only_a_caller_with_many_requests_open_is_beyond_its_share_and_only_while_others_call() {
        let shares = shares();
        let mut open = begin(&shares, Some("greedy"), SHARE_MAX + 1);
        call(&shares, Some("greedy"));
        assert!(!is_beyond(&shares, Some("greedy")), "nobody else calls");
        call(&shares, Some("modest"));
        assert!(!is_beyond(&shares, Some("modest")), "it has none open");
        assert!(is_beyond(&shares, Some("greedy")));
        open.pop();
        assert!(!is_beyond(&shares, Some("greedy")), "few are open");
    }

    /// Whether a caller is beyond its share when its connections have had so many turns and carried so many bytes in each, in the
    /// same period.
    fn is_beyond_by_bytes(shares: &Shares, turns: usize, bytes: usize) -> bool {
        let share = shares.of(Some("greedy"));
        loop {
            call(shares, Some("modest"));
            let period = shares.period(Instant::now());
            share.carried.store(0, Ordering::Relaxed);
            let is_beyond = (0..turns).any(|_| shares.carry(share, bytes, Instant::now()));
            let agrees = shares.is_beyond(share, Instant::now()) == is_beyond;
            if shares.period(Instant::now()) == period {
                assert!(agrees, "a request finds the same");
                return is_beyond;
            }
        }
    }

    #[test]
    fn a_caller_whose_connections_carry_many_bytes_or_have_many_turns_is_beyond_its_share() {
        let shares = shares();
        for (turns, bytes, expected) in [
            (1, 512 * 1_024, false),
            (1, 512 * 1_024 + 1, true),
            (33, 16 * 1_024, true),
            (32, 16 * 1_024, false),
            (2_048, 17, false),
            (2_049, 17, true),
        ] {
            assert_eq!(is_beyond_by_bytes(&shares, turns, bytes), expected, "{turns} x {bytes}");
        }
    }

    #[test]
    fn bytes_count_in_their_period_only() {
        let share = Share::new(1);
        assert_eq!([share.carry(7, 10), share.carry(7, 5), share.carried(7), share.carried(8)], [10, 15, 15, 0]);
        assert_eq!([share.carry(8, 3), share.carried(8)], [3, 3]);
        assert_eq!([share.carry(7, 2), share.carried(8)], [5, 5], "a thread that is late");
        assert_eq!(share.carry(8, u32::MAX), u32::MAX);
    }

    #[test]
    fn clients_without_a_known_caller_count_as_others() {
        let shares = shares();
        let _open = begin(&shares, Some("greedy"), SHARE_MAX + 1);
        assert!(!is_beyond(&shares, Some("greedy")));
        call(&shares, None);
        assert!(is_beyond(&shares, Some("greedy")));
    }
}
