//! What every command works with: the settings, the store that they name, and the place to print to.

use std::path::Path;
use std::sync::Arc;

use orchestrix_core::EventStore;

use super::error::CliError;
use super::output::Output;
use crate::config::{Config, StoreChoice};

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
        let path = self.database()?;
        if !path.exists() {
            return Err(crate::store::OpenError::Missing { path: path.to_owned() }.into());
        }
        Ok(Arc::new(self.config.sqlite(path).auto_migrate(false).connect().await?))
    }

    /// Returns where the database lies.
    pub(super) fn database(&self) -> Result<&Path, CliError> {
        match &self.config.store {
            StoreChoice::Sqlite { path } => Ok(path),
            StoreChoice::Memory => Err(CliError::Usage(
                "EVENT_STORE_TYPE is \"inmemory\": such a store lives inside its service, and no other process can \
                 look at it; set EVENT_STORE_TYPE=sqlite and DATABASE_URL"
                    .to_owned(),
            )),
        }
    }
}
