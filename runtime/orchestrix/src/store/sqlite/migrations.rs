//! The schema, step by step: which migrations there are, which are applied, and applying them.
//!
//! The texts live in `migrations/sqlite/` and are part of the program. SQLx keeps a checksum of each applied one.

use std::path::Path;

use serde::Serialize;
use sqlx::migrate::{Migrate, Migration, MigrationType, Migrator};
use sqlx::sqlite::SqliteConnection;
use sqlx::{Executor, SqlSafeStr};

use super::error::OpenError;

/// Every migration: version, file stem, text. A new file gets a new line at the end; no line ever changes.
const FILES: &[(i64, &str, &str)] = &[
    (1, "0001_create_the_log", include_str!("../../../../../migrations/sqlite/0001_create_the_log.sql")),
    (
        2,
        "0002_keep_snapshots_checkpoints_and_quarantine",
        include_str!("../../../../../migrations/sqlite/0002_keep_snapshots_checkpoints_and_quarantine.sql"),
    ),
    (3, "0003_take_imports", include_str!("../../../../../migrations/sqlite/0003_take_imports.sql")),
];

/// The table in which SQLx keeps what was applied.
const TABLE: &str = "_sqlx_migrations";

/// One step of the schema and whether a database has taken it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MigrationStatus {
    /// Its place in the order, from 1.
    pub version: i64,
    /// What it does.
    pub description: String,
    /// Whether the database has it.
    pub applied: bool,
}

fn migrations() -> Vec<Migration> {
    let migration = |(version, stem, text): &(i64, &'static str, &'static str)| {
        let description = stem.split_once('_').map_or(*stem, |(_, rest)| rest).replace('_', " ");
        Migration::new(*version, description.into(), MigrationType::Simple, text.into_sql_str(), false)
    };
    FILES.iter().map(migration).collect()
}

/// Lists every migration that this program knows, and whether the database has it.
///
/// Fails when the database has one that the program does not know, or another text of one that it does.
pub(super) async fn status(
    path: &Path,
    connection: &mut SqliteConnection,
) -> Result<Vec<MigrationStatus>, OpenError> {
    let driver = |error| OpenError::from_driver(path, error);
    let has_table = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = '_sqlx_migrations'";
    let tables: i64 = sqlx::query_scalar(has_table).fetch_one(&mut *connection).await.map_err(driver)?;
    let applied = if tables == 0 {
        Vec::new()
    } else {
        let listed = connection.list_applied_migrations(TABLE).await;
        listed.map_err(|error| OpenError::from_migrate(path, error))?
    };
    let known = migrations();
    for one in &applied {
        match known.iter().find(|migration| migration.version == one.version) {
            None => return Err(OpenError::Newer { path: path.to_owned(), version: one.version }),
            Some(migration) if migration.checksum != one.checksum => {
                return Err(OpenError::Changed { path: path.to_owned(), version: one.version });
            }
            Some(_) => {}
        }
    }
    let status = |migration: Migration| MigrationStatus {
        version: migration.version,
        applied: applied.iter().any(|one| one.version == migration.version),
        description: migration.description.into_owned(),
    };
    Ok(known.into_iter().map(status).collect())
}

/// Applies what is missing, each migration in a transaction of its own.
pub(super) async fn apply(path: &Path, connection: &mut SqliteConnection) -> Result<(), OpenError> {
    let migrator = Migrator::with_migrations(migrations());
    let applied = migrator.run_direct(None, connection, false).await;
    applied.map_err(|error| OpenError::from_migrate(path, error))
}

/// Applies what is missing in one transaction and rolls it back: tells whether it would work on this very data.
pub(super) async fn rehearse(path: &Path, connection: &mut SqliteConnection) -> Result<(), OpenError> {
    let driver = |error| OpenError::from_driver(path, error);
    let pending = status(path, connection).await?.into_iter().filter(|step| !step.applied);
    let versions: Vec<i64> = pending.map(|step| step.version).collect();
    connection.execute("BEGIN IMMEDIATE").await.map_err(driver)?;
    let mut outcome = Ok(());
    for (_, _, text) in FILES.iter().filter(|(version, ..)| versions.contains(version)) {
        outcome = connection.execute(*text).await.map(|_| ());
        if outcome.is_err() {
            break;
        }
    }
    connection.execute("ROLLBACK").await.map_err(driver)?;
    outcome.map_err(driver)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_part_of_the_program() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../migrations/sqlite");
        let mut stems: Vec<String> = std::fs::read_dir(directory)
            .expect("the directory of the migrations")
            .map(|entry| {
                entry.expect("an entry").path().file_stem().expect("a name").to_string_lossy().into_owned()
            })
            .collect();
        stems.sort();
        assert_eq!(stems, FILES.iter().map(|(_, stem, _)| *stem).collect::<Vec<_>>());
    }

    #[test]
    fn versions_are_the_numbers_of_the_files() {
        for (at, (version, stem, _)) in FILES.iter().enumerate() {
            assert_eq!(*version, at as i64 + 1);
            assert!(stem.starts_with(&format!("{version:04}_")), "{stem}");
        }
    }
}
