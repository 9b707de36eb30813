//! The schema over the years: applied when wanted, listed, rehearsed, and never changed after the fact.

use std::path::Path;

use orchestrix::store::{MigrationStatus, OpenError, Sqlite};
use sqlx::migrate::Migrator;

use super::owner::{Owner, Place};

/// Makes a database as the release with the first migration alone would have left it.
async fn of_the_first_release(place: &Place) {
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../migrations/sqlite");
    let migrator = Migrator::new(files).await.expect("the files can be read");
    let mut connection = place.by_hand().await;
    migrator.run_direct(Some(1), &mut connection, false).await.expect("the first one applies");
}

fn applied(status: &[MigrationStatus]) -> Vec<bool> {
    status.iter().map(|step| step.applied).collect()
}

#[tokio::test]
async fn an_old_database_is_migrated_when_it_is_opened() {
    let place = Place::new();
    of_the_first_release(&place).await;
    let owner = Owner::of(&place.open().await).await;
    assert!(owner.note("a", 0).await.is_committed());
}

#[tokio::test]
async fn an_old_database_is_refused_where_migrations_are_run_by_hand() {
    let place = Place::new();
    of_the_first_release(&place).await;
    let error = Sqlite::open(place.path()).auto_migrate(false).connect().await.expect_err("two are pending");
    assert!(matches!(&error, OpenError::Pending { pending: 2, .. }), "{error}");
    assert!(error.to_string().contains("keep snapshots checkpoints and quarantine"), "{error}");
    let done = Sqlite::open(place.path()).migrate().await.expect("it applies");
    assert_eq!(done.iter().map(|step| step.version).collect::<Vec<_>>(), [2, 3]);
    Sqlite::open(place.path()).auto_migrate(false).connect().await.expect("nothing is pending");
}

#[tokio::test]
async fn the_status_lists_every_step() {
    let place = Place::new();
    let options = Sqlite::open(place.path());
    assert_eq!(applied(&options.migration_status().await.expect("no database yet")), [false; 3]);
    assert!(!place.path().exists(), "asking creates nothing");
    of_the_first_release(&place).await;
    let status = options.migration_status().await.expect("a database");
    assert_eq!(applied(&status), [true, false, false]);
    assert_eq!((status[0].version, &*status[0].description), (1, "create the log"));
    let _running = place.open().await;
    assert_eq!(applied(&options.migration_status().await.expect("beside a running process")), [true; 3]);
}

#[tokio::test]
async fn a_rehearsal_changes_nothing() {
    let place = Place::new();
    let options = Sqlite::open(place.path());
    assert_eq!(options.migrate_dry_run().await.expect("it would work").len(), 3);
    assert!(!place.path().exists(), "a rehearsal creates nothing");
    of_the_first_release(&place).await;
    assert_eq!(options.migrate_dry_run().await.expect("it would work").len(), 2);
    assert_eq!(applied(&options.migration_status().await.expect("a database")), [true, false, false]);
    // What is in the way of the next step is found before it is taken.
    place.run("CREATE TABLE snapshots (x)").await;
    let error = options.migrate_dry_run().await.expect_err("a table is in the way");
    assert!(error.to_string().contains("snapshots already exists"), "{error}");
}

#[tokio::test]
async fn a_failed_migration_leaves_the_database_as_it_was() {
    let place = Place::new();
    of_the_first_release(&place).await;
    place.run("CREATE TABLE quarantine (x)").await;
    let error = Sqlite::open(place.path()).connect().await.expect_err("a table is in the way");
    assert!(matches!(error, OpenError::Migration { .. }), "{error}");
    place.run("DROP TABLE quarantine").await;
    place.open().await;
}

#[tokio::test]
async fn a_migration_whose_text_was_changed_is_refused() {
    let place = Place::new();
    of_the_first_release(&place).await;
    place.run("UPDATE _sqlx_migrations SET checksum = x'00' WHERE version = 1").await;
    let error = Sqlite::open(place.path()).connect().await.expect_err("the checksum differs");
    assert!(matches!(error, OpenError::Changed { version: 1, .. }), "{error}");
    let error = Sqlite::open(place.path()).migration_status().await.expect_err("the checksum differs");
    assert!(matches!(error, OpenError::Changed { version: 1, .. }), "{error}");
}

#[tokio::test]
async fn a_database_of_a_newer_release_is_refused() {
    let place = Place::new();
    of_the_first_release(&place).await;
    place.run("UPDATE _sqlx_migrations SET version = 999").await;
    let error = Sqlite::open(place.path()).connect().await.expect_err("it is newer");
    assert!(matches!(error, OpenError::Newer { version: 999, .. }), "{error}");
}
