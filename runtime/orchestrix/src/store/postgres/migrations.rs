//! The schema, step by step: which migrations there are, which are applied, and applying them.
//!
//! The texts live in `migrations/postgres/` and are part of the program. SQLx keeps a checksum of each applied one in
//! `orchestrix.migrations`, and takes an advisory lock of the database, so that two programs at once are safe.

use sqlx::migrate::{Migrate, Migration, MigrationType, Migrator};
use sqlx::postgres::PgConnection;
use sqlx::{Executor as _, SqlSafeStr as _};

use super::open_error::PostgresOpenError;
use crate::store::MigrationStatus;

/// Every migration: version, file stem, text. A new file gets a new line at the end; no line ever changes.
const FILES: &[(i64, &str, &str)] = &[
    (1, "0001_create_the_log", include_str!("../../../../../migrations/postgres/0001_create_the_log.sql")),
    (
        2,
        "0002_keep_snapshots_checkpoints_and_quarantine",
        include_str!("../../../../../migrations/postgres/0002_keep_snapshots_checkpoints_and_quarantine.sql"),
    ),
    (3, "0003_know_the_nodes", include_str!("../../../../../migrations/postgres/0003_know_the_nodes.sql")),
    (
        4,
        "0004_separate_the_roles",
        include_str!("../../../../../migrations/postgres/0004_separate_the_roles.sql"),
    ),
    (
        5,
        "0005_archive_backup_and_restore",
        include_str!("../../../../../migrations/postgres/0005_archive_backup_and_restore.sql"),
    ),
    (
        6,
        "0006_share_the_shards",
        include_str!("../../../../../migrations/postgres/0006_share_the_shards.sql"),
    ),
];

/// The schema of the store and the table in which SQLx keeps what was applied.
const SCHEMA: &str = "orchestrix";
const TABLE: &str = "orchestrix.migrations";

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
    place: &str,
    connection: &mut PgConnection,
) -> Result<Vec<MigrationStatus>, PostgresOpenError> {
    let has_table = sqlx::query_scalar("SELECT to_regclass('orchestrix.migrations') IS NOT NULL");
    let has_table: bool = has_table
        .fetch_one(&mut *connection)
        .await
        .map_err(|error| PostgresOpenError::from_driver(place, &error))?;
    let applied = if has_table {
        let listed = connection.list_applied_migrations(TABLE).await;
        listed.map_err(|error| PostgresOpenError::from_migrate(place, error))?
    } else {
        Vec::new()
    };
    let known = migrations();
    for one in &applied {
        let place = place.to_owned();
        match known.iter().find(|migration| migration.version == one.version) {
            None => return Err(PostgresOpenError::Newer { place, version: one.version }),
            Some(migration) if migration.checksum != one.checksum => {
                return Err(PostgresOpenError::Changed { place, version: one.version });
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
pub(super) async fn apply(place: &str, connection: &mut PgConnection) -> Result<(), PostgresOpenError> {
    let mut migrator = Migrator::with_migrations(migrations());
    migrator.create_schema(SCHEMA);
    migrator.dangerous_set_table_name(TABLE);
    let applied = migrator.run_direct(None, connection, false).await;
    applied.map_err(|error| PostgresOpenError::from_migrate(place, error))
}

/// Applies what is missing in one transaction and rolls it back: tells whether it would work on this very data.
pub(super) async fn rehearse(
    place: &str,
    connection: &mut PgConnection,
    pending: &[MigrationStatus],
) -> Result<(), PostgresOpenError> {
    let driver = |error: sqlx::Error| PostgresOpenError::from_driver(place, &error);
    connection.execute("BEGIN").await.map_err(driver)?;
    let mut outcome = connection.execute("CREATE SCHEMA IF NOT EXISTS orchestrix").await.map(|_| ());
    for (version, _, text) in FILES {
        if outcome.is_ok() && pending.iter().any(|step| step.version == *version) {
            outcome = connection.execute(*text).await.map(|_| ());
        }
    }
    connection.execute("ROLLBACK").await.map_err(driver)?;
    outcome.map_err(|error| PostgresOpenError::from_migrate(place, error.into()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn every_file_is_part_of_the_program() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../migrations/postgres");
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
