//! The statuses of lists that cannot be made: their reasons, and what a program can do about them. And what a filter is if nothing, or
//! everything, is allowed.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use bson::{Document, doc, oid::ObjectId};
use permcached::{
    app::{Parts, assemble},
    source::mongodb::MongoDb,
    transport::proto::{
        ListResourcesRequest, PlanFilterRequest, PlanFilterResponse,
        plan_filter_response::{Kind, note},
    },
};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::{plan, refused_plan, refused_resources, refused_subjects, resources, subjects};
use crate::{
    support::{
        both::schema,
        controlled::Fault,
        live::in_the_end,
        servers::mongo,
        service::{Service, subject},
    },
    transport::{ALICE, ROADMAP, ZOE},
};

fn id(number: u8) -> ObjectId {
    ObjectId::from_bytes([number; 12])
}

fn user(number: u8) -> String {
    format!("user:{}", id(number).to_hex())
}

/// The reason of a status, and its metadata.
#[track_caller]
fn reason(status: &Status) -> (Code, String, HashMap<String, String>) {
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("no reason: {status:?}"));
    assert_eq!(info.domain, "permcached");
    assert_eq!(
        status.metadata().get("grpc-retry-pushback-ms").map(tonic::metadata::MetadataValue::as_bytes),
        Some(&b"-1"[..]),
        "{status:?}"
    );
    assert!(details.retry_info().is_none(), "{status:?}");
    (status.code(), info.reason.clone(), info.metadata.clone())
}

const SCHEMA: &str = r#"
    default_subject = "user"
    [subject.user]
    [resource.file]
    collection = "files"
    [resource.file.relations]
    owner = { field = "owner" }
    guest = { collection = "shares", by = "file", field = "user" }
    banned = { collection = "bans", by = "file", field = "user" }
    public = { where = { public = true } }
    [resource.file.permissions]
    read = "owner | guest"
    unless_banned = "!banned"
    look = "public"
    [resource.device]
    [resource.device.relations]
    user = { collection = "pairs", by = "device", field = "user" }
    [resource.device.permissions]
    use = "user"
"#;

fn shares(count: u8) -> BTreeMap<String, Vec<Document>> {
    let share = |number: u8| doc! { "_id": id(number), "file": id(number), "user": id(1) };
    let file = |number: u8| doc! { "_id": id(number) };
    let pair = |number: u8| doc! { "_id": id(number), "device": id(number), "user": id(1) };
    [
        ("shares".to_owned(), (1..=count).map(share).collect()),
        ("files".to_owned(), (1..=count).map(file).collect()),
        ("pairs".to_owned(), (1..=count).map(pair).collect()),
    ]
    .into()
}

#[tokio::test]
async fn a_filter_that_cannot_be_made_has_a_reason_and_what_a_program_requires_to_act() {
    let service = Service::over(SCHEMA, shares(3)).await;
    let client = service.client();
    let (code, why, metadata) = reason(&refused_plan(&client, plan(&user(1), "unless_banned", "file")).await);
    assert_eq!((code, &*why), (Code::FailedPrecondition, "NOT_NARROWABLE"));
    assert!(metadata["part"].contains("banned"), "{metadata:?}");
    assert!(!metadata["remedy"].is_empty(), "{metadata:?}");

    let (code, why, _) = reason(&refused_plan(&client, plan(&user(1), "use", "device")).await);
    assert_eq!((code, &*why), (Code::FailedPrecondition, "NO_COLLECTION"));
    // Its ids are known all the same.
    let page = client.clone().list_resources(resources(&user(1), "use", "device")).await.unwrap().into_inner();
    assert_eq!(page.resources.len(), 3);

    let few = PlanFilterRequest { max_ids: 2, ..plan(&user(1), "read", "file") };
    let status = refused_plan(&client, few.clone()).await;
    let (code, why, metadata) = reason(&status);
    assert_eq!((code, &*why), (Code::ResourceExhausted, "TOO_MANY_IDS"));
    assert!(metadata["relation"].contains("guest"), "{metadata:?}");
    assert_eq!(metadata["max"], "2");
    assert!(metadata["count"].parse::<u32>().unwrap() > 2, "{metadata:?}");
    assert!(status.message().contains("guest"), "{status:?}");
    let enough = PlanFilterRequest { max_ids: 3, ..few };
    assert_eq!(client.clone().plan_filter(enough).await.unwrap().into_inner().ids, 3);
}

#[tokio::test]
async fn a_filter_that_is_too_large_to_be_sent_is_refused_and_not_cut() {
    // A long condition of the schema, in as many places as relations follow.
    let schema = |relations: usize| {
        let texts: Vec<String> = (0..900).map(|number| format!("'{number:x>1000}'")).collect();
        let fields: Vec<String> =
            (0..relations).map(|number| format!("r{number} = {{ field = 'f{number}' }}")).collect();
        let sides: Vec<String> = (0..relations).map(|number| format!("(named & r{number})")).collect();
        format!(
            "default_subject = 'user'\n[subject.user]\n[resource.file]\ncollection = 'files'\n[resource.file.relations]\n\
             named = {{ where = {{ name = {{ '$in' = [{}] }} }} }}\n{}\n[resource.file.permissions]\nread = '{}'\n",
            texts.join(", "),
            fields.join("\n"),
            sides.join(" | "),
        )
    };
    let service = Service::over(&schema(4), BTreeMap::new()).await;
    let (code, why, metadata) = reason(&refused_plan(&service.client(), plan(&user(1), "read", "file")).await);
    assert_eq!((code, &*why), (Code::ResourceExhausted, "FILTER_TOO_LARGE"));
    assert_eq!(metadata["max"], (3 * 1_024 * 1_024).to_string());
    let text = service.metrics.render();
    assert!(text.contains("permcached_list_errors_total{error=\"filter_too_large\"} 1\n"), "{text}");
    let service = Service::over(&schema(3), BTreeMap::new()).await;
    let plan = service.client().plan_filter(plan(&user(1), "read", "file")).await.unwrap().into_inner();
    assert!(plan.filter.len() > 2_700_000, "{} bytes", plan.filter.len());
}

