//! The application's services: decodes the message of a call, has its handler answer, and encodes the answer.
//!
//! Decides nothing about who may call.

use std::sync::{Arc, OnceLock};

use axum::body::{Body, Bytes};
use tokio::sync::watch;
use tonic::{
    Status,
    codec::{Codec as _, EncodeBody, SingleMessageCompressionOverride},
};

use super::{
    call_context::CallContext,
    codec::SmallBuffers,
    invalidation::InvalidationApi,
    lists::ListApi,
    message::{decode, encode},
    method::Method,
    permission::PermissionApi,
    proto::{WatchRequest, WatchResponse},
    watch::WatchApi,
};

/// The services that the application provides once it has started.
#[derive(Clone)]
pub struct Apis {
    /// `PermissionService`, apart from lists.
    pub permissions: PermissionApi,
    /// The lists of `PermissionService`.
    pub lists: ListApi,
    /// `InvalidationService`.
    pub invalidation: InvalidationApi,
    /// `WatchService`.
    pub watch: WatchApi,
}

/// The same services, once they have started.
pub(super) struct Services {
    permissions: PermissionApi,
    lists: ListApi,
    invalidation: InvalidationApi,
    watch: WatchApi,
}

/// The services, as soon as the application has started.
pub(super) struct Started {
    apis: watch::Receiver<Option<Apis>>,
    is_draining: watch::Receiver<bool>,
    services: OnceLock<Arc<Services>>,
}

impl Started {
    pub(super) fn new(apis: watch::Receiver<Option<Apis>>, is_draining: watch::Receiver<bool>) -> Self {
        Self { apis, is_draining, services: OnceLock::new() }
    }

    /// The services; none before the start. No task stands between the application and this: a call that comes after the health state
    /// `ready` is answered.
    pub(super) fn get(&self) -> Option<&Arc<Services>> {
        if let Some(services) = self.services.get() {
            return Some(services);
        }
        let apis = self.apis.borrow().clone()?;
        Some(self.services.get_or_init(|| Arc::new(Services::new(apis, self.is_draining.clone()))))
    }
}

/// The answer to a call.
pub(super) enum Answered {
    /// The only message, with its prefix.
    Message(Bytes),
    /// A stream of messages, with the status at its end.
    Stream(Body),
}

impl Services {
    /// The services, whose streams end once this is true.
    pub(super) fn new(apis: Apis, is_draining: watch::Receiver<bool>) -> Self {
        let Apis { permissions, lists, invalidation, watch } = apis;
        Self { permissions, lists, invalidation, watch: watch.until(is_draining) }
    }

    /// Answers a call with this message.
    ///
    /// # Errors
    /// It is no message of the method, or the handler's status.
    pub(super) async fn answer(
        &self,
        method: Method,
        message: &[u8],
        context: &CallContext,
    ) -> Result<Answered, Status> {
        let Self { permissions, lists, invalidation, watch } = self;
        // Boxed where a call is rare: the others need less memory then.
        let answer = match method {
            Method::Check => permissions.check(message, context).await?,
            Method::BatchCheck => permissions.batch_check(message, context).await?,
            Method::ListPermissions => encode(&permissions.list_permissions(decode(message)?, context).await?),
            Method::Explain => encode(&Box::pin(permissions.explain(decode(message)?, context)).await?),
            Method::PlanFilter => encode(&Box::pin(lists.plan_filter(decode(message)?, context)).await?),
            Method::ListResources => encode(&Box::pin(lists.list_resources(decode(message)?, context)).await?),
            Method::ListSubjects => encode(&Box::pin(lists.list_subjects(decode(message)?, context)).await?),
            Method::Invalidate => encode(&Box::pin(invalidation.invalidate(decode(message)?, context)).await?),
            Method::Watch => {
                let stream = Box::pin(watch.watch(decode(message)?, context)).await?;
                let encoder = SmallBuffers::<WatchResponse, WatchRequest>::default().encoder();
                let whole = SingleMessageCompressionOverride::default();
                return Ok(Answered::Stream(Body::new(EncodeBody::new_server(encoder, stream, None, whole, None))));
            }
        };
        Ok(Answered::Message(answer))
    }
}
