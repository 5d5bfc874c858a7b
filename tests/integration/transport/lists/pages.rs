//! Pages over the API: each list has every resource or subject that a check allows once, in order, and each token leads on through its own
//! list only.

use std::collections::BTreeSet;

use bson::{doc, oid::ObjectId};
use permcached::transport::proto::{
    BatchCheckRequest, Consistency, ListResourcesRequest, ListSubjectsRequest, Question,
    batch_check_response::result::Outcome, consistency::Requirement, list_subjects_response::Everybody,
};
use tonic::Code;

use super::{refused_resources, refused_subjects, resources, subjects};
use crate::{
    support::service::{Client, Service, resource, subject},
    transport::{ALICE, BOB, CONTRACT, ZOE, assert_names},
};

/// Users of examples/fylora, one of them without a document, and one who is inactive.
const USERS: [&str; 9] = [
    "a11ce0000000000000000001",
    "ada000000000000000000008",
    "b0b000000000000000000002",
    "bea000000000000000000007",
    "c410e0000000000000000003",
    "dead00000000000000000009",
    "dede00000000000000000004",
    "fad100000000000000000005",
    "20e000000000000000000006",
];

/// Ids of its files, and of one that does not exist.
fn files() -> Vec<String> {
    (1..=0x0f).map(|number| format!("f11e{number:020x}")).collect()
}

/// The ids that checks allow, in their order.
async fn checked(client: &Client, questions: Vec<(Question, &str)>) -> Vec<String> {
    let (questions, ids): (Vec<_>, Vec<_>) = questions.into_iter().unzip();
    let request = BatchCheckRequest { questions, consistency: None, dependencies: false };
    let results = client.clone().batch_check(request).await.unwrap().into_inner().results;
    let is_allowed = |outcome: Option<Outcome>| matches!(outcome, Some(Outcome::Answer(answer)) if answer.allowed);
    let allowed = results.into_iter().zip(ids).filter(|(result, _)| is_allowed(result.outcome.clone()));
    let allowed: BTreeSet<String> = allowed.map(|(_, id)| id.to_owned()).collect();
    allowed.into_iter().collect()
}

fn question(who: &str, permission: &str, what: &str) -> Question {
    Question { subject: subject(who), permission: permission.to_owned(), resource: resource(what) }
}

/// The ids of all pages.
async fn all_resources(client: &Client, mut request: ListResourcesRequest) -> Vec<String> {
    let size = usize::try_from(request.page_size).unwrap();
    let mut ids = Vec::new();
    loop {
        let page = client.clone().list_resources(request.clone()).await.unwrap().into_inner();
        assert!(page.resources.len() <= size, "{page:?}");
        assert!(page.resources.len() == size || page.next_page_token.is_empty(), "a short page in no hurry: {page:?}");
        assert!(page.examined >= u64::try_from(page.resources.len()).unwrap(), "{page:?}");
        assert!(page.age.is_some() && page.as_of.starts_with('r'), "{page:?}");
        ids.extend(page.resources.into_iter().map(|listed| listed.id));
        if page.next_page_token.is_empty() {
            return ids;
        }
        assert_ne!(page.next_page_token, request.page_token, "it leads on");
        request.page_token = page.next_page_token;
    }
}

async fn all_subjects(client: &Client, mut request: ListSubjectsRequest) -> Vec<String> {
    let size = usize::try_from(request.page_size).unwrap();
    let mut ids = Vec::new();
    loop {
        let page = client.clone().list_subjects(request.clone()).await.unwrap().into_inner();
        assert!(page.subjects.len() <= size, "{page:?}");
        assert_eq!((page.everybody(), page.sets.len()), (Everybody::No, 0), "{page:?}");
        ids.extend(page.subjects.into_iter().map(|listed| listed.id));
        if page.next_page_token.is_empty() {
            return ids;
        }
        assert_ne!(page.next_page_token, request.page_token, "it leads on");
        request.page_token = page.next_page_token;
    }
}

#[tokio::test]
async fn pages_of_every_size_list_what_checks_allow_once_and_in_order() {
    let service = Service::start().await;
    let client = service.client();
    let files = files();
    let mut total = 0;
    for user in USERS {
        let who = format!("user:{user}");
        for permission in ["read", "write", "restore"] {
            let ask = |id: &str| question(&who, permission, &format!("file:{id}"));
            let expected = checked(&client, files.iter().map(|id| (ask(id), id.as_str())).collect()).await;
            total += expected.len();
            for page_size in [1, 2, 3, 100] {
                let request = ListResourcesRequest { page_size, ..resources(&who, permission, "file") };
                assert_eq!(all_resources(&client, request).await, expected, "{user} {permission} {page_size}");
            }
        }
    }
    assert!(total > 10, "{total}");
}

