//! The one connection that writes, and what it knows.
//!
//! Every write goes through here, one at a time. A write that ended in an error, or whose future was dropped, leaves
//! the writer *unsettled*: before anything else it rolls back what is open, makes a small durable write (which
//! overwrites whatever a failed commit may have left in the write-ahead log) and reads afresh what it knows.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use orchestrix_core::{Epoch, Seq, Version};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection, Executor, Row};

use super::error::{code, primary_code};
use super::fold::Folding;
use super::late;
use super::lock::LockFile;
use super::place::shard_and_seq;
use super::plan::{Head, Ledger, ShardState, Slots};
use super::rows::{bind, get, incarnation};
use super::statements::{ROWS_MAX, find_heads};
use super::tail::Tail;

/// The writing connection and its picture of the database.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) connection: SqliteConnection,
    pub(super) ledger: Ledger,
    /// What the index of streams does not have yet. Readers look at it, and only the writer changes it.
    tail: Arc<Mutex<Tail>>,
    /// Whether the picture is known to be right and no transaction is open.
    is_settled: bool,
    folding: Folding,
    options: SqliteConnectOptions,
    /// Held for as long as anything may be written.
    _lock: LockFile,
}

impl Writer {
    /// Reads what a writer must know and takes over the connection.
    pub(super) async fn start(
        mut connection: SqliteConnection,
        options: SqliteConnectOptions,
        lock: LockFile,
        tail: Arc<Mutex<Tail>>,
    ) -> Result<Self, sqlx::Error> {
        let (ledger, indexed) = read_ledger(&mut connection).await?;
        let folding = Folding::new(options.clone());
        let mut writer = Self { connection, ledger, tail, is_settled: true, folding, options, _lock: lock };
        writer.check_tail(&indexed).await?;
        Ok(writer)
    }

    /// Locks the tail; never across an await.
    pub(super) fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the tail afresh, unless it is the one of the log as the ledger and the shards have it.
    pub(super) async fn check_tail(&mut self, indexed: &[Seq]) -> Result<(), sqlx::Error> {
        let heads = self.ledger.heads();
        if self.tail().is_of(&heads, indexed) {
            return Ok(());
        }
        let (found, indexed) = late::read(&mut self.connection, heads.len()).await?;
        let rebuilt = self.tail().rebuild(found, heads, indexed);
        rebuilt.map_err(|error| sqlx::Error::Decode(Box::new(error)))
    }

    /// Makes sure that nothing is open and that the picture is right, and counts as unsettled from here on.
    ///
    /// Ends with [`done`](Self::done) when what follows went well. In between the future may be dropped at any point.
    pub(super) async fn begin(&mut self) -> Result<(), sqlx::Error> {
        if !self.is_settled {
            self.settle().await?;
        }
        self.is_settled = false;
        self.folding.step(&mut self.connection).await;
        Ok(())
    }

    /// Says that the write is complete and the picture right.
    pub(super) fn done(&mut self) {
        self.is_settled = true;
    }

    /// Makes certain what is stored: rolls back, writes durably, reads afresh.
    pub(super) async fn settle(&mut self) -> Result<(), sqlx::Error> {
        self.is_settled = false;
        if self.connection.ping().await.is_err() {
            self.connection = self.options.connect().await?;
        }
        // It answers an error when no transaction is open, which is the usual case. One that stayed open would make
        // the next statement fail, which begins one of its own.
        let _nothing_open = self.connection.execute("ROLLBACK").await;
        self.connection.execute(SETTLE).await?;
        let (ledger, indexed) = read_ledger(&mut self.connection).await?;
        self.ledger = ledger;
        self.check_tail(&indexed).await?;
        self.is_settled = true;
        Ok(())
    }

