//! Whatever is appended, and whenever the store is killed or closed, every read answers as the memory store does.

use std::collections::HashMap;

use orchestrix::store::{Memory, Sqlite};
use orchestrix_core::store::{Batch, Commit, Direction, NewEvent, StreamRange};
use orchestrix_core::{
    Codec, CommandId, EventStore, Incarnation, Seq, ShardCount, ShardId, StreamId, Timestamp, Version,
};
use proptest::prelude::*;

use super::owner::{Place, stream};

const STREAMS: usize = 5;

/// Something that happens to both stores.
#[derive(Clone, Debug)]
enum Step {
    /// A batch of commits: each to a stream, with so many events, at the right version or not.
    Append(Vec<(usize, usize, bool)>),
    /// The store is dropped, as a crash would leave it, and opened again.
    Crash,
    Close,
}

/// A part of a stream: from, length, last time, direction, limit.
type Part = (u64, u64, i64, bool, usize);

fn step() -> impl Strategy<Value = Step> {
    let commit = (0..STREAMS, 1..4_usize, prop::bool::weighted(0.9));
    prop_oneof![
        12 => prop::collection::vec(commit, 1..4).prop_map(Step::Append),
        1 => Just(Step::Crash),
        1 => Just(Step::Close),
    ]
}

fn part() -> impl Strategy<Value = Part> {
    (0..12_u64, 0..12_u64, 0..40_i64, any::<bool>(), 0..8_usize)
}

/// The two stores, side by side, under owners of the same life.
struct Pair {
    place: Place,
    generation: usize,
    sqlite: Sqlite,
    beside: Sqlite,
    memory: Memory,
    owner: Incarnation,
    epoch: orchestrix_core::Epoch,
    versions: HashMap<usize, u64>,
    commits: i64,
}

fn shards() -> ShardCount {
    ShardCount::new(3).expect("in range")
}

async fn open(place: &Place, generation: usize) -> (Sqlite, Sqlite) {
    let options = Sqlite::open(place.path()).shards(shards()).index_after(generation).readers(2);
    let sqlite = options.connect().await.expect("it opens");
    let beside = Sqlite::open(place.path()).read_only().readers(1).connect().await.expect("it opens beside");
    (sqlite, beside)
}

impl Pair {
    async fn new(generation: usize) -> Self {
        let place = Place::new();
        let (sqlite, beside) = open(&place, generation).await;
        let memory = Memory::with_shards(shards());
        let mut pair = Self {
            place,
            generation,
            sqlite,
            beside,
            memory,
            owner: Incarnation::fresh(),
            epoch: orchestrix_core::Epoch::ZERO,
            versions: HashMap::new(),
            commits: 0,
        };
        pair.claim().await;
        pair
    }

    async fn claim(&mut self) {
        let all: Vec<ShardId> = shards().all().collect();
        let claims = self.sqlite.claim(&all, self.owner).await.expect("claims");
        assert_eq!(claims, self.memory.claim(&all, self.owner).await.expect("claims"));
        self.epoch = claims[0].epoch;
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Append(commits) => self.append(&commits).await,
            Step::Crash => self.reopen().await,
            Step::Close => {
                self.sqlite.close().await;
                self.reopen().await;
            }
        }
    }

    async fn append(&mut self, commits: &[(usize, usize, bool)]) {
        let commits: Vec<Commit> = commits.iter().map(|commit| self.commit(*commit)).collect();
        let batch = Batch { owner: self.owner, commits };
        let stored = self.sqlite.append(batch.clone()).await;
        assert_eq!(stored, self.memory.append(batch).await);
    }

    fn commit(&mut self, (at, events, is_right): (usize, usize, bool)) -> Commit {
        let stream = stream(&format!("s-{at}"));
        let version = self.versions.entry(at).or_default();
        let expected = *version + u64::from(!is_right);
        *version += if is_right { events as u64 } else { 0 };
        self.commits += 1;
        let event = |number| NewEvent {
            event_type: "note.taken".into(),
            schema_version: 1,
            codec: Codec::Json,
            payload: vec![number as u8; number],
        };
        Commit {
            shard: shards().shard_of_stream(&stream),
            stream,
            epoch: self.epoch,
            expected: Version::new(expected),
            command_id: CommandId::fresh(),
            recorded_at: Timestamp::from_micros(self.commits),
            headers: None,
            receipt: Some(vec![7]),
            events: (0..events).map(event).collect(),
        }
    }

    async fn reopen(&mut self) {
        // Both handles go, so that nothing holds the lock.
        let elsewhere = Place::new();
        let (other, other_beside) = open(&elsewhere, 1).await;
        drop((std::mem::replace(&mut self.sqlite, other), std::mem::replace(&mut self.beside, other_beside)));
        (self.sqlite, self.beside) = open(&self.place, self.generation).await;
        self.claim().await;
    }

    async fn compare(&self, parts: &[Part]) {
        for store in [&self.sqlite, &self.beside] {
            self.compare_loads(store).await;
            self.compare_lists(store).await;
            for part in parts {
                self.compare_part(store, *part).await;
            }
        }
    }

    async fn compare_loads(&self, store: &Sqlite) {
        let names: Vec<StreamId> = (0..=STREAMS).chain([1]).map(|at| stream(&format!("s-{at}"))).collect();
        for events_max in [0, 2, 1_000] {
            let loaded = store.load_many(&names, events_max).await.expect("loads");
            assert_eq!(loaded, self.memory.load_many(&names, events_max).await.expect("loads"));
        }
        for shard in shards().all() {
            let read = store.read_shard(shard, Seq::ZERO, 1_000).await.expect("reads");
            assert_eq!(read, self.memory.read_shard(shard, Seq::ZERO, 1_000).await.expect("reads"));
        }
    }

    async fn compare_lists(&self, store: &Sqlite) {
        for (after, limit) in [(None, 1_000), (None, 2), (Some("s-1"), 2)] {
            let listed = store.list_streams("note", after, limit).await.expect("lists");
            assert_eq!(listed, self.memory.list_streams("note", after, limit).await.expect("lists"));
        }
        let stats = [store.stats().await, self.memory.stats().await].map(|stats| stats.expect("counts"));
        assert_eq!((stats[0].events, stats[0].streams), (stats[1].events, stats[1].streams));
    }

    async fn compare_part(&self, store: &Sqlite, (from, length, until, is_forwards, limit): Part) {
        let direction = if is_forwards { Direction::Forwards } else { Direction::Backwards };
        let range = StreamRange {
            from: Version::new(from),
            to: (length < 8).then(|| Version::new(from + length)),
            until: (until < 30).then(|| Timestamp::from_micros(until)),
            direction,
            limit: if limit == 0 { usize::MAX } else { limit },
        };
        for at in 0..STREAMS {
            let stream = stream(&format!("s-{at}"));
            let read = store.read_stream(&stream, range).await.expect("reads");
            let expected = self.memory.read_stream(&stream, range).await.expect("reads");
            assert_eq!(read, expected, "{stream} {range:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn every_read_answers_as_the_memory_store_does(
        generation in 1..9_usize,
        steps in prop::collection::vec((step(), prop::collection::vec(part(), 2)), 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut pair = Pair::new(generation).await;
            for (step, parts) in steps {
                pair.take(step).await;
                pair.compare(&parts).await;
            }
        });
    }
}
