//! The limit of SQLite: raw appends of the runtime's rows to the runtime's schema, as durable as the runtime's.
//!
//! The schema is made by the store itself. A batch is one transaction of inserts with many rows each, handed to the
//! driver as one text, and the next batch is made ready while the last one is written. The index of streams is filled
//! late, as the store fills it: in the order of its keys, with each batch a slice as large as the batch. There is no
//! version to read, no fence to check, nobody to answer.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use orchestrix::core::{Aggregate, Codec, ShardCount};
use sqlx::sqlite::{
    SqliteArguments, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous,
};
use sqlx::{Arguments as _, AssertSqlSafe, ConnectOptions as _, Connection as _};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::rows::{Row, Rows};
use crate::cli::Common;
use crate::database::Database;
use crate::driver::Load;
use crate::scenario::{Counter, counter_id};

/// What the connection keeps of the database in memory, as the store's writer does.
const CACHE_BYTES: u64 = 32 << 20;

/// How far the write-ahead log grows before it is folded into the database, as in the store.
const WAL_BYTES: u64 = 64 << 20;

const PAGE_BYTES: u64 = 4_096;

/// Rows of one insert, as many as the store puts into one. Of 32, 64, 256 and 1,024 this was the fastest, by little.
const STATEMENT_ROWS: usize = 1_024;

/// Batches that are made ready ahead.
const AHEAD_BATCHES: usize = 2;

/// Events that gather before they go into the index in its order, as in the store. A multiple of every batch.
const GENERATION_EVENTS: usize = 16_384;

/// An insert of events, up to its rows.
const EVENTS: (&str, usize) = (
    "INSERT INTO events (pos, stream, version, epoch, event_type, schema_version, codec, \
     command_id, recorded_at, headers, receipt, payload) VALUES ",
    12,
);

/// An insert of entries of the index, up to its rows.
const ENTRIES: (&str, usize) = ("INSERT INTO stream_index (stream, version, pos) VALUES ", 3);

/// Opens a connection as durable as the store's own.
///
/// # Errors
/// When the file cannot be opened.
pub(crate) async fn connect(file: &Path) -> anyhow::Result<SqliteConnection> {
    let options = SqliteConnectOptions::new()
        .filename(file)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(false)
        .pragma("fullfsync", "ON")
        .pragma("checkpoint_fullfsync", "ON")
        .pragma("temp_store", "MEMORY")
        .pragma("cache_size", format!("-{}", CACHE_BYTES >> 10))
        .pragma("wal_autocheckpoint", (WAL_BYTES / PAGE_BYTES).to_string())
        .disable_statement_logging();
    options.connect().await.with_context(|| format!("{} could not be opened", file.display()))
}

/// Makes the schema and the streams, opens a connection, and tells how many shards the store chose.
///
/// # Errors
/// When the database cannot be made.
pub(crate) async fn prepare(
    database: &Database,
    load: &Load,
) -> anyhow::Result<(SqliteConnection, ShardCount)> {
    // The store makes its own schema; an empty log is all that is wanted of it.
    let store = database.open().await?;
    let shard_count = store.info().shard_count;
    store.close().await;
    let mut connection = connect(database.file()?).await?;
    let mut transaction = connection.begin().await.context("the streams could not be written")?;
    for number in 0..load.aggregates {
        sqlx::query("INSERT INTO streams (stream, aggregate_type, id) VALUES (?, ?, ?)")
            .bind(number as i64 + 1)
            .bind(Counter::TYPE.as_str())
            .bind(counter_id(number).as_str())
            .execute(&mut *transaction)
            .await
            .context("the streams could not be written")?;
    }
    transaction.commit().await.context("the streams could not be written")?;
    Ok((connection, shard_count))
}

/// Appends batches for as long as the load says, to a database of its own, and returns the events per second.
///
/// # Errors
/// When the database cannot be made or written.
pub(crate) async fn measure(common: &Common, load: &Load, batch: usize) -> anyhow::Result<f64> {
    let database = Database::temporary(common)?;
    let (mut connection, shard_count) = prepare(&database, load).await?;
    let texts = [transaction_text(batch, 0), transaction_text(batch, batch)];
    let (ready, mut batches) = mpsc::channel(AHEAD_BATCHES);
    let mut rows = Rows::new(load, shard_count);
    let maker = tokio::spawn(async move {
        let mut late = LateIndex::default();
        // The loop ends when the writer has gone away.
        while ready.send(late.batch(&rows.batch(batch))).await.is_ok() {}
    });
    append_for(&mut connection, &texts, &mut batches, load.warmup).await?;
    let from = Instant::now();
    let appended = append_for(&mut connection, &texts, &mut batches, load.duration).await?;
    let took = from.elapsed();
    drop(batches);
    maker.await.context("the maker of batches panicked")?;
    connection.close().await.context("the database of the limit could not be closed")?;
    Ok((appended * batch) as f64 / took.as_secs_f64())
}

/// Appends batches, at least one, until a time has passed, and returns how many: the last one is awaited, so that a
/// rate over the time that was really taken is exact also for large batches.
async fn append_for(
    connection: &mut SqliteConnection,
    texts: &[String; 2],
    batches: &mut mpsc::Receiver<Ready>,
    time: Duration,
) -> anyhow::Result<usize> {
    let start = Instant::now();
    let mut appended = 0;
    while appended == 0 || start.elapsed() < time {
        let ready = batches.recv().await.context("no batch was made")?;
        let text = &*texts[usize::from(ready.has_entries)];
        let query = sqlx::query_with(AssertSqlSafe(text), ready.arguments);
        query.execute(&mut *connection).await.context("a raw append failed")?;
        appended += 1;
    }
    Ok(appended)
}

