//! The connections that read beside the writer.
//!
//! A pool of its own, since SQLx's asks a connection for a sign of life each time it is given back: one more
//! hand-over for each read.

use std::sync::{Arc, Mutex, PoisonError};

use sqlx::sqlite::{SqliteArguments, SqliteConnectOptions, SqliteConnection, SqliteRow};
use sqlx::{ConnectOptions, Connection};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::tail::Tail;

/// Up to so many read-only connections. Reads beyond wait for their turn, in order.
#[derive(Debug)]
pub(super) struct Readers {
    options: SqliteConnectOptions,
    count: u32,
    turns: Semaphore,
    /// Connections that nobody uses; the one used last is used next, since it remembers most.
    idle: Mutex<Vec<SqliteConnection>>,
    /// What the index of streams does not have yet.
    pub(super) tail: Arc<Mutex<Tail>>,
    /// Whether the tail is read from the log, since another process writes it.
    pub(super) follows: bool,
}

impl Readers {
    /// Opens the connections.
    pub(super) async fn open(
        options: SqliteConnectOptions,
        count: u32,
        tail: Arc<Mutex<Tail>>,
        follows: bool,
    ) -> Result<Self, sqlx::Error> {
        let mut idle = Vec::with_capacity(count as usize);
        for _ in 0..count {
            idle.push(options.connect().await?);
        }
        let turns = Semaphore::new(count as usize);
        Ok(Self { options, count, turns, idle: Mutex::new(idle), tail, follows })
    }

    /// Runs one statement that reads. Dropped half-way, it leaves a connection that can be used again: a statement
    /// of its own is no open transaction.
    pub(super) async fn fetch(
        &self,
        text: &'static str,
        arguments: SqliteArguments,
    ) -> Result<Vec<SqliteRow>, sqlx::Error> {
        let mut reader = self.take().await?;
        let connection = reader.connection.as_mut().expect("it is given back at the end");
        let answer = sqlx::query_with(text, arguments).fetch_all(connection).await;
        if matches!(answer, Err(sqlx::Error::WorkerCrashed)) {
            // Its thread is gone. The next turn that finds no connection opens a new one.
            reader.connection = None;
        }
        answer
    }

    async fn take(&self) -> Result<Reader<'_>, sqlx::Error> {
        let turn = self.turns.acquire().await.map_err(|_closed| sqlx::Error::PoolClosed)?;
        let idle = self.lock().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => self.options.connect().await?,
        };
        Ok(Reader { connection: Some(connection), readers: self, _turn: turn })
    }

    /// Waits for the reads under way and closes every connection; later reads fail.
    pub(super) async fn close(&self) {
        if let Ok(all) = self.turns.acquire_many(self.count).await {
            self.turns.close();
            drop(all);
        }
        let idle = std::mem::take(&mut *self.lock());
        for connection in idle {
            if let Err(error) = connection.close().await {
                tracing::warn!(%error, "a reader did not close cleanly");
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<SqliteConnection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection in use; it goes back when dropped.
struct Reader<'a> {
    connection: Option<SqliteConnection>,
    readers: &'a Readers,
    _turn: SemaphorePermit<'a>,
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.readers.lock().push(connection);
        }
    }
}
