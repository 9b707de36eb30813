//! The store on PostgreSQL: the conformance suite, and what it promises beyond it.

mod fence;
pub mod members;
mod migrate;
pub mod owner;
pub mod place;
mod roles;
mod service;
mod sessions;
mod slow;

use std::sync::Arc;

use orchestrix_core::EventStore;
use orchestrix_core::store::BoxFuture;
use orchestrix_testkit::{StoreFactory, store_conformance};

use place::Place;

/// A database of its own on the server that the tests share.
struct OnServer(Place);

impl OnServer {
    fn new() -> Self {
        Self(Place::new())
    }
}

impl StoreFactory for OnServer {
    fn open(&self) -> BoxFuture<'_, Arc<dyn EventStore>> {
        Box::pin(async { Arc::new(self.0.open().await) as Arc<dyn EventStore> })
    }
}

store_conformance!(suite, OnServer::new());