#[tokio::test]
async fn pages_of_subjects_list_whom_checks_allow_once_and_in_order() {
    let service = Service::start().await;
    let client = service.client();
    let mut total = 0;
    for file in files() {
        let what = format!("file:{file}");
        if file.ends_with("0f") {
            continue;
        }
        let ask = |user: &str| question(&format!("user:{user}"), "read", &what);
        let expected = checked(&client, USERS.iter().map(|user| (ask(user), *user)).collect()).await;
        total += expected.len();
        for page_size in [1, 2, 100] {
            let request = ListSubjectsRequest { page_size, ..subjects("read", &what, "user") };
            assert_eq!(all_subjects(&client, request).await, expected, "{file} {page_size}");
        }
    }
    assert!(total > 10, "{total}");
    // Each list was made three times. Some whom a document names may not.
    let text = service.metrics.render();
    let count = |name: &str| -> usize {
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("permcached_subject_list_{name}_total ")));
        line.unwrap_or_else(|| panic!("{name}: {text}")).parse().unwrap()
    };
    assert_eq!(count("returned"), 3 * total);
    assert!(count("examined") > 3 * total, "{text}");
}

#[tokio::test]
async fn a_token_leads_on_through_its_own_list_only() {
    let service = Service::start().await;
    let client = service.client();
    let own = ListResourcesRequest {
        page_size: 1,
        within: "{\"is_deleted\": {\"$ne\": true}}".to_owned(),
        ..resources(ALICE, "read", "file")
    };
    let first = client.clone().list_resources(own.clone()).await.unwrap().into_inner();
    assert!(!first.next_page_token.is_empty(), "{first:?}");
    let second = ListResourcesRequest { page_token: first.next_page_token.clone(), ..own.clone() };
    let page = client.clone().list_resources(second.clone()).await.unwrap().into_inner();
    assert!(page.resources[0].id > first.resources[0].id, "{first:?} {page:?}");
    let others = [
        ListResourcesRequest { subject: subject(BOB), ..second.clone() },
        ListResourcesRequest { subject: subject("anonymous"), ..second.clone() },
        ListResourcesRequest { permission: "write".to_owned(), ..second.clone() },
        ListResourcesRequest { resource_type: "folder".to_owned(), ..second.clone() },
        ListResourcesRequest { within: String::new(), ..second.clone() },
        ListResourcesRequest { within: "{\"is_deleted\": {\"$ne\": false}}".to_owned(), ..second.clone() },
    ];
    for other in others {
        let status = refused_resources(&client, other).await;
        assert_names(&status, &[("page_token", "is of another request: apart from `page_size` and `consistency`")]);
    }
    // The size and the consistency may change, and so may the case of an id.
    let consistency = Some(Consistency { requirement: Some(Requirement::FullyConsistent(true)) });
    let upper = subject(&ALICE.to_uppercase().replace("USER", "user"));
    let rest = ListResourcesRequest { page_size: 1_000, consistency, subject: upper, ..second.clone() };
    let rest = client.clone().list_resources(rest).await.unwrap().into_inner();
    let all = client.clone().list_resources(ListResourcesRequest { page_size: 0, ..own }).await.unwrap().into_inner();
    assert_eq!(all.resources[1..], rest.resources);
    // A list of subjects is another list, and so is one of another schema.
    let of_subjects = ListSubjectsRequest { page_token: first.next_page_token, ..subjects("read", CONTRACT, "user") };
    let status = refused_subjects(&client, of_subjects).await;
    assert_names(&status, &[("page_token", "is of another request")]);
    let changed = std::fs::read_to_string(crate::support::service::SCHEMA).unwrap().replace("is_deleted", "is_removed");
    let service = Service::over(&changed, std::collections::BTreeMap::new()).await;
    let status = refused_resources(&service.client(), second).await;
    assert_names(&status, &[("page_token", "is of another schema: begin again with the first page")]);
}

#[tokio::test]
async fn a_changed_token_is_refused_or_lists_nothing_that_a_check_denies() {
    let service = Service::start().await;
    let client = service.client();
    let own = ListResourcesRequest { page_size: 1, ..resources(ALICE, "read", "file") };
    let first = client.clone().list_resources(own.clone()).await.unwrap().into_inner();
    let token = first.next_page_token;
    let ask = |id: &str| question(ALICE, "read", &format!("file:{id}"));
    let files = files();
    let allowed = checked(&client, files.iter().map(|id| (ask(id), id.as_str())).collect()).await;
    let mut tokens = vec!["AQ".to_owned(), "=".to_owned(), "é".repeat(200), "\u{0}".to_owned(), "A".repeat(1 << 16)];
    for place in 0..token.len() {
        for letter in ["A", "_", "z", " "] {
            let mut changed = token.clone();
            changed.replace_range(place..=place, letter);
            tokens.push(changed);
        }
        tokens.push(token[..place].to_owned());
    }
    let (mut refused, mut answered) = (0, 0);
    for page_token in tokens.into_iter().filter(|changed| *changed != token && !changed.is_empty()) {
        let request = ListResourcesRequest { page_token: page_token.clone(), page_size: 1_000, ..own.clone() };
        match client.clone().list_resources(request).await {
            Ok(page) => {
                let page = page.into_inner();
                assert!(page.resources.iter().all(|listed| allowed.contains(&listed.id)), "{page_token}: {page:?}");
                answered += 1;
            }
            Err(status) => {
                assert_eq!(status.code(), Code::InvalidArgument, "{page_token}: {status:?}");
                assert!(status.message().starts_with("page_token: "), "{status:?}");
                refused += 1;
            }
        }
    }
    // The last 12 of 38 bytes are the id.
    assert!(refused > 150 && answered > 30, "{refused} {answered}");
}

