//! MongoDB becomes unreachable and returns: cached facts answer within the bound, then only what `stale_if_error` allows
//! is answered.
//!
//! Outages of nodes of a replica set are tested in `history` and `deposed`.

use std::{sync::Arc, time::Duration};

use bson::{Document, doc};
use permcached::{
    app::{Parts, assemble},
    check::{CheckError, Consistency, Settings},
    fact::FactKey,
    facts::FreshnessRequirement,
    freshness::{LocalTime, Moment},
    question::{Id, Question, Subject, Tier},
    source::{Deadline, mongodb::MongoDb},
    transport::proto::{self, permission_service_client::PermissionServiceClient},
};
use tonic::Code;
use tonic_types::StatusExt as _;

use super::{GUEST, NO_GRANT, SCHEMA, USER, feed::end_blocked_commands, file, id, reads, share, users};
use crate::support::{
    both::{TIME_MAX, shown},
    live::{Live, until},
    monitored::FailPoint,
    raw::{Raw, insert},
    servers::mongo,
    service::Service,
};

const BOUND: Duration = Duration::from_millis(700);

/// Two files that are shared with the user; the facts of both are cached. `keep` may be answered from facts older than
/// the bound.
async fn guest(app_name: &str) -> (Live, [Question; 2]) {
    let schema = SCHEMA.replace(
        "[resource.file.permissions]",
        "[resource.file.permissions]\nkeep = { is = \"read\", stale_if_error = \"10m\" }",
    );
    let all = [users(), ("files", vec![file(1), file(2)]), ("shares", vec![share(50, 1), share(51, 2)])];
    let settings = Settings { staleness_max: BOUND, ..Settings::default() };
    let (live, _) = Live::named(app_name, &schema, &all, settings).await;
    let questions = [1, 2].map(|number| reads(&live, USER, number));
    for question in &questions {
        assert_eq!(shown(&live.schema, live.until_cached(question).await), GUEST);
    }
    (live, questions)
}

fn keeps(live: &Live, number: u8) -> Question {
    live.question(&format!("user:{}", id(USER)), "keep", &format!("file:{}", id(number)))
}

/// Closes the connection of every command that this instance sends.
async fn outage(app_name: &str) -> FailPoint {
    let data = doc! { "failCommands": ["find", "getMore", "aggregate"], "closeConnection": true };
    FailPoint::on(mongo(), app_name, "alwaysOn", data).await
}

