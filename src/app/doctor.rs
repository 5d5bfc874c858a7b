//! Examines a configuration, part by part, for `permcached doctor`.
//!
//! Serves nothing: it opens no port, and leaves no data behind.

use std::{path::Path, sync::Arc};

use super::read_schema;
use crate::{
    config::{Config, RedisConfig, SourceConfig},
    diagnosis::{Diagnosis, Subject, error_chain},
    link,
    schema::{Schema, SchemaErrors},
    source::{documents::Documents, mongodb},
    transport::{Callers, Scope},
};

/// Examines everything that is configured, in the order in which a person would. Calls `report` after each part.
pub async fn examine(config: &Config, report: impl Fn(Vec<Diagnosis>)) {
    let (schema, mut diagnoses) = schema(&config.schema);
    diagnoses.push(callers(config));
    report(diagnoses);
    if config.tls.is_some() {
        report(vec![Diagnosis::fine(Subject::Tls, "the port's certificate and key can be read, and belong together")]);
    }
    match &config.source {
        SourceConfig::Documents(directory) => {
            report(documents(schema.as_ref(), directory));
            if config.redis.is_some() {
                let unused = "Redis is configured but not used: instances do not share documents on disk";
                report(vec![Diagnosis::warning(Subject::Redis, unused, "unset REDIS_URL and REDIS_HOST")]);
            }
        }
        SourceConfig::MongoDb { uri, database } => {
            report(mongodb::examine(schema.as_ref(), uri.reveal(), database.as_deref()).await);
            report(match &config.redis {
                Some(RedisConfig { server, secrets }) => {
                    let mut diagnoses = link::examine(server).await;
                    if secrets.is_none() {
                        diagnoses.push(no_secret());
                    }
                    diagnoses
                }
                None => {
                    vec![Diagnosis::fine(Subject::Redis, "no Redis is configured: a single instance runs without one")]
                }
            });
        }
    }
}

fn schema(path: &Path) -> (Option<Arc<Schema>>, Vec<Diagnosis>) {
    match read_schema(path) {
        Ok(schema) => {
            let types = schema.resources().count();
            let (lookups, collections) = (schema.declared_lookups().count(), schema.collections().count());
            let message = format!(
                "`{}`: {types} types of resources, {lookups} lookups in {collections} collections",
                path.display()
            );
            let mut diagnoses = vec![Diagnosis::fine(Subject::Schema, message)];
            diagnoses.extend(schema.warnings().into_iter().flat_map(SchemaErrors::iter).map(|warning| {
                let remedy = warning.help.clone().unwrap_or_default();
                Diagnosis::warning(Subject::Schema, warning.message.clone(), remedy)
            }));
            (Some(Arc::new(schema)), diagnoses)
        }
        Err(error) => {
            let message = error_chain(&error).to_string();
            let remedy = format!("permcached schema check {}", path.display());
            (None, vec![Diagnosis::wrong(Subject::Schema, message.trim_end(), remedy)])
        }
    }
}

fn no_secret() -> Diagnosis {
    Diagnosis::wrong(
        Subject::Redis,
        "REDIS_SECRET is not set, so Redis is not used: without it, whoever can write to Redis could turn a denial into an allow",
        "REDIS_SECRET=\"$(openssl rand -hex 32)\", the same on all instances",
    )
}

fn callers(config: &Config) -> Diagnosis {
    match &config.callers {
        Callers::Known(callers) => {
            let admins = callers.iter().filter(|caller| caller.scope == Scope::Admin).count();
            let message = format!("{} tokens are accepted, {admins} of them with the scope admin", callers.len());
            Diagnosis::fine(Subject::Callers, message)
        }
        Callers::Anyone if config.listen.ip().is_loopback() => Diagnosis::warning(
            Subject::Callers,
            format!("there are no tokens, so the address is {}: only this machine can call", config.listen),
            "AUTH_TOKENS=\"backend:$(openssl rand -hex 32)\"",
        ),
        Callers::Anyone => Diagnosis::warning(
            Subject::Callers,
            format!(
                "callers are not authenticated: every client that reaches {} may ask about every subject",
                config.listen
            ),
            "AUTH_TOKENS=\"backend:$(openssl rand -hex 32)\", and unset ALLOW_ANONYMOUS",
        ),
    }
}

fn documents(schema: Option<&Arc<Schema>>, directory: &Path) -> Vec<Diagnosis> {
    let Some(schema) = schema else {
        return vec![Diagnosis::skipped(Subject::Documents, "the documents, as there is no valid schema")];
    };
    let place = directory.display();
    let documents = match Documents::read(schema, directory) {
        Ok(documents) => documents,
        Err(errors) => {
            let remedy = format!("mongoexport --collection=NAME --out={place}/NAME.jsonl, again");
            let wrong = |error| Diagnosis::wrong(Subject::Documents, error_chain(error).to_string(), remedy.clone());
            return errors.iter().map(|error| wrong(error)).collect();
        }
    };
    let counts = documents.counts();
    let total: usize = counts.values().flatten().sum();
    let mut diagnoses = vec![Diagnosis::fine(Subject::Documents, format!("{total} documents can be read in {place}"))];
    for (collection, count) in counts {
        let what = match count {
            None => "has no file, and counts as empty",
            Some(0) => "is empty",
            Some(_) => continue,
        };
        let remedy = format!("mongoexport --collection={collection} --out={place}/{collection}.jsonl");
        diagnoses.push(Diagnosis::warning(Subject::Documents, format!("the collection `{collection}` {what}"), remedy));
    }
    diagnoses.extend(documents.findings().iter().cloned());
    diagnoses
}
