//! The write budget: how many bytes may be written to a Redis that others use as well. Nothing is written where it is
//! three quarters full. Below that, one report of its memory allows a part of what is free, as other instances write too.
//!
//! Does no I/O and reads no clock: its caller passes on what the server reports, and the time.

use std::time::{Duration, Instant};

/// How long a report of the server's memory counts.
const REPORT_LIFE: Duration = Duration::from_millis(250);

/// How long nothing is written after Redis has refused a command.
const PAUSE: Duration = Duration::from_secs(5);

/// One report allows this part of what is free: a sixteenth.
const ALLOWANCE_DIVISOR: u64 = 16;

/// The most that one report allows, in bytes.
pub(super) const ALLOWANCE_BYTES_MAX: u64 = 256 * 1_024;

/// The least that one report allows, in bytes. A smaller allowance counts as 0, because it would only cause more `INFO`
/// commands.
const ALLOWANCE_BYTES_MIN: u64 = 4 * 1_024;

/// The bytes that may be written, according to the server's last report.
#[derive(Debug, Default)]
pub(super) struct WriteBudget {
    bytes_left: u64,
    last_report: Option<Report>,
    paused_until: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Report {
    expires: Instant,
    /// How many bytes it allowed. None if it lacks a field.
    allowance: Option<u64>,
}

/// Why a report allows nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denial {
    /// Redis is three quarters full.
    Full,
    /// Redis does not report its memory.
    Unreported,
}

impl WriteBudget {
    /// Whether the server must be asked for a report before this many bytes are written.
    pub(super) fn must_ask(&self, bytes: u64, now: Instant) -> bool {
        let must_renew =
            |report: Report| now >= report.expires || report.allowance > Some(0) && bytes > self.bytes_left;
        !self.is_paused(now) && self.last_report.is_none_or(must_renew)
    }

    /// Whether Redis has refused a command within the last 5 seconds.
    pub(super) fn is_paused(&self, now: Instant) -> bool {
        self.paused_until.is_some_and(|until| now < until)
    }

    /// Sets the budget by the `INFO memory` of the server, or of each node of a cluster.
    pub(super) fn record_report<'a>(&mut self, infos: impl IntoIterator<Item = &'a str>, now: Instant) {
        // Facts are spread evenly over the nodes, so the fullest one decides.
        let allowance = infos.into_iter().map(allowance).min().flatten();
        self.bytes_left = allowance.unwrap_or(0);
        self.last_report = Some(Report { expires: now + REPORT_LIFE, allowance });
    }

    /// Why the last report allowed nothing; none if it allowed something, or if there is no report.
    pub(super) fn denial(&self) -> Option<Denial> {
        match self.last_report?.allowance {
            None => Some(Denial::Unreported),
            Some(0) => Some(Denial::Full),
            Some(_) => None,
        }
    }

    /// Stops writing for a while, because Redis has refused a command.
    pub(super) fn pause(&mut self, now: Instant) {
        self.clear();
        self.paused_until = Some(now + PAUSE);
    }

    /// Drops the last report: it may no longer be true.
    pub(super) fn clear(&mut self) {
        self.bytes_left = 0;
        self.last_report = None;
    }

    /// Takes this many bytes from the budget if it has them. Returns whether it had.
    pub(super) fn try_take(&mut self, bytes: u64) -> bool {
        let left = self.bytes_left.checked_sub(bytes);
        self.bytes_left = left.unwrap_or(self.bytes_left);
        left.is_some()
    }
}

/// How many bytes an `INFO memory` allows to write. None if it lacks a field, perhaps because a proxy answered.
fn allowance(info: &str) -> Option<u64> {
    let field = |name: &str| {
        let mut fields = info.lines().filter_map(|line| line.trim_end().split_once(':'));
        fields.find(|(field, _)| *field == name).and_then(|(_, value)| value.parse::<u64>().ok())
    };
    match (field("used_memory"), field("maxmemory")) {
        (Some(_), Some(0)) => Some(u64::MAX),
        (Some(used), Some(max)) => {
            let allowance = ((max / 4 * 3).saturating_sub(used) / ALLOWANCE_DIVISOR).min(ALLOWANCE_BYTES_MAX);
            Some(if allowance < ALLOWANCE_BYTES_MIN { 0 } else { allowance })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1_024 * 1_024;

    fn info(used: u64, max: u64) -> String {
        format!(
            "# Memory\r\nused_memory:{used}\r\nused_memory_human:x\r\nmaxmemory:{max}\r\nmaxmemory_policy:noeviction\r\n"
        )
    }

    #[test]
    fn a_report_allows_a_sixteenth_of_what_is_free_below_three_quarters() {
        for (used, max, allowed) in [
            (0, 0, u64::MAX),
            (500 * MIB, 0, u64::MAX),
            (0, 100 * MIB, 256 * 1_024),
            (74 * MIB, 100 * MIB, 64 * 1_024),
            (75 * MIB - 64 * 1_024, 100 * MIB, 4 * 1_024),
            (75 * MIB - 32 * 1_024, 100 * MIB, 0),
            (75 * MIB, 100 * MIB, 0),
            (99 * MIB, 100 * MIB, 0),
            (200 * MIB, 100 * MIB, 0),
        ] {
            assert_eq!(allowance(&info(used, max)), Some(allowed), "{used} of {max}");
        }
        for text in ["", "used_memory:1\r\n", "maxmemory:0\r\n", "used_memory:x\r\nmaxmemory:0\r\n"] {
            assert_eq!(allowance(text), None, "{text:?}");
        }
    }

    #[test]
    fn the_fullest_node_decides() {
        let now = Instant::now();
        let mut budget = WriteBudget::default();
        assert!(!budget.try_take(1), "there was no report yet");
        let infos = [info(0, 0), info(74 * MIB, 100 * MIB), info(0, 100 * MIB)];
        budget.record_report(infos.iter().map(String::as_str), now);
        assert!(budget.try_take(64 * 1_024) && !budget.try_take(1));
        assert_eq!(budget.denial(), None);
        budget.record_report([&*info(0, 0), &*info(75 * MIB, 100 * MIB)], now);
        assert_eq!(budget.denial(), Some(Denial::Full));
        for infos in [vec![], vec![String::new()], vec![info(0, 0), String::new()]] {
            budget.record_report(infos.iter().map(String::as_str), now);
            assert!(!budget.try_take(1));
            assert_eq!(budget.denial(), Some(Denial::Unreported));
        }
    }

    #[test]
    fn the_server_is_asked_when_a_report_is_old_or_used_up_and_not_after_a_refusal() {
        let now = Instant::now();
        let mut budget = WriteBudget::default();
        assert!(budget.must_ask(1, now));
        budget.record_report([&*info(0, 100 * MIB)], now);
        assert!(!budget.must_ask(ALLOWANCE_BYTES_MAX, now));
        assert!(budget.must_ask(ALLOWANCE_BYTES_MAX + 1, now));
        assert!(budget.must_ask(1, now + REPORT_LIFE));
        assert!(budget.try_take(ALLOWANCE_BYTES_MAX));
        assert!(budget.must_ask(1, now));
        budget.record_report([&*info(75 * MIB, 100 * MIB)], now);
        assert!(!budget.must_ask(1, now), "the last report allowed nothing");
        assert!(budget.must_ask(1, now + REPORT_LIFE));
        budget.pause(now);
        assert!(budget.is_paused(now) && !budget.must_ask(1, now));
        assert!(!budget.is_paused(now + PAUSE) && budget.must_ask(1, now + PAUSE));
    }
}
