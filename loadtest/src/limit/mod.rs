//! What this machine could do at best without the runtime: the figure that every other one is read beside.
//!
//! * [`sqlite`]: batched appends of the same rows to the same schema with the same durability, and nothing else;
//! * [`asks`]: bare asks to bare actors.

pub(crate) mod asks;
mod rows;
pub(crate) mod sqlite;

use std::time::Duration;

use crate::cli::Common;
use crate::driver::Load;

pub(crate) use rows::{place, receipt};

/// The batch sizes that a limit is searched over, in events.
pub(crate) const BATCHES: [usize; 4] = [64, 256, 1_024, 4_096];

/// Returns the batch size with which raw appends are fastest here, by measuring each for half of the time.
///
/// # Errors
/// When the database cannot be made or written.
pub(crate) async fn best_batch(common: &Common, load: &Load) -> anyhow::Result<usize> {
    let half = load.duration / 2;
    let load = Load { warmup: Duration::from_millis(500), duration: half, ..load.clone() };
    let mut best = (0.0, BATCHES[0]);
    for batch in BATCHES {
        let rate = sqlite::measure(common, &load, batch).await?;
        if rate > best.0 {
            best = (rate, batch);
        }
    }
    Ok(best.1)
}
