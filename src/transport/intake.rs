//! Receives a call's request message, and decides where it is answered. Small requests are
//! answered at once. Large ones are counted before they are decoded, and are answered by the workers. Their bytes are limited
//! from their arrival on until the response is sent.
//!
//! Decodes no message, and answers no question.

use std::{
    collections::HashMap,
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    body::Bytes,
    http::{HeaderMap, HeaderValue, Request, Response, header::CONTENT_TYPE},
};
use tokio::time::{Instant, timeout_at};
use tonic::Status;
use tracing::Instrument as _;

use super::{
    byte_budget::{ByteBudget, TakenBytes},
    call_context::CallContext,
    callers::Callers,
    compression::{self, Encoding, Packed},
    deadline::deadline,
    fields::{Counted, Messages, Refused},
    limits::Limits,
    message::{self, PREFIX_BYTES},
    method::Method,
    open_connection::OpenConnection,
    protobuf::Malformed,
    request_body::{RequestBody, Rest},
    response_body::{CallBody, WholeBody},
    services::{Answered, Services},
    status,
    workers::Workers,
};

/// The content type of every response.
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// The status of every call that is answered.
const OK: HeaderValue = HeaderValue::from_static("0");

/// The largest message, or answer to a small request, whose bytes do not count. As many as there may be requests at once have 4 MiB
/// by default.
const FREE_BYTES_MAX: usize = 4 * 1_024;

/// The largest message that is counted outside of the workers.
const SMALL_BYTES_MAX: usize = 16 * 1_024;

/// The most items of a request that is answered outside of the workers: some 0.15 ms of work.
const SMALL_ITEMS_MAX: usize = 256;

/// The most items of all such requests at once, apart from requests of a single item.
const SMALL_ITEMS_AT_ONCE_MAX: usize = 1_024;

/// The fields that count as much as one item.
const FIELDS_PER_ITEM: usize = 16;

/// The most bytes of large requests and of their unread responses, in all.
const BYTES_MAX: usize = 24 * 1_024 * 1_024;

/// The most of them that belong to one caller.
const CALLER_BYTES_MAX: usize = 13 * 1_024 * 1_024;

/// How long a message that others wait for may take to arrive further.
const STALLED_TIME_MAX: Duration = Duration::from_millis(250);

/// What intake needs to know. Clones share it.
#[derive(Clone)]
pub(super) struct Intake(Arc<Shared>);

struct Shared {
    messages: Messages,
    message_bytes_max: usize,
    /// The bytes of requests without a known caller, who are one.
    budget: ByteBudget,
    caller_budgets: HashMap<Arc<str>, ByteBudget>,
    /// The items of small requests that are being answered.
    small_items: AtomicUsize,
    workers: Workers,
}

impl Intake {
    /// For these callers.
    ///
    /// # Errors
    /// If the workers cannot be started.
    pub(super) fn start(callers: &Callers, limits: Limits) -> std::io::Result<Self> {
        let names: Vec<Arc<str>> = callers.names().cloned().collect();
        let budget = ByteBudget::new(BYTES_MAX, limits.message_bytes_max);
        let caller_budgets = names.iter().map(|name| (Arc::clone(name), budget.part(CALLER_BYTES_MAX))).collect();
        let workers = Workers::start(&names)?;
        let (messages, small_items) = (Messages::of_api(), AtomicUsize::new(0));
        let message_bytes_max = limits.message_bytes_max;
        Ok(Self(Arc::new(Shared { messages, message_bytes_max, budget, caller_budgets, small_items, workers })))
    }
}

/// A request whose message has arrived.
struct Received {
    /// The message with its prefix.
    bytes: Bytes,
    /// The bytes of the message, if they count. It may still have its turn to take more.
    taken: Option<TakenBytes>,
}

impl Intake {
    /// Receives the message of a call that was admitted and whose head arrived then. Has the services answer it where and when it may
    /// be answered.
    pub(super) async fn answer<B: Rest>(
        &self,
        method: Method,
        (request, began): (Request<RequestBody<B>>, std::time::Instant),
        connection: &Arc<OpenConnection>,
        caller: Option<&Arc<str>>,
        services: &Arc<Services>,
    ) -> Result<Response<CallBody>, Status> {
        let Self(shared) = self;
        let (mut head, body) = request.into_parts();
        let encoding = Encoding::take(&mut head.headers)?;
        let deadline = deadline(&head.headers, began);
        let budget = caller.and_then(|caller| shared.caller_budgets.get(caller)).unwrap_or(&shared.budget);
        let bytes_max = shared.message_bytes_max;
        let arriving = Arriving { budget, connection, bytes_max, deadline: deadline.instant() };
        let Received { mut bytes, mut taken } = arriving.receive(body).await?;
        let mut packed = Packed::of(&bytes, encoding, bytes_max)?;
        if let Some(packed) = &packed {
            arriving.take_unpacked(&mut taken, packed).await?;
        }
        if let Some(taken) = &mut taken {
            taken.complete();
        }
        // The workers unpack large messages.
        if let Some(small) = packed.take_if(|packed| packed.is_small(SMALL_BYTES_MAX) || method.is_stream()) {
            bytes = small.unpack()?;
        }
        let encoding = encoding.filter(|encoding| !method.is_stream() && encoding.is_accepted(&head.headers));
        let context = CallContext { deadline, caller: caller.cloned() };
        let call = Call { method, context, encoding };
        // The workers count what is in a large message.
        let counted = if packed.is_none() && bytes.len() <= SMALL_BYTES_MAX {
            Some(shared.messages.counted(method, &bytes)?)
        } else {
            None
        };
        let small = counted.filter(|_| !method.is_always_large()).and_then(|counted| shared.small(counted));
        if small.is_some() || method.is_stream() {
            if counted.is_none() {
                shared.messages.counted(method, &bytes)?;
            }
            return call.answer(&bytes, services, Counts::IfLarge(budget)).await;
        }
        let work =
            Large { call, bytes, packed, is_counted: counted.is_some(), taken: taken.unwrap_or_else(|| budget.take()) };
        // Boxed: most calls are small, and need less memory then.
        Box::pin(shared.answer_large(work, services)).await
    }
}

