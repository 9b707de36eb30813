//! The schema over the years: applied when wanted, listed, rehearsed, by many at once, and never changed after the fact.

use orchestrix::store::{MigrationStatus, PostgresOpenError};

use super::owner::{Owner, number, run};
use super::place::Place;

fn applied(status: &[MigrationStatus]) -> Vec<bool> {
    status.iter().map(|step| step.applied).collect()
}

#[tokio::test]
async fn an_empty_database_gets_its_tables_when_it_is_opened() {
    let place = Place::empty();
    let owner = Owner::of(&place.open().await).await;
    assert!(owner.note("a", 0).await.is_committed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_who_migrate_at_once_are_safe() {
    let place = Place::empty();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..8 {
        let options = place.options().await;
        tasks.spawn(async move {
            if number % 2 == 0 {
                options.migrate().await.map(|_| ())
            } else {
                options.connect().await.map(|_| ())
            }
        });
    }
    for ended in tasks.join_all().await {
        ended.expect("each of them ends well");
    }
    let mut hand = place.by_hand().await;
    assert_eq!(number(&mut hand, "SELECT count(*) FROM orchestrix.migrations WHERE success").await, 6);
    assert_eq!(number(&mut hand, "SELECT count(*) FROM orchestrix.meta").await, 1);
    assert_eq!(number(&mut hand, "SELECT count(*) FROM orchestrix.shards").await, 8);
}

#[tokio::test]
async fn a_database_without_tables_is_refused_where_migrations_are_run_by_hand() {
    let place = Place::empty();
    let error = place.options().await.auto_migrate(false).connect().await.expect_err("all are pending");
    assert!(matches!(&error, PostgresOpenError::Pending { pending: 6, .. }), "{error}");
    assert!(
        error.to_string().contains("create the log") && error.to_string().contains("run `migrate`"),
        "{error}"
    );
    let done = place.options().await.migrate().await.expect("they apply");
    assert_eq!(done.iter().map(|step| step.version).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
    place.options().await.auto_migrate(false).connect().await.expect("nothing is pending");
}

#[tokio::test]
async fn the_status_lists_every_step_and_a_rehearsal_changes_nothing() {
    let place = Place::empty();
    let options = place.options().await;
    assert_eq!(applied(&options.migration_status().await.expect("an empty database")), [false; 6]);
    assert_eq!(options.migrate_dry_run().await.expect("it would work").len(), 6);
    let mut hand = place.by_hand().await;
    let schemas = "SELECT count(*) FROM pg_namespace WHERE nspname = 'orchestrix'";
    assert_eq!(number(&mut hand, schemas).await, 0, "nothing is there");
    options.migrate().await.expect("it works");
    assert_eq!(applied(&options.migration_status().await.expect("a database")), [true; 6]);
    assert_eq!(options.migrate_dry_run().await.expect("nothing to do"), []);
}

#[tokio::test]
async fn what_is_in_the_way_is_found_before_it_is_done_and_leaves_all_as_it_was() {
    let place = Place::empty();
    let options = place.options().await;
    let mut hand = place.by_hand().await;
    run(&mut hand, "CREATE SCHEMA orchestrix").await;
    run(&mut hand, "CREATE TABLE orchestrix.quarantine (x int)").await;
    let error = options.migrate_dry_run().await.expect_err("a table is in the way");
    assert!(error.to_string().contains("quarantine") && error.to_string().contains("42P07"), "{error}");
    let error = options.migrate().await.expect_err("a table is in the way");
    assert!(matches!(&error, PostgresOpenError::Migration { .. }), "{error}");
    assert!(error.to_string().contains("migration 2"), "{error}");
    assert_eq!(
        applied(&options.migration_status().await.expect("lists")),
        [true, false, false, false, false, false]
    );
    run(&mut hand, "DROP TABLE orchestrix.quarantine").await;
    assert_eq!(options.migrate().await.expect("the way is free").len(), 5);
}

#[tokio::test]
async fn a_migration_whose_text_was_changed_is_refused() {
    let place = Place::new();
    let mut hand = place.by_hand().await;
    run(&mut hand, "UPDATE orchestrix.migrations SET checksum = '\\x00' WHERE version = 1").await;
    let error = place.options().await.connect().await.expect_err("the checksum differs");
    assert!(matches!(error, PostgresOpenError::Changed { version: 1, .. }), "{error}");
}

#[tokio::test]
async fn a_database_of_a_newer_release_is_refused() {
    let place = Place::new();
    let mut hand = place.by_hand().await;
    run(&mut hand, "UPDATE orchestrix.migrations SET version = 999 WHERE version = 6").await;
    let error = place.options().await.connect().await.expect_err("it is newer");
    assert!(matches!(error, PostgresOpenError::Newer { version: 999, .. }), "{error}");
}

#[tokio::test]
async fn a_database_whose_shards_are_gone_is_corrupt() {
    let place = Place::new();
    place.open().await;
    let mut hand = place.by_hand().await;
    run(&mut hand, "DELETE FROM orchestrix.shards WHERE shard = 7").await;
    let error = place.options().await.connect().await.expect_err("a shard is missing");
    assert!(error.to_string().contains("it says 8 shards and has 7"), "{error}");
}

#[tokio::test]
async fn the_number_of_shards_is_fixed_when_a_database_is_created() {
    let place = Place::new();
    place.open().await;
    let other = orchestrix_core::ShardCount::new(16).expect("in range");
    let error = place.options().await.shards(other).connect().await.expect_err("they differ");
    assert!(matches!(error, PostgresOpenError::ShardCount { stored: 8, wanted: 16, .. }), "{error}");
}
