//! The instances under test: each has clients of its own, as if it were a process. It can be stopped, and another one
//! started in its place.
//!
//! Sends them no requests; `checkers` does.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use mongodb::{
    Client,
    event::{EventHandler, command::CommandEvent},
    options::ClientOptions,
};
use permcached::{
    app::{App, Parts, Sharing, assemble},
    link::Server,
    schema::Schema,
    source::mongodb::MongoDb,
};
use tokio::task::JoinSet;

/// The name of the instances' clients, by which fail points distinguish them from the writers.
pub const APP_NAME: &str = "instance";

/// How long the driver looks for a node, and waits for a connection: the same as in the application.
const SELECTION_TIME: Duration = Duration::from_secs(1);
const CONNECT_TIME: Duration = Duration::from_secs(5);

/// What an instance is started with.
pub struct Setup {
    pub schema: Arc<Schema>,
    /// The URI of the replica set.
    pub uri: String,
    pub database: String,
    /// The Redis that they share, if they do.
    pub redis: Option<String>,
}

/// An instance, and its background tasks.
pub struct Instance {
    pub app: App,
    tasks: Mutex<JoinSet<()>>,
    /// How many `getMore` commands it has sent for its change stream.
    asked: Arc<AtomicU64>,
}

impl Instance {
    /// Starts an instance.
    pub async fn start(setup: &Setup) -> Self {
        let mut options = ClientOptions::parse(&setup.uri).await.expect("the URI is our own");
        options.server_selection_timeout = Some(SELECTION_TIME);
        options.connect_timeout = Some(CONNECT_TIME);
        let asked = Arc::<AtomicU64>::default();
        let counter = Arc::clone(&asked);
        let is_of_stream = |event: &CommandEvent| match event {
            CommandEvent::Started(started) => {
                started.command_name == "getMore"
                    && started.command.get_str("collection").is_ok_and(|name| name == "$cmd.aggregate")
            }
            _ => false,
        };
        let count = move |event: CommandEvent| {
            counter.fetch_add(is_of_stream(&event).into(), Ordering::Relaxed);
        };
        options.command_event_handler = Some(EventHandler::callback(count));
        let database = Client::with_options(options).expect("a client").database(&setup.database);
        let source = MongoDb::open(Arc::clone(&setup.schema), database).await.expect("the set is there");
        let sharing = match &setup.redis {
            Some(url) => {
                let server = Server::parse(url).expect("a URL of the test's own");
                Some(Sharing::over(server, &setup.schema, &source).await.expect("the set is there"))
            }
            None => None,
        };
        let mut app = assemble(Parts { sharing, ..Parts::over_mongodb(Arc::clone(&setup.schema), source) });
        let tasks = app.start().await.expect("the set returns its time");
        Self { app, tasks: Mutex::new(tasks), asked }
    }

    /// Aborts its background tasks, in whatever state they are. It can still be asked, and answers from what it knows.
    pub fn stop(&self) {
        self.tasks.lock().expect("no panic before").abort_all();
    }

    /// How many `getMore` commands it has sent for its change stream.
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }
}
