//! Who may call: services, each known by a token and bounded by a scope.
//!
//! One place decides for every method: what is not known to need less needs the most. Health, reflection and HTTP need nothing.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use axum::{
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header::AUTHORIZATION},
    middleware::Next,
    response::{IntoResponse, Response},
};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::{sync::Semaphore, time::timeout};
use tonic::{Code, Status, body::Body};

use super::{http::is_call, server::Limits, status};
use crate::telemetry::RateLimitedLog;

/// The name of who is not asked for a token.
pub(super) const ANONYMOUS: &str = "anonymous";

/// What begins the paths that take no token: probes, descriptions and metrics.
const OPEN: [&str; 5] = ["/grpc.health.v1.", "/grpc.reflection.", "/healthz", "/readyz", "/metrics"];

/// The methods for which the scope check is enough.
const CHECKS: [&str; 3] = [
    "/permcached.v1.PermissionService/Check",
    "/permcached.v1.PermissionService/BatchCheck",
    "/permcached.v1.PermissionService/ListPermissions",
];

/// Keeps those who are refused from flooding the log. Calls that take the scope admin are all logged.
static REFUSALS: RateLimitedLog = RateLimitedLog::per_second(10);

/// What a caller may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// `Check`, `BatchCheck` and `ListPermissions`.
    Check,
    /// All that, and `Explain`, `Invalidate` and `Watch`.
    Admin,
}

impl Scope {
    /// The name in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::Admin => "admin",
        }
    }
}

/// A service that may call.
#[derive(Clone)]
pub struct Caller {
    /// Its name, in logs.
    pub name: Arc<str>,
    /// What it may do.
    pub scope: Scope,
    /// The hash of its secret, which itself is kept nowhere.
    secret: [u8; 32],
}

impl Caller {
    /// A caller with a secret.
    #[must_use]
    pub fn new(name: &str, secret: &str, scope: Scope) -> Self {
        Self { name: name.into(), scope, secret: Sha256::digest(secret).into() }
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:(hidden):{}", self.name, self.scope.as_str())
    }
}

/// All that may call.
#[derive(Clone, Debug)]
pub enum Callers {
    /// Whoever reaches the port.
    Anyone,
    /// These, by their tokens. One may have several, for their rotation.
    Known(Arc<[Caller]>),
}

impl Callers {
    /// Who it is that sends this `authorization`, if anybody.
    fn find(callers: &[Caller], authorization: &[u8]) -> Option<Caller> {
        let token = authorization.strip_prefix(b"Bearer ").or_else(|| authorization.strip_prefix(b"bearer "))?;
        let secret: [u8; 32] = Sha256::digest(token).into();
        // Each is looked at, whichever it is: how long that takes tells nothing.
        let matching = callers.iter().filter(|caller| bool::from(caller.secret.ct_eq(&secret)));
        matching.max_by_key(|caller| caller.scope).cloned()
    }

    /// Whether a request to this path may go on, and as whose.
    fn admit(&self, path: &str, authorization: Option<&[u8]>) -> Result<Option<Caller>, Status> {
        if OPEN.iter().any(|open| path.starts_with(open)) {
            return Ok(None);
        }
        let needed = if CHECKS.contains(&path) { Scope::Check } else { Scope::Admin };
        let caller = self.known(authorization)?;
        let name = caller.as_ref().map_or(ANONYMOUS, |caller| &*caller.name);
        if caller.as_ref().is_some_and(|caller| caller.scope < needed) {
            if let Some(suppressed) = REFUSALS.admit() {
                tracing::warn!(caller = name, path, suppressed, "refused: this takes the scope admin");
            }
            return Err(Status::permission_denied("this takes a token with the scope admin"));
        }
        if needed == Scope::Admin {
            tracing::info!(caller = name, path, "an admin call");
        }
        Ok(caller)
    }

    /// Who it is that sends this `authorization`, where that has to be known.
    fn known(&self, authorization: Option<&[u8]>) -> Result<Option<Caller>, Status> {
        let Self::Known(callers) = self else { return Ok(None) };
        let Some(authorization) = authorization else {
            return Err(Status::unauthenticated("no token: send `authorization: Bearer <token>`"));
        };
        let caller = Self::find(callers, authorization);
        if caller.is_none()
            && let Some(suppressed) = REFUSALS.admit()
        {
            tracing::warn!(suppressed, "refused: a token that is not known");
        }
        let unknown = || Status::unauthenticated("the token is not one of AUTH_TOKENS or AUTH_ADMIN_TOKENS");
        caller.map(Some).ok_or_else(unknown)
    }
}

