//! The calls that require a token, where tokens are required. Each passes admission, then intake, which has the services
//! answer it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::http::{Request, Response};
use tokio::time::timeout_at;
use tonic::Status;

use super::{
    callers::Admission,
    health::Current,
    intake::Intake,
    method::Method,
    open_connection::OpenConnection,
    request_body::{RequestBody, Rest},
    response_body::CallBody,
    services::Started,
    status,
};

/// The calls of one port.
pub(super) struct Calls {
    pub(super) admission: Arc<Admission>,
    pub(super) intake: Intake,
    pub(super) current: Current,
    /// None on a port that has no services.
    pub(super) services: Option<Started>,
    pub(super) request_timeout: Duration,
}

impl Calls {
    /// Answers a call whose head arrived then.
    pub(super) async fn answer<B: Rest>(
        &self,
        request: Request<RequestBody<B>>,
        began: Instant,
        connection: &Arc<OpenConnection>,
    ) -> Response<CallBody> {
        self.try_answer(request, began, connection).await.unwrap_or_else(Status::into_http)
    }

    async fn try_answer<B: Rest>(
        &self,
        request: Request<RequestBody<B>>,
        began: Instant,
        connection: &Arc<OpenConnection>,
    ) -> Result<Response<CallBody>, Status> {
        let path = request.uri().path();
        let admitted = self.admission.admit(path, request.headers(), connection)?;
        let unknown = || Status::unimplemented("there is no such method here");
        let services = self.services.as_ref().ok_or_else(unknown)?;
        let services = services.get().ok_or_else(|| status::unavailable(&self.current.now().describe()))?;
        let method = Method::at(path).ok_or_else(unknown)?;
        // This bounds the arrival of the request's body too, whatever timeout the request itself names. The inner future has no name,
        // because the outer one would reserve room for it twice.
        let late = |_| Status::deadline_exceeded("the request did not arrive in time");
        timeout_at(
            (began + self.request_timeout).into(),
            self.intake.answer(method, (request, began), connection, admitted.caller.as_ref(), services),
        )
        .await
        .map_err(late)?
    }
}
