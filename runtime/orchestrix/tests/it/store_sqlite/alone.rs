//! One process at a time: the lock, what a second process is told, and the fence when the lock did not help.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use orchestrix::store::{OpenError, Sqlite};
use orchestrix_core::EventStore;
use orchestrix_core::store::{ClaimError, CommitOutcome};

use super::owner::{Owner, Place, length, stream};

const HOLD: &str = "ORCHESTRIX_TEST_HOLD";

/// Starts this very program once more, as a process that holds the database, and waits until it does.
fn start_holder(place: &Place) -> Child {
    let program = std::env::current_exe().expect("the running test binary");
    let mut holder = Command::new(program)
        .args(["--ignored", "--exact", "store_sqlite::alone::hold_until_told", "--nocapture"])
        .env(HOLD, place.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the test binary starts once more");
    let output = BufReader::new(holder.stdout.take().expect("its output is piped"));
    let told = output.lines().map_while(Result::ok).any(|line| line.contains("holds the database"));
    assert!(told, "the other process ended before it held the database");
    holder
}

#[tokio::test]
#[ignore = "the other process of `a_second_process_is_told_who_holds_the_database`, started by it"]
async fn hold_until_told() {
    let path = std::env::var_os(HOLD).expect("started by the test that names the path");
    let store = Sqlite::open(path).connect().await.expect("the database opens");
    let owner = Owner::of(&store).await;
    assert!(owner.note("held", 0).await.is_committed());
    println!("holds the database");
    std::io::stdin().read_to_end(&mut Vec::new()).expect("the parent lives or the pipe closes");
}

#[tokio::test]
async fn a_second_process_is_told_who_holds_the_database() {
    let place = Place::new();
    let mut holder = start_holder(&place);
    let error = Sqlite::open(place.path()).connect().await.expect_err("it is held");
    assert!(
        matches!(&error, OpenError::Held { holder: who, .. } if who.contains(&holder.id().to_string())),
        "{error}"
    );
    holder.kill().expect("it can be killed");
    holder.wait().expect("it ends");
    let store = place.open().await;
    assert_eq!(Owner::of(&store).await.epoch(), 2, "the killed process had claimed it once");
    assert_eq!(length(&store, "held").await, 1, "what it had appended is there");
}

#[tokio::test]
async fn a_second_store_in_the_process_is_refused() {
    let place = Place::new();
    let first = place.open().await;
    let error = Sqlite::open(place.path()).connect().await.expect_err("it is held");
    assert!(matches!(error, OpenError::Held { .. }), "{error}");
    first.close().await;
    place.open().await.ping().await.expect("the lock ended with the close");
}

#[tokio::test]
async fn a_dropped_store_lets_go_and_loses_nothing() {
    let place = Place::new();
    let owner = Owner::of(&place.open().await).await;
    assert!(owner.note("a", 0).await.is_committed());
    drop(owner);
    assert_eq!(length(&place.open().await, "a").await, 1);
}

/// The lock file is only advice: here somebody has removed it, and two processes have the database open.
#[tokio::test]
async fn a_deposed_writer_stores_nothing_even_without_the_lock() {
    let place = Place::new();
    let old = Owner::of(&place.open().await).await;
    assert!(old.note("a", 0).await.is_committed());
    std::fs::remove_file(place.directory().join("bank.db.lock")).expect("there is a lock file");
    let new = Owner::of(&place.open().await).await;
    assert_eq!(old.note("a", 1).await, CommitOutcome::Fenced, "known stream");
    assert_eq!(old.note("b", 0).await, CommitOutcome::Fenced, "new stream");
    assert!(new.note("a", 1).await.is_committed());
    assert_eq!(length(&new.store, "a").await, 2);
    assert_eq!(length(&new.store, "b").await, 0);
    let again = Owner::of(&old.store).await;
    assert_eq!(new.note("a", 2).await, CommitOutcome::Fenced, "now the second one is deposed");
    assert!(
        again.note("a", 2).await.is_committed(),
        "the first one has read afresh what the second one wrote"
    );
}

#[tokio::test]
async fn only_the_shards_that_were_taken_over_are_fenced() {
    let place = Place::new();
    let owner = Owner::of(&place.open().await).await;
    let shards = owner.store.info().shard_count;
    let ids: Vec<String> = (0..64).map(|number| format!("a-{number}")).collect();
    place.run("UPDATE shards SET epoch = epoch + 1 WHERE shard = 3").await;
    let outcomes = owner.append(ids.iter().map(|id| owner.commit(id, 0, b"{}")).collect()).await;
    for (id, outcome) in ids.iter().zip(&outcomes) {
        let is_taken = shards.shard_of_stream(&stream(id)).get() == 3;
        assert_eq!(*outcome == CommitOutcome::Fenced, is_taken, "{id}: {outcome:?}");
        assert_eq!(length(&owner.store, id).await, usize::from(!is_taken), "{id}");
    }
    assert!(outcomes.contains(&CommitOutcome::Fenced), "the case was never tried");
}

#[tokio::test]
async fn a_read_only_store_reads_beside_the_writer_and_writes_nothing() {
    let place = Place::new();
    let owner = Owner::of(&place.open().await).await;
    assert!(owner.note("a", 0).await.is_committed());
    let beside = Sqlite::open(place.path()).read_only().connect().await.expect("it takes no lock");
    assert!(owner.note("a", 1).await.is_committed());
    assert_eq!(length(&beside, "a").await, 2, "it sees what is committed");
    beside.ping().await.expect("it answers");
    assert_eq!(beside.stats().await.expect("counts").events, 2);
    let refused = beside.claim(&[], orchestrix_core::Incarnation::fresh()).await;
    assert!(matches!(&refused, Err(ClaimError::Unavailable { reason, .. }) if reason.contains("read-only")));
    assert!(owner.note("a", 2).await.is_committed(), "the owner's epoch is untouched");
}
