//! Why a database could not be opened or migrated. Nothing of the log was changed in any of these cases.

use std::time::Duration;

use sqlx::migrate::MigrateError;

use super::error::{Failed, NoSession, code, said, sql_state};

/// A PostgreSQL database could not be opened or migrated. Each message names host, database and user, never a password.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PostgresOpenError {
    /// The URL or one of its options is not understood. Handling: correct it.
    #[error("the database URL is not understood: {reason}; give postgres://user:password@host:5432/database")]
    Url {
        /// What is wrong with it.
        reason: String,
    },
    /// An option is out of its range. Handling: correct it.
    #[error("{option} is {value}; allowed is {allowed}")]
    Option {
        /// The option's name.
        option: &'static str,
        /// What it was set to.
        value: String,
        /// What would be right.
        allowed: &'static str,
    },
    /// No connection came about, also not after waiting. Handling: check that the server runs and that the address,
    /// the user, the password and `pg_hba.conf` are right.
    #[error(
        "no connection to {place} within {waited:?}: {reason}; check that the server runs there and lets this user in"
    )]
    Unreachable {
        /// Host, database and user.
        place: String,
        /// What the server or the driver said last, with the SQLSTATE.
        reason: String,
        /// How long it was tried.
        waited: Duration,
    },
    /// The server refused the user or the database. Handling: check name, password, rights.
    #[error(
        "{place} refused the connection: {reason}; check the user, its password and its rights, and the database"
    )]
    Refused {
        /// Host, database and user.
        place: String,
        /// What the server said, with the SQLSTATE.
        reason: String,
    },
    /// The server is too old. Handling: upgrade it.
    #[error("{place} is PostgreSQL {found}; this store needs PostgreSQL 14 or later")]
    ServerTooOld {
        /// Host, database and user.
        place: String,
        /// Its version.
        found: String,
    },
    /// The server is a standby. Handling: give the address of the primary.
    #[error("{place} is a standby, which takes no writes; give the address of the primary")]
    Standby {
        /// Host, database and user.
        place: String,
    },
    /// A service runs on the database, and what is to be done would take its shards from it. Handling: stop it first.
    #[error("{place} is used by a running service ({holder}); stop it first, and start it again afterwards")]
    InUse {
        /// Host, database and user.
        place: String,
        /// What its sessions are called.
        holder: String,
    },
    /// A setting that durability rests on is off. Handling: turn it on.
    #[error(
        "{place} is not durable: {setting} is {found}, so a power cut would lose commits that were acknowledged; turn \
         it on in the server's configuration"
    )]
    NotDurable {
        /// Host, database and user.
        place: String,
        /// The setting.
        setting: &'static str,
        /// What it is.
        found: String,
    },
    /// The schema is older than this program and may not be migrated here. Handling: run `migrate`.
    #[error(
        "{place} has {pending} pending migrations, the first is {first:?}; run `migrate` or set AUTO_MIGRATE=true"
    )]
    Pending {
        /// Host, database and user.
        place: String,
        /// How many migrations are missing.
        pending: usize,
        /// The description of the first one.
        first: String,
    },
    /// The schema was made by a newer program. Handling: run that program.
    #[error(
        "{place} has migration {version}, which this program does not know; run the newer program that made it"
    )]
    Newer {
        /// Host, database and user.
        place: String,
        /// The version that is unknown.
        version: i64,
    },
    /// An applied migration is not the one that this program carries. Handling: restore it; it must never change.
    #[error(
        "{place} was migrated with another text of migration {version}; a migration never changes once it was applied"
    )]
    Changed {
        /// Host, database and user.
        place: String,
        /// The version whose text differs.
        version: i64,
    },
    /// A migration failed and was rolled back. Handling: see the reason.
    #[error("{place} could not be migrated: {reason}")]
    Migration {
        /// Host, database and user.
        place: String,
        /// What the server said, on which migration, with the SQLSTATE.
        reason: String,
    },
    /// The database was made with another number of shards. Handling: ask for that number, or for none.
    #[error(
        "{place} was created with {stored} shards and is opened with {wanted}; the number is fixed when a database is \
         created: ask for {stored}, or for none"
    )]
    ShardCount {
        /// Host, database and user.
        place: String,
        /// What the database has.
        stored: u32,
        /// What was asked for.
        wanted: u32,
    },
    /// The tables hold what cannot be. Handling: restore a backup.
    #[error(
        "{place} is damaged or no database of this store: {reason}; restore a backup or check the address"
    )]
    Corrupt {
        /// Host, database and user.
        place: String,
        /// What was found.
        reason: String,
    },
    /// The server failed in another way. Handling: see the reason.
    #[error("{place} could not be opened: {reason}")]
    Server {
        /// Host, database and user.
        place: String,
        /// What the server or the driver said, with the SQLSTATE.
        reason: String,
    },
}

impl PostgresOpenError {
    /// Finds the cause behind a session that did not come about.
    pub(super) fn from_no_session(place: &str, error: NoSession, waited: Duration) -> Self {
        let place = place.to_owned();
        match error {
            NoSession::Connect { source, .. } => match sql_state(&source) {
                Some(state)
                    if state.starts_with("28") || state.starts_with("3D") || state.starts_with("42") =>
                {
                    Self::Refused { place, reason: said(&source) }
                }
                _ => Self::Unreachable { place, reason: said(&source), waited },
            },
            other => Self::Unreachable { place, reason: other.to_string(), waited },
        }
    }

    /// Finds the cause behind a statement that failed.
    pub(super) fn from_failed(place: &str, failed: Failed) -> Self {
        let place = place.to_owned();
        match failed.code() {
            Some(code::UNDEFINED_TABLE | code::INVALID_SCHEMA) => {
                Self::Corrupt { place, reason: failed.to_string() }
            }
            _ => Self::Server { place, reason: failed.to_string() },
        }
    }

    /// Finds the cause behind an error of the driver.
    pub(super) fn from_driver(place: &str, error: &sqlx::Error) -> Self {
        Self::Server { place: place.to_owned(), reason: said(error) }
    }

    /// Finds the cause behind a failed migration.
    pub(super) fn from_migrate(place: &str, error: MigrateError) -> Self {
        let place = place.to_owned();
        match error {
            MigrateError::VersionMissing(version) => Self::Newer { place, version },
            MigrateError::VersionMismatch(version) => Self::Changed { place, version },
            MigrateError::Execute(error) => Self::Migration { place, reason: said(&error) },
            MigrateError::ExecuteMigration(error, version) => {
                Self::Migration { place, reason: format!("migration {version}: {}", said(&error)) }
            }
            other => Self::Migration { place, reason: other.to_string() },
        }
    }
}
