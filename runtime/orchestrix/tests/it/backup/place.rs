//! Where backups come from and go to: a store of each kind, and a log of counters in it.

use std::sync::Arc;

use orchestrix::core::store::RecordedEvent;
use orchestrix::core::{EventStore, Seq, ShardCount};
use orchestrix::store::{Memory, Sqlite};
use orchestrix::{Consistency, Node, Orchestrix, Settings};

use crate::counter::{Add, Counter, CounterEvent, counter};
use crate::store_postgres::place::Place;

/// A kind of store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Memory,
    Sqlite,
    Postgres,
}

/// Room for one log.
pub(super) enum Room {
    Memory(Memory),
    Sqlite(tempfile::TempDir),
    Postgres(Place),
}

fn eight() -> ShardCount {
    ShardCount::new(8).expect("in range")
}

impl Room {
    pub(super) fn new(kind: Kind) -> Self {
        match kind {
            Kind::Memory => Self::Memory(Memory::with_shards(eight())),
            Kind::Sqlite => Self::Sqlite(tempfile::tempdir().expect("a temporary folder")),
            Kind::Postgres => Self::Postgres(Place::new()),
        }
    }

    /// Opens it; of SQLite the handle before must be closed.
    pub(super) async fn open(&self) -> Arc<dyn EventStore> {
        match self {
            Self::Memory(memory) => Arc::new(memory.clone()),
            Self::Sqlite(folder) => {
                let options = Sqlite::open(folder.path().join("log.db")).shards(eight());
                Arc::new(options.connect().await.expect("the database opens"))
            }
            Self::Postgres(place) => Arc::new(place.open().await),
        }
    }
}

/// Starts a node on a store.
pub(super) async fn node(store: Arc<dyn EventStore>) -> Node {
    let settings = Settings {
        arbiters: 2,
        snapshots: orchestrix::core::SnapshotPolicy::every(10),
        ..Settings::default()
    };
    let builder = Orchestrix::builder().store(store).aggregate::<Counter>().settings(settings);
    builder.metrics(false).start().await.expect("the node starts")
}

/// Lets a node store so many commands of a few counters, every third of them with two events.
pub(super) async fn fill(store: &Arc<dyn EventStore>, commands: u64) {
    let node = node(Arc::clone(store)).await;
    for number in 0..commands {
        let counter = node.of::<Counter>(counter(&format!("c-{}", number % 7)));
        if number % 3 == 0 {
            let events = [1, 2].map(|amount| CounterEvent::Added { amount }).to_vec();
            let version = counter.read_versioned(Consistency::Leased, |_| ()).await.expect("reads").1;
            counter.save(version, events).await.expect("saves");
        } else {
            counter.send(Add::new(number)).await.expect("adds");
        }
    }
    node.shutdown().await;
    store.close().await;
}

/// Reads a whole log, shard by shard.
pub(super) async fn log_of(store: &dyn EventStore) -> Vec<RecordedEvent> {
    let mut log = Vec::new();
    for shard in store.info().shard_count.all() {
        log.extend(store.read_shard(shard, Seq::ZERO, usize::MAX).await.expect("a shard can be read"));
    }
    if store.info().name != "inmemory" {
        store.close().await;
    }
    log
}

/// Checks that a node serves the log: each counter has the total of its events, and takes the next command.
pub(super) async fn serves(room: &Room, log: &[RecordedEvent]) {
    let node = node(room.open().await).await;
    let ids: std::collections::BTreeSet<_> = log.iter().map(|event| event.stream.id.clone()).collect();
    for id in ids {
        let total: u64 = log.iter().filter(|event| event.stream.id == id).map(amount).sum();
        let reply = node.of::<Counter>(counter(&id)).send(Add::new(1)).await.expect("it serves");
        assert_eq!(reply, total + 1, "{id}");
    }
    node.shutdown().await;
}

/// Returns what an event adds.
pub(super) fn amount(event: &RecordedEvent) -> u64 {
    let json: serde_json::Value = serde_json::from_slice(&event.payload).expect("JSON");
    json["amount"].as_u64().expect("a number")
}
