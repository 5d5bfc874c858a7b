//! Whether the database and the schema's collections exist, and if not, which others were probably meant.
//!
//! Creates nothing.

use std::collections::BTreeSet;

use mongodb::Database;
use tokio::time::timeout;

use super::{Finding, STEP_TIME, inspect};
use crate::{
    diagnosis::{Diagnosis, Subject},
    schema::{Schema, nearest},
};

/// How many names are listed at most.
const NAMES_MAX: usize = 12;

/// MongoDB's own databases.
const INTERNAL: [&str; 3] = ["admin", "config", "local"];

/// Returns whether the database exists, as far as the user can see, and a diagnosis of its name.
pub(super) async fn database(database: &Database) -> (bool, Diagnosis) {
    let name = database.name();
    let listed = timeout(STEP_TIME, database.client().list_database_names()).await;
    let names = listed.ok().and_then(Result::ok).unwrap_or_default();
    // A server lists the databases that the user may see. It always has three of its own.
    if names.is_empty() {
        let unknown = format!("whether there is a database `{name}`, as the user may see none");
        return (true, Diagnosis::skipped(Subject::MongoDb, unknown));
    }
    if names.iter().any(|other| other == name) {
        return (true, Diagnosis::fine(Subject::MongoDb, format!("the database is `{name}`")));
    }
    let others = names.iter().map(String::as_str).filter(|other| !INTERNAL.contains(other));
    let remedy = match nearest(name, others.clone()) {
        Some(meant) => format!("MONGODB_DATABASE={meant}"),
        None => {
            let listed: Vec<&str> = others.take(NAMES_MAX).collect();
            let known = if listed.is_empty() { String::new() } else { format!("; there is {}", listed.join(", ")) };
            format!("MONGODB_DATABASE=NAME, with the name that the application uses{known}")
        }
    };
    let message = format!("there is no database `{name}` that the user may see: names of databases are case-sensitive");
    (false, Diagnosis::wrong(Subject::MongoDb, message, remedy))
}

/// Examines the collections and their indexes. Returns the collections whose changes cannot be followed.
pub(super) async fn examine(
    schema: &Schema,
    database: &Database,
    is_there: bool,
    diagnoses: &mut Vec<Diagnosis>,
) -> BTreeSet<String> {
    let count = schema.collections().count();
    if !is_there {
        diagnoses.push(Diagnosis::skipped(Subject::MongoDb, "collections and indexes, as there is no database"));
        return BTreeSet::new();
    }
    let findings = match timeout(STEP_TIME, inspect(schema, database)).await {
        Ok(Ok(findings)) => findings,
        Ok(Err(error)) => {
            let message = format!("collections and indexes, which the server does not list: {error}");
            diagnoses.push(Diagnosis::skipped(Subject::MongoDb, message));
            return BTreeSet::new();
        }
        Err(_) => {
            diagnoses
                .push(Diagnosis::skipped(Subject::MongoDb, "collections and indexes, which take too long to list"));
            return BTreeSet::new();
        }
    };
    if findings.iter().all(Finding::is_of_lists) {
        let message = format!("all {count} collections of the schema are there, and the indexes of their lookups");
        diagnoses.push(Diagnosis::fine(Subject::MongoDb, message));
    }
    let missing = findings.iter().filter(|finding| matches!(finding, Finding::Missing { .. })).count();
    let listed = timeout(STEP_TIME, database.list_collection_names()).await;
    let names = listed.ok().and_then(Result::ok).unwrap_or_default();
    let others: Vec<&str> =
        names.iter().map(String::as_str).filter(|name| schema.collections().all(|known| known != *name)).collect();
    diagnoses.extend(findings.iter().map(|finding| judge(finding, &others, missing == count)));
    let unsuitable =
        |finding| if let Finding::Unsuitable { collection, .. } = finding { Some(collection) } else { None };
    findings.into_iter().filter_map(unsuitable).collect()
}

/// Judges a finding. A missing collection is a warning, as it may be created later. It is wrong if another collection was
/// probably meant, or if all are missing.
fn judge(finding: &Finding, others: &[&str], all_are_missing: bool) -> Diagnosis {
    let (message, remedy) = (finding.message(), finding.remedy());
    let warning = |message, remedy| Diagnosis::warning(Subject::MongoDb, message, remedy);
    let wrong = |message, remedy| Diagnosis::wrong(Subject::MongoDb, message, remedy);
    match finding {
        Finding::Missing { collection } => match nearest(collection, others.iter().copied()) {
            Some(meant) => {
                wrong(message, format!("collection = \"{meant}\", in the schema in place of \"{collection}\""))
            }
            None if all_are_missing => wrong(message, remedy),
            None => warning(message, remedy),
        },
        Finding::Unsuitable { .. } | Finding::Collation { .. } => wrong(message, remedy),
        Finding::Empty { .. } | Finding::NoIndex { .. } | Finding::NoListIndex { .. } => warning(message, remedy),
    }
}
