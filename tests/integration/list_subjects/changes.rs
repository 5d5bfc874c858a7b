//! Lists of subjects while documents change.

use std::time::Duration;

use bson::doc;
use permcached::{
    check::{Consistency, Settings},
    invalidate::Outdated,
    question::{Id, Subject},
    source::Deadline,
};

use super::{Asked, shown};
use crate::support::{
    both::{TIME_MAX, found_in},
    live::{Live, at_least},
};

const SCHEMA: &str = r#"
default_subject = "user"
[subject.user]
id = "string"
[resource.team]
id = "integer"
collection = "teams"
[resource.team.relations]
member = { collection = "memberships", by = "team", field = "user" }
[resource.team.permissions]
see = "member"
[resource.doc]
id = "integer"
collection = "docs"
[resource.doc.relations]
team = { field = "team", subject = "team.member" }
[resource.doc.permissions]
read = "team"
"#;

async fn live(members: i32) -> Live {
    let memberships = (0..members).map(|number| doc! { "_id": number, "team": 1_i64, "user": format!("u{number:04}") });
    let docs = vec![doc! { "_id": 1_i64, "team": 1_i64 }];
    let collections = [("memberships", memberships.collect()), ("docs", docs), ("teams", vec![doc! { "_id": 1_i64 }])];
    let settings = Settings { staleness_max: Duration::from_mins(1), ..Settings::default() };
    Live::with(SCHEMA, &collections, settings).await
}

/// When a list begins, the subjects on it are not known yet: any subject that was invalidated may be one of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_reads_facts_again_after_a_subject_was_invalidated() {
    let live = live(3).await;
    let asked = Asked::parse(&live.schema, "read doc:1 user");
    let read = async || {
        let before = found_in(&live.app.metrics, "source");
        let list = asked.page(&live.app.lister, 10, None, Consistency::MinimizeLatency).await.expect("a list");
        assert_eq!(list.subjects.len(), 3);
        found_in(&live.app.metrics, "source") - before
    };
    assert!(read().await > 0, "nothing is cached yet");
    while read().await > 0 {}
    let subjects = vec![Subject::Known { kind: asked.kind, id: Id::String("u0001".into()) }];
    let outdated = Outdated::These { resources: Vec::new(), documents: Vec::new(), subjects };
    live.app.invalidator.invalidate(&outdated, Deadline::after(TIME_MAX)).await.expect("mongod answers");
    assert!(read().await > 0, "facts from before the invalidation do not count");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_with_the_token_of_a_write_reflects_it() {
    // As facts in memory, and by a listing.
    for members in [3, 1_200] {
        let live = live(members).await;
        let asked = Asked::parse(&live.schema, "read doc:1 user");
        let list = async |consistency| {
            let list = asked.pages(&live.app.lister, 1_000, consistency).await.expect("a list");
            let names: Vec<String> = list.subjects.iter().map(|listed| listed.id.to_string()).collect();
            assert!(list.as_of.moment > live.first_floor && shown(&live.schema, &list).ends_with(" NO"));
            names
        };
        for number in 0..5 {
            let before = list(Consistency::FullyConsistent).await;
            assert_eq!(before.len(), usize::try_from(members).unwrap());
            let revoked = live.delete("memberships", doc! { "user": "u0001" }).await;
            assert!(!list(at_least(revoked)).await.contains(&"u0001".to_owned()), "{members} members, {number}");
            let document = doc! { "_id": 1_000_000 + number, "team": 1_i64, "user": "new" };
            let granted = live.insert("memberships", vec![document]).await;
            assert!(list(at_least(granted)).await.contains(&"new".to_owned()));
            live.delete("memberships", doc! { "user": "new" }).await;
            let restored = doc! { "_id": 1, "team": 1_i64, "user": "u0001" };
            let restored = live.insert("memberships", vec![restored]).await;
            live.until_applied(restored).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_skip_and_repeat_nobody_while_subjects_come_and_go() {
    let live = live(10).await;
    let asked = Asked::parse(&live.schema, "read doc:1 user");
    let (mut after, mut listed) = (None, Vec::new());
    for round in 0..20 {
        let list = asked.page(&live.app.lister, 2, after.take(), Consistency::FullyConsistent).await.expect("a list");
        listed.extend(list.subjects.iter().map(|subject| subject.id.to_string()));
        after = list.next;
        if after.is_none() {
            break;
        }
        // Before and after the place that the list has reached.
        let names = [format!("a{round}"), format!("u0005.{round}")];
        let new = (0..).zip(names).map(|(at, user)| doc! { "_id": 100 + 2 * round + at, "team": 1_i64, "user": user });
        live.insert("memberships", new.collect()).await;
        live.delete("memberships", doc! { "user": format!("a{round}") }).await;
    }
    assert!(after.is_none(), "the list ends");
    assert!(listed.is_sorted_by(|one, next| one < next), "nobody is repeated: {listed:?}");
    let throughout = (0..10).map(|number| format!("u{number:04}"));
    let missing: Vec<String> = throughout.filter(|user| !listed.contains(user)).collect();
    assert!(missing.is_empty(), "{missing:?} are skipped: {listed:?}");
}
