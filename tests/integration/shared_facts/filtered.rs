//! Facts that are filtered to a subject are shared in Redis like others, and serve that subject only.

use bson::{Document, doc};
use permcached::{
    check::Consistency,
    freshness::Moment,
    question::{Question, Tier},
    source::Deadline,
};
use tokio::time::sleep;

use super::{Duration, Instance, World, id};
use crate::support::{
    both::{TIME_MAX, question, shown},
    live::in_the_end,
    redis::Redis,
};

const SCHEMA: &str = r#"
default_subject = "user"

[subject.user]
id = "string"

[subject.bot]
id = "string"

[subject.link]
id = "string"
secret = true

[resource.file]
id = "integer"

[resource.file.relations]
public = { collection = "public", by = "file" }
banned = { collection = "bans", by = "file", field = "user" }
halted = { collection = "bans", by = "file", field = "bot", subject = "bot" }
dead   = { collection = "bans", by = "file", field = "token", subject = "link" }

[resource.file.permissions]
read = "!banned & !halted & !dead & public"
"#;

const ALLOWED: &str = "allowed by file#public";
const EXCLUDED: &str = "denied EXCLUDED";

/// Each subject, and what it gets. The ids of a user, a bot and a link are the same.
const CASES: [(&str, &str); 7] = [
    ("user:u7", EXCLUDED),
    ("user:free", ALLOWED),
    ("bot:b", EXCLUDED),
    ("bot:u7", ALLOWED),
    ("user:b", ALLOWED),
    ("link:t", EXCLUDED),
    ("link:u7", ALLOWED),
];

async fn world(redis: &Redis) -> World {
    let ban = |number: u32| doc! { "_id": number, "file": 1, "user": format!("u{number}") };
    let mut bans: Vec<Document> = (0..1_100).map(ban).collect();
    bans.push(doc! { "_id": id(1), "file": 1, "bot": "b" });
    bans.push(doc! { "_id": id(2), "file": 1, "token": "t" });
    let public = vec![doc! { "_id": 1, "file": 1 }];
    World::of(&redis.url(), SCHEMA, [("bans".to_owned(), bans), ("public".to_owned(), public)]).await
}

fn reads(world: &World, subject: &str) -> Question {
    question(&world.schema, subject, "read", "file:1")
}

/// Asks with an empty memory until all facts are in Redis. The answer is right each time.
async fn until_served_by_redis(instance: &Instance, world: &World, subject: &str, expected: &str) {
    let asking = async {
        loop {
            instance.finds();
            let (answer, checked) = instance.answer_and_catch_up(&reads(world, subject)).await;
            assert_eq!(answer, expected, "{subject}");
            if checked.tier == Tier::Redis && instance.finds() == 0 {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    in_the_end(asking).await;
}

/// Asserts the answer of an instance once it has applied the change at this moment.
async fn after(at: Moment, instance: &Instance, world: &World, subject: &str, expected: &str) {
    instance.live.until_applied(at).await;
    let (answer, _) = instance.answer_and_catch_up(&reads(world, subject)).await;
    assert_eq!(answer, expected, "{subject}");
}

#[tokio::test]
async fn a_filtered_fact_from_redis_serves_the_subject_that_it_is_filtered_to_and_no_other() {
    let redis = Redis::start(&[]);
    let world = world(&redis).await;
    let (first, second) = (world.join().await, world.join().await);
    until_served_by_redis(&first, &world, "user:u7", EXCLUDED).await;
    for (place, (subject, expected)) in CASES.into_iter().enumerate() {
        second.finds();
        let (answer, _) = second.answer_and_catch_up(&reads(&world, subject)).await;
        assert_eq!(answer, expected, "{subject}");
        assert!(place == 0 || second.finds() > 0, "{subject}: nobody has read its fact before");
        until_served_by_redis(&second, &world, subject, expected).await;
        // The other instance reads neither.
        until_served_by_redis(&first, &world, subject, expected).await;
    }
    // All in one batch, from Redis and from memory.
    for _ in 0..2 {
        let questions: Vec<Question> = CASES.iter().map(|(subject, _)| reads(&world, subject)).collect();
        let checker = &second.live.app.checker;
        let checked = checker.check(&questions, Consistency::MinimizeLatency, Deadline::after(TIME_MAX)).await;
        for ((subject, expected), checked) in CASES.iter().zip(checked) {
            assert_eq!(shown(&world.schema, checked.expect("an answer").answer), *expected, "{subject} in a batch");
        }
        second.live.app.memory.clear();
    }
}

#[tokio::test]
async fn a_filtered_fact_in_redis_does_not_outlive_a_change() {
    let redis = Redis::start(&[]);
    let world = world(&redis).await;
    let (first, second) = (world.join().await, world.join().await);
    let subject = "user:free";
    until_served_by_redis(&first, &world, subject, ALLOWED).await;
    until_served_by_redis(&second, &world, subject, ALLOWED).await;
    let ban = vec![doc! { "_id": "ban", "file": 1, "user": "free" }];
    let at = first.live.insert("bans", ban).await;
    for instance in [&first, &second] {
        after(at, instance, &world, subject, EXCLUDED).await;
        until_served_by_redis(instance, &world, subject, EXCLUDED).await;
    }
    let at = first.live.update("bans", doc! { "_id": "ban" }, doc! { "$set": { "user": "other" } }).await;
    for instance in [&second, &first] {
        after(at, instance, &world, subject, ALLOWED).await;
    }
}