/// A query that would read a whole collection each time is refused, and the status has the command that creates the index.
#[tokio::test]
async fn a_list_that_no_index_serves_is_refused_with_the_command_that_creates_the_index() {
    let (database, schema) = (mongo().database().await, Arc::new(schema("schema.toml", SCHEMA)));
    let share = |number: u32| doc! { "file": id(1), "user": id(2), "number": number };
    database.collection::<Document>("shares").insert_many((0..10_001).map(share)).await.unwrap();
    let source = MongoDb::open(Arc::clone(&schema), database.clone()).await.expect("mongod answers");
    let service = Service::of(&assemble(Parts::over_mongodb(schema, source))).await;
    let client = service.client();
    for status in [
        refused_plan(&client, plan(&user(1), "read", "file")).await,
        refused_resources(&client, resources(&user(1), "read", "file")).await,
    ] {
        let (code, why, metadata) = reason(&status);
        assert_eq!((code, &*why), (Code::FailedPrecondition, "NO_INDEX"));
        let command = r#"db.getCollection("shares").createIndex({ "user": 1 })"#;
        assert_eq!((&*metadata["collection"], &*metadata["command"]), ("shares", command));
        assert!(status.message().contains(command), "{status:?}");
    }
    let text = service.metrics.render();
    assert!(text.contains("permcached_list_errors_total{error=\"no_index\"} 2\n"), "{text}");
    let index = doc! { "createIndexes": "shares", "indexes": [{ "key": { "user": 1 }, "name": "user" }] };
    database.run_command(index).await.unwrap();
    // The index counts as soon as it is known.
    in_the_end(async {
        while client.clone().plan_filter(plan(&user(1), "read", "file")).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

/// What every client does first with a plan.
fn query(plan: &PlanFilterResponse) -> Document {
    let json: serde_json::Value = serde_json::from_str(&plan.filter).unwrap();
    bson::Bson::try_from(json).unwrap().as_document().unwrap().clone()
}

#[tokio::test]
async fn a_filter_is_never_missing_and_is_empty_only_if_everything_is_allowed() {
    let service = Service::start().await;
    let client = service.client();
    for (who, kind, permission) in
        [(ZOE, "file", "read"), ("anonymous", "file", "read"), ("user:fad100000000000000000005", "note", "read")]
    {
        let plan = client.clone().plan_filter(plan(who, permission, kind)).await.unwrap().into_inner();
        if plan.kind() == Kind::None {
            assert_eq!(query(&plan), doc! { "_id": { "$in": [] } }, "{who}: {plan:?}");
        }
        assert_ne!(plan.filter, "", "{who}");
        assert_ne!(query(&plan), doc! {}, "{who}: {plan:?}");
        assert!(plan.now.is_some() && plan.age.is_some() && plan.as_of.starts_with('r'), "{plan:?}");
    }
    let inactive = client.clone().plan_filter(plan("user:fad100000000000000000005", "read", "file")).await.unwrap();
    let inactive = inactive.into_inner();
    assert_eq!(inactive.kind(), Kind::None);
    let codes: Vec<note::Code> =
        inactive.notes.iter().map(permcached::transport::proto::plan_filter_response::Note::code).collect();
    assert_eq!(codes, [note::Code::SubjectInactive], "{inactive:?}");
    assert!(inactive.notes.iter().all(|note| !note.message.is_empty()));
}

#[tokio::test]
async fn a_source_that_fails_or_hangs_is_an_error_and_never_an_empty_list() {
    for (fault, code) in [
        (Fault::ProbeFails, Code::Unavailable),
        (Fault::LoadFails("users"), Code::Unavailable),
        (Fault::ProbeHangs, Code::DeadlineExceeded),
        (Fault::LoadHangs, Code::DeadlineExceeded),
    ] {
        let (service, _source) = Service::faulty(fault.clone(), 16).await;
        let client = service.client();
        let errors = [
            refused_plan(&client, plan(ALICE, "read", "file")).await,
            refused_resources(&client, resources(ALICE, "read", "file")).await,
            refused_subjects(&client, subjects("read", ROADMAP, "user")).await,
        ];
        for status in errors {
            assert_eq!(status.code(), code, "{fault:?}: {status:?}");
            let waits = status.get_error_details().retry_info().is_some();
            assert_eq!(waits, code == Code::Unavailable, "{fault:?}: {status:?}");
        }
        let text = service.metrics.render();
        let error = if code == Code::Unavailable { "unavailable" } else { "deadline_exceeded" };
        assert!(text.contains(&format!("permcached_list_errors_total{{error=\"{error}\"}} 3\n")), "{fault:?}: {text}");
    }
}

#[tokio::test]
async fn lists_take_permits_as_checks_do() {
    let (service, _source) = Service::faulty(Fault::None, 0).await;
    let client = service.client();
    let status = refused_plan(&client, plan(ALICE, "read", "file")).await;
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert!(status.get_error_details().retry_info().is_some(), "{status:?}");
    let status = refused_resources(
        &client,
        ListResourcesRequest { subject: subject(ALICE), ..resources(ALICE, "read", "file") },
    )
    .await;
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    let status = refused_subjects(&client, subjects("read", ROADMAP, "user")).await;
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
}
