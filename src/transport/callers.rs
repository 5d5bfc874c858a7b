//! Who may call: services, each identified by a token and limited by a scope. One place decides for every method: a
//! method that is not listed requires the scope `admin`. Health, reflection and HTTP require no token, and do not come here.
//!
//! Does not know who a question's subject is, and believes the caller about it.

use std::{fmt, sync::Arc};

use axum::http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
use tokio::sync::OwnedSemaphorePermit;
use tonic::Status;

use super::{
    method::{Method, Scope},
    open_connection::OpenConnection,
    secret::HashedSecret,
    shares::Shares,
    status,
};
use crate::telemetry::RateLimitedLog;

/// The name of a caller who is not asked for a token.
pub(super) const ANONYMOUS: &str = "anonymous";

/// Limits log lines about refused requests. Admitted admin calls are all logged.
static REFUSALS: RateLimitedLog = RateLimitedLog::per_second(10);

/// A service that may call.
#[derive(Clone)]
pub struct Caller {
    /// Its name in logs and metrics.
    pub name: Arc<str>,
    /// What it may do.
    pub scope: Scope,
    secret: HashedSecret,
}

impl Caller {
    /// A caller with a secret.
    #[must_use]
    pub fn new(name: &str, secret: &str, scope: Scope) -> Self {
        Self { name: name.into(), scope, secret: HashedSecret::of(secret) }
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:(hidden):{}", self.name, self.scope.as_str())
    }
}

/// All callers.
#[derive(Clone, Debug)]
pub enum Callers {
    /// Anybody who reaches the port may call.
    Anyone,
    /// Only these callers, each with its token. Entries of the same name are one caller with several tokens, for rotation.
    Known(Arc<[Caller]>),
}

impl Callers {
    /// The name of each known caller. A caller with several tokens may be named several times.
    pub(super) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        let callers = match self {
            Self::Anyone => &[],
            Self::Known(callers) => &**callers,
        };
        callers.iter().map(|caller| &caller.name)
    }

    /// Whether a caller has this secret.
    #[cfg(test)]
    pub(crate) fn has_secret_for_tests(&self, secret: &str) -> bool {
        matches!(self, Self::Known(callers) if callers.iter().any(|caller| caller.secret.is(&HashedSecret::of(secret))))
    }

    /// The caller whose token this `authorization` header holds.
    fn find(callers: &[Caller], authorization: &[u8]) -> Option<Caller> {
        let sent = HashedSecret::sent(authorization)?;
        let matching = callers.iter().filter(|caller| caller.secret.is(&sent));
        matching.max_by_key(|caller| caller.scope).cloned()
    }

    /// Decides whether a call to this path may go on. Returns its caller, or `None` where no token is required.
    fn admit(&self, path: &str, authorization: Option<&[u8]>) -> Result<Option<Caller>, Status> {
        let required = Method::at(path).map_or(Scope::Admin, Method::scope);
        let caller = self.authenticate(authorization)?;
        let name = caller.as_ref().map_or(ANONYMOUS, |caller| &*caller.name);
        if caller.as_ref().is_some_and(|caller| caller.scope < required) {
            if let Some(suppressed) = REFUSALS.admit() {
                let scope = required.as_str();
                tracing::warn!(caller = name, path, suppressed, "refused: this call requires the scope {scope}");
            }
            let message = format!("this call requires a token with the scope {}", required.as_str());
            return Err(Status::permission_denied(message));
        }
        if required == Scope::Admin {
            tracing::info!(caller = name, path, "an admin call");
        }
        Ok(caller)
    }

    /// The caller who sends this `authorization` header, or `None` where anybody may call.
    fn authenticate(&self, authorization: Option<&[u8]>) -> Result<Option<Caller>, Status> {
        let Self::Known(callers) = self else { return Ok(None) };
        let Some(authorization) = authorization else {
            return Err(Status::unauthenticated("no token: send `authorization: Bearer <token>`"));
        };
        let caller = Self::find(callers, authorization);
        if caller.is_none()
            && let Some(suppressed) = REFUSALS.admit()
        {
            tracing::warn!(suppressed, "refused: unknown token");
        }
        let unknown = || Status::unauthenticated("the token is not one of AUTH_TOKENS or AUTH_ADMIN_TOKENS");
        caller.map(Some).ok_or_else(unknown)
    }
}

