//! The handlers of `WatchService`: what the bus tells, in pieces that fit into messages.

use std::{collections::VecDeque, pin::Pin, sync::Arc, time::Duration};

use futures::{Stream, stream};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::Instant,
};
use tonic::{Request, Response, Status};

use super::{
    convert,
    deadline::deadline,
    proto::{self, Document, Key, WatchRequest, WatchResponse, change::What, watch_service_server::WatchService},
    status,
};
use crate::{
    bus::{Bus, Subscription, Update},
    check::Checker,
    freshness::{Change, Changed, Clock, LocalTime, Moment, Token},
    question::Subject,
    telemetry::Present,
};

/// How many watch at once.
const WATCHERS_MAX: usize = 1_000;

/// How many changes one response tells.
const CHANGES_MAX: usize = 1_000;

/// How long there is silence where nothing changes.
const SILENCE_MAX: Duration = Duration::from_secs(1);

/// The service, as tonic calls it.
#[derive(Clone)]
pub struct WatchApi {
    checker: Checker,
    bus: Arc<Bus>,
    permits: Arc<Semaphore>,
    /// Whether the service stops.
    stopped: watch::Receiver<bool>,
}

impl WatchApi {
    /// A service that tells what a bus carries, for ever.
    #[must_use]
    pub fn new(checker: Checker, bus: Arc<Bus>) -> Self {
        let permits = Arc::new(Semaphore::new(WATCHERS_MAX));
        Self { checker, bus, permits, stopped: watch::channel(false).1 }
    }

    /// The same, until this is true.
    pub(super) fn until(self, stopped: watch::Receiver<bool>) -> Self {
        Self { stopped, ..self }
    }
}

#[tonic::async_trait]
impl WatchService for WatchApi {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchResponse, Status>> + Send>>;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let (arrived, deadline) = (LocalTime::now(), deadline(request.metadata()));
        let permit = Arc::clone(&self.permits).try_acquire_owned().map_err(|_| status::overloaded())?;
        let clock = self.checker.clock();
        if clock == Clock::Local {
            return Err(Status::failed_precondition(
                "nothing tells what changes in a MongoDB that is no replica set: run mongod with --replSet, and rs.initiate() once",
            ));
        }
        let since = match &request.get_ref().since {
            None => None,
            Some(since) => {
                let token = convert::token(since, "since", clock).map_err(|wrong| status::invalid(&[wrong]))?;
                let moment = self.checker.accept(token, arrived, deadline).await;
                Some(moment.map_err(|error| status::of(&error, "since"))?)
            }
        };
        let watcher = Watcher {
            checker: self.checker.clone(),
            subscription: self.bus.watch(since),
            stopped: self.stopped.clone(),
            untold: VecDeque::new(),
            told_at: None,
            _permit: permit,
            _present: self.checker.metrics().watcher(),
        };
        Ok(Response::new(Box::pin(stream::unfold(Some(watcher), Watcher::next))))
    }
}

/// One who watches.
struct Watcher {
    checker: Checker,
    subscription: Subscription,
    stopped: watch::Receiver<bool>,
    /// What was heard, and is to be told.
    untold: VecDeque<WatchResponse>,
    /// When something was told last.
    told_at: Option<Instant>,
    _permit: OwnedSemaphorePermit,
    _present: Present,
}

impl Watcher {
    /// The next response, and who tells the one after it. The last one says that the service stops.
    async fn next(this: Option<Self>) -> Option<(Result<WatchResponse, Status>, Option<Self>)> {
        let mut this = this?;
        loop {
            if let Some(response) = this.untold.pop_front() {
                this.told_at = Some(Instant::now());
                return Some((Ok(response), Some(this)));
            }
            let update = tokio::select! {
                update = this.subscription.next() => update,
                _ = this.stopped.wait_for(|stopped| *stopped) => {
                    let ends = status::unavailable("the service stops: watch again, from the last token");
                    return Some((Err(ends), None));
                }
            };
            let has_just_told = this.told_at.is_some_and(|told_at| told_at.elapsed() < SILENCE_MAX);
            if !update.changes.is_empty() || !has_just_told {
                this.untold = this.responses(&update);
            }
        }
    }

    fn responses(&self, update: &Update) -> VecDeque<WatchResponse> {
        let pieces = update.changes.chunks(CHANGES_MAX).map(|changes| WatchResponse {
            changes: changes.iter().map(|change| self.change(change)).collect(),
            token: String::new(),
        });
        let mut responses: VecDeque<WatchResponse> = pieces.collect();
        if responses.is_empty() {
            responses.push_back(WatchResponse::default());
        }
        // The moment up to which all was told goes with the last piece.
        if let (Some(last), Some(to)) = (responses.back_mut(), update.to) {
            last.token = self.token(to);
        }
        responses
    }

    fn change(&self, change: &Change) -> proto::Change {
        let schema = self.checker.schema();
        let what = match &change.what {
            Changed::Everything => What::Everything(true),
            Changed::Document { collection, id } => {
                let collection = schema.collection_name(*collection).to_owned();
                What::Document(Document { collection, id: id.to_string() })
            }
            Changed::Key(key) => {
                let lookup = schema.lookup(key.lookup);
                let (collection, field) = (lookup.collection.to_string(), lookup.by.to_string());
                What::Key(Key { collection, field, id: key.id.to_string() })
            }
            Changed::Subject(Subject::Known { kind, id }) => {
                let kind = schema.subject(*kind).name.to_string();
                What::Subject(proto::Subject { r#type: kind, id: id.to_string(), anonymous: false })
            }
            Changed::Subject(Subject::Anonymous) => {
                What::Subject(proto::Subject { anonymous: true, ..proto::Subject::default() })
            }
        };
        proto::Change { what: Some(what), token: self.token(change.at) }
    }

    fn token(&self, moment: Moment) -> String {
        Token { clock: self.checker.clock(), moment }.to_string()
    }
}
