//! A future that is carried to its end, also when its owner drops it half-way.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;

/// Runs on its owner's task, so that it costs no hand-over; dropped before its end, it goes on as a task of its own.
///
/// What was never polled has not begun and is dropped for good. What has begun may hold the writer's turn: an owner
/// that neither polls nor drops it, and waits for another write instead, waits for ever.
pub(super) struct Finishing<T: Send + 'static> {
    rest: Option<Pin<Box<dyn Future<Output = T> + Send>>>,
    has_begun: bool,
    runtime: Handle,
}

impl<T: Send + 'static> Finishing<T> {
    pub(super) fn new(whole: impl Future<Output = T> + Send + 'static, runtime: Handle) -> Self {
        Self { rest: Some(Box::pin(whole)), has_begun: false, runtime }
    }
}

impl<T: Send + 'static> Future for Finishing<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        self.has_begun = true;
        // Taken out while it runs: one that panics must not be polled again when this is dropped.
        let mut rest = self.rest.take().expect("a future is not polled after its end");
        let poll = rest.as_mut().poll(context);
        if poll.is_pending() {
            self.rest = Some(rest);
        }
        poll
    }
}

impl<T: Send + 'static> Drop for Finishing<T> {
    fn drop(&mut self) {
        if let Some(rest) = self.rest.take().filter(|_| self.has_begun) {
            drop(self.runtime.spawn(rest));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn what_has_begun_comes_to_its_end() {
        let (go, gone) = oneshot::channel::<()>();
        let (tell, told) = oneshot::channel();
        let whole = async move {
            gone.await.expect("the test lets it go on");
            tell.send(7).expect("the test listens");
        };
        let mut finishing = Finishing::new(whole, Handle::current());
        assert!(Pin::new(&mut finishing).poll(&mut Context::from_waker(Waker::noop())).is_pending());
        drop(finishing);
        go.send(()).expect("it is still there");
        assert_eq!(told.await, Ok(7));
    }

    #[tokio::test]
    async fn what_was_never_polled_does_not_begin() {
        let (tell, told) = oneshot::channel();
        drop(Finishing::new(async move { tell.send(7) }, Handle::current()));
        assert!(told.await.is_err());
    }
}
