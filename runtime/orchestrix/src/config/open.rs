//! Opens the store that the configuration names.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use orchestrix_core::EventStore;

use super::{Config, DatabaseUrl, StoreChoice};
use crate::node::Replica;
use crate::store::{
    Memory, Postgres, PostgresOpenError, PostgresOptions, Sqlite, SqliteOptions, StoreOpenError,
};

impl Config {
    /// Opens the store for a node that owns it: creates and upgrades the database when `AUTO_MIGRATE` allows it.
    ///
    /// # Errors
    /// [`StoreOpenError`] by cause; nothing of the log was changed.
    ///
    /// # Cancel safety
    /// May be dropped at any point; migrations that were applied stay applied.
    pub async fn open_store(&self) -> Result<Arc<dyn EventStore>, StoreOpenError> {
        match &self.store {
            StoreChoice::Memory => Ok(self.memory()),
            StoreChoice::Sqlite { path } => Ok(Arc::new(self.sqlite(path).connect().await?)),
            StoreChoice::Postgres { url } => {
                Ok(Arc::new(self.postgres(url)?.wait(self.postgres.wait).connect().await?))
            }
        }
    }

    /// Returns the replica that the environment names, opened in the background: one that does not answer keeps no
    /// service from starting, and one of another database is not used. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`StoreOpenError`] when the address is not understood.
    pub fn replica(&self) -> Result<Option<Replica>, StoreOpenError> {
        let (Some(replica), StoreChoice::Postgres { url }) = (&self.database_read_url, &self.store) else {
            return Ok(None);
        };
        let (replica, store) = (self.postgres(replica)?.read_only(), self.postgres(url)?.read_only());
        Ok(Some(Replica::opening(async move {
            let replica = open_patiently(replica).await;
            let store = open_patiently(store).await;
            let same = replica.cluster() == store.cluster();
            store.close().await;
            if !same {
                tracing::error!("DATABASE_READ_URL names another database, not a replica; it is not used");
                replica.close().await;
                return None;
            }
            tracing::info!("the past is read from the replica");
            Some(Arc::new(replica) as Arc<dyn EventStore>)
        })))
    }

    /// Opens the store to look at it, also beside a service that runs on it: takes no lock and changes nothing.
    ///
    /// # Errors
    /// [`StoreOpenError`] by cause, above all when there is no database yet.
    ///
    /// # Cancel safety
    /// May be dropped at any point; nothing is changed.
    pub async fn open_store_read_only(&self) -> Result<Arc<dyn EventStore>, StoreOpenError> {
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

    /// The same for a PostgreSQL database.
    pub(crate) fn postgres(&self, url: &DatabaseUrl) -> Result<PostgresOptions, PostgresOpenError> {
        let choices = &self.postgres;
        let mut options = Postgres::open(url.expose())?
            .auto_migrate(self.auto_migrate)
            .timeout(self.database_timeout)
            .pool_size(self.database_pool_size as usize)
            .pool_overflow(choices.pool_overflow as usize)
            .pool_timeout(choices.pool_timeout)
            .lanes(choices.lanes)
            .behind_pooler(choices.pooler)
            .allow_unsafe_durability(choices.allow_unsafe_durability);
        if !choices.pool_recycle.is_zero() {
            options = options.pool_recycle(choices.pool_recycle);
        }
        if !choices.slow_query.is_zero() {
            options = options.slow_query(choices.slow_query);
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

/// How long a replica that could not be opened is left alone.
const REPLICA_PAUSE: Duration = Duration::from_secs(10);

/// Tries until it succeeds: a replica may be built long after the service has started.
async fn open_patiently(options: PostgresOptions) -> Postgres {
    let mut is_told = false;
    loop {
        match options.clone().connect().await {
            Ok(replica) => return replica,
            Err(error) if is_told => tracing::debug!(%error, "the replica cannot be opened yet"),
            Err(error) => {
                tracing::warn!(%error, "the replica cannot be opened yet; trying on");
                is_told = true;
            }
        }
        tokio::time::sleep(REPLICA_PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::OpenError;

    #[tokio::test]
    async fn the_database_is_opened_as_the_environment_says() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let url = format!("sqlite://{}", folder.path().join("bank.db").display());
        let config = Config::from_pairs(&[("DATABASE_URL", &url), ("SHARD_COUNT", "4")]).expect("valid");
        let missing = config.open_store_read_only().await;
        assert!(matches!(missing, Err(StoreOpenError::Sqlite(OpenError::Missing { .. }))));
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
