//! The cost of a check without cached facts. A file three folders deep takes at most four rounds. Each round sends one
//! find for each lookup, all at the same time. A batch of 1,000 files in one folder takes no more rounds. The driver's
//! command monitoring counts the finds, and shows the read concern, projection, filter and time limit of each.
//!
//! How long a check takes is not measured here.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

use mongodb::{
    bson::{Bson, Document, doc, oid::ObjectId},
    event::command::CommandEvent,
};
use permcached::{
    app::{App, Parts, assemble},
    check::{Consistency, Settings},
    question::{Answer, Question},
    source::{Deadline, Source, mongodb::MongoDb},
};

use crate::support::{
    both::{Asked, Collections, TIME_MAX, fill, question, shipped_schema, shown},
    monitored::{FailPoint, Monitor, Recorded, Round, commands, level},
    servers::mongo,
};

/// The bound on rounds for a file three folders deep. No case here takes more than four.
const ROUNDS_MAX: usize = 5;

/// How many files the batch asks about.
const FILES: u32 = 1_000;

/// The request's deadline, which bounds every command.
const DEADLINE: Duration = Duration::from_secs(20);

/// Ids by name and number.
fn id(kind: u8, number: u32) -> ObjectId {
    let mut bytes = [kind; 12];
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    ObjectId::from_bytes(bytes)
}

const USER: u8 = 1;
const FOLDER: u8 = 2;
const FILE: u8 = 3;
const SHARE: u8 = 4;

/// 1,000 files in a folder in a folder in a folder; the outermost folder is shared with user 1. The documents also have
/// fields that no relation reads.
fn tree() -> Collections {
    let user =
        |number| doc! { "_id": id(USER, number), "is_active": true, "email": "x@example.com", "password": "hash" };
    let folder = |number: u32| {
        let parent = (number > 1).then(|| id(FOLDER, number - 1)).map_or(Bson::Null, Bson::ObjectId);
        let owner = id(USER, 0);
        doc! { "_id": id(FOLDER, number), "owner_id": owner, "parent_id": parent, "name": "folder", "is_deleted": false }
    };
    let file = |number| {
        let (owner, folder) = (id(USER, 0), id(FOLDER, 3));
        doc! { "_id": id(FILE, number), "owner_id": owner, "folder_id": folder, "name": "file", "is_deleted": false }
    };
    let share = |number: u32, of: u32, change: Document| {
        let mut share = doc! {
            "_id": id(SHARE, number), "folder_id": id(FOLDER, of), "share_type": "internal",
            "shared_with_user_id": id(USER, 1), "is_active": true, "requires_password": false, "password_hash": null, "access_count": 7,
        };
        share.extend(change);
        share
    };
    let shares = vec![
        share(1, 1, doc! {}),
        // These match no relation, so no find returns them.
        share(2, 1, doc! { "is_active": false }),
        share(3, 2, doc! { "share_type": "other" }),
        share(4, 3, doc! { "is_active": false, "share_type": "public", "public_token": "token" }),
    ];
    BTreeMap::from([
        ("users".to_owned(), (0..3).map(user).collect()),
        ("folders".to_owned(), (1..=3).map(folder).collect()),
        ("files".to_owned(), (0..FILES).map(file).collect()),
        ("shares".to_owned(), shares),
    ])
}

/// A checker over the tree, and the source that records its loads.
async fn cold(app_name: &str) -> (Asked, Recorded) {
    let schema = Arc::new(shipped_schema("fylora-sharing.toml"));
    let database = mongo().database().await;
    fill(&database, &schema, &tree()).await;
    let monitor = Monitor::default();
    let client = monitor.client(mongo(), app_name).await;
    let source = Recorded::open(&schema, client.database(database.name()), monitor).await;
    (Asked::new(&schema, Arc::clone(&source.source) as _), source)
}

/// The answers to one request, and the rounds that it took.
async fn ask(asked: &Asked, source: &Recorded, questions: &[Question]) -> (Vec<String>, Vec<Round>) {
    let (rounds, sum) = (asked.metric("permcached_check_rounds_count"), asked.metric("permcached_check_rounds_sum"));
    let checked = asked.checker.check(questions, Consistency::FullyConsistent, Deadline::after(DEADLINE)).await;
    let schema = &asked.schema;
    let answers = checked.into_iter().map(|checked| shown(schema, checked.expect("an answer").answer)).collect();
    let rounds_taken = source.take();
    assert_eq!(asked.metric("permcached_check_rounds_count"), rounds + 1);
    assert_eq!(
        asked.metric("permcached_check_rounds_sum"),
        sum + rounds_taken.len() as u64,
        "the metric counts the same rounds"
    );
    (answers, rounds_taken)
}

