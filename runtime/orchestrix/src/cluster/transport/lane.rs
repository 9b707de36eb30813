//! One connection to a peer, made again when it breaks, and the calls that wait for it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Instant;

use bytes::Bytes;
use orchestrix_core::Incarnation;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::link::{self, Link};
use super::outbox::{self, GaveUp, Outbox};
use super::socket::ConnectError;
use super::{Local, PeerLost};
use crate::cluster::wire::{Call, Hello, Outcome};
use crate::error::NotAttempted;

/// Whoever waits for an answer.
pub(super) type Caller = oneshot::Sender<Outcome>;

/// One connection to a peer, whether it is there or not.
pub(super) struct Lane {
    pub(super) local: Arc<Local>,
    pub(super) incarnation: Incarnation,
    pub(super) address: Box<str>,
    state: Mutex<State>,
}

struct State {
    outbox: Outbox<Caller>,
    standing: Standing,
    /// Counts connections, so that one that has ended takes nothing more out of the outbox.
    connection: u64,
    /// Who sends, and sleeps since there was nothing to send.
    sender: Option<Waker>,
}

enum Standing {
    /// There is no connection yet, or not any more: calls wait.
    Connecting,
    /// There is one.
    Up(Arc<Hello>),
    /// The last attempt was refused: calls fail at once.
    Refused(Arc<str>),
    /// There will be none.
    Closed,
}

/// What a sender finds in the outbox.
pub(super) enum Next {
    Batch(Bytes),
    Nothing,
    /// Another connection has taken over.
    Ended,
}

