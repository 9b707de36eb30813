//! Folds the write-ahead log into the database beside the writer, on a connection and a thread of its own.
//!
//! SQLite would do it in the commit that fills the log, and nobody would be answered meanwhile: some 35 ms, twice a
//! second under full load. Done beside the writer, only what was written in the meantime is left to it. That part it
//! must do itself: SQLite starts the log over only when all of it is folded, and nobody writes then.

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection};
use tokio::task::JoinHandle;

use super::connect::WAL_PAGES;

/// How many writes go by between two looks at the length of the log: a look is one hand-over.
const LOOK_WRITES: u32 = 16;

/// Folds as far as it can without waiting for anybody.
const FOLD: &str = "PRAGMA wal_checkpoint(PASSIVE)";

/// Only tells how long the log is.
const LOOK: &str = "PRAGMA wal_checkpoint(NOOP)";

/// What is under way, and how much was written since the last look.
#[derive(Debug)]
pub(super) struct Folding {
    options: SqliteConnectOptions,
    writes: u32,
    under_way: Option<JoinHandle<Result<SqliteConnection, sqlx::Error>>>,
    /// Opened when it is first needed.
    connection: Option<SqliteConnection>,
}

impl Folding {
    pub(super) fn new(options: SqliteConnectOptions) -> Self {
        Self { options, writes: 0, under_way: None, connection: None }
    }

    /// Begins to fold the log when it is long, and ends it when the longest part is done. Called before each write,
    /// with the writer's connection.
    ///
    /// A failure is told and no more: SQLite folds the log in a commit when it is twice as long, and nothing is lost.
    pub(super) async fn step(&mut self, writer: &mut SqliteConnection) {
        self.writes += 1;
        let stepped = match self.under_way.take_if(|task| task.is_finished()) {
            Some(task) => self.end(task, writer).await,
            None if self.writes >= LOOK_WRITES && self.under_way.is_none() => self.look(writer).await,
            None => Ok(()),
        };
        if let Err(error) = stepped {
            tracing::warn!(%error, "the write-ahead log could not be folded into the database");
        }
    }

    async fn look(&mut self, writer: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        self.writes = 0;
        let (_, pages, _): (i64, i64, i64) = sqlx::query_as(LOOK).fetch_one(writer).await?;
        if pages >= i64::from(WAL_PAGES) {
            let connection = self.connection.take();
            self.under_way = Some(tokio::spawn(fold(connection, self.options.clone())));
        }
        Ok(())
    }

    async fn end(
        &mut self,
        task: JoinHandle<Result<SqliteConnection, sqlx::Error>>,
        writer: &mut SqliteConnection,
    ) -> Result<(), sqlx::Error> {
        self.writes = 0;
        // A task ends without a result only when it panicked or the runtime ends.
        self.connection = Some(task.await.map_err(|_| sqlx::Error::WorkerCrashed)??);
        sqlx::query(FOLD).execute(writer).await.map(|_| ())
    }

    /// Waits for what is under way and closes the connection.
    pub(super) async fn close(mut self) -> Result<(), sqlx::Error> {
        if let Some(task) = self.under_way.take() {
            self.connection = Some(task.await.map_err(|_| sqlx::Error::WorkerCrashed)??);
        }
        match self.connection {
            Some(connection) => connection.close().await,
            None => Ok(()),
        }
    }
}

async fn fold(
    connection: Option<SqliteConnection>,
    options: SqliteConnectOptions,
) -> Result<SqliteConnection, sqlx::Error> {
    let mut connection = match connection {
        Some(connection) => connection,
        None => options.connect().await?,
    };
    sqlx::query(FOLD).execute(&mut connection).await?;
    Ok(connection)
}
