//! Sessions: what they are set to, which of them are kept, what is answered when one is lost.

use std::time::Duration;

use orchestrix::store::{PoolStatus, Postgres, PostgresOpenError};
use orchestrix_core::store::{CommitOutcome, ReadError};
use orchestrix_core::{EventStore, Incarnation};
use orchestrix_testkit::postgres::{PostgresServer, Stop};
use sqlx::Executor as _;

use super::owner::{Owner, length, number, run, shards, stream, until_waiting};
use super::place::Place;

/// Held by hand, it lets every append wait inside of its statement.
const BLOCK_APPENDS: &str = "LOCK TABLE orchestrix.events IN SHARE MODE";

/// Held by hand, it lets every look at a checkpoint wait.
const BLOCK_CHECKPOINTS: &str = "LOCK TABLE orchestrix.checkpoints IN ACCESS EXCLUSIVE MODE";

fn checkpoint(store: &Postgres) -> tokio::task::JoinHandle<Result<(), ReadError>> {
    let store = store.clone();
    tokio::spawn(async move { store.checkpoint("c").await.map(|_| ()) })
}

#[tokio::test]
async fn a_rush_opens_more_sessions_and_closes_them_again() {
    let place = Place::new();
    let options = place.options().await.pool_size(1).pool_overflow(1).pool_timeout(Duration::from_millis(50));
    let store = options.connect().await.expect("opens");
    assert_eq!(store.pool(), PoolStatus { size: 1, idle: 1, in_use: 0, waiters: 0 });
    let mut hand = place.by_hand().await;
    run(&mut hand, "BEGIN").await;
    run(&mut hand, BLOCK_CHECKPOINTS).await;
    let blocked = [checkpoint(&store), checkpoint(&store)];
    until_waiting(&mut place.by_hand().await, 2).await;
    assert_eq!(store.pool(), PoolStatus { size: 2, idle: 0, in_use: 2, waiters: 0 });
    // Nobody else gets one, and nobody waits for longer than was said.
    let third = checkpoint(&store);
    let mut waited = false;
    while !third.is_finished() {
        waited |= store.pool().waiters == 1;
        tokio::task::yield_now().await;
    }
    assert!(waited, "the gauge showed who waits");
    let error = third.await.expect("ends").expect_err("none is free").to_string();
    assert!(
        error.contains("no connection was free within 50ms") && error.contains("2 are in use"),
        "{error}"
    );
    run(&mut hand, "COMMIT").await;
    for call in blocked {
        call.await.expect("ends").expect("answers");
    }
    while store.pool().size > 1 {
        tokio::task::yield_now().await;
    }
    assert_eq!(store.pool(), PoolStatus { size: 1, idle: 1, in_use: 0, waiters: 0 });
}

async fn backend(place: &Place) -> i64 {
    let text = "SELECT max(pid)::int8 FROM pg_stat_activity WHERE datname = current_database() \
                AND application_name LIKE 'orchestrix%'";
    number(&mut place.by_hand().await, text).await
}

#[tokio::test]
async fn a_session_is_replaced_when_it_is_old() {
    let place = Place::new();
    let kept = place.options().await.pool_size(1).connect().await.expect("opens");
    let first = backend(&place).await;
    kept.checkpoint("c").await.expect("answers");
    assert_eq!(backend(&place).await, first, "without a limit it is kept");
    kept.close().await;
    let aging =
        place.options().await.pool_size(1).pool_recycle(Duration::ZERO).connect().await.expect("opens");
    let mut hand = place.by_hand().await;
    let text = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                AND application_name LIKE 'orchestrix%'";
    aging.checkpoint("c").await.expect("answers");
    assert_eq!(aging.pool().size, 0, "the old one went, and the one that was used is old as well");
    while number(&mut hand, text).await > 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    aging.checkpoint("c").await.expect("answers with a new one");
}

#[tokio::test]
async fn sessions_tell_whose_they_are() {
    let place = Place::new();
    let store = place.open().await;
    let owner = Owner::of(&store).await;
    assert!(owner.note("a", 0).await.is_committed());
    let text = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
         AND application_name = 'orchestrix {}'",
        owner.incarnation
    );
    assert!(number(&mut place.by_hand().await, &text).await >= 1);
}

#[tokio::test]
async fn a_default_of_the_database_does_not_weaken_commits() {
    let place = Place::new();
    let mut hand = place.by_hand().await;
    let name: String =
        sqlx::query_scalar("SELECT current_database()").fetch_one(&mut hand).await.expect("a name");
    run(&mut hand, &format!("ALTER DATABASE {name} SET synchronous_commit = off")).await;
    let owner = Owner::of(&place.open().await).await;
    assert!(owner.note("a", 0).await.is_committed(), "its sessions are durable all the same");
    // Where the settings of a session cannot be sent, the default would hold: that is found out.
    let error = place.options().await.behind_pooler(true).connect().await.expect_err("it is weak");
    assert!(matches!(&error, PostgresOpenError::NotDurable { setting: "synchronous_commit", .. }), "{error}");
}

