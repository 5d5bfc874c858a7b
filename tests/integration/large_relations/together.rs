//! What is read of a large group while the source finds out that it is large: the facts that are filtered to the subjects who ask. No
//! smaller group waits for that, and no request uses what is not its own.

use std::{
    net::Ipv4Addr,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bson::doc;
use permcached::{
    check::Consistency,
    fact::{Fact, FactKey},
    facts::{Facts, FreshnessRequirement, Memory},
    freshness::{Change, Changed, Freshness, LocalTime, Moment, Probe},
    question::{Id, Subject},
    schema::Schema,
    source::{Deadline, Source, SourceError, documents::Documents, mongodb::MongoDb},
    telemetry::Metrics,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy},
    net::{TcpListener, TcpStream},
};

use super::{
    MANY, NOW,
    cost::{CASES, SCHEMA, ask, asked, groups},
};
use crate::support::{
    both::{Asked, TIME_MAX, fill, question, schema, shown},
    controlled::{Closed, ControlledSource},
    live::until,
    memory_source::MemorySource,
    servers::mongo,
    wrapper::{Wrapped, Wrapper},
};

/// Groups of every size, with as many banned users as members.
const SIZES: [(&str, u32); 4] = [("small", 10), ("medium", 300), ("large", 4_000), ("larger", 4_000)];

#[tokio::test]
async fn a_large_group_takes_one_round_even_if_only_small_ones_were_read_before() {
    let collections = groups(&SIZES);
    for (permission, lookups) in [("enter", 1), ("read", 2)] {
        for (user, expected) in CASES {
            let expected =
                if permission == "enter" { expected.replace("EXCLUDED", "NO_GRANT") } else { expected.into() };
            let (asked, returned) = asked(SCHEMA, &collections).await;
            let check = async |group: &str| {
                let (answer, cost) = ask(&asked, &returned, user, permission, &format!("group:{group}")).await;
                assert_eq!((answer, cost.rounds), (expected.clone(), 1), "{user} {permission} {group}");
                // Under a `!`, the documents that may name any group are one fact more.
                (cost.finds - (lookups - 1), cost.filtered)
            };
            assert_eq!(check("small").await, (lookups, 0), "{user} {permission}");
            let (finds, filtered) = check("medium").await;
            assert!(finds <= 4 * lookups && filtered <= lookups, "{user} {permission}: {finds} {filtered}");
            // The first documents, whether there are too many, and the filtered fact.
            assert_eq!(check("large").await, (3 * lookups, lookups), "{user} {permission}");
        }
    }
}

#[tokio::test]
async fn the_subjects_of_a_batch_each_get_their_own_fact_of_a_large_group_in_one_round() {
    let (asked, returned) = asked(SCHEMA, &groups(&SIZES)).await;
    let questions = |group: &str| {
        CASES.map(|(user, _)| question(&asked.schema, &format!("user:{user}"), "read", &format!("group:{group}")))
    };
    let rounds = || asked.metric("permcached_check_rounds_sum");
    for group in ["large", "larger"] {
        let before = rounds();
        returned.take();
        let answers = asked.check(&questions(group), NOW).await;
        for ((user, expected), checked) in CASES.iter().zip(answers) {
            assert_eq!(shown(&asked.schema, checked.expect("an answer").answer), *expected, "{user} {group}");
        }
        let [_, filtered, _] = returned.take();
        // One find reads the facts of a lookup for all of them.
        assert_eq!((rounds() - before, filtered), (1, 2), "{group}");
    }
}

/// A proxy in front of mongod that holds back finds for filtered facts.
async fn holding() -> u16 {
    const FILTERED: &[u8] = b"a name occurs twice";
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            tokio::spawn(async move {
                let far = TcpStream::connect((Ipv4Addr::LOCALHOST, mongo().port())).await.expect("mongod listens");
                let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
                    (near.into_split(), far.into_split());
                let ask = async {
                    let mut chunk = vec![0; 64 << 10];
                    while let Ok(count @ 1..) = from_client.read(&mut chunk).await {
                        if chunk[..count].windows(FILTERED.len()).any(|part| part == FILTERED) {
                            std::future::pending::<()>().await;
                        }
                        to_server.write_all(&chunk[..count]).await.expect("mongod listens");
                    }
                };
                tokio::select! {
                    () = ask => {}
                    _ = copy(&mut from_server, &mut to_client) => {}
                }
            });
        }
    });
    port
}

