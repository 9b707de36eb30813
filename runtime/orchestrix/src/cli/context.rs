//! What every command works with: the settings, the store that they name, and the place to print to.

use std::sync::Arc;

use orchestrix_core::EventStore;

use super::error::CliError;
use super::output::Output;
use crate::config::{Config, Database};
use crate::store::OpenError;

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
            Database::Sqlite(options) => {
                if !options.path().exists() {
                    return Err(OpenError::Missing { path: options.path().to_owned() }.into());
                }
                Ok(Arc::new(options.auto_migrate(false).connect().await?))
            }
            Database::Postgres(options) => {
                let store = options.auto_migrate(false).connect().await.map_err(OpenError::from)?;
                store.refuse_beside_a_service().await.map_err(OpenError::from)?;
                Ok(Arc::new(store))
            }
        }
    }

    /// Returns the database that the settings name.
    pub(super) fn database(&self) -> Result<Database, CliError> {
        self.config.database()?.ok_or_else(|| {
            CliError::Usage(
                "EVENT_STORE_TYPE is \"inmemory\": such a store lives inside its service, and no other process can \
                 look at it; set EVENT_STORE_TYPE=sqlite or postgres, and DATABASE_URL"
                    .to_owned(),
            )
        })
    }
}
