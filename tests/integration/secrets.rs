//! No secret is in a log, a metric or an error: passwords of connection strings, tokens of callers, ids of secret subjects.
//!
//! The tests log as much as permcached and the libraries beneath can, make every call, valid and invalid, and then search the
//! whole output.

use std::time::Duration;

use bson::{Document, doc, oid::ObjectId};
use permcached::transport::proto::{
    BatchCheckRequest, CheckRequest, ExplainRequest, InvalidateRequest, ListPermissionsRequest, ListResourcesRequest,
    ListSubjectsRequest, PlanFilterRequest, Question, Resource, Subject,
    invalidation_service_client::InvalidationServiceClient, permission_service_client::PermissionServiceClient,
};
use tokio::time::{sleep, timeout};
use tonic::{
    Request, Response, Status,
    transport::{Channel, Endpoint},
};

use crate::support::{
    command::{Serving, run_with, schema_file},
    raw::{self, Raw},
    redis::Redis,
    servers::secured_mongo,
    service::{PATIENCE, exchange, http},
};

const SCHEMA: &str = r#"
    default_subject = "user"
    [subject.user]
    collection = "users"
    [subject.link]
    id = "string"
    secret = true
    [resource.file]
    collection = "files"
    [resource.file.relations]
    owner = { field = "owner_id" }
    link = { collection = "shares", by = "file_id", field = "token", subject = "link" }
    [resource.file.permissions]
    read = "owner | link"
"#;

/// Each secret is unlike every other text in the output.
const MONGODB: &str = "s3cret0ofMongoDb";
const REDIS: &str = "s3cret1ofRedis";
const REDIS_SECRET: &str = "s3cret7ofInstances-0123456789abcdef,s3cret9ofInstances-0123456789abcdef";
const METRICS: &str = "s3cret8ofPrometheus";
const CHECK: &str = "s3cret2ofBackend";
const ADMIN: &str = "s3cret3ofOperator";
const WRONG: &str = "s3cret4ofNobody";
const LINK: &str = "s3cret5ofLink";
const NO_LINK: &str = "s3cret6ofNoLink";
/// Not a text, and so stored in hostile documents only.
const BAD_LINK: &[u8] = b"s3cret7ofBad\xff";

/// What the secrets have in common. The output is searched for this, ignoring case.
const COMMON: &str = "s3cret";

/// The same in hexadecimal digits, as libraries show bytes.
const COMMON_IN_HEX: &str = "733363726574";

