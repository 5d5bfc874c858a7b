//! Requests that have to give way to others, and do not end: their clients take nothing of the responses, so the responses are
//! never asked for what comes next. Such a request is reset, and what it holds is free again.
//!
//! Does not choose which request gives way (`capacity` does).

use std::{
    cell::Cell,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures::future::BoxFuture;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// How long a request that has to give way may take to end by itself, with a status.
const GIVE_WAY_TIME: Duration = Duration::from_millis(500);

thread_local! {
    /// What the request that this thread works at has been told to [end with](end_with).
    static END: Cell<Option<CancellationToken>> = const { Cell::new(None) };
}

/// The request that is being worked at is dropped a while after this token is cancelled, if it has not ended by then.
pub(super) fn end_with(token: CancellationToken) {
    END.set(Some(token));
}

/// A request, which ends early if it has to give way.
pub(super) struct UntilGivenWay {
    request: BoxFuture<'static, ()>,
    /// Completes when the request is dropped; none if it need not give way.
    given_way: Option<BoxFuture<'static, ()>>,
}

impl UntilGivenWay {
    pub(super) fn new(request: impl Future<Output = ()> + Send + 'static) -> Self {
        Self { request: Box::pin(request), given_way: None }
    }
}

impl Future for UntilGivenWay {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        END.set(None);
        let polled = self.request.as_mut().poll(context);
        if let Some(end) = END.take() {
            self.given_way = Some(Box::pin(async move {
                end.cancelled().await;
                sleep(GIVE_WAY_TIME).await;
            }));
        }
        match (polled, &mut self.given_way) {
            (Poll::Pending, Some(given_way)) => given_way.as_mut().poll(context),
            (polled, _) => polled,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use futures::FutureExt as _;
    use tokio::{sync::oneshot, task::yield_now};

    use super::*;

    #[tokio::test]
    async fn a_request_that_has_to_give_way_and_does_not_end_is_dropped() {
        let end = CancellationToken::new();
        let token = end.clone();
        let (alive, mut dropped) = oneshot::channel::<()>();
        let mut request = Box::pin(UntilGivenWay::new(async move {
            end_with(token);
            pending::<()>().await;
            drop(alive);
        }));
        assert!(request.as_mut().now_or_never().is_none());
        end.cancel();
        assert!(request.as_mut().now_or_never().is_none(), "it has time to end by itself");
        assert!(dropped.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Empty));
        request.await;
        assert!(dropped.await.is_err());
    }

    #[tokio::test]
    async fn a_request_that_ends_in_time_is_not_dropped_and_no_other_is() {
        let cancelled = CancellationToken::new();
        cancelled.cancel();
        // It is another request's.
        end_with(cancelled.clone());
        let (ends, ended) = oneshot::channel();
        let other = UntilGivenWay::new(async {
            sleep(2 * GIVE_WAY_TIME).await;
            let _nobody_waits = ends.send(7);
        });
        other.await;
        assert_eq!(ended.await, Ok(7));
        let (ends, ended) = oneshot::channel();
        let in_time = UntilGivenWay::new(async {
            end_with(cancelled);
            yield_now().await;
            let _nobody_waits = ends.send(8);
        });
        in_time.await;
        assert_eq!(ended.await, Ok(8));
    }
}
