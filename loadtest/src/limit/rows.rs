//! Rows as the runtime would store them: one event for each command, of a stream chosen at random.

use orchestrix::core::store::Receipt;
use orchestrix::core::{Aggregate, Clock, CommandId, Event, ShardCount, SystemClock, Timestamp};
use tokio::time::Instant;

use crate::driver::Load;
use crate::scenario::{CommandIds, Counter, CounterEvent, Random, RunTag, Spread, counter_id, filler};

/// Bits of a row's place that hold the seq; the shard stands above them.
const SEQ_BITS: u32 = 40;

/// One row of the table of events, without what is the same in all of them.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// Shard and seq in one number.
    pub(crate) pos: i64,
    /// The number of the stream, from 1.
    pub(crate) stream: i64,
    /// The place in the stream.
    pub(crate) version: i64,
    /// The command.
    pub(crate) command_id: CommandId,
    /// When it was decided.
    pub(crate) recorded_at: Timestamp,
    /// Fingerprint and reply.
    pub(crate) receipt: Vec<u8>,
    /// The event.
    pub(crate) payload: Vec<u8>,
}

/// Makes rows, with versions and seqs that follow each other.
#[derive(Debug)]
pub(crate) struct Rows {
    spread: Spread,
    random: Random,
    ids: CommandIds,
    started: Instant,
    shards: Vec<u32>,
    versions: Vec<u64>,
    heads: Vec<u64>,
    payload: Vec<u8>,
}

impl Rows {
    /// Prepares rows for a load on a log with this many shards.
    ///
    /// # Panics
    /// When the scenario's event has no stored form, which would be a bug of the scenario.
    pub(crate) fn new(load: &Load, count: ShardCount) -> Self {
        let shard = |number| count.shard_of(Counter::TYPE.as_str(), counter_id(number).as_str()).get();
        let event = CounterEvent::Added { amount: 1, filler: filler(load.payload_bytes) };
        Self {
            spread: Spread { aggregates: load.aggregates, hot: load.hot },
            random: Random::new(load.seed, 0),
            ids: CommandIds::new(RunTag::fresh(SystemClock.now()), 0),
            started: Instant::now(),
            shards: (0..load.aggregates).map(shard).collect(),
            versions: vec![0; load.aggregates],
            heads: vec![0; count.get() as usize],
            payload: event.encode().expect("an amount and a text have a JSON form").bytes,
        }
    }

    /// Returns the next row.
    pub(crate) fn next(&mut self) -> Row {
        let aggregate = self.spread.pick(&mut self.random);
        let shard = self.shards[aggregate];
        let head = &mut self.heads[shard as usize];
        *head += 1;
        self.versions[aggregate] += 1;
        let version = self.versions[aggregate];
        Row {
            pos: place(shard, *head),
            stream: aggregate as i64 + 1,
            version: version as i64,
            command_id: self.ids.next(self.started.elapsed()),
            recorded_at: SystemClock.now(),
            receipt: receipt(version),
            payload: self.payload.clone(),
        }
    }

    /// Returns the next rows in the order in which the table has them: the order that costs an append least.
    pub(crate) fn batch(&mut self, rows: usize) -> Vec<Row> {
        let mut rows: Vec<Row> = (0..rows).map(|_| self.next()).collect();
        rows.sort_unstable_by_key(|row| row.pos);
        rows
    }
}

/// Returns the stored form of a receipt with this count as reply.
pub(crate) fn receipt(count: u64) -> Vec<u8> {
    let fingerprint = count.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    Receipt { fingerprint, reply: count.to_string().into_bytes() }.encode()
}

/// Returns the place of a row.
pub(crate) fn place(shard: u32, seq: u64) -> i64 {
    (i64::from(shard) << SEQ_BITS) | seq as i64
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use super::*;

    fn load() -> Load {
        Load {
            aggregates: 50,
            callers: 1,
            rate: None,
            warmup: Duration::ZERO,
            duration: Duration::from_secs(1),
            hot: 0.0,
            payload_bytes: 200,
            read_share: 0.0,
            seed: 1,
            cold: false,
        }
    }

    #[test]
    fn versions_and_seqs_of_a_batch_have_no_holes() {
        let mut rows = Rows::new(&load(), ShardCount::DEFAULT);
        let mut streams: HashMap<i64, Vec<i64>> = HashMap::new();
        let mut places = Vec::new();
        for row in rows.batch(1_000) {
            assert_eq!(row.payload.len(), 200);
            streams.entry(row.stream).or_default().push(row.version);
            places.push(row.pos);
        }
        assert!(places.is_sorted());
        for versions in streams.values() {
            assert!(versions.iter().zip(1..).all(|(version, expected)| *version == expected), "{versions:?}");
        }
        let first_of_shard = places.iter().filter(|place| **place & ((1 << SEQ_BITS) - 1) == 1).count();
        let shards = places.iter().map(|place| place >> SEQ_BITS).collect::<std::collections::HashSet<_>>();
        assert_eq!(first_of_shard, shards.len());
    }
}
