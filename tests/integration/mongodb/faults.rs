//! A real MongoDB that fails: it cannot be reached, is slow, is no longer the primary, or refuses. No failure becomes a
//! denial, no answer comes after the deadline, and a transient error leads to one more attempt.
//!
//! Change streams that fail are tested in `freshness::feed`.

use std::{
    io,
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use mongodb::{
    Client,
    bson::{Bson, Document, doc},
};
use permcached::{
    check::{CheckError, Checked, Consistency},
    schema::Schema,
    source::{
        Deadline, SourceError,
        mongodb::{ConnectError, MongoDb},
    },
};

use super::{oid, read, small_fylora};
use crate::support::{
    both::{Asked, TIME_MAX, fill, question, shipped_schema, shown},
    monitored::{FailPoint, Monitor, commands, level},
    servers::mongo,
};

/// How much of a request's time is reserved for returning what was loaded.
const RETURN_TIME: Duration = Duration::from_millis(5);

/// How much later than its deadline an answer may come on a busy machine.
const LATE_MAX: Duration = Duration::from_secs(5);

/// A checker over a small Fylora. The commands of its client can be made to fail without others.
struct Fylora {
    asked: Asked,
    schema: Arc<Schema>,
    monitor: Monitor,
    app_name: &'static str,
    shares: String,
}

impl Fylora {
    async fn new(app_name: &'static str) -> Self {
        let schema = Arc::new(shipped_schema("fylora-sharing.toml"));
        let database = mongo().database().await;
        fill(&database, &schema, &small_fylora()).await;
        let monitor = Monitor::default();
        let client = monitor.client(mongo(), app_name).await;
        let source = MongoDb::open(Arc::clone(&schema), client.database(database.name())).await.unwrap();
        let shares = format!("{}.shares", database.name());
        monitor.take();
        Self { asked: Asked::new(&schema, Arc::new(source)), schema, monitor, app_name, shares }
    }

    /// Makes finds in `shares` fail. Probes read another collection and do not fail.
    async fn shares_fail(&self, mode: impl Into<Bson>, mut data: Document) -> FailPoint {
        data.extend(doc! { "failCommands": ["find"], "namespace": &self.shares });
        FailPoint::on(mongo(), self.app_name, mode, data).await
    }

    /// The answers to the owner and to a user without a grant, and the time they took. Only the second requires `shares`.
    async fn ask(&self, time: Duration) -> (Result<Checked, CheckError>, Result<Checked, CheckError>, Duration) {
        let questions = [read(&self.schema, 1), read(&self.schema, 2)];
        let started = Instant::now();
        let mut checked =
            self.asked.checker.check(&questions, Consistency::FullyConsistent, Deadline::after(time)).await;
        let (guest, owner) = (checked.pop().unwrap(), checked.pop().unwrap());
        (owner, guest, started.elapsed())
    }

    fn shown(&self, checked: Result<Checked, CheckError>) -> String {
        shown(&self.schema, checked.expect("an answer").answer)
    }
}

#[tokio::test]
async fn after_a_transient_error_a_find_is_sent_once_more() {
    let fylora = Fylora::new("faults-passing").await;
    // The node is not the primary, or no longer, or is shutting down. The last fault is a broken connection.
    let errors = [91, 189, 10_107, 11_600, 11_602, 13_435, 13_436, 10_058];
    let faults = errors.map(|code| doc! { "errorCode": code }).into_iter().chain([doc! { "closeConnection": true }]);
    for fault in faults {
        let point = fylora.shares_fail(doc! { "times": 1 }, fault.clone()).await;
        fylora.monitor.take();
        let (owner, guest, _) = fylora.ask(TIME_MAX).await;
        point.off().await;
        assert_eq!(fylora.shown(owner), "allowed by file#owner", "{fault}");
        assert_eq!(fylora.shown(guest), "denied NO_GRANT", "{fault}");
        let finds = commands(&fylora.monitor.take(), "find");
        let in_shares = finds.iter().filter(|find| {
            find.get_str("find").is_ok_and(|name| name == "shares") && find.to_string().contains("file_id")
        });
        assert!(in_shares.count() >= 2, "{fault}: {finds:?}");
    }
}

#[tokio::test]
async fn after_a_permanent_error_only_the_questions_that_depend_on_it_are_unavailable() {
    let fylora = Fylora::new("faults-lasting").await;
    // The user is not authorized; the node is not the primary; the connection breaks; the server runs out of time.
    let faults = [
        doc! { "errorCode": 13 },
        doc! { "errorCode": 10_107 },
        doc! { "closeConnection": true },
        doc! { "errorCode": 50 },
    ];
    for (count, fault) in (1..).zip(faults) {
        let point = fylora.shares_fail("alwaysOn", fault.clone()).await;
        let (owner, guest, time) = fylora.ask(TIME_MAX).await;
        point.off().await;
        assert_eq!(fylora.shown(owner), "allowed by file#owner", "{fault}");
        assert!(matches!(guest, Err(CheckError::Unavailable(_))), "{fault}: {guest:?}");
        assert!(time < TIME_MAX / 2, "{fault}: {time:?}");
        assert_eq!(fylora.asked.metric("permcached_check_errors_total{error=\"unavailable\"}"), count);
    }
    // An error is not cached.
    let (_, guest, _) = fylora.ask(TIME_MAX).await;
    assert_eq!(fylora.shown(guest), "denied NO_GRANT");
}

#[tokio::test]
async fn a_probe_that_fails_leaves_every_question_unavailable() {
    let fylora = Fylora::new("faults-probe").await;
    for fault in [doc! { "errorCode": 13 }, doc! { "errorCode": 11_602 }, doc! { "closeConnection": true }] {
        let mut data = fault.clone();
        data.insert("failCommands", vec!["find"]);
        let point = FailPoint::on(mongo(), fylora.app_name, "alwaysOn", data).await;
        let (owner, guest, _) = fylora.ask(TIME_MAX).await;
        point.off().await;
        for checked in [owner, guest] {
            assert!(matches!(checked, Err(CheckError::Unavailable(SourceError::Probe(_)))), "{fault}: {checked:?}");
        }
    }
}

#[tokio::test]
async fn a_probe_informs_a_node_that_does_not_know_the_moment() {
    let fylora = Fylora::new("faults-72").await;
    let point = fylora.shares_fail(doc! { "times": 1 }, doc! { "errorCode": 72 }).await;
    fylora.monitor.take();
    let (owner, guest, _) = fylora.ask(TIME_MAX).await;
    point.off().await;
    assert_eq!(fylora.shown(owner), "allowed by file#owner");
    assert_eq!(fylora.shown(guest), "denied NO_GRANT");
    let probes = commands(&fylora.monitor.take(), "find").iter().filter(|find| level(find) == "linearizable").count();
    assert_eq!(probes, 2, "the request's own, and one that informs the node");
    // The node still does not know the moment.
    let point = fylora.shares_fail("alwaysOn", doc! { "errorCode": 72 }).await;
    let (_, guest, _) = fylora.ask(TIME_MAX).await;
    point.off().await;
    assert!(matches!(guest, Err(CheckError::Unavailable(_))), "{guest:?}");
}

#[tokio::test]
async fn a_slow_server_is_not_waited_for_beyond_the_deadline() {
    let fylora = Fylora::new("faults-slow").await;
    let deadline = Duration::from_secs(2);
    // Connections are open from here on.
    fylora.shown(fylora.ask(TIME_MAX).await.0);
    let slow = doc! { "blockConnection": true, "blockTimeMS": 10_000 };
    let point = fylora.shares_fail("alwaysOn", slow.clone()).await;
    let (owner, guest, time) = fylora.ask(deadline).await;
    point.off().await;
    assert_eq!(fylora.shown(owner), "allowed by file#owner");
    assert!(matches!(guest, Err(CheckError::DeadlineExceeded)), "{guest:?}");
    assert!(time + RETURN_TIME >= deadline && time < deadline + LATE_MAX, "{time:?}");
    // The deadline bounds the probe, too.
    let mut data = slow;
    data.insert("failCommands", vec!["find"]);
    let point = FailPoint::on(mongo(), fylora.app_name, "alwaysOn", data).await;
    let (owner, guest, time) = fylora.ask(deadline).await;
    point.off().await;
    for checked in [owner, guest] {
        assert!(matches!(checked, Err(CheckError::DeadlineExceeded)), "{checked:?}");
    }
    assert!(time >= deadline && time < deadline + LATE_MAX, "{time:?}");
}

#[tokio::test]
async fn while_no_server_can_be_reached_questions_are_unavailable_within_the_deadline() {
    let schema = Arc::new(shipped_schema("fylora-sharing.toml"));
    let database = mongo().database().await;
    fill(&database, &schema, &small_fylora()).await;
    let proxy = Proxy::start(mongo().port()).unwrap();
    let uri = format!("mongodb://127.0.0.1:{}/?directConnection=true", proxy.port);
    let source = MongoDb::connect(Arc::clone(&schema), &uri, Some(database.name())).await.unwrap();
    let asked = Asked::new(&schema, Arc::new(source));
    let questions =
        [read(&schema, 1), read(&schema, 2), question(&schema, "link:token", "read", &format!("file:{}", oid(3)))];
    let check = async |time: Duration| {
        let started = Instant::now();
        let checked = asked.checker.check(&questions, Consistency::FullyConsistent, Deadline::after(time)).await;
        (checked, started.elapsed())
    };
    let (checked, _) = check(TIME_MAX).await;
    assert!(checked.iter().all(Result::is_ok), "{checked:?}");

    proxy.cut();
    // The service's own deadline is 2 s, and Fylora uses a tenth of that. A busy machine gets more time.
    let deadline = Duration::from_secs(5);
    for _ in 0..2 {
        let (checked, time) = check(deadline).await;
        assert!(checked.iter().all(|checked| matches!(checked, Err(CheckError::Unavailable(_)))), "{checked:?}");
        assert!(time < deadline, "{time:?}");
    }
    let deadline = Duration::from_millis(200);
    let (checked, time) = check(deadline).await;
    let is_error = |checked: &Result<Checked, CheckError>| {
        matches!(checked, Err(CheckError::DeadlineExceeded | CheckError::Unavailable(_)))
    };
    assert!(checked.iter().all(is_error), "{checked:?}");
    assert!(time < deadline + LATE_MAX, "{time:?}");
}

#[tokio::test]
async fn a_server_that_cannot_be_used_is_an_error_at_the_start() {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let schema = Arc::new(shipped_schema("fylora.toml"));
    let client =
        Client::with_uri_str(format!("mongodb://127.0.0.1:{free}/?serverSelectionTimeoutMS=100")).await.unwrap();
    let opened = MongoDb::open(Arc::clone(&schema), client.database("fylora")).await;
    assert!(matches!(opened, Err(ConnectError::Unreachable(_))), "{opened:?}");
    let opened = MongoDb::connect(Arc::clone(&schema), "mongodb://127.0.0.1:1/", None).await;
    assert!(matches!(opened, Err(ConnectError::NoDatabase)), "{opened:?}");
    let opened = MongoDb::connect(schema, "redis://127.0.0.1", None).await;
    assert!(matches!(opened, Err(ConnectError::Uri(_))), "{opened:?}");
}

/// Forwards connections to a port of this machine until it is cut.
struct Proxy {
    port: u16,
    is_cut: Arc<AtomicBool>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    fn start(to: u16) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let is_cut = Arc::new(AtomicBool::new(false));
        let streams = Arc::new(Mutex::new(Vec::new()));
        let (stop, open) = (Arc::clone(&is_cut), Arc::clone(&streams));
        let accepting = thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(far) = TcpStream::connect((Ipv4Addr::LOCALHOST, to)) else { continue };
                for (mut from, mut to) in [(clone(&near), clone(&far)), (clone(&far), clone(&near))] {
                    thread::spawn(move || {
                        let _ = io::copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
                open.lock().unwrap().extend([near, far]);
            }
        });
        Ok(Self { port, is_cut, streams, accepting })
    }

    /// Breaks every connection, and accepts no more.
    fn cut(self) {
        self.is_cut.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        self.accepting.join().unwrap();
        for stream in self.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn clone(stream: &TcpStream) -> TcpStream {
    stream.try_clone().expect("a descriptor")
}

/// The other tests rely on this: without a fault the questions have these answers.
#[tokio::test]
async fn without_faults_the_owner_is_allowed_and_the_guest_is_denied() {
    let fylora = Fylora::new("faults-none").await;
    let (owner, guest, _) = fylora.ask(TIME_MAX).await;
    assert_eq!(fylora.shown(owner), "allowed by file#owner");
    assert_eq!(fylora.shown(guest), "denied NO_GRANT");
}