/// The lookup of a find, such as `shares by folder_id`, and its keys.
fn lookup_of(find: &Document) -> (String, Vec<Bson>) {
    let filter = find.get_document("filter").unwrap();
    let by_key = filter.get_array("$and").map_or(filter, |sides| sides[0].as_document().unwrap());
    let (field, keys) = by_key.iter().next().unwrap();
    let keys = keys.as_document().unwrap().get_array("$in").unwrap().clone();
    (format!("{} by {field}", find.get_str("find").unwrap()), keys)
}

/// At most [`ROUNDS_MAX`] rounds, one find per lookup in each, all sent before the first comes back, and no key asked for twice.
fn assert_cold(rounds: &[Round]) -> Vec<Vec<String>> {
    assert!(rounds.len() <= ROUNDS_MAX, "{} rounds", rounds.len());
    let mut all_keys = HashSet::new();
    let mut shape = Vec::new();
    for round in rounds {
        let finds = commands(&round.events, "find");
        let lookups: Vec<String> = finds.iter().map(|find| lookup_of(find).0).collect();
        let distinct: BTreeSet<&String> = lookups.iter().collect();
        assert_eq!(distinct.len(), lookups.len(), "one find per lookup: {lookups:?}");
        for find in &finds {
            let (lookup, keys) = lookup_of(find);
            for key in keys {
                assert!(all_keys.insert(format!("{lookup} {key}")), "{lookup} {key} is asked for twice");
            }
        }
        assert_eq!(round.events.len(), 2 * finds.len(), "nothing but finds, all of which succeed: {:?}", round.events);
        shape.push(distinct.into_iter().cloned().collect());
    }
    assert_eq!(rounds.iter().map(|round| round.keys.len()).sum::<usize>(), all_keys.len());
    shape
}

/// The rounds of a user who is not the owner: the file, then a folder a round.
const OF_A_GUEST: [&[&str]; 4] = [
    &["files by _id", "shares by file_id", "users by _id"],
    &["folders by _id", "shares by folder_id"],
    &["folders by _id", "shares by folder_id"],
    &["folders by _id", "shares by folder_id"],
];

#[tokio::test]
async fn a_file_three_folders_deep_takes_at_most_five_rounds() {
    let (asked, source) = cold("cold-file").await;
    let schema = Arc::new(shipped_schema("fylora-sharing.toml"));
    let file = format!("file:{}", id(FILE, 0));
    let user = |number| format!("user:{}", id(USER, number));
    let cases: [(String, &str, &str, &[&[&str]]); 6] = [
        (user(1), "read", "allowed by folder#guest", &OF_A_GUEST),
        (user(2), "read", "denied NO_GRANT", &OF_A_GUEST),
        (user(0), "write", "allowed by file#owner", &[&["files by _id", "users by _id"]]),
        (user(9), "read", "denied SUBJECT_INACTIVE", &OF_A_GUEST[..1]),
        (
            "link:token".to_owned(),
            "read",
            "denied NO_GRANT",
            &[&["files by _id", "shares by file_id"], OF_A_GUEST[1], OF_A_GUEST[2], OF_A_GUEST[3]],
        ),
        ("code:C0DE".to_owned(), "write", "denied NO_GRANT", &[&["files by _id", "temporaryaccesses by resource_id"]]),
    ];
    for (subject, permission, answer, expected) in cases {
        let questions = [question(&schema, &subject, permission, &file)];
        let (answers, rounds) = ask(&asked, &source, &questions).await;
        assert_eq!(answers, [answer], "{subject} {permission}");
        assert_eq!(assert_cold(&rounds), expected, "{subject} {permission}");
        // A fully consistent check uses no cached fact.
        let (_, again) = ask(&asked, &source, &questions).await;
        assert_eq!(again.len(), rounds.len());
    }
}

#[tokio::test]
async fn a_batch_of_1000_files_in_one_folder_takes_no_more_rounds_than_one_file() {
    let (asked, source) = cold("cold-batch").await;
    let schema = Arc::new(shipped_schema("fylora-sharing.toml"));
    let read =
        |number| question(&schema, &format!("user:{}", id(USER, 1)), "read", &format!("file:{}", id(FILE, number)));
    let questions: Vec<Question> = (0..FILES).map(read).collect();
    let (answers, rounds) = ask(&asked, &source, &questions).await;
    assert!(answers.iter().all(|answer| answer == "allowed by folder#guest"), "{answers:?}");
    assert_eq!(assert_cold(&rounds), OF_A_GUEST);
    let key_counts: Vec<usize> = rounds.iter().map(|round| round.keys.len()).collect();
    // Each file with its shares, and the user once. Then one folder with its shares in each round, however many files ask
    // for it.
    assert_eq!(key_counts, [2_001, 2, 2, 2]);
}

