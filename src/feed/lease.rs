//! The lease that chooses the leader (docs/freshness.md, point 8). One leader saves the other instances a change stream.
//!
//! Safety does not depend on the lease: if two leaders publish at once, both publish what is true.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use crate::{
    bus::COMMAND_TIME,
    diagnosis::error_chain,
    freshness::LocalTime,
    link::{Link, LinkError},
};

/// How long the lease lasts unless it is renewed.
const LEASE_TIME: Duration = Duration::from_secs(1);

/// How often an instance tries to take or renew the lease.
const INTERVAL: Duration = Duration::from_millis(250);

/// How long an instance that gave up the lease does not try to take it, so that another instance gets it.
const PAUSE: Duration = Duration::from_secs(5);

/// Takes the lease if it is free, and renews it if this instance has it. The script also runs on a full server, as the lease
/// is one small key.
const ACQUIRE: &str = "#!lua flags=allow-oom
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then
    return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1";

/// Deletes the lease if this instance has it.
const RELEASE: &str = "#!lua
if redis.call('GET', KEYS[1]) == ARGV[1] then
    redis.call('DEL', KEYS[1])
end
return 0";

/// The lease from the point of view of one instance.
#[derive(Debug)]
pub struct Lease {
    link: Link,
    key: String,
    /// Identifies this instance.
    owner: String,
    /// The number of the current term while this instance is the leader.
    term: watch::Sender<Option<u64>>,
    /// Until when this instance does not try to take the lease.
    paused_until: Mutex<Option<LocalTime>>,
}

impl Lease {
    /// A lease that this instance does not have yet. `key` is its name in Redis.
    #[must_use]
    pub fn new(link: Link, key: String) -> Self {
        let owner = format!("{:032x}", fastrand::u128(..));
        Self { link, key, owner, term: watch::Sender::new(None), paused_until: Mutex::default() }
    }

    /// The current term, now and whenever it changes; `None` while this instance is not the leader.
    #[must_use]
    pub fn terms(&self) -> watch::Receiver<Option<u64>> {
        self.term.subscribe()
    }

    /// The current term; `None` while this instance is not the leader.
    #[must_use]
    pub fn term(&self) -> Option<u64> {
        *self.term.borrow()
    }

    /// Whether this instance is the leader.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.term().is_some()
    }

    /// Takes and renews the lease, for ever.
    pub async fn run(&self) {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut terms = 0;
        let mut requested = None;
        let mut has_warned = false;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                // It was not renewed in time.
                () = expiry(requested), if self.is_leader() => {
                    self.term.send_replace(None);
                    continue;
                }
            }
            if self.is_paused() {
                continue;
            }
            let now = LocalTime::now();
            let mut command = redis::cmd("EVAL");
            command
                .arg(ACQUIRE)
                .arg(1)
                .arg(&self.key)
                .arg(&self.owner)
                .arg(u64::try_from(LEASE_TIME.as_millis()).unwrap_or(1));
            match self.link.query::<u8>(&command, COMMAND_TIME).await {
                // This instance may have given it up meanwhile.
                Ok(1) if !self.is_paused() => {
                    requested = Some(now);
                    if !self.is_leader() {
                        terms += 1;
                        tracing::debug!("this instance is the leader");
                        self.term.send_replace(Some(terms));
                    }
                }
                Ok(_) => {
                    self.term.send_replace(None);
                }
                Err(error) => {
                    // A server that accepts no writes is no longer a master. A new connection finds the current one.
                    if error.is_read_only() {
                        self.link.renew();
                    }
                    if matches!(error, LinkError::Refused(_)) && !has_warned {
                        has_warned = true;
                        let remedy =
                            "see docs/redis.md for the rights that its user requires; Redis 7 or newer is required";
                        tracing::warn!(error = %error_chain(&error), remedy, "this instance cannot become the leader");
                    }
                    tracing::debug!(error = %error_chain(&error), "the lease could not be taken or renewed");
                }
            }
        }
    }

    /// Ends the term, if this instance is the leader, and leaves the lease to other instances for five seconds. Called
    /// whenever this instance cannot follow the source or cannot publish, leader or not, and when it stops.
    pub async fn give_up(&self) {
        let until = LocalTime::now().plus(PAUSE);
        *self.paused_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
        self.release().await;
    }

    /// Ends the term, so that the next one can begin at once, here or elsewhere.
    pub async fn release(&self) {
        if self.term.send_replace(None).is_some() {
            let mut command = redis::cmd("EVAL");
            command.arg(RELEASE).arg(1).arg(&self.key).arg(&self.owner);
            if let Err(error) = self.link.query::<()>(&command, COMMAND_TIME).await {
                tracing::debug!(error = %error_chain(&error), "the lease could not be deleted, and expires by itself");
            }
        }
    }

    fn is_paused(&self) -> bool {
        let paused_until = *self.paused_until.lock().unwrap_or_else(PoisonError::into_inner);
        paused_until.is_some_and(|until| !until.since(LocalTime::now()).is_zero())
    }
}

/// Waits until a lease that was requested at this time, and granted, has expired.
async fn expiry(requested: Option<LocalTime>) {
    let left = requested.map_or(Duration::ZERO, |at| LEASE_TIME.saturating_sub(LocalTime::now().since(at)));
    tokio::time::sleep(left).await;
}
