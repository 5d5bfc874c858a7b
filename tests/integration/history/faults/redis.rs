//! Faults of the Redis that the instances share: of the server, of its keys, and of what is published over it.
//!
//! Does not wait for the instances' recovery; `faults` does.

use std::time::Duration;

use permcached::freshness::Moment;
use redis::{Client, cmd};
use tokio::time::{Instant, sleep};

use super::POLL;
use crate::{history::run::wall, support::redis::Redis};

/// How long a new entry stays in a log that is trimmed.
const TURN: Duration = Duration::from_millis(1);

/// What happens to Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedisFault {
    /// It is frozen and thawed.
    Frozen,
    /// It is killed, and started again with nothing.
    Killed,
    /// It is started again from an old dump.
    Reset,
    /// A replica that lacks the last writes takes its place.
    FailedOver,
    /// All keys are removed, again and again.
    Flushed,
    /// The log is removed or trimmed so often that instances rarely find an entry in it, while subscriptions break.
    Trimmed,
    /// All connections break, again and again.
    CutOff,
    /// Another client has the lease.
    Deposed,
    /// The lease is removed again and again, so that there are several leaders.
    Contended,
    /// Nothing can be published.
    PublishRefused,
    /// For a while change batches are neither published nor logged, and the log is removed, so that subscribers have a gap.
    ChangeBatchesLost,
    /// There is no memory left.
    Full,
    /// A client publishes change batches and hints about moments that never come. The change batches stay in the log too.
    FutureMoments,
}

impl RedisFault {
    pub(super) const ALL: [Self; 13] = [
        Self::Frozen,
        Self::Killed,
        Self::Reset,
        Self::FailedOver,
        Self::Flushed,
        Self::Trimmed,
        Self::CutOff,
        Self::Deposed,
        Self::Contended,
        Self::PublishRefused,
        Self::ChangeBatchesLost,
        Self::Full,
        Self::FutureMoments,
    ];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Frozen => "Redis frozen",
            Self::Killed => "Redis killed",
            Self::Reset => "Redis reset to an old dump",
            Self::FailedOver => "Redis failed over, the last writes lost",
            Self::Flushed => "Redis flushed",
            Self::Trimmed => "the log trimmed",
            Self::CutOff => "connections to Redis cut",
            Self::Deposed => "another client has the lease",
            Self::Contended => "the lease taken away",
            Self::PublishRefused => "nothing published",
            Self::ChangeBatchesLost => "change batches lost",
            Self::Full => "Redis full",
            Self::FutureMoments => "change batches about the future",
        }
    }

    /// Causes the fault, for as long as `lasts`, and undoes it. Returns a note for the report.
    pub(super) async fn inflict(self, redis: &mut Redis, lasts: Duration) -> String {
        match self {
            Self::Frozen => {
                redis.freeze();
                sleep(lasts).await;
                redis.thaw();
            }
            Self::Killed => {
                redis.kill();
                sleep(lasts).await;
                redis.start_again();
            }
            Self::Reset => {
                let dump = redis.dump();
                sleep(lasts).await;
                redis.restart_from(&dump);
            }
            Self::FailedOver => {
                let replica = Redis::replica_of(redis);
                replica.promote();
                sleep(lasts).await;
                redis.fail_over_losing_writes(&replica);
            }
            Self::Flushed => again_and_again(lasts, || redis.flush()).await,
            Self::Trimmed => trimmed(redis, lasts).await,
            Self::CutOff => {
                again_and_again(lasts, || ["pubsub", "normal"].map(|kind| cut(redis, kind))).await;
            }
            Self::Deposed => {
                let life = lasts.as_millis().to_string();
                for lease in keys(redis, "pc:lease:*") {
                    redis.run(&["SET", &lease, "another client", "PX", &life]);
                }
                sleep(lasts).await;
            }
            Self::Contended => again_and_again(lasts, || remove(redis, "pc:lease:*")).await,
            Self::PublishRefused => {
                redis.run(&["ACL", "SETUSER", "default", "-publish"]);
                sleep(lasts).await;
                redis.run(&["ACL", "SETUSER", "default", "+@all"]);
            }
            Self::ChangeBatchesLost => {
                redis.run(&["ACL", "SETUSER", "default", "-publish", "-xadd"]);
                sleep(lasts).await;
                remove(redis, "pc:log:*");
                redis.run(&["ACL", "SETUSER", "default", "+@all"]);
            }
            Self::Full => {
                redis.run(&["CONFIG", "SET", "maxmemory", "1"]);
                sleep(lasts).await;
                redis.run(&["CONFIG", "SET", "maxmemory", "0"]);
            }
            Self::FutureMoments => again_and_again(lasts, || publish_future_moments(redis)).await,
        }
        format!("for {lasts:.1?}")
    }
}