#[tokio::test]
async fn only_a_large_group_waits_for_filtered_facts_and_without_them_it_is_no_error() {
    let schema = Arc::new(schema("together.toml", SCHEMA));
    let database = mongo().database().await;
    fill(&database, &schema, &groups(&SIZES)).await;
    let memberships = schema.lookups().find(|(_, lookup)| &*lookup.collection == "memberships").expect("a lookup").0;
    let group = |name: &str| FactKey::whole(memberships, Id::String(name.into()));
    let filtered = |name: &str, user: &str| {
        let Subject::Known { kind, .. } = question(&schema, "user:x", "enter", "group:g").subject else {
            panic!("it is a user");
        };
        let subject = Subject::Known { kind, id: Id::String(user.into()) };
        FactKey::filtered(memberships, Id::String(name.into()), subject)
    };
    let load = async |port: u16, name: &str, if_large: &[FactKey], deadline: Deadline| {
        let uri = format!("mongodb://127.0.0.1:{port}/?directConnection=true");
        let source = MongoDb::connect(Arc::clone(&schema), &uri, Some(database.name())).await.expect("mongod answers");
        let at = source.probe(deadline).await.expect("a moment");
        let loaded = source.load(vec![group(name)], if_large, at, deadline).await;
        let shown = |(key, fact): (FactKey, Result<Fact, SourceError>)| {
            let fact = fact.unwrap_or_else(|error| panic!("{error}"));
            assert!(fact.stamp() >= at && fact.key() == key);
            (key, fact.is_over_limit())
        };
        let mut loaded: Vec<_> = loaded.into_iter().map(shown).collect();
        loaded.sort();
        loaded
    };
    let (direct, proxied) = (mongo().port(), holding().await);
    let of_large = [filtered("large", "m000007"), filtered("large", "x")];
    let of_all: Vec<_> = of_large.iter().cloned().chain([filtered("medium", "x"), filtered("larger", "x")]).collect();
    let later = || Deadline::after(TIME_MAX);
    let large = (group("large"), true);
    let both = [large.clone()].into_iter().chain(of_large.map(|key| (key, false))).collect::<Vec<_>>();
    assert_eq!(load(direct, "large", &of_all, later()).await, both, "those of this group, for each subject");
    assert_eq!(load(direct, "large", &[], later()).await, std::slice::from_ref(&large));
    for port in [direct, proxied] {
        for name in ["small", "medium"] {
            let deadline = later();
            assert_eq!(load(port, name, &of_all, deadline).await, [(group(name), false)]);
            assert!(!deadline.is_all_but_over(), "{name} waits for a filtered fact");
        }
    }
    assert_eq!(load(proxied, "large", &of_all, Deadline::after(Duration::from_secs(2))).await, [large]);
}

/// A source that reads the filtered facts of large groups together with the whole ones.
struct Together(Documents);

#[async_trait]
impl Wrapper for Together {
    fn inner(&self) -> &dyn Source {
        &self.0
    }

    async fn load(
        &self,
        keys: Vec<FactKey>,
        if_large: &[FactKey],
        at: Moment,
        deadline: Deadline,
    ) -> Vec<(FactKey, Result<Fact, SourceError>)> {
        let mut loaded = self.0.load(keys, &[], at, deadline).await;
        let is_large = |filtered: &&FactKey| {
            let mut of_key = loaded.iter().filter(|(key, _)| (key.lookup, &key.id) == (filtered.lookup, &filtered.id));
            of_key.any(|(_, fact)| fact.as_ref().is_ok_and(Fact::is_over_limit))
        };
        let large = if_large.iter().filter(is_large).cloned().collect();
        loaded.extend(self.0.load(large, &[], at, deadline).await);
        loaded
    }
}