    /// Fills in the ends of the streams that the ledger did not remember.
    pub(super) async fn find_heads(&mut self, slots: &mut Slots) -> Result<(), sqlx::Error> {
        let missing: Vec<usize> =
            (0..slots.streams.len()).filter(|at| slots.streams[*at].head.is_none()).collect();
        for chunk in missing.chunks(ROWS_MAX) {
            let mut arguments = sqlx::sqlite::SqliteArguments::default();
            for at in chunk {
                bind(&mut arguments, *at as i64);
                bind(&mut arguments, &*slots.streams[*at].stream.aggregate_type);
                bind(&mut arguments, &*slots.streams[*at].stream.id);
                slots.streams[*at].head = Some(Head::default());
            }
            let query = sqlx::query_with(find_heads(chunk.len()), arguments);
            for row in query.fetch_all(&mut self.connection).await? {
                let at: i64 = row.try_get(0)?;
                let number: i64 = row.try_get(1)?;
                let indexed: Option<i64> = row.try_get(2)?;
                let version = indexed.max(self.tail().last_version(number)).unwrap_or(0).max(0);
                let version = Version::new(version as u64);
                slots.streams[at as usize].head = Some(Head { number: Some(number), version });
            }
        }
        Ok(())
    }

    /// Completes the index, writes everything back into the database file and closes the connection.
    pub(super) async fn close(mut self) {
        // All of it only tidies up: what was answered is durable already, and the next start reads the log again.
        if let Err(error) = self.drain_tail().await {
            tracing::warn!(%error, "the index of streams could not be completed at close");
        }
        if let Err(error) = self.folding.close().await {
            tracing::warn!(%error, "the write-ahead log could not be folded beside the writer");
        }
        if let Err(error) = self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").await {
            tracing::warn!(%error, "the write-ahead log could not be folded into the database at close");
        }
        if let Err(error) = self.connection.close().await {
            tracing::warn!(%error, "the database did not close cleanly");
        }
    }
}

/// Tells whether SQLite gave up before it touched the end of the transaction, so that nothing can be stored.
///
/// Everything else (an I/O error above all) may strike after the commit was written.
pub(super) fn is_certainly_undone(error: &sqlx::Error) -> bool {
    matches!(
        primary_code(error),
        Some(
            code::BUSY
                | code::LOCKED
                | code::READONLY
                | code::FULL
                | code::CANTOPEN
                | code::TOOBIG
                | code::CONSTRAINT
        )
    )
}

/// Reads generation, ownership and heads by one seek for each shard, and up to where each is indexed: the size of the
/// log does not matter.
pub(super) async fn read_ledger(
    connection: &mut SqliteConnection,
) -> Result<(Ledger, Vec<Seq>), sqlx::Error> {
    let (generation, stream_number_max): (i64, i64) =
        sqlx::query_as(LEDGER).fetch_one(&mut *connection).await?;
    let rows = sqlx::query(SHARDS_AND_HEADS).fetch_all(&mut *connection).await?;
    let mut shards = Vec::with_capacity(rows.len());
    let mut indexed = Vec::with_capacity(rows.len());
    for row in &rows {
        let malformed = |error| sqlx::Error::Decode(Box::new(error));
        let head: Option<i64> = get(row, 2).map_err(malformed)?;
        shards.push(ShardState {
            epoch: Epoch::new(get::<i64>(row, 0).map_err(malformed)?.max(0) as u64),
            owner: incarnation(row, 1).map_err(malformed)?,
            head: head.map_or(Seq::ZERO, |position| shard_and_seq(position).1),
        });
        indexed.push(Seq::new(get::<i64>(row, 3).map_err(malformed)?.max(0) as u64));
    }
    Ok((Ledger::new(generation, shards, stream_number_max + 1), indexed))
}

/// A durable write that changes nothing that is read.
const SETTLE: &str = "BEGIN IMMEDIATE; UPDATE log SET settled = settled + 1; COMMIT";

/// The generation of ownership and the last number of a stream.
pub(super) const LEDGER: &str = "SELECT generation, (SELECT coalesce(max(stream), 0) FROM streams) FROM log";

/// Each shard's epoch, owner, last row and indexed part, in order. 2^40 is the distance between two shards.
pub(super) const SHARDS_AND_HEADS: &str = "\
    SELECT epoch, incarnation, \
           (SELECT pos FROM events WHERE pos > shards.shard * 1099511627776 \
            AND pos < (shards.shard + 1) * 1099511627776 ORDER BY pos DESC LIMIT 1), indexed \
    FROM shards ORDER BY shard";
