//! The contents of an answer: the reason, the relation that grants it, when it ends, and the token.
//!
//! Does not test errors.

use std::time::Duration;

use permcached::transport::proto::{
    Answer, BatchCheckRequest, CheckRequest, Freshness, ListPermissionsRequest, Question, Reason, Tier,
    batch_check_response::result::Outcome, consistency::Requirement, freshness::Moment,
};

use super::{ALICE, BOB, CONTRACT, ROADMAP, ZOE, ask, check, check_with, question};
use crate::support::service::{PATIENCE, Service, resource, subject};

const ADA: &str = "user:ada000000000000000000008";
const CHLOE: &str = "user:c410e0000000000000000003";
const FADI: &str = "user:fad100000000000000000005";
const HOLIDAY: &str = "file:f11e00000000000000000007";

/// 2099-12-31T23:59:59Z, when all unexpired grants of the sample end.
const END: i64 = 4_102_444_799;

#[tokio::test]
async fn an_answer_names_the_granting_relation_and_its_end() {
    let service = Service::start().await;
    let client = service.client();
    let cases = [
        (ALICE, "write", ROADMAP, Ok(("file#owner", None))),
        (BOB, "read", CONTRACT, Ok(("folder#guest", None))),
        (ADA, "read", CONTRACT, Ok(("folder#guest", Some(END)))),
        ("link:a0000000-0000-4000-8000-00000000000d", "read", HOLIDAY, Ok(("file#link", Some(END)))),
        (ZOE, "read", ROADMAP, Err(Reason::NoGrant)),
        (CHLOE, "read", HOLIDAY, Err(Reason::Expired)),
        (ALICE, "read", "file:f11e00000000000000000006", Err(Reason::Excluded)),
        (ALICE, "read", "file:f11e0000000000000000000e", Err(Reason::Malformed)),
        (ALICE, "read", "file:f11e000000000000000000ff", Err(Reason::NotFound)),
        (FADI, "read", "file:f11e0000000000000000000b", Err(Reason::SubjectInactive)),
        ("anonymous", "read", ROADMAP, Err(Reason::NoGrant)),
    ];
    for (who, permission, what, expected) in cases {
        let answer = ask(&client, check(who, permission, what)).await.unwrap();
        let found = match answer.reason() {
            Reason::Unspecified => {
                Ok((answer.granted_by.as_str(), answer.valid_until.as_ref().map(|until| until.seconds)))
            }
            reason => Err(reason),
        };
        assert_eq!(found, expected, "{who} {permission} {what}");
        assert_eq!(answer.allowed, expected.is_ok());
        if !answer.allowed {
            assert_eq!((answer.granted_by.as_str(), &answer.valid_until), ("", &None));
        }
        assert!(matches!(answer.tier(), Tier::Memory | Tier::Source), "{answer:?}");
        let age = Duration::try_from(answer.age.expect("an age")).unwrap();
        assert!(age < PATIENCE, "{age:?}");
        let token = Freshness { moment: Some(Moment::Token(answer.as_of)) };
        assert!(ask(&client, check_with(Requirement::AtLeastAsFresh(token))).await.unwrap().allowed);
    }
}

#[tokio::test]
async fn all_permissions_are_listed_by_name_with_the_answers_that_checks_give() {
    let service = Service::start().await;
    let client = service.client();
    let cases = [
        (ALICE, ROADMAP, vec!["delete", "purge", "read", "restore", "share", "write"]),
        (BOB, "folder:f01d00000000000000000002", vec!["delete", "purge", "read", "restore", "share", "write"]),
        (BOB, "note:d0c000000000000000000001", vec!["delete", "publish", "purge", "read", "restore", "share", "write"]),
        (CHLOE, "team:7ea000000000000000000001", vec!["invite", "manage", "remove", "view"]),
        (FADI, ROADMAP, vec!["delete", "purge", "read", "restore", "share", "write"]),
        ("anonymous", "file:f11e000000000000000000ff", vec!["delete", "purge", "read", "restore", "share", "write"]),
    ];
    for (who, what, names) in cases {
        let list = ListPermissionsRequest { subject: subject(who), resource: resource(what), consistency: None };
        let listed = client.clone().list_permissions(list).await.unwrap().into_inner().permissions;
        let found: Vec<_> = listed.iter().map(|one| one.permission.as_str()).collect();
        assert_eq!(found, names, "{who} {what}");
        for one in &listed {
            let listed = one.answer.clone().unwrap();
            let checked = ask(&client, check(who, &one.permission, what)).await.unwrap();
            assert_eq!(
                (listed.allowed, listed.reason(), &listed.granted_by, &listed.valid_until),
                (checked.allowed, checked.reason(), &checked.granted_by, &checked.valid_until),
                "{who} {} {what}",
                one.permission
            );
        }
    }
}

#[tokio::test]
async fn a_batch_gives_the_answers_that_checks_give() {
    let service = Service::start().await;
    let client = service.client();
    let mut questions = Vec::new();
    for who in [ALICE, BOB, ZOE, FADI, "anonymous", "link:a0000000-0000-4000-8000-000000000002"] {
        for number in 1..=15 {
            questions.push(question(who, "read", &format!("file:f11e0000000000000000{number:04x}")));
        }
    }
    let request = BatchCheckRequest { questions: questions.clone(), consistency: None, dependencies: false };
    let results = client.clone().batch_check(request).await.unwrap().into_inner().results;
    assert_eq!(results.len(), questions.len());
    for (question, result) in questions.into_iter().zip(results) {
        let Some(Outcome::Answer(answer)) = result.outcome else { panic!("{question:?}") };
        let Question { subject, permission, resource } = question.clone();
        let request = CheckRequest { subject, permission, resource, consistency: None, dependencies: false };
        let checked = ask(&client, request).await.unwrap();
        let relevant = |answer: &Answer| (answer.allowed, answer.reason, answer.granted_by.clone());
        assert_eq!(relevant(&answer), relevant(&checked), "{question:?}");
    }
}
