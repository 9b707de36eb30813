//! Obligations 16 to 19: heads of one moment, and how the log of another store comes in.

use orchestrix_core::store::{Commit, CommitOutcome, ImportError, ImportStep, RecordedEvent};
use orchestrix_core::{Epoch, Seq, ShardId, StreamId};

use super::bench::{Bench, Writer, committed, event, recorded, stream};

/// The epoch of the events that are imported: above every one that a fresh store has.
const OLD_EPOCH: u64 = 41;

fn begin(name: &str) -> ImportStep {
    ImportStep::Begin { name: name.to_owned() }
}

/// Makes events as another store would have recorded them: of several streams and shards, some in commits of three.
fn foreign(bench: &Bench) -> Vec<RecordedEvent> {
    let shards: Vec<ShardId> = bench.shards().all().collect();
    let writer = Writer::of_epoch(bench.store(), Epoch::new(OLD_EPOCH));
    let mut events = Vec::new();
    for shard in &shards[..2] {
        let streams = bench.streams_in(*shard, 3);
        let mut seq = Seq::ZERO;
        for (name, expected, count) in [(0, 0, 1), (1, 0, 3), (0, 1, 2), (2, 0, 1), (1, 3, 1)] {
            let commit = decorated(writer.commit(&streams[name], expected, count));
            events.extend(recorded(&commit, seq.next()));
            seq = seq.plus(count as u64);
        }
    }
    events
}

fn decorated(commit: Commit) -> Commit {
    Commit { headers: Some([7, 0, 255].into()), receipt: Some(vec![0, 1, 2, 3, 4, 5, 6, 7, b'1']), ..commit }
}

async fn import(bench: &Bench, events: Vec<RecordedEvent>) -> Result<(), ImportError> {
    bench.store().import(ImportStep::Events(events)).await
}

async fn read_all(bench: &Bench) -> Vec<RecordedEvent> {
    let mut events = Vec::new();
    for shard in bench.shards().all() {
        events.extend(bench.read_shard(shard).await);
    }
    events
}

async fn import_all(bench: &Bench, events: Vec<RecordedEvent>) {
    bench.store().import(begin("all")).await.expect("an empty store takes an import");
    import(bench, events).await.expect("events that continue the log are stored");
    bench.store().import(ImportStep::Finish).await.expect("an import that was begun can be finished");
}

/// The heads are those of one moment: an effect is never in them without its cause.
pub async fn heads_hold_no_effect_without_its_cause(bench: Bench) {
    let shards: Vec<ShardId> = bench.shards().all().collect();
    let (cause, effect) =
        (bench.streams_in(shards[1], 1).remove(0), bench.streams_in(shards[0], 1).remove(0));
    let writer = bench.writer().await;
    let store = bench.store();
    let looking = tokio::spawn(async move {
        loop {
            let heads = store.heads().await.expect("the heads can be read");
            assert!(heads[1] >= heads[0], "the effect {} without its cause {}", heads[0], heads[1]);
            if heads[0] == Seq::new(50) {
                return;
            }
            tokio::task::yield_now().await;
        }
    });
    for version in 0..50 {
        committed(&writer.append_one(writer.commit(&cause, version, 1)).await);
        committed(&writer.append_one(writer.commit(&effect, version, 1)).await);
    }
    looking.await.expect("no look at the heads was wrong");
    assert!(
        bench.store().heads().await.expect("the heads can be read")[2..]
            .iter()
            .all(|head| *head == Seq::ZERO)
    );
}

/// Imported events are stored as they are.
pub async fn imported_events_are_stored_as_they_are(bench: Bench) {
    let events = foreign(&bench);
    import_all(&bench, events.clone()).await;
    assert_eq!(read_all(&bench).await, events);
    let bench = bench.reopen().await;
    assert_eq!(read_all(&bench).await, events, "after a reopen");
    let first = &events[0];
    let heads = bench.store().heads().await.expect("the heads can be read");
    assert_eq!(heads[first.shard.get() as usize], Seq::new(8));
    assert_eq!(bench.versions(&first.stream).await, [1, 2, 3]);
}

/// An import may come in many steps, also with a commit in two of them.
pub async fn an_import_may_come_event_by_event(bench: Bench) {
    let events = foreign(&bench);
    bench.store().import(begin("all")).await.expect("an empty store takes an import");
    for event in &events {
        import(&bench, vec![event.clone()]).await.expect("it continues the log");
    }
    bench.store().import(ImportStep::Finish).await.expect("finishes");
    assert_eq!(read_all(&bench).await, events);
}

