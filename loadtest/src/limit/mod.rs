//! What this machine could do at best without the runtime: the figure that every other one is read beside.
//!
//! * [`sqlite`], [`postgres`]: batched appends of the same rows to the same schema with the same durability, and nothing
//!   else;
//! * [`asks`]: bare asks to bare actors;
//! * [`echo`]: bare echoes over loopback.

pub(crate) mod asks;
mod echo;
pub(crate) mod postgres;
mod rows;
pub(crate) mod sqlite;
mod wire;

use std::fmt;
use std::time::Duration;

use crate::cli::{Common, StoreKind};
use crate::driver::Load;

pub(crate) use echo::BareEcho;
use postgres::Way;
pub(crate) use rows::{place, receipt};

/// The batch sizes that a limit of SQLite is searched over, in events.
pub(crate) const SQLITE_BATCHES: [usize; 4] = [64, 256, 1_024, 4_096];

/// Those of PostgreSQL.
const POSTGRES_BATCHES: [usize; 3] = [64, 256, 1_024];

/// How many connections append at once to PostgreSQL.
const CONNECTIONS: [usize; 3] = [1, 2, 4];

/// One way to append without a runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Transactions of this many rows.
    Sqlite {
        /// Rows of one.
        batch: usize,
    },
    /// Statements of this many rows.
    Postgres {
        /// How they are sent.
        way: Way,
        /// Rows of one.
        batch: usize,
        /// How many connections send them at once.
        connections: usize,
    },
}

impl Shape {
    /// Returns every way that is tried for a store.
    pub(crate) fn all(store: StoreKind) -> Vec<Self> {
        match store {
            StoreKind::Memory => Vec::new(),
            StoreKind::Sqlite => SQLITE_BATCHES.map(|batch| Self::Sqlite { batch }).to_vec(),
            StoreKind::Postgres => {
                let ways = [Way::Insert, Way::Copy].into_iter();
                let sized = ways.flat_map(|way| POSTGRES_BATCHES.map(|batch| (way, batch)));
                let all = sized.flat_map(|(way, batch)| {
                    CONNECTIONS.map(|connections| Self::Postgres { way, batch, connections })
                });
                all.collect()
            }
        }
    }

    /// Returns the rows of one append.
    pub(crate) fn batch(self) -> usize {
        match self {
            Self::Sqlite { batch } | Self::Postgres { batch, .. } => batch,
        }
    }

    /// Appends for as long as the load says and returns the events per second.
    ///
    /// # Errors
    /// When the database cannot be made or written.
    pub(crate) async fn measure(self, common: &Common, load: &Load) -> anyhow::Result<f64> {
        match self {
            Self::Sqlite { batch } => sqlite::measure(common, load, batch).await,
            Self::Postgres { way, batch, connections } => {
                postgres::measure(common, load, way, batch, connections).await
            }
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite { batch } => write!(f, "batches of {batch}"),
            Self::Postgres { way, batch, connections } => {
                write!(f, "{way} of {batch} rows on {connections} connections")
            }
        }
    }
}

/// Returns the shape with which raw appends are fastest here, by measuring each for a part of the time; `None` for a
/// store that has no such limit.
///
/// # Errors
/// When the database cannot be made or written.
pub(crate) async fn best_shape(common: &Common, load: &Load) -> anyhow::Result<Option<Shape>> {
    let part = load.duration / 2;
    let load = Load { warmup: Duration::from_millis(500), duration: part, ..load.clone() };
    let mut best: Option<(f64, Shape)> = None;
    for shape in Shape::all(common.store) {
        let rate = shape.measure(common, &load).await?;
        if best.is_none_or(|(fastest, _)| rate > fastest) {
            best = Some((rate, shape));
        }
    }
    Ok(best.map(|(_, shape)| shape))
}
