//! The handler of `WatchService`: streams the updates of the bus to Watch clients, split into responses of bounded size.
//!
//! Keeps no log of changes: the bus does.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use futures::{Stream, stream};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::Instant,
};
use tonic::Status;

use super::{
    call_context::CallContext,
    convert,
    proto::{self, Document, Key, WatchRequest, WatchResponse, change::What},
    status,
};
use crate::{
    bus::{Bus, Subscription, Update},
    check::Checker,
    freshness::{Change, Changed, Clock, Epoch, Freshness, LocalTime, Moment, Token, name_of_change},
    question::Subject,
    schema::{Finds, Schema},
    telemetry::{Metrics, Present},
};

/// The most Watch streams at once.
const STREAMS_MAX: usize = 1_000;

/// The most changes in one response.
const CHANGES_MAX: usize = 1_000;

/// The time without a response after which the next update is reported even if it has no changes. Updates come every 100 ms, and
/// responses about every 500 ms.
const SILENCE_MAX: Duration = Duration::from_millis(350);

/// The service, as the port calls it.
#[derive(Clone)]
pub struct WatchApi {
    schema: Arc<Schema>,
    /// The domain of the moments and of the names of changes. If it is 0, no answer can be compared with them.
    domain: u64,
    clock: Clock,
    metrics: Arc<Metrics>,
    checker: Checker,
    bus: Arc<Bus>,
    permits: Arc<Semaphore>,
    /// Whether the service stops.
    stopped: watch::Receiver<bool>,
}

impl WatchApi {
    /// A service that streams the updates of this bus until the process ends.
    #[must_use]
    pub fn new(schema: Arc<Schema>, checker: Checker, clock: Clock, metrics: Arc<Metrics>, bus: Arc<Bus>) -> Self {
        let permits = Arc::new(Semaphore::new(STREAMS_MAX));
        Self { schema, domain: 0, clock, metrics, checker, bus, permits, stopped: watch::channel(false).1 }
    }

    /// The same service, in this domain.
    #[must_use]
    pub fn in_domain(self, domain: u64) -> Self {
        Self { domain, ..self }
    }

    /// The same service, whose streams end once this is true.
    pub(super) fn until(self, stopped: watch::Receiver<bool>) -> Self {
        Self { stopped, ..self }
    }
}

impl WatchApi {
    /// `Watch`.
    pub(super) async fn watch(
        &self,
        request: WatchRequest,
        context: &CallContext,
    ) -> Result<impl Stream<Item = Result<WatchResponse, Status>> + use<>, Status> {
        let (arrived, deadline) = (LocalTime::now(), context.deadline);
        let permit = Arc::clone(&self.permits).try_acquire_owned().map_err(|_| status::overloaded())?;
        let clock = self.clock;
        if clock == Clock::Local {
            return Err(Status::failed_precondition(
                "a MongoDB that is no replica set does not report changes: run mongod with --replSet, and rs.initiate() once",
            ));
        }
        let since = match &request.since {
            None => None,
            Some(since) => {
                let token = convert::token(since, "since", clock).map_err(|wrong| status::invalid(&[wrong]))?;
                let moment = self.checker.accept(token, arrived, deadline).await;
                Some(moment.map_err(|error| status::of(&error, "since"))?)
            }
        };
        let stream = WatchStream {
            schema: Arc::clone(&self.schema),
            domain: self.domain,
            clock,
            freshness: Arc::clone(&self.checker.freshness),
            staleness_max: self.checker.staleness_max,
            arrived,
            subscription: self.bus.subscribe(since),
            stopped: self.stopped.clone(),
            pending: VecDeque::new(),
            confirms: None,
            last_sent: None,
            _permit: permit,
            _counted: self.metrics.watch_stream(),
        };
        Ok(stream::unfold(Some(stream), WatchStream::next))
    }
}

/// Every change up to this moment of this epoch was reported.
#[derive(Clone, Copy)]
struct Confirmed {
    moment: Moment,
    epoch: Epoch,
}

