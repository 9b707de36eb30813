//! One transaction per command: what most event stores on SQL do, on the same schema with the same durability.

mod postgres;
mod sqlite;

use anyhow::bail;

use crate::cli::{Common, StoreKind};
use crate::driver::Load;

/// Has the callers of a load commit one by one, on a database of its own, and returns the commands per second.
///
/// # Errors
/// When the database cannot be made or written.
pub(crate) async fn measure(common: &Common, load: &Load) -> anyhow::Result<f64> {
    match common.store {
        StoreKind::Memory => bail!("a store in memory has no transactions"),
        StoreKind::Sqlite => sqlite::measure(common, load).await,
        StoreKind::Postgres => postgres::measure(common, load).await,
    }
}
