//! Finds out the user's rights by trying: a find at a snapshot in each collection, and a change stream.
//!
//! Changes no rights: a diagnosis shows the command that does.

use std::{collections::BTreeSet, sync::Arc};

use bson::doc;
use mongodb::Database;
use tokio::time::timeout;

use super::{Address, DriverError, Mode, MongoDb, STEP_TIME, quoted};
use crate::{
    diagnosis::{Diagnosis, Subject, error_chain},
    question::Id,
    schema::{Lookup, Schema},
    source::{Deadline, SourceError},
};

/// Reads in the same way as the service.
pub(super) async fn examine(
    source: &MongoDb,
    schema: &Arc<Schema>,
    unsuitable: &BTreeSet<String>,
    address: &Address,
    diagnoses: &mut Vec<Diagnosis>,
) {
    let mut refused = Vec::new();
    let mut others = Vec::new();
    let names = schema.collections().filter(|name| !unsuitable.contains(*name));
    for name in names {
        match read(source, schema, name).await {
            Ok(()) => {}
            Err(error) if is_unauthorized(&error) => refused.push(format!("read `{name}`")),
            Err(error) => others.push(error_chain(&error).to_string()),
        }
    }
    let is_read = refused.is_empty() && others.is_empty();
    if source.mode() == Mode::ReplicaSet {
        match timeout(STEP_TIME, source.client.database().watch()).await {
            Ok(Ok(_stream)) => {
                let message = "a change stream can be opened: changes are known at once";
                diagnoses.push(Diagnosis::fine(Subject::MongoDb, message));
            }
            Ok(Err(error)) => match DriverError::from(error) {
                error if error.is_unauthorized() => refused.push("open a change stream".to_owned()),
                error => others.push(format!("a change stream cannot be opened: {error}")),
            },
            Err(_) => others.push("a change stream is not opened in time".to_owned()),
        }
    }
    if is_read {
        diagnoses.push(Diagnosis::fine(Subject::MongoDb, "the user may read each collection"));
    }
    let remedy = "see the log of mongod; `db.adminCommand({ replSetGetStatus: 1 })` shows the state of the replica set";
    diagnoses.extend(others.into_iter().map(|message| Diagnosis::wrong(Subject::MongoDb, message, remedy)));
    if !refused.is_empty() {
        let message = format!("the user may not {}", refused.join(", "));
        let remedy = grant(&source.client.database(), address).await;
        diagnoses.push(Diagnosis::wrong(Subject::MongoDb, message, remedy));
    }
}

/// Runs one find: after a probe, and at a snapshot if the server has any.
async fn read(source: &MongoDb, schema: &Schema, name: &str) -> Result<(), SourceError> {
    let Some(collection) = schema.collection_id(name) else { return Ok(()) };
    let deadline = Deadline::after(STEP_TIME);
    let at = source.probe_in(name, deadline).await?;
    let no_document = [Id::ObjectId([0; 12])];
    source.find_once(&Lookup::by_id(name, collection), &no_document, at, deadline).await.map(drop)
}

fn is_unauthorized(error: &SourceError) -> bool {
    let (SourceError::Probe(source) | SourceError::Find { source, .. }) = error else { return false };
    source.downcast_ref().is_some_and(DriverError::is_unauthorized)
}

/// The remedy that gives the user the right to read.
async fn grant(database: &Database, address: &Address) -> String {
    let name = database.name();
    let status = timeout(STEP_TIME, database.run_command(doc! { "connectionStatus": 1 })).await;
    let status = status.ok().and_then(Result::ok).unwrap_or_default();
    let users = status.get_document("authInfo").and_then(|info| info.get_array("authenticatedUsers"));
    let user = users.ok().and_then(|users| users.first()).and_then(|user| user.as_document());
    let login = user.and_then(|user| Some((user.get_str("user").ok()?, user.get_str("db").ok()?)));
    match login {
        Some((user, _)) if address.is_atlas() => {
            format!("in Atlas: Database Access, edit `{user}`, Specific Privileges: `read` on `{name}`")
        }
        Some((user, source)) => {
            let role = format!("{{ role: \"read\", db: {} }}", quoted(name));
            format!("db.getSiblingDB({}).grantRolesToUser({}, [{role}])", quoted(source), quoted(user))
        }
        None => format!(
            "db.getSiblingDB({}).createUser({{ user: \"permcached\", pwd: passwordPrompt(), roles: [\"read\"] }}); \
             then name the user in MONGODB_URI",
            quoted(name)
        ),
    }
}
