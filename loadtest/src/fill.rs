//! Fills a log quickly: straight through the store, in batches, with events as the runtime would write them.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use orchestrix::core::store::{Batch, Commit, CommitOutcome, NewEvent, Receipt};
use orchestrix::core::{
    Aggregate, AggregateId, Clock, CommandId, Epoch, Event, EventStore, Incarnation, ShardId, StreamId,
    SystemClock, Version,
};

use crate::database::Database;
use crate::scenario::{Counter, CounterEvent, counter_id, filler};

/// Events of one commit at most: several visits to each stream spread its events over the file, as time would.
const COMMIT_EVENTS: u64 = 5;

/// Events of one append.
const BATCH_EVENTS: usize = 4_096;

/// What filling did.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Filled {
    /// Events in the log now.
    pub(crate) events: u64,
    /// Events that were written.
    pub(crate) written: u64,
    /// How long that took.
    pub(crate) took: Duration,
}

impl Filled {
    /// Returns the events written per second.
    pub(crate) fn per_second(&self) -> f64 {
        self.written as f64 / self.took.as_secs_f64().max(1e-9)
    }
}

/// Appends events to `aggregates` streams until the log has `events` of them. A log that has as many stays as it is.
///
/// # Errors
/// When the store cannot be opened, claimed or written.
pub(crate) async fn fill(
    database: &Database,
    events: u64,
    aggregates: usize,
    payload_bytes: usize,
) -> anyhow::Result<Filled> {
    let began = Instant::now();
    let store = database.open().await?;
    let present = store.stats().await.context("the log could not be counted")?.events;
    ensure!(
        present == 0 || present >= events,
        "the log has {present} events already; give a new file, or ask for at most as many"
    );
    let written = if present == 0 { events } else { 0 };
    if written > 0 {
        Writer::claim(store.as_ref(), aggregates, payload_bytes).await?.write(written).await?;
    }
    store.close().await;
    Ok(Filled { events: present + written, written, took: began.elapsed() })
}

struct Writer<'a> {
    store: &'a dyn EventStore,
    owner: Incarnation,
    epochs: Vec<Epoch>,
    streams: Vec<(StreamId, ShardId)>,
    versions: Vec<Version>,
    payload: NewEvent,
}

impl<'a> Writer<'a> {
    async fn claim(
        store: &'a dyn EventStore,
        aggregates: usize,
        payload_bytes: usize,
    ) -> anyhow::Result<Self> {
        let count = store.info().shard_count;
        let shards: Vec<ShardId> = count.all().collect();
        let owner = Incarnation::fresh();
        let claims = store.claim(&shards, owner).await.context("the shards could not be claimed")?;
        let stream = |number| StreamId::new(Counter::TYPE.as_str(), counter_id(number).to_shared());
        let streams = (0..aggregates).map(stream).map(|stream| {
            let shard = count.shard_of_stream(&stream);
            (stream, shard)
        });
        let event = CounterEvent::Added { amount: 1, filler: filler(payload_bytes) };
        let stored = event.encode().context("the event has no stored form")?;
        let payload = NewEvent {
            event_type: event.event_type().into(),
            schema_version: event.schema_version(),
            codec: stored.codec,
            payload: stored.bytes,
        };
        let epochs = claims.iter().map(|claim| claim.epoch).collect();
        let versions = vec![Version::ZERO; aggregates];
        Ok(Self { store, owner, epochs, streams: streams.collect(), versions, payload })
    }

    async fn write(mut self, events: u64) -> anyhow::Result<()> {
        let (mut commits, mut waiting, mut left, mut next) = (Vec::new(), 0, events, 0);
        while left > 0 {
            let size = COMMIT_EVENTS.min(left);
            commits.push(self.commit(next, size)?);
            next = (next + 1) % self.streams.len();
            left -= size;
            waiting += size as usize;
            if waiting >= BATCH_EVENTS || left == 0 {
                waiting = 0;
                self.append(std::mem::take(&mut commits)).await?;
            }
        }
        Ok(())
    }

    fn commit(&mut self, number: usize, events: u64) -> anyhow::Result<Commit> {
        let (stream, shard) = self.streams[number].clone();
        let expected = self.versions[number];
        self.versions[number] = expected.plus(events);
        let reply = serde_json::to_vec(&expected.plus(events).get()).context("a number has a JSON form")?;
        Ok(Commit {
            stream,
            shard,
            epoch: self.epochs[shard.get() as usize],
            expected,
            command_id: CommandId::fresh(),
            recorded_at: SystemClock.now(),
            headers: None,
            receipt: Some(Receipt { fingerprint: expected.get(), reply }.encode()),
            events: vec![self.payload.clone(); events as usize],
        })
    }

    async fn append(&self, commits: Vec<Commit>) -> anyhow::Result<()> {
        let outcomes = self.store.append(Batch { owner: self.owner, commits }).await;
        let refused = outcomes.iter().find(|outcome| !outcome.is_committed());
        let refused: Option<&CommitOutcome> = refused;
        ensure!(refused.is_none(), "the store did not take a commit: {refused:?}");
        Ok(())
    }
}