fn subject(kind: &str, id: &str) -> Subject {
    Subject { r#type: kind.to_owned(), id: id.to_owned(), anonymous: false }
}

fn file() -> Resource {
    Resource { r#type: "file".to_owned(), id: ObjectId::from_bytes([2; 12]).to_hex() }
}

fn bearing<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

/// The whole response or status that a caller receives.
fn received<T: std::fmt::Debug>(result: Result<Response<T>, Status>) -> String {
    match result {
        Ok(response) => format!("{response:?}"),
        Err(status) => format!("{status:?} {}", String::from_utf8_lossy(status.details())),
    }
}

/// Makes every call as this caller, for this link. Returns the answers.
async fn ask_all(url: &str, token: &str, link: &str) -> Vec<String> {
    let channel = Endpoint::from_shared(url.to_owned()).unwrap().connect_lazy();
    let mut permissions = PermissionServiceClient::new(channel.clone());
    let mut invalidation = InvalidationServiceClient::new(channel);
    let mut all = Vec::new();
    // A link, an unknown type, an unknown permission, a user with the link's id.
    for (kind, asked) in [("link", "read"), ("lonk", "read"), ("link", "raed"), ("user", "read")] {
        let (who, what) = (Some(subject(kind, link)), Some(file()));
        let question = Question { subject: who.clone(), permission: asked.to_owned(), resource: what.clone() };
        let Question { subject, permission, resource } = question.clone();
        let check = CheckRequest { subject, permission, resource, consistency: None, dependencies: false };
        all.push(received(permissions.check(bearing(check, token)).await));
        let batch = BatchCheckRequest { questions: vec![question.clone()], consistency: None, dependencies: false };
        all.push(received(permissions.batch_check(bearing(batch, token)).await));
        let Question { subject, permission, resource } = question;
        let explain = ExplainRequest { subject, permission, resource, consistency: None };
        all.push(received(permissions.explain(bearing(explain, token)).await));
        let list = ListPermissionsRequest { subject: who.clone(), resource: what, consistency: None };
        all.push(received(permissions.list_permissions(bearing(list, token)).await));
        all.extend(list_all(&mut permissions, who.as_ref(), asked, token).await);
        let subjects = who.into_iter().collect();
        let invalidate = InvalidateRequest { subjects, ..InvalidateRequest::default() };
        all.push(received(invalidation.invalidate(bearing(invalidate, token)).await));
    }
    all
}

/// Makes every call for lists. A filter has the secret of its subject, which only its caller sees; returns all else.
async fn list_all(
    permissions: &mut PermissionServiceClient<Channel>,
    who: Option<&Subject>,
    permission: &str,
    token: &str,
) -> Vec<String> {
    let mut all = Vec::new();
    let (who, file_type) = (who.cloned(), "file".to_owned());
    for reference_field in ["", "file_id", "$bad"] {
        let plan = PlanFilterRequest {
            subject: who.clone(),
            permission: permission.to_owned(),
            resource_type: file_type.clone(),
            reference_field: reference_field.to_owned(),
            ..PlanFilterRequest::default()
        };
        let mut planned = permissions.plan_filter(bearing(plan, token)).await;
        if let Ok(plan) = &mut planned {
            plan.get_mut().filter.clear();
        }
        all.push(received(planned));
    }
    // The second page is one of a token, and the third one of a wrong token.
    let mut page_token = String::new();
    for within in ["", "", "{\"owner_id\": {\"$ne\": 1}}", "{\"owner_id\": {\"$oops\": 1}}"] {
        let list = ListResourcesRequest {
            subject: who.clone(),
            permission: permission.to_owned(),
            resource_type: file_type.clone(),
            page_size: 1,
            page_token: page_token.clone(),
            within: within.to_owned(),
            ..ListResourcesRequest::default()
        };
        let listed = permissions.list_resources(bearing(list, token)).await;
        if let Ok(page) = &listed {
            page_token.clone_from(&page.get_ref().next_page_token);
        }
        all.push(received(listed));
    }
    for kind in ["link", "user"] {
        let list = ListSubjectsRequest {
            permission: permission.to_owned(),
            resource: Some(file()),
            subject_type: kind.to_owned(),
            ..ListSubjectsRequest::default()
        };
        all.push(received(permissions.list_subjects(bearing(list, token)).await));
    }
    all
}

/// Waits until Redis and MongoDB are connected.
async fn until_ready(serving: &Serving) {
    let ready = async {
        while http(serving.address, "/readyz").await.body != "ready" {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, ready).await.expect("Redis and MongoDB are connected");
}

#[track_caller]
fn assert_no_secret(what: &str, texts: &[String]) {
    for text in texts {
        assert!(!text.to_lowercase().contains(COMMON), "{what}: {text}");
        assert!(!text.contains(COMMON_IN_HEX), "{what}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_a_log_a_metric_or_an_error() {
    let mongo = secured_mongo();
    let database = mongo.database().await;
    let command = doc! { "createUser": "reader", "pwd": MONGODB, "roles": ["read"], "mechanisms": ["SCRAM-SHA-256"] };
    database.run_command(command).await.unwrap();
    let id = |number: u8| ObjectId::from_bytes([number; 12]);
    let insert = async |collection: &str, document: Document| {
        database.collection::<Document>(collection).insert_one(document).await.unwrap();
    };
    insert("users", doc! { "_id": id(1) }).await;
    insert("files", doc! { "_id": id(2), "owner_id": id(1) }).await;
    insert("shares", doc! { "_id": id(3), "file_id": id(2), "token": LINK }).await;
    // Beside it in the same replies. The driver's errors would show both.
    let bad = Raw::of(&doc! { "_id": id(5), "file_id": id(2) }).text(b"token", BAD_LINK);
    raw::insert(&database, "shares", &bad).await;
    let redis = Redis::with_password(REDIS);
    let (_directory, schema) = schema_file(SCHEMA);
    let uri = mongo.uri_of("reader", MONGODB, database.name());
    let (backend, operator, url) = (format!("backend:{CHECK}"), format!("operator:{ADMIN}"), redis.url());
    let variables = [
        ("SCHEMA_FILE", &*schema),
        ("MONGODB_URI", &*uri),
        ("MONGODB_DATABASE", database.name()),
        ("REDIS_URL", &*url),
        ("REDIS_SECRET", REDIS_SECRET),
        ("AUTH_TOKENS", &*backend),
        ("AUTH_ADMIN_TOKENS", &*operator),
        ("METRICS_TOKEN", METRICS),
        ("MAX_STALENESS", "500ms"),
        ("LOG_DECISIONS", "1"),
        // Everything, that of the libraries too.
        ("RUST_LOG", "trace"),
    ];
    for arguments in [["config"], ["doctor"]] {
        let ended = run_with(&arguments, &variables);
        assert!(ended.output().to_lowercase().contains("redis"), "it shows what it found");
        assert_no_secret(arguments[0], &[ended.output()]);
    }
    let serving = Serving::start_with(&["--bind", "127.0.0.1"], &variables);
    until_ready(&serving).await;

    let mut answers = Vec::new();
    for token in [CHECK, ADMIN, WRONG] {
        for link in [LINK, NO_LINK] {
            answers.extend(ask_all(&serving.url(), token, link).await);
        }
    }
    assert!(answers.iter().any(|answer| answer.contains("allowed: true")), "a link is allowed: {answers:?}");
    assert!(answers.iter().any(|answer| answer.contains("Unauthenticated")), "{answers:?}");
    // A name and an id that are not text, in the change stream.
    let filter = Raw::of(&doc! { "_id": id(5) });
    let field = Raw::default().document(b"$set", &Raw::default().text(BAD_LINK, BAD_LINK));
    raw::update(&database, "shares", &filter, &field).await;
    raw::insert(&database, "shares", &Raw::default().text(b"_id", BAD_LINK)).await;
    answers.extend(ask_all(&serving.url(), CHECK, NO_LINK).await);
    // Failures have other messages.
    drop(redis);
    insert("shares", doc! { "_id": id(4), "file_id": id(2), "token": NO_LINK }).await;
    answers.extend(ask_all(&serving.url(), ADMIN, LINK).await);
    database.run_command(doc! { "dropUser": "reader" }).await.unwrap();
    answers.extend(ask_all(&serving.url(), ADMIN, NO_LINK).await);
    for path in ["/metrics", "/readyz", "/nothing"] {
        answers.push(format!("{:?}", http(serving.address, path).await));
    }
    for token in [METRICS, WRONG] {
        let request = format!(
            "GET /metrics HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n"
        );
        answers.push(exchange(serving.address, request).await);
    }
    assert_no_secret("an answer", &answers);
    serving.signal("TERM");
    let logged = serving.rest();
    assert!(logged.len() > 50, "{logged:?}");
    assert_no_secret("the log", &logged);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_is_wrong_is_not_shown() {
    let uri = secured_mongo().uri_of("nobody", MONGODB, "admin");
    let (_directory, schema) = schema_file(SCHEMA);
    let redis = Redis::with_password("another");
    let url = redis.url_of("", REDIS);
    let variables = [
        ("SCHEMA_FILE", &*schema),
        ("MONGODB_URI", &*uri),
        ("MONGODB_DATABASE", "any"),
        ("REDIS_URL", &*url),
        ("REDIS_SECRET", REDIS_SECRET),
        ("RUST_LOG", "debug,permcached=trace"),
        ("PORT", "0"),
    ];
    let serving = Serving::begin(&[], &variables);
    let line = serving.logged("MongoDB cannot be used yet: it is tried again");
    assert_no_secret("the log", &[line.to_string()]);
    serving.signal("TERM");
    assert_no_secret("the log", &serving.rest());
}
