//! OpenFGA with the world's data. The messages are the parts of its API that are used here.

use std::collections::HashMap;

use axum::body::Bytes;
use prost::Message;

use super::{
    Service,
    client::{Calls, Connections, grpc},
    start as start_peer,
    world::{Question, World},
};

/// How many tuples one call writes: the most that OpenFGA allows.
const WRITES: usize = 100;

const CHECK: &str = "openfga.v1.OpenFGAService/Check";
const BATCH_CHECK: &str = "openfga.v1.OpenFGAService/BatchCheck";

#[derive(Clone, PartialEq, Message)]
struct CreateStoreRequest {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, Message)]
struct CreateStoreResponse {
    #[prost(string, tag = "1")]
    id: String,
}

#[derive(Clone, PartialEq, Message)]
struct WriteModelRequest {
    #[prost(string, tag = "1")]
    store: String,
    #[prost(message, repeated, tag = "2")]
    types: Vec<TypeDefinition>,
    #[prost(string, tag = "3")]
    schema_version: String,
}

#[derive(Clone, PartialEq, Message)]
struct WriteModelResponse {
    #[prost(string, tag = "1")]
    id: String,
}

#[derive(Clone, PartialEq, Message)]
struct TypeDefinition {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(map = "string, message", tag = "2")]
    relations: HashMap<String, Userset>,
    #[prost(message, optional, tag = "3")]
    metadata: Option<Metadata>,
}

#[derive(Clone, PartialEq, Message)]
struct Metadata {
    #[prost(map = "string, message", tag = "1")]
    relations: HashMap<String, RelationMetadata>,
}

#[derive(Clone, PartialEq, Message)]
struct RelationMetadata {
    #[prost(message, repeated, tag = "1")]
    subjects: Vec<RelationReference>,
}

#[derive(Clone, PartialEq, Message)]
struct RelationReference {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "3")]
    wildcard: Option<Empty>,
}

#[derive(Clone, PartialEq, Message)]
struct Empty {}

/// One of these fields is set.
#[derive(Clone, PartialEq, Message)]
struct Userset {
    #[prost(message, optional, tag = "1")]
    direct: Option<Empty>,
    #[prost(message, optional, tag = "2")]
    computed: Option<ObjectRelation>,
    #[prost(message, optional, tag = "3")]
    through: Option<TupleToUserset>,
    #[prost(message, optional, tag = "4")]
    union: Option<Usersets>,
    #[prost(message, optional, boxed, tag = "6")]
    difference: Option<Box<Difference>>,
}

#[derive(Clone, PartialEq, Message)]
struct ObjectRelation {
    #[prost(string, tag = "2")]
    relation: String,
}

#[derive(Clone, PartialEq, Message)]
struct TupleToUserset {
    #[prost(message, optional, tag = "1")]
    tupleset: Option<ObjectRelation>,
    #[prost(message, optional, tag = "2")]
    computed: Option<ObjectRelation>,
}

#[derive(Clone, PartialEq, Message)]
struct Usersets {
    #[prost(message, repeated, tag = "1")]
    children: Vec<Userset>,
}

#[derive(Clone, PartialEq, Message)]
struct Difference {
    #[prost(message, optional, boxed, tag = "1")]
    base: Option<Box<Userset>>,
    #[prost(message, optional, boxed, tag = "2")]
    subtract: Option<Box<Userset>>,
}

#[derive(Clone, PartialEq, Message)]
struct TupleKey {
    #[prost(string, tag = "1")]
    user: String,
    #[prost(string, tag = "2")]
    relation: String,
    #[prost(string, tag = "3")]
    object: String,
}

#[derive(Clone, PartialEq, Message)]
struct WriteRequest {
    #[prost(string, tag = "1")]
    store: String,
    #[prost(message, optional, tag = "2")]
    writes: Option<Writes>,
    #[prost(string, tag = "4")]
    model: String,
}

#[derive(Clone, PartialEq, Message)]
struct Writes {
    #[prost(message, repeated, tag = "1")]
    tuples: Vec<TupleKey>,
}

#[derive(Clone, PartialEq, Message)]
struct CheckRequest {
    #[prost(string, tag = "1")]
    store: String,
    #[prost(message, optional, tag = "2")]
    tuple: Option<TupleKey>,
    #[prost(string, tag = "4")]
    model: String,
}

#[derive(Clone, PartialEq, Message)]
struct CheckResponse {
    #[prost(bool, tag = "1")]
    allowed: bool,
}

#[derive(Clone, PartialEq, Message)]
struct BatchCheckRequest {
    #[prost(string, tag = "1")]
    store: String,
    #[prost(message, repeated, tag = "2")]
    checks: Vec<BatchCheckItem>,
    #[prost(string, tag = "3")]
    model: String,
}

#[derive(Clone, PartialEq, Message)]
struct BatchCheckItem {
    #[prost(message, optional, tag = "1")]
    tuple: Option<TupleKey>,
    #[prost(string, tag = "4")]
    correlation_id: String,
}

#[derive(Clone, PartialEq, Message)]
struct BatchCheckResponse {
    #[prost(map = "string, message", tag = "1")]
    results: HashMap<String, BatchCheckResult>,
}

/// One of these fields is set.
#[derive(Clone, PartialEq, Message)]
struct BatchCheckResult {
    #[prost(bool, optional, tag = "1")]
    allowed: Option<bool>,
    #[prost(message, optional, tag = "2")]
    error: Option<Empty>,
}

fn direct() -> Userset {
    Userset { direct: Some(Empty {}), ..Userset::default() }
}

