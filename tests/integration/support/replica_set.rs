//! A replica set of three mongods for one test, which may kill, freeze and delay them. It ends when the value is dropped.
//!
//! Causes no fault by itself, and does not know what clients of the set should see.

use std::{path::Path, thread, time::Duration};

use bson::{Bson, Document, Timestamp, doc};
use mongodb::{Client, Database, options::ClientOptions};
use tokio::{
    task::block_in_place,
    time::{Instant, sleep, timeout},
};

use super::servers::{Server, mongod_arguments};

/// How many nodes there are.
pub const NODES: usize = 3;

/// How long the set may take to elect a primary or to let a node catch up.
const PATIENCE: Duration = Duration::from_mins(1);

/// How long a node may take to answer `hello`. A frozen node never does.
const HELLO_TIME: Duration = Duration::from_millis(500);

/// How long a client looks for its node.
const SELECTION_TIME: Duration = Duration::from_secs(10);

/// How long to wait between two checks of the set.
const POLL: Duration = Duration::from_millis(50);

/// The name of the set.
const SET_NAME: &str = "three";

/// An oplog of only 8 MB, so that a test can make it roll over. Entries after the last checkpoint are kept, too, as a restart
/// after a crash requires them. Hence there is a checkpoint every two seconds.
const OPLOG: [&str; 4] = ["--oplogSize", "8", "--syncdelay", "2"];

/// Three mongods. The runtime must have several threads, as some methods block on processes.
pub struct ReplicaSet {
    servers: Vec<Server>,
    /// Each node's own `admin` database, which a client reaches in whatever state the node is.
    admins: Vec<Database>,
}

impl ReplicaSet {
    /// Starts a set, and waits until it has a primary and two secondaries.
    ///
    /// The set replaces a primary that is silent for two seconds instead of the default of ten, so that tests take less time.
    /// permcached does not rely on these times.
    pub async fn start() -> Self {
        let start = || {
            Server::start("mongod", "MONGOD", |port, directory: &Path| {
                let mut arguments = mongod_arguments(port, directory);
                arguments.extend(["--replSet", SET_NAME].into_iter().chain(OPLOG).map(Into::into));
                arguments
            })
        };
        let servers: Result<Vec<Server>, String> = block_in_place(|| (0..NODES).map(|_| start()).collect());
        let servers = servers.unwrap_or_else(|why| panic!("{why}"));
        let mut admins = Vec::new();
        for server in &servers {
            admins.push(admin_of(server.port).await);
        }
        let set = Self { servers, admins };
        let hosts = (0..).zip(&set.servers);
        let members: Vec<Document> =
            hosts.map(|(id, server)| doc! { "_id": id, "host": format!("127.0.0.1:{}", server.port) }).collect();
        let settings =
            doc! { "electionTimeoutMillis": 2_000, "heartbeatIntervalMillis": 500, "heartbeatTimeoutSecs": 1 };
        let config = doc! { "_id": SET_NAME, "members": members, "settings": settings };
        let initiated = set.admins[0].run_command(doc! { "replSetInitiate": config }).await;
        initiated.unwrap_or_else(|error| panic!("{}", set.servers[0].failure("replSetInitiate", &error)));
        set.whole().await;
        set
    }

    /// The connection string, with a name that distinguishes a client from all others.
    pub fn uri(&self, app_name: &str) -> String {
        let hosts: Vec<String> = self.servers.iter().map(|server| format!("127.0.0.1:{}", server.port)).collect();
        format!("mongodb://{}/?replicaSet={SET_NAME}&appName={app_name}", hosts.join(","))
    }

