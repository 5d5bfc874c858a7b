//! The application put together: the one place that names every concrete type and starts every task.
//!
//! Decides nothing itself.

use std::{future::Future, io, net::SocketAddr, path::PathBuf, sync::Arc};

use tokio::net::TcpListener;

use crate::{
    check::Checker,
    config::{Config, SourceConfig},
    schema::{Mistakes, Schema},
    source::{
        Source,
        documents::{Documents, DocumentsError},
        mongodb::{ConnectError, Mode, MongoDb, inspect},
    },
    telemetry::Metrics,
    transport::{Limits, PermissionApi, ServeError, serve},
};

/// How many requests are handled at once; further ones are refused, with the time to try again.
pub const REQUESTS_MAX: usize = 1_024;

/// Why the application did not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The schema's file cannot be read.
    #[error("cannot read the schema `{}`: {source}", path.display())]
    ReadSchema {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The schema is wrong.
    #[error("{0}")]
    Schema(Mistakes),
    /// The documents are wrong.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Documents(Vec<DocumentsError>),
    /// MongoDB cannot be used.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The port cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The port cannot be served.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// Everything that answers, without a port.
#[derive(Clone)]
pub struct App {
    /// Answers questions.
    pub checker: Checker,
    /// Counts them.
    pub metrics: Arc<Metrics>,
}

/// Reads and compiles a schema.
///
/// # Errors
/// [`AppError::ReadSchema`] and [`AppError::Schema`].
pub fn read_schema(path: &std::path::Path) -> Result<Schema, AppError> {
    let unreadable = |source| AppError::ReadSchema { path: path.to_owned(), source };
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    Schema::parse(&path.display().to_string(), &text).map_err(AppError::Schema)
}

impl App {
    /// Reads the schema and opens the source. Says in the log what it finds there.
    ///
    /// # Errors
    /// [`AppError`].
    pub async fn open(schema: Schema, source: &SourceConfig) -> Result<Self, AppError> {
        let schema = Arc::new(schema);
        let source: Arc<dyn Source> = match source {
            SourceConfig::Documents(directory) => {
                let documents = Documents::read(&schema, directory).map_err(AppError::Documents)?;
                report_documents(&documents);
                Arc::new(documents)
            }
            SourceConfig::MongoDb { uri, database } => {
                let mongodb = MongoDb::connect(Arc::clone(&schema), uri.reveal(), database.as_deref()).await?;
                report_database(&schema, &mongodb).await;
                Arc::new(mongodb)
            }
        };
        let metrics = Arc::new(Metrics::default());
        Ok(Self { checker: Checker::new(schema, source, Arc::clone(&metrics)), metrics })
    }

    /// The service that answers for it.
    #[must_use]
    pub fn api(&self) -> PermissionApi {
        PermissionApi::new(self.checker.clone(), REQUESTS_MAX)
    }
}

/// Serves until `stop` is done. `listening` is told the address once the port is open.
///
/// # Errors
/// [`AppError`].
pub async fn run(
    config: &Config,
    listening: impl FnOnce(SocketAddr),
    stop: impl Future<Output = ()> + Send,
) -> Result<(), AppError> {
    let app = App::open(read_schema(&config.schema)?, &config.source).await?;
    let unavailable = |source| AppError::Bind { address: config.listen, source };
    let listener = TcpListener::bind(config.listen).await.map_err(unavailable)?;
    let address = listener.local_addr().map_err(unavailable)?;
    if !address.ip().is_loopback() {
        tracing::warn!(%address, "callers are not authenticated: whoever reaches this port may ask for anybody");
    }
    tracing::info!(%address, "ready");
    listening(address);
    serve(listener, app.api(), app.metrics, Limits::default(), stop).await?;
    tracing::info!("stopped");
    Ok(())
}

fn report_documents(documents: &Documents) {
    for (collection, count) in documents.counts() {
        match count {
            None => tracing::warn!(collection, "there is no file for this collection: it is taken to be empty"),
            Some(0) => tracing::warn!(collection, "this collection is empty"),
            Some(documents) => tracing::debug!(collection, documents, "read"),
        }
    }
    let total: usize = documents.counts().values().flatten().sum();
    tracing::info!(documents = total, "documents are in memory");
}

async fn report_database(schema: &Schema, mongodb: &MongoDb) {
    let database = mongodb.database().name();
    match mongodb.mode() {
        Mode::ReplicaSet => tracing::info!(database, "connected to a replica set"),
        Mode::Local => tracing::warn!(
            database,
            "MongoDB is a single server or a sharded cluster: tokens mean something to this instance alone (a single server becomes a replica set by --replSet and rs.initiate())"
        ),
    }
    match inspect(schema, mongodb.database()).await {
        Ok(findings) => {
            for finding in findings {
                tracing::warn!(remedy = finding.remedy(), "{}", finding.message());
            }
        }
        Err(error) => {
            tracing::warn!(%error, remedy = "grant the `read` role on the database", "the database cannot be inspected");
        }
    }
}
