//! Connections: accepts them, bounds them, and lets them finish.
//!
//! A connection costs a file and some memory for as long as its client likes, so each of them is on a leash:
//!
//! * A client has [`ConnectionLimits::head_time_max`] to send a request's head. The same time ends a connection that
//!   stays open without a request.
//! * At most [`ConnectionLimits::connections_max`] are open. When one more comes, the one that has waited longest
//!   for its client is closed to make room, so thousands of silent connections cannot keep anybody out. When every
//!   connection is being served, the newcomer waits until one ends; those behind it wait in the system's queue.
//! * A client that does not read its answer is cut off by the kernel after the same `head_time_max` (on Linux).
//!
//! A client that closes its sending side after the request still gets the answer.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use axum::Router;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

/// How much connections may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_field_names, reason = "a setting's name ends with its bound")]
pub(crate) struct ConnectionLimits {
    /// Connections open at once, at least 1. Default 8,192: some 100 MB when each holds a full head.
    pub(crate) connections_max: usize,
    /// How long a client may take to send a request's head, and how long a connection may wait for a request.
    /// At least 1 ms; default 15 s, which a person on a bad line can keep.
    pub(crate) head_time_max: Duration,
    /// Bytes of a request's head, at least 8,192. Default 16,384; over it the answer is 431.
    pub(crate) head_bytes_max: usize,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self { connections_max: 8_192, head_time_max: Duration::from_secs(15), head_bytes_max: 16 << 10 }
    }
}

/// How long a client has to read its last answer before a connection that must end is cut.
const PARTING_TIME: Duration = Duration::from_millis(250);

/// How long accepting rests when the system has no file left for a connection.
const NO_FILE_PAUSE: Duration = Duration::from_millis(50);

/// Serves `router` on `listener` until `stop` is cancelled; then stops accepting and waits until every request that
/// was begun is answered. The caller bounds that wait.
///
/// # Cancel safety
/// Dropping the future stops accepting; connections that are open go on until their clients leave.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    limits: ConnectionLimits,
    stop: CancellationToken,
) {
    let seats = Seats::new(limits.connections_max);
    let tracker = TaskTracker::new();
    while let Some((stream, seat)) = next_connection(&listener, &seats, &stop).await {
        tracker.spawn(carry(stream, router.clone(), seat, limits, stop.clone()));
    }
    drop(listener);
    tracker.close();
    tracker.wait().await;
}

/// Returns the next connection with its seat; `None` when it is time to stop.
async fn next_connection(
    listener: &TcpListener,
    seats: &Arc<Seats>,
    stop: &CancellationToken,
) -> Option<(TcpStream, Seat)> {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return None,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                recover_from(&error, seats).await;
                continue;
            }
        };
        return tokio::select! {
            seat = seats.take() => Some((stream, seat)),
            () = stop.cancelled() => None,
        };
    }
}

/// A client that left before it was accepted costs nothing. Anything else means that files have run out: closing a
/// waiting connection gives one back.
async fn recover_from(error: &io::Error, seats: &Seats) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    if matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
        return;
    }
    tracing::warn!(%error, "a connection could not be accepted; closing the longest-waiting one");
    seats.make_room();
    tokio::time::sleep(NO_FILE_PAUSE).await;
}

/// Serves one connection from its first byte to its last.
async fn carry(
    stream: TcpStream,
    router: Router,
    seat: Seat,
    limits: ConnectionLimits,
    stop: CancellationToken,
) {
    prepare(&stream, limits.head_time_max);
    let seat = Arc::new(seat);
    let served = Arc::clone(&seat);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let (mut router, seat) = (router.clone(), Arc::clone(&served));
        async move {
            let _serving = seat.serving();
            let response: Result<Response, Infallible> = router.call(request).await;
            response
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_time_max)
        .max_buf_size(limits.head_bytes_max)
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        // How a client leaves, politely or not, is its own affair.
        _ = connection.as_mut() => return,
        () = seat.asked_to_leave.cancelled() => {}
        () = stop.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    // What is being served is finished; a head that never ends is not waited for.
    let mut patience = if stop.is_cancelled() { PARTING_TIME } else { seat.unread_for() };
    while !ends_within(patience, connection.as_mut()).await && !seat.is_waiting() {
        patience = PARTING_TIME;
    }
}

/// Tells whether a connection ends in time. No time at all is one look: a timer would cost milliseconds, and those who
/// make room for a newcomer are many when it matters.
async fn ends_within(patience: Duration, connection: impl Future) -> bool {
    let mut connection = std::pin::pin!(connection);
    if patience.is_zero() {
        return poll_fn(|context| Poll::Ready(connection.as_mut().poll(context).is_ready())).await;
    }
    tokio::time::timeout(patience, connection).await.is_ok()
}

