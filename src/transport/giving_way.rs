//! Requests that have to give way to others, and do not end: their clients take nothing of the responses, so the responses are
//! never asked for what comes next. Such a request is reset, and what it holds is free again.
//!
//! Does not choose which request gives way (`capacity` does).

use std::{cell::Cell, future::poll_fn, pin::pin, task::Poll, time::Duration};

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

/// Works at a request until it ends or has to give way: returns none then.
pub(super) async fn until_given_way<F: Future>(request: F) -> Option<F::Output> {
    let mut request = pin!(request);
    let mut given_way = pin!(None);
    poll_fn(|context| {
        END.set(None);
        let polled = request.as_mut().poll(context);
        if let Some(end) = END.take() {
            given_way.set(Some(async move {
                end.cancelled().await;
                sleep(GIVE_WAY_TIME).await;
            }));
        }
        if let Poll::Ready(output) = polled {
            return Poll::Ready(Some(output));
        }
        given_way.as_mut().as_pin_mut().map_or(Poll::Pending, |given_way| given_way.poll(context)).map(|()| None)
    })
    .await
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
        let mut request = Box::pin(until_given_way(async move {
            end_with(token);
            pending::<()>().await;
            drop(alive);
        }));
        assert!(request.as_mut().now_or_never().is_none());
        end.cancel();
        assert!(request.as_mut().now_or_never().is_none(), "it has time to end by itself");
        assert!(dropped.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Empty));
        assert_eq!(request.await, None);
        assert!(dropped.await.is_err());
    }

    #[tokio::test]
    async fn a_request_that_ends_in_time_is_not_dropped_and_no_other_is() {
        let cancelled = CancellationToken::new();
        cancelled.cancel();
        // It is another request's.
        end_with(cancelled.clone());
        let other = until_given_way(async {
            sleep(2 * GIVE_WAY_TIME).await;
            7
        });
        assert_eq!(other.await, Some(7));
        let in_time = until_given_way(async {
            end_with(cancelled);
            yield_now().await;
            8
        });
        assert_eq!(in_time.await, Some(8));
    }
}
