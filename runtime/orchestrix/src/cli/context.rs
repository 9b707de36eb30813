//! What every command works with: the settings, the store that they name, and the place to print to.

use std::path::Path;
use std::sync::Arc;

use orchestrix_core::EventStore;

use super::error::CliError;
use super::output::Output;
use crate::config::{Config, DatabaseUrl, StoreChoice};
use crate::store::{MigrationStatus, OpenError, StoreOpenError};

/// Where the log lies, for commands that work on a database.
#[derive(Clone, Copy)]
pub(super) enum Database<'a> {
    Sqlite(&'a Path),
    Postgres(&'a DatabaseUrl),
}

/// What to do about the schema.
#[derive(Clone, Copy)]
pub(super) enum Migrate {
    Status,
    DryRun,
    Apply,
}

/// The surroundings of a command.
pub(super) struct Context {
    pub(super) config: Config,
    pub(super) out: Output,
}

impl Context {
    pub(super) fn new(config: Config, out: Output) -> Self {
        Self { config, out }
    }

    /// Opens the store to look at it, also beside a running service.
    pub(super) async fn look(&self) -> Result<Arc<dyn EventStore>, CliError> {
        self.database()?;
        Ok(self.config.open_store_read_only().await?)
    }

    /// Opens the store to change it; a running service makes that an error. The schema is left as it is.
    pub(super) async fn change(&self) -> Result<Arc<dyn EventStore>, CliError> {
        match self.database()? {
            Database::Sqlite(path) if !path.exists() => {
                Err(StoreOpenError::from(OpenError::Missing { path: path.to_owned() }).into())
            }
            Database::Sqlite(path) => {
                let opened = self.config.sqlite(path).auto_migrate(false).connect().await;
                Ok(Arc::new(opened.map_err(StoreOpenError::from)?))
            }
            Database::Postgres(url) => {
                let options = self.config.postgres(url).map_err(StoreOpenError::from)?;
                let opened = options.auto_migrate(false).connect().await;
                Ok(Arc::new(opened.map_err(StoreOpenError::from)?))
            }
        }
    }

    /// Applies what is pending, or rehearses it, or tells where the schema stands.
    pub(super) async fn migrate(&self, how: Migrate) -> Result<Vec<MigrationStatus>, StoreOpenError> {
        match &self.config.store {
            StoreChoice::Memory => Ok(Vec::new()),
            StoreChoice::Sqlite { path } => {
                let options = self.config.sqlite(path);
                Ok(match how {
                    Migrate::Status => options.migration_status().await?,
                    Migrate::DryRun => options.migrate_dry_run().await?,
                    Migrate::Apply => options.migrate().await?,
                })
            }
            StoreChoice::Postgres { url } => {
                let options = self.config.postgres(url)?;
                Ok(match how {
                    Migrate::Status => options.migration_status().await?,
                    Migrate::DryRun => options.migrate_dry_run().await?,
                    Migrate::Apply => options.wait(self.config.postgres.wait).migrate().await?,
                })
            }
        }
    }

    /// Returns where the database lies.
    pub(super) fn database(&self) -> Result<Database<'_>, CliError> {
        match &self.config.store {
            StoreChoice::Sqlite { path } => Ok(Database::Sqlite(path)),
            StoreChoice::Postgres { url } => Ok(Database::Postgres(url)),
            StoreChoice::Memory => Err(CliError::Usage(
                "EVENT_STORE_TYPE is \"inmemory\": such a store lives inside its service, and no other process can \
                 look at it; set EVENT_STORE_TYPE=sqlite or postgres, and DATABASE_URL"
                    .to_owned(),
            )),
        }
    }
}