/// A call whose message has arrived.
struct Call {
    method: Method,
    context: CallContext,
    /// How the answer is compressed.
    encoding: Option<Encoding>,
}

impl Call {
    /// Has the services answer.
    async fn answer(
        &self,
        bytes: &[u8],
        services: &Services,
        counts: Counts<'_>,
    ) -> Result<Response<CallBody>, Status> {
        // Boxed, because a future that contains another one may reserve room for it twice.
        let answered = Box::pin(services.answer(self.method, message::only(bytes)?, &self.context)).await?;
        let mut headers = HeaderMap::with_capacity(2);
        headers.insert(CONTENT_TYPE, GRPC);
        let body = match answered {
            Answered::Message(bytes) => {
                let bytes = match self.encoding {
                    Some(encoding) => compression::packed(bytes, encoding, &mut headers)?,
                    None => bytes,
                };
                let bytes = counts.until_sent(bytes)?;
                let mut trailers = HeaderMap::with_capacity(1);
                trailers.insert(Status::GRPC_STATUS, OK);
                CallBody::Whole(WholeBody::new(bytes, Some(trailers)))
            }
            Answered::Stream(body) => CallBody::Other(body),
        };
        let mut response = Response::new(body);
        *response.headers_mut() = headers;
        Ok(response)
    }
}

/// How the bytes of an answer count until they are sent.
enum Counts<'a> {
    /// In place of those of its request.
    InPlaceOf(TakenBytes),
    /// Towards this budget if they are more than [`FREE_BYTES_MAX`].
    IfLarge(&'a ByteBudget),
}

impl Counts<'_> {
    /// The answer, which counts until it is dropped.
    ///
    /// # Errors
    /// There is no room left for it.
    fn until_sent(self, bytes: Bytes) -> Result<Bytes, Status> {
        let taken = match self {
            Self::InPlaceOf(mut taken) => {
                taken.replace(bytes.len());
                taken
            }
            Self::IfLarge(_) if bytes.len() <= FREE_BYTES_MAX => return Ok(bytes),
            Self::IfLarge(budget) => {
                let mut taken = budget.take();
                if !taken.try_grow(bytes.len()) {
                    return Err(status::over_budget());
                }
                taken
            }
        };
        Ok(Bytes::from_owner(Unsent { bytes, _taken: taken }))
    }
}

/// A large call.
struct Large {
    call: Call,
    bytes: Bytes,
    /// The message, if it is still compressed.
    packed: Option<Packed>,
    /// Whether what is in the message has been counted.
    is_counted: bool,
    taken: TakenBytes,
}

impl Shared {
    /// Has a worker answer a large call, when it has its turn.
    async fn answer_large(
        self: &Arc<Self>,
        large: Large,
        services: &Arc<Services>,
    ) -> Result<Response<CallBody>, Status> {
        let Large { call, bytes, packed, is_counted, taken } = large;
        let turn = self.workers.turn(call.context.caller.as_deref());
        let turn = timeout_at(call.context.deadline.instant(), turn).await.map_err(|_| late())?;
        let (shared, services) = (Arc::clone(self), Arc::clone(services));
        let work = async move {
            let _turn = turn;
            let bytes = match packed {
                Some(packed) => packed.unpack()?,
                None => bytes,
            };
            if !is_counted {
                shared.messages.counted(call.method, &bytes)?;
            }
            call.answer(&bytes, &services, Counts::InPlaceOf(taken)).await
        };
        let done = self.workers.run(work.in_current_span()).await;
        done.unwrap_or_else(|_| Err(Status::internal("the request could not be answered")))
    }

