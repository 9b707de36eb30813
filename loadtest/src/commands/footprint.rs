//! `loadtest footprint`: what a resident idle aggregate takes over its own state.
//!
//! Memory is counted by the operating system, before and after. Caches, pools and the allocator's own reserves must have
//! their size before the first reading, or their growth would look like that of the aggregates: so other aggregates
//! with large events are made first, more than any cache of the store holds, and the log is read through.
//! What grows after that belongs to the aggregates that are measured. Each of them has taken one command and remembers
//! it. The ids are not kept by the load, so their memory counts as well.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
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

/// Bytes of their payloads: together more than the cache of the SQLite store's writer (128 MiB).
const FIRST_PAYLOAD_BYTES: usize = 1_024;

/// What was read before and after.
#[derive(Clone, Copy, Debug)]
struct Growth {
    before_bytes: u64,
    after_bytes: u64,
    resident: u64,
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
    let commands = FIRST_AGGREGATES + args.aggregates;
    let check = check_count(node.store().as_ref(), commands as u64).await?;
    node.shutdown().await;
    Ok(with_settings(report(common, args.aggregates, growth).checked(check), common, &load, 1))
}

async fn grow(node: &Node, load: &Load) -> anyhow::Result<Growth> {
    let stage = Stage::without_ids(node, FIRST_AGGREGATES + load.aggregates);
    let large = Load { payload_bytes: FIRST_PAYLOAD_BYTES, ..load.clone() };
    drop(stage.touch(0..FIRST_AGGREGATES, &large, "filling caches").await?);
    read_through(node).await?;
    let before_bytes = rss::settled_bytes().await?;
    drop(stage.touch(FIRST_AGGREGATES..stage.ids.len(), load, "idle aggregates").await?);
    let after_bytes = rss::settled_bytes().await?;
    Ok(Growth { before_bytes, after_bytes, resident: node.residency().aggregates })
}

/// Reads the log once for each connection that the store may read with, all at the same time.
async fn read_through(node: &Node) -> anyhow::Result<()> {
    let mut readers = JoinSet::new();
    for _ in 0..crate::cores() {
        let store = Arc::clone(node.store());
        readers.spawn(async move { check_count(store.as_ref(), FIRST_AGGREGATES as u64).await });
    }
    while let Some(read) = readers.join_next().await {
        read.context("a reader panicked")??;
    }
    Ok(())
}

fn report(common: &Common, aggregates: usize, growth: Growth) -> Report {
    let state = size_of::<Counter>();
    let each = growth.after_bytes.saturating_sub(growth.before_bytes) as f64 / aggregates as f64;
    let over = each - state as f64;
    let section = Section::new("Memory of a resident idle aggregate")
        .noted("over its own state", format!("{over:.0} bytes"), "what the runtime takes")
        .noted("in all", format!("{each:.0} bytes"), "growth of the resident memory, by aggregate")
        .noted("its state", format!("{state} bytes"), "two numbers")
        .noted(
            "before",
            mib(growth.before_bytes),
            format!("with {} other aggregates", count(FIRST_AGGREGATES as u64)),
        )
        .row("after", mib(growth.after_bytes))
        .row("resident aggregates", count(growth.resident));
    Report::new(format!("loadtest footprint on {}", common.store.name()))
        .section(section)
        .key("store", common.store)
        .key(
            "footprint",
            json!({ "bytes_per_aggregate": each, "over_state_bytes": over, "state_bytes": state }),
        )
        .key("memory", json!({ "rss_bytes": growth.after_bytes, "resident_aggregates": growth.resident }))
}
