//! The stores that several nodes share.

use std::sync::Arc;

use orchestrix::core::EventStore;
use orchestrix::store::Memory;

use super::shared_log;
use crate::store_postgres::place::Place;

/// A store that several nodes share.
pub enum Shared {
    Memory(Memory),
    Postgres(Place),
}

impl Shared {
    pub fn memory() -> Self {
        Self::Memory(shared_log())
    }

    pub fn postgres() -> Self {
        Self::Postgres(Place::new())
    }

    /// Opens it as one more process would.
    pub async fn open(&self) -> Arc<dyn EventStore> {
        match self {
            Self::Memory(log) => Arc::new(log.clone()),
            Self::Postgres(place) => Arc::new(place.open().await),
        }
    }
}