/// The first request is of one who is banned.
#[tokio::test]
async fn requests_that_join_a_load_use_only_the_filtered_facts_of_their_own_subjects() {
    let schema = Arc::new(schema("together.toml", SCHEMA));
    let documents = Documents::new(&schema, &groups(&[("g", u32::try_from(MANY).expect("it fits"))]));
    let gate = Arc::new(ControlledSource::over(&schema, Arc::new(Wrapped(Together(documents)))));
    let asked = Asked::new(&schema, Arc::<ControlledSource>::clone(&gate));
    let start = |user: &str| {
        let (checker, asks) = (asked.checker.clone(), question(&schema, &format!("user:{user}"), "read", "group:g"));
        let check =
            async move { checker.check(&[asks], Consistency::FullyConsistent, Deadline::after(TIME_MAX)).await };
        tokio::spawn(check)
    };
    gate.close(1, Closed::Waits);
    let mut checks = vec![("b000007", "denied EXCLUDED", start("b000007"))];
    gate.wait_for(1).await;
    for (user, expected) in CASES {
        checks.push((user, expected, start(user)));
    }
    // Each joins for the members, the bans, and the bans that may name any group.
    until(|| asked.metric("permcached_loads_joined_total") == 3 * 3).await;
    gate.open();
    for (user, expected, check) in checks {
        let checked = check.await.expect("no panic").remove(0);
        assert_eq!(shown(&schema, checked.expect("an answer").answer), expected, "{user}");
    }
    // The two others have loaded their own. Who asks again has everything.
    assert_eq!((gate.loads(), asked.metric("permcached_check_rounds_sum")), (3, 2 + 2 * 2));
}

/// A source without documents that returns more than it was asked for.
struct Generous {
    inner: MemorySource,
    more: Mutex<Vec<(FactKey, Result<Fact, SourceError>)>>,
}

#[async_trait]
impl Wrapper for Generous {
    fn inner(&self) -> &dyn Source {
        &self.inner
    }

    async fn load(
        &self,
        keys: Vec<FactKey>,
        if_large: &[FactKey],
        at: Moment,
        deadline: Deadline,
    ) -> Vec<(FactKey, Result<Fact, SourceError>)> {
        let mut loaded = self.inner.load(keys, if_large, at, deadline).await;
        loaded.extend(self.more.lock().expect("no panic before").drain(..));
        loaded
    }
}

#[tokio::test]
async fn a_filtered_fact_that_comes_with_others_counts_only_if_it_would_by_itself() {
    let schema: Arc<Schema> = Arc::new(schema("together.toml", SCHEMA));
    let at = Moment::from_count;
    let memberships = schema.lookups().find(|(_, lookup)| &*lookup.collection == "memberships").expect("a lookup").0;
    let id = Id::String("g".into());
    let of = |user: &str| {
        let asks = question(&schema, &format!("user:{user}"), "enter", "group:g");
        FactKey::filtered(memberships, id.clone(), asks.subject)
    };
    let whole = FactKey::whole(memberships, id.clone());
    let fact = |key: FactKey, stamp| (key.clone(), Ok(Fact::absent(key, at(stamp))));
    let cases = [
        (fact(of("me"), 20), true, "it is as recent as what was asked for"),
        (fact(of("me"), 14), false, "its key was marked at 15"),
        ((of("me"), Err(SourceError::TooMuch)), false, "it could not be read"),
        (fact(of("you"), 20), false, "it is of another subject"),
    ];
    for (more, is_taken, why) in cases {
        let freshness = Arc::new(Freshness::new(&schema));
        freshness.begin_at(at(10));
        let probe = Probe { sent: LocalTime::now(), moment: at(20) };
        freshness.record_probe(probe, at(10), freshness.epoch(), || ());
        freshness.mark(&[Change { at: at(15), what: Changed::Key(whole.clone()) }], freshness.epoch());
        let more = Mutex::new(vec![more]);
        let source = Arc::new(Wrapped(Generous { inner: MemorySource::new(&schema, at(20)), more }));
        let (memory, metrics) = (Arc::new(Memory::new(1 << 20)), Arc::new(Metrics::default()));
        let facts = Facts::new(source, freshness, memory, None, Arc::clone(&metrics));
        let requirement = FreshnessRequirement { as_of: at(12), stamp: at(0) };
        let deadline = Deadline::after(TIME_MAX);
        let loaded = facts.load(vec![whole.clone()], vec![of("me")], requirement, deadline).await;
        let mut keys: Vec<_> = loaded.into_iter().map(|(key, fact)| fact.map(|_| key).expect("a fact")).collect();
        keys.sort();
        let expected: Vec<_> = [whole.clone()].into_iter().chain(is_taken.then(|| of("me"))).collect();
        assert_eq!(keys, expected, "{why}");
        assert_eq!(facts.cached(memberships, &id, of("me").subject(), requirement).is_some(), is_taken, "{why}");
    }
}
