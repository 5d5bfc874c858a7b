//! The soak: three processes of the built program serve a mixed load for an hour while links fail now and then. Their memory is
//! sampled each second and plotted. Three others serve nobody and lose no link meanwhile, so that their facts, in memory and in
//! Redis, are still those of the beginning: with each gap in the changes, all facts are read again.
//!
//! It judges only what a writer has just changed, and the facts of the beginning; the history checker judges everything.

mod plot;

use std::{
    collections::BTreeMap,
    env,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bson::{DateTime, Document, doc};
use fastrand::Rng;
use mongodb::{Client, Database};
use permcached::{
    freshness::Moment,
    transport::proto::{
        self, Answer, BatchCheckRequest, Consistency, ExplainRequest, Freshness, ListPermissionsRequest, Question,
        batch_check_response::result::Outcome, consistency::Requirement, freshness,
        permission_service_client::PermissionServiceClient,
    },
};
use tokio::{
    task::JoinSet,
    time::{Instant, interval, sleep, sleep_until},
};
use tonic::transport::{Channel, Endpoint};

use super::{
    faults::{Between, LinkFault, Servers},
    from_environment,
    kinds::SCHEMA,
    watching::Watching,
};
use crate::support::{
    both::{fill, schema},
    command::{Serving, schema_file},
    live::operation_time,
    replica_set::NODES,
    service::{resource, subject},
};

/// How long it takes unless the environment sets another length: longer than facts live in Redis.
const SECONDS: u64 = 3_720;

/// How long a fact lives in Redis.
const LIFE: Duration = Duration::from_hours(1);

/// How many instances there are.
const INSTANCES: usize = 3;

/// How many notes nobody changes, in each of two groups: those that all instances are asked about at the beginning, and those
/// that only the first is asked about.
const OLD: usize = 1_000;

/// How many notes writers change, each with a writer of its own.
const WRITERS: usize = 8;

/// How many notes the load asks about.
const WARM: usize = 20_000;

/// How many clients ask each instance.
const LOADERS: usize = 2;

/// How long a call may take.
const CALL_TIME: Duration = Duration::from_secs(2);

/// The bound, with some time for the machine: an answer to a question that is asked this long after an acknowledgement shows
/// the write.
const BOUND: Duration = Duration::from_secs(2);

/// How often the plot is written.
const PLOTTED_EACH: usize = 60;

/// How much more memory an instance may have at the end than after a quarter of the time.
const GROWTH_MAX: f64 = 1.25;

/// A length from which on the growth is judged.
const LONG: u64 = 600;

type Api = PermissionServiceClient<Channel>;

/// What is counted during a soak.
#[derive(Debug, Default)]
struct Counts {
    calls: AtomicU64,
    answers: AtomicU64,
    errors: AtomicU64,
    judged: AtomicU64,
    faults: AtomicU64,
    wrong: Mutex<Vec<String>>,
}

impl Counts {
    fn wrong(&self, what: String) {
        println!("wrong: {what}");
        self.wrong.lock().expect("no panic before").push(what);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it takes an hour: `make soak`"]
async fn an_hour_of_load_and_faults_leaves_answers_right_and_memory_bounded() {
    let seconds = from_environment("SOAK_SECONDS").unwrap_or(SECONDS);
    let lasts = Duration::from_secs(seconds);
    let directory = env::var_os("SOAK_DIRECTORY").map_or_else(|| Path::new("target").join("soak"), PathBuf::from);
    let mut servers = Servers::start().await;
    let database = notes(&servers).await;
    let (_kept, path) = schema_file(SCHEMA);
    let instances: Vec<Serving> = (0..INSTANCES).map(|place| serving(&servers, place, &path)).collect();
    let apis: Vec<Api> = instances.iter().map(|instance| api(&instance.url())).collect();
    let began = Instant::now();
    let counts = Arc::<Counts>::default();

    // The old facts: a group that all instances have in memory, and one that only Redis and the first instance have.
    for api in &apis {
        println!("at the beginning: {:?}", asked(api, "old", |_| true, &counts).await);
    }
    println!("at the beginning: {:?}", asked(&apis[0], "shared", |_| true, &counts).await);

    let watching: Vec<Watching> = (0..INSTANCES).map(|_| Watching::default()).collect();
    let samples = Arc::<Mutex<Vec<[u64; INSTANCES]>>>::default();
    let mut tasks = JoinSet::new();
    for (watching, instance) in watching.iter().zip(&instances) {
        tasks.spawn(watching.clone().follow(instance.url()));
    }
    for watching in &watching {
        watching.begun().await;
    }
    for number in 0..WRITERS {
        tasks.spawn(write(number, database.clone(), apis.clone(), watching.clone(), Arc::clone(&counts)));
    }
    for (place, api) in apis.iter().enumerate() {
        for loader in 0..LOADERS {
            tasks.spawn(load(api.clone(), (place * LOADERS + loader) as u64, Arc::clone(&counts)));
        }
    }
    let processes: Vec<u32> = instances.iter().map(Serving::process_id).collect();
    tasks.spawn(sample(processes, Arc::clone(&samples), directory.clone()));

    let before_expiry = began + lasts.mul_f32(0.9).min(LIFE.saturating_sub(Duration::from_mins(1)));
    faults_until(&mut servers, before_expiry, seconds, &counts).await;
    sleep(BOUND * 2).await;
    println!(
        "after {:.0?}, what Redis may have: {:?}",
        began.elapsed(),
        asked(&apis[1], "shared", |_| true, &counts).await
    );
    faults_until(&mut servers, began + lasts, seconds, &counts).await;
    sleep(BOUND * 2).await;
    for (place, api) in apis.iter().enumerate() {
        println!("after {:.0?}, instance {place}: {:?}", began.elapsed(), asked(api, "old", |_| true, &counts).await);
    }
    // What many changes at once need is no growth.
    let under_load = samples.lock().expect("no panic before").len();
    revoke_every_second(&database, &apis, &counts).await;
    tasks.shutdown().await;
    let samples = samples.lock().expect("no panic before");
    plot::write(&directory, &samples);
    report(&counts, &watching, samples.split_at(under_load), seconds);
}

/// Nothing is asked between the beginning and the end of the hour, and no link fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it takes an hour: `make soak`"]
async fn facts_that_are_an_hour_old_are_right_and_a_change_outdates_them() {
    let seconds = from_environment("SOAK_SECONDS").unwrap_or(SECONDS);
    let lasts = Duration::from_secs(seconds);
    let servers = Servers::start().await;
    let database = notes(&servers).await;
    let (_kept, path) = schema_file(SCHEMA);
    let instances: Vec<Serving> = (0..INSTANCES).map(|place| serving(&servers, place, &path)).collect();
    let apis: Vec<Api> = instances.iter().map(|instance| api(&instance.url())).collect();
    let counts = Counts::default();
    let all_from = |tier| BTreeMap::from([(tier, OLD)]);
    let began = Instant::now();
    for group in ["old", "shared"] {
        assert_eq!(asked(&apis[0], group, |_| true, &counts).await, all_from("TIER_SOURCE"));
    }

    sleep_until(began + lasts.mul_f32(0.9).min(LIFE.saturating_sub(Duration::from_mins(1)))).await;
    let from_redis = asked(&apis[1], "shared", |_| true, &counts).await;
    println!("without faults, after {:.0?}, a second instance: {from_redis:?}", began.elapsed());
    assert_eq!(from_redis, all_from("TIER_REDIS"));
    sleep_until(began + lasts).await;
    let from_memory = asked(&apis[0], "old", |_| true, &counts).await;
    println!("without faults, after {:.0?}, the first instance: {from_memory:?}", began.elapsed());
    assert_eq!(from_memory, all_from("TIER_MEMORY"));
    let expired = asked(&apis[2], "shared", |_| true, &counts).await;
    println!("without faults, after {:.0?}, a third instance: {expired:?}", began.elapsed());
    revoke_every_second(&database, &apis, &counts).await;
    let wrong = counts.wrong.lock().expect("no panic before");
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// A database with the first notes.
async fn notes(servers: &Servers) -> Database {
    let client = Client::with_uri_str(servers.set.uri("writers")).await.expect("the URI is our own");
    let database = client.database("soak");
    fill(&database, &schema("soak.toml", SCHEMA), &[("notes".to_owned(), first_notes())].into()).await;
    database
}

/// Revokes every second note, old ones too, and asks all instances once the bound is over: a change outdates a fact of any age.
async fn revoke_every_second(database: &Database, apis: &[Api], counts: &Counts) {
    let notes = database.collection::<Document>("notes");
    notes.update_many(doc! { "odd": true }, doc! { "$set": { "active": false } }).await.expect("a write");
    sleep(BOUND).await;
    for (place, api) in apis.iter().enumerate() {
        for group in ["old", "shared"] {
            let revoked = asked(api, group, |number| number % 2 == 0, counts).await;
            println!("after every second one was revoked, instance {place}: {group} {revoked:?}");
        }
    }
}

/// The resident bytes of each instance, one sample a second.
type Samples = [[u64; INSTANCES]];

/// Prints the counts and the memory under the load and during the last changes, and fails if an answer was wrong or memory
/// grew under the load.
fn report(counts: &Counts, watching: &[Watching], (samples, last): (&Samples, &Samples), seconds: u64) {
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    println!(
        "{} calls, {} answers, {} errors; {} answers judged; {} faults",
        count(&counts.calls),
        count(&counts.answers),
        count(&counts.errors),
        count(&counts.judged),
        count(&counts.faults)
    );
    for (place, watching) in watching.iter().enumerate() {
        let (reopened, everything) = watching.counts();
        println!("Watch of instance {place}: opened again {reopened} times, {everything} changes of everything");
    }
    let most = |from: usize, to: usize, place: usize| samples[from..to].iter().map(|sample| sample[place]).max();
    let mut growth: f64 = 0.0;
    for place in 0..INSTANCES {
        let [early, late] = [(samples.len() / 4, samples.len() / 2), (samples.len() * 3 / 4, samples.len())]
            .map(|(from, to)| most(from, to, place).unwrap_or(1).max(1));
        let during_last = last.iter().map(|sample| sample[place]).max().unwrap_or_default();
        println!(
            "memory of instance {place}: at most {} KiB in the second quarter, {} KiB in the last; {} KiB while every second \
             note was revoked",
            early >> 10,
            late >> 10,
            during_last >> 10
        );
        growth = growth.max(plot::mib(late) / plot::mib(early));
    }
    let wrong = counts.wrong.lock().expect("no panic before");
    assert!(wrong.is_empty(), "{} answers were wrong, the first: {:?}", wrong.len(), wrong.first());
    assert!(seconds < LONG || growth < GROWTH_MAX, "memory has grown by a factor of {growth:.2}");
}

/// Starts a process over the links of an instance.
fn serving(servers: &Servers, place: usize, schema: &str) -> Serving {
    let links = &servers.links[place];
    let (uri, redis) = (links.uri("soak"), links.redis_url().expect("there is one"));
    let secret = "of-the-soak-and-of-nothing-else-0123456789";
    let variables = [
        ("MONGODB_URI", uri.as_str()),
        ("MONGODB_DATABASE", "soak"),
        ("REDIS_URL", &redis),
        ("REDIS_SECRET", secret),
        ("RUST_LOG", "error"),
    ];
    tokio::task::block_in_place(|| Serving::start_quietly(&["--schema", schema], &variables))
}

fn api(url: &str) -> Api {
    Api::new(Endpoint::from_shared(url.to_owned()).expect("a URL").timeout(CALL_TIME).connect_lazy())
}

/// The notes: each belongs to the user `owner`.
fn first_notes() -> Vec<Document> {
    let until = DateTime::from_millis(super::run::wall() + 24 * 3_600_000);
    let note = |id: String, number: usize| {
        doc! { "_id": id, "owner_id": "owner", "active": true, "until": until, "odd": number % 2 == 1 }
    };
    let old = ["old", "shared"]
        .into_iter()
        .flat_map(|group| (0..OLD).map(move |number| note(format!("{group}{number}"), number)));
    let others = (0..WARM).map(|number| note(format!("warm{number}"), 0));
    let written = (0..WRITERS).map(|number| note(format!("written{number}"), 0));
    old.chain(others).chain(written).collect()
}

fn question(note: &str) -> Question {
    Question {
        subject: subject("user:owner"),
        permission: "read".to_owned(),
        resource: resource(&format!("note:{note}")),
    }
}

/// Asks an instance about all notes of a group, and judges the answers. Repeats until there are answers. Returns from which tiers
/// they came.
async fn asked(
    api: &Api,
    group: &str,
    is_allowed: impl Fn(usize) -> bool,
    counts: &Counts,
) -> BTreeMap<&'static str, usize> {
    let questions: Vec<Question> = (0..OLD).map(|number| question(&format!("{group}{number}"))).collect();
    let answers = loop {
        let answers = batch(api, questions.clone(), None, counts).await;
        if answers.iter().all(Option::is_some) && !answers.is_empty() {
            break answers;
        }
        sleep(Duration::from_millis(100)).await;
    };
    let mut tiers = BTreeMap::new();
    for (number, answer) in answers.into_iter().flatten().enumerate() {
        *tiers.entry(answer.tier().as_str_name()).or_default() += 1;
        counts.judged.fetch_add(1, Ordering::Relaxed);
        if answer.allowed != is_allowed(number) {
            counts.wrong(format!("{group}{number}: {answer:?}"));
        }
    }
    tiers
}

/// The answers of a batch: empty if it failed, none for each question that failed.
async fn batch(
    api: &Api,
    questions: Vec<Question>,
    consistency: Option<Consistency>,
    counts: &Counts,
) -> Vec<Option<Answer>> {
    counts.calls.fetch_add(1, Ordering::Relaxed);
    let response = api.clone().batch_check(BatchCheckRequest { questions, consistency, dependencies: false }).await;
    let Ok(response) = response else {
        counts.errors.fetch_add(1, Ordering::Relaxed);
        return Vec::new();
    };
    let answers = response.into_inner().results.into_iter().map(|result| match result.outcome {
        Some(Outcome::Answer(answer)) => Some(answer),
        Some(Outcome::Error(_)) | None => None,
    });
    let answers: Vec<_> = answers.collect();
    let failed = answers.iter().filter(|answer| answer.is_none()).count();
    counts.errors.fetch_add(failed as u64, Ordering::Relaxed);
    counts.answers.fetch_add((answers.len() - failed) as u64, Ordering::Relaxed);
    answers
}

/// Changes a note again and again. Asks each instance with the write's token, and without it once the bound is over. Then what
/// `Watch` has told must include the write.
async fn write(number: usize, database: Database, apis: Vec<Api>, watching: Vec<Watching>, counts: Arc<Counts>) {
    let (id, mut is_active, mut last) = (format!("written{number}"), true, None::<Moment>);
    let mut rng = Rng::with_seed(number as u64);
    loop {
        sleep(Duration::from_millis(rng.u64(..1_000))).await;
        is_active = !is_active;
        let update = doc! { "q": { "_id": &id }, "u": { "$set": { "active": is_active } } };
        let command = doc! { "update": "notes", "updates": [update], "writeConcern": { "w": "majority" } };
        // Repeated until it is acknowledged; the state is the same each time.
        let moment = loop {
            match database.run_command(command.clone()).await {
                Ok(reply) if !reply.contains_key("writeErrors") => break operation_time(&reply),
                _ => sleep(Duration::from_millis(50)).await,
            }
        };
        let token = Freshness {
            moment: Some(freshness::Moment::OperationTime(proto::Moment {
                seconds: moment.seconds(),
                increment: moment.increment(),
            })),
        };
        let with_token = Consistency { requirement: Some(Requirement::AtLeastAsFresh(token)) };
        judge(&apis, &id, is_active, Some(with_token), &counts).await;
        sleep(BOUND).await;
        judge(&apis, &id, is_active, None, &counts).await;
        // An attempt that was repeated may have changed the note before the last acknowledgement, so the interval begins at the
        // acknowledgement before.
        if let Some(last) = last {
            for watching in &watching {
                if let Some(wrong) = watching.objection("notes", &id, [last, moment]).await {
                    counts.wrong(wrong);
                }
            }
        }
        last = Some(moment);
    }
}

async fn judge(apis: &[Api], id: &str, is_allowed: bool, consistency: Option<Consistency>, counts: &Counts) {
    for (place, api) in apis.iter().enumerate() {
        for answer in batch(api, vec![question(id)], consistency.clone(), counts).await.into_iter().flatten() {
            counts.judged.fetch_add(1, Ordering::Relaxed);
            if answer.allowed != is_allowed {
                counts.wrong(format!("{id} at instance {place}, {consistency:?}: {answer:?}"));
            }
        }
    }
}

/// Calls an instance again and again, by every call that answers questions.
async fn load(api: Api, seed: u64, counts: Arc<Counts>) {
    let mut rng = Rng::with_seed(seed);
    loop {
        sleep(Duration::from_millis(rng.u64(1..40))).await;
        let Question { subject, permission, resource } = question(&format!("warm{}", rng.usize(..WARM)));
        let mut api_of_call = api.clone();
        let is_ok = match rng.u8(..10) {
            0..7 => {
                let questions = (0..rng.usize(1..60)).map(|_| question(&format!("warm{}", rng.usize(..WARM))));
                batch(&api, questions.collect(), None, &counts).await;
                continue;
            }
            7..9 => {
                let request = ListPermissionsRequest { subject, resource, consistency: None };
                api_of_call.list_permissions(request).await.is_ok()
            }
            _ => {
                let request = ExplainRequest { subject, permission, resource, consistency: None };
                api_of_call.explain(request).await.is_ok()
            }
        };
        counts.calls.fetch_add(1, Ordering::Relaxed);
        counts.errors.fetch_add(u64::from(!is_ok), Ordering::Relaxed);
    }
}

/// Causes a fault of some links now and then, and sometimes makes the primary step down, until it is time.
async fn faults_until(servers: &mut Servers, end: Instant, seconds: u64, counts: &Counts) {
    let mut rng = Rng::with_seed(counts.faults.load(Ordering::Relaxed));
    let pause = if seconds < LONG { 3_000..6_000 } else { 15_000..30_000 };
    loop {
        let next = Instant::now() + Duration::from_millis(rng.u64(pause.clone()));
        if next >= end {
            sleep_until(end).await;
            return;
        }
        sleep_until(next).await;
        counts.faults.fetch_add(1, Ordering::Relaxed);
        if rng.u8(..10) == 0 {
            let primary = servers.set.primary().await;
            servers.set.step_down(primary).await;
            servers.set.whole().await;
            continue;
        }
        let fault = LinkFault::ALL[rng.usize(..LinkFault::ALL.len())];
        let between = Between::at_random(&mut rng, INSTANCES, NODES);
        fault.inflict(between, &servers.links, Duration::from_millis(rng.u64(300..3_000))).await;
    }
}

/// Samples the resident memory of processes each second, and plots it each minute.
async fn sample(processes: Vec<u32>, samples: Arc<Mutex<Vec<[u64; INSTANCES]>>>, directory: PathBuf) {
    let mut ticks = interval(Duration::from_secs(1));
    loop {
        ticks.tick().await;
        let mut sample = [0; INSTANCES];
        for (bytes, process) in sample.iter_mut().zip(&processes) {
            *bytes = resident(*process);
        }
        let mut samples = samples.lock().expect("no panic before");
        samples.push(sample);
        if samples.len().is_multiple_of(PLOTTED_EACH) {
            plot::write(&directory, &samples);
        }
    }
}

/// The resident bytes of a process.
fn resident(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) << 10
}
