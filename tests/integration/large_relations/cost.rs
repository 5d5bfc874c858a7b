//! What large relations cost: a check reads kilobytes of a large group, a group within the limit is read whole, and no command is
//! larger than MongoDB accepts.
//!
//! Times are not measured here.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bson::{Document, doc};
use mongodb::{
    Client,
    event::{EventHandler, command::CommandEvent},
    options::ClientOptions,
};
use permcached::{
    fact::FactKey,
    freshness::Moment,
    question::{Id, Subject},
    source::{Deadline, Source, documents::Documents, mongodb::MongoDb},
};

use super::NOW;
use crate::support::{
    both::{Asked, Collections, TIME_MAX, fill, question, schema, shown},
    servers::mongo,
};

const SCHEMA: &str = r#"
    default_subject = "user"
    [subject.user]
    id = "string"
    [resource.group]
    id = "string"
    [resource.group.relations]
    member = { collection = "memberships", by = "group", field = "user" }
    banned = { collection = "bans", by = "group", field = "user" }
    [resource.group.permissions]
    read = "!banned & member"
"#;

/// What MongoDB has returned for finds of documents.
#[derive(Default)]
struct Returned {
    finds: AtomicU64,
    bytes: AtomicU64,
}

impl Returned {
    fn take(&self) -> [u64; 2] {
        [&self.finds, &self.bytes].map(|count| count.swap(0, Ordering::Relaxed))
    }
}

/// A checker over these documents in MongoDB, and what MongoDB returns to it.
async fn asked(text: &str, collections: &Collections) -> (Asked, Arc<Returned>) {
    let schema = Arc::new(schema("cost.toml", text));
    let name = mongo().database().await.name().to_owned();
    let returned = Arc::<Returned>::default();
    let mut options = ClientOptions::parse(mongo().uri()).await.expect("the URI is our own");
    let counter = Arc::clone(&returned);
    options.command_event_handler = Some(EventHandler::callback(move |event| {
        if let CommandEvent::Succeeded(succeeded) = event
            && let Ok(cursor) = succeeded.reply.get_document("cursor")
            && cursor.contains_key("atClusterTime")
        {
            counter.finds.fetch_add(1, Ordering::Relaxed);
            let bytes = succeeded.reply.to_vec().expect("a document").len();
            counter.bytes.fetch_add(bytes.try_into().expect("it fits"), Ordering::Relaxed);
        }
    }));
    let database = Client::with_options(options).expect("a client").database(&name);
    fill(&database, &schema, collections).await;
    let source = MongoDb::open(Arc::clone(&schema), database).await.expect("mongod answers");
    let commands = source.commands().clone();
    let asked = Asked::new(&schema, Arc::new(source));
    asked.metrics.show_commands(&commands);
    (asked, returned)
}

#[tokio::test]
async fn a_check_reads_kilobytes_of_a_large_group_and_a_group_within_the_limit_once() {
    let related = |group: &str, count: u32, prefix: char| -> Vec<Document> {
        (0..count).map(|number| doc! { "group": group, "user": format!("{prefix}{number:06}") }).collect()
    };
    let sizes = [("small", 10), ("medium", 900), ("large", 4_000), ("larger", 6_000)];
    let all = |prefix| sizes.iter().flat_map(|(group, count)| related(group, *count, prefix)).collect();
    let collections = Collections::from([("memberships".to_owned(), all('m')), ("bans".to_owned(), all('b'))]);
    let (asked, returned) = asked(SCHEMA, &collections).await;
    let ask = async |user: &str, group: &str| {
        returned.take();
        let asks = question(&asked.schema, &format!("user:{user}"), "read", &format!("group:{group}"));
        let checked = asked.check(&[asks], NOW).await.remove(0).expect("an answer");
        (shown(&asked.schema, checked.answer), returned.take())
    };
    for (user, expected) in
        [("m000007", "allowed by group#member"), ("b000007", "denied EXCLUDED"), ("x", "denied NO_GRANT")]
    {
        // With the documents that may name any group: they are looked for in each check, as it asks for the newest state. Once there
        // was a large group, each lookup also asks whether this one is.
        let (answer, [finds, bytes]) = ask(user, "small").await;
        assert_eq!(answer, expected, "{user}");
        assert!(
            finds == if user == "m000007" { 3 } else { 5 } && bytes < 5_000,
            "{user}: {finds} finds, {bytes} bytes"
        );
        // Whole, after a look at the first documents.
        let (answer, [finds, bytes]) = ask(user, "medium").await;
        assert_eq!(answer, expected, "{user}");
        assert!(finds <= 7 && bytes > 100_000, "{user}: {finds} finds, {bytes} bytes");
        for group in ["large", "larger"] {
            let (answer, [finds, bytes]) = ask(user, group).await;
            assert_eq!(answer, expected, "{user}");
            assert!(finds <= 7 && bytes < 40_000, "{user} {group}: {finds} finds, {bytes} bytes");
        }
    }
    let counted =
        |size: &str| asked.metric(&format!("permcached_large_facts_total{{collection=\"bans\",size=\"{size}\"}}"));
    assert!(counted("near_limit") >= 3 && counted("large") >= 6, "the metrics show it");
    assert_eq!(counted("over_limit"), 0);
}