#[tokio::test]
async fn all_finds_of_a_round_are_sent_before_the_first_returns() {
    let (asked, source) = cold("cold-together").await;
    let schema = Arc::new(shipped_schema("fylora-sharing.toml"));
    let questions = [question(&schema, &format!("user:{}", id(USER, 2)), "read", &format!("file:{}", id(FILE, 0)))];
    // Opens the connections.
    ask(&asked, &source, &questions).await;
    let slow = doc! { "failCommands": ["find"], "blockConnection": true, "blockTimeMS": 100 };
    let slow = FailPoint::on(mongo(), "cold-together", "alwaysOn", slow).await;
    let (_, rounds) = ask(&asked, &source, &questions).await;
    slow.off().await;
    assert_eq!(assert_cold(&rounds), OF_A_GUEST);
    for round in rounds {
        let is_start = |event: &CommandEvent| matches!(event, CommandEvent::Started(_));
        let sent_first = round.events.iter().take_while(|event| is_start(event)).count();
        assert_eq!(sent_first, round.events.len() / 2, "{:?}", round.events);
    }
}

#[tokio::test]
async fn each_find_reads_a_snapshot_after_the_probe_and_only_the_fields_of_relations() {
    let schema = Arc::new(shipped_schema("fylora-sharing.toml"));
    let database = mongo().database().await;
    fill(&database, &schema, &tree()).await;
    let monitor = Monitor::default();
    let client = monitor.client(mongo(), "cold-commands").await;
    let source = MongoDb::open(Arc::clone(&schema), client.database(database.name())).await.unwrap();
    let asked = Asked::new(&schema, Arc::new(source));
    monitor.take();
    let file = format!("file:{}", id(FILE, 0));
    let questions = [format!("user:{}", id(USER, 1)), "code:C0DE".to_owned()]
        .map(|subject| question(&schema, &subject, "read", &file));
    let checked = asked.checker.check(&questions, Consistency::FullyConsistent, Deadline::after(DEADLINE)).await;
    assert!(matches!(checked[0].as_ref().unwrap().answer, Answer::Allowed { .. }));
    let as_of = checked[0].as_ref().unwrap().as_of.moment;
    let events = monitor.take();

    // First the probe: a linearizable read of at most one document, which does not exist, without `afterClusterTime`.
    let finds = commands(&events, "find");
    let (probe, finds) = finds.split_first().unwrap();
    assert_eq!(probe.get_document("readConcern").unwrap(), &doc! { "level": "linearizable" });
    assert_eq!(probe.get_document("filter").unwrap(), &doc! { "_id": null });
    assert_eq!(number(probe, "limit"), 1);
    let replies = events
        .iter()
        .filter_map(|event| if let CommandEvent::Succeeded(reply) = event { Some(&reply.reply) } else { None });
    let probed = replies.clone().next().unwrap().get_timestamp("operationTime").unwrap();
    assert!(as_of.seconds() >= probed.time);

    let mut projections = BTreeMap::new();
    for find in finds {
        // A snapshot as of the probe's moment or later.
        assert_eq!(level(find), "snapshot");
        let after = find.get_document("readConcern").unwrap().get_timestamp("afterClusterTime").unwrap();
        assert!(after >= probed, "{after:?} {probed:?}");
        // One field more, which no document has: mongod then reads each document to its end.
        let mut fields: Vec<String> = find.get_document("projection").unwrap().keys().cloned().collect();
        assert_eq!(fields.pop().as_deref(), Some("no document has this field"));
        projections.insert(lookup_of(find).0, fields.join(" "));
    }
    for command in finds.iter().chain([probe]) {
        // At most the time that the request has left.
        let limit = number(command, "maxTimeMS");
        assert!(limit > 0 && limit <= i64::try_from(DEADLINE.as_millis()).unwrap(), "{limit}");
        // The primary is the default. If the driver sends a preference, it is that.
        let preference =
            command.get_document("$readPreference").ok().and_then(|preference| preference.get_str("mode").ok());
        assert!(preference.is_none_or(|mode| mode == "primary"), "{command}");
        assert!(!command.contains_key("startTransaction") && !command.contains_key("txnNumber"), "{command}");
    }
    let expected = [
        ("files by _id", "_id folder_id is_deleted owner_id"),
        ("folders by _id", "_id is_deleted owner_id parent_id"),
        (
            "shares by file_id",
            "_id expires_at file_id is_active password_hash public_token requires_password share_type \
             shared_with_user_id",
        ),
        (
            "shares by folder_id",
            "_id expires_at folder_id is_active password_hash public_token requires_password share_type \
             shared_with_user_id",
        ),
        (
            "temporaryaccesses by resource_id",
            "_id access_code expires_at is_active max_uses password_hash permissions requires_password \
             resource_id resource_type use_count",
        ),
        ("users by _id", "_id is_active"),
    ];
    assert_eq!(
        projections.iter().map(|(lookup, fields)| (lookup.as_str(), fields.as_str())).collect::<Vec<_>>(),
        expected
    );

    // Documents that match no relation stay in the database.
    let found: Vec<ObjectId> = replies
        .flat_map(documents_of)
        .filter(|document| document.contains_key("share_type"))
        .map(|document| document.get_object_id("_id").unwrap())
        .collect();
    assert_eq!(found, [id(SHARE, 1)]);
    // A lookup by `_id` has no further conditions: a relation under a `!` also requires documents that do not match.
    for find in finds.iter().filter(|find| lookup_of(find).0.ends_with("by _id")) {
        assert_eq!(find.get_document("filter").unwrap().keys().collect::<Vec<_>>(), ["_id"]);
    }
    // No filter compares dates: they are compared with the clock at each check.
    for find in finds {
        assert!(!format!("{}", find.get_document("filter").unwrap()).contains("expires_at"), "{find}");
    }
}

