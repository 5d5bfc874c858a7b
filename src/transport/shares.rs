//! How many requests each caller has open, and whether that is more than its share: then those of other callers, who have few open,
//! are not to wait for them. Requests without a known caller are those of one.
//!
//! Does not know what the requests are, and moves nothing: `connections` does.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::{Semaphore, SemaphorePermit};

/// How many requests a caller may have open before they are more than its share. On two processors, those of another caller
/// wait for half of them at most: some 0.2 ms.
const SHARE_MAX: usize = 32;

/// How long after its last request a caller still counts as one whom others may delay.
const ACTIVE_TIME: Duration = Duration::from_secs(1);

/// The requests of all callers.
#[derive(Debug)]
pub(super) struct Shares {
    began: Instant,
    callers: HashMap<Arc<str>, Share>,
    anonymous: Share,
}

/// The requests of one caller.
#[derive(Debug)]
struct Share {
    permits: Semaphore,
    requests_max: usize,
    /// When the last request began, in milliseconds since the beginning; zero if none has.
    last_begun: AtomicU64,
}

/// A request of a caller.
pub(super) struct Begun<'a> {
    _permit: SemaphorePermit<'a>,
    /// Whether its caller has more than its share open while others call.
    pub(super) is_beyond_share: bool,
}

impl Shares {
    /// For these callers, each of whom may have so many requests open, and for all others, who may together have so many.
    pub(super) fn new<'a>(
        callers: impl Iterator<Item = &'a Arc<str>>,
        caller_requests_max: usize,
        requests_max: usize,
    ) -> Self {
        let callers = callers.map(|name| (Arc::clone(name), Share::new(caller_requests_max))).collect();
        Self { began: Instant::now(), callers, anonymous: Share::new(requests_max) }
    }

    /// Begins a request of this caller. Returns none if it has as many open as it may have.
    pub(super) fn begin(&self, caller: Option<&str>) -> Option<Begun<'_>> {
        let share = caller.and_then(|caller| self.callers.get(caller)).unwrap_or(&self.anonymous);
        let permit = share.permits.try_acquire().ok()?;
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        share.last_begun.store(now, Ordering::Relaxed);
        let is_beyond_share = share.open() > SHARE_MAX && self.others_are_active(share, now);
        Some(Begun { _permit: permit, is_beyond_share })
    }

    /// Whether a caller other than this one has begun a request a short time ago.
    fn others_are_active(&self, share: &Share, now: u64) -> bool {
        let active = u64::try_from(ACTIVE_TIME.as_millis()).unwrap_or(u64::MAX);
        self.callers.values().chain([&self.anonymous]).filter(|other| !std::ptr::eq(*other, share)).any(|other| {
            let last = other.last_begun.load(Ordering::Relaxed);
            last > 0 && now.saturating_sub(last) <= active
        })
    }
}

impl Share {
    fn new(requests_max: usize) -> Self {
        Self { permits: Semaphore::new(requests_max), requests_max, last_begun: AtomicU64::new(0) }
    }

    /// How many requests are open.
    fn open(&self) -> usize {
        self.requests_max.saturating_sub(self.permits.available_permits())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares() -> Shares {
        let names: [Arc<str>; 2] = ["greedy".into(), "modest".into()];
        Shares::new(names.iter(), 100, 50)
    }

    fn begin<'a>(shares: &'a Shares, caller: &str, count: usize) -> Vec<Begun<'a>> {
        (0..count).map_while(|_| shares.begin(Some(caller))).collect()
    }

    #[test]
    fn a_caller_has_as_many_requests_open_as_it_may_and_leaves_those_of_others() {
        let shares = shares();
        let open = begin(&shares, "greedy", 200);
        assert_eq!(open.len(), 100);
        assert_eq!(begin(&shares, "modest", 200).len(), 100);
        assert_eq!(std::iter::from_fn(|| shares.begin(None)).take(200).collect::<Vec<_>>().len(), 50);
        drop(open);
        assert_eq!(begin(&shares, "greedy", 1).len(), 1);
    }

    #[test]
    fn only_a_caller_with_many_requests_open_is_beyond_its_share_and_only_while_others_call() {
        let shares = shares();
        let mut alone = begin(&shares, "greedy", 50);
        assert!(alone.iter().all(|begun| !begun.is_beyond_share), "nobody else calls");
        assert!(begin(&shares, "modest", 1).iter().all(|begun| !begun.is_beyond_share));
        assert!(begin(&shares, "greedy", 1).iter().all(|begun| begun.is_beyond_share));
        alone.truncate(SHARE_MAX - 1);
        assert!(begin(&shares, "greedy", 1).iter().all(|begun| !begun.is_beyond_share), "few are open");
    }

    #[test]
    fn clients_without_a_known_caller_count_as_others() {
        let shares = shares();
        let _anonymous = shares.begin(None);
        assert!(begin(&shares, "greedy", SHARE_MAX + 1).last().is_some_and(|begun| begun.is_beyond_share));
    }
}
