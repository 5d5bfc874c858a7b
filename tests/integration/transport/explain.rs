//! Explanations: they show every side and no secret, and are not larger than clients accept.
//!
//! Does not test the evaluation itself.

use std::collections::BTreeMap;

use bson::{Document, doc, oid::ObjectId};
use permcached::transport::proto::{
    CheckRequest, ExplainRequest, ExplainResponse, Explanation, Reason,
    explanation::{Outcome, Step},
};
use prost::Message as _;

use super::{ALICE, BOB, CONTRACT, ROADMAP, ZOE, ask, check};
use crate::support::service::{Client, Service};

/// The folders above the contract, innermost first.
const FOLDERS: [&str; 4] = [
    "folder:f01d00000000000000000004",
    "folder:f01d00000000000000000003",
    "folder:f01d00000000000000000002",
    "folder:f01d00000000000000000001",
];
/// The share of the folder Work.
const WORK_TOKEN: &str = "a0000000-0000-4000-8000-000000000002";

async fn explain(client: &Client, who: &str, permission: &str, what: &str) -> ExplainResponse {
    let CheckRequest { subject, permission, resource, consistency, .. } = check(who, permission, what);
    let request = ExplainRequest { subject, permission, resource, consistency };
    client.clone().explain(request).await.unwrap().into_inner()
}

fn find<'a>(response: &'a ExplainResponse, step: Step, object: &str, name: &str) -> &'a Explanation {
    let is_it = |found: &&Explanation| found.step() == step && found.object == object && found.name == name;
    let mut all = response.steps.iter().filter(is_it);
    let found = all.next().unwrap_or_else(|| panic!("no {step:?} `{name}` of {object}: {response:#?}"));
    assert!(all.next().is_none(), "{step:?} `{name}` of {object} twice");
    found
}

/// Asserts that the steps are a tree from the top: the first has depth 0, and each is at most one deeper than the step
/// before it.
#[track_caller]
fn assert_is_a_tree(response: &ExplainResponse) {
    let mut before = None;
    for step in &response.steps {
        let deepest = before.map_or(0, |depth: u32| depth + 1);
        assert!(step.depth <= deepest && (step.depth > 0 || before.is_none()), "{step:?}");
        assert_ne!(step.step(), Step::Unspecified, "{step:?}");
        assert_ne!(step.outcome(), Outcome::Unspecified, "{step:?}");
        before = Some(step.depth);
    }
}

#[tokio::test]
async fn a_denial_four_folders_deep_shows_every_place_that_could_have_granted() {
    let service = Service::start().await;
    let client = service.client();
    let response = explain(&client, ZOE, "read", CONTRACT).await;
    assert_is_a_tree(&response);
    let answer = response.answer.clone().unwrap();
    assert!(!answer.allowed && !response.truncated);
    assert_eq!(answer.reason(), Reason::NoGrant);

    let question = &response.steps[0];
    assert_eq!((question.step(), question.object.as_str(), question.name.as_str()), (Step::Question, CONTRACT, "read"));
    assert_eq!((question.outcome(), question.reason()), (Outcome::Fails, Reason::NoGrant));
    let gate = response.steps.iter().find(|step| step.step() == Step::Gate).unwrap();
    assert_eq!((gate.object.as_str(), gate.outcome()), (ZOE, Outcome::Holds));

    let mut places = vec![
        (CONTRACT, "owner", "files"),
        (CONTRACT, "guest", "shares"),
        (CONTRACT, "link", ""),
        (CONTRACT, "verified_link", ""),
        (CONTRACT, "reading_code", ""),
    ];
    for folder in FOLDERS {
        places.extend([(folder, "guest", "shares"), (folder, "link", ""), (folder, "verified_link", "")]);
    }
    for (object, name, collection) in places {
        let step = find(&response, Step::Relation, object, name);
        assert_eq!((step.outcome(), step.reason()), (Outcome::Fails, Reason::NoGrant), "{object} {name}");
        // Relations that lead only to links and codes are not read for a user.
        if name.ends_with("link") || name.ends_with("code") {
            assert_eq!((step.leads_to.len(), &step.fact), (1, &None), "{object} {name}");
            assert!(name.ends_with(&step.leads_to[0]), "{step:?}");
            continue;
        }
        let fact = step.fact.as_ref().expect("a relation's fact");
        assert_eq!(fact.collection, collection);
        assert_eq!(step.leads_to, ["user"]);
        assert_eq!(fact.key, object.split_once(':').unwrap().1);
        assert_eq!(fact.stamp, answer.as_of, "one source, one moment");
    }
    for (object, name) in [(CONTRACT, "folder.shared"), (FOLDERS[0], "parent.shared"), (FOLDERS[3], "parent.shared")] {
        let step = find(&response, Step::Edge, object, name);
        assert_eq!(step.outcome(), Outcome::Fails, "{object} {name}");
    }
    for object in FOLDERS.into_iter().chain([CONTRACT]) {
        assert_eq!(find(&response, Step::Relation, object, "deleted").outcome(), Outcome::Fails);
    }
}

