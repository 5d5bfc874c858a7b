//! What is done to the Redis that instances share: to the server, to its keys, to what may be said over it.

use std::time::Duration;

use fastrand::Rng;
use permcached::freshness::Moment;
use redis::{Client, cmd};
use tokio::time::{Instant, sleep};

use super::POLL;
use crate::{history::run::wall, support::redis::Redis};

/// How soon what was said is gone from a log that is trimmed.
const TURN: Duration = Duration::from_millis(1);

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedisFault {
    /// It is frozen and thawed.
    Frozen,
    /// It is killed, and started again with nothing.
    Killed,
    /// It is started again with what it held once.
    SetBack,
    /// A replica takes its place that lacks the last writes.
    FailedOver,
    /// All keys are removed, again and again.
    Flushed,
    /// The log is removed or cut short so often that hardly anybody finds something there, while subscriptions break.
    Trimmed,
    /// All connections break, again and again.
    CutOff,
    /// The lease is a stranger's.
    Deposed,
    /// The lease is taken away again and again, so that several speak.
    Contended,
    /// Nothing can be published.
    Silenced,
    /// What is said for a while is neither published nor in the log, and the log is gone: who only listens has missed it.
    Unheard,
    /// There is no memory left.
    Full,
    /// Somebody says things of moments that never come, which then stand in the log too.
    Strange,
}

impl RedisFault {
    pub(super) const ALL: [Self; 13] = [
        Self::Frozen,
        Self::Killed,
        Self::SetBack,
        Self::FailedOver,
        Self::Flushed,
        Self::Trimmed,
        Self::CutOff,
        Self::Deposed,
        Self::Contended,
        Self::Silenced,
        Self::Unheard,
        Self::Full,
        Self::Strange,
    ];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Frozen => "Redis frozen",
            Self::Killed => "Redis killed",
            Self::SetBack => "Redis set back to an old dump",
            Self::FailedOver => "Redis failed over, the last writes lost",
            Self::Flushed => "Redis flushed",
            Self::Trimmed => "the log trimmed",
            Self::CutOff => "connections to Redis cut",
            Self::Deposed => "a stranger has the lease",
            Self::Contended => "the lease taken away",
            Self::Silenced => "nothing published",
            Self::Unheard => "statements lost",
            Self::Full => "Redis full",
            Self::Strange => "strange statements",
        }
    }

    /// Does it, for as long as `lasts`, and undoes it. Says what else there is to know.
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
            Self::SetBack => {
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
                    redis.run(&["SET", &lease, "stranger", "PX", &life]);
                }
                sleep(lasts).await;
            }
            Self::Contended => again_and_again(lasts, || remove(redis, "pc:lease:*")).await,
            Self::Silenced => {
                redis.run(&["ACL", "SETUSER", "default", "-publish"]);
                sleep(lasts).await;
                redis.run(&["ACL", "SETUSER", "default", "+@all"]);
            }
            Self::Unheard => {
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
            Self::Strange => again_and_again(lasts, || say_strange_things(redis)).await,
        }
        format!("for {lasts:.1?}")
    }

    /// How long it lasts, at random. What is not heard must come again before the others notice that nobody speaks.
    pub(super) fn lasts(self, rng: &mut Rng) -> Duration {
        let millis = match self {
            Self::Frozen => 2_500..6_000,
            Self::Unheard => 200..1_000,
            _ => 200..5_000,
        };
        Duration::from_millis(rng.u64(millis))
    }
}

/// Does something until so much time is over.
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

/// Cuts the connections of a kind: that over which it is asked may be among them.
fn cut(redis: &Redis, kind: &str) -> bool {
    redis.try_run(&["CLIENT", "KILL", "TYPE", kind]).is_ok()
}

fn keys(redis: &Redis, pattern: &str) -> Vec<String> {
    redis.read(&["KEYS", pattern])
}

fn remove(redis: &Redis, pattern: &str) {
    for key in keys(redis, pattern) {
        redis.run(&["DEL", &key]);
    }
}

/// What is said between a subscription's end and the next one's beginning is lost, as it is not in the log either.
async fn trimmed(redis: &Redis, lasts: Duration) {
    let logs = keys(redis, "pc:log:*");
    let client = Client::open(redis.url()).expect("the URL is our own");
    // A connection that stays: the log must be gone before anybody can read it.
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

/// Says that nothing else has changed until tomorrow, and that all is outdated then: in the bytes of statements and of hints.
fn say_strange_things(redis: &Redis) {
    let tomorrow = Moment::new(u32::try_from(wall() / 1_000).expect("it is before 2106") + 24 * 3_600, 1);
    let batch = (0_u64, tomorrow.as_u64(), Vec::<()>::new());
    let batch = postcard::to_allocvec(&batch).expect("it fits into memory");
    let batch: String = batch.iter().map(|byte| format!("\\{byte:03}")).collect();
    let hint = format!(r#"{{"at":[{},1],"all":true}}"#, tomorrow.seconds());
    let channels = |pattern| redis.read::<Vec<String>>(&["PUBSUB", "CHANNELS", pattern]);
    for channel in channels("pc:changes:*") {
        redis.run(&["EVAL", &format!("return redis.call('PUBLISH', KEYS[1], '{batch}')"), "1", &channel]);
    }
    for channel in channels("pc:hints:*") {
        redis.run(&["PUBLISH", &channel, &hint]);
    }
    for log in keys(redis, "pc:log:*") {
        let script = format!("return redis.pcall('XADD', KEYS[1], ARGV[1], 's', '{batch}')");
        let entry = format!("{}-{}", tomorrow.seconds(), tomorrow.increment());
        // The log has got there already, from the second time on.
        let _added_or_not = redis.try_run(&["EVAL", &script, "1", &log, &entry]);
    }
}