    /// The ports of the nodes, on 127.0.0.1.
    pub fn ports(&self) -> impl Iterator<Item = u16> + '_ {
        self.servers.iter().map(|server| server.port)
    }

    /// Runs a command on one node.
    pub async fn run(&self, node: usize, command: Document) -> Document {
        let reply = self.admins[node].run_command(command.clone()).await;
        reply.unwrap_or_else(|error| panic!("{}", self.servers[node].failure(&command.to_string(), &error)))
    }

    /// Sets a fail point of one node.
    pub async fn fail(&self, node: usize, name: &str, mode: &str, data: Document) {
        self.run(node, doc! { "configureFailPoint": name, "mode": mode, "data": data }).await;
    }

    /// Makes the primary step down for ten seconds. If it has stepped down by itself already, that is fine.
    pub async fn step_down(&self, node: usize) {
        let command = doc! { "replSetStepDown": 10, "secondaryCatchUpPeriodSecs": 5 };
        let _replaced_already = self.admins[node].run_command(command).await;
    }

    /// A database by a client of one node.
    pub fn database(&self, node: usize, name: &str) -> Database {
        self.admins[node].client().database(name)
    }

    /// Ends a node by `kill -9`.
    pub fn kill(&self, node: usize) {
        block_in_place(|| self.servers[node].kill());
    }

    /// Starts all ended nodes again.
    pub fn start_again(&mut self) {
        let ended = self.servers.iter_mut().filter(|server| server.has_ended());
        let start = |server: &mut Server| server.start_again().unwrap_or_else(|why| panic!("{why}"));
        block_in_place(|| thread::scope(|scope| ended.for_each(|server| drop(scope.spawn(|| start(server))))));
    }

    /// Stops the process of a node until [`ReplicaSet::thaw`].
    pub fn freeze(&self, node: usize) {
        self.servers[node].signal("STOP");
    }

    /// Continues a frozen node.
    pub fn thaw(&self, node: usize) {
        self.servers[node].signal("CONT");
    }

    /// The primary. If several nodes consider themselves primary, the one that was elected last. Waits until there is one.
    pub async fn primary(&self) -> usize {
        self.primary_other_than(None).await
    }

    /// Like [`ReplicaSet::primary`], but never returns `node`.
    pub async fn primary_other_than(&self, node: Option<usize>) -> usize {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            let hellos = self.hellos().await;
            let primaries = (0..NODES).filter(|other| Some(*other) != node && is_primary(hellos[*other].as_ref()));
            let elected =
                |node: &usize| hellos[*node].as_ref().and_then(|hello| hello.get_object_id("electionId").ok());
            if let Some(primary) = primaries.max_by_key(elected) {
                return primary;
            }
            sleep(POLL).await;
        }
        panic!("no primary is elected");
    }

    /// Waits until there are one primary and two secondaries, and no node is behind.
    pub async fn whole(&self) {
        let until = Instant::now() + PATIENCE;
        let mut hellos = Vec::new();
        while Instant::now() < until {
            hellos = self.hellos().await;
            let count = |is: fn(Option<&Document>) -> bool| hellos.iter().filter(|hello| is(hello.as_ref())).count();
            let times: Vec<u32> = hellos.iter().flatten().filter_map(last_write).map(|time| time.time).collect();
            let is_together = times.iter().max().unwrap_or(&0) - times.iter().min().unwrap_or(&0) <= 1;
            if count(is_primary) == 1 && count(is_secondary) == NODES - 1 && is_together {
                return;
            }
            sleep(POLL).await;
        }
        panic!("the set does not become whole again: {hellos:?}");
    }

    /// By how many seconds of writes one node is behind another.
    pub async fn lag(&self, node: usize, other: usize) -> u32 {
        let hellos = self.hellos().await;
        let time = |node: usize| hellos[node].as_ref().and_then(last_write).map_or(0, |time| time.time);
        time(other).saturating_sub(time(node))
    }

    /// Each node's reply to `hello`; `None` for a node that does not answer.
    async fn hellos(&self) -> Vec<Option<Document>> {
        let hello = |admin: &Database| {
            let admin = admin.clone();
            async move { timeout(HELLO_TIME, admin.run_command(doc! { "hello": 1 })).await.ok()?.ok() }
        };
        futures::future::join_all(self.admins.iter().map(hello)).await
    }
}

async fn admin_of(port: u16) -> Database {
    let uri = format!("mongodb://127.0.0.1:{port}/?directConnection=true");
    let mut options = ClientOptions::parse(uri).await.expect("the URI is our own");
    options.server_selection_timeout = Some(SELECTION_TIME);
    options.heartbeat_freq = Some(Duration::from_millis(500));
    Client::with_options(options).expect("a client").database("admin")
}

fn is_primary(hello: Option<&Document>) -> bool {
    hello.is_some_and(|hello| hello.get_bool("isWritablePrimary").unwrap_or(false))
}

fn is_secondary(hello: Option<&Document>) -> bool {
    hello.is_some_and(|hello| hello.get_bool("secondary").unwrap_or(false))
}

/// The moment of the last write that a node has applied.
fn last_write(hello: &Document) -> Option<Timestamp> {
    match hello.get_document("lastWrite").ok()?.get_document("opTime").ok()?.get("ts") {
        Some(Bson::Timestamp(time)) => Some(*time),
        _ => None,
    }
}
