//! What became of a call. Every error that a caller can see on its own node has a form here, so that it reads the same
//! when it comes from another one.

use std::time::Duration;

use orchestrix_core::{CommandId, Epoch, Incarnation, Name, ShardId, StreamId, Version};
use serde::{Deserialize, Serialize};

use crate::error::NotAttempted;

/// What became of a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It was done.
    Done(DoneOutcome),
    /// The aggregate refused. Nothing was stored and nothing will be.
    Refused {
        /// The refusal in bincode.
        body: Vec<u8>,
    },
    /// The aggregate is at another version than a save expected. Nothing was stored.
    Conflict {
        /// The version that the caller expected.
        expected: Version,
        /// The version that the aggregate has.
        actual: Version,
    },
    /// The runtime did not let it take effect. Nothing was stored and nothing will be.
    NotAttempted(Denial),
    /// Nobody knows whether it took effect. A retry with the same command id tells.
    Unknown {
        /// What is known about the cause.
        reason: Box<str>,
    },
    /// The receiver does not own the shard, and believes that somebody else does. Nothing was stored.
    Moved {
        /// The owner, as far as the receiver knows.
        owner: Incarnation,
        /// The epoch of that owner, as far as the receiver knows.
        epoch: Epoch,
        /// Where the owner is reached.
        address: Box<str>,
    },
}

/// What a call that was done gives back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoneOutcome {
    /// A command's reply in bincode; a read's state as a sealed snapshot, or nothing when the caller's state has
    /// another shape than the owner's; nothing for a save or a notice.
    pub body: Vec<u8>,
    /// The version of the aggregate.
    pub version: Version,
    /// The epoch under which it was answered.
    pub epoch: Epoch,
    /// The command had been done before, and this is its first reply.
    pub duplicate: bool,
}

impl Outcome {
    /// Says that the runtime did not let the call take effect.
    pub fn not_attempted(why: NotAttempted) -> Self {
        Self::NotAttempted(why.into())
    }

    /// Says that nobody knows what became of the call.
    pub fn unknown(reason: impl Into<Box<str>>) -> Self {
        Self::Unknown { reason: reason.into() }
    }
}

/// [`NotAttempted`] in the form that carries it between nodes. The order of the variants is part of that form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Denial {
    /// See [`NotAttempted::Overloaded`].
    Overloaded {
        /// Which bound.
        what: Name,
        /// The bound.
        limit: u64,
        /// When a retry has a chance.
        retry_after: Duration,
    },
    /// See [`NotAttempted::DeadlineExceeded`].
    DeadlineExceeded,
    /// See [`NotAttempted::Unavailable`].
    Unavailable {
        /// What is wrong.
        reason: Box<str>,
    },
    /// See [`NotAttempted::ShuttingDown`].
    ShuttingDown,
    /// See [`NotAttempted::IdReused`].
    IdReused {
        /// The id.
        command_id: CommandId,
        /// The aggregate.
        stream: StreamId,
    },
    /// See [`NotAttempted::IdExpired`].
    IdExpired {
        /// The id.
        command_id: CommandId,
        /// The aggregate.
        stream: StreamId,
    },
    /// See [`NotAttempted::Quarantined`].
    Quarantined {
        /// The aggregate.
        stream: StreamId,
        /// What happened.
        reason: Box<str>,
    },
    /// See [`NotAttempted::NotRegistered`].
    NotRegistered {
        /// The name of the type.
        aggregate_type: Name,
    },
    /// See [`NotAttempted::InvalidId`].
    InvalidId {
        /// What is wrong with it.
        problem: Box<str>,
    },
    /// See [`NotAttempted::Unencodable`].
    Unencodable {
        /// The encoder's words.
        reason: Box<str>,
    },
    /// See [`NotAttempted::UnknownCommand`].
    UnknownCommand {
        /// The name of the aggregate's type.
        aggregate_type: Name,
        /// The name of the command.
        command: Name,
        /// The node that does not know it.
        node: Box<str>,
    },
    /// See [`NotAttempted::NotOwner`].
    NotOwner {
        /// The shard.
        shard: ShardId,
        /// Who is believed to own it.
        owner: Option<Incarnation>,
        /// The newest epoch that the node has heard of.
        epoch: Epoch,
    },
    /// See [`NotAttempted::Behind`].
    Behind {
        /// The version of the state.
        version: Version,
        /// The version asked for.
        wanted: Version,
    },
}

impl From<NotAttempted> for Denial {
    fn from(why: NotAttempted) -> Self {
        match why {
            NotAttempted::Overloaded { what, limit, retry_after } => {
                Self::Overloaded { what, limit: limit as u64, retry_after }
            }
            NotAttempted::DeadlineExceeded => Self::DeadlineExceeded,
            NotAttempted::Unavailable { reason } => Self::Unavailable { reason: (&*reason).into() },
            NotAttempted::ShuttingDown => Self::ShuttingDown,
            NotAttempted::IdReused { command_id, stream } => Self::IdReused { command_id, stream },
            NotAttempted::IdExpired { command_id, stream } => Self::IdExpired { command_id, stream },
            NotAttempted::Quarantined { stream, reason } => {
                Self::Quarantined { stream, reason: (&*reason).into() }
            }
            NotAttempted::NotRegistered { aggregate_type } => Self::NotRegistered { aggregate_type },
            NotAttempted::InvalidId { problem } => Self::InvalidId { problem: (&*problem).into() },
            NotAttempted::Unencodable { reason } => Self::Unencodable { reason: (&*reason).into() },
            NotAttempted::UnknownCommand { aggregate_type, command, node } => {
                Self::UnknownCommand { aggregate_type, command, node: (&*node).into() }
            }
            NotAttempted::NotOwner { shard, owner, epoch } => Self::NotOwner { shard, owner, epoch },
            NotAttempted::Behind { version, wanted } => Self::Behind { version, wanted },
        }
    }
}

impl From<Denial> for NotAttempted {
    fn from(why: Denial) -> Self {
        match why {
            Denial::Overloaded { what, limit, retry_after } => {
                Self::Overloaded { what, limit: usize::try_from(limit).unwrap_or(usize::MAX), retry_after }
            }
            Denial::DeadlineExceeded => Self::DeadlineExceeded,
            Denial::Unavailable { reason } => Self::Unavailable { reason: reason.into() },
            Denial::ShuttingDown => Self::ShuttingDown,
            Denial::IdReused { command_id, stream } => Self::IdReused { command_id, stream },
            Denial::IdExpired { command_id, stream } => Self::IdExpired { command_id, stream },
            Denial::Quarantined { stream, reason } => Self::Quarantined { stream, reason: reason.into() },
            Denial::NotRegistered { aggregate_type } => Self::NotRegistered { aggregate_type },
            Denial::InvalidId { problem } => Self::InvalidId { problem: problem.into() },
            Denial::Unencodable { reason } => Self::Unencodable { reason: reason.into() },
            Denial::UnknownCommand { aggregate_type, command, node } => {
                Self::UnknownCommand { aggregate_type, command, node: node.into() }
            }
            Denial::NotOwner { shard, owner, epoch } => Self::NotOwner { shard, owner, epoch },
            Denial::Behind { version, wanted } => Self::Behind { version, wanted },
        }
    }
}
