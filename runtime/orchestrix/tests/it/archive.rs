//! The archive of a log on PostgreSQL: nobody who reads or writes notices it.

mod conditions;
mod locks;
mod reads;
mod rights;

use std::sync::Arc;

use orchestrix::core::{EventStore, SnapshotPolicy, Timestamp};
use orchestrix::ops::archive::{Archive, Archived};
use orchestrix::store::Postgres;
use orchestrix::{Node, Orchestrix, Settings};

use crate::counter::{Add, Counter, counter};
use crate::store_postgres::place::Place;

/// Everything is older than this.
const LATER: Timestamp = Timestamp::from_micros(9_000_000_000_000_000);

/// Starts a node that takes a snapshot every ten events.
async fn node(place: &Place) -> Node {
    let settings = Settings { arbiters: 2, snapshots: SnapshotPolicy::every(10), ..Settings::default() };
    let store: Arc<dyn EventStore> = Arc::new(place.open().await);
    let builder = Orchestrix::builder().store(store).aggregate::<Counter>().settings(settings);
    builder.metrics(false).start().await.expect("the node starts")
}

/// Stores so many events in each of some counters, and snapshots of them.
pub async fn filled(counters: u64, events: u64) -> Place {
    let place = Place::new();
    let node = node(&place).await;
    for number in 1..=events {
        for name in 0..counters {
            node.of::<Counter>(counter(&format!("c-{name}")))
                .send(Add::new(number))
                .await
                .expect("it serves");
        }
    }
    node.shutdown().await;
    place
}

/// Moves all that may be moved, in small slices.
async fn archive(store: &Postgres) -> Archived {
    let archive = Archive::new(store.clone()).slice_events(7);
    archive.older_than(LATER).await.expect("the archive takes them")
}