#[tokio::test]
async fn a_grant_is_shown_with_its_document_and_the_other_sides_too() {
    let service = Service::start().await;
    let client = service.client();
    let response = explain(&client, BOB, "read", CONTRACT).await;
    assert_is_a_tree(&response);
    assert_eq!(response.answer.as_ref().unwrap().granted_by, "folder#guest");
    let guest = find(&response, Step::Relation, FOLDERS[2], "guest");
    assert_eq!(guest.outcome(), Outcome::Holds);
    let grant = &guest.grants[0];
    assert_eq!((grant.document.as_str(), grant.field.as_str()), ("54a4e0000000000000000001", "shared_with_user_id"));
    assert_eq!((grant.grantee.as_str(), grant.outcome()), (BOB, Outcome::Holds));
    assert_eq!(find(&response, Step::Relation, CONTRACT, "owner").outcome(), Outcome::Fails);

    // An explanation has the same answer as a check.
    for (who, what) in
        [(ALICE, ROADMAP), (ZOE, ROADMAP), (ALICE, "file:f11e0000000000000000000e"), ("anonymous", CONTRACT)]
    {
        let explained = explain(&client, who, "read", what).await.answer.unwrap();
        let checked = ask(&client, check(who, "read", what)).await.unwrap();
        assert_eq!(
            (explained.allowed, explained.reason, explained.granted_by),
            (checked.allowed, checked.reason, checked.granted_by)
        );
    }
}

#[tokio::test]
async fn a_missing_document_and_a_wrong_type_are_shown() {
    let service = Service::start().await;
    let client = service.client();
    let absent = explain(&client, ZOE, "read", "file:f11e000000000000000000ff").await;
    let document = absent.steps.iter().find(|step| step.step() == Step::Document).expect("the document that is absent");
    assert_eq!((document.outcome(), document.reason()), (Outcome::Fails, Reason::NotFound));
    assert_eq!(document.fact.as_ref().unwrap().collection, "files");

    let malformed = explain(&client, ALICE, "read", "file:f11e0000000000000000000e").await;
    let owner = find(&malformed, Step::Relation, "file:f11e0000000000000000000e", "owner");
    assert_eq!((owner.outcome(), owner.reason()), (Outcome::Indeterminate, Reason::Malformed));
    assert_eq!((owner.grants[0].grantee.as_str(), owner.grants[0].field.as_str()), ("?", "owner_id"));
}

