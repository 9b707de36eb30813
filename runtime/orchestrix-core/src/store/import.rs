//! How a log that another store has recorded comes into an empty one, unchanged: the way of a restore.

use super::error::Source;
use super::record::RecordedEvent;
use crate::shard::ShardId;
use crate::version::Seq;

/// One step of an import, see [`EventStore::import`](super::EventStore::import).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImportStep {
    /// Marks an empty store as one that is being imported into, or takes such an import up again.
    Begin {
        /// Names the import: what comes, and how much of it. Only the same name takes it up again.
        name: String,
    },
    /// Stores events as they are. Those of a shard come in the order of their seqs, and a commit's in one step.
    Events(Vec<RecordedEvent>),
    /// Ends the import: the store has a new life, and may be claimed.
    Finish,
}

/// A step of an import was refused or failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The store cannot do it. Nothing was stored. Handling: restore into another kind of store.
    #[error("the store {store} takes no import; restore into memory, SQLite or PostgreSQL")]
    Unsupported {
        /// The store's name.
        store: &'static str,
    },
    /// There is something in the store. Nothing was stored. Handling: import into an empty one.
    #[error("the store is not empty: {found}; import into a new database that no node has used")]
    NotEmpty {
        /// What was found.
        found: String,
    },
    /// Another import was begun and not finished. Nothing was stored. Handling: finish that one, or use a new database.
    #[error("another import is under way: {name}; finish that one, or import into a new database")]
    Another {
        /// Its name.
        name: String,
    },
    /// No import was begun. Nothing was stored. Handling: begin one.
    #[error("no import was begun")]
    NotBegun,
    /// An event does not continue its shard or its stream. Nothing of the step was stored. Handling: import what
    /// comes before it first; check where the events come from.
    #[error("seq {seq} of shard {shard} cannot be imported: {reason}")]
    Gap {
        /// Its shard.
        shard: ShardId,
        /// Its place in it.
        seq: Seq,
        /// What it lacks.
        reason: String,
    },
    /// The store did not answer. The step may have taken effect as a whole. Handling: begin again under the same name,
    /// and go on after the heads of the store.
    #[error("the store did not answer an import: {reason}")]
    Unavailable {
        /// What the store or its driver said.
        reason: String,
        /// The driver's error, if there is one.
        #[source]
        source: Option<Source>,
    },
}

impl ImportError {
    /// Makes an [`Unavailable`](ImportError::Unavailable) from a driver's error.
    pub fn unavailable(error: impl Into<Source>) -> Self {
        let source = error.into();
        Self::Unavailable { reason: source.to_string(), source: Some(source) }
    }
}
