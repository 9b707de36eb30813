//! One piece of work between its caller and whoever answers it: whether it was looked at, and the answer.
//!
//! Both sides share one allocation. A command crosses threads twice, and each further piece of memory that goes with it
//! is given back by another thread than took it, which costs as much as a tenth of the decision.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use super::shared::Permit;
use crate::error::NotAttempted;

const WAITING: u8 = 0;
const STARTED: u8 = 1;
const ABANDONED: u8 = 2;

/// What both sides share.
#[derive(Debug)]
struct Call<T> {
    /// Decides, between the caller's timer and the actor, whether the work was looked at.
    state: AtomicU8,
    deadline: Instant,
    mail: Mutex<Mail<T>>,
}

/// The way of the answer.
#[derive(Debug)]
enum Mail<T> {
    /// Nobody has asked yet.
    Quiet,
    /// The caller waits.
    Wanted(Waker),
    /// It is there.
    Given(T),
    /// Nobody will answer, or the answer was taken.
    Closed,
}

impl<T> Call<T> {
    /// Moves on from `WAITING`; returns the state before.
    fn become_state(&self, state: u8) -> u8 {
        match self.state.compare_exchange(WAITING, state, Ordering::AcqRel, Ordering::Acquire) {
            Ok(before) | Err(before) => before,
        }
    }

    fn mail(&self) -> MutexGuard<'_, Mail<T>> {
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn post(&self, mail: Mail<T>) {
        let before = std::mem::replace(&mut *self.mail(), mail);
        if let Mail::Wanted(waker) = before {
            waker.wake();
        }
    }
}

/// The answering side. A caller who has gone is no error: nobody is left to tell. Dropped without an answer, it lets
/// the caller know that there will be none.
#[derive(Debug)]
pub(crate) struct Answer<T> {
    call: Option<Arc<Call<T>>>,
    permit: Option<Permit>,
}

/// The caller's side. Dropped, it takes the work back if nobody has looked at it yet.
#[derive(Debug)]
pub(crate) struct Waiting<T>(Arc<Call<T>>);

/// No answer will come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unanswered;

/// Opens a call that should be answered by a deadline and holds a place among the work in flight until it is.
pub(crate) fn open<T>(deadline: Instant, permit: Permit) -> (Waiting<T>, Answer<T>) {
    let call = Arc::new(Call { state: AtomicU8::new(WAITING), deadline, mail: Mutex::new(Mail::Quiet) });
    (Waiting(Arc::clone(&call)), Answer { call: Some(call), permit: Some(permit) })
}

impl<T> Answer<T> {
    /// Takes the work up; an error when the caller has gone or the deadline has passed.
    pub(super) fn start(&self) -> Result<(), NotAttempted> {
        let Some(call) = &self.call else { return Err(NotAttempted::DeadlineExceeded) };
        if Instant::now() >= call.deadline {
            call.become_state(ABANDONED);
        }
        if call.become_state(STARTED) == ABANDONED { Err(NotAttempted::DeadlineExceeded) } else { Ok(()) }
    }

    /// Answers. The place among the work in flight is free before the caller hears it.
    pub(super) fn give(mut self, value: T) {
        drop(self.permit.take());
        if let Some(call) = self.call.take() {
            call.post(Mail::Given(value));
        }
    }
}

impl<T> Drop for Answer<T> {
    fn drop(&mut self) {
        if let Some(call) = &self.call {
            drop(self.permit.take());
            call.post(Mail::Closed);
        }
    }
}

impl<T> Waiting<T> {
    /// The caller gives up; `true` when nobody has looked at the work and nobody will.
    pub(crate) fn abandon(&self) -> bool {
        self.0.become_state(ABANDONED) != STARTED
    }

    /// Returns the moment by which it should be answered.
    pub(crate) fn deadline(&self) -> Instant {
        self.0.deadline
    }

    /// Looks for the answer, and asks to be woken when there is none yet.
    pub(crate) fn poll(&self, context: &Context<'_>) -> Poll<Result<T, Unanswered>> {
        let mut mail = self.0.mail();
        match &mut *mail {
            Mail::Wanted(waker) => {
                waker.clone_from(context.waker());
                Poll::Pending
            }
            Mail::Quiet => {
                *mail = Mail::Wanted(context.waker().clone());
                Poll::Pending
            }
            Mail::Given(_) | Mail::Closed => match std::mem::replace(&mut *mail, Mail::Closed) {
                Mail::Given(value) => Poll::Ready(Ok(value)),
                _ => Poll::Ready(Err(Unanswered)),
            },
        }
    }
}

impl<T> Drop for Waiting<T> {
    fn drop(&mut self) {
        self.abandon();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::super::shared::InFlight;
    use super::*;

    fn call(deadline: Instant) -> (Waiting<u8>, Answer<u8>, Arc<InFlight>) {
        let in_flight = InFlight::new(1);
        let (waiting, answer) = open(deadline, in_flight.enter().expect("room"));
        (waiting, answer, in_flight)
    }

    fn later() -> Instant {
        Instant::now() + Duration::from_hours(1)
    }

    async fn heard(waiting: &Waiting<u8>) -> Result<u8, Unanswered> {
        poll_fn(|context| waiting.poll(context)).await
    }

    #[test]
    fn either_the_caller_gives_up_or_the_work_starts() {
        let (waiting, answer, _) = call(later());
        assert_eq!(answer.start(), Ok(()));
        assert!(!waiting.abandon(), "it has started");
        let (waiting, answer, _) = call(later());
        assert!(waiting.abandon());
        assert_eq!(answer.start(), Err(NotAttempted::DeadlineExceeded));
        let (waiting, answer, _) = call(later());
        drop(waiting);
        assert_eq!(
            answer.start(),
            Err(NotAttempted::DeadlineExceeded),
            "a caller who has gone wants nothing"
        );
    }

    #[test]
    fn work_whose_deadline_has_passed_does_not_start() {
        let (waiting, answer, _) = call(Instant::now());
        assert_eq!(answer.start(), Err(NotAttempted::DeadlineExceeded));
        assert!(waiting.abandon());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_answer_is_heard_before_and_after_it_is_waited_for() {
        let (waiting, answer, _) = call(later());
        answer.give(7);
        assert_eq!(heard(&waiting).await, Ok(7));
        assert_eq!(heard(&waiting).await, Err(Unanswered), "it is given once");
        let (waiting, answer, _) = call(later());
        let listener = tokio::spawn(async move { heard(&waiting).await });
        tokio::task::yield_now().await;
        answer.give(8);
        assert_eq!(listener.await.expect("no panic"), Ok(8));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_caller_hears_that_nobody_will_answer() {
        let (waiting, answer, in_flight) = call(later());
        let listener = tokio::spawn(async move { heard(&waiting).await });
        tokio::task::yield_now().await;
        drop(answer);
        assert_eq!(listener.await.expect("no panic"), Err(Unanswered));
        assert_eq!(in_flight.now(), 0);
    }

    #[tokio::test]
    async fn the_place_in_flight_is_free_before_the_answer_is_heard() {
        let (waiting, answer, in_flight) = call(later());
        assert_eq!(in_flight.now(), 1);
        answer.give(1);
        assert_eq!(in_flight.now(), 0);
        assert_eq!(heard(&waiting).await, Ok(1));
    }
}