/// Tokens of other links are as secret as the subject's own.
#[tokio::test]
async fn secrets_are_shown_only_as_hashes() {
    let service = Service::start().await;
    let client = service.client();
    let work_file = "file:f11e00000000000000000005";
    for (who, what, shows_hashes) in [
        (format!("link:{WORK_TOKEN}"), work_file, true),
        (format!("verified_link:{WORK_TOKEN}"), work_file, true),
        ("code:C0DE000000000001".to_owned(), ROADMAP, true),
        ("link:not-a-token-of-anything".to_owned(), work_file, true),
        (ZOE.to_owned(), work_file, false),
    ] {
        let response = explain(&client, &who, "read", what).await;
        let whole = format!("{response:?}");
        for secret in ["a0000000-0000-4000", "C0DE00000000", "not-a-token-of-anything"] {
            assert!(!whole.contains(secret), "{who}: {secret} in {response:#?}");
        }
        assert_eq!(whole.contains("sha256:"), shows_hashes, "{who}: {response:#?}");
    }
    // Error messages do not repeat a secret either.
    let secret = "hush".repeat(400);
    let status = ask(&client, check(&format!("link:{secret}"), "read", ROADMAP)).await.unwrap_err();
    assert!(!format!("{status:?}").contains("hush"), "{status:?}");
    let status = ask(&client, check(&format!("user:{WORK_TOKEN}"), "read", ROADMAP)).await.unwrap_err();
    assert!(!format!("{status:?}").contains(WORK_TOKEN), "{status:?}");
}

const WIDE: &str = r#"
default_subject = "user"
[subject.user]
id = "string"
[resource.album]
id = "string"
collection = "albums"
[resource.album.relations]
viewer = { field = "viewers" }
within = { field = "within", resource = "album" }
[resource.album.permissions]
view = "viewer | within.view"
"#;

fn albums(documents: Vec<Document>) -> BTreeMap<String, Vec<Document>> {
    BTreeMap::from([("albums".to_owned(), documents)])
}

#[tokio::test]
async fn thousands_of_grants_are_counted_and_a_few_are_shown_the_subjects_first() {
    let schema = WIDE.replacen("id = \"string\"", "", 1);
    let viewer = |number: u32| {
        let mut bytes = [0; 12];
        bytes[8..].copy_from_slice(&number.to_be_bytes());
        ObjectId::from_bytes(bytes)
    };
    let viewers: Vec<ObjectId> = (0..5_000).map(viewer).collect();
    let service = Service::over(&schema, albums(vec![doc! { "_id": "a", "viewers": viewers }])).await;
    let response = explain(&service.client(), &format!("user:{}", viewer(4_321)), "view", "album:a").await;
    let step = find(&response, Step::Relation, "album:a", "viewer");
    assert_eq!((step.grants.len(), step.grants_total), (20, 5_000));
    assert_eq!(step.grants[0].grantee, format!("user:{}", viewer(4_321)));
    assert_eq!(step.grants[0].outcome(), Outcome::Holds);
    assert!(response.answer.unwrap().allowed);
}

#[tokio::test]
async fn an_explanation_stays_below_the_size_that_clients_accept() {
    // Many steps: 900 albums above the first. Large steps: 200 albums, each with 20 viewers whose ids have a thousand
    // letters.
    let above = |count: u32| (0..count).map(|number| format!("b{number}")).collect::<Vec<_>>();
    let long = |number: u32| format!("{number:0>1000}");
    let mut many = vec![doc! { "_id": "a", "within": above(900) }];
    many.extend(above(900).into_iter().map(|id| doc! { "_id": id, "viewers": ["x", "y"] }));
    let mut large = vec![doc! { "_id": "a", "within": above(200) }];
    large.extend(above(200).into_iter().map(|id| doc! { "_id": id, "viewers": (0..20).map(long).collect::<Vec<_>>() }));

    for (documents, steps) in [(many, 2_000..=2_000), (large, 100..=1_000)] {
        let service = Service::over(WIDE, albums(documents)).await;
        let response = explain(&service.client(), "user:nobody", "view", "album:a").await;
        assert!(response.truncated);
        assert!(steps.contains(&response.steps.len()), "{}", response.steps.len());
        assert!(response.encoded_len() < 4 * 1_024 * 1_024);
        assert_is_a_tree(&response);
        assert_eq!(response.answer.unwrap().reason(), Reason::NoGrant);
    }
}
