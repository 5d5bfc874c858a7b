//! The life of the service: start, serve, stop. A start waits for MongoDB if that cannot be reached yet.
//!
//! Constructs no part: `assemble` does.

use std::{
    future::Future,
    net::SocketAddr,
    pin::pin,
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures::future::OptionFuture;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use super::{
    App, AppError, Parts, assemble, open,
    ports::Port,
    read_schema,
    reports::{report_callers, report_findings},
};
use crate::{
    config::{
        Config,
        variable::{PORT, PROBE_PORT},
    },
    diagnosis::error_chain,
    source::mongodb::ConnectError,
    telemetry::Metrics,
    transport::{Health, Limits, Serving, serve},
};

/// The pause between two attempts to start.
const PAUSE: Duration = Duration::from_millis(250);

impl AppError {
    /// Whether a later attempt may succeed without a change of the configuration.
    fn is_temporary(&self) -> bool {
        matches!(
            self,
            Self::Source(_)
                | Self::Connect(
                    ConnectError::Unreachable(_) | ConnectError::AssumedSource(_) | ConnectError::NotInitiated
                )
        )
    }
}

/// Serves until `stop` completes. Calls `ready` with the address once questions can be answered.
///
/// The port opens at that time, or after the startup grace. In the second case health checks report that the service is
/// not ready, and why.
///
/// # Errors
/// [`AppError`].
pub async fn run(
    config: &Config,
    ready: impl FnOnce(SocketAddr),
    stop: impl Future<Output = ()> + Send,
) -> Result<(), AppError> {
    report_findings(&config.notes);
    let metrics = Arc::<Metrics>::default();
    let (health_sender, health) = watch::channel(Health::Starting("the source has not answered yet".to_owned()));
    let (api_sender, apis) = watch::channel(None);
    let grace_end = Instant::now() + config.startup_grace;
    let mut stop = pin!(stop);
    let reserving = async {
        let port = Port::reserve(PORT.name, config.listen, grace_end).await?;
        let probes = config.probes.map(|address| Port::reserve(PROBE_PORT.name, address, grace_end));
        Ok::<_, AppError>((port, OptionFuture::from(probes).await.transpose()?))
    };
    let (port, probes) = tokio::select! {
        reserved = reserving => reserved?,
        () = &mut stop => return Ok(()),
    };
    let mut starting = Box::pin(start_patiently(config, &metrics, &health_sender));
    let started = tokio::select! {
        started = &mut starting => Some(started?),
        () = sleep_until(grace_end) => None,
        () = &mut stop => return Ok(()),
    };
    let limits = limits(config);
    let (listener, address) = port.open(grace_end).await?;
    let probes = match probes {
        Some(port) => {
            let (listener, address) = port.open(grace_end).await?;
            tracing::info!(%address, "probes are answered");
            Some(listener)
        }
        None => None,
    };
    report_callers(&config.callers, address);
    let serving = Serving {
        listener,
        probes,
        tls: config.tls.clone(),
        callers: config.callers.clone(),
        reflection: config.reflection,
        limits,
        metrics_tokens: config.metrics_tokens.clone(),
        metrics: Arc::clone(&metrics),
        health,
        apis,
    };
    let running = OnceLock::new();
    let working = async {
        let (app, mut tasks) = match started {
            Some(started) => started,
            None => {
                tracing::warn!(%address, why = health_sender.borrow().describe(), "the port is open, and not ready");
                starting.await?
            }
        };
        let app = running.get_or_init(|| app);
        api_sender.send_replace(Some(app.apis.clone()));
        let mut health_monitor = app.health_monitor.clone();
        health_monitor.publish(&health_sender);
        tracing::info!(%address, "ready");
        ready(address);
        tasks.spawn(health_monitor.follow(health_sender.clone()));
        if config.observed_facts > 0 && app.follows_changes {
            tasks.spawn(app.observe(config.observed_facts));
        }
        // Background tasks never end by themselves. One that has ended has panicked, and changes may now go unnoticed.
        let _ended = tasks.join_next().await;
        Err(AppError::Task)
    };
    tokio::select! {
        served = Box::pin(serve(serving, stop)) => served?,
        failed = working => return failed,
    }
    if let Some(app) = running.get() {
        app.retire().await;
    }
    tracing::info!("stopped");
    Ok(())
}

/// Opens and starts everything. Repeats this for as long as the error is a temporary one.
async fn start_patiently(
    config: &Config,
    metrics: &Arc<Metrics>,
    health: &watch::Sender<Health>,
) -> Result<(App, JoinSet<()>), AppError> {
    let mut last_error = String::new();
    loop {
        let started = async {
            let schema = read_schema(&config.schema)?;
            let Config { source, redis, settings, .. } = config;
            let parts = open(schema, source, redis.as_ref(), *settings).await?;
            let (requests_max, logged_decisions) = (config.limits.requests_max, config.logged_decisions);
            let metrics = Arc::clone(metrics);
            let surveyed = Arc::clone(&parts.source);
            let mut app = assemble(Parts { requests_max, logged_decisions, metrics, ..parts });
            let mut tasks = app.start().await?;
            tasks.spawn(async move {
                report_findings(&surveyed.survey().await);
                // The tasks of an instance never end by themselves.
                std::future::pending::<()>().await;
            });
            Ok::<_, AppError>((app, tasks))
        };
        match started.await {
            Err(error) if error.is_temporary() => {
                health.send_replace(Health::Starting("MongoDB cannot be used; the log says why".to_owned()));
                let chain = error_chain(&error).to_string();
                if last_error != chain {
                    tracing::warn!(error = %chain, "MongoDB cannot be used yet: it is tried again");
                    last_error = chain;
                }
                sleep(PAUSE).await;
            }
            started => return started,
        }
    }
}

/// The configured limits, with no more connections than the process may have file descriptors for. It first raises that
/// number to the highest that the system allows: the default is often about a thousand.
fn limits(config: &Config) -> Limits {
    let before = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: before.maximum, ..before });
    let after = getrlimit(Resource::Nofile);
    tracing::debug!(?before, ?raised, ?after, "descriptors");
    // No value means that there is no limit.
    let limits = config.limits.within_descriptors(after.current.unwrap_or(u64::MAX));
    let (configured, lowered) = (config.limits.connections_max, limits.connections_max);
    if lowered < configured {
        tracing::warn!(
            configured,
            lowered,
            descriptors = after.current,
            "MAX_CONNECTIONS was lowered: the process may not have more file descriptors (ulimit -n)"
        );
    }
    limits
}
