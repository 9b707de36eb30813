//! Obligation 11 for snapshots: fenced as appends are, and never back to a lower version.

use orchestrix_core::Incarnation;
use orchestrix_core::store::{SnapshotOutcome, SnapshotWrite};

use super::bench::{Bench, Writer, stream};

async fn save(writer: &Writer, snapshots: Vec<SnapshotWrite>) -> Vec<SnapshotOutcome> {
    writer.store.save_snapshots(writer.owner, snapshots).await.expect("the store takes snapshots")
}

async fn stored(bench: &Bench, id: &str) -> Option<(u64, Vec<u8>)> {
    let loaded = bench.store().load(&stream(id), 0).await.expect("loads");
    loaded.snapshot.map(|snapshot| (snapshot.version.get(), snapshot.bytes))
}

/// A snapshot is replaced by a newer one, and by one of its own version.
pub async fn a_snapshot_is_replaced_by_a_newer_one(bench: Bench) {
    let writer = bench.writer().await;
    writer.fill(&stream("a"), 5).await;
    for (version, bytes) in [(2, b"two"), (5, b"fiv"), (5, b"new")] {
        assert_eq!(
            save(&writer, vec![writer.snapshot(&stream("a"), version, bytes)]).await,
            [SnapshotOutcome::Saved]
        );
        assert_eq!(stored(&bench, "a").await, Some((version, bytes.to_vec())));
    }
}

/// 11. A snapshot never replaces one of a higher version.
pub async fn a_snapshot_never_replaces_one_of_a_higher_version(bench: Bench) {
    let writer = bench.writer().await;
    writer.fill(&stream("a"), 5).await;
    save(&writer, vec![writer.snapshot(&stream("a"), 4, b"four")]).await;
    let outcomes = save(&writer, vec![writer.snapshot(&stream("a"), 3, b"three")]).await;
    assert_eq!(outcomes, [SnapshotOutcome::Superseded]);
    assert_eq!(stored(&bench, "a").await, Some((4, b"four".to_vec())));
}

/// 11. Snapshots are fenced as appends are: by epoch and by incarnation.
pub async fn a_snapshot_of_a_deposed_owner_is_fenced(bench: Bench) {
    let old = bench.writer().await;
    old.fill(&stream("a"), 3).await;
    save(&old, vec![old.snapshot(&stream("a"), 1, b"old")]).await;
    let new = bench.writer().await;
    assert_eq!(save(&old, vec![old.snapshot(&stream("a"), 2, b"late")]).await, [SnapshotOutcome::Fenced]);
    let stranger = new.under(Incarnation::fresh());
    assert_eq!(
        save(&stranger, vec![new.snapshot(&stream("a"), 3, b"other")]).await,
        [SnapshotOutcome::Fenced]
    );
    assert_eq!(stored(&bench, "a").await, Some((1, b"old".to_vec())));
    assert_eq!(save(&new, vec![new.snapshot(&stream("a"), 3, b"new")]).await, [SnapshotOutcome::Saved]);
}

/// Snapshots of one call are answered one by one, in order.
pub async fn snapshots_are_answered_one_by_one(bench: Bench) {
    let writer = bench.writer().await;
    save(&writer, vec![writer.snapshot(&stream("b"), 9, b"nine")]).await;
    let mut fenced = writer.snapshot(&stream("c"), 1, b"fenced");
    fenced.epoch = fenced.epoch.next();
    let snapshots = vec![
        writer.snapshot(&stream("a"), 1, b"one"),
        writer.snapshot(&stream("b"), 2, b"two"),
        fenced,
        writer.snapshot(&stream("d"), 3, b""),
        writer.snapshot(&stream("a"), 4, b"four"),
    ];
    let outcomes = save(&writer, snapshots).await;
    assert_eq!(
        outcomes,
        [
            SnapshotOutcome::Saved,
            SnapshotOutcome::Superseded,
            SnapshotOutcome::Fenced,
            SnapshotOutcome::Saved,
            SnapshotOutcome::Saved,
        ]
    );
    assert_eq!(stored(&bench, "a").await, Some((4, b"four".to_vec())));
    assert_eq!(stored(&bench, "b").await, Some((9, b"nine".to_vec())));
    assert_eq!(stored(&bench, "c").await, None);
    assert_eq!(stored(&bench, "d").await, Some((3, Vec::new())));
    assert_eq!(save(&writer, Vec::new()).await, []);
}

/// A deleted snapshot is gone, its events are not; deleting none is no error, and an older one may come back.
pub async fn a_deleted_snapshot_is_gone(bench: Bench) {
    let writer = bench.writer().await;
    writer.fill(&stream("a"), 3).await;
    save(&writer, vec![writer.snapshot(&stream("a"), 3, b"three"), writer.snapshot(&stream("b"), 1, b"one")])
        .await;
    for _ in 0..2 {
        bench.store().delete_snapshot(&stream("a")).await.expect("deletes");
        assert_eq!(stored(&bench, "a").await, None);
    }
    assert_eq!(stored(&bench, "b").await, Some((1, b"one".to_vec())));
    assert_eq!(bench.versions(&stream("a")).await, [1, 2, 3]);
    save(&writer, vec![writer.snapshot(&stream("a"), 2, b"two")]).await;
    assert_eq!(stored(&bench, "a").await, Some((2, b"two".to_vec())));
}

/// Snapshots survive a reopen, with all their bytes.
pub async fn snapshots_survive_a_reopen(bench: Bench) {
    let writer = bench.writer().await;
    let bytes: Vec<u8> = (0..200_000_u32).map(|at| (at % 251) as u8).collect();
    save(&writer, vec![writer.snapshot(&stream("a"), 3, &bytes)]).await;
    drop(writer);
    let bench = bench.reopen().await;
    assert_eq!(stored(&bench, "a").await, Some((3, bytes)));
}