fn documents_of(reply: &Document) -> Vec<Document> {
    let batch = reply.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
    batch.map(|batch| batch.iter().filter_map(|item| item.as_document().cloned()).collect()).unwrap_or_default()
}

/// An integer of either width.
fn number(document: &Document, field: &str) -> i64 {
    match document.get(field) {
        Some(Bson::Int32(number)) => i64::from(*number),
        Some(Bson::Int64(number)) => *number,
        other => panic!("{field}: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_checks_of_one_file_load_each_fact_once() {
    const CHECKS: usize = 10_000;
    let schema = Arc::new(shipped_schema("fylora-sharing.toml"));
    let database = mongo().database().await;
    fill(&database, &schema, &tree()).await;
    let monitor = Monitor::default();
    let client = monitor.client(mongo(), "cold-crowd").await;
    let source = MongoDb::open(Arc::clone(&schema), client.database(database.name())).await.expect("mongod answers");
    // Long enough that no fact becomes too old and is read again, however busy the machine is.
    let settings = Settings { staleness_max: Duration::from_mins(1), ..Settings::default() };
    let source: Arc<dyn Source> = Arc::new(source);
    let parts = Parts::new(Arc::clone(&schema), Arc::clone(&source));
    let App { schema, checker, metrics, .. } = assemble(Parts { settings, ..parts });
    let crowd = Asked { schema: Arc::clone(&schema), checker, metrics, source };
    let asked = question(&schema, &format!("user:{}", id(USER, 1)), "read", &format!("file:{}", id(FILE, 0)));
    monitor.take();
    let checks = (0..CHECKS).map(|_| {
        let (checker, asked) = (crowd.checker.clone(), asked.clone());
        tokio::spawn(async move {
            checker.check(&[asked], Consistency::MinimizeLatency, Deadline::after(TIME_MAX)).await.remove(0)
        })
    });
    for check in checks.collect::<Vec<_>>() {
        let checked = check.await.expect("no panic").expect("an answer");
        assert_eq!(shown(&schema, checked.answer), "allowed by folder#guest");
    }
    let finds = commands(&monitor.take(), "find");
    let finds: Vec<&Document> = finds.iter().filter(|find| level(find) == "snapshot").collect();
    let keys = finds.iter().flat_map(|find| {
        let (lookup, keys) = lookup_of(find);
        keys.into_iter().map(move |key| format!("{lookup} {key}"))
    });
    let keys: Vec<String> = keys.collect();
    let distinct: BTreeSet<&String> = keys.iter().collect();
    assert_eq!(keys.len(), distinct.len(), "each fact is loaded once: {keys:?}");
    // The file with its shares, and the user; then three folders with their shares.
    assert_eq!(distinct.len(), 3 + 3 * 2, "{distinct:?}");
    // Not merely because memory served all later checks: some joined the load of another check.
    assert!(crowd.metric("permcached_loads_joined_total") > 0, "no check joined a load");
}
