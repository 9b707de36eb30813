//! A connection of another node while it is there: calls come in, answers go out.
//!
//! It is the stream of answers, and whoever writes them to the network drives it: it reads a batch of calls, begins each
//! of them in order, and hands out what is answered by then as one batch. When answers cannot be written it reads no
//! more, so a peer that does not listen is not listened to; that and the credits bound what one connection holds here.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use futures_util::FutureExt;
use futures_util::future::{AbortHandle, abortable};
use futures_util::stream::FuturesUnordered;
use orchestrix_core::store::BoxFuture;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{Status, Streaming};

use super::Local;
use super::outbox::{BATCH_BYTES_MAX, BATCH_FRAMES_MAX};
use crate::cluster::wire::{self, Call, Frame, FrameError, Frames, Hello, Outcome, Unwelcome};
use crate::error::NotAttempted;
use crate::hash::IdHash;

/// How long a caller may be silent. It asks for signs of life four times in this time, so it has stopped or is cut off.
const SILENCE_MAX: Duration = Duration::from_secs(3);

/// One stream of calls and answers.
pub(super) struct Session {
    local: Arc<Local>,
    from: SocketAddr,
    inbound: Streaming<Bytes>,
    /// Who calls, once it has said so.
    caller: Option<Arc<Hello>>,
    running: FuturesUnordered<BoxFuture<'static, (u64, Outcome)>>,
    /// Calls that run, by their numbers, so that they can be given up.
    aborts: HashMap<u64, AbortHandle, IdHash>,
    answers: BytesMut,
    frames: usize,
    silence: Pin<Box<Sleep>>,
    stopping: CancellationToken,
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Nothing more is read; the stream ends when what is there has been written.
    is_over: bool,
}

impl Session {
    pub(super) fn new(
        local: Arc<Local>,
        from: SocketAddr,
        stopping: CancellationToken,
        inbound: Streaming<Bytes>,
    ) -> Self {
        Self {
            local,
            from,
            inbound,
            caller: None,
            running: FuturesUnordered::new(),
            aborts: HashMap::default(),
            answers: BytesMut::new(),
            frames: 0,
            silence: Box::pin(tokio::time::sleep(SILENCE_MAX)),
            stopped: Box::pin(stopping.clone().cancelled_owned()),
            stopping,
            is_over: false,
        }
    }

    fn is_full(&self) -> bool {
        self.frames >= BATCH_FRAMES_MAX || self.answers.len() >= BATCH_BYTES_MAX
    }

    /// Takes what was answered by now, as far as a batch has room.
    fn gather(&mut self, context: &mut Context<'_>) {
        while !self.is_full() {
            match Pin::new(&mut self.running).poll_next(context) {
                Poll::Ready(Some((id, outcome))) => {
                    self.aborts.remove(&id);
                    self.answer(id, &outcome);
                }
                Poll::Ready(None) | Poll::Pending => return,
            }
        }
    }

    /// Reads one batch if there is one. Returns whether there was.
    fn read(&mut self, context: &mut Context<'_>) -> bool {
        if self.is_over {
            return false;
        }
        match Pin::new(&mut self.inbound).poll_next(context) {
            Poll::Pending => false,
            Poll::Ready(Some(Ok(batch))) => {
                self.silence.as_mut().reset(Instant::now() + SILENCE_MAX);
                self.take_in(batch);
                true
            }
            Poll::Ready(Some(Err(status))) => {
                tracing::debug!(from = %self.from, reason = status.message(), "a connection of another node broke");
                self.end();
                true
            }
            Poll::Ready(None) => {
                self.end();
                true
            }
        }
    }

    /// Nobody is left to hear answers: what runs is given up.
    fn end(&mut self) {
        self.is_over = true;
        self.running.clear();
        self.aborts.clear();
    }

    fn take_in(&mut self, batch: Bytes) {
        let frames = match Frames::of(batch) {
            Ok(frames) => frames,
            Err(error) => return self.reject(&error),
        };
        for frame in frames {
            match frame {
                Ok(frame) => self.take(frame),
                Err(error) => match error.faulty_call() {
                    Some(id) => self.answer(id, &Outcome::not_attempted(not_decoded(&error))),
                    None => self.reject(&error),
                },
            }
            if self.is_over {
                return;
            }
        }
    }

    fn reject(&mut self, error: &dyn std::fmt::Display) {
        tracing::warn!(from = %self.from, %error, "a connection to the node's port is closed");
        self.end();
    }

