//! One node over SQLite: the same promises as on memory, and through a restart.

use orchestrix::core::{CommandId, SnapshotPolicy, Version};
use orchestrix::store::Sqlite;
use orchestrix::{Consistency, Node, Orchestrix, Settings, StartError};

use crate::counter::{Add, Counter, counter};

async fn start(path: &std::path::Path) -> Result<Node, StartError> {
    let settings = Settings { snapshots: SnapshotPolicy::every(10), ..Settings::default() };
    Orchestrix::builder().store(Sqlite::open(path)).aggregate::<Counter>().settings(settings).start().await
}

#[tokio::test]
async fn a_restart_keeps_every_answer_and_every_key() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("it.db");
    let (first, key) = (start(&path).await.expect("starts"), CommandId::fresh());
    let one = first.of::<Counter>(counter("one"));
    let before = one.send(Add::new(5)).id(key).receipt().await.expect("done");
    for _ in 0..25 {
        one.send(Add::new(1)).await.expect("done");
    }
    first.shutdown().await;
    let second = start(&path).await.expect("starts");
    let one = second.of::<Counter>(counter("one"));
    let again = one.send(Add::new(5)).id(key).receipt().await.expect("done");
    assert_eq!((again.reply, again.version, again.duplicate), (before.reply, before.version, true));
    assert!(again.epoch > before.epoch, "each start raises the epoch");
    assert_eq!(
        one.read_versioned(Consistency::Confirmed, |state| state.total).await,
        Ok((30, Version::new(26)))
    );
    second.shutdown().await;
}

#[tokio::test]
async fn a_second_node_on_the_same_file_does_not_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("it.db");
    let first = start(&path).await.expect("starts");
    assert!(matches!(start(&path).await, Err(StartError::Open(_))));
    assert_eq!(first.of::<Counter>(counter("one")).send(Add::new(1)).await.expect("still serves"), 1);
    first.shutdown().await;
    start(&path).await.expect("the file is free again").shutdown().await;
}

#[tokio::test]
async fn many_callers_share_appends_and_lose_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = start(&folder.path().join("it.db")).await.expect("starts");
    let callers: Vec<_> = (0..64)
        .map(|caller| {
            let to = node.of::<Counter>(counter(&format!("c-{}", caller % 7)));
            tokio::spawn(async move {
                for _ in 0..20 {
                    to.send(Add::new(1)).await.expect("done");
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.expect("no caller panics");
    }
    let ids = (0..7).map(|number| counter(&format!("c-{number}")));
    let totals = node.load_many::<Counter, _>(ids, |state| state.total).await;
    let sum: u64 = totals.into_iter().map(|total| total.expect("read")).sum();
    assert_eq!(sum, 64 * 20);
    node.shutdown().await;
}
