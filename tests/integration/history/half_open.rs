//! Drills of half-open links: nothing goes through for a while, nobody resets a connection, and what was held back arrives
//! late or never. Afterwards the instance must answer again within [`RECOVERY_MAX`], without help and whatever its connection
//! string says.
//!
//! Judges no answers; the history checker does.

use std::{sync::Arc, time::Duration};

use fastrand::Rng;
use permcached::{
    app::{App, Parts, Sharing, assemble},
    check::Consistency,
    link::Server,
    question::Question,
    source::{Deadline, mongodb::MongoDb},
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_answers_again_after_its_links_were_half_open() {
    let drills = [(Link::Withheld, 5), (Link::Lost, 4), (Link::WithheldToClient, 3)];
    let drills = drills.map(|(link, seconds)| (link, Duration::from_secs(seconds)));
    // With these timeouts the driver would notice nothing for four minutes.
    drill("connectTimeoutMS=120000&heartbeatFrequencyMS=120000&appName=drill", &drills, HANG).await;
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
    let sharing = Some(Sharing::over(server, &secrets, &schema, &source).await.expect("links are well"));
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
