//! What a caller hears when a command, a read or a save did not simply succeed.
//!
//! Three outcomes besides *done* exist, and the types keep them apart: *refused* (the domain said no; certainly no
//! effect, ever), *not attempted* (the runtime said no; certainly no effect), *unknown* (a retry with the same command
//! id resolves it). Every variant names its cause, its effect and how to handle it.

use std::time::Duration;

use orchestrix_core::store::{ClaimError, ReadError};
use orchestrix_core::{CommandId, EncodeError, Epoch, Incarnation, Name, ShardId, StreamId, Version};

/// A command was not done.
#[derive(Debug, thiserror::Error)]
pub enum SendError<R> {
    /// The aggregate refused. Nothing was stored and nothing will be. Handling: tell the user.
    #[error(transparent)]
    Refused(R),
    /// The runtime did not let the command take effect. Nothing was stored and nothing will be.
    #[error(transparent)]
    NotAttempted(#[from] NotAttempted),
    /// Nobody knows whether the command took effect. Handling: send it again with the same id.
    #[error(transparent)]
    Unknown(#[from] Unknown),
}

/// Why a command or a read has had no effect and never will have. A retry is safe in every case.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotAttempted {
    /// A bound was hit. Handling: wait for `retry_after`, then send it again.
    #[error("{what} is full at {limit}; try again in {} ms", retry_after.as_millis())]
    Overloaded {
        /// Which bound, for instance `the node's commands in flight`.
        what: Name,
        /// The bound.
        limit: usize,
        /// When a retry has a chance.
        retry_after: Duration,
    },
    /// The deadline passed before the aggregate looked at the command. Handling: send it again, or give up.
    #[error("the deadline passed before the command was looked at")]
    DeadlineExceeded,
    /// The store does not answer, or the node holds nothing at the moment. Handling: send it again later.
    #[error("not available: {reason}")]
    Unavailable {
        /// What the store said.
        reason: std::sync::Arc<str>,
    },
    /// The node does not own the shard of the aggregate, or is giving it away, and the work was not sent on to the node
    /// that owns it. Handling: send it to the owner; with the same id it is done there once.
    #[error("this node does not own shard {shard}{}", told(*owner, *epoch))]
    NotOwner {
        /// The shard.
        shard: ShardId,
        /// Who is believed to own it, if this node has heard of somebody.
        owner: Option<Incarnation>,
        /// The newest epoch of the shard that this node has heard of; zero when of none.
        epoch: Epoch,
    },
    /// The state that a read saw has not reached the version that it asked for. Handling: read it with a stronger
    /// consistency, or ask for a version that the aggregate has.
    #[error("the state is at version {version}, and the read asked for {wanted}")]
    Behind {
        /// The version of the state.
        version: Version,
        /// The version asked for.
        wanted: Version,
    },
    /// The node is stopping. Handling: send it to another node, or after the restart.
    #[error("the node is shutting down")]
    ShuttingDown,
    /// The id was used for another command, or for another body, on this aggregate. Handling: use a fresh id.
    #[error("command id {command_id} was used on {stream} for another command or body")]
    IdReused {
        /// The id.
        command_id: CommandId,
        /// The aggregate that remembers it.
        stream: StreamId,
    },
    /// The id is older than the aggregate's memory, so nobody can tell whether the command was done before.
    /// Handling: look at the aggregate; if the command was not done, send it with a fresh id.
    #[error("command id {command_id} is older than {stream} remembers")]
    IdExpired {
        /// The id.
        command_id: CommandId,
        /// The aggregate.
        stream: StreamId,
    },
    /// The aggregate is quarantined: its events or its code made it fail. Handling: `quarantine list`, mend, `quarantine release`.
    #[error("{stream} is quarantined: {reason}")]
    Quarantined {
        /// The aggregate.
        stream: StreamId,
        /// What happened.
        reason: std::sync::Arc<str>,
    },
    /// The node was built without this kind of aggregate. Handling: register it with `.aggregate::<A>()`.
    #[error("the aggregate type {aggregate_type:?} is not registered at this node")]
    NotRegistered {
        /// The name of the type.
        aggregate_type: Name,
    },
    /// The id of the aggregate cannot be stored. Handling: correct it.
    #[error("{problem}")]
    InvalidId {
        /// What is wrong with it.
        problem: std::sync::Arc<str>,
    },
    /// The command, one of its events or its reply has no stored form. Handling: mend the type.
    #[error("{reason}")]
    Unencodable {
        /// The encoder's words.
        reason: std::sync::Arc<str>,
    },
    /// The node that owns the aggregate does not know the command, or does not take it from other nodes. Handling: list
    /// it in the aggregate's `commands`; while releases are mixed, send it again when the upgrade is through.
    #[error("node {node} does not know the command {command:?} of {aggregate_type:?}")]
    UnknownCommand {
        /// The name of the aggregate's type.
        aggregate_type: Name,
        /// The name of the command.
        command: Name,
        /// The node.
        node: std::sync::Arc<str>,
    },
}

impl NotAttempted {
    /// Returns the kind as a label: a closed set of words for metrics and logs.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Overloaded { .. } => "overloaded",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::Unavailable { .. } => "unavailable",
            Self::NotOwner { .. } => "not_owner",
            Self::Behind { .. } => "behind",
            Self::ShuttingDown => "shutting_down",
            Self::IdReused { .. } => "id_reused",
            Self::IdExpired { .. } => "id_expired",
            Self::Quarantined { .. } => "quarantined",
            Self::NotRegistered { .. } => "not_registered",
            Self::InvalidId { .. } => "invalid_id",
            Self::Unencodable { .. } => "unencodable",
            Self::UnknownCommand { .. } => "unknown_command",
        }
    }

    pub(crate) fn unavailable(reason: impl Into<std::sync::Arc<str>>) -> Self {
        Self::Unavailable { reason: reason.into() }
    }
}

