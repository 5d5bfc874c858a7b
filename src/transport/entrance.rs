//! Where each request of a connection goes: to a page of plain HTTP, to the calls that require no token, or to those that do.
//! Pages and calls without a token share nothing that a caller could take.
//!
//! Answers nothing itself.

use std::{sync::Arc, time::Instant};

use axum::{Router, body::Body, http::Request};
use hyper::{Response, body::Incoming};
use tower_service::Service as _;
use tracing::Instrument as _;

use super::{
    calls::Calls,
    connection_table::ConnectionTable,
    http::{Kind, Pages, Rules},
    low_priority::LowPriority,
    method::Method,
    observed::Observed,
    open_calls::{is_open, is_open_stream},
    open_connection::{OpenConnection, OpenRequest},
    request_body::RequestBody,
    response_body::{CallBody, Patience, ResponseBody},
    shares::Shares,
    status,
};
use crate::telemetry;

/// The entrance of a port.
pub(super) struct Entrance {
    pub(super) shares: Arc<Shares>,
    pub(super) rules: Rules,
    pub(super) pages: Pages,
    /// Answers health and reflection.
    pub(super) open_calls: Router,
    /// Answers all other calls.
    pub(super) calls: Calls,
    /// Counts and times all calls.
    pub(super) observed: telemetry::Calls,
    /// Reads what unknown clients still send after they have been answered; none if the runtime's own threads do.
    pub(super) unknown: Option<Arc<LowPriority>>,
}

impl Entrance {
    /// Counts a request to this path from its arrival on, before it has its turn and before anything is known of it.
    pub(super) fn begin(&self, path: &str, connection: &Arc<OpenConnection>) -> OpenRequest {
        begin(&self.shares, path, connection)
    }

    /// Begins a connection's next turn. The connection is busy if with the last one its caller has carried more than its share.
    pub(super) fn begin_turn(&self, connection: &OpenConnection) {
        begin_turn(&self.shares, connection);
    }

    /// Answers a request that has begun.
    pub(super) async fn answer(
        &self,
        request: Request<Incoming>,
        open: OpenRequest,
        table: &ConnectionTable,
    ) -> Response<ResponseBody> {
        let connection = Arc::clone(open.connection());
        let path = request.uri().path();
        let patience = if is_patient(path) { Patience::Unlimited } else { Patience::Limited };
        let kind = self.rules.kind(&request);
        // Whatever the answer is, what is left of the body is read.
        let threads = self.unknown.as_ref().filter(|_| !connection.is_known()).cloned();
        let request = request.map(|body| RequestBody::new(body, threads));
        let (response, observed) = match kind {
            Kind::Page(page) => {
                (self.pages.answer(page, request.method(), request.headers()).map(CallBody::Other), None)
            }
            Kind::Wrong(response) => (response.map(CallBody::Other), None),
            Kind::Call => {
                let mut observed = Observed::begin(&self.observed, &request);
                let (span, began) = (observed.span(), observed.began());
                let response = if is_open(request.uri().path()) {
                    Box::pin(self.answer_open(request, &connection)).instrument(span).await
                } else {
                    self.answer_call(request, began, &connection, table).instrument(span).await
                };
                observed.read(response.headers());
                (response, Some(observed))
            }
        };
        response.map(|body| ResponseBody::new(body, patience, observed, open))
    }

    /// Answers a call that requires no token.
    async fn answer_open(
        &self,
        request: Request<RequestBody<Incoming>>,
        connection: &Arc<OpenConnection>,
    ) -> Response<CallBody> {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Arc::clone(connection));
        let Ok(response) = self.open_calls.clone().call(request).await;
        response.map(CallBody::Other)
    }

    /// Answers any other call.
    async fn answer_call(
        &self,
        request: Request<RequestBody<Incoming>>,
        began: Instant,
        connection: &Arc<OpenConnection>,
        table: &ConnectionTable,
    ) -> Response<CallBody> {
        let response = self.calls.answer(request, began, connection).await;
        // It is noted once for each connection.
        if !connection.is_known()
            && status::is_of_a_caller(&response)
            && connection.set_known()
            && !table.promote(connection)
        {
            connection.retire();
        }
        response
    }
}

/// Whether responses of the method at this path may wait for their clients.
fn is_patient(path: &str) -> bool {
    Method::at(path).is_some_and(Method::is_stream)
}

/// Counts a request. Whatever its answer will be, its connection is busy if its caller has more than its share open: refusals
/// cost time, too.
fn begin(shares: &Shares, path: &str, connection: &Arc<OpenConnection>) -> OpenRequest {
    let open = connection.begin_request(is_open_stream(path) || is_patient(path));
    if connection.share().is_some_and(|share| shares.is_beyond(share, connection.turn())) {
        connection.set_busy();
    }
    open
}

/// Begins a connection's next turn, and counts the last one.
fn begin_turn(shares: &Shares, connection: &OpenConnection) {
    let bytes = connection.begin_turn();
    // A turn that carried nothing is one of the requests that wait, and not of what the client sends.
    if bytes > 0 && connection.share().is_some_and(|share| shares.carry(share, bytes, connection.turn())) {
        connection.set_busy();
    }
}

#[cfg(test)]
mod tests {
    use super::{super::open_connection::Standing, *};

    /// The shares of two callers, one of whom calls, and a connection of the other one.
    fn greedy() -> (Shares, Arc<OpenConnection>) {
        let names: [Arc<str>; 2] = ["greedy".into(), "modest".into()];
        let shares = Shares::new(names.iter(), 768, 1_024);
        shares.note_call(shares.of(Some("modest")), Instant::now());
        let connection = OpenConnection::new(1);
        connection.set_share(shares.of(Some("greedy")));
        connection.set_known();
        (shares, connection)
    }

    /// The standing of a caller's connection on which so many requests to this path are open, while another caller calls.
    fn standing(path: &str, count: usize) -> Standing {
        let (shares, connection) = greedy();
        let _open: Vec<_> = (0..count).map(|_| begin(&shares, path, &connection)).collect();
        connection.standing()
    }

    #[test]
    fn a_connection_with_many_requests_is_busy_whatever_they_are_and_streams_do_not_count() {
        for path in [
            "/permcached.v1.PermissionService/Check",
            "/permcached.v1.PermissionService/Explain",
            "/grpc.health.v1.Health/Check",
            "/healthz",
            "/unknown",
        ] {
            assert_eq!(standing(path, 32), Standing::Known, "{path}");
            assert_eq!(standing(path, 33), Standing::Busy, "{path}");
        }
        for path in ["/permcached.v1.WatchService/Watch", "/grpc.health.v1.Health/Watch", "/grpc.reflection.v1.X/Y"] {
            assert_eq!(standing(path, 256), Standing::Known, "{path}");
        }
    }

    #[test]
    fn a_connection_that_carries_much_is_busy_at_its_next_turn_before_its_request_is_complete() {
        for is_read in [true, false] {
            let (shares, connection) = greedy();
            let carry = |bytes| if is_read { connection.count_read(bytes) } else { connection.count_written(bytes) };
            carry(1_000);
            begin_turn(&shares, &connection);
            assert_eq!(connection.standing(), Standing::Known);
            carry(10_000_000);
            begin_turn(&shares, &connection);
            assert_eq!(connection.standing(), Standing::Busy);
        }
    }
}