/// Who may call, and how much of the port each has. Clones share it.
#[derive(Clone)]
pub(super) struct Admission {
    callers: Callers,
    /// What is left of each caller's requests, by name.
    rooms: Arc<HashMap<Arc<str>, Semaphore>>,
    /// What is left of the requests of those who are not known.
    others: Arc<Semaphore>,
    request_time: Duration,
}

impl Admission {
    pub(super) fn new(callers: Callers, limits: Limits) -> Self {
        let names = match &callers {
            Callers::Anyone => &[],
            Callers::Known(callers) => &**callers,
        };
        let room = |caller: &Caller| (Arc::clone(&caller.name), Semaphore::new(limits.caller_requests_max));
        let rooms = Arc::new(names.iter().map(room).collect());
        let others = Arc::new(Semaphore::new(limits.requests_max));
        Self { callers, rooms, others, request_time: limits.request_time }
    }

    fn room(&self, caller: Option<&Caller>) -> &Semaphore {
        caller.and_then(|caller| self.rooms.get(&caller.name)).unwrap_or(&self.others)
    }
}

/// Lets a request go on if its caller may send it, and has not too many under way. The caller is handed on with it.
pub(super) async fn admit(State(admission): State<Admission>, mut request: Request, next: Next) -> Response {
    let is_call = is_call(&request);
    let authorization = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes);
    let caller = match admission.callers.admit(request.uri().path(), authorization) {
        Ok(caller) => caller,
        Err(status) => return refusal(status, is_call),
    };
    let Ok(_permit) = admission.room(caller.as_ref()).try_acquire() else {
        return refusal(status::overloaded(), is_call);
    };
    if let Some(caller) = caller {
        request.extensions_mut().insert(caller);
    }
    // Also the request itself has to arrive in that time, whatever it says of its own.
    match timeout(admission.request_time, next.run(request)).await {
        Ok(response) => response,
        Err(_) => refusal(Status::deadline_exceeded("the request did not arrive in time"), is_call),
    }
}

/// A refusal as who asks understands it: who probes must not take it for a yes.
fn refusal(status: Status, is_call: bool) -> Response {
    if is_call {
        return status.into_http::<Body>().map(axum::body::Body::new);
    }
    let code = match status.code() {
        // Whatever there is for who asks without gRPC takes no token.
        Code::Unauthenticated | Code::PermissionDenied => return StatusCode::NOT_FOUND.into_response(),
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::DeadlineExceeded => StatusCode::REQUEST_TIMEOUT,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (code, status.message().to_owned()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn callers() -> Callers {
        let known = [
            Caller::new("backend", "old", Scope::Check),
            Caller::new("backend", "new", Scope::Check),
            Caller::new("operator", "root", Scope::Admin),
        ];
        Callers::Known(known.into())
    }

    fn code(path: &str, authorization: Option<&str>) -> Option<Code> {
        callers().admit(path, authorization.map(str::as_bytes)).err().map(|status| status.code())
    }

    #[test]
    fn each_method_takes_a_token_with_its_scope_and_what_is_unknown_takes_the_most() {
        let check = "/permcached.v1.PermissionService/Check";
        for token in ["Bearer old", "Bearer new", "bearer new", "Bearer root"] {
            assert_eq!(code(check, Some(token)), None, "{token}");
        }
        for token in [None, Some("new"), Some("Bearer "), Some("Bearer newer"), Some("Basic new"), Some("")] {
            assert_eq!(code(check, token), Some(Code::Unauthenticated), "{token:?}");
        }
        for path in [
            "/permcached.v1.PermissionService/Explain",
            "/permcached.v1.InvalidationService/Invalidate",
            "/permcached.v1.WatchService/Watch",
            "/permcached.v1.PermissionService/Unheard",
            "/permcached.v1.PermissionService/Check/",
        ] {
            assert_eq!(code(path, Some("Bearer new")), Some(Code::PermissionDenied), "{path}");
            assert_eq!(code(path, Some("Bearer root")), None, "{path}");
        }
        for path in ["/grpc.health.v1.Health/Check", "/grpc.reflection.v1.ServerReflection/X", "/metrics", "/healthz"] {
            assert_eq!(code(path, None), None, "{path}");
        }
    }

    #[test]
    fn no_secret_is_shown() {
        let shown = format!("{:?}", callers());
        assert!(shown.contains("operator") && !shown.contains("root"), "{shown}");
    }
}