/// A pooler may hand over a session that was never set: each append sees to it by itself.
#[tokio::test]
async fn an_append_is_durable_in_a_session_that_is_not() {
    let place = Place::new();
    place.open().await;
    let mut hand = place.by_hand().await;
    run(&mut hand, "BEGIN; SET LOCAL synchronous_commit = off").await;
    let call = "SELECT orchestrix.append(gen_random_uuid(), 0::int2, 1, pg_postmaster_start_time(), true, '{}', '{}', \
                '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}')::int8";
    assert_eq!(number(&mut hand, call).await, 1, "nobody owns anything");
    let setting: String =
        sqlx::query_scalar("SHOW synchronous_commit").fetch_one(&mut hand).await.expect("shows");
    assert_eq!(setting, "on");
}

#[tokio::test]
async fn a_server_that_loses_commits_is_refused_unless_told_otherwise() {
    for (setting, value) in [("fsync", "off"), ("full_page_writes", "off")] {
        let server =
            PostgresServer::start_with(&[(setting, value)]).unwrap_or_else(|error| panic!("{error}"));
        let options = Postgres::open(&server.url("postgres")).expect("a URL");
        let error = options.clone().connect().await.expect_err("a power cut loses commits");
        assert!(error.to_string().contains(&format!("{setting} is off")), "{error}");
        let store = options.allow_unsafe_durability(true).connect().await.expect("it was told otherwise");
        assert!(!store.info().durable, "it says so");
        store.close().await;
    }
}

/// As behind a pooler that shares sessions and passes none of their settings on.
#[tokio::test]
async fn a_store_works_with_sessions_that_nothing_is_set_for() {
    let place = Place::new();
    let store = place.options().await.behind_pooler(true).connect().await.expect("opens");
    let owner = Owner::of(&store).await;
    for version in 0..3 {
        assert!(owner.note("a", version).await.is_committed());
    }
    assert_eq!(length(&store, "a").await, 3);
    assert_eq!(store.load(&stream("a"), 2).await.expect("loads").events.len(), 2);
}

/// What becomes of an append in flight when something happens to its session, and that the store goes on afterwards.
async fn append_disturbed_by(text: &str) -> (CommitOutcome, Owner) {
    let place = Place::new();
    let owner = Owner::of(&place.open().await).await;
    assert!(owner.note("a", 0).await.is_committed());
    let (mut hand, mut other) = (place.by_hand().await, place.by_hand().await);
    run(&mut hand, "BEGIN").await;
    run(&mut hand, BLOCK_APPENDS).await;
    let append = tokio::spawn({
        let owner = owner.clone();
        async move { owner.note("a", 1).await }
    });
    until_waiting(&mut other, 1).await;
    let victims = format!(
        "SELECT count({text}(pid)) FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
         AND datname = current_database() AND application_name LIKE 'orchestrix%'"
    );
    assert_eq!(number(&mut other, &victims).await, 1, "it hit the append in flight");
    let outcome = append.await.expect("it is answered");
    run(&mut hand, "COMMIT").await;
    (outcome, owner)
}

#[tokio::test]
async fn an_append_whose_session_is_ended_is_unknown_and_a_claim_tells() {
    for how in ["pg_terminate_backend", "pg_cancel_backend"] {
        let (outcome, owner) = append_disturbed_by(how).await;
        assert!(matches!(outcome, CommitOutcome::Unknown { .. }), "{how}: {outcome:?}");
        let claims = owner.store.claim(&shards(&owner.store), owner.incarnation).await.expect("claims");
        assert_eq!(length(&owner.store, "a").await, 1, "{how}: it was not stored");
        let owner = Owner { claims, ..owner };
        assert!(owner.note("a", 1).await.is_committed(), "{how}: the lane works again");
    }
}

#[tokio::test]
async fn an_append_that_waits_too_long_for_a_lock_is_certainly_not_stored() {
    let place = Place::new();
    let store = place.options().await.timeout(Duration::from_millis(400)).connect().await.expect("opens");
    let owner = Owner::of(&store).await;
    let mut hand = place.by_hand().await;
    run(&mut hand, "BEGIN").await;
    run(&mut hand, BLOCK_APPENDS).await;
    let outcome = owner.note("a", 0).await;
    assert!(
        matches!(&outcome, CommitOutcome::Unavailable { reason } if reason.contains("55P03")),
        "the server said that it rolled back: {outcome:?}"
    );
    run(&mut hand, "COMMIT").await;
    assert!(owner.note("a", 0).await.is_committed(), "no seq is missing");
}