/// Relations of every kind that the filter of a find has a part for.
const KEYS: &str = r#"
    default_subject = "user"
    [subject.user]
    id = "string"
    [subject.bot]
    id = "string"
    [resource.file]
    id = "string"
    [resource.file.relations]
    a = { collection = "links", by = "file", field = "a" }
    b = { collection = "links", by = "file", field = "of.b", where = { on = true } }
    c = { collection = "links", by = "file", field = "c", subject = ["user", "bot"], subject_type = "kind" }
    d = { collection = "links", by = "file", each = "d", field = "user" }
    e = { collection = "links", by = "file", field = "e", format = "user:{id}" }
    f = { collection = "links", by = "file", where = { on = true } }
    [resource.file.permissions]
    read = "!a & !b & !c & (d | e | f)"
"#;

#[tokio::test]
async fn many_long_keys_for_several_subjects_are_asked_for_in_commands_that_mongod_accepts() {
    let schema = Arc::new(schema("keys.toml", KEYS));
    let long = |prefix: &str, number: usize| format!("{prefix}{number:0>width$}", width = 1_024 - prefix.len());
    let file = |number: usize| {
        let user = || long("u", number % 3);
        doc! {
            "file": long("f", number), "a": user(), "of": { "b": user() }, "c": user(), "kind": "user",
            "d": [{ "user": user() }, { "user": long("u", 9) }], "e": format!("user:{}", user()), "on": number.is_multiple_of(2),
        }
    };
    let collections = Collections::from([("links".to_owned(), (0..300).map(file).collect())]);
    let database = mongo().database().await;
    fill(&database, &schema, &collections).await;
    let mongodb = MongoDb::open(Arc::clone(&schema), database).await.expect("mongod answers");
    let documents = Documents::new(&schema, &collections);
    let user = |number: usize| match question(&schema, &format!("user:{}", long("u", number)), "read", "file:x").subject
    {
        subject @ Subject::Known { .. } => subject,
        Subject::Anonymous => panic!("it is a user"),
    };
    let lookup = schema.lookups().find(|(_, lookup)| lookup.structures.is_some()).expect("there is one").0;
    let keys = (0..300).flat_map(|file| [0, 1, 7].map(|number| (file, number)));
    let keys: Vec<FactKey> = keys
        .map(|(file, number)| FactKey::filtered(lookup, Id::String(long("f", file).into()), user(number)))
        .collect();
    let at = mongodb.probe(Deadline::after(TIME_MAX)).await.expect("a moment");
    let read = mongodb.load(keys.clone(), at, Deadline::after(TIME_MAX)).await;
    assert_eq!(read.len(), keys.len());
    let expected = documents.load(keys, Moment::default(), Deadline::after(TIME_MAX)).await;
    let expected: std::collections::BTreeMap<_, _> = expected.into_iter().collect();
    for (key, fact) in read {
        let fact = fact.unwrap_or_else(|error| panic!("{error}"));
        let expected = expected[&key].as_ref().expect("documents in memory are always there");
        let grants = |fact: &permcached::fact::Fact| {
            let relations = schema.lookup(lookup).relations.iter();
            relations.map(|relation| fact.grants(*relation).count()).collect::<Vec<_>>()
        };
        assert_eq!(grants(&fact), grants(expected));
    }
}
