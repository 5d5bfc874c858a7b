//! Instances: each with clients of its own, as if it were a process. It can be stopped, and another one started in its place.
//!
//! Asks nothing of them; that is the `checkers`' business.

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

/// The name of the instances' clients, by which fail points tell them from the writers.
pub const APP_NAME: &str = "instance";

/// How long the driver looks for a node, and waits for one: as the application itself has it set.
const SELECTION_TIME: Duration = Duration::from_secs(1);
const CONNECT_TIME: Duration = Duration::from_secs(5);

/// What instances are started over.
pub struct Home {
    pub schema: Arc<Schema>,
    /// Where the replica set is found.
    pub uri: String,
    pub database: String,
    /// The Redis that they share, if they do.
    pub redis: Option<String>,
}

/// An instance, and what it has running in the background.
pub struct Instance {
    pub app: App,
    tasks: Mutex<JoinSet<()>>,
    /// How often its change stream was asked for what is new.
    asked: Arc<AtomicU64>,
}

impl Instance {
    /// Starts one.
    pub async fn start(home: &Home) -> Self {
        let mut options = ClientOptions::parse(&home.uri).await.expect("the URI is our own");
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
        let database = Client::with_options(options).expect("a client").database(&home.database);
        let source = MongoDb::open(Arc::clone(&home.schema), database).await.expect("the set is there");
        let sharing = match &home.redis {
            Some(url) => {
                let server = Server::parse(url).expect("a URL of the test's own");
                Some(Sharing::over(server, &home.schema, &source).await.expect("the set is there"))
            }
            None => None,
        };
        let mut app = assemble(Parts { sharing, ..Parts::over_mongodb(Arc::clone(&home.schema), source) });
        let tasks = app.start().await.expect("the set says what time it is");
        Self { app, tasks: Mutex::new(tasks), asked }
    }

    /// Ends all that it does by itself, wherever that stands. What it still answers, it answers by what it knows.
    pub fn stop(&self) {
        self.tasks.lock().expect("no panic before").abort_all();
    }

    /// How often its change stream was asked for what is new.
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }
}