/// Who may call, and how many requests each caller has open.
pub(super) struct Admission {
    callers: Callers,
    shares: Arc<Shares>,
}

/// A call that may go on. It counts as open until this is dropped.
pub(super) struct Admitted {
    /// None where no token is required.
    pub(super) caller: Option<Arc<str>>,
    _open: OwnedSemaphorePermit,
}

impl Admission {
    pub(super) fn new(callers: Callers, shares: Arc<Shares>) -> Self {
        Self { callers, shares }
    }

    /// Admits a call to this path if its caller may send it and has not too many open.
    ///
    /// # Errors
    /// `UNAUTHENTICATED`, `PERMISSION_DENIED` or `RESOURCE_EXHAUSTED`.
    pub(super) fn admit(
        &self,
        path: &str,
        headers: &HeaderMap,
        connection: &OpenConnection,
    ) -> Result<Admitted, Status> {
        let caller = self.callers.admit(path, headers.get(AUTHORIZATION).map(HeaderValue::as_bytes))?;
        let share = self.shares.of(caller.as_ref().map(|caller| &*caller.name));
        let open = share.admit().ok_or_else(status::overloaded)?;
        self.shares.note_call(share, connection.turn());
        connection.set_share(share);
        Ok(Admitted { caller: caller.map(|caller| caller.name), _open: open })
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::{super::limits::Limits, *};

    fn callers() -> Callers {
        let known = [
            Caller::new("backend", "old", Scope::Check),
            Caller::new("backend", "new", Scope::Check),
            Caller::new("cache", "eyes", Scope::Watch),
            Caller::new("operator", "root", Scope::Admin),
        ];
        Callers::Known(known.into())
    }

    fn code(path: &str, authorization: Option<&str>) -> Option<Code> {
        callers().admit(path, authorization.map(str::as_bytes)).err().map(|status| status.code())
    }

    #[test]
    fn each_method_requires_a_token_with_its_scope_and_an_unknown_method_requires_admin() {
        let check = "/permcached.v1.PermissionService/Check";
        for token in ["Bearer old", "Bearer new", "bearer new", "Bearer eyes", "Bearer root"] {
            assert_eq!(code(check, Some(token)), None, "{token}");
        }
        for token in [None, Some("new"), Some("Bearer "), Some("Bearer newer"), Some("Basic new"), Some("")] {
            assert_eq!(code(check, token), Some(Code::Unauthenticated), "{token:?}");
        }
        let watch = "/permcached.v1.WatchService/Watch";
        assert_eq!(code(watch, Some("Bearer new")), Some(Code::PermissionDenied));
        assert_eq!([code(watch, Some("Bearer eyes")), code(watch, Some("Bearer root"))], [None, None]);
        for path in [
            "/permcached.v1.PermissionService/Explain",
            "/permcached.v1.InvalidationService/Invalidate",
            "/permcached.v1.PermissionService/Unknown",
            "/permcached.v1.PermissionService/Check/",
        ] {
            for token in ["Bearer new", "Bearer eyes"] {
                assert_eq!(code(path, Some(token)), Some(Code::PermissionDenied), "{path}");
            }
            assert_eq!(code(path, Some("Bearer root")), None, "{path}");
        }
    }

    #[test]
    fn the_requests_of_a_connection_count_for_the_caller_of_its_first_admitted_call() {
        let limits = Limits::default();
        let shares = Arc::new(Shares::new(callers().names(), limits.caller_requests_max, limits.requests_max));
        let admission = Admission::new(callers(), Arc::clone(&shares));
        let connection = OpenConnection::new(1);
        for (token, counts_for) in [("wrong", None), ("new", Some("backend")), ("root", Some("backend"))] {
            let token = HeaderValue::try_from(format!("Bearer {token}")).unwrap();
            let headers = HeaderMap::from_iter([(AUTHORIZATION, token.clone())]);
            let admitted = admission.admit(Method::Check.path(), &headers, &connection);
            assert_eq!(admitted.is_ok(), counts_for.is_some(), "{token:?}");
            let share = connection.share();
            assert_eq!(share.is_some(), counts_for.is_some(), "{token:?}");
            assert!(share.is_none_or(|share| Arc::ptr_eq(share, shares.of(counts_for))), "{token:?}");
        }
    }

    #[test]
    fn debug_output_shows_no_secret() {
        let shown = format!("{:?}", callers());
        assert!(shown.contains("operator") && !shown.contains("root"), "{shown}");
    }
}
