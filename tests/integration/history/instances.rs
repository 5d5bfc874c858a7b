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

use mongodb::event::{EventHandler, command::CommandEvent};
use permcached::{
    app::{App, Parts, Sharing, assemble},
    link::Server,
    schema::Schema,
    source::mongodb::MongoDb,
};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::support::links::Links;

/// The name of the instances' clients, by which fail points distinguish them from the writers.
pub const APP_NAME: &str = "instance";

/// How long to wait before another attempt to start.
const PAUSE: Duration = Duration::from_millis(50);

/// How long a start may take while servers fail.
const PATIENCE: Duration = Duration::from_mins(1);

/// What an instance is started with.
pub struct Setup {
    pub schema: Arc<Schema>,
    /// The links of each instance to the replica set, and to the Redis that they share, if they do.
    pub links: Arc<Vec<Links>>,
    pub database: String,
}

/// An instance, and its background tasks.
pub struct Instance {
    pub app: App,
    tasks: Mutex<JoinSet<()>>,
    /// How many `getMore` commands it has sent for its change stream.
    asked: Arc<AtomicU64>,
}

impl Instance {
    /// Starts an instance over the links of this place. While its servers cannot be reached, it is started again.
    pub async fn start(setup: &Setup, place: usize) -> Self {
        let started = async {
            loop {
                match Self::try_start(setup, &setup.links[place]).await {
                    Ok(instance) => return instance,
                    Err(_) => sleep(PAUSE).await,
                }
            }
        };
        timeout(PATIENCE, started).await.expect("an instance starts in the end")
    }

    async fn try_start(setup: &Setup, links: &Links) -> Result<Self, Box<dyn std::error::Error>> {
        let (mut options, name) = MongoDb::client_options(&links.uri(APP_NAME), Some(&setup.database)).await?;
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
        let source = MongoDb::connect_with(Arc::clone(&setup.schema), options, &name).await?;
        let sharing = match links.redis_url() {
            Some(url) => {
                let secrets = crate::support::redis::secrets();
                Some(Sharing::over(Server::parse(&url)?, &secrets, &setup.schema, &source.identity().await?))
            }
            None => None,
        };
        let mut app = assemble(Parts { sharing, ..Parts::over_mongodb(Arc::clone(&setup.schema), source) });
        let tasks = app.start().await?;
        Ok(Self { app, tasks: Mutex::new(tasks), asked })
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
