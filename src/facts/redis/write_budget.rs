//! How much may be written to a Redis that others use as well: nothing where it is three quarters full, and before that
//! only a part of what is left, as other instances write too.
//!
//! Pure: is told what the server says, and what time it is.

use std::time::{Duration, Instant};

/// How long an answer counts.
const LIFE: Duration = Duration::from_millis(250);

/// How long nothing is written after Redis has refused.
const PAUSE: Duration = Duration::from_secs(5);

/// Which part of what is left one answer allows.
const SHARE: u64 = 16;

/// How much one answer allows at most, in bytes.
pub(super) const ALLOWANCE_BYTES_MAX: u64 = 256 * 1_024;

/// Less than this is as good as nothing: asking again and again for a few bytes helps nobody.
const ALLOWANCE_BYTES_MIN: u64 = 4 * 1_024;

/// What may be written, in bytes, by what the server said last.
#[derive(Debug, Default)]
pub(super) struct WriteBudget {
    left: u64,
    /// Until when the last answer counts, and whether it gave room.
    answered: Option<(Instant, bool)>,
    paused_until: Option<Instant>,
}

impl WriteBudget {
    /// Whether the server has to be asked before so many bytes are written.
    pub(super) fn has_to_be_asked(&self, bytes: u64, now: Instant) -> bool {
        !self.is_paused(now)
            && self.answered.is_none_or(|(until, gave_room)| now >= until || gave_room && bytes > self.left)
    }

    /// Whether Redis has refused just now.
    pub(super) fn is_paused(&self, now: Instant) -> bool {
        self.paused_until.is_some_and(|until| now < until)
    }

    /// Takes in what the server says of its memory: one text, or one of each node.
    pub(super) fn answer<'a>(&mut self, texts: impl IntoIterator<Item = &'a str>, now: Instant) {
        // Facts go to all nodes alike: the fullest decides.
        self.left = texts.into_iter().map(allowance).min().unwrap_or(0);
        self.answered = Some((now + LIFE, self.left > 0));
    }

    /// Redis has refused: nothing is written for some time.
    pub(super) fn pause(&mut self, now: Instant) {
        self.forget();
        self.paused_until = Some(now + PAUSE);
    }

    /// What the server said is not known to hold any more.
    pub(super) fn forget(&mut self) {
        self.left = 0;
        self.answered = None;
    }

    /// Takes so many bytes of what is left, if there are.
    pub(super) fn take(&mut self, bytes: u64) -> bool {
        let left = self.left.checked_sub(bytes);
        self.left = left.unwrap_or(self.left);
        left.is_some()
    }
}

/// What an `INFO memory` allows to write.
fn allowance(info: &str) -> u64 {
    let field = |name: &str| {
        let mut lines = info.lines().filter_map(|line| line.trim_end().split_once(':'));
        lines.find(|(field, _)| *field == name).and_then(|(_, value)| value.parse::<u64>().ok())
    };
    match (field("used_memory"), field("maxmemory")) {
        (Some(_), Some(0)) => u64::MAX,
        (Some(used), Some(max)) => {
            let allowance = ((max / 4 * 3).saturating_sub(used) / SHARE).min(ALLOWANCE_BYTES_MAX);
            if allowance < ALLOWANCE_BYTES_MIN { 0 } else { allowance }
        }
        // It does not say: a proxy in front of it, perhaps.
        _ => 0,
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
    fn three_quarters_are_never_passed_and_the_way_there_is_shared() {
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
            assert_eq!(allowance(&info(used, max)), allowed, "{used} of {max}");
        }
        for text in ["", "used_memory:1\r\n", "maxmemory:0\r\n", "used_memory:x\r\nmaxmemory:0\r\n"] {
            assert_eq!(allowance(text), 0, "{text:?}");
        }
    }

    #[test]
    fn the_fullest_node_decides() {
        let now = Instant::now();
        let mut budget = WriteBudget::default();
        assert!(!budget.take(1), "nothing is known yet");
        let texts = [info(0, 0), info(74 * MIB, 100 * MIB), info(0, 100 * MIB)];
        budget.answer(texts.iter().map(String::as_str), now);
        assert!(budget.take(64 * 1_024) && !budget.take(1));
        budget.answer([], now);
        assert!(!budget.take(1));
    }

    #[test]
    fn the_server_is_asked_when_an_answer_is_old_or_used_up_and_not_after_a_refusal() {
        let now = Instant::now();
        let mut budget = WriteBudget::default();
        assert!(budget.has_to_be_asked(1, now));
        budget.answer([&*info(0, 100 * MIB)], now);
        assert!(!budget.has_to_be_asked(ALLOWANCE_BYTES_MAX, now));
        assert!(budget.has_to_be_asked(ALLOWANCE_BYTES_MAX + 1, now));
        assert!(budget.has_to_be_asked(1, now + LIFE));
        assert!(budget.take(ALLOWANCE_BYTES_MAX));
        assert!(budget.has_to_be_asked(1, now));
        budget.answer([&*info(75 * MIB, 100 * MIB)], now);
        assert!(!budget.has_to_be_asked(1, now), "it has just said that there is none");
        assert!(budget.has_to_be_asked(1, now + LIFE));
        budget.pause(now);
        assert!(budget.is_paused(now) && !budget.has_to_be_asked(1, now));
        assert!(!budget.is_paused(now + PAUSE) && budget.has_to_be_asked(1, now + PAUSE));
    }
}
