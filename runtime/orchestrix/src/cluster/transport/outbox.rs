//! ◇ What waits to be sent to a peer on one lane, and who waits for the answers.
//!
//! It decides which frames travel together, what a caller who gives up may be told, and what the end of a connection
//! means for each call. A call is in one of two places:
//!
//! * *queued*: its frame is in the buffer. Nobody but this node has seen it, so it can still be taken back for certain.
//! * *written*: its frame was handed to a connection. From then on only an answer, or nobody, knows what became of it.
//!
//! Frames are encoded into one buffer as they come, and a batch is the front of that buffer, so a call costs no
//! allocation here and a batch is one. `W` is whoever waits for an answer.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use bytes::{Bytes, BytesMut};

use crate::cluster::wire::{self, Call, FrameError, Frames, Outcome, Registry};
use crate::error::NotAttempted;
use crate::hash::IdHash;

/// How many calls wait in a lane for being written. Over it callers hear `Overloaded`. As many as one batch of the
/// peer's credits twice over: what waits longer than two rounds is better refused.
pub(super) const CALLS_WAITING_MAX: usize = 8_192;

/// How many bytes wait in a lane for being written; one call more may wait if it is larger by itself.
pub(super) const BYTES_WAITING_MAX: usize = 8 << 20;

/// How many frames travel in one batch: enough that a batch costs nothing beside its frames.
pub(super) const BATCH_FRAMES_MAX: usize = 1_024;

/// How many bytes travel in one batch; a frame that is larger travels alone. A quarter of what a connection has on its
/// way at once, so that small calls do not wait long behind large ones.
pub(super) const BATCH_BYTES_MAX: usize = 256 << 10;

/// Fewer calls than this are never swept out of the queue: passing over them costs less.
const SWEEP_MIN: usize = 64;

/// What waits to be sent, and who waits for answers.
pub(super) struct Outbox<W> {
    frames: BytesMut,
    queued: VecDeque<Queued>,
    /// Frames that need no credit and go first: pings, and cancels of calls that were written.
    control: BytesMut,
    waiting: HashMap<u64, Waiting<W>, IdHash>,
    next_id: u64,
    /// Queued calls whose callers have gone.
    gone: usize,
    /// Calls that were written and not answered.
    written: usize,
    /// How many of those the peer takes; 0 without a connection.
    credits: usize,
}

/// A frame of the buffer, in its order.
struct Queued {
    id: u64,
    bytes: usize,
    deadline: Instant,
}

struct Waiting<W> {
    caller: W,
    written: bool,
}

/// What a caller may be told who gives up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GaveUp {
    /// The call was never written, and never will be.
    NotSent,
    /// The call was written: nobody knows what becomes of it.
    Sent,
    /// The answer came first.
    Answered,
}

impl<W> Outbox<W> {
    pub(super) fn new() -> Self {
        Self {
            frames: BytesMut::new(),
            queued: VecDeque::new(),
            control: BytesMut::new(),
            waiting: HashMap::default(),
            next_id: 1,
            gone: 0,
            written: 0,
            credits: 0,
        }
    }

    /// Takes a call in, and returns its number.
    ///
    /// # Errors
    /// The lane is full, or the call has no form on the wire. Nobody will see it.
    pub(super) fn push(&mut self, call: &Call, deadline: Instant, caller: W) -> Result<u64, NotAttempted> {
        let overloaded = |what, limit| {
            Err(NotAttempted::Overloaded { what, limit, retry_after: crate::aggregate::RETRY_AFTER })
        };
        if self.queued.len() >= CALLS_WAITING_MAX {
            return overloaded("the queue of calls to another node".into(), CALLS_WAITING_MAX);
        }
        if self.frames.len() >= BYTES_WAITING_MAX {
            return overloaded("the bytes of calls to another node".into(), BYTES_WAITING_MAX);
        }
        let id = self.next_id;
        let bytes = wire::put_call(&mut self.frames, id, call).map_err(not_encoded)?;
        self.next_id += 1;
        self.queued.push_back(Queued { id, bytes, deadline });
        self.waiting.insert(id, Waiting { caller, written: false });
        Ok(id)
    }

    /// A connection has begun: the peer takes so many calls before it has answered one. Returns those that wait and
    /// that the peer does not know, which will not be sent.
    pub(super) fn connected(
        &mut self,
        node: &str,
        registry: &Registry,
        credits: usize,
    ) -> Vec<(W, NotAttempted)> {
        self.credits = credits;
        let unknown = self.find_unknown(node, registry);
        self.gone += unknown.len();
        let give_back = |(id, why)| self.waiting.remove(&id).map(|waiting| (waiting.caller, why));
        unknown.into_iter().filter_map(give_back).collect()
    }

    /// Reads the queue once, as the peer would: what was queued before it said what it knows could not be checked.
    fn find_unknown(&self, node: &str, registry: &Registry) -> Vec<(u64, NotAttempted)> {
        let mut unknown = Vec::new();
        let mut rest = &self.frames[..];
        for queued in &self.queued {
            let (frame, after) = rest.split_at(queued.bytes);
            rest = after;
            if self.waiting.contains_key(&queued.id)
                && let Some(call) = read_back(frame)
                && let Some((aggregate_type, command)) = call.needs()
                && let Err(why) = registry.check(node, aggregate_type, command)
            {
                unknown.push((queued.id, why));
            }
        }
        unknown
    }

