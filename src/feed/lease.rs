//! The lease that chooses who speaks for all (design section 5, point 8). It saves change streams; safety never rests on it:
//! two who speak at once both say what is true.

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

/// How long the lease holds when it is not renewed.
const LIFE: Duration = Duration::from_secs(1);

/// How often it is renewed, or asked for.
const INTERVAL: Duration = Duration::from_millis(250);

/// For how long who gave the lease up, as it could not speak, leaves it to others.
const PAUSE: Duration = Duration::from_secs(5);

/// Takes the lease if nobody holds it, and renews it if it is ours. A full server grants it nevertheless: it is one small
/// key.
const HOLD: &str = "#!lua flags=allow-oom
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then
    return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1";

/// Gives it up if it is ours.
const RELEASE: &str = "#!lua
if redis.call('GET', KEYS[1]) == ARGV[1] then
    redis.call('DEL', KEYS[1])
end
return 0";

/// The lease, as one instance sees it.
#[derive(Debug)]
pub struct Lease {
    link: Link,
    key: String,
    /// What tells this instance from others.
    owner: String,
    /// Which term of office this is, while the lease is held.
    held: watch::Sender<Option<u64>>,
    /// Until when it is left to others.
    left_until: Mutex<Option<LocalTime>>,
}

impl Lease {
    /// A lease that is not held.
    #[must_use]
    pub fn new(link: Link, key: String) -> Self {
        let owner = format!("{:032x}", fastrand::u128(..));
        Self { link, key, owner, held: watch::Sender::new(None), left_until: Mutex::default() }
    }

    /// Which term of office this is, while it is held: now, and from now on.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Option<u64>> {
        self.held.subscribe()
    }

    /// Which term of office this is, while it is held.
    #[must_use]
    pub fn term(&self) -> Option<u64> {
        *self.held.borrow()
    }

    /// Whether this instance speaks for all.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.term().is_some()
    }

    /// Asks for it and renews it, for ever.
    pub async fn run(&self) {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut terms = 0;
        let mut holds_until = None;
        let mut is_refusal_told = false;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                // One that is not renewed in time is not held any more.
                () = until(holds_until), if self.is_held() => {
                    self.held.send_replace(None);
                    continue;
                }
            }
            if self.is_left_to_others() {
                continue;
            }
            let asked = LocalTime::now();
            let mut command = redis::cmd("EVAL");
            command.arg(HOLD).arg(1).arg(&self.key).arg(&self.owner).arg(u64::try_from(LIFE.as_millis()).unwrap_or(1));
            match self.link.query::<u8>(&command, COMMAND_TIME).await {
                // It may have been given up meanwhile.
                Ok(1) if !self.is_left_to_others() => {
                    holds_until = Some(asked);
                    if !self.is_held() {
                        terms += 1;
                        tracing::debug!("this instance speaks for all");
                        self.held.send_replace(Some(terms));
                    }
                }
                Ok(_) => {
                    self.held.send_replace(None);
                }
                Err(error) => {
                    // What this instance is connected to is a master no more.
                    if error.is_read_only() {
                        self.link.renew();
                    }
                    if matches!(error, LinkError::Refused(_)) && !is_refusal_told {
                        is_refusal_told = true;
                        let remedy = "see docs/redis.md for the rights that its user needs; Redis 7 or newer is needed";
                        tracing::warn!(error = %error_chain(&error), remedy, "this instance cannot speak for others");
                    }
                    tracing::debug!(error = %error_chain(&error), "the lease was neither given nor renewed");
                }
            }
        }
    }

    /// Leaves it to others, as this instance cannot speak: for some seconds, so that another one gets it.
    pub async fn give_up(&self) {
        let until = LocalTime::now().plus(PAUSE);
        *self.left_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
        self.release().await;
    }

    /// Ends the term of office, so that the next one can begin at once.
    pub async fn release(&self) {
        if self.held.send_replace(None).is_some() {
            let mut command = redis::cmd("EVAL");
            command.arg(RELEASE).arg(1).arg(&self.key).arg(&self.owner);
            if let Err(error) = self.link.query::<()>(&command, COMMAND_TIME).await {
                tracing::debug!(error = %error_chain(&error), "the lease runs out by itself");
            }
        }
    }

    fn is_left_to_others(&self) -> bool {
        let left_until = *self.left_until.lock().unwrap_or_else(PoisonError::into_inner);
        left_until.is_some_and(|until| !until.since(LocalTime::now()).is_zero())
    }
}

/// Done when a lease that was asked for then, and given, has run out.
async fn until(asked: Option<LocalTime>) {
    let left = asked.map_or(Duration::ZERO, |asked| LIFE.saturating_sub(LocalTime::now().since(asked)));
    tokio::time::sleep(left).await;
}
