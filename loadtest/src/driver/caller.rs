//! One caller: chooses an operation, performs it, reads the answer.

use std::sync::Arc;

use orchestrix::core::CommandId;
use orchestrix::{Consistency, NotAttempted, SendError};
use tokio::time::Instant;

use super::record::Ack;
use super::{Load, Stage, Window};
use crate::scenario::{Add, CommandIds, Counter, Random, Spread, filler};

/// How a caller chooses the aggregate of its next operation.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Choice {
    /// At random, for as long as time lasts.
    Random(Spread),
    /// One after the other with a stride, each once.
    InTurn {
        /// The next aggregate.
        next: usize,
        /// The stride.
        step: usize,
        /// Where to stop.
        end: usize,
    },
}

/// One operation, ready to be sent.
#[derive(Debug)]
pub(super) struct Operation {
    aggregate: usize,
    ask: Ask,
}

#[derive(Debug)]
enum Ask {
    Add(CommandId, Add),
    Read,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A command is done.
    Added {
        /// The promise to hold the runtime to.
        ack: Ack,
        /// The count that the aggregate replied.
        reply: u64,
        /// Whether the runtime took the command for a repeated one.
        duplicate: bool,
    },
    /// A read is done.
    Read,
    /// A bound was hit.
    Overloaded,
    /// Nobody knows, and why.
    Unknown(String),
    /// It was not attempted, and why.
    Failed(String),
}

impl Answer {
    /// Tells whether the operation was done.
    pub(super) fn is_done(&self) -> bool {
        matches!(self, Self::Added { .. } | Self::Read)
    }
}

/// What one caller owns.
pub(crate) struct Caller {
    stage: Stage,
    choice: Choice,
    random: Random,
    ids: CommandIds,
    filler: Arc<str>,
    read_share: f64,
    start: Instant,
}

impl Caller {
    /// Makes the caller with this number.
    pub(crate) fn new(stage: &Stage, load: &Load, number: usize, choice: Choice, window: Window) -> Self {
        Self {
            stage: stage.clone(),
            choice,
            random: Random::new(load.seed, number),
            ids: CommandIds::new(window.tag, number),
            // A copy for each caller: a shared one would make the cores fight over its reference count.
            filler: filler(load.payload_bytes),
            read_share: load.read_share,
            start: window.start,
        }
    }

    /// Chooses the next operation; `None` when there is nothing left to do.
    pub(super) fn choose(&mut self, now: Instant) -> Option<Operation> {
        let aggregate = match &mut self.choice {
            Choice::Random(spread) => spread.pick(&mut self.random),
            Choice::InTurn { next, end, .. } if *next >= *end => return None,
            Choice::InTurn { next, step, .. } => std::mem::replace(next, *next + *step),
        };
        let reads = matches!(self.choice, Choice::Random(_)) && self.random.chance(self.read_share);
        let ask = if reads { Ask::Read } else { self.add(now) };
        Some(Operation { aggregate, ask })
    }

    fn add(&mut self, now: Instant) -> Ask {
        let amount = self.random.below(10) as u64;
        let id = self.ids.next(now.saturating_duration_since(self.start));
        Ask::Add(id, Add { amount, filler: Arc::clone(&self.filler) })
    }

    /// Returns what the caller works on.
    pub(super) fn stage(&self) -> &Stage {
        &self.stage
    }
}

/// Sends an operation and waits for its answer.
pub(super) async fn perform(stage: &Stage, operation: Operation) -> Answer {
    let counter = stage.node.of::<Counter>(stage.ids.get(operation.aggregate));
    match operation.ask {
        Ask::Read => match counter.read(Consistency::Leased, |state| state.count).await {
            Ok(_) => Answer::Read,
            Err(error) => not_attempted(&error),
        },
        Ask::Add(id, add) => match counter.send(add).id(id).receipt().await {
            Ok(done) => {
                let version = done.version.get() as u32;
                let ack = Ack { id, aggregate: operation.aggregate as u32, version };
                Answer::Added { ack, reply: done.reply, duplicate: done.duplicate }
            }
            Err(SendError::Refused(never)) => match never {},
            Err(SendError::NotAttempted(error)) => not_attempted(&error),
            Err(SendError::Unknown(error)) => Answer::Unknown(error.to_string()),
        },
    }
}

fn not_attempted(error: &NotAttempted) -> Answer {
    match error {
        NotAttempted::Overloaded { .. } => Answer::Overloaded,
        other => Answer::Failed(other.to_string()),
    }
}