/// An open Watch stream.
struct WatchStream {
    schema: Arc<Schema>,
    domain: u64,
    clock: Clock,
    freshness: Arc<Freshness>,
    staleness_max: Duration,
    /// When the call arrived.
    arrived: LocalTime,
    subscription: Subscription,
    stopped: watch::Receiver<bool>,
    /// The responses to the last update that are not yet sent.
    pending: VecDeque<WatchResponse>,
    /// The moment that the last of them confirms, if it confirms one.
    confirms: Option<Confirmed>,
    /// When the last response was sent.
    last_sent: Option<Instant>,
    _permit: OwnedSemaphorePermit,
    _counted: Present,
}

impl WatchStream {
    /// The next response, and the stream that yields the one after it. Ends with an error status when the service stops.
    async fn next(this: Option<Self>) -> Option<(Result<WatchResponse, Status>, Option<Self>)> {
        let mut this = this?;
        loop {
            if let Some(mut response) = this.pending.pop_front() {
                if this.pending.is_empty() {
                    this.add_age(&mut response);
                }
                this.last_sent = Some(Instant::now());
                return Some((Ok(response), Some(this)));
            }
            let update = tokio::select! {
                update = this.subscription.next() => update,
                _ = this.stopped.wait_for(|stopped| *stopped) => {
                    let stopping = status::unavailable("the service stops: call Watch again, with the last token");
                    return Some((Err(stopping), None));
                }
            };
            let sent_recently = this.last_sent.is_some_and(|last_sent| last_sent.elapsed() < SILENCE_MAX);
            if !update.changes.is_empty() || !sent_recently {
                this.pending = this.responses(&update);
                this.confirms = update.to.map(|moment| Confirmed { moment, epoch: update.epoch });
            }
        }
    }

    /// Splits an update into responses: at least one, even if it has no changes.
    fn responses(&self, update: &Update) -> VecDeque<WatchResponse> {
        let domain = self.domain;
        let pieces = update.changes.chunks(CHANGES_MAX).map(|changes| WatchResponse {
            changes: changes.iter().map(|change| self.change(change)).collect(),
            domain,
            ..WatchResponse::default()
        });
        let mut responses: VecDeque<WatchResponse> = pieces.collect();
        if responses.is_empty() {
            responses.push_back(WatchResponse { domain, ..WatchResponse::default() });
        }
        // Only after the last response has the client received every change up to `update.to`.
        if let (Some(last), Some(to)) = (responses.back_mut(), update.to) {
            last.token = self.token(to);
            last.moment = to.as_u64();
        }
        responses
    }

    /// Adds how old the state is that the response confirms: as late as possible, as the client may take its time.
    fn add_age(&self, response: &mut WatchResponse) {
        let Some(Confirmed { moment, epoch }) = self.confirms else { return };
        // Without a common time of all instances, or if it is not known whose time that is, no answer can be compared with this stream.
        if self.clock != Clock::Cluster || self.domain == 0 {
            return;
        }
        let now = LocalTime::now();
        let fresh_since = self.freshness.fresh_since(moment);
        // Read after the probes: a new epoch begins before a probe of it is recorded.
        if self.freshness.epoch() != epoch {
            return;
        }
        let Some(fresh_since) = fresh_since else { return };
        let message = |time: Duration| prost_types::Duration::try_from(time).ok();
        response.age = message(now.since(fresh_since));
        response.elapsed = message(now.since(self.arrived));
        response.staleness_max = message(self.staleness_max);
    }

    fn change(&self, change: &Change) -> proto::Change {
        let schema = &self.schema;
        let what = match &change.what {
            // A client has no message for one collection, and may not know which of its answers depend on it. Nor has this a name.
            Changed::Everything | Changed::Collection(_) => What::Everything(true),
            Changed::Document { collection, id } => {
                let collection = schema.collection_name(*collection).to_owned();
                What::Document(Document { collection, id: id.to_string() })
            }
            // The document may name any resource.
            Changed::Key(key) if schema.lookup(key.lookup).finds == Finds::Structures => What::Everything(true),
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
        let hash = name_of_change(schema, &change.what).unwrap_or(0);
        proto::Change { what: Some(what), token: self.token(change.at), hash, moment: change.at.as_u64() }
    }

    fn token(&self, moment: Moment) -> String {
        Token { clock: self.clock, moment }.to_string()
    }
}
