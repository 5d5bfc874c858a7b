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
    live::{in_the_end, until},
    raw::{Raw, insert},
    servers::mongo,
};

pub const SCHEMA: &str = r#"
    default_subject = "user"
    [subject.user]
    id = "string"
    [resource.group]
    id = "string"
    [resource.group.relations]
    member = { collection = "memberships", by = "group", field = "user" }
    banned = { collection = "bans", by = "group", field = "user" }
    [resource.group.permissions]
    enter = "member"
    read  = "!banned & member"
"#;

/// What MongoDB has returned for finds of documents.
#[derive(Default)]
pub struct Returned {
    finds: AtomicU64,
    /// How many of the finds are filtered to a subject.
    filtered: AtomicU64,
    bytes: AtomicU64,
}

impl Returned {
    pub fn take(&self) -> [u64; 3] {
        [&self.finds, &self.filtered, &self.bytes].map(|count| count.swap(0, Ordering::Relaxed))
    }
}

/// A checker over these documents in MongoDB, and what MongoDB returns to it.
pub async fn asked(text: &str, collections: &Collections) -> (Asked, Arc<Returned>) {
    let schema = Arc::new(schema("cost.toml", text));
    let name = mongo().database().await.name().to_owned();
    let returned = Arc::<Returned>::default();
    let mut options = ClientOptions::parse(mongo().uri()).await.expect("the URI is our own");
    let counter = Arc::clone(&returned);
    options.command_event_handler = Some(EventHandler::callback(move |event| {
        // Only such a find computes a field.
        if let CommandEvent::Started(started) = &event
            && let Ok(projection) = started.command.get_document("projection")
            && projection.values().any(|value| value.as_document().is_some())
        {
            counter.filtered.fetch_add(1, Ordering::Relaxed);
        }
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

/// What a check has cost.
#[derive(Debug)]
pub struct Cost {
    pub finds: u64,
    pub filtered: u64,
    pub bytes: u64,
    pub rounds: u64,
}

/// The answer of a check, and what it has cost. A check for which a large fact is presumed leaves finds behind that nobody waits for.
pub async fn ask(asked: &Asked, returned: &Returned, user: &str, permission: &str, resource: &str) -> (String, Cost) {
    returned.take();
    let rounds = || asked.metric("permcached_check_rounds_sum");
    let before = rounds();
    let asks = question(&asked.schema, &format!("user:{user}"), permission, resource);
    let checked = asked.check(&[asks], NOW).await.remove(0).expect("an answer");
    let [finds, filtered, bytes] = returned.take();
    (shown(&asked.schema, checked.answer), Cost { finds, filtered, bytes, rounds: rounds() - before })
}

/// As many documents of groups as these. Their users differ by the prefix.
fn related(prefix: char, sizes: &[(&str, u32)]) -> Vec<Document> {
    let of = |(group, count): &(&str, u32)| -> Vec<Document> {
        (0..*count).map(|number| doc! { "group": *group, "user": format!("{prefix}{number:06}") }).collect()
    };
    sizes.iter().flat_map(of).collect()
}

pub fn groups(sizes: &[(&str, u32)]) -> Collections {
    let all = |prefix| related(prefix, sizes);
    Collections::from([("memberships".to_owned(), all('m')), ("bans".to_owned(), all('b'))])
}

/// Users, and what they get in a group in which both relations have the same size.
pub const CASES: [(&str, &str); 3] =
    [("m000007", "allowed by group#member"), ("b000007", "denied EXCLUDED"), ("x", "denied NO_GRANT")];

#[tokio::test]
async fn a_check_reads_kilobytes_of_a_large_group_and_a_group_within_the_limit_once() {
    let collections = groups(&[("small", 10), ("medium", 900), ("large", 4_000), ("larger", 6_000)]);
    let (asked, returned) = asked(SCHEMA, &collections).await;
    for (place, (user, expected)) in CASES.into_iter().enumerate() {
        if place == 0 {
            small_until_whole(&asked, &returned, user, expected).await;
            // With the documents that may name any group: they are looked for in each check, as it asks for the newest state.
            let (answer, cost) = ask(&asked, &returned, user, "read", "group:small").await;
            assert_eq!(answer, expected, "{user}");
            assert!(cost.finds == 3 && cost.bytes < 5_000, "{user}: {cost:?}");
            // Whole, after a look at the first documents. Meanwhile, the filtered facts are read, as it might be large.
            let (answer, cost) = ask(&asked, &returned, user, "read", "group:medium").await;
            assert_eq!(answer, expected, "{user}");
            assert!(cost.finds <= 9 && cost.bytes > 100_000, "{user}: {cost:?}");
        }
        for group in ["large", "larger"] {
            let (answer, cost) = ask(&asked, &returned, user, "read", &format!("group:{group}")).await;
            assert_eq!(answer, expected, "{user}");
            assert!(cost.finds <= 11 && cost.bytes < 40_000, "{user} {group}: {cost:?}");
            // The filtered facts are read in the same round. After the first large group, they are read in place of the whole ones of
            // members, and beside those of bans, as they stand under a `!`.
            assert_eq!((cost.filtered, cost.rounds), (2, 1), "{user} {group}");
        }
    }
    let counted =
        |size: &str| asked.metric(&format!("permcached_large_facts_total{{collection=\"bans\",size=\"{size}\"}}"));
    in_the_end(until(|| counted("near_limit") >= 1 && counted("large") >= 6)).await;
    assert_eq!(counted("over_limit"), 0);
}

/// Asks for the small group until no filtered fact is read, as nothing large is expected any more. Until then, a check reads a few small
/// facts more, and all of them in one round. In none, if the whole facts were read in the background meanwhile.
async fn small_until_whole(asked: &Asked, returned: &Returned, user: &str, expected: &str) {
    let asking = async {
        loop {
            let (answer, cost) = ask(asked, returned, user, "read", "group:small").await;
            assert!(answer == expected && cost.rounds <= 1, "{user}: {answer}, {cost:?}");
            if cost.filtered == 0 && cost.rounds == 1 {
                return;
            }
            assert!(cost.bytes < 10_000, "{user}: {cost:?}");
        }
    };
    in_the_end(asking).await;
}

#[tokio::test]
async fn the_first_group_of_a_lookup_is_read_as_if_it_were_large_only_where_one_may_be() {
    let member = ("m000007", "allowed by group#member");
    let many: Vec<(String, u32)> = (0..20).map(|number| (format!("g{number}"), 100)).collect();
    let many: Vec<(&str, u32)> = many.iter().map(|(name, count)| (name.as_str(), *count)).collect();
    // In a collection that has fewer documents than a whole fact, none can be large.
    let (few, returned) = asked(SCHEMA, &groups(&many[..5])).await;
    few.survey().await;
    for (user, expected) in [member, ("x", "denied NO_GRANT")] {
        for group in ["g0", "g1"] {
            let (answer, cost) = ask(&few, &returned, user, "enter", &format!("group:{group}")).await;
            assert_eq!(
                (answer.as_str(), cost.finds, cost.filtered, cost.rounds),
                (expected, 1, 0, 1),
                "{user} {group}"
            );
        }
    }
    // In others, the first few are, and no more. The service counts documents in the background, when it has started.
    let (asked, returned) = asked(SCHEMA, &groups(&many)).await;
    let (answer, cost) = ask(&asked, &returned, member.0, "enter", "group:g0").await;
    assert_eq!((answer.as_str(), cost.finds, cost.filtered), (member.1, 1, 0), "they have not been counted yet");
    asked.survey().await;
    let mut filtered = 0;
    for (group, _) in &many {
        let (answer, cost) = ask(&asked, &returned, member.0, "enter", &format!("group:{group}")).await;
        assert_eq!((answer.as_str(), cost.rounds), (member.1, 1), "{group}");
        filtered += cost.filtered;
        // The whole fact is read afterwards.
        let whole = || asked.metric("permcached_facts_found_total{tier=\"source\"}");
        let before = whole();
        if cost.filtered > 0 {
            in_the_end(until(|| whole() > before)).await;
        }
    }
    assert!((1..=8).contains(&filtered), "{filtered} filtered facts of 20 small groups");
    let (_, cost) = ask(&asked, &returned, member.0, "enter", "group:g19").await;
    assert_eq!((cost.finds, cost.filtered, cost.rounds), (1, 0, 1), "nothing large is expected any more");
}

#[tokio::test]
async fn a_group_that_many_documents_of_a_sample_have_is_read_as_if_it_were_large() {
    let (asked, returned) = asked(SCHEMA, &groups(&[("small", 10), ("large", 4_000)])).await;
    asked.survey().await;
    small_until_whole(&asked, &returned, "x", "denied NO_GRANT").await;
    for user in ["x", "m000007"] {
        let (answer, cost) = ask(&asked, &returned, user, "enter", "group:small").await;
        let expected = if user == "x" { "denied NO_GRANT" } else { "allowed by group#member" };
        assert_eq!((answer.as_str(), cost.filtered, cost.rounds), (expected, 0, 1), "{user}: the small one is not");
    }
    let (answer, cost) = ask(&asked, &returned, "m000007", "enter", "group:large").await;
    assert_eq!((answer.as_str(), cost.filtered, cost.rounds), ("allowed by group#member", 1, 1));
}

#[tokio::test]
async fn after_a_large_group_others_are_read_as_if_they_were_large_for_a_short_time_only() {
    let sizes = [("small", 10), ("medium", 900), ("large", 1_100)];
    let (asked, returned) = asked(SCHEMA, &groups(&sizes)).await;
    let (_, cost) = ask(&asked, &returned, "x", "enter", "group:large").await;
    assert_eq!((cost.finds, cost.filtered, cost.rounds), (3, 1, 1), "nothing is expected yet");
    for group in ["small", "medium"] {
        let mut presumed = 0;
        let asking = async {
            for (user, expected) in
                [("m000007", "allowed by group#member"), ("x", "denied NO_GRANT")].into_iter().cycle()
            {
                let (answer, cost) = ask(&asked, &returned, user, "enter", &format!("group:{group}")).await;
                assert!(answer == expected && cost.rounds <= 1, "{user} {group}: {answer}, {cost:?}");
                if cost.filtered == 0 && cost.rounds == 1 {
                    return;
                }
                presumed += cost.filtered;
            }
        };
        in_the_end(asking).await;
        assert_eq!(presumed > 0, group == "small", "{group}: {presumed}");
    }
    // A group that was large still is presumed to be so.
    let (answer, cost) = ask(&asked, &returned, "m000007", "enter", "group:large").await;
    assert_eq!(answer, "allowed by group#member");
    assert!(cost.filtered == 1 && cost.rounds == 1, "{cost:?}");
}

/// Nothing stands for a whole fact under a `!`, so that a filtered fact is of use only beside a large one.
#[tokio::test]
async fn under_a_not_few_filtered_facts_are_read_beside_small_whole_ones() {
    const BANS: &str = r#"
        default_subject = "user"
        [subject.user]
        id = "string"
        [resource.group]
        id = "string"
        [resource.group.relations]
        banned = { collection = "bans", by = "group", field = "user" }
        [resource.group.permissions]
        read = "!banned"
    "#;
    let small: Vec<String> = (0..40).map(|number| format!("s{number}")).collect();
    let large: Vec<String> = (0..3).map(|number| format!("l{number}")).collect();
    let sizes: Vec<(&str, u32)> = small.iter().map(|name| (name.as_str(), 30)).collect();
    let sizes: Vec<(&str, u32)> = sizes.into_iter().chain(large.iter().map(|name| (name.as_str(), 1_100))).collect();
    let bans = Collections::from([("bans".to_owned(), related('b', &sizes))]);
    let (asked, returned) = asked(BANS, &bans).await;
    asked.survey().await;
    let mut beside_small = 0;
    // A large one after every ten small ones.
    for (place, group) in small.iter().enumerate() {
        for (user, expected) in [("b000007", "denied EXCLUDED"), ("x", "allowed")] {
            let (answer, cost) = ask(&asked, &returned, user, "read", &format!("group:{group}")).await;
            assert_eq!((answer.as_str(), cost.rounds), (expected, 1), "{user} {group}");
            beside_small += cost.filtered;
            if place % 10 == 9
                && user == "x"
                && let Some(group) = large.get(place / 10)
            {
                let (answer, cost) = ask(&asked, &returned, "x", "read", &format!("group:{group}")).await;
                assert_eq!((answer.as_str(), cost.filtered), ("allowed", 1), "{group}");
            }
        }
    }
    // Four at first, and two after each large one.
    assert!((1..=4 + 2 * 3).contains(&beside_small), "{beside_small}");
}

/// All of them together have more documents than the first look returns, and each by itself has, too.
#[tokio::test]
async fn every_fact_of_a_load_arrives_if_each_is_read_alone_after_a_first_look() {
    let schema = Arc::new(schema("cost.toml", SCHEMA));
    let names: Vec<String> = (0..8).map(|number| format!("g{number}")).collect();
    let sizes: Vec<(&str, u32)> = names.iter().map(|name| (name.as_str(), 150)).chain([("large", 1_001)]).collect();
    let database = mongo().database().await;
    fill(&database, &schema, &groups(&sizes)).await;
    let mongodb = MongoDb::open(Arc::clone(&schema), database).await.expect("mongod answers");
    let lookup = schema.lookups().find(|(_, lookup)| &*lookup.collection == "memberships").expect("there is one").0;
    let key = |name: &str| FactKey::whole(lookup, Id::String(name.into()));
    let at = mongodb.probe(Deadline::after(TIME_MAX)).await.expect("a moment");
    let load = async |keys: Vec<FactKey>| -> Vec<(FactKey, permcached::fact::Fact)> {
        let loaded = mongodb.load(keys, &[], at, Deadline::after(TIME_MAX)).await;
        loaded.into_iter().map(|(key, fact)| (key, fact.unwrap_or_else(|error| panic!("{error}")))).collect()
    };
    let large = load(vec![key("large")]).await;
    assert!(large.iter().all(|(_, fact)| fact.is_over_limit()) && large.len() == 1);
    let mut loaded = load(names.iter().map(|name| key(name)).collect()).await;
    loaded.sort_by(|(one, _), (other, _)| one.cmp(other));
    let counts: Vec<_> = loaded.iter().map(|(key, fact)| (key.id.to_string(), fact.documents().len())).collect();
    let expected: Vec<_> = names.iter().map(|name| (name.clone(), 150)).collect();
    assert_eq!(counts, expected);
}

/// The answers to a member of three groups, two of which are large. The third one has this document besides.
async fn answers_in_an_odd_group(permission: &str, collection: &str, document: &Raw) -> Vec<String> {
    let mut collections = groups(&[("large", 1_001), ("larger", 1_001)]);
    if collection == "bans" {
        collections.entry("memberships".to_owned()).or_default().push(doc! { "group": "odd", "user": "m000007" });
    }
    let schema = Arc::new(schema("odd.toml", SCHEMA));
    let database = mongo().database().await;
    fill(&database, &schema, &collections).await;
    insert(&database, collection, document).await;
    let source = MongoDb::open(Arc::clone(&schema), database).await.expect("mongod answers");
    let asked = Asked::new(&schema, Arc::new(source));
    let mut answers = Vec::new();
    for group in ["large", "larger", "odd"] {
        let asks = question(&schema, "user:m000007", permission, &format!("group:{group}"));
        let checked = asked.check(&[asks], NOW).await.remove(0).expect("an answer");
        answers.push(shown(&schema, checked.answer));
    }
    answers
}

/// A query for one subject does not find it: mongod compares with the first value only.
#[tokio::test]
async fn a_ban_that_cannot_be_read_counts_in_a_small_group_although_others_are_large() {
    let ban = Raw::of(&doc! { "_id": "odd", "group": "odd", "user": "m000009" }).and(&doc! { "user": "m000007" });
    let allowed = "allowed by group#member";
    assert_eq!(answers_in_an_odd_group("read", "bans", &ban).await, [allowed, allowed, "denied MALFORMED"]);
}

#[tokio::test]
async fn a_name_twice_where_no_relation_reads_changes_nothing_in_a_small_group_although_others_are_large() {
    let member = Raw::of(&doc! { "_id": "odd", "group": "odd", "user": "m000007", "x": 1 }).and(&doc! { "x": 2 });
    assert_eq!(answers_in_an_odd_group("enter", "memberships", &member).await, ["allowed by group#member"; 3]);
}

/// A document names several groups.
const SEVERAL: &str = r#"
    default_subject = "user"
    [subject.user]
    id = "string"
    [resource.group]
    id = "string"
    [resource.group.relations]
    member = { collection = "memberships", by = "group", field = "user" }
    [resource.hall]
    id = "string"
    collection = "halls"
    [resource.hall.relations]
    guest  = { field = "guests", subject = "group.member" }
    barred = { field = "barred", subject = "group.member" }
    [resource.hall.permissions]
    enter = "guest & !barred"
"#;

#[tokio::test]
async fn a_check_of_several_groups_reads_kilobytes_of_the_large_ones() {
    let sizes = [("g1", 10), ("g2", 5_000), ("g3", 20), ("g4", 7_000), ("g5", 300), ("g6", 3_000)];
    let names: Vec<&str> = sizes.iter().map(|(name, _)| *name).collect();
    let mut members = related('m', &sizes);
    members.push(doc! { "group": "g4", "user": "of4" });
    members.push(doc! { "group": "g3", "user": "of3" });
    members.push(doc! { "group": "g6", "user": "of6" });
    members.push(doc! { "group": "g4", "user": "of6" });
    let halls = vec![
        doc! { "_id": "all", "guests": &names, "barred": [] },
        doc! { "_id": "some", "guests": ["g1", "g3", "g4"], "barred": ["g2", "g6"] },
        doc! { "_id": "small", "guests": ["g1", "g3"], "barred": [] },
    ];
    let collections = Collections::from([("memberships".to_owned(), members), ("halls".to_owned(), halls)]);
    let (asked, returned) = asked(SEVERAL, &collections).await;
    let allowed = "allowed by hall#guest";
    let cases = [
        ("of4", "all", allowed),
        ("of6", "all", allowed),
        ("none", "all", "denied NO_GRANT"),
        ("of4", "some", allowed),
        ("of3", "some", allowed),
        ("of6", "some", "denied EXCLUDED"),
        ("m000007", "some", "denied EXCLUDED"),
        ("of3", "small", allowed),
        ("of4", "small", "denied NO_GRANT"),
    ];
    for (place, (user, hall, expected)) in cases.into_iter().enumerate() {
        let (answer, cost) = ask(&asked, &returned, user, "enter", &format!("hall:{hall}")).await;
        assert_eq!(answer, expected, "{user} {hall}");
        // Of the first large groups, a lookup reads as many documents as several whole facts may have.
        let bytes_max = if place == 0 { 1_000_000 } else { 200_000 };
        assert!(cost.bytes < bytes_max, "{user} {hall}: {cost:?}");
    }
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
    let read = mongodb.load(keys.clone(), &[], at, Deadline::after(TIME_MAX)).await;
    assert_eq!(read.len(), keys.len());
    let expected = documents.load(keys, &[], Moment::default(), Deadline::after(TIME_MAX)).await;
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