    /// Takes the next batch, without its version: control frames, or as many calls as limits and credits allow. Calls
    /// whose callers have gone or whose time is over are left out; the timers of the latter tell their callers.
    pub(super) fn take(&mut self, now: Instant) -> Option<Bytes> {
        if !self.control.is_empty() {
            return Some(self.control.split().freeze());
        }
        let mut batch = Batch::default();
        while let Some(next) = self.queued.front() {
            let fits = batch.frames == 0 || batch.bytes + next.bytes <= BATCH_BYTES_MAX;
            if !fits || batch.frames == BATCH_FRAMES_MAX || self.written >= self.credits {
                break;
            }
            let next = self.queued.pop_front().expect("it was looked at");
            self.take_one(&next, now, &mut batch);
        }
        batch.finish(&mut self.frames)
    }

    /// Moves one call into the batch, or out of the buffer.
    fn take_one(&mut self, next: &Queued, now: Instant, batch: &mut Batch) {
        let waiting = self.waiting.get_mut(&next.id);
        self.gone -= usize::from(waiting.is_none());
        let Some(waiting) = waiting.filter(|_| next.deadline > now) else {
            batch.pass_over(&mut self.frames, next.bytes);
            return;
        };
        waiting.written = true;
        self.written += 1;
        let frame = &mut self.frames[batch.bytes..batch.bytes + next.bytes];
        wire::set_time_left(frame, next.deadline - now);
        batch.bytes += next.bytes;
        batch.frames += 1;
    }

    /// An answer came. Returns who waits for it; nobody, when the caller has gone.
    pub(super) fn answered(&mut self, id: u64) -> Option<W> {
        // Whoever answers what was not asked gets no credit for it; see `give_up` for those who have gone.
        self.written = self.written.saturating_sub(1);
        self.waiting.remove(&id).map(|waiting| waiting.caller)
    }

    /// A caller gives up. If the call was written, the peer is told; its answer gives the credit back.
    pub(super) fn give_up(&mut self, id: u64) -> GaveUp {
        match self.waiting.remove(&id) {
            None => GaveUp::Answered,
            Some(Waiting { written: false, .. }) => {
                self.gone += 1;
                if self.gone > SWEEP_MIN && self.gone * 2 > self.queued.len() {
                    self.sweep();
                }
                GaveUp::NotSent
            }
            Some(Waiting { written: true, .. }) => {
                if self.credits > 0 {
                    wire::put_cancel(&mut self.control, id);
                }
                GaveUp::Sent
            }
        }
    }

    /// Takes out of the buffer what nobody waits for, so that it does not fill the queue while there is no connection.
    fn sweep(&mut self) {
        let mut kept = BytesMut::with_capacity(self.frames.len() / 2);
        let (frames, waiting) = (&mut self.frames, &self.waiting);
        self.queued.retain(|queued| {
            let frame = frames.split_to(queued.bytes);
            let is_wanted = waiting.contains_key(&queued.id);
            if is_wanted {
                kept.extend_from_slice(&frame);
            }
            is_wanted
        });
        self.frames = kept;
        self.gone = 0;
    }

    /// Asks the peer for a sign of life.
    pub(super) fn ping(&mut self, id: u64) {
        wire::put_ping(&mut self.control, id);
    }

    /// The connection has ended. Returns those whose calls were written: nobody knows what became of them. What is
    /// queued waits for the next connection.
    pub(super) fn disconnected(&mut self) -> Vec<W> {
        self.credits = 0;
        self.written = 0;
        self.control.clear();
        let lost: Vec<u64> =
            self.waiting.iter().filter(|(_, waiting)| waiting.written).map(|(id, _)| *id).collect();
        lost.into_iter().filter_map(|id| self.waiting.remove(&id)).map(|waiting| waiting.caller).collect()
    }

    /// There will be no connection soon. Returns those whose calls were queued: they were certainly not attempted.
    pub(super) fn give_back(&mut self) -> Vec<W> {
        let queued: Vec<u64> = self.queued.drain(..).map(|queued| queued.id).collect();
        self.frames.clear();
        self.gone = 0;
        queued.into_iter().filter_map(|id| self.waiting.remove(&id)).map(|waiting| waiting.caller).collect()
    }

    /// Returns how many calls wait for being written, and how many for their answers.
    pub(super) fn depth(&self) -> (usize, usize) {
        (self.queued.len(), self.written)
    }
}

/// The front of the buffer that leaves together.
#[derive(Default)]
struct Batch {
    bytes: usize,
    frames: usize,
}

impl Batch {
    /// Cuts the frame after the batch out of the buffer. It is rare, so what is behind may move.
    fn pass_over(&self, buffer: &mut BytesMut, bytes: usize) {
        if self.bytes == 0 {
            let _ = buffer.split_to(bytes);
        } else {
            let mut behind = buffer.split_off(self.bytes);
            let _ = behind.split_to(bytes);
            buffer.unsplit(behind);
        }
    }

    fn finish(self, buffer: &mut BytesMut) -> Option<Bytes> {
        (self.frames > 0).then(|| buffer.split_to(self.bytes).freeze())
    }
}

fn read_back(frame: &[u8]) -> Option<Box<Call>> {
    let batch = [&[wire::BATCH_VERSION], frame].concat();
    match Frames::of(batch.into()).ok()?.next()?.ok()? {
        wire::Frame::Call { call, .. } => Some(call),
        _ => None,
    }
}

fn not_encoded(error: FrameError) -> NotAttempted {
    NotAttempted::Unencodable { reason: error.to_string().into() }
}

/// Returns what a caller hears whose connection broke after its call was written.
pub(super) fn lost(node: &str, reason: &str) -> Outcome {
    Outcome::unknown(format!("the connection to node {node} broke before the answer came: {reason}"))
}

#[cfg(test)]
#[path = "outbox_tests.rs"]
mod tests;