    /// Whether a request with so many items is answered at once. Its items count until the result is dropped.
    fn small(self: &Arc<Self>, counted: Counted) -> Option<SmallItems> {
        let items = counted.items.max(counted.fields / FIELDS_PER_ITEM);
        if items <= 1 {
            return Some(SmallItems { shared: Arc::clone(self), items: 0 });
        }
        if items > SMALL_ITEMS_MAX {
            return None;
        }
        let add = |now: usize| now.checked_add(items).filter(|sum| *sum <= SMALL_ITEMS_AT_ONCE_MAX);
        self.small_items.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).ok()?;
        Some(SmallItems { shared: Arc::clone(self), items })
    }
}

/// The items of a small request that is being answered.
struct SmallItems {
    shared: Arc<Shared>,
    items: usize,
}

impl Drop for SmallItems {
    fn drop(&mut self) {
        if self.items > 0 {
            self.shared.small_items.fetch_sub(self.items, Ordering::Relaxed);
        }
    }
}

/// A message that is arriving.
struct Arriving<'a> {
    budget: &'a ByteBudget,
    connection: &'a Arc<OpenConnection>,
    bytes_max: usize,
    deadline: Instant,
}

impl Arriving<'_> {
    /// Receives the message. It takes twice as many bytes as have arrived, as its buffer may have, and no more than it has.
    async fn receive(&self, mut body: impl Rest) -> Result<Received, Status> {
        // A message that arrives in one piece is not copied.
        let mut only = Bytes::new();
        let mut joined = Vec::new();
        let mut whole = None;
        let mut taken: Option<TakenBytes> = None;
        loop {
            let frame = poll_fn(|context| Pin::new(&mut body).poll_frame(context));
            let frame = match &taken {
                Some(taken) if taken.has_turn() => {
                    let until = self.deadline.min(Instant::now() + STALLED_TIME_MAX);
                    timeout_at(until, frame).await.map_err(|_| status::over_budget())?
                }
                _ => timeout_at(self.deadline, frame).await.map_err(|_| late())?,
            };
            let Some(frame) = frame else { break };
            let frame = frame.map_err(|_| Status::cancelled("the request was broken off"))?;
            let Ok(data) = frame.into_data() else { break };
            if joined.is_empty() && body.is_end_stream() {
                only = data;
            } else {
                joined.extend_from_slice(&data);
            }
            let arrived = if joined.is_empty() { &*only } else { &*joined };
            let arrived_bytes = arrived.len();
            if whole.is_none()
                && let Some(length) = message::length(arrived)
            {
                if length > self.bytes_max {
                    let message = format!("the request has {length} bytes: {} are the most", self.bytes_max);
                    return Err(Status::out_of_range(message));
                }
                taken = (length > FREE_BYTES_MAX).then(|| self.budget.take());
                whole = Some(PREFIX_BYTES + length);
            }
            if arrived_bytes > whole.unwrap_or(PREFIX_BYTES) {
                return Err(Status::internal("the request has more than one message"));
            }
            if let (Some(taken), Some(whole)) = (&mut taken, whole) {
                self.take(taken, whole.min(2 * arrived_bytes), whole - arrived_bytes).await?;
            }
        }
        Ok(Received { bytes: if joined.is_empty() { only } else { joined.into() }, taken })
    }

    /// Takes the bytes that a compressed message may have when it is unpacked, beside those that it has. Both together are no more
    /// than a message may have, so whoever has the turn can take them.
    async fn take_unpacked(&self, taken: &mut Option<TakenBytes>, packed: &Packed) -> Result<(), Status> {
        if packed.length_max > FREE_BYTES_MAX || taken.is_some() {
            let taken = taken.get_or_insert_with(|| self.budget.take());
            self.take(taken, packed.packed_bytes() + packed.length_max, packed.length_max).await?;
        }
        Ok(())
    }

    /// Takes bytes for a message that lacks so many. Waits for them until the deadline, unless too many messages of the same
    /// connection wait already.
    async fn take(&self, taken: &mut TakenBytes, bytes: usize, lacking: usize) -> Result<(), Status> {
        if taken.try_grow(bytes) {
            return Ok(());
        }
        let _waiting = self.connection.begin_waiting(lacking).ok_or_else(status::over_budget)?;
        timeout_at(self.deadline, taken.grow(bytes)).await.map_err(|_| status::over_budget())
    }
}

fn late() -> Status {
    Status::deadline_exceeded("the request could not be answered in time")
}

impl Messages {
    /// Counts what a message contains, or refuses it. `bytes` has its prefix.
    fn counted(&self, method: Method, bytes: &[u8]) -> Result<Counted, Status> {
        // A message without a prefix is refused before it is decoded.
        let Some(([0, ..], message)) = bytes.split_first_chunk::<PREFIX_BYTES>() else { return Ok(Counted::default()) };
        self.count(method, message).map_err(|refused| match refused {
            Refused::Malformed => Malformed.into(),
            Refused::TooMany(violation) => status::invalid(&[violation]),
        })
    }
}

/// Bytes that are not yet sent, and that count.
struct Unsent {
    bytes: Bytes,
    _taken: TakenBytes,
}

impl AsRef<[u8]> for Unsent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}
