//! Log lines about what was found when the service started. Operators search for these words, and the manuals quote them.

use std::net::SocketAddr;

use super::AppError;
use crate::{
    check::Settings,
    diagnosis::{Diagnosis, Verdict, error_chain},
    link::LinkError,
    schema::{Schema, SchemaErrors},
    source::{
        documents::Documents,
        mongodb::{Finding, Mode, MongoDb},
    },
    transport::Callers,
};

/// Logs whether callers are authenticated.
pub(super) fn report_callers(callers: &Callers, address: SocketAddr) {
    match callers {
        Callers::Known(callers) => tracing::info!(tokens = callers.len(), "callers are authenticated"),
        Callers::Anyone => tracing::warn!(
            %address,
            remedy = "set AUTH_TOKENS",
            "CALLERS ARE NOT AUTHENTICATED: anyone who can reach this port may ask about any subject"
        ),
    }
}

/// Logs what the schema says and probably does not mean.
pub(super) fn report_schema(schema: &Schema) {
    for warning in schema.warnings().into_iter().flat_map(SchemaErrors::iter) {
        tracing::warn!(remedy = warning.help, "{}", warning.message);
    }
}

/// Logs findings: those about the configuration, and what a look at some documents has found.
pub fn report_findings(diagnoses: &[Diagnosis]) {
    for Diagnosis { verdict, message, remedy, .. } in diagnoses {
        match verdict {
            Verdict::Wrong | Verdict::Warning => tracing::warn!(remedy, "{message}"),
            Verdict::Fine | Verdict::Skipped => tracing::info!("{message}"),
        }
    }
}

/// Logs when Redis becomes reachable and when it stops being so.
pub(super) fn report_redis(reached: Result<(), &LinkError>) {
    match reached {
        Ok(()) => tracing::info!("✅ Redis cache connected"),
        Err(error) => tracing::warn!(error = %error_chain(error), "Redis unavailable, using memory cache"),
    }
}

/// Logs that Redis is configured and not used, as there is no secret.
pub(super) fn report_no_secret() {
    tracing::warn!(
        remedy = "set REDIS_SECRET to the output of `openssl rand -hex 32`, the same on all instances (docs/redis.md)",
        "REDIS IS NOT USED, as REDIS_SECRET is not set: without it, whoever can write to Redis could turn a denial into an allow. This instance follows MongoDB itself, and shares no facts and no invalidations"
    );
}

/// Logs which collections have no documents, and how many documents there are.
pub(super) fn report_documents(documents: &Documents) {
    for (collection, count) in documents.counts() {
        match count {
            None => tracing::warn!(collection, "there is no file for this collection: it is treated as empty"),
            Some(0) => tracing::warn!(collection, "this collection is empty"),
            Some(documents) => tracing::debug!(collection, documents, "read"),
        }
    }
    let total: usize = documents.counts().values().flatten().sum();
    tracing::info!(documents = total, "documents are in memory");
}

/// Logs what kind of database this is, what follows from that, and what is wrong with it.
///
/// # Errors
/// [`AppError::Unsuitable`], if a collection cannot be followed by a change stream, or has a collation that its texts depend on.
pub(super) async fn report_database(mongodb: &MongoDb, settings: Settings) -> Result<(), AppError> {
    let database = mongodb.database_name();
    let bound = humantime::format_duration(settings.staleness_max);
    match mongodb.mode() {
        Mode::ReplicaSet => {
            tracing::info!(database, %bound, "connected to a replica set: changes arrive through a change stream");
        }
        Mode::Standalone => tracing::warn!(
            database,
            %bound,
            remedy = "run mongod with --replSet, and rs.initiate() once",
            "MongoDB is a single server, which has no change streams: every fact is read again once it is as old as the bound, and a request with a token reads the database"
        ),
        Mode::Sharded => tracing::warn!(
            database,
            %bound,
            "MongoDB is a sharded cluster: every fact is read again once it is as old as the bound. The bound is not promised, as a shard may answer from the past"
        ),
    }
    let findings = match mongodb.inspect().await {
        Ok(findings) => findings,
        Err(error) => {
            tracing::warn!(%error, remedy = "grant the `read` role on the database", "the database cannot be inspected");
            return Ok(());
        }
    };
    let (unsuitable, others): (Vec<_>, Vec<_>) = findings.into_iter().partition(Finding::is_fatal);
    for finding in others {
        if finding.is_of_lists() {
            // Whether anybody asks for lists is not known.
            tracing::info!(remedy = finding.remedy(), "{}", finding.message());
        } else {
            tracing::warn!(remedy = finding.remedy(), "{}", finding.message());
        }
    }
    if unsuitable.is_empty() { Ok(()) } else { Err(AppError::Unsuitable(unsuitable)) }
}
