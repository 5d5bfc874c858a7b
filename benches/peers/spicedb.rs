//! SpiceDB with the world's data. The messages are the parts of its API that are used here.

use axum::body::Bytes;
use prost::Message;

use super::{
    Service,
    client::{Calls, Connections, grpc},
    start as start_peer,
    world::{Question, World},
};

/// How many relationships one call writes.
const WRITES: usize = 1_000;

const CHECK: &str = "authzed.api.v1.PermissionsService/CheckPermission";
const CHECK_BULK: &str = "authzed.api.v1.PermissionsService/CheckBulkPermissions";

const TOKEN: &str = "a-token-of-this-bench";

/// `PERMISSIONSHIP_HAS_PERMISSION`.
const HAS_PERMISSION: i32 = 2;

/// The model of `benches/file_store.toml`.
const SCHEMA: &str = "
definition user {}

definition folder {
    relation parent: folder
    relation guest: user
    relation deleted: user:*
    permission shared = (guest + parent->shared) - deleted
}

definition file {
    relation owner: user
    relation folder: folder
    relation guest: user
    relation deleted: user:*
    permission read = (owner + guest + folder->shared) - deleted
}
";

#[derive(Clone, PartialEq, Message)]
struct Object {
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(string, tag = "2")]
    id: String,
}

#[derive(Clone, PartialEq, Message)]
struct Subject {
    #[prost(message, optional, tag = "1")]
    object: Option<Object>,
}

#[derive(Clone, PartialEq, Message)]
struct WriteSchemaRequest {
    #[prost(string, tag = "1")]
    schema: String,
}

#[derive(Clone, PartialEq, Message)]
struct Empty {}

#[derive(Clone, PartialEq, Message)]
struct WriteRelationshipsRequest {
    #[prost(message, repeated, tag = "1")]
    updates: Vec<RelationshipUpdate>,
}

#[derive(Clone, PartialEq, Message)]
struct WriteRelationshipsResponse {
    #[prost(message, optional, tag = "1")]
    written_at: Option<ZedToken>,
}

#[derive(Clone, PartialEq, Message)]
struct ZedToken {
    #[prost(string, tag = "1")]
    token: String,
}

#[derive(Clone, PartialEq, Message)]
struct RelationshipUpdate {
    /// 1 is `OPERATION_CREATE`.
    #[prost(int32, tag = "1")]
    operation: i32,
    #[prost(message, optional, tag = "2")]
    relationship: Option<Relationship>,
}

#[derive(Clone, PartialEq, Message)]
struct Relationship {
    #[prost(message, optional, tag = "1")]
    resource: Option<Object>,
    #[prost(string, tag = "2")]
    relation: String,
    #[prost(message, optional, tag = "3")]
    subject: Option<Subject>,
}

#[derive(Clone, PartialEq, Message)]
struct Consistency {
    #[prost(message, optional, tag = "2")]
    at_least_as_fresh: Option<ZedToken>,
}

#[derive(Clone, PartialEq, Message)]
struct CheckRequest {
    #[prost(message, optional, tag = "1")]
    consistency: Option<Consistency>,
    #[prost(message, optional, tag = "2")]
    resource: Option<Object>,
    #[prost(string, tag = "3")]
    permission: String,
    #[prost(message, optional, tag = "4")]
    subject: Option<Subject>,
}

#[derive(Clone, PartialEq, Message)]
struct CheckResponse {
    #[prost(int32, tag = "2")]
    permissionship: i32,
}

#[derive(Clone, PartialEq, Message)]
struct CheckBulkRequest {
    #[prost(message, optional, tag = "1")]
    consistency: Option<Consistency>,
    #[prost(message, repeated, tag = "2")]
    items: Vec<CheckBulkItem>,
}

#[derive(Clone, PartialEq, Message)]
struct CheckBulkItem {
    #[prost(message, optional, tag = "1")]
    resource: Option<Object>,
    #[prost(string, tag = "2")]
    permission: String,
    #[prost(message, optional, tag = "3")]
    subject: Option<Subject>,
}

