//! How the service is: in four states, the same over gRPC and HTTP, as things are at that moment.

use tokio::sync::watch;
use tonic_health::{ServingStatus, server::HealthReporter};

/// How the service is, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// No question can be answered yet.
    Starting(String),
    /// All is well.
    Ready,
    /// Something that belongs to it is missing.
    Degraded {
        /// What.
        why: String,
        /// Whether questions are answered all the same.
        answers: bool,
    },
    /// It is about to end.
    Draining,
}

impl Health {
    /// Every state's name.
    pub const STATES: [&'static str; 4] = ["starting", "ready", "degraded", "draining"];

    /// The state's name.
    #[must_use]
    pub fn state(&self) -> &'static str {
        let [starting, ready, degraded, draining] = Self::STATES;
        match self {
            Self::Starting(_) => starting,
            Self::Ready => ready,
            Self::Degraded { .. } => degraded,
            Self::Draining => draining,
        }
    }

    /// Whether questions are to be sent here.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        match self {
            Self::Ready => true,
            Self::Degraded { answers, .. } => *answers,
            Self::Starting(_) | Self::Draining => false,
        }
    }

    /// The state, and why.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Starting(why) | Self::Degraded { why, .. } => format!("{}: {why}", self.state()),
            Self::Ready | Self::Draining => self.state().to_owned(),
        }
    }
}

/// How the service is at this moment, whoever asks.
#[derive(Clone, Debug)]
pub(super) struct Current {
    /// As the application sees it.
    pub(super) health: watch::Receiver<Health>,
    /// Whether the service stops.
    pub(super) is_draining: watch::Receiver<bool>,
}

impl Current {
    pub(super) fn now(&self) -> Health {
        if *self.is_draining.borrow() { Health::Draining } else { self.health.borrow().clone() }
    }

    /// Tells gRPC's health service how these services are until the service stops: that they do not serve any more is the last
    /// that it says.
    pub(super) async fn report(mut self, mut reporter: HealthReporter, services: &[&str]) {
        let mut told = None;
        while !*self.is_draining.borrow() {
            let is_serving = self.health.borrow_and_update().is_serving();
            let status = if is_serving { ServingStatus::Serving } else { ServingStatus::NotServing };
            if told.replace(status) != Some(status) {
                set(&reporter, services, status).await;
            }
            tokio::select! {
                changed = self.health.changed() => if changed.is_err() {
                    // There is nobody to say more.
                    drop(self.is_draining.wait_for(|is_draining| *is_draining).await);
                    break;
                },
                _ = self.is_draining.changed() => {}
            }
        }
        set(&reporter, services, ServingStatus::NotServing).await;
        // Ends the streams of those who watch, once they have heard it: they would hold the drain up to its end.
        for service in services {
            reporter.clear_service_status(service).await;
        }
    }
}

async fn set(reporter: &HealthReporter, services: &[&str], status: ServingStatus) {
    for service in services {
        reporter.set_service_status(*service, status).await;
    }
}