/// A wildcard, an exclusion, and a set that the subject is a member of.
const EVERYBODY: &str = r#"
    default_subject = "user"
    [subject.user]
    [resource.team]
    collection = "teams"
    [resource.team.relations]
    member = { field = "members" }
    [resource.team.permissions]
    view = "member"
    [resource.file]
    collection = "files"
    [resource.file.relations]
    reader = { field = "readers", wildcard = true }
    banned = { field = "banned" }
    team = { field = "team", subject = "team.member" }
    public = { where = { public = true } }
    [resource.file.permissions]
    read = "(reader | team | public) & !banned"
"#;

#[tokio::test]
async fn everybody_is_distinguished_from_the_listed_and_an_excluded_subject_is_never_listed() {
    let id = |number: u8| ObjectId::from_bytes([number; 12]);
    let collections = [
        ("teams".to_owned(), vec![doc! { "_id": id(1), "members": [id(11), id(12)] }]),
        (
            "files".to_owned(),
            vec![
                doc! { "_id": id(2), "readers": [id(13)], "team": id(1), "banned": [id(12)] },
                doc! { "_id": id(3), "readers": ["*", id(13)], "banned": [id(13)] },
                doc! { "_id": id(4), "public": true },
                doc! { "_id": id(5), "public": "true" },
            ],
        ),
    ];
    let service = Service::over(EVERYBODY, collections.into()).await;
    let client = service.client();
    for (file, expected, everybody) in [
        (2, vec![id(11), id(13)], Everybody::No),
        (3, vec![], Everybody::WithExclusions),
        (4, vec![], Everybody::Yes),
        (5, vec![], Everybody::No),
    ] {
        let what = format!("file:{}", id(file).to_hex());
        let page = client.clone().list_subjects(subjects("read", &what, "")).await.unwrap().into_inner();
        let found: Vec<String> = page.subjects.iter().map(|listed| listed.id.clone()).collect();
        // A subject that is named beside a wildcard may be listed, too, unless it is excluded.
        let expected: Vec<String> = expected.into_iter().map(ObjectId::to_hex).collect();
        assert_eq!((found, page.everybody()), (expected, everybody), "{file}: {page:?}");
    }
    for (user, expected) in [(11, vec![2, 3, 4]), (12, vec![3, 4]), (13, vec![2, 4]), (14, vec![3, 4])] {
        let who = format!("user:{}", id(user).to_hex());
        let page = client.clone().list_resources(resources(&who, "read", "file")).await.unwrap().into_inner();
        let found: Vec<String> = page.resources.iter().map(|listed| listed.id.clone()).collect();
        assert_eq!(found, expected.into_iter().map(|file| id(file).to_hex()).collect::<Vec<_>>(), "{user}");
    }
}

#[tokio::test]
async fn a_condition_of_the_caller_restricts_a_list_and_grants_nothing() {
    let service = Service::start().await;
    let client = service.client();
    let within = |who: &str, text: &str| {
        let request =
            ListResourcesRequest { page_size: 1_000, within: text.to_owned(), ..resources(who, "read", "file") };
        let client = client.clone();
        async move { all_resources(&client, request).await }
    };
    let all = within(ALICE, "").await;
    let text = within(ALICE, r#"{"mime_type": "text/markdown"}"#).await;
    let folder = within(ALICE, r#"{"folder_id": {"$oid": "f01d00000000000000000001"}}"#).await;
    assert!(!text.is_empty() && text.len() < all.len(), "{text:?} {all:?}");
    assert!(!folder.is_empty() && folder.len() < all.len(), "{folder:?} {all:?}");
    assert!(text.iter().chain(&folder).all(|id| all.contains(id)));
    for everything in ["{}", r#"{"$or": [{"name": {"$exists": true}}, {"name": null}]}"#] {
        assert_eq!(within(ALICE, everything).await, all);
        assert!(within(ZOE, everything).await.is_empty());
    }
}
