//! The list of aggregates that take no commands.

use orchestrix_core::CommandId;
use orchestrix_core::store::QuarantineRecord;

use super::bench::{Bench, moment, stream};

fn record(id: &str, since: u64, reason: &str) -> QuarantineRecord {
    QuarantineRecord { stream: stream(id), reason: reason.to_owned(), command_id: None, since: moment(since) }
}

async fn mark(bench: &Bench, record: QuarantineRecord) {
    bench.store().quarantine(record).await.expect("an aggregate can be quarantined");
}

async fn list(bench: &Bench, limit: usize) -> Vec<QuarantineRecord> {
    bench.store().quarantined(limit).await.expect("the quarantined can be listed")
}

/// The longest-standing is listed first, up to a limit.
pub async fn the_longest_standing_is_listed_first(bench: Bench) {
    assert_eq!(list(&bench, 10).await, []);
    for (id, since) in [("b", 5), ("c", 2), ("a", 9)] {
        mark(&bench, record(id, since, "poison")).await;
    }
    assert_eq!(
        list(&bench, 10).await,
        [record("c", 2, "poison"), record("b", 5, "poison"), record("a", 9, "poison")]
    );
    assert_eq!(list(&bench, 2).await, [record("c", 2, "poison"), record("b", 5, "poison")]);
    assert_eq!(list(&bench, 0).await, []);
}

/// A second mark replaces the first.
pub async fn a_second_mark_replaces_the_first(bench: Bench) {
    mark(&bench, record("a", 1, "first")).await;
    let second = QuarantineRecord {
        command_id: Some(CommandId::fresh()),
        ..record("a", 2, "second: \u{201c}\u{fc}\u{201d}")
    };
    mark(&bench, second.clone()).await;
    assert_eq!(list(&bench, 10).await, [second]);
}

/// A release lifts it once and tells whether there was one.
pub async fn a_release_lifts_it_once(bench: Bench) {
    mark(&bench, record("a", 1, "poison")).await;
    mark(&bench, record("b", 2, "poison")).await;
    assert!(!bench.store().release(&stream("c")).await.expect("answers"), "there was none");
    assert!(bench.store().release(&stream("a")).await.expect("answers"), "there was one");
    assert!(!bench.store().release(&stream("a")).await.expect("answers"), "it is lifted already");
    assert_eq!(list(&bench, 10).await, [record("b", 2, "poison")]);
}

/// It survives a reopen.
pub async fn it_survives_a_reopen(bench: Bench) {
    mark(&bench, record("a", 1, "poison")).await;
    let bench = bench.reopen().await;
    assert_eq!(list(&bench, 10).await, [record("a", 1, "poison")]);
}
