//! Writes the tail into the index of streams, slice by slice.

use sqlx::sqlite::SqliteArguments;
use sqlx::{Executor, Row};

use super::late::known;
use super::rows::bind;
use super::statements::{ENTRY_COLUMN_COUNT, ROWS_MAX, insert_entries};
use super::tail::{Late, Slice};
use super::writer::Writer;

/// Entries that one transaction writes when the store is closed.
const DRAIN_ROWS: usize = 4 * ROWS_MAX;

/// Says up to where the shards are indexed, if the generation (bound last) is still the same.
const COMPLETE: &str = "UPDATE shards SET indexed = heads.value FROM json_each(?) AS heads \
                        WHERE heads.key = shards.shard AND (SELECT generation FROM log) = ?";

/// Finds entries that lie elsewhere than they should; bound are streams, versions and places as a JSON array.
pub(super) const ELSEWHERE: &str = "\
    SELECT i.stream, i.version, w.value ->> 2, i.pos FROM json_each(?) AS w CROSS JOIN stream_index AS i \
    ON i.stream = w.value ->> 0 AND i.version = w.value ->> 1 WHERE i.pos <> w.value ->> 2";

impl Writer {
    /// Writes a slice inside an open transaction and returns how many of its entries were not there.
    pub(super) async fn write_slice(&mut self, slice: &Slice) -> Result<u64, sqlx::Error> {
        let generation = self.ledger.generation;
        let mut entries = 0;
        for part in slice.rows.chunks(ROWS_MAX) {
            let mut arguments = SqliteArguments::default();
            bind_entries(&mut arguments, generation, part, part.len());
            let query = sqlx::query_with(insert_entries(part.len()), arguments);
            entries += query.execute(&mut self.connection).await?.rows_affected();
        }
        if let Some(indexed) = &slice.completes {
            let mut arguments = known(indexed);
            bind(&mut arguments, generation);
            sqlx::query_with(COMPLETE, arguments).execute(&mut self.connection).await?;
        }
        Ok(entries)
    }

    /// Looks why entries were there already. After a crash they are the same; anything else is damage that nothing
    /// here can mend: the older one stays, `verify` names the newer one, and a person must act.
    pub(super) async fn explain_entries(&mut self, entries: &[Late]) {
        let wanted: Vec<[i64; 3]> =
            entries.iter().map(|late| [late.stream, late.version, late.position]).collect();
        let mut arguments = SqliteArguments::default();
        bind(&mut arguments, serde_json::json!(wanted).to_string());
        match sqlx::query_with(ELSEWHERE, arguments).fetch_all(&mut self.connection).await {
            Ok(rows) => rows.iter().for_each(|row| {
                let [stream, version, position, also] = [0, 1, 2, 3].map(|at| row.get::<i64, _>(at));
                let double = Late { stream, version, position }.stored_twice(also);
                tracing::error!(%double, "the log is damaged: run `verify`");
            }),
            Err(error) => tracing::warn!(%error, "entries of the index could not be compared"),
        }
    }

    /// Writes all of the tail into the index, in transactions of its own.
    pub(super) async fn drain_tail(&mut self) -> Result<(), sqlx::Error> {
        self.begin().await?;
        loop {
            self.tail().freeze();
            let slice = self.tail().slice(0, DRAIN_ROWS);
            if slice.rows.is_empty() {
                break;
            }
            self.connection.execute("BEGIN IMMEDIATE").await?;
            let entries = self.write_slice(&slice).await?;
            self.connection.execute("COMMIT").await?;
            if entries < slice.rows.len() as u64 {
                self.explain_entries(&slice.rows).await;
            }
            self.tail().advance(slice);
        }
        self.done();
        Ok(())
    }
}

/// Binds the guard and `size` entries, those that are not needed as NULL.
pub(super) fn bind_entries(arguments: &mut SqliteArguments, generation: i64, entries: &[Late], size: usize) {
    bind(arguments, generation);
    for late in entries {
        bind(arguments, late.stream);
        bind(arguments, late.version);
        bind(arguments, late.position);
    }
    for _ in entries.len()..size {
        (0..ENTRY_COLUMN_COUNT).for_each(|_| bind(arguments, None::<i64>));
    }
}