/// Asks until there is no answer.
async fn outlast_the_bound(live: &Live, question: &Question) {
    loop {
        match live.ask(question, Consistency::MinimizeLatency).await {
            Ok(checked) => {
                assert!(checked.age <= BOUND && !checked.is_stale, "{checked:?}");
                assert_eq!(checked.tier, Tier::Memory, "there is no source");
            }
            Err(CheckError::Unavailable(_)) => return,
            Err(error) => panic!("{error}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Asks until the source answers again.
async fn recovers(live: &Live, question: &Question, wanted: &str) {
    let recovers = async {
        while live.ask(question, Consistency::FullyConsistent).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), recovers).await.expect("by itself");
    assert_eq!(live.answer(question, Consistency::MinimizeLatency).await, wanted);
    let _cached = live.until_cached(question).await;
}

#[tokio::test]
async fn cached_facts_answer_within_the_bound_then_nothing_until_the_source_is_back() {
    let (live, [question, _]) = guest("outage").await;
    let service = Service::of(&live.app).await;
    let outage = outage("outage").await;
    outlast_the_bound(&live, &question).await;
    let mut client = PermissionServiceClient::new(service.channel());
    let subject = proto::Subject { r#type: "user".to_owned(), id: id(USER).to_hex(), anonymous: false };
    let resource = proto::Resource { r#type: "file".to_owned(), id: id(1).to_hex() };
    let request = proto::CheckRequest {
        subject: Some(subject),
        permission: "read".to_owned(),
        resource: Some(resource),
        consistency: None,
        dependencies: false,
    };
    let status = client.check(request).await.expect_err("there is no source");
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert!(status.get_details_retry_info().is_some(), "{status:?}");
    outage.off().await;
    recovers(&live, &question, GUEST).await;
    // Changes are applied again.
    let moment = live.delete("shares", doc! { "_id": id(50) }).await;
    live.until_applied(moment).await;
    assert_eq!(live.answer(&question, Consistency::MinimizeLatency).await, NO_GRANT);
}

#[tokio::test]
async fn only_a_permission_that_may_be_stale_is_answered_from_older_facts_and_is_marked_stale() {
    let (live, [question, other]) = guest("stale").await;
    let (keep, keep_other) = (keeps(&live, 1), keeps(&live, 2));
    // A change that was applied before the outage counts during it.
    let revoked = live.delete("shares", doc! { "_id": id(51) }).await;
    live.until_applied(revoked).await;
    assert_eq!(shown(&live.schema, live.until_cached(&other).await), NO_GRANT);
    let outage = outage("stale").await;
    outlast_the_bound(&live, &question).await;
    let checked = live.ask(&keep, Consistency::MinimizeLatency).await.expect("it may be stale");
    assert_eq!((shown(&live.schema, checked.answer).as_str(), checked.is_stale), (GUEST, true));
    assert!(checked.age > BOUND, "{checked:?}");
    let checked = live.ask(&keep_other, Consistency::MinimizeLatency).await.expect("it may be stale");
    assert_eq!((shown(&live.schema, checked.answer).as_str(), checked.is_stale), (NO_GRANT, true));
    // A stricter request gets no stale answer, and neither does a permission without `stale_if_error`.
    for consistency in [Consistency::FullyConsistent, Consistency::MaxAge(BOUND)] {
        assert!(matches!(live.ask(&keep, consistency).await, Err(CheckError::Unavailable(_))), "{consistency:?}");
    }
    assert!(matches!(live.ask(&question, Consistency::MinimizeLatency).await, Err(CheckError::Unavailable(_))));
    outage.off().await;
    recovers(&live, &keep, GUEST).await;
    let checked = live.ask(&keep, Consistency::MinimizeLatency).await.expect("an answer");
    assert!(!checked.is_stale, "{checked:?}");
}

/// The cached facts have become older than the bound, as there is no change stream. Reading them again takes longer than
/// the caller has, but MongoDB answers.
#[tokio::test]
async fn a_request_with_a_short_deadline_gets_no_stale_answer_while_mongodb_answers() {
    // Long enough that a probe is answered within it however busy the machine is. Otherwise this would be an outage.
    const BOUND: Duration = Duration::from_secs(2);
    let (live, _) = guest("impatient").await;
    let source = MongoDb::open(Arc::clone(&live.schema), live.database.clone()).await.expect("mongod answers");
    let settings = Settings { staleness_max: BOUND, ..Settings::default() };
    let app = assemble(Parts { settings, ..Parts::new(Arc::clone(&live.schema), Arc::new(source)) });
    let without_stream = Live::start(Arc::clone(&live.schema), live.database.clone(), app).await;
    let keep = keeps(&without_stream, 1);
    assert_eq!(shown(&without_stream.schema, without_stream.until_cached(&keep).await), GUEST);
    let slow = doc! { "failCommands": ["find"], "blockConnection": true, "blockTimeMS": 300,
    "namespace": live.full_name("shares") };
    let slow = FailPoint::on(mongo(), "impatient", "alwaysOn", slow).await;
    let refused = loop {
        let deadline = Deadline::after(Duration::from_millis(50));
        match without_stream
            .app
            .checker
            .check(std::slice::from_ref(&keep), Consistency::MinimizeLatency, deadline)
            .await
            .remove(0)
        {
            Ok(checked) => assert!(!checked.is_stale && checked.age <= BOUND, "{checked:?}"),
            Err(error) => break error,
        }
        // Cached facts answer without a pause. The probes must get their turn too.
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert!(matches!(refused, CheckError::DeadlineExceeded), "{refused:?}");
    slow.off().await;
    assert_eq!(without_stream.answer(&keep, Consistency::MinimizeLatency).await, GUEST);
}

#[tokio::test]
async fn errors_are_not_cached() {
    let all: [(&str, Vec<Document>); 3] = [users(), ("files", vec![file(1)]), ("shares", vec![share(50, 1)])];
    let (live, _) = Live::named("failing", SCHEMA, &all, Settings::default()).await;
    let question = reads(&live, USER, 1);
    let failing = doc! { "failCommands": ["find"], "errorCode": 13, "namespace": live.full_name("shares") };
    let failing = FailPoint::on(mongo(), "failing", "alwaysOn", failing).await;
    for _ in 0..3 {
        let asked = live.ask(&question, Consistency::MinimizeLatency).await;
        assert!(matches!(asked, Err(CheckError::Unavailable(_))), "{asked:?}");
    }
    failing.off().await;
    assert_eq!(live.answer(&question, Consistency::MinimizeLatency).await, GUEST);
    assert!(live.app.freshness.newest_moment() > Moment::default());
}

/// Cached facts count only as long as probes are answered. Slow finds do not delay probes, however many there are.
#[tokio::test]
async fn a_probe_does_not_wait_for_loads() {
    const LOADS: u8 = 100;
    let (live, _) = guest("a guest of the crowd").await;
    // Connected as the service connects by default, with as many connections as the driver opens.
    let uri = format!("{}&appName=crowd", mongo().uri());
    let source = MongoDb::connect(Arc::clone(&live.schema), &uri, Some(live.database.name())).await;
    let source = Arc::new(source.expect("mongod answers"));
    let app = assemble(Parts::new(Arc::clone(&live.schema), source));
    let slow = doc! { "failCommands": ["find"], "blockConnection": true, "blockTimeMS": 30_000,
    "namespace": live.full_name("shares") };
    let slow = FailPoint::on(mongo(), "crowd", "alwaysOn", slow).await;
    let (lookup, _) = live.schema.lookups().find(|(_, lookup)| &*lookup.collection == "shares").expect("a lookup");
    let loads: Vec<_> = (0..LOADS)
        .map(|number| {
            let facts = app.facts.clone();
            let keys = vec![FactKey::whole(lookup, Id::ObjectId([number; 12]))];
            tokio::spawn(async move {
                facts.load(keys, Vec::new(), FreshnessRequirement::default(), Deadline::after(TIME_MAX)).await
            })
        })
        .collect();
    // Each load runs in a task that its request spawns: this lets all of them start.
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    let probe = app.prober.probe_since(LocalTime::now(), Deadline::after(TIME_MAX)).await;
    assert!(probe.is_ok(), "{probe:?}");
    assert!(loads.iter().all(|load| !load.is_finished()), "all loads are still in flight");
    loads.iter().for_each(tokio::task::JoinHandle::abort);
    end_blocked_commands(&live.database).await;
    slow.off().await;
}

/// The relations are read by fields with enough documents that a key may have more than a whole fact.
const LARGE: &str = r#"
    default_subject = "user"
    [subject.user]
    id = "string"
    [resource.room]
    id = "string"
    [resource.room.relations]
    member = { collection = "members", by = "room", field = "user" }
    paid   = { collection = "payments", by = "room", field = "user" }
    signed = { collection = "contracts", by = "room", field = "user" }
    [resource.room.permissions]
    enter = "member & paid & signed"
    keep  = { is = "enter", stale_if_error = "10m" }
"#;

/// A check that presumes whole facts to be large reads the filtered ones, and looks at one of the whole ones afterwards. So two checks
/// leave one of three unread.
#[tokio::test]
async fn filtered_facts_that_stood_for_whole_ones_answer_during_an_outage_too() {
    let of =
        |count: u32| (0..count).map(|number| doc! { "room": "r", "user": format!("u{number}") }).collect::<Vec<_>>();
    let all = [("members", of(1_200)), ("payments", of(1_100)), ("contracts", of(1_200))];
    let settings = Settings { staleness_max: BOUND, ..Settings::default() };
    let live = Live::surveyed("stale-filtered", LARGE, &all, settings).await;
    let asked = |user: &str, permission: &str| live.question(&format!("user:{user}"), permission, "room:r");
    let granted = "allowed by room#member";
    assert_eq!(live.answer(&asked("u7", "enter"), Consistency::MinimizeLatency).await, granted);
    assert_eq!(live.answer(&asked("u1150", "enter"), Consistency::MinimizeLatency).await, NO_GRANT);
    let outage = outage("stale-filtered").await;
    outlast_the_bound(&live, &asked("u7", "enter")).await;
    for (user, expected) in [("u7", granted), ("u1150", NO_GRANT)] {
        let checked = live.ask(&asked(user, "keep"), Consistency::MinimizeLatency).await.expect("it may be stale");
        assert_eq!((shown(&live.schema, checked.answer).as_str(), checked.is_stale), (expected, true), "{user}");
        assert!(checked.age > BOUND, "{checked:?}");
    }
    let unknown = live.ask(&asked("u8", "keep"), Consistency::MinimizeLatency).await;
    assert!(matches!(unknown, Err(CheckError::Unavailable(_))), "nobody has asked for that user: {unknown:?}");
    outage.off().await;
}

const HALLS: &str = r#"
    default_subject = "user"
    [subject.user]
    id = "string"
    [resource.hall]
    id = "string"
    [resource.hall.relations]
    member = { collection = "members", by = "hall", field = "user", until = "until" }
    banned = { collection = "bans", by = "hall", field = "user" }
    [resource.hall.permissions]
    enter = { is = "member & !banned", stale_if_error = "10m" }
    visit = { is = "member", stale_if_error = "10m" }
"#;

/// Halls with these members. No fact is in memory.
async fn halls(app_name: &str, members: Vec<Document>) -> Live {
    let all = [("members", members), ("bans", vec![doc! { "hall": "other", "user": "u1" }])];
    Live::named(app_name, HALLS, &all, Settings::default()).await.0
}

/// Loads the fact of hall `r` into memory, whole or filtered. Returns whether it has a document that cannot be relied on.
async fn load(live: &Live, collection: &str, subject: Option<&Subject>) -> bool {
    let (lookup, _) = live.schema.lookups().find(|(_, lookup)| &*lookup.collection == collection).expect("a lookup");
    let id = Id::String("r".into());
    let key = match subject {
        None => FactKey::whole(lookup, id.clone()),
        Some(subject) => FactKey::filtered(lookup, id.clone(), subject.clone()),
    };
    let (facts, requirement) = (&live.app.facts, FreshnessRequirement::default());
    let loaded = facts.load(vec![key], Vec::new(), requirement, Deadline::after(TIME_MAX)).await.remove(0).1;
    until(|| facts.cached(lookup, &id, subject, requirement).is_some()).await;
    loaded.expect("mongod answers").fact.is_doubtful()
}

/// A find for one user compares with the first value only, so it does not find this ban. The whole fact has it, and it counts for
/// every user.
#[tokio::test]
async fn a_filtered_fact_of_bans_answers_in_place_of_the_whole_one_in_no_outage() {
    let live = halls("stale-bans", ["r", "other"].map(|hall| doc! { "hall": hall, "user": "u7" }).to_vec()).await;
    let ban = Raw::of(&doc! { "_id": "odd", "hall": "r", "user": "u9" }).and(&doc! { "user": "u7" });
    live.until_applied(insert(&live.database, "bans", &ban).await).await;
    // All facts of a check of a ban are in memory, except the bans of its hall.
    let elsewhere = live.until_cached(&live.question("user:u7", "enter", "hall:other")).await;
    assert_eq!(shown(&live.schema, elsewhere), "allowed by hall#member");
    let question = live.question("user:u7", "enter", "hall:r");
    assert!(!load(&live, "members", None).await);
    assert!(!load(&live, "bans", Some(&question.subject)).await, "it lacks the ban");
    let outage = outage("stale-bans").await;
    let asked = live.ask(&question, Consistency::MinimizeLatency).await;
    assert!(matches!(asked, Err(CheckError::Unavailable(_))), "{asked:?}");
    outage.off().await;
    assert_eq!(live.answer(&question, Consistency::FullyConsistent).await, "denied MALFORMED");
}

#[tokio::test]
async fn a_filtered_fact_that_cannot_be_relied_on_answers_in_no_outage() {
    let member = |user: &str| doc! { "hall": "r", "user": user };
    let mut doubtful = member("u7");
    doubtful.insert("until", "tomorrow");
    let live = halls("stale-doubtful", vec![member("u7"), doubtful, member("u8")]).await;
    let [odd, even] = ["user:u7", "user:u8"].map(|user| live.question(user, "visit", "hall:r"));
    assert!(load(&live, "members", Some(&odd.subject)).await);
    assert!(!load(&live, "members", Some(&even.subject)).await);
    let outage = outage("stale-doubtful").await;
    // Together, too: what stands for the whole fact does so for one user only.
    for questions in [vec![odd.clone()], vec![even.clone(), odd.clone()], vec![odd.clone(), even.clone()]] {
        let checker = &live.app.checker;
        let asked = checker.check(&questions, Consistency::MinimizeLatency, Deadline::after(TIME_MAX)).await;
        for (question, asked) in questions.iter().zip(asked) {
            if question.subject == odd.subject {
                assert!(matches!(asked, Err(CheckError::Unavailable(_))), "{asked:?}");
            } else {
                let checked = asked.expect("a stale answer");
                assert_eq!(shown(&live.schema, checked.answer), "allowed by hall#member");
                assert!(checked.is_stale, "{checked:?}");
            }
        }
    }
    outage.off().await;
}