    fn take(&mut self, frame: Frame) {
        match (frame, &self.caller) {
            (Frame::Hello(hello), None) => self.greet(*hello),
            (Frame::Call { id, call }, Some(caller)) => {
                let caller = Arc::clone(caller);
                self.begin(id, *call, &caller);
            }
            (Frame::Cancel { id }, Some(_)) => {
                // One that is answered already needs nothing.
                if let Some(running) = self.aborts.get(&id) {
                    running.abort();
                }
            }
            (Frame::Ping { id }, Some(_)) => {
                wire::put_pong(&mut self.answers, id);
                self.frames += 1;
            }
            (_, None) => self.reject(&"its first frame is no hello"),
            (Frame::Hello(_) | Frame::Unwelcome(_) | Frame::Answer { .. } | Frame::Pong { .. }, Some(_)) => {
                self.reject(&"a caller sent a frame that only the other side sends");
            }
        }
    }

    fn greet(&mut self, theirs: Hello) {
        let ours = self.local.hello();
        let welcome =
            if self.stopping.is_cancelled() { Err(Unwelcome::ShuttingDown) } else { ours.check(&theirs) };
        let written = match welcome {
            Ok(()) => {
                tracing::debug!(from = %self.from, node = %theirs.node, version = %theirs.application_version, "a node has connected");
                let written = wire::put_hello(&mut self.answers, &ours);
                self.caller = Some(Arc::new(theirs));
                written
            }
            Err(why) => {
                tracing::warn!(from = %self.from, node = %theirs.node, %why, "a node was not welcome");
                self.is_over = true;
                wire::put_unwelcome(&mut self.answers, &why)
            }
        };
        match written {
            Ok(_) => self.frames += 1,
            Err(error) => self.reject(&error),
        }
    }

    fn begin(&mut self, id: u64, call: Call, caller: &Arc<Hello>) {
        if self.stopping.is_cancelled() {
            return self.answer(id, &Outcome::not_attempted(NotAttempted::ShuttingDown));
        }
        if self.running.len() >= self.local.calls_max as usize {
            return self.reject(&"a caller sent more calls than it may");
        }
        let served = AssertUnwindSafe(self.local.serve.serve(caller, call)).catch_unwind();
        let (served, abort) = abortable(served);
        self.aborts.insert(id, abort);
        self.running.push(Box::pin(async move {
            let outcome = match served.await {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(_)) => Outcome::unknown("the other node panicked over it"),
                Err(_) => Outcome::unknown("its caller gave it up"),
            };
            (id, outcome)
        }));
    }

    /// Writes an answer. One that does not fit is replaced: the work may be done, only nobody can hear about it.
    fn answer(&mut self, id: u64, outcome: &Outcome) {
        let written = wire::put_answer(&mut self.answers, id, outcome).or_else(|error| {
            tracing::warn!(from = %self.from, %error, "an answer could not be sent");
            wire::put_answer(&mut self.answers, id, &unsendable(outcome, &error))
        });
        match written {
            Ok(_) => self.frames += 1,
            Err(error) => self.reject(&error),
        }
    }

    /// Returns whether the stream is at its end, so that nothing will ever come.
    fn is_done(&mut self, context: &mut Context<'_>) -> bool {
        let stopped = self.stopped.as_mut().poll(context).is_ready();
        self.is_over || (stopped && self.running.is_empty())
    }
}

impl Stream for Session {
    type Item = Result<Bytes, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            this.gather(context);
            if this.is_full() || !this.read(context) {
                break;
            }
        }
        if this.frames > 0 {
            this.frames = 0;
            return Poll::Ready(Some(Ok(this.answers.split().freeze())));
        }
        if this.is_done(context) {
            return Poll::Ready(None);
        }
        if this.silence.as_mut().poll(context).is_ready() {
            tracing::debug!(from = %this.from, "a node gave no sign of life; its connection is closed");
            this.end();
            return Poll::Ready(None);
        }
        Poll::Pending
    }
}

fn not_decoded(error: &FrameError) -> NotAttempted {
    NotAttempted::Unencodable { reason: error.to_string().into() }
}

/// Says what became of a call whose answer cannot be sent.
fn unsendable(outcome: &Outcome, error: &FrameError) -> Outcome {
    match outcome {
        Outcome::Done(_) | Outcome::Unknown { .. } => {
            Outcome::unknown(format!("it was answered, and the answer cannot be sent: {error}"))
        }
        Outcome::Refused { .. }
        | Outcome::Conflict { .. }
        | Outcome::NotAttempted(_)
        | Outcome::Moved { .. } => Outcome::not_attempted(not_decoded(error)),
    }
}
