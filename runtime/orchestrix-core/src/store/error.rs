//! What can go wrong at a store, by operation. Whether anything was recorded is part of every doc.

use crate::shard::ShardId;

/// The cause that a store passes on.
pub type Source = Box<dyn std::error::Error + Send + Sync>;

/// A read failed. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The store did not answer. Handling: try again later.
    #[error("the store did not answer a read: {reason}")]
    Unavailable {
        /// What the store or its driver said.
        reason: String,
        /// The driver's error, if there is one.
        #[source]
        source: Option<Source>,
    },
    /// The store answered with something that cannot be: an unknown codec, a hole. Handling: run `verify`.
    #[error("the store holds what cannot be: {reason}")]
    Corrupt {
        /// What was found and where.
        reason: String,
    },
}

impl ReadError {
    /// Makes an [`Unavailable`](ReadError::Unavailable) from a driver's error.
    pub fn unavailable(error: impl Into<Source>) -> Self {
        let source = error.into();
        Self::Unavailable { reason: source.to_string(), source: Some(source) }
    }
}

/// A write other than an append failed. It may have taken effect; each such write may be repeated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The store did not answer, or refused for a reason of its own. Handling: repeat it later.
    #[error("the store did not answer a write: {reason}")]
    Unavailable {
        /// What the store or its driver said.
        reason: String,
        /// The driver's error, if there is one.
        #[source]
        source: Option<Source>,
    },
}

impl WriteError {
    /// Makes an [`Unavailable`](WriteError::Unavailable) from a driver's error.
    pub fn unavailable(error: impl Into<Source>) -> Self {
        let source = error.into();
        Self::Unavailable { reason: source.to_string(), source: Some(source) }
    }
}

/// Shards could not be claimed. Epochs may have been raised; a repeated claim raises them again, which is harmless.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClaimError {
    /// The store did not answer. Handling: try again.
    #[error("the store did not answer a claim: {reason}")]
    Unavailable {
        /// What the store or its driver said.
        reason: String,
        /// The driver's error, if there is one.
        #[source]
        source: Option<Source>,
    },
    /// Someone else holds the shard under a lease that has not ended. Handling: wait for its end, or stop the holder.
    #[error("shard {shard} is held by {holder}")]
    Held {
        /// The first shard that is held.
        shard: ShardId,
        /// Who holds it.
        holder: String,
    },
}

impl ClaimError {
    /// Makes an [`Unavailable`](ClaimError::Unavailable) from a driver's error.
    pub fn unavailable(error: impl Into<Source>) -> Self {
        let source = error.into();
        Self::Unavailable { reason: source.to_string(), source: Some(source) }
    }
}
