//! Opening what an instance is assembled from: the schema file, the source, and the Redis that it shares.
//!
//! Logs what it finds there. Constructs no part of the instance itself.

use std::{path::Path, sync::Arc};

use super::{
    AppError, ChangesFrom, Parts, Sharing,
    reports::{report_database, report_documents, report_no_secret, report_schema},
};
use crate::{
    check::Settings,
    config::{RedisConfig, SourceConfig},
    schema::Schema,
    source::{
        Identity,
        documents::Documents,
        mongodb::{ConnectError, DriverError, MongoDb},
    },
};

/// Reads and compiles a schema file.
///
/// # Errors
/// [`AppError::ReadSchema`] and [`AppError::Schema`].
pub fn read_schema(path: &Path) -> Result<Schema, AppError> {
    let unreadable = |source| AppError::ReadSchema { path: path.to_owned(), source };
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    Schema::parse(&path.display().to_string(), &text).map_err(AppError::Schema)
}

/// Opens a source and the Redis that the instance shares, and logs what is found there.
///
/// # Errors
/// [`AppError::Documents`], [`AppError::Connect`] and [`AppError::Unsuitable`].
pub async fn open(
    schema: Schema,
    source: &SourceConfig,
    redis: Option<&RedisConfig>,
    settings: Settings,
) -> Result<Parts, AppError> {
    report_schema(&schema);
    let schema = Arc::new(schema);
    match source {
        SourceConfig::Documents(directory) => {
            let documents = Documents::read(&schema, directory).map_err(AppError::Documents)?;
            report_documents(&documents);
            if redis.is_some() {
                tracing::warn!("Redis is configured and not used: documents on disk are not shared");
            }
            let trouble = documents.trouble();
            let changes = ChangesFrom::Files { batches: documents.changes(), first: documents.revision() };
            Ok(Parts { changes, trouble, settings, ..Parts::new(schema, Arc::new(documents)) })
        }
        SourceConfig::MongoDb { uri, database } => {
            let mongodb = MongoDb::connect(Arc::clone(&schema), uri.reveal(), database.as_deref()).await?;
            report_database(&mongodb, settings).await?;
            let identity = mongodb.identity().await;
            let sharing = match redis {
                Some(RedisConfig { server, secrets: Some(secrets) }) => {
                    let identity = identity.clone().map_err(ConnectError::Unreachable)?;
                    Some(Sharing::over(server.clone(), secrets, &schema, &identity))
                }
                Some(RedisConfig { server: _, secrets: None }) => {
                    report_no_secret();
                    None
                }
                None => {
                    tracing::info!("ℹ️  Redis not configured (REDIS_URL not set), using memory cache");
                    None
                }
            };
            let identity = hash_of(identity);
            Ok(Parts { identity, sharing, settings, ..Parts::over_mongodb(schema, mongodb) })
        }
    }
}

/// A hash of what distinguishes the database from others. None, with a warning, if it does not tell.
fn hash_of(identity: Result<Identity, DriverError>) -> Option<[u8; 32]> {
    match identity {
        // Only a collection tells it from one of the same name in another replica set of the same name. Without any, this process
        // differs from all others.
        Ok(identity) if identity.collections.iter().all(|(_, uuid)| uuid.is_none()) => {
            Some(std::array::from_fn(|_| fastrand::u8(..)))
        }
        Ok(identity) => Some(identity.fingerprint()),
        Err(error) => {
            let remedy = "grant the `read` role on the database, and restart";
            tracing::warn!(%error, remedy, "the collections cannot be listed, so no caller can keep answers");
            None
        }
    }
}
