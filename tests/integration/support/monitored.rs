//! MongoDB as the source, with a record of the commands that each round of loading sent, and of the replies. Also fail points
//! of mongod.
//!
//! The driver's command monitoring reports the commands. An observer of the source reports where a round begins and ends.

use std::sync::{Arc, Mutex};

use mongodb::{
    Client, Database,
    bson::{Bson, Document, doc},
    event::{EventHandler, command::CommandEvent},
    options::{ClientOptions, ServerMonitoringMode},
};
use permcached::{fact::FactKey, schema::Schema, source::mongodb::MongoDb};

use super::{
    controlled::{ControlledSource, Step},
    servers::Mongo,
};

/// The commands of one client, in the order in which they went out and came back.
#[derive(Clone, Default)]
pub struct Monitor(Arc<Mutex<Vec<CommandEvent>>>);

impl Monitor {
    /// A client of a server whose commands are all recorded. `app_name` distinguishes it from the server's other clients, so
    /// that a fail point can apply to it alone.
    pub async fn client(&self, server: &Mongo, app_name: &str) -> Client {
        self.client_of(&server.uri(), app_name).await
    }

    /// The same by a connection string, which may name a user.
    pub async fn client_of(&self, uri: &str, app_name: &str) -> Client {
        let mut options = ClientOptions::parse(uri).await.expect("the URI is our own");
        options.app_name = Some(app_name.to_owned());
        // A server that fails on purpose as if it were not the primary does not report the end of that. The driver must poll.
        options.server_monitoring_mode = Some(ServerMonitoringMode::Poll);
        let events = Arc::clone(&self.0);
        options.command_event_handler =
            Some(EventHandler::callback(move |event| events.lock().expect("no panic before").push(event)));
        Client::with_options(options).expect("a client")
    }

    /// Takes the events since the last call.
    pub fn take(&self) -> Vec<CommandEvent> {
        std::mem::take(&mut self.0.lock().expect("no panic before"))
    }
}

/// The commands with this name among events.
pub fn commands(events: &[CommandEvent], name: &str) -> Vec<Document> {
    let commands = events.iter().filter_map(|event| match event {
        CommandEvent::Started(started) if started.command_name == name => Some(started.command.clone()),
        _ => None,
    });
    commands.collect()
}

/// One round of loading: the keys, and the events of its commands.
pub struct Round {
    pub keys: Vec<FactKey>,
    pub events: Vec<CommandEvent>,
}

/// MongoDB with a record of the rounds that it was asked for.
pub struct Recorded {
    pub source: Arc<ControlledSource>,
    rounds: Arc<Mutex<Vec<Round>>>,
}

impl Recorded {
    /// A database of a monitored client.
    pub async fn open(schema: &Arc<Schema>, database: Database, monitor: Monitor) -> Self {
        let mongodb = MongoDb::open(Arc::clone(schema), database).await.expect("mongod answers");
        monitor.take();
        let rounds = Arc::<Mutex<Vec<Round>>>::default();
        let record = Arc::clone(&rounds);
        let source = ControlledSource::over(schema, Arc::new(mongodb)).observed(move |step| match step {
            Step::Before => {
                let before = monitor.take();
                let probes = commands(&before, "find").iter().filter(|find| level(find) == "linearizable").count();
                assert_eq!(commands(&before, "find").len(), probes, "a find outside any round: {before:?}");
            }
            Step::After(keys) => {
                let events = monitor.take().into_iter().filter(|event| !is_of_probe(event)).collect();
                let round = Round { keys: keys.to_vec(), events };
                record.lock().expect("no panic before").push(round);
            }
        });
        Self { source: Arc::new(source), rounds }
    }

    /// Takes the rounds since the last call.
    pub fn take(&self) -> Vec<Round> {
        std::mem::take(&mut self.rounds.lock().expect("no panic before"))
    }
}

/// Whether an event is of a transaction beside a probe, which may still run when the probe has been answered.
fn is_of_probe(event: &CommandEvent) -> bool {
    let name = match event {
        CommandEvent::Started(started) => &started.command_name,
        CommandEvent::Succeeded(succeeded) => &succeeded.command_name,
        CommandEvent::Failed(failed) => &failed.command_name,
        _ => return false,
    };
    ["distinct", "commitTransaction"].contains(&&**name)
}

/// The read concern level of a command.
pub fn level(command: &Document) -> &str {
    command.get_document("readConcern").and_then(|concern| concern.get_str("level")).unwrap_or("none")
}

/// A fail point: a command fails on purpose until [`FailPoint::off`], for clients with one name. A server has one at a time,
/// so tests take turns.
pub struct FailPoint {
    admin: Database,
    name: &'static str,
    _turn: tokio::sync::MutexGuard<'static, ()>,
}

impl FailPoint {
    /// `mode` is `alwaysOn`, or `{ times: 1 }`; `data` is what MongoDB's `failCommand` takes.
    pub async fn on(server: &Mongo, app_name: &str, mode: impl Into<Bson>, mut data: Document) -> Self {
        static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
        let turn = TURN.lock().await;
        data.insert("appName", app_name);
        Self::set(server, "failCommand", mode.into(), data, turn).await
    }

    /// Stops finds in a collection after they have chosen their snapshot and before they read.
    pub async fn finds_stop(server: &Mongo, full_name: &str) -> Self {
        static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
        let turn = TURN.lock().await;
        let data = doc! { "nss": full_name, "shouldCheckForInterrupt": true };
        Self::set(server, "waitInFindBeforeMakingBatch", "alwaysOn".into(), data, turn).await
    }

    async fn set(
        server: &Mongo,
        name: &'static str,
        mode: Bson,
        data: Document,
        turn: tokio::sync::MutexGuard<'static, ()>,
    ) -> Self {
        let client = Client::with_uri_str(server.uri()).await.expect("the URI is our own");
        let admin = client.database("admin");
        let command = doc! { "configureFailPoint": name, "mode": mode, "data": data };
        admin.run_command(command).await.expect("test commands are enabled");
        Self { admin, name, _turn: turn }
    }

    /// Removes the fail point.
    pub async fn off(self) {
        let command = doc! { "configureFailPoint": self.name, "mode": "off" };
        self.admin.run_command(command).await.expect("test commands are enabled");
    }
}