fn prepare(stream: &TcpStream, answer_unread_max: Duration) {
    // Answers are small and complete: waiting to fill a packet only delays them. Neither option is worth a refusal.
    let _ = stream.set_nodelay(true);
    #[cfg(target_os = "linux")]
    let _ = socket2::SockRef::from(stream).set_tcp_user_timeout(Some(answer_unread_max));
    #[cfg(not(target_os = "linux"))]
    let _ = answer_unread_max;
}

/// The bound on connections, and the order in which those that wait for their clients must go.
struct Seats {
    free: Arc<Semaphore>,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    /// Grows with every entry, so that the first entry is the one that has waited longest. 0 is no entry.
    last: u64,
    entries: BTreeMap<u64, CancellationToken>,
}

impl Seats {
    fn new(connections_max: usize) -> Arc<Self> {
        let free = Arc::new(Semaphore::new(connections_max.clamp(1, Semaphore::MAX_PERMITS)));
        Arc::new(Self { free, waiting: Mutex::default() })
    }

    /// Takes a seat, from the connection that has waited longest for its client if there is no other.
    async fn take(self: &Arc<Self>) -> Seat {
        let free = Arc::clone(&self.free);
        let permit = if let Ok(permit) = Arc::clone(&free).try_acquire_owned() {
            permit
        } else {
            self.make_room();
            free.acquire_owned().await.expect("the semaphore is never closed")
        };
        let asked_to_leave = CancellationToken::new();
        let entry = AtomicU64::new(self.enter(asked_to_leave.clone()));
        Seat {
            seats: Arc::clone(self),
            entry,
            asked_to_leave,
            answered_at: Mutex::default(),
            _permit: permit,
        }
    }

    fn make_room(&self) {
        if let Some((_, asked_to_leave)) = self.waiting().entries.pop_first() {
            asked_to_leave.cancel();
        }
    }

    fn enter(&self, asked_to_leave: CancellationToken) -> u64 {
        let mut waiting = self.waiting();
        waiting.last += 1;
        let entry = waiting.last;
        waiting.entries.insert(entry, asked_to_leave);
        entry
    }

    fn leave(&self, entry: u64) {
        self.waiting().entries.remove(&entry);
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Waiting> {
        // Nothing that can panic happens under the lock, so a poisoned one is still whole.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection's place among the others.
struct Seat {
    seats: Arc<Seats>,
    /// Its entry in the list of those that wait; 0 while a request is being served.
    entry: AtomicU64,
    asked_to_leave: CancellationToken,
    /// When the last answer was ready, if there was one: it may still be on its way.
    answered_at: Mutex<Option<Instant>>,
    _permit: OwnedSemaphorePermit,
}

impl Seat {
    /// Marks the connection as busy until the guard is dropped.
    fn serving(&self) -> Serving<'_> {
        self.seats.leave(self.entry.swap(0, Ordering::AcqRel));
        Serving { seat: self }
    }

    /// How much longer the client may take to read its last answer. Most have had that time long ago, so a newcomer
    /// that takes their place need not wait for it.
    fn unread_for(&self) -> Duration {
        let answered_at = self.answered_at.lock().unwrap_or_else(PoisonError::into_inner);
        answered_at.map_or(Duration::ZERO, |at| PARTING_TIME.saturating_sub(at.elapsed()))
    }

    fn is_waiting(&self) -> bool {
        self.entry.load(Ordering::Acquire) != 0
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.leave(self.entry.swap(0, Ordering::AcqRel));
    }
}

struct Serving<'a> {
    seat: &'a Seat,
}

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        *self.seat.answered_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        let entry = self.seat.seats.enter(self.seat.asked_to_leave.clone());
        self.seat.entry.store(entry, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_longest_waiting_connection_makes_room() {
        let seats = Seats::new(2);
        let (first, second) = (seats.take().await, seats.take().await);
        let third = tokio::spawn({
            let seats = Arc::clone(&seats);
            async move { seats.take().await }
        });
        first.asked_to_leave.cancelled().await;
        assert!(!second.asked_to_leave.is_cancelled());
        drop(first);
        third.await.expect("takes the seat that became free");
    }

    #[tokio::test]
    async fn a_connection_that_is_being_served_is_not_asked_to_leave() {
        let seats = Seats::new(2);
        let (first, second) = (seats.take().await, seats.take().await);
        let serving = first.serving();
        seats.make_room();
        assert!(!first.asked_to_leave.is_cancelled());
        assert!(second.asked_to_leave.is_cancelled());
        drop(serving);
        seats.make_room();
        assert!(first.asked_to_leave.is_cancelled(), "it waits again");
    }

    #[tokio::test]
    async fn a_seat_that_is_given_back_leaves_nothing_behind() {
        let seats = Seats::new(1);
        for _ in 0..3 {
            let seat = seats.take().await;
            drop(seat.serving());
            drop(seat);
        }
        assert!(seats.waiting().entries.is_empty());
        assert_eq!(seats.free.available_permits(), 1);
    }
}
