//! What an activation reads: snapshot, tail, version and quarantine in one go.

use orchestrix_core::store::{Loaded, QuarantineRecord, SnapshotOutcome};

use super::bench::{ALL, Bench, Writer, moment, stream};

async fn load(bench: &Bench, id: &str, events_max: usize) -> Loaded {
    bench.store().load(&stream(id), events_max).await.expect("a stream can be loaded")
}

fn versions(loaded: &Loaded) -> Vec<u64> {
    loaded.events.iter().map(|event| event.version.get()).collect()
}

async fn save(writer: &Writer, id: &str, version: u64) {
    let snapshots = vec![writer.snapshot(&stream(id), version, b"state")];
    let outcomes = writer.store.save_snapshots(writer.owner, snapshots).await.expect("saves");
    assert_eq!(outcomes, [SnapshotOutcome::Saved]);
}

/// An unknown stream loads as an empty one.
pub async fn an_unknown_stream_loads_empty(bench: Bench) {
    assert_eq!(load(&bench, "nobody", ALL).await, Loaded::default());
}

/// A load gives the snapshot and the events after it.
pub async fn load_gives_the_snapshot_and_what_came_after(bench: Bench) {
    let writer = bench.writer().await;
    writer.fill(&stream("a"), 10).await;
    let whole = load(&bench, "a", ALL).await;
    assert_eq!((whole.snapshot, whole.events.len()), (None, 10));
    for (at, tail) in [(1, (2..=10).collect()), (7, vec![8, 9, 10]), (10, vec![])] {
        save(&writer, "a", at).await;
        let loaded = load(&bench, "a", ALL).await;
        let snapshot = loaded.snapshot.as_ref().expect("it was saved");
        assert_eq!(
            (snapshot.version.get(), snapshot.taken_at, &*snapshot.bytes),
            (at, moment(at), &b"state"[..])
        );
        assert_eq!(versions(&loaded), tail, "after the snapshot at {at}");
        assert_eq!(loaded.version.get(), 10);
    }
}

/// A load gives the first `events_max` events of the tail, and the stream's true version all the same.
pub async fn load_gives_up_to_its_limit_and_the_true_version(bench: Bench) {
    let writer = bench.writer().await;
    writer.fill(&stream("a"), 10).await;
    let cut = load(&bench, "a", 4).await;
    assert_eq!((versions(&cut), cut.version.get()), (vec![1, 2, 3, 4], 10));
    let none = load(&bench, "a", 0).await;
    assert_eq!((none.events.len(), none.version.get()), (0, 10));
    save(&writer, "a", 5).await;
    let tail = load(&bench, "a", 3).await;
    assert_eq!((versions(&tail), tail.version.get()), (vec![6, 7, 8], 10));
}

/// A load tells that the aggregate is quarantined, also when it has no events.
pub async fn load_tells_a_quarantine(bench: Bench) {
    let writer = bench.writer().await;
    writer.fill(&stream("a"), 1).await;
    for id in ["a", "nobody"] {
        let record = QuarantineRecord {
            stream: stream(id),
            reason: "poison".to_owned(),
            command_id: None,
            since: moment(9),
        };
        bench.store().quarantine(record.clone()).await.expect("marks");
        assert_eq!(load(&bench, id, ALL).await.quarantine, Some(record));
    }
    assert_eq!(load(&bench, "b", ALL).await.quarantine, None);
    assert!(bench.store().release(&stream("a")).await.expect("releases"));
    assert_eq!(load(&bench, "a", ALL).await.quarantine, None);
}

/// `load_many` answers in the order asked for, each as `load` would, also for unknown and repeated streams.
pub async fn load_many_answers_in_the_order_asked_for(bench: Bench) {
    let writer = bench.writer().await;
    for (id, events) in [("a", 3), ("b", 6), ("c", 1)] {
        writer.fill(&stream(id), events).await;
    }
    save(&writer, "b", 4).await;
    let asked = ["c", "nobody", "b", "a", "b"].map(stream);
    let loaded = bench.store().load_many(&asked, 2).await.expect("loads");
    assert_eq!(loaded.len(), asked.len());
    for (name, loaded) in asked.iter().zip(loaded) {
        assert_eq!(loaded, load(&bench, &name.id, 2).await, "{name}");
    }
    assert_eq!(bench.store().load_many(&[], 2).await.expect("loads nothing"), []);
}
