//! The in-memory store keeps its obligations, and so does a faulty store without a fault.

use std::sync::Arc;

use orchestrix::store::Memory;
use orchestrix_core::store::{BoxFuture, EventStore};
use orchestrix_core::{Incarnation, ShardCount, ShardId};
use orchestrix_testkit::{Faulty, StoreFactory, store_conformance};

/// Each handle is a clone: another one on the same data.
struct InMemory(Memory);

impl InMemory {
    fn new() -> Self {
        Self(Memory::with_shards(ShardCount::new(8).expect("in range")))
    }

    /// One that nodes share.
    fn shared() -> Self {
        Self(Self::new().0.shared())
    }
}

impl StoreFactory for InMemory {
    fn open(&self) -> BoxFuture<'_, Arc<dyn EventStore>> {
        Box::pin(async { Arc::new(self.0.clone()) as Arc<dyn EventStore> })
    }
}

/// The same behind a wrapper that has nothing to break.
struct Faultless(InMemory);

impl StoreFactory for Faultless {
    fn open(&self) -> BoxFuture<'_, Arc<dyn EventStore>> {
        Box::pin(async {
            let (store, _control) = Faulty::new(self.0.open().await);
            store as Arc<dyn EventStore>
        })
    }
}

store_conformance!(memory, InMemory::new());
store_conformance!(shared, InMemory::shared());
store_conformance!(faultless_shared, Faultless(InMemory::shared()));
store_conformance!(faultless, Faultless(InMemory::new()));

#[tokio::test]
async fn a_shard_that_does_not_exist_is_named() {
    let store = Memory::with_shards(ShardCount::new(4).expect("in range"));
    let error = store.claim(&[ShardId::new(4)], Incarnation::fresh()).await.expect_err("there are four");
    assert!(error.to_string().contains("no shard 4; the log has 4"), "{error}");
}

#[tokio::test]
async fn a_clone_is_open_when_the_first_handle_is_closed() {
    let first = Memory::new();
    let second = first.clone();
    first.close().await;
    assert!(first.ping().await.is_err());
    second.ping().await.expect("it is a handle of its own");
}
