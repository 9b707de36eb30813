//! Asks SQLite how it would run each statement: none that a start or a command waits for may walk the log.

use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Row};

use super::combine::PLACES;
use super::late::LATE;
use super::options::SqliteOptions;
use super::read::text;
use super::slices::ELSEWHERE;
use super::statements::{Along, find_heads, insert_events, insert_together, load};
use super::writer::{LEDGER, SHARDS_AND_HEADS};

/// Opens a new database and keeps its directory for as long as the connection is used.
async fn database() -> (tempfile::TempDir, SqliteConnection) {
    let directory = tempfile::tempdir().expect("a directory");
    let options = SqliteOptions::new(directory.path().join("bank.db"));
    let connection = options.open_for_tests().await;
    (directory, connection)
}

/// Returns the steps of a statement that walk a whole table or index of what grows with the log.
async fn walks(connection: &mut SqliteConnection, statement: &str) -> Vec<String> {
    let explain = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}"));
    let rows = sqlx::query(explain).fetch_all(connection).await.expect("the statement is right");
    assert!(!rows.is_empty(), "SQLite explains {statement}");
    let steps = rows.iter().map(|row| row.get::<String, _>("detail"));
    let grows = ["events", "streams", "stream_index", "snapshots", "quarantine", "e", "s", "i", "n", "q"];
    let is_walk = |step: &String| {
        let mut words = step.split(' ');
        words.next() == Some("SCAN") && words.next().is_some_and(|table| grows.contains(&table))
    };
    steps.filter(is_walk).collect()
}

#[tokio::test]
async fn no_statement_walks_the_log() {
    let (_directory, mut connection) = database().await;
    let script = insert_together(Along::StreamsAndEntries, 1);
    let inserts = script.split("; ").filter(|part| part.starts_with("WITH"));
    let statements = [
        LEDGER,
        SHARDS_AND_HEADS,
        text::FORWARDS,
        text::BACKWARDS,
        text::SHARD,
        PLACES,
        LATE,
        ELSEWHERE,
        text::STREAMS,
        text::STREAMS_AFTER,
        text::CHECKPOINT,
        load(1),
        load(64),
        find_heads(1),
        insert_events(1),
    ];
    for statement in statements.into_iter().chain(inserts) {
        assert_eq!(walks(&mut connection, statement).await, [""; 0], "{statement}");
    }
}

/// The check above can fail: counting does walk.
#[tokio::test]
async fn a_count_walks_a_table() {
    let (_directory, mut connection) = database().await;
    let walked = walks(&mut connection, "SELECT count(*) FROM streams").await;
    assert_eq!(walked, ["SCAN streams"]);
}

#[tokio::test]
async fn the_settings_hold() {
    let (_directory, mut connection) = database().await;
    let settings = [
        ("journal_mode", "wal"),
        ("synchronous", "2"),
        ("fullfsync", "1"),
        ("checkpoint_fullfsync", "1"),
        ("page_size", "4096"),
        ("temp_store", "2"),
    ];
    for (name, wanted) in settings {
        let text = AssertSqlSafe(format!("SELECT CAST({name} AS TEXT) FROM pragma_{name}"));
        let found: String = sqlx::query_scalar(text).fetch_one(&mut connection).await.expect(name);
        assert_eq!(found, wanted, "{name}");
    }
}