/// An event that does not continue its shard and its stream is a gap, and nothing of the step is stored.
pub async fn what_does_not_continue_the_log_stores_nothing(bench: Bench) {
    let events = foreign(&bench);
    bench.store().import(begin("all")).await.expect("an empty store takes an import");
    import(&bench, events[..4].to_vec()).await.expect("it continues the log");
    let before = read_all(&bench).await;
    let without_version =
        RecordedEvent { seq: events[4].seq, version: events[4].version.next(), ..events[4].clone() };
    let of_other_shard = RecordedEvent { shard: events[8].shard, ..events[4].clone() };
    for (what, step) in [
        ("a seq is missing", events[5..8].to_vec()),
        ("a seq comes again", events[3..5].to_vec()),
        ("a version is missing", vec![without_version]),
        ("it is in the wrong shard", vec![of_other_shard]),
    ] {
        let refused = import(&bench, step).await;
        assert!(matches!(refused, Err(ImportError::Gap { .. })), "{what}: {refused:?}");
        assert_eq!(read_all(&bench).await, before, "{what}: nothing was stored");
    }
    import(&bench, events[4..].to_vec()).await.expect("the rest continues the log");
    assert_eq!(read_all(&bench).await, events);
}

/// Only an empty store that nobody has claimed is imported into.
pub async fn only_an_empty_store_is_imported_into(bench: Bench) {
    let events = foreign(&bench);
    let refused = import(&bench, events.clone()).await;
    assert!(matches!(refused, Err(ImportError::NotBegun)), "{refused:?}");
    let refused = bench.store().import(ImportStep::Finish).await;
    assert!(matches!(refused, Err(ImportError::NotBegun)), "{refused:?}");
    let writer = bench.writer().await;
    let refused = bench.store().import(begin("all")).await;
    assert!(matches!(refused, Err(ImportError::NotEmpty { .. })), "it was claimed: {refused:?}");
    committed(&writer.append_one(writer.commit(&stream("a"), 0, 1)).await);
    let refused = bench.store().import(begin("all")).await;
    assert!(matches!(refused, Err(ImportError::NotEmpty { .. })), "it has events: {refused:?}");
    assert_eq!(bench.versions(&stream("a")).await, [1]);
}

/// Until an import is finished every claim fails, and it is taken up again under its own name only.
pub async fn an_interrupted_import_is_taken_up_under_its_own_name(bench: Bench) {
    let events = foreign(&bench);
    bench.store().import(begin("mine")).await.expect("an empty store takes an import");
    import(&bench, events[..5].to_vec()).await.expect("it continues the log");
    let bench = bench.reopen().await;
    let shards: Vec<ShardId> = bench.shards().all().collect();
    let claimed = bench.store().claim(&shards, orchestrix_core::Incarnation::fresh()).await;
    claimed.expect_err("nobody serves a part of a log");
    let refused = bench.store().import(begin("another")).await;
    assert!(matches!(&refused, Err(ImportError::Another { name }) if name == "mine"), "{refused:?}");
    bench.store().import(begin("mine")).await.expect("it is taken up again");
    import(&bench, events[5..].to_vec()).await.expect("it goes on where it was cut");
    bench.store().import(ImportStep::Finish).await.expect("finishes");
    assert_eq!(read_all(&bench).await, events);
    bench.writer().await;
}

/// After an import the epochs go on above those of the events, and streams and seqs go on where they ended.
pub async fn epochs_go_on_above_the_imported_ones(bench: Bench) {
    let events = foreign(&bench);
    import_all(&bench, events.clone()).await;
    let writer = bench.writer().await;
    let first = &events[0];
    assert!(writer.epoch(first.shard) > Epoch::new(OLD_EPOCH), "{}", writer.epoch(first.shard));
    let seq = committed(&writer.append_one(writer.commit(&first.stream, 3, 2)).await);
    assert_eq!(seq, Seq::new(9));
    assert_eq!(bench.versions(&first.stream).await, [1, 2, 3, 4, 5]);
}

/// What owned the shards in the life that the events come from is fenced, also at the epoch of the last event.
pub async fn owners_of_the_former_life_are_fenced(bench: Bench) {
    let events = foreign(&bench);
    import_all(&bench, events.clone()).await;
    let old = Writer::of_epoch(bench.store(), Epoch::new(OLD_EPOCH));
    let outcome = old.append_one(old.commit(&events[0].stream, 3, 1)).await;
    assert_eq!(outcome, CommitOutcome::Fenced, "before anybody has claimed");
    bench.writer().await;
    let outcome = old.append_one(old.commit(&events[0].stream, 3, 1)).await;
    assert_eq!(outcome, CommitOutcome::Fenced, "after a claim");
    assert_eq!(bench.versions(&events[0].stream).await, [1, 2, 3]);
}

/// A step of many events is stored.
pub async fn a_large_step_is_stored(bench: Bench) {
    let shard = ShardId::new(0);
    let streams: Vec<StreamId> = bench.streams_in(shard, 500);
    let writer = Writer::of_epoch(bench.store(), Epoch::new(OLD_EPOCH));
    let mut events = Vec::new();
    for version in 0..6 {
        for stream in &streams {
            let seq = Seq::new(events.len() as u64 + 1);
            events.extend(recorded(&writer.commit_of(stream, version, vec![event(vec![b'1'; 200])]), seq));
        }
    }
    import_all(&bench, events.clone()).await;
    assert_eq!(bench.read_shard(shard).await, events);
    assert_eq!(bench.versions(&streams[499]).await, [1, 2, 3, 4, 5, 6]);
}
