//! The service's health: one of four states, the same over gRPC and HTTP.
//!
//! Examines nothing: the application decides its state (`app/health_monitor.rs`).

use tokio::sync::watch;
use tonic_health::{ServingStatus, server::HealthReporter};

/// The state of the service, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// No question can be answered yet.
    Starting(String),
    /// Everything works.
    Ready,
    /// Something that the service depends on is missing.
    Degraded {
        /// What is missing.
        why: String,
        /// Whether the service still answers questions.
        answers: bool,
    },
    /// The service is stopping.
    Draining,
}

impl Health {
    /// The name of every state.
    pub const STATES: [&'static str; 4] = ["starting", "ready", "degraded", "draining"];

    /// The name of this state.
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

    /// Whether clients should send questions to this instance.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        match self {
            Self::Ready => true,
            Self::Degraded { answers, .. } => *answers,
            Self::Starting(_) | Self::Draining => false,
        }
    }

    /// The name of the state, and why it is so.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Starting(why) | Self::Degraded { why, .. } => format!("{}: {why}", self.state()),
            Self::Ready | Self::Draining => self.state().to_owned(),
        }
    }
}

/// The current health, read by gRPC health, HTTP and metrics alike.
#[derive(Clone, Debug)]
pub(super) struct Current {
    /// The application's health.
    pub(super) health: watch::Receiver<Health>,
    /// Whether the service stops.
    pub(super) is_draining: watch::Receiver<bool>,
}

impl Current {
    pub(super) fn now(&self) -> Health {
        if *self.is_draining.borrow() { Health::Draining } else { self.health.borrow().clone() }
    }

    /// Keeps gRPC's health service up to date about these services until the service stops. Its last report is
    /// `NOT_SERVING`.
    pub(super) async fn report(mut self, mut reporter: HealthReporter, services: &[&str]) {
        let mut reported = None;
        while !*self.is_draining.borrow() {
            let is_serving = self.health.borrow_and_update().is_serving();
            let status = if is_serving { ServingStatus::Serving } else { ServingStatus::NotServing };
            if reported.replace(status) != Some(status) {
                set(&reporter, services, status).await;
            }
            tokio::select! {
                changed = self.health.changed() => if changed.is_err() {
                    // The application is gone, so its health changes no more.
                    drop(self.is_draining.wait_for(|is_draining| *is_draining).await);
                    break;
                },
                _ = self.is_draining.changed() => {}
            }
        }
        set(&reporter, services, ServingStatus::NotServing).await;
        // Ends the streams of `Health.Watch` after their clients received the last report. Otherwise they would delay
        // the drain.
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
