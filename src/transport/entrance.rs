//! Where each request of a connection goes: to a page of plain HTTP, to the calls that require no token, or to those that do.
//! Pages and calls without a token share nothing that a caller could take.
//!
//! Answers nothing itself.

use std::{convert::Infallible, sync::Arc};

use axum::{Router, body::Body, http::Request};
use hyper::{Response, body::Incoming};
use tower_service::Service as _;

use super::{
    connection_table::ConnectionTable,
    http::{Kind, Pages, Rules},
    low_priority::LowPriority,
    open_calls::{is_open, is_open_stream},
    open_connection::{OpenConnection, OpenRequest},
    request_body::RequestBody,
    response_body::{Patience, ResponseBody},
    shares::Shares,
    status,
};

/// Returns the router that answers the next call. It is called for each call, because the router changes once the
/// application has started.
pub(super) type CurrentRouter = Box<dyn Fn() -> Router + Send + Sync>;

/// The prefix of the paths whose responses may wait for their clients: each stream of `WatchService` has a bounded buffer.
const PATIENT: &str = "/permcached.v1.WatchService/";

/// The entrance of a port.
pub(super) struct Entrance {
    pub(super) shares: Arc<Shares>,
    pub(super) rules: Rules,
    pub(super) pages: Pages,
    /// Answers health and reflection.
    pub(super) open_calls: Router,
    /// Answers all other calls.
    pub(super) calls: CurrentRouter,
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
        self: Arc<Self>,
        request: Request<Incoming>,
        open: OpenRequest,
        table: ConnectionTable,
    ) -> Result<Response<ResponseBody>, Infallible> {
        let path = request.uri().path();
        let patience = if path.starts_with(PATIENT) { Patience::Unlimited } else { Patience::Limited };
        let connection = Arc::clone(open.connection());
        let kind = self.rules.kind(&request);
        let is_open = is_open(path);
        let threads = self.unknown.as_ref().filter(|_| !connection.is_known()).cloned();
        let request = request.map(|body| RequestBody::new(body, threads));
        let response = match kind {
            Kind::Page(page) => self.pages.answer(page, request.method(), request.headers()),
            Kind::Wrong(response) => response,
            Kind::Call => {
                let mut request = request.map(Body::new);
                request.extensions_mut().insert(Arc::clone(&connection));
                if is_open {
                    let response = self.open_calls.clone().call(request).await?;
                    return Ok(response.map(|body| ResponseBody::new(body, patience, open)));
                }
                let response = (self.calls)().call(request).await?;
                // It is noted once for each connection.
                if status::is_of_a_caller(&response) && connection.set_known() && !table.promote(&connection) {
                    connection.retire();
                }
                response
            }
        };
        Ok(response.map(|body| ResponseBody::new(body, patience, open)))
    }
}

/// Counts a request. Whatever its answer will be, its connection is busy if its caller has more than its share open: refusals
/// cost time, too.
fn begin(shares: &Shares, path: &str, connection: &Arc<OpenConnection>) -> OpenRequest {
    let open = connection.begin_request(is_open_stream(path) || path.starts_with(PATIENT));
    if connection.share().is_some_and(|share| shares.is_beyond(share)) {
        connection.set_busy();
    }
    open
}

/// Begins a connection's next turn, and counts the last one.
fn begin_turn(shares: &Shares, connection: &OpenConnection) {
    let bytes = connection.begin_turn();
    if connection.share().is_some_and(|share| shares.carry(share, bytes)) {
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
        shares.note_call(shares.of(Some("modest")));
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