impl Lane {
    pub(super) fn start(
        local: Arc<Local>,
        incarnation: Incarnation,
        address: Box<str>,
        stop: CancellationToken,
    ) -> Arc<Self> {
        let state =
            State { outbox: Outbox::new(), standing: Standing::Connecting, connection: 0, sender: None };
        let lane = Arc::new(Self { local, incarnation, address, state: Mutex::new(state) });
        tokio::spawn(keep(Arc::clone(&lane), stop));
        lane
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a call.
    pub(super) fn submit(
        &self,
        call: &Call,
        deadline: Instant,
    ) -> Result<(u64, oneshot::Receiver<Outcome>), NotAttempted> {
        let (caller, answer) = oneshot::channel();
        let mut state = self.state();
        match &state.standing {
            Standing::Connecting => {}
            Standing::Up(hello) => check(hello, call)?,
            Standing::Refused(reason) => {
                return Err(NotAttempted::Unavailable { reason: Arc::clone(reason) });
            }
            Standing::Closed => return Err(self.closed()),
        }
        let id = state.outbox.push(call, deadline, caller)?;
        wake(state);
        Ok((id, answer))
    }

    /// A caller does not wait any longer.
    pub(super) fn give_up(&self, id: u64) -> GaveUp {
        let mut state = self.state();
        let gave_up = state.outbox.give_up(id);
        wake(state);
        gave_up
    }

    pub(super) fn hello(&self) -> Option<Arc<Hello>> {
        match &self.state().standing {
            Standing::Up(hello) => Some(Arc::clone(hello)),
            Standing::Connecting | Standing::Refused(_) | Standing::Closed => None,
        }
    }

    pub(super) fn depth(&self) -> (usize, usize) {
        self.state().outbox.depth()
    }

    /// Begins an attempt to connect, and returns its number.
    pub(super) fn begin(&self) -> u64 {
        let mut state = self.state();
        state.connection += 1;
        state.connection
    }

    /// Returns what a connection is to send next, and remembers whom to wake when there is something.
    pub(super) fn next(&self, connection: u64, sender: &Waker) -> Next {
        let mut state = self.state();
        if state.connection != connection {
            return Next::Ended;
        }
        if let Some(batch) = state.outbox.take(Instant::now()) {
            return Next::Batch(batch);
        }
        match &mut state.sender {
            Some(known) if known.will_wake(sender) => {}
            other => *other = Some(sender.clone()),
        }
        Next::Nothing
    }

    /// Takes answers in.
    pub(super) fn answered(&self, answers: &mut Vec<(u64, Outcome)>, callers: &mut Vec<(Caller, Outcome)>) {
        let mut state = self.state();
        for (id, outcome) in answers.drain(..) {
            callers.extend(state.outbox.answered(id).map(|caller| (caller, outcome)));
        }
        // Their credits may be what the next calls wait for.
        wake(state);
    }

    pub(super) fn ping(&self, id: u64) {
        let mut state = self.state();
        state.outbox.ping(id);
        wake(state);
    }

    /// A connection is there and the peer has said who it is.
    fn connected(&self, hello: &Arc<Hello>) {
        let mut state = self.state();
        state.standing = Standing::Up(Arc::clone(hello));
        let refused = state.outbox.connected(&hello.node, &hello.registry, hello.calls_max as usize);
        wake(state);
        for (caller, why) in refused {
            tell(caller, Outcome::not_attempted(why));
        }
    }

    /// The connection has ended: nobody knows what becomes of what was written.
    fn disconnected(&self, node: &str, reason: &str) {
        let mut state = self.state();
        state.standing = Standing::Connecting;
        state.connection += 1;
        let lost = state.outbox.disconnected();
        wake(state);
        for caller in lost {
            tell(caller, outbox::lost(node, reason));
        }
    }

    /// No connection was made.
    fn not_connected(&self, error: ConnectError) {
        let ConnectError::Refused(reason) = error else { return };
        let reason: Arc<str> =
            format!("node {} at {} refuses: {reason}", self.incarnation, self.address).into();
        let mut state = self.state();
        state.standing = Standing::Refused(Arc::clone(&reason));
        let waiting = state.outbox.give_back();
        drop(state);
        for caller in waiting {
            tell(caller, Outcome::not_attempted(NotAttempted::Unavailable { reason: Arc::clone(&reason) }));
        }
    }

    fn close(&self) {
        let mut state = self.state();
        state.standing = Standing::Closed;
        state.connection += 1;
        let (lost, waiting) = (state.outbox.disconnected(), state.outbox.give_back());
        wake(state);
        for caller in lost {
            tell(caller, outbox::lost(&self.address, "it was given up"));
        }
        for caller in waiting {
            tell(caller, Outcome::not_attempted(self.closed()));
        }
    }

    fn closed(&self) -> NotAttempted {
        NotAttempted::unavailable(format!("the connection to node {} was given up", self.incarnation))
    }
}

/// Lets the state go, and wakes whoever sends.
fn wake(mut state: MutexGuard<'_, State>) {
    let sender = state.sender.take();
    drop(state);
    if let Some(sender) = sender {
        sender.wake();
    }
}

fn check(hello: &Hello, call: &Call) -> Result<(), NotAttempted> {
    match call.needs() {
        Some((aggregate_type, command)) => hello.registry.check(&hello.node, aggregate_type, command),
        None => Ok(()),
    }
}

/// Tells a caller. One who has gone needs no answer.
pub(super) fn tell(caller: Caller, outcome: Outcome) {
    let _ = caller.send(outcome);
}

/// Connects, and connects again, until it is stopped.
async fn keep(lane: Arc<Lane>, stop: CancellationToken) {
    let mut backoff = Backoff::default();
    loop {
        let pause = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            () = attempt(&lane, &mut backoff) => backoff.next(chance()),
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            () = tokio::time::sleep(pause) => {}
        }
    }
    lane.close();
}

/// Connects once and keeps the connection for as long as it lasts.
async fn attempt(lane: &Arc<Lane>, backoff: &mut Backoff) {
    match link::connect(lane).await {
        Ok(link) => {
            backoff.reset();
            hold(lane, link).await;
        }
        Err(error) => {
            tracing::debug!(peer = %lane.incarnation, address = %lane.address, %error, "no connection was made");
            lane.not_connected(error);
        }
    }
}

async fn hold(lane: &Arc<Lane>, link: Link) {
    let hello = Arc::clone(&link.hello);
    tracing::debug!(peer = %hello.node, address = %lane.address, version = %hello.application_version, "connected");
    lane.connected(&hello);
    let reason = link.run(lane).await;
    lane.disconnected(&hello.node, &reason);
    tracing::info!(peer = %hello.node, address = %lane.address, %reason, "the connection to a node has ended");
    lane.local.serve.peer_lost(PeerLost { incarnation: lane.incarnation, reason });
}

/// Draws a number, so that lanes do not act in step.
fn chance() -> u16 {
    uuid::Uuid::now_v7().as_u128() as u16
}
