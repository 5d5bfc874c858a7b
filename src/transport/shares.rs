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

use tokio::sync::{Semaphore, SemaphorePermit};

/// How many requests a caller may have open before they are more than its share. On two processors, those of another caller
/// wait for half of them at most: some 0.2 ms.
const SHARE_MAX: usize = 32;

/// How many bytes a caller may send and receive in [`PERIOD`] before they are more than its share: to carry them takes some
/// hundredths of a processor.
const SHARE_BYTES_MAX: usize = 512 * 1_024;

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
    permits: Semaphore,
    /// How many requests are open on its connections, those that have not run yet included, and streams not.
    open: AtomicUsize,
    /// The number of the period in which bytes were exchanged last, and how many.
    began: Instant,
    period: AtomicU64,
    bytes: AtomicUsize,
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

    /// Notes that a call of this caller is admitted now.
    pub(super) fn note_call(&self, share: &Share) {
        share.last_call.store(self.now(), Ordering::Relaxed);
    }

    /// Whether a caller has more than its share while others call.
    pub(super) fn is_beyond(&self, share: &Arc<Share>) -> bool {
        (share.open.load(Ordering::Relaxed) > SHARE_MAX || share.recent_bytes() > SHARE_BYTES_MAX)
            && self.others_call(share)
    }

    /// In milliseconds since the beginning, and never zero.
    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX).max(1)
    }

    /// Whether a call of another caller was admitted a short time ago.
    fn others_call(&self, share: &Arc<Share>) -> bool {
        let now = self.now();
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
            permits: Semaphore::new(requests_max),
            open: AtomicUsize::new(0),
            began: Instant::now(),
            period: AtomicU64::new(0),
            bytes: AtomicUsize::new(0),
            last_call: AtomicU64::new(0),
        }
    }

    /// Counts bytes that its connections have read or written.
    pub(super) fn count_bytes(&self, bytes: usize) {
        let period = self.present_period();
        if self.period.swap(period, Ordering::Relaxed) != period {
            self.bytes.store(0, Ordering::Relaxed);
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// How many bytes were exchanged in the present period.
    fn recent_bytes(&self) -> usize {
        let is_present = self.period.load(Ordering::Relaxed) == self.present_period();
        if is_present { self.bytes.load(Ordering::Relaxed) } else { 0 }
    }

    fn present_period(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis() / PERIOD.as_millis()).unwrap_or(u64::MAX)
    }

    /// Admits a request. Returns none if as many as there may be are admitted.
    pub(super) fn admit(&self) -> Option<SemaphorePermit<'_>> {
        self.permits.try_acquire().ok()
    }

    /// Counts a request as open until the guard is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> Begun {
        self.open.fetch_add(1, Ordering::Relaxed);
        Begun(Arc::clone(self))
    }
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
        shares.is_beyond(shares.of(caller))
    }

    fn call(shares: &Shares, caller: Option<&str>) {
        shares.note_call(shares.of(caller));
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

    #[test]
    fn a_caller_that_exchanges_many_bytes_is_beyond_its_share_for_the_period() {
        let shares = shares();
        call(&shares, Some("modest"));
        let share = shares.of(Some("greedy"));
        // The bytes may fall into two periods.
        let is_beyond = |bytes| {
            (0..100).any(|_| {
                share.count_bytes(bytes);
                shares.is_beyond(share)
            })
        };
        assert!(!is_beyond(SHARE_BYTES_MAX / 100));
        assert!(is_beyond(SHARE_BYTES_MAX));
        let over = Instant::now() + Duration::from_secs(30);
        while shares.is_beyond(share) {
            assert!(Instant::now() < over, "the period ends");
            call(&shares, Some("modest"));
        }
        assert!(!is_beyond(1), "what was exchanged earlier does not count");
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
