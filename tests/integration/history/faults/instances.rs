//! Faults of an instance: it stops, and another one starts in its place.
//!
//! Does not wait for its recovery; `faults` does.

use std::time::Duration;

use tokio::time::sleep;

use super::{followers, redis::keys};
use crate::{history::run::Run, support::redis::Redis};

/// What happens to the instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstanceFault {
    /// The leader stops without releasing its lease. It is still asked for a while, and answers from what it knows.
    LeaderStopped,
    /// The leader releases its lease, and stops.
    LeaderRetired,
    /// A subscriber stops.
    SubscriberStopped,
    /// A subscriber stops, Redis is reset to an old dump, and the next instance starts from the old log.
    OldLogRestored,
    /// A subscriber stops, the log in Redis expires, and the next instance starts from the little that was published since.
    LogExpired,
}

impl InstanceFault {
    pub(super) const ALL: [Self; 5] =
        [Self::LeaderStopped, Self::LeaderRetired, Self::SubscriberStopped, Self::OldLogRestored, Self::LogExpired];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::LeaderStopped => "the leader stopped",
            Self::LeaderRetired => "the leader released its lease and stopped",
            Self::SubscriberStopped => "a subscriber stopped",
            Self::OldLogRestored => "an instance started from an old log",
            Self::LogExpired => "an instance started after the log expired",
        }
    }

    /// Stops an instance, and starts another one after `lasts`. Returns a note for the report.
    pub(super) async fn inflict(self, redis: Option<&mut Redis>, lasts: Duration, run: &Run) -> String {
        let leader = followers(run).await.first().copied().unwrap_or_default();
        let place = match self {
            Self::LeaderStopped | Self::LeaderRetired => leader,
            Self::SubscriberStopped | Self::OldLogRestored | Self::LogExpired => (leader + 1) % run.count(),
        };
        let ending = run.instance(place);
        let dump = redis.as_ref().filter(|_| self == Self::OldLogRestored).map(|redis| redis.dump());
        if self == Self::LeaderRetired {
            ending.app.retire().await;
        }
        ending.stop();
        sleep(lasts).await;
        match (redis, dump) {
            (Some(redis), Some(dump)) => redis.restart_from(&dump),
            (Some(redis), None) if self == Self::LogExpired => {
                for log in keys(redis, "pc:log:*") {
                    redis.run(&["PEXPIRE", &log, "1"]);
                }
            }
            _ => {}
        }
        run.replace(place).await;
        format!("instance {place}, another one after {lasts:.1?}")
    }
}