#[derive(Clone, PartialEq, Message)]
struct CheckBulkResponse {
    #[prost(message, repeated, tag = "2")]
    pairs: Vec<CheckBulkPair>,
}

#[derive(Clone, PartialEq, Message)]
struct CheckBulkPair {
    /// None if this check failed.
    #[prost(message, optional, tag = "2")]
    item: Option<CheckBulkResult>,
}

#[derive(Clone, PartialEq, Message)]
struct CheckBulkResult {
    #[prost(int32, tag = "1")]
    permissionship: i32,
}

fn object(kind: &str, id: &impl ToString) -> Object {
    Object { kind: kind.to_owned(), id: id.to_string() }
}

fn subject(kind: &str, id: &impl ToString) -> Subject {
    Subject { object: Some(object(kind, id)) }
}

/// Calls a method of SpiceDB once.
async fn call<R: Message + Default>(connections: &Connections, method: &str, message: Bytes) -> R {
    let calls = Calls::new(&format!("authzed.api.v1.{method}"), [message], |_, _| ());
    R::decode(&*connections.answers(&calls).await[0]).expect("a response")
}

pub(crate) async fn start(world: &World) -> Service {
    let server = start_peer("SPICEDB", Some(TOKEN), |address| {
        let flags = format!(
            "serve --datastore-engine memory --grpc-addr {address} --grpc-preshared-key {TOKEN} --metrics-enabled=false \
             --skip-release-check --telemetry-endpoint= --log-level error --datastore-revision-quantization-interval 1h"
        );
        flags.split_whitespace().map(str::to_owned).collect()
    });
    let connections = Connections::open(&server, 1).await;
    let schema = WriteSchemaRequest { schema: SCHEMA.to_owned() };
    let _nothing: Empty = call(&connections, "SchemaService/WriteSchema", grpc(&schema)).await;
    let mut written_at = None;
    for tuples in world.tuples().chunks(WRITES) {
        let updates = tuples.iter().map(|tuple| {
            let relationship = Relationship {
                resource: Some(object(tuple.object.0, &tuple.object.1)),
                relation: tuple.relation.to_owned(),
                subject: Some(subject(tuple.subject.0, &tuple.subject.1)),
            };
            RelationshipUpdate { operation: 1, relationship: Some(relationship) }
        });
        let request = WriteRelationshipsRequest { updates: updates.collect() };
        let written: WriteRelationshipsResponse =
            call(&connections, "PermissionsService/WriteRelationships", grpc(&request)).await;
        written_at = written.written_at;
    }
    // All checks are of the moment after the last write, and so the cache serves them for the whole run.
    let consistency = Consistency { at_least_as_fresh: written_at };
    let of_bulk = consistency.clone();
    Service {
        name: "SpiceDB",
        server,
        methods: [CHECK, CHECK_BULK],
        check: Box::new(move |Question { user, file }| {
            grpc(&CheckRequest {
                consistency: Some(consistency.clone()),
                resource: Some(object("file", file)),
                permission: "read".to_owned(),
                subject: Some(subject("user", user)),
            })
        }),
        bulk: Box::new(move |questions| {
            let item = |Question { user, file }: &Question| CheckBulkItem {
                resource: Some(object("file", file)),
                permission: "read".to_owned(),
                subject: Some(subject("user", user)),
            };
            let items = questions.iter().map(item).collect();
            grpc(&CheckBulkRequest { consistency: Some(of_bulk.clone()), items })
        }),
        read_check: |message| CheckResponse::decode(message).expect("a response").permissionship == HAS_PERMISSION,
        read_bulk: |message| {
            let pairs = CheckBulkResponse::decode(message).expect("a response").pairs;
            let allowed = |pair: CheckBulkPair| pair.item.expect("an answer").permissionship == HAS_PERMISSION;
            pairs.into_iter().map(allowed).collect()
        },
    }
}