/// Says what is known of a shard's owner.
fn told(owner: Option<Incarnation>, epoch: Epoch) -> String {
    match owner {
        Some(owner) => format!(", which {owner} owns in epoch {epoch}"),
        None => String::new(),
    }
}

impl From<EncodeError> for NotAttempted {
    fn from(error: EncodeError) -> Self {
        Self::Unencodable { reason: error.to_string().into() }
    }
}

impl From<ReadError> for NotAttempted {
    fn from(error: ReadError) -> Self {
        Self::unavailable(error.to_string())
    }
}

/// Nobody knows whether the command took effect. Send it again with the same id: the answer is then the first one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the outcome of command {command_id} is unknown ({reason}); send it again with the same id")]
pub struct Unknown {
    /// The id to retry with.
    pub command_id: CommandId,
    /// What is known about the cause.
    pub reason: std::sync::Arc<str>,
}

/// Events were not saved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SaveError {
    /// The aggregate is at another version than expected. Nothing was stored. Handling: load again, decide again.
    #[error("{stream} is at version {actual}, not at {expected}")]
    Conflict {
        /// The aggregate.
        stream: StreamId,
        /// The version that the caller expected.
        expected: Version,
        /// The version that the aggregate has.
        actual: Version,
    },
    /// The runtime did not let the save take effect. Nothing was stored and nothing will be.
    #[error(transparent)]
    NotAttempted(#[from] NotAttempted),
    /// Nobody knows whether the events were stored. Handling: save again with the same command id.
    #[error(transparent)]
    Unknown(#[from] Unknown),
}

/// A look at history failed. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HistoryError {
    /// The store could not be read. Handling: try again later.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A stored event cannot be understood. Handling: run a release that knows it.
    #[error("{stream} version {version}: {source}")]
    Decode {
        /// The aggregate.
        stream: StreamId,
        /// The place of the event.
        version: Version,
        /// What is wrong with it.
        source: orchestrix_core::DecodeError,
    },
    /// The aggregate has not reached that version. Handling: ask for at most `actual`.
    #[error("{stream} is at version {actual}; version {wanted} does not exist yet")]
    FutureVersion {
        /// The aggregate.
        stream: StreamId,
        /// The version asked for.
        wanted: Version,
        /// The version that it has.
        actual: Version,
    },
    /// The log lacks an event. Handling: run `verify`.
    #[error("{stream} version {version} is missing from the log")]
    Missing {
        /// The aggregate.
        stream: StreamId,
        /// The place without an event.
        version: Version,
    },
    /// The aggregate's code panicked on its own events. Handling: mend `apply`.
    #[error("{stream}: apply panicked at version {version}: {message}")]
    Panicked {
        /// The aggregate.
        stream: StreamId,
        /// The place of the event.
        version: Version,
        /// The panic's words.
        message: String,
    },
}

/// A node did not start. It holds nothing: shards that it claimed are free for the next start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A setting is out of its range. Handling: correct the setting that is named.
    #[error("{0}")]
    Settings(#[from] crate::settings::InvalidSetting),
    /// No store was given to the builder. Handling: call `store(...)`.
    #[error("no store was given; call `.store(...)` on the builder")]
    NoStore,
    /// Two registrations share one name. Handling: rename one; names in the log are unique.
    #[error("the aggregate type {name:?} is registered twice: as {first} and as {second}")]
    DuplicateType {
        /// The name.
        name: &'static str,
        /// The Rust type that was registered first.
        first: &'static str,
        /// The Rust type that was registered second.
        second: &'static str,
    },
    /// An aggregate lists two commands of one name. Handling: rename one; a name tells the node that receives it what it is.
    #[error("the command {name:?} of {aggregate_type:?} is listed twice: as {first} and as {second}")]
    DuplicateCommand {
        /// The name of the aggregate's type.
        aggregate_type: &'static str,
        /// The name.
        name: &'static str,
        /// The Rust type that was listed first.
        first: &'static str,
        /// The Rust type that was listed second.
        second: &'static str,
    },
    /// The store could not be opened. Handling: see the cause.
    #[error("the store could not be opened: {0}")]
    Open(#[source] orchestrix_core::store::Source),
    /// The shards could not be claimed. Handling: see the cause.
    #[error("the shards could not be claimed: {0}")]
    Claim(#[from] ClaimError),
    /// A node was to join the cluster of a store that one process has for itself. Handling: use a store that several can
    /// share (PostgreSQL), or leave the cluster out.
    #[error("the store {store} cannot be shared, so no cluster can be made of it")]
    NotShared {
        /// The store.
        store: &'static str,
    },
    /// The node could not join the cluster. Nothing is left running. Handling: see the reason.
    #[error("the node could not join the cluster: {reason}")]
    Join {
        /// What is wrong.
        reason: String,
    },
    /// An arbiter thread could not be started. Handling: raise the limit of threads.
    #[error("an arbiter thread could not be started: {0}")]
    Thread(String),
}