fn relation(relation: &str) -> ObjectRelation {
    ObjectRelation { relation: relation.to_owned() }
}

fn computed(name: &str) -> Userset {
    Userset { computed: Some(relation(name)), ..Userset::default() }
}

fn through(tupleset: &str, name: &str) -> Userset {
    let through = TupleToUserset { tupleset: Some(relation(tupleset)), computed: Some(relation(name)) };
    Userset { through: Some(through), ..Userset::default() }
}

/// Any of these, but not the deleted.
fn any_unless_deleted(children: Vec<Userset>) -> Userset {
    let union = Userset { union: Some(Usersets { children }), ..Userset::default() };
    let difference = Difference { base: Some(Box::new(union)), subtract: Some(Box::new(computed("deleted"))) };
    Userset { difference: Some(Box::new(difference)), ..Userset::default() }
}

/// A type with relations that are written, each with the type of its subjects, and one that is computed.
fn type_of(name: &str, written: &[(&str, RelationReference)], computed: (&str, Userset)) -> TypeDefinition {
    let relations = written.iter().map(|(name, _)| ((*name).to_owned(), direct()));
    let metadata = written
        .iter()
        .map(|(name, subject)| ((*name).to_owned(), RelationMetadata { subjects: vec![subject.clone()] }));
    TypeDefinition {
        name: name.to_owned(),
        relations: relations.chain([(computed.0.to_owned(), computed.1)]).collect(),
        metadata: Some(Metadata { relations: metadata.collect() }),
    }
}

/// The model of `benches/file_store.toml`.
fn model() -> Vec<TypeDefinition> {
    let reference = |name: &str, wildcard| RelationReference { name: name.to_owned(), wildcard };
    let (user, everybody, folder) =
        (reference("user", None), reference("user", Some(Empty {})), reference("folder", None));
    let shared = any_unless_deleted(vec![computed("guest"), through("parent", "shared")]);
    let read = any_unless_deleted(vec![computed("owner"), computed("guest"), through("folder", "shared")]);
    let folders = [("parent", folder.clone()), ("guest", user.clone()), ("deleted", everybody.clone())];
    let files = [("owner", user.clone()), ("guest", user), ("folder", folder), ("deleted", everybody)];
    vec![
        TypeDefinition { name: "user".to_owned(), ..TypeDefinition::default() },
        type_of("folder", &folders, ("shared", shared)),
        type_of("file", &files, ("read", read)),
    ]
}

fn tuple(question: &Question) -> TupleKey {
    let (user, file) = (question.user, question.file);
    TupleKey { user: format!("user:{user}"), relation: "read".to_owned(), object: format!("file:{file}") }
}

/// Calls a method of OpenFGA once.
async fn call<R: Message + Default>(connections: &Connections, method: &str, message: Bytes) -> R {
    let calls = Calls::new(&format!("openfga.v1.OpenFGAService/{method}"), [message], |_, _| ());
    R::decode(&*connections.answers(&calls).await[0]).expect("a response")
}

pub(crate) async fn start(world: &World) -> Service {
    let server = start_peer("OPENFGA", None, |address| {
        let flags = format!(
            "run --datastore-engine memory --grpc-addr {address} --http-enabled=false --playground-enabled=false --metrics-enabled=false \
             --log-level error --max-tuples-per-write {WRITES} --max-checks-per-batch-check 1000 \
             --check-query-cache-enabled --check-query-cache-ttl 1h --check-iterator-cache-enabled --check-iterator-cache-ttl 1h \
             --check-cache-limit 10000000"
        );
        flags.split_whitespace().map(str::to_owned).collect()
    });
    let connections = Connections::open(&server, 1).await;
    let created: CreateStoreResponse =
        call(&connections, "CreateStore", grpc(&CreateStoreRequest { name: "world".to_owned() })).await;
    let store = created.id;
    let request = WriteModelRequest { store: store.clone(), types: model(), schema_version: "1.1".to_owned() };
    let written: WriteModelResponse = call(&connections, "WriteAuthorizationModel", grpc(&request)).await;
    let model = written.id;
    for tuples in world.tuples().chunks(WRITES) {
        let tuples = tuples.iter().map(|tuple| TupleKey {
            user: format!("{}:{}", tuple.subject.0, tuple.subject.1),
            relation: tuple.relation.to_owned(),
            object: format!("{}:{}", tuple.object.0, tuple.object.1),
        });
        let writes = Some(Writes { tuples: tuples.collect() });
        let _nothing: Empty =
            call(&connections, "Write", grpc(&WriteRequest { store: store.clone(), writes, model: model.clone() }))
                .await;
    }
    let ids = (store.clone(), model.clone());
    Service {
        name: "OpenFGA",
        server,
        methods: [CHECK, BATCH_CHECK],
        check: Box::new(move |question| {
            let (store, model) = ids.clone();
            grpc(&CheckRequest { store, tuple: Some(tuple(question)), model })
        }),
        bulk: Box::new(move |questions| {
            let item = |(number, question): (usize, &Question)| BatchCheckItem {
                tuple: Some(tuple(question)),
                correlation_id: number.to_string(),
            };
            let checks = questions.iter().enumerate().map(item).collect();
            grpc(&BatchCheckRequest { store: store.clone(), checks, model: model.clone() })
        }),
        read_check: |message| CheckResponse::decode(message).expect("a response").allowed,
        read_bulk: |message| {
            let results = BatchCheckResponse::decode(message).expect("a response").results;
            let result = |number: usize| results.get(&number.to_string()).and_then(|result| result.allowed);
            (0..results.len()).map(|number| result(number).expect("an answer")).collect()
        },
    }
}
