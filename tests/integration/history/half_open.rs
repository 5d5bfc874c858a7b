//! Drills of half-open links: nothing goes through for a while, nobody resets a connection, and what was held back arrives
//! late or never. Afterwards the instance must answer again within [`RECOVERY_MAX`], without help and whatever its connection
//! string says. A change stream over such links must end, so that it can be opened again.
//!
//! Judges no answers; the history checker does.

use std::{sync::Arc, time::Duration};

use bson::doc;
use fastrand::Rng;
use permcached::{
    app::{App, Parts, Sharing, assemble},
    check::Consistency,
    link::Server,
    question::Question,
    source::{ChangeSource as _, Deadline, Source as _, StreamError, mongodb::MongoDb},
};
use tokio::time::{Instant, sleep, timeout};

use super::{
    kinds::{Kind, SCHEMA, first_documents},
    run::REGISTERS_OF_A_KIND,
};
use crate::support::{
    both::{fill, question, schema},
    links::Links,
    proxy::Link,
    redis::Redis,
    replica_set::ReplicaSet,
};

/// How many drills the long form has.
const DRILLS: usize = 20;

/// How long an instance may take in the long form, which has the machine to itself.
const RECOVERY_MAX: Duration = Duration::from_secs(2);

/// The same in the short form, which runs beside other tests.
const HANG: Duration = Duration::from_mins(1);

/// How long a request may take.
const REQUEST_TIME: Duration = Duration::from_secs(1);

/// How long to wait between two requests.
const POLL: Duration = Duration::from_millis(20);

/// How long links are well between two drills.
const QUIET: Duration = Duration::from_secs(2);

/// With these options in its connection string, the driver notices nothing for four minutes.
const UNNOTICED: &str = "connectTimeoutMS=120000&heartbeatFrequencyMS=120000&appName=drill";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_answers_again_after_its_links_were_half_open() {
    let drills = [(Link::Withheld, 5), (Link::Lost, 4), (Link::WithheldToClient, 3)];
    let drills = drills.map(|(link, seconds)| (link, Duration::from_secs(seconds)));
    drill(UNNOTICED, &drills, HANG).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it takes six minutes: `make chaos`"]
async fn an_instance_answers_within_two_seconds_after_each_half_open_link() {
    let mut rng = Rng::with_seed(1);
    let kinds = [Link::Withheld, Link::Lost, Link::WithheldToServer, Link::WithheldToClient];
    let drills: Vec<(Link, Duration)> = (0..DRILLS)
        .map(|number| (kinds[number % kinds.len()], Duration::from_millis(rng.u64(2_000..25_000))))
        .collect();
    drill("appName=drill", &drills, RECOVERY_MAX).await;
}

/// The stream itself waits ten minutes for an answer. Its connection has lost something, so nothing arrives on it any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_stream_fails_when_its_client_is_replaced_and_shows_every_change_once_it_is_opened_again() {
    let set = ReplicaSet::start().await;
    let links = Links::start(0, &set, None).await;
    let schema = Arc::new(schema("history.toml", SCHEMA));
    let database = set.database(set.primary().await, "history");
    fill(&database, &schema, &first_documents(REGISTERS_OF_A_KIND)).await;
    let connected = MongoDb::connect(Arc::clone(&schema), &links.uri_with(UNNOTICED), Some("history")).await;
    let source = connected.expect("links are well");
    let from = source.probe(Deadline::after(HANG)).await.expect("links are well");
    let patience = 10 * HANG;
    let mut stream = source.open_stream(from, patience).await.expect("links are well");
    stream.next(patience).await.expect("links are well");
    links.set_nodes(Link::Lost);
    let probes = async {
        loop {
            let _fails = source.probe(Deadline::after(REQUEST_TIME)).await;
            sleep(POLL).await;
        }
    };
    let ends = async {
        loop {
            if let Err(error) = stream.next(patience).await {
                return error;
            }
        }
    };
    let ended = tokio::select! {
        ended = timeout(HANG, ends) => ended.expect("the stream ends"),
        () = probes => unreachable!("probes are sent for ever"),
    };
    assert!(matches!(ended, StreamError::Failed(_)), "{ended:?}");
    database.collection("notes").insert_one(doc! { "_id": "new", "owner_id": "u" }).await.expect("the set is well");
    links.set_nodes(Link::Open);
    let shows_the_change = async {
        loop {
            let _answered = source.probe(Deadline::after(REQUEST_TIME)).await;
            let Ok(mut stream) = source.open_stream(from, REQUEST_TIME).await else { continue };
            while let Ok(batch) = stream.next(REQUEST_TIME).await {
                if batch.has_events {
                    return batch.changes;
                }
            }
        }
    };
    let changes = timeout(HANG, shows_the_change).await.expect("a stream is opened again");
    assert!(!changes.is_empty());
}

/// Puts one instance, with these options in its connection string, through these faults of all its links, and prints how long it takes to recover from each.
async fn drill(options: &str, drills: &[(Link, Duration)], recovery_max: Duration) {
    let (set, redis) = (ReplicaSet::start().await, Redis::start(&[]));
    let links = Links::start(0, &set, Some(&redis)).await;
    let schema = Arc::new(schema("history.toml", SCHEMA));
    let database = set.database(set.primary().await, "history");
    fill(&database, &schema, &first_documents(REGISTERS_OF_A_KIND)).await;
    let source =
        MongoDb::connect(Arc::clone(&schema), &links.uri_with(options), Some("history")).await.expect("links are well");
    let server = Server::parse(&links.redis_url().expect("there is one")).expect("a URL of the test's own");
    let secrets = crate::support::redis::secrets();
    let sharing = Some(Sharing::over(server, &secrets, &schema, &source.identity().await.expect("links are well")));
    let mut app = assemble(Parts { sharing, ..Parts::over_mongodb(Arc::clone(&schema), source) });
    let _tasks = app.start().await.expect("links are well");
    let [subject, resource] = Kind::Folder.question(0, 0);
    let question = question(&schema, &subject, "read", &resource);
    let mut slowest = Duration::ZERO;
    for (link, lasts) in drills {
        sleep(QUIET).await;
        answers(&app, &question).await;
        links.set_nodes(*link);
        links.set_redis(*link);
        let asked = async {
            loop {
                let _fails = ask(&app, &question, Consistency::MinimizeLatency).await;
                sleep(POLL).await;
            }
        };
        let _over = timeout(*lasts, asked).await;
        links.set_nodes(Link::Open);
        links.set_redis(Link::Open);
        let began = Instant::now();
        let recovered = timeout(HANG, answers(&app, &question)).await.map(|()| began.elapsed());
        println!("{link:?} for {lasts:.1?}: recovered in {recovered:.2?}");
        slowest = slowest.max(recovered.unwrap_or(HANG));
    }
    println!("{} drills, the slowest recovery took {slowest:.2?}", drills.len());
    assert!(slowest < recovery_max, "an instance took {slowest:?}");
}

/// Asks until the instance answers, from MongoDB and with the default consistency.
async fn answers(app: &App, question: &Question) {
    for consistency in [Consistency::MinimizeLatency, Consistency::FullyConsistent] {
        while !ask(app, question, consistency).await {
            sleep(POLL).await;
        }
    }
}

async fn ask(app: &App, question: &Question, consistency: Consistency) -> bool {
    let results = app.checker.check(std::slice::from_ref(question), consistency, Deadline::after(REQUEST_TIME)).await;
    results.iter().all(Result::is_ok)
}