/// Repeats an action for as long as `lasts`.
async fn again_and_again<T>(lasts: Duration, mut it: impl FnMut() -> T) {
    let until = Instant::now() + lasts;
    loop {
        it();
        if Instant::now() >= until {
            return;
        }
        sleep(POLL).await;
    }
}

/// Cuts the connections of a kind, which may include the one that sends the command.
fn cut(redis: &Redis, kind: &str) -> bool {
    redis.try_run(&["CLIENT", "KILL", "TYPE", kind]).is_ok()
}

pub(super) fn keys(redis: &Redis, pattern: &str) -> Vec<String> {
    redis.read(&["KEYS", pattern])
}

fn remove(redis: &Redis, pattern: &str) {
    for key in keys(redis, pattern) {
        redis.run(&["DEL", &key]);
    }
}

/// Removes or trims the logs again and again, and cuts subscriptions. Messages between the end of one subscription and the
/// beginning of the next are lost, because they are not in the log either.
async fn trimmed(redis: &Redis, lasts: Duration) {
    let logs = keys(redis, "pc:log:*");
    let client = Client::open(redis.url()).expect("the URL is our own");
    // One connection for all commands: the entries must be gone before an instance can read them.
    let mut connection = client.get_connection().expect("it is there");
    let mut run =
        |command: &[&str]| cmd(command[0]).arg(&command[1..]).exec(&mut connection).expect("the command is right");
    let started = Instant::now();
    let mut cut = started;
    for turn in 0.. {
        for log in &logs {
            if turn % 2 == 0 { run(&["DEL", log]) } else { run(&["XTRIM", log, "MAXLEN", "1"]) }
        }
        if started.elapsed() >= lasts {
            return;
        }
        if cut.elapsed() >= POLL {
            run(&["CLIENT", "KILL", "TYPE", "pubsub"]);
            cut = Instant::now();
        }
        sleep(TURN).await;
    }
}

/// Publishes a change batch without changes that reaches until tomorrow, and a hint that everything is outdated by then,
/// both as the bus encodes them.
fn publish_future_moments(redis: &Redis) {
    let tomorrow = Moment::new(u32::try_from(wall() / 1_000).expect("it is before 2106") + 24 * 3_600, 1);
    let change_batch = (0_u64, tomorrow.as_u64(), Vec::<()>::new());
    let change_batch = postcard::to_allocvec(&change_batch).expect("it fits into memory");
    let change_batch: String = change_batch.iter().map(|byte| format!("\\{byte:03}")).collect();
    let hint = format!(r#"{{"at":[{},1],"all":true}}"#, tomorrow.seconds());
    let channels = |pattern| redis.read::<Vec<String>>(&["PUBSUB", "CHANNELS", pattern]);
    for channel in channels("pc:changes:*") {
        redis.run(&["EVAL", &format!("return redis.call('PUBLISH', KEYS[1], '{change_batch}')"), "1", &channel]);
    }
    for channel in channels("pc:hints:*") {
        redis.run(&["PUBLISH", &channel, &hint]);
    }
    for log in keys(redis, "pc:log:*") {
        let script = format!("return redis.pcall('XADD', KEYS[1], ARGV[1], 's', '{change_batch}')");
        let entry = format!("{}-{}", tomorrow.seconds(), tomorrow.increment());
        // From the second time on the log is past this entry already.
        let _added_or_not = redis.try_run(&["EVAL", &script, "1", &log, &entry]);
    }
}
