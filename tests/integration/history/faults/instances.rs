//! What is done to an instance: it ends, and another one starts in its place.

use std::time::Duration;

use tokio::time::sleep;

use super::followers;
use crate::{history::run::Run, support::redis::Redis};

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstanceFault {
    /// The one that speaks ends without a word. It is still asked for a while, and answers by what it knows.
    LeaderEnded,
    /// The one that speaks leaves that to others, and ends.
    LeaderRetired,
    /// One that listens ends without a word.
    ListenerEnded,
    /// One ends, Redis is set back to an old dump, and the next one starts by the old log.
    BornLate,
}

impl InstanceFault {
    pub(super) const ALL: [Self; 4] = [Self::LeaderEnded, Self::LeaderRetired, Self::ListenerEnded, Self::BornLate];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::LeaderEnded => "the speaker ended",
            Self::LeaderRetired => "the speaker retired",
            Self::ListenerEnded => "a listener ended",
            Self::BornLate => "an instance born late by an old log",
        }
    }

    /// Does it, and starts another instance after so long. Says what else there is to know.
    pub(super) async fn inflict(self, redis: Option<&mut Redis>, lasts: Duration, run: &Run) -> String {
        let leader = followers(run).await.first().copied().unwrap_or_default();
        let place = match self {
            Self::LeaderEnded | Self::LeaderRetired => leader,
            Self::ListenerEnded | Self::BornLate => (leader + 1) % run.count(),
        };
        let ending = run.instance(place);
        let dump = redis.as_ref().filter(|_| self == Self::BornLate).map(|redis| redis.dump());
        if self == Self::LeaderRetired {
            ending.app.retire().await;
        }
        ending.stop();
        sleep(lasts).await;
        if let (Some(redis), Some(dump)) = (redis, dump) {
            redis.restart_from(&dump);
        }
        run.replace(place).await;
        format!("instance {place}, another one after {lasts:.1?}")
    }
}
