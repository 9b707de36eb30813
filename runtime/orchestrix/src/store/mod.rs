//! The event stores. Each passes the conformance suite of `orchestrix-testkit`; a line in `tests/it/` runs it.
//!
//! | store | for | durable | processes |
//! |---|---|---|---|
//! | [`Memory`] | tests, trying things out | no | one |
//! | [`Sqlite`] | services on one machine | yes | one at a time |
//! | [`Postgres`] | services on one or many machines | yes | many; each shard has one owner |

mod import;
mod memory;
mod postgres;
mod recent;
mod sqlite;

pub(crate) use import::is_same_commit;
pub use memory::Memory;
pub(crate) use postgres::ServerReport;
pub use postgres::{
    ArchiveCandidate, ArchiveSlice, Covered, PoolStatus, Postgres, PostgresOpenError, PostgresOptions,
    SliceState,
};
#[cfg(test)]
pub(crate) use postgres::{ReportedHolder, ReportedTable};
pub use sqlite::{MigrationStatus, OpenError, Sqlite, SqliteOptions};

/// The store that the environment names could not be opened. Nothing of the log was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreOpenError {
    /// The SQLite database. Handling: by its cause.
    #[error(transparent)]
    Sqlite(#[from] OpenError),
    /// The PostgreSQL database. Handling: by its cause.
    #[error(transparent)]
    Postgres(#[from] PostgresOpenError),
}
