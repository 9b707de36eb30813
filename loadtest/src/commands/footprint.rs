//! `loadtest footprint`: what a resident idle aggregate takes over its own state.
//!
//! Memory is counted by the operating system, before and after. Caches, pools and the allocator's own reserves must have
//! their size before the first reading, or their growth would look like that of the aggregates: so other aggregates
//! with large events are made first, more than any cache of the store holds, and the log is read through.
//! The aggregates that are measured then come in four quarters. The first quarter is not counted, since it fills what the
//! allocator still has in reserve; the growth over the other three belongs to their aggregates. Each of them has
//! taken one command and remembers it. The ids are not kept by the load, so their memory counts as well.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use orchestrix::core::store::ReadError;
use orchestrix::core::{EventStore, Seq};
use orchestrix::{Node, Settings};
use serde_json::json;
use tokio::task::JoinSet;

use crate::check::check_count;
use crate::cli::{Common, FootprintArgs};
use crate::database::Database;
use crate::driver::{Load, Stage};
use crate::measure::with_settings;
use crate::report::{Report, Section, count, mib};
use crate::rss;
use crate::scenario::Counter;

/// Aggregates that are made first: more streams than the writer of the SQLite store remembers (131,072).
const FIRST_AGGREGATES: usize = 150_000;

/// Bytes of their payloads: together more than the cache of the SQLite store's writer (64 MiB).
const FIRST_PAYLOAD_BYTES: usize = 1_024;

/// Events of one read of the log that fills the caches: few, so that reading leaves little to the allocator.
const PAGE_EVENTS: usize = 256;

/// Parts in which the measured aggregates are made.
const QUARTERS: usize = 4;

/// What was read: before the first quarter, and after each.
#[derive(Clone, Copy, Debug)]
struct Growth {
    rss_bytes: [u64; QUARTERS + 1],
    quarter: usize,
    resident: u64,
}

impl Growth {
    /// Returns the growth by aggregate over one quarter, counted from 0.
    fn of_quarter(&self, number: usize) -> f64 {
        self.rss_bytes[number + 1].saturating_sub(self.rss_bytes[number]) as f64 / self.quarter as f64
    }

    /// Returns the growth by aggregate over all quarters but the first.
    fn each(&self) -> f64 {
        let counted = self.quarter * (QUARTERS - 1);
        self.rss_bytes[QUARTERS].saturating_sub(self.rss_bytes[1]) as f64 / counted as f64
    }
}

/// Makes idle aggregates and reports how the process grew.
///
/// # Errors
/// When the node does not start, a command fails, or the system does not tell the resident memory.
pub(super) async fn footprint(common: &Common, args: &FootprintArgs) -> anyhow::Result<Report> {
    let load = Load::of_touching(common, args.aggregates, args.callers);
    let settings = Settings {
        residency_bytes_max: 1 << 40,
        residency_idle_max: Duration::from_hours(24),
        ..Settings::default()
    };
    let database = Database::temporary(common)?;
    let node = database.start_node(settings).await?;
    let growth = grow(&node, &load).await?;
    let commands = FIRST_AGGREGATES + growth.quarter * QUARTERS;
    let check = check_count(node.store().as_ref(), commands as u64).await?;
    node.shutdown().await;
    Ok(with_settings(report(common, growth).checked(check), common, &load, 1))
}

async fn grow(node: &Node, load: &Load) -> anyhow::Result<Growth> {
    let stage = Stage::without_ids(node, FIRST_AGGREGATES + load.aggregates);
    let large = Load { payload_bytes: FIRST_PAYLOAD_BYTES, ..load.clone() };
    drop(stage.touch(0..FIRST_AGGREGATES, &large, "filling caches").await?);
    read_through(node).await?;
    let quarter = load.aggregates / QUARTERS;
    let mut rss_bytes = [rss::settled_bytes().await?; QUARTERS + 1];
    for number in 0..QUARTERS {
        let first = FIRST_AGGREGATES + number * quarter;
        drop(stage.touch(first..first + quarter, load, "idle aggregates").await?);
        rss_bytes[number + 1] = rss::settled_bytes().await?;
    }
    Ok(Growth { rss_bytes, quarter, resident: node.residency().aggregates })
}

/// Reads the log once for each connection that the store may read with, all at the same time.
async fn read_through(node: &Node) -> anyhow::Result<()> {
    let mut readers = JoinSet::new();
    for _ in 0..crate::cores() {
        readers.spawn(read_all(Arc::clone(node.store())));
    }
    while let Some(read) = readers.join_next().await {
        read.context("a reader panicked")?.context("the log could not be read")?;
    }
    Ok(())
}

async fn read_all(store: Arc<dyn EventStore>) -> Result<(), ReadError> {
    for shard in store.info().shard_count.all() {
        let mut after = Seq::ZERO;
        while let Some(last) = store.read_shard(shard, after, PAGE_EVENTS).await?.last() {
            after = last.seq;
        }
    }
    Ok(())
}

fn report(common: &Common, growth: Growth) -> Report {
    let state = size_of::<Counter>();
    let each = growth.each();
    let over = each - state as f64;
    let quarters: Vec<f64> = (0..QUARTERS).map(|number| growth.of_quarter(number)).collect();
    let told: Vec<String> = quarters.iter().map(|bytes| format!("{bytes:.0}")).collect();
    let before = format!("with {} other aggregates", count(FIRST_AGGREGATES as u64));
    let section = Section::new("Memory of a resident idle aggregate")
        .noted("over its own state", format!("{over:.0} bytes"), "what the runtime takes")
        .noted("in all", format!("{each:.0} bytes"), "growth of the resident memory, by aggregate")
        .noted("its state", format!("{state} bytes"), "two numbers")
        .noted("by quarter", told.join(", "), "bytes in all; the first is not counted")
        .noted("before", mib(growth.rss_bytes[0]), before)
        .row("after", mib(growth.rss_bytes[QUARTERS]))
        .row("resident aggregates", count(growth.resident));
    let memory = json!({ "rss_bytes": growth.rss_bytes[QUARTERS], "resident_aggregates": growth.resident });
    let footprint = json!({
        "bytes_per_aggregate": each, "over_state_bytes": over, "state_bytes": state, "by_quarter": quarters,
    });
    Report::new(format!("loadtest footprint on {}", common.store.name()))
        .section(section)
        .key("store", common.store)
        .key("footprint", footprint)
        .key("memory", memory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_quarter_is_not_counted() {
        let growth = Growth { rss_bytes: [0, 900, 1_000, 1_300, 1_500], quarter: 10, resident: 40 };
        assert!((growth.each() - 20.0).abs() < 0.001, "{}", growth.each());
        assert!((growth.of_quarter(0) - 90.0).abs() < 0.001);
    }
}
