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
    open_calls::is_open,
    open_connection::{OpenConnection, OpenRequest},
    request_body::RequestBody,
    response_body::{Patience, ResponseBody},
    status,
};

/// Returns the router that answers the next call. It is called for each call, because the router changes once the
/// application has started.
pub(super) type CurrentRouter = Box<dyn Fn() -> Router + Send + Sync>;

/// The prefix of the paths whose responses may wait for their clients: each stream of `WatchService` has a bounded buffer.
const PATIENT: &str = "/permcached.v1.WatchService/";

/// The entrance of a port.
pub(super) struct Entrance {
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
    /// Counts a request of this connection from its arrival on, before it has its turn.
    pub(super) fn begin(request: &Request<Incoming>, connection: &Arc<OpenConnection>) -> OpenRequest {
        let path = request.uri().path();
        connection.begin_request(is_open(path) || path.starts_with(PATIENT))
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
