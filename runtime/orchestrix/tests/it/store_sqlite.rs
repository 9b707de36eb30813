//! The embedded store: the conformance suite, and what it promises beyond it.

mod alone;
mod faults;
mod late;
mod late_model;
mod migrate;
mod opening;
mod owner;

use std::sync::Arc;

use orchestrix::store::Sqlite;
use orchestrix_core::EventStore;
use orchestrix_core::store::BoxFuture;
use orchestrix_testkit::{StoreFactory, store_conformance};
use tempfile::TempDir;

/// A database in a directory of its own.
struct OnDisk(TempDir);

impl OnDisk {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }
}

impl StoreFactory for OnDisk {
    fn open(&self) -> BoxFuture<'_, Arc<dyn EventStore>> {
        Box::pin(async {
            let store = Sqlite::open(self.0.path().join("bank.db")).connect().await;
            Arc::new(store.expect("the database opens")) as Arc<dyn EventStore>
        })
    }
}

store_conformance!(suite, OnDisk::new());
