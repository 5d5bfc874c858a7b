//! Compares this machine's clock with the server's. The expiries of permissions are compared with this machine's clock.
//!
//! Sets no clock.

use std::time::Duration;

use bson::DateTime;

use crate::diagnosis::{Diagnosis, Subject};

/// From this difference on there is a warning, in milliseconds. A permission may end this much too late.
const NOTABLE_MS: i64 = 1_000;

/// From this difference on the clock is wrong, in milliseconds.
const WRONG_MS: i64 = 60_000;

/// Judges the time that a server reported in a reply that has just arrived. `took` is the time of the round trip.
pub(super) fn examine(theirs: Option<DateTime>, took: Duration) -> Diagnosis {
    let Some(theirs) = theirs else {
        return Diagnosis::skipped(Subject::MongoDb, "the clocks, as the server does not report its time");
    };
    // The server read its clock about half the round trip ago.
    let half = i64::try_from(took.as_millis()).unwrap_or(i64::MAX) / 2;
    let ours = DateTime::now().timestamp_millis().saturating_sub(half);
    judge(ours.saturating_sub(theirs.timestamp_millis()), half)
}

/// Judges by how much this clock is ahead. `error` is how far that may be off. Both are milliseconds.
fn judge(ahead: i64, error: i64) -> Diagnosis {
    let least = ahead.saturating_abs().saturating_sub(error);
    let difference = humantime::format_duration(Duration::from_millis(ahead.unsigned_abs()));
    let side = if ahead < 0 { "behind" } else { "ahead of" };
    let message =
        format!("this machine's clock is {difference} {side} the server's: expiries are compared with this one");
    let remedy = "timedatectl set-ntp true, on the machine whose clock is wrong";
    if least >= WRONG_MS {
        Diagnosis::wrong(Subject::MongoDb, message, remedy)
    } else if least >= NOTABLE_MS {
        Diagnosis::warning(Subject::MongoDb, message, remedy)
    } else {
        Diagnosis::fine(Subject::MongoDb, "this machine's clock and the server's are less than a second apart")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnosis::Verdict;

    #[test]
    fn a_difference_is_a_warning_from_a_second_on_and_wrong_from_a_minute_on() {
        for (ahead, error, verdict) in [
            (0, 0, Verdict::Fine),
            (999, 0, Verdict::Fine),
            (1_000, 0, Verdict::Warning),
            (-1_000, 0, Verdict::Warning),
            (1_400, 500, Verdict::Fine),
            (59_999, 0, Verdict::Warning),
            (60_000, 0, Verdict::Wrong),
            (-60_400, 500, Verdict::Warning),
            (-3_600_000, 500, Verdict::Wrong),
            (i64::MIN, 0, Verdict::Wrong),
        ] {
            let judged = judge(ahead, error);
            assert_eq!(judged.verdict, verdict, "{ahead} {error}: {judged:?}");
            assert_eq!(judged.remedy.is_some(), verdict != Verdict::Fine);
        }
        assert!(judge(-90_000, 0).message.contains("1m 30s behind the server's"));
        assert!(judge(2_000, 0).message.contains("2s ahead of the server's"));
    }

    #[test]
    fn half_the_round_trip_is_subtracted() {
        let now = DateTime::now().timestamp_millis();
        let an_hour = 3_600_000;
        let late = examine(Some(DateTime::from_millis(now - an_hour)), Duration::from_secs(2));
        assert_eq!(late.verdict, Verdict::Wrong, "{late:?}");
        let long_ago = examine(Some(DateTime::from_millis(now - 20_000)), Duration::from_secs(40));
        assert_eq!(long_ago.verdict, Verdict::Fine, "{long_ago:?}");
        assert_eq!(examine(None, Duration::ZERO).verdict, Verdict::Skipped);
    }
}
