//! Plans with nothing in memory: how many finds they send, which the driver's command monitoring counts, and how long they take. The
//! engine runs in this process.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use mongodb::{
    Client,
    event::{EventHandler, command::CommandEvent},
    options::ClientOptions,
};
use permcached::{
    app::{App, Parts, assemble},
    check::{Consistency, Settings},
    list::{self, ListQuestion, PlanKind, PlanOptions},
    schema::{Schema, SubjectText},
    source::{Deadline, Source as _, mongodb::MongoDb},
};

use super::world::{self, Asker};

/// How often each plan is made.
const PLANS: usize = 5;

/// How long a plan may take.
const TIME_MAX: Duration = Duration::from_mins(1);

/// An engine with a client that counts the finds that read documents.
pub(crate) struct Cold {
    schema: Arc<Schema>,
    app: App,
    finds: Arc<AtomicUsize>,
}

impl Cold {
    pub(crate) async fn open(schema: &Arc<Schema>, uri: &str, database: &str) -> Self {
        let mut options = ClientOptions::parse(uri).await.expect("the URI is our own");
        let finds = Arc::<AtomicUsize>::default();
        let counter = Arc::clone(&finds);
        options.command_event_handler = Some(EventHandler::callback(move |event| {
            if let CommandEvent::Started(started) = event
                && started.command_name == "find"
                && let Ok(concern) = started.command.get_document("readConcern")
                // Others ask mongod for its time.
                && concern.get_str("level").is_ok_and(|level| level == "snapshot")
            {
                counter.fetch_add(1, Ordering::Relaxed);
            }
        }));
        let database = Client::with_options(options).expect("a client").database(database);
        let source = Arc::new(MongoDb::open(Arc::clone(schema), database).await.expect("mongod answers"));
        for diagnosis in source.survey().await {
            let remedy = diagnosis.remedy.as_deref().unwrap_or_default();
            assert!(!remedy.contains("createIndex"), "{remedy}");
        }
        // Long enough that no fact becomes too old, however busy the machine is.
        let settings = Settings { staleness_max: Duration::from_mins(1), ..Settings::default() };
        let app = assemble(Parts { settings, ..Parts::new(Arc::clone(schema), source) });
        Self { schema: Arc::clone(schema), app, finds }
    }

    /// The most finds of a plan, and the median of its times in milliseconds.
    pub(crate) async fn measure(&self, asker: Asker) -> (usize, f64) {
        let user = asker.user().to_hex();
        let subject = SubjectText::Known { kind: "user", id: &user };
        let asked = self.schema.question(subject, "read", "file", &world::file(0).to_hex()).expect("a question");
        let asker_of_list = list::Asker::new(asked.subject);
        let question = ListQuestion { asker: asker_of_list, permission: asked.permission, kind: asked.resource.kind };
        let (mut finds, mut times) = (0, Vec::new());
        for _ in 0..PLANS {
            self.app.memory.clear();
            let before = self.finds.load(Ordering::Relaxed);
            let options = PlanOptions { ids_max: 10_000, ..PlanOptions::default() };
            let began = Instant::now();
            let deadline = Deadline::after(TIME_MAX);
            let plan = self.app.lister.plan_filter(&question, Consistency::MinimizeLatency, options, deadline).await;
            times.push(began.elapsed().as_secs_f64() * 1e3);
            let plan = plan.unwrap_or_else(|error| panic!("{asker}: {error}"));
            assert_eq!((plan.kind, u32::try_from(plan.ids).ok()), (PlanKind::Exact, Some(asker.ids())), "{asker}");
            finds = finds.max(self.finds.load(Ordering::Relaxed) - before);
        }
        times.sort_by(f64::total_cmp);
        (finds, times[times.len() / 2])
    }
}
