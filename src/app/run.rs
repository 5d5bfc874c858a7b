//! The life of the service: it starts, patiently where MongoDB is not there yet; it serves; it ends.

use std::{
    future::Future,
    net::SocketAddr,
    pin::pin,
    sync::{Arc, OnceLock},
    time::Duration,
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{net::TcpListener, sync::watch, task::JoinSet, time::sleep};

use super::{
    App, AppError, Parts, assemble, health_monitor::HealthMonitor, open, read_schema, reports::report_callers,
};
use crate::{
    config::Config,
    diagnosis::error_chain,
    source::mongodb::ConnectError,
    telemetry::Metrics,
    transport::{Health, Serving, serve},
};

/// How long to wait before a MongoDB that cannot be used yet is tried again.
const PAUSE: Duration = Duration::from_millis(250);

impl AppError {
    /// Whether it may pass by itself, or by what others do.
    fn may_pass(&self) -> bool {
        matches!(self, Self::Source(_) | Self::Connect(ConnectError::Unreachable(_) | ConnectError::NotInitiated))
    }
}

/// Serves until `stop` is done. `ready` is told the address once questions can be answered.
///
/// The port opens when they can, or after the grace for that: then it says that they cannot, and why.
///
/// # Errors
/// [`AppError`].
pub async fn run(
    config: &Config,
    ready: impl FnOnce(SocketAddr),
    stop: impl Future<Output = ()> + Send,
) -> Result<(), AppError> {
    let metrics = Arc::<Metrics>::default();
    let (tell, health) = watch::channel(Health::Starting("the source has not answered yet".to_owned()));
    let (offer, apis) = watch::channel(None);
    let mut starting = pin!(start_patiently(config, &metrics, &tell));
    let mut stop = pin!(stop);
    let started = tokio::select! {
        started = &mut starting => Some(started?),
        () = sleep(config.startup_grace) => None,
        () = &mut stop => return Ok(()),
    };
    allow_descriptors();
    let (listener, address) = bind(config.listen).await?;
    let probes = match config.probes {
        Some(address) => {
            let (listener, address) = bind(address).await?;
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
        limits: config.limits,
        metrics: Arc::clone(&metrics),
        health,
        apis,
    };
    let running = OnceLock::new();
    let working = async {
        let (app, mut tasks) = match started {
            Some(started) => started,
            None => {
                tracing::warn!(%address, why = tell.borrow().describe(), "the port is open, and not ready");
                starting.await?
            }
        };
        let app = running.get_or_init(|| app);
        offer.send_replace(Some(app.apis(config.limits.requests_max)));
        let health_monitor = HealthMonitor::of(app);
        health_monitor.publish(&tell);
        tracing::info!(%address, "ready");
        ready(address);
        tasks.spawn(health_monitor.follow(tell.clone()));
        if config.observed_facts > 0 && app.follows_changes {
            let facts = app.facts.clone();
            tasks.spawn(facts.observe_all(Arc::clone(&app.schema), config.observed_facts));
        }
        // They go on for ever: one that ends has panicked, and without it nothing is known of what changes.
        let _ended = tasks.join_next().await;
        Err(AppError::Task)
    };
    tokio::select! {
        served = serve(serving, stop) => served?,
        failed = working => return failed,
    }
    if let Some(app) = running.get() {
        app.retire().await;
    }
    tracing::info!("stopped");
    Ok(())
}

/// Opens and starts everything, and tries again for ever where what is missing may come.
async fn start_patiently(
    config: &Config,
    metrics: &Arc<Metrics>,
    tell: &watch::Sender<Health>,
) -> Result<(App, JoinSet<()>), AppError> {
    let mut said = String::new();
    loop {
        let started = async {
            let schema = read_schema(&config.schema)?;
            let Config { source, redis, settings, .. } = config;
            let parts = open(schema, source, redis.as_ref(), *settings).await?;
            let mut app = assemble(Parts { metrics: Arc::clone(metrics), ..parts });
            app.logged_decisions = config.logged_decisions;
            let tasks = app.start().await?;
            Ok::<_, AppError>((app, tasks))
        };
        match started.await {
            Err(error) if error.may_pass() => {
                tell.send_replace(Health::Starting("MongoDB cannot be used; the log says why".to_owned()));
                let chain = error_chain(&error).to_string();
                if said != chain {
                    tracing::warn!(error = chain, "MongoDB cannot be used yet: it is tried again");
                    said = chain;
                }
                sleep(PAUSE).await;
            }
            started => return started,
        }
    }
}

/// Has as many connections be open as the system allows: what a process may open by itself is mostly a thousand.
fn allow_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    tracing::debug!(?limit, ?raised, "descriptors");
}

/// Takes a port, and says which.
async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), AppError> {
    let unavailable = |source| AppError::Bind { address, source };
    let listener = TcpListener::bind(address).await.map_err(unavailable)?;
    let address = listener.local_addr().map_err(unavailable)?;
    Ok((listener, address))
}