#[tokio::test]
async fn a_server_that_crashes_leaves_doubt_and_comes_back() {
    let server = PostgresServer::start().unwrap_or_else(|error| panic!("{error}"));
    let options = Postgres::open(&server.url("postgres")).expect("a URL").timeout(Duration::from_secs(5));
    let store = options.connect().await.expect("opens");
    let owner = Owner::of(&store).await;
    assert!(owner.note("a", 0).await.is_committed());
    let mut hand = super::place::connect(&server.url("postgres")).await;
    let mut other = super::place::connect(&server.url("postgres")).await;
    run(&mut hand, "BEGIN").await;
    run(&mut hand, BLOCK_APPENDS).await;
    let append = tokio::spawn({
        let owner = owner.clone();
        async move { owner.note("a", 1).await }
    });
    until_waiting(&mut other, 1).await;
    server.stop(Stop::Immediate).expect("it crashes");
    let outcome = append.await.expect("it is answered");
    assert!(matches!(outcome, CommitOutcome::Unknown { .. }), "{outcome:?}");
    // While it is away, nothing is attempted, and that is certain.
    let away = owner.note("a", 1).await;
    assert!(matches!(away, CommitOutcome::Unavailable { .. }), "{away:?}");
    assert!(matches!(store.ping().await, Err(ReadError::Unavailable { .. })));
    server.resume().expect("it comes back");
    let claims = store.claim(&shards(&store), owner.incarnation).await.expect("idle sessions were replaced");
    let owner = Owner { claims, ..owner };
    assert_eq!(length(&store, "a").await, 1, "what was acknowledged is there");
    assert!(owner.note("a", 1).await.is_committed());
    store.ping().await.expect("it answers again");
}

/// The same epoch and the same run on a server that was started anew: what it holds is read before anything is stored.
#[tokio::test]
async fn a_restart_needs_no_new_claim() {
    let server = PostgresServer::start().unwrap_or_else(|error| panic!("{error}"));
    let store = Postgres::open(&server.url("postgres")).expect("a URL").connect().await.expect("opens");
    let owner = Owner::of(&store).await;
    assert!(owner.note("a", 0).await.is_committed());
    server.stop(Stop::Fast).expect("it stops");
    server.resume().expect("it comes back");
    // A sign of life goes through a lane, which finds out there that its session is gone.
    for _ in 0..store.info().lanes {
        store.ping().await.expect("it answers");
    }
    assert!(owner.note("a", 1).await.is_committed(), "what it owns and the heads were read anew");
    assert_eq!(length(&store, "a").await, 2);
}

#[tokio::test]
async fn a_start_waits_for_a_server_that_is_not_there_yet() {
    let server = PostgresServer::start().unwrap_or_else(|error| panic!("{error}"));
    let url = server.url("postgres");
    server.stop(Stop::Fast).expect("it stops");
    let options = Postgres::open(&url).expect("a URL");
    let error = options.clone().connect().await.expect_err("nobody listens");
    assert!(matches!(&error, PostgresOpenError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("as postgres") && error.to_string().contains("check that"), "{error}");
    let patient = tokio::spawn(options.wait(Duration::from_mins(1)).connect());
    server.resume().expect("it comes up");
    patient.await.expect("ends").expect("it waited for the server");
}

#[tokio::test]
async fn who_is_not_let_in_is_told_at_once_and_without_the_password() {
    let place = Place::new();
    let url = place.url_of("nobody_of_that_name", "open-sesame").await;
    let options = Postgres::open(&url).expect("a URL").wait(Duration::from_mins(10));
    let error = options.connect().await.expect_err("there is no such user");
    assert!(matches!(&error, PostgresOpenError::Refused { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("SQLSTATE 28") && text.contains("nobody_of_that_name"), "{text}");
    assert!(!text.contains("open-sesame"), "{text}");
}

/// A caller who goes away cuts nothing off, and its session is as good as before.
#[tokio::test]
async fn a_dropped_append_comes_to_its_end_in_its_session() {
    let place = Place::new();
    let owner = Owner::of(&place.open().await).await;
    let (mut hand, mut other) = (place.by_hand().await, place.by_hand().await);
    run(&mut hand, "BEGIN").await;
    run(&mut hand, BLOCK_APPENDS).await;
    let append = tokio::spawn({
        let owner = owner.clone();
        async move { owner.note("a", 0).await }
    });
    until_waiting(&mut other, 1).await;
    append.abort();
    assert!(append.await.expect_err("it was dropped").is_cancelled());
    hand.execute("COMMIT").await.expect("commits");
    // The next one in its shard waits for it.
    assert!(owner.note("a", 1).await.is_committed(), "the dropped one was stored before it");
    assert_eq!(length(&owner.store, "a").await, 2);
}

#[tokio::test]
async fn a_read_only_store_writes_nothing() {
    let place = Place::new();
    let owner = Owner::of(&place.open().await).await;
    assert!(owner.note("a", 0).await.is_committed());
    let looking = place.options().await.read_only().connect().await.expect("opens beside it");
    assert_eq!(length(&looking, "a").await, 1);
    looking.ping().await.expect("answers");
    let refused = looking.claim(&shards(&looking), Incarnation::fresh()).await.expect_err("it only looks");
    assert!(refused.to_string().contains("read-only"), "{refused}");
    let outcome = owner.with(&looking).note("a", 1).await;
    assert!(matches!(outcome, CommitOutcome::Unavailable { .. }), "{outcome:?}");
    assert!(owner.note("a", 1).await.is_committed(), "the owner is not disturbed");
}
