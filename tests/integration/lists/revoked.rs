//! What is revoked by a write that permcached is not told of leaves every list that is at least as fresh as the write, on every
//! instance, and those without a token within the bound.

use mongodb::bson::{Bson, Document, doc};
use permcached::{
    check::Consistency,
    freshness::Moment,
    list::{ListError, ListQuestion, Plan, PlanKind, PlanOptions, ResourcePage},
    schema::Path,
    source::Deadline,
};

use super::list_question;
use crate::support::{
    both::{TIME_MAX, subject_text},
    fleet::Fleet,
    live::{Live, at_least, in_the_end},
    redis::redis,
};

const SCHEMA: &str = r#"
default_subject = "user"

[subject.user]
id = "string"
collection = "users"
where = { active = true }

[subject.user.relations]
teams = { field = "teams", resource = "team" }

[resource.team]
id = "string"

[resource.team.relations]
member = { of = "user.teams" }

[resource.team.permissions]
see = "member"

[resource.folder]
id = "string"
collection = "folders"

[resource.folder.relations]
owner = { field = "owner" }
parent = { field = "parent", resource = "folder" }

[resource.folder.permissions]
read = "owner | parent.read"

[resource.file]
id = "string"
collection = "files"

[resource.file.relations]
folder = { field = "folder", resource = "folder" }
guest = { collection = "shares", by = "file", field = "user" }
team = { field = "team", subject = "team.member" }

[resource.file.permissions]
read = "guest | folder.read | team"
"#;

fn documents() -> Vec<(&'static str, Vec<Document>)> {
    vec![
        ("users", vec![doc! { "_id": "ann", "active": true, "teams": ["red"] }]),
        (
            "folders",
            vec![
                doc! { "_id": "top", "owner": "ann" },
                doc! { "_id": "middle", "parent": "top" },
                doc! { "_id": "low", "parent": "middle" },
            ],
        ),
        (
            "files",
            vec![
                doc! { "_id": "1" },
                doc! { "_id": "2", "folder": "low" },
                doc! { "_id": "3", "team": "red" },
                doc! { "_id": "4" },
            ],
        ),
        (
            "shares",
            vec![doc! { "_id": "s", "file": "1", "user": "ann" }, doc! { "_id": "t", "file": "4", "user": "ann" }],
        ),
    ]
}

fn question(live: &Live) -> ListQuestion {
    list_question(&live.schema, subject_text("user:ann"), "read", "file")
}

async fn plan(live: &Live, consistency: Consistency, reference: Option<Path>) -> Result<Plan, ListError> {
    let options = PlanOptions { reference, ..PlanOptions::default() };
    live.app.lister.plan_filter(&question(live), consistency, options, Deadline::after(TIME_MAX)).await
}

/// The ids that the lists of an instance contain, which must all be the same: on a page, in a plan for another collection, and those
/// that a filter finds.
async fn listed(live: &Live, consistency: Consistency) -> Vec<String> {
    let page = ResourcePage { size: 100, after: None, within: None };
    let deadline = Deadline::after(TIME_MAX);
    let list = live.app.lister.list_resources(&question(live), consistency, page, deadline).await.unwrap();
    let listed: Vec<String> = list.resources.iter().map(|resource| resource.id.to_string()).collect();
    let ids = plan(live, consistency, Some(Path::parse("file_id").unwrap())).await.unwrap();
    let ids = ids.filter.get_document("file_id").map_or_else(|_| Vec::new(), |ids| texts(ids.get("$in").unwrap()));
    assert_eq!(ids, listed, "a plan for another collection");
    let filter = plan(live, consistency, None).await.unwrap();
    assert!(matches!(filter.kind, PlanKind::Exact | PlanKind::None), "{filter:?}");
    let files = live.database.collection::<Document>("files");
    let found = files.distinct("_id", filter.filter).await.unwrap();
    assert_eq!(texts(&Bson::Array(found)), listed, "what the filter finds");
    listed
}

fn texts(ids: &Bson) -> Vec<String> {
    ids.as_array().expect("a list").iter().map(|id| id.as_str().expect("a text").to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_revokes_shows_on_every_instance_with_its_token() {
    let documents = documents();
    let fleet = Fleet::new(3, &redis().url(), SCHEMA, &documents).await;
    for live in fleet.each() {
        assert_eq!(listed(live, Consistency::MinimizeLatency).await, ["1", "2", "3", "4"]);
        assert_eq!(listed(live, Consistency::MinimizeLatency).await, ["1", "2", "3", "4"], "from memory");
    }
    let delete =
        |collection: &str, id: &str| doc! { "delete": collection, "deletes": [{ "q": { "_id": id }, "limit": 1 }] };
    let update = |collection: &str, id: &str, update: Document| {
        doc! { "update": collection, "updates": [{ "q": { "_id": id }, "u": update }] }
    };
    let steps: [(Document, &[&str]); 6] = [
        (delete("shares", "s"), &["2", "3", "4"]),
        (update("folders", "middle", doc! { "$set": { "parent": "other" } }), &["3", "4"]),
        (update("users", "ann", doc! { "$set": { "teams": ["blue"] } }), &["4"]),
        (update("shares", "t", doc! { "$set": { "user": "bob" } }), &[]),
        (update("folders", "low", doc! { "$set": { "owner": "ann" } }), &["2"]),
        (update("users", "ann", doc! { "$set": { "active": false } }), &[]),
    ];
    for (write, expected) in steps {
        // By a client of the application: no instance is notified.
        let reply = fleet.database.run_command(write.clone()).await.unwrap();
        let time = reply.get_timestamp("operationTime").unwrap();
        let moment = Moment::new(time.time, time.increment);
        for live in fleet.each() {
            assert_eq!(listed(live, at_least(moment)).await, expected, "{write}");
        }
        // Without a token, within the bound.
        for live in fleet.each() {
            in_the_end(async {
                while listed(live, Consistency::MinimizeLatency).await != expected {
                    tokio::task::yield_now().await;
                }
            })
            .await;
        }
        for live in fleet.each() {
            assert_eq!(listed(live, Consistency::FullyConsistent).await, expected, "{write}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_shows_everything_that_its_token_covers_and_returns_one_that_covers_it() {
    let documents = documents();
    let live = Live::new(SCHEMA, &documents).await;
    let page = || ResourcePage { size: 100, after: None, within: None };
    let mut last = Moment::default();
    for round in 0..20 {
        let id = format!("n{round}");
        live.insert("files", vec![doc! { "_id": &id }]).await;
        let moment = live.insert("shares", vec![doc! { "file": &id, "user": "ann" }]).await;
        let deadline = Deadline::after(TIME_MAX);
        let list = live.app.lister.list_resources(&question(&live), at_least(moment), page(), deadline).await.unwrap();
        assert!(list.resources.iter().any(|resource| resource.id.to_string() == id), "{list:?}");
        assert!(list.as_of.moment >= moment && list.as_of.moment >= last, "{list:?} {moment:?}");
        let plan = plan(&live, at_least(moment), None).await.unwrap();
        assert!(plan.as_of.moment >= moment && plan.filter.to_string().contains(&id), "{plan:?} {}", plan.filter);
        last = list.as_of.moment;
    }
    let token = at_least(Moment::from_count(u64::MAX));
    let error = plan(&live, token, None).await;
    assert!(matches!(&error, Err(ListError::Check(permcached::check::CheckError::FutureToken))), "{error:?}");
}