/// A batch that only waits to be written.
struct Ready {
    arguments: SqliteArguments,
    has_entries: bool,
}

/// What is to go into the index: a generation that gathers, and one that is written in the order of the index.
#[derive(Default)]
struct LateIndex {
    active: Vec<[i64; 3]>,
    frozen: std::vec::IntoIter<[i64; 3]>,
}

impl LateIndex {
    /// Makes a batch ready, with as many entries of the frozen generation as it has rows.
    fn batch(&mut self, rows: &[Row]) -> Ready {
        let mut arguments = SqliteArguments::default();
        arguments.reserve(rows.len() * (EVENTS.1 + ENTRIES.1), 0);
        let entries: Vec<[i64; 3]> = self.frozen.by_ref().take(rows.len()).collect();
        for value in entries.iter().flatten() {
            arguments.add(*value).expect("numbers can always be bound");
        }
        for row in rows {
            add(&mut arguments, row).expect("numbers, texts and bytes can always be bound");
        }
        self.active.extend(rows.iter().map(|row| [row.stream, row.version, row.pos]));
        if self.active.len() >= GENERATION_EVENTS {
            let mut frozen = std::mem::take(&mut self.active);
            frozen.sort_unstable();
            self.frozen = frozen.into_iter();
        }
        Ready { arguments, has_entries: !entries.is_empty() }
    }
}

/// Returns one transaction of inserts for a batch of this size and for so many entries of the index.
fn transaction_text(batch: usize, entries: usize) -> String {
    if batch <= STATEMENT_ROWS && entries == 0 {
        // One statement is a transaction by itself.
        return insert_text(EVENTS, batch);
    }
    let mut text = "BEGIN IMMEDIATE;".to_owned();
    for (table, mut left) in [(ENTRIES, entries), (EVENTS, batch)] {
        while left > 0 {
            let rows = left.min(STATEMENT_ROWS);
            left -= rows;
            text = text + &insert_text(table, rows) + ";";
        }
    }
    text + "COMMIT"
}

fn insert_text((insert, values): (&str, usize), rows: usize) -> String {
    let places = format!("({})", vec!["?"; values].join(","));
    format!("{insert}{}", vec![places; rows].join(","))
}

fn add(arguments: &mut SqliteArguments, row: &Row) -> Result<(), sqlx::error::BoxDynError> {
    arguments.add(row.pos)?;
    arguments.add(row.stream)?;
    arguments.add(row.version)?;
    arguments.add(1_i64)?;
    arguments.add("loadtest.added")?;
    arguments.add(1_i64)?;
    arguments.add(i64::from(Codec::Json.as_u8()))?;
    arguments.add(row.command_id.as_uuid().as_bytes().as_slice())?;
    arguments.add(row.recorded_at.as_micros())?;
    arguments.add(None::<&[u8]>)?;
    arguments.add(row.receipt.as_slice())?;
    arguments.add(row.payload.as_slice())
}

/// Commits of one row, one after the other, for one caller.
#[derive(Debug)]
pub(crate) struct Raw {
    connection: SqliteConnection,
    rows: Rows,
    text: String,
}

impl Raw {
    /// Prepares a database.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(crate) async fn open(database: &Database, load: &Load) -> anyhow::Result<Self> {
        let (connection, shard_count) = prepare(database, load).await?;
        Ok(Self { connection, rows: Rows::new(load, shard_count), text: insert_text(EVENTS, 1) })
    }

    /// Makes one row durable.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) async fn commit_one(&mut self) -> anyhow::Result<()> {
        let mut arguments = SqliteArguments::default();
        add(&mut arguments, &self.rows.next()).expect("numbers, texts and bytes can always be bound");
        let query = sqlx::query_with(AssertSqlSafe(self.text.as_str()), arguments);
        query.execute(&mut self.connection).await.context("a raw commit failed")?;
        Ok(())
    }

    /// Closes the database.
    ///
    /// # Errors
    /// When the driver says so; everything that was committed stays.
    pub(crate) async fn close(self) -> anyhow::Result<()> {
        self.connection.close().await.context("the database of the raw commits could not be closed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_has_a_place_for_every_value() {
        for batch in [1, STATEMENT_ROWS, STATEMENT_ROWS + 1, 4_096] {
            let text = transaction_text(batch, batch);
            assert_eq!(text.matches('?').count(), batch * (EVENTS.1 + ENTRIES.1));
            assert_eq!(text.matches("INSERT").count(), 2 * batch.div_ceil(STATEMENT_ROWS));
            let without = transaction_text(batch, 0);
            assert_eq!(without.matches('?').count(), batch * EVENTS.1);
        }
    }

    #[test]
    fn every_row_enters_the_index_once_and_in_its_order() {
        let load = Load {
            aggregates: 1_000,
            callers: 1,
            rate: None,
            warmup: Duration::ZERO,
            duration: Duration::from_secs(1),
            hot: 0.0,
            payload_bytes: 32,
            read_share: 0.0,
            seed: 1,
            cold: false,
        };
        let mut rows = Rows::new(&load, ShardCount::DEFAULT);
        for batch in crate::limit::SQLITE_BATCHES {
            let mut late = LateIndex::default();
            let batches = GENERATION_EVENTS / batch;
            let has_entries: Vec<bool> =
                (0..2 * batches).map(|_| late.batch(&rows.batch(batch)).has_entries).collect();
            assert_eq!(has_entries.iter().position(|has| *has), Some(batches), "batches of {batch}");
            assert!(late.active.is_empty(), "the second generation is frozen as the first one is through");
            assert_eq!(late.frozen.len(), GENERATION_EVENTS);
            assert!(late.frozen.as_slice().is_sorted());
        }
    }
}
