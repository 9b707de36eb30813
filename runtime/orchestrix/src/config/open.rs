//! Opens the store that the configuration names.

use std::path::Path;
use std::sync::Arc;

use orchestrix_core::EventStore;

use super::{Config, ConnectionSettings, DatabaseUrl, StoreChoice};
use crate::store::{
    Memory, MigrationStatus, OpenError, Postgres, PostgresOpenError, PostgresOptions, Sqlite, SqliteOptions,
};

/// A database that may have to be migrated.
pub(crate) enum Database {
    Sqlite(SqliteOptions),
    Postgres(Box<PostgresOptions>),
}

impl Database {
    /// Lists every migration, and whether the database has it.
    pub(crate) async fn migration_status(&self) -> Result<Vec<MigrationStatus>, OpenError> {
        match self {
            Self::Sqlite(options) => options.migration_status().await,
            Self::Postgres(options) => Ok(options.migration_status().await?),
        }
    }

    /// Applies what is pending.
    pub(crate) async fn migrate(&self) -> Result<Vec<MigrationStatus>, OpenError> {
        match self {
            Self::Sqlite(options) => options.migrate().await,
            Self::Postgres(options) => Ok(options.migrate().await?),
        }
    }

    /// Rehearses what is pending.
    pub(crate) async fn migrate_dry_run(&self) -> Result<Vec<MigrationStatus>, OpenError> {
        match self {
            Self::Sqlite(options) => options.migrate_dry_run().await,
            Self::Postgres(options) => Ok(options.migrate_dry_run().await?),
        }
    }
}

impl Config {
    /// Returns the database of the store; `None` for a store without one.
    pub(crate) fn database(&self) -> Result<Option<Database>, OpenError> {
        match &self.store {
            StoreChoice::Memory => Ok(None),
            StoreChoice::Sqlite { path } => Ok(Some(Database::Sqlite(self.sqlite(path)))),
            StoreChoice::Postgres { url } => Ok(Some(Database::Postgres(Box::new(self.postgres(url)?)))),
        }
    }

    /// Opens the store for a node that owns it: creates and upgrades the database when `AUTO_MIGRATE` allows it.
    ///
    /// # Errors
    /// [`OpenError`] by cause; nothing of the log was changed.
    ///
    /// # Cancel safety
    /// May be dropped at any point; migrations that were applied stay applied.
    pub async fn open_store(&self) -> Result<Arc<dyn EventStore>, OpenError> {
        match &self.store {
            StoreChoice::Memory => Ok(self.memory()),
            StoreChoice::Sqlite { path } => Ok(Arc::new(self.sqlite(path).connect().await?)),
            StoreChoice::Postgres { url } => Ok(Arc::new(self.postgres(url)?.connect().await?)),
        }
    }

    /// Opens the store to look at it, also beside a service that runs on it: takes no lock and changes nothing.
    ///
    /// # Errors
    /// [`OpenError`] by cause, above all when there is no database yet.
    ///
    /// # Cancel safety
    /// May be dropped at any point; nothing is changed.
    pub async fn open_store_read_only(&self) -> Result<Arc<dyn EventStore>, OpenError> {
        match &self.store {
            StoreChoice::Memory => Ok(self.memory()),
            StoreChoice::Sqlite { path } => Ok(Arc::new(self.sqlite(path).read_only().connect().await?)),
            StoreChoice::Postgres { url } => Ok(Arc::new(self.postgres(url)?.read_only().connect().await?)),
        }
    }

    /// Returns how the database is opened, set as the environment says.
    pub(crate) fn sqlite(&self, path: &Path) -> SqliteOptions {
        let options = Sqlite::open(path)
            .readers(self.database_pool_size as usize)
            .timeout(self.database_timeout)
            .auto_migrate(self.auto_migrate);
        match self.shard_count {
            Some(count) => options.shards(count),
            None => options,
        }
    }

    /// Returns how the PostgreSQL database is opened, set as the environment says.
    pub(crate) fn postgres(&self, url: &DatabaseUrl) -> Result<PostgresOptions, PostgresOpenError> {
        let ConnectionSettings { overflow, recycle, lanes, slow_query, pooler, allow_unsafe_durability } =
            self.connections;
        let mut options = Postgres::open(url.reveal())?
            .pool_size(self.database_pool_size as usize)
            .pool_overflow(overflow)
            .timeout(self.database_timeout)
            .wait(self.database_timeout)
            .lanes(lanes)
            .behind_pooler(pooler)
            .allow_unsafe_durability(allow_unsafe_durability)
            .auto_migrate(self.auto_migrate);
        if let Some(age) = recycle {
            options = options.pool_recycle(age);
        }
        if let Some(limit) = slow_query {
            options = options.slow_query(limit);
        }
        Ok(match self.shard_count {
            Some(count) => options.shards(count),
            None => options,
        })
    }

    fn memory(&self) -> Arc<dyn EventStore> {
        Arc::new(Memory::with_shards(self.shard_count.unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_database_is_opened_as_the_environment_says() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let url = format!("sqlite://{}", folder.path().join("bank.db").display());
        let config = Config::from_pairs(&[("DATABASE_URL", &url), ("SHARD_COUNT", "4")]).expect("valid");
        assert!(matches!(config.open_store_read_only().await, Err(OpenError::Missing { .. })));
        let store = config.open_store().await.expect("opens");
        assert_eq!((store.info().name, store.info().shard_count.get()), ("sqlite", 4));
        let beside = config.open_store_read_only().await.expect("reads beside the owner");
        assert_eq!(beside.stats().await.expect("reads").events, 0);
        store.close().await;
    }

    #[tokio::test]
    async fn without_auto_migrate_a_new_database_is_refused_with_the_remedy() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let url = format!("sqlite://{}", folder.path().join("bank.db").display());
        let config = Config::from_pairs(&[("DATABASE_URL", &url), ("AUTO_MIGRATE", "off")]).expect("valid");
        let error = config.open_store().await.err().expect("is refused").to_string();
        assert!(error.contains("run `migrate` or set AUTO_MIGRATE=true"), "{error}");
    }

    #[tokio::test]
    async fn the_memory_store_needs_no_database() {
        let config = Config::from_pairs(&[("EVENT_STORE_TYPE", "inmemory")]).expect("valid");
        assert_eq!(config.open_store().await.expect("opens").info().name, "inmemory");
    }
}
