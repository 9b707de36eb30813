//! `loadtest residency`: far more aggregates than fit, one after the other, under a bound on resident memory.
//!
//! Every aggregate takes one command; the runtime must passivate as it goes. Some of the first ones are asked again at
//! the end, long after they left the memory, and must still know their command.

use anyhow::{Context as _, ensure};
use orchestrix::{Consistency, Node, Settings};
use serde_json::json;

use crate::check::check_count;
use crate::cli::{Common, ResidencyArgs};
use crate::database::Database;
use crate::driver::{Load, Stage, Touched};
use crate::measure::with_settings;
use crate::report::{Chart, Report, Section, count, mib, per_second, ratio};
use crate::rss;
use crate::scenario::{Counter, counter_id};

/// How many of the first aggregates are asked again.
const REVISITED: usize = 1_000;

/// What was seen.
#[derive(Debug)]
struct Seen {
    touched: Touched,
    start_bytes: u64,
    resident: u64,
    revisited: usize,
}

/// Touches the aggregates and reports the peak of the memory against the bound.
///
/// # Errors
/// When the node does not start, a command or a read fails, or a revisited aggregate has forgotten its command.
pub(super) async fn residency(common: &Common, args: &ResidencyArgs) -> anyhow::Result<Report> {
    let load = Load::of_touching(common, args.aggregates, args.callers);
    let settings = Settings { residency_bytes_max: args.bound_mib << 20, ..Settings::default() };
    let database = Database::temporary(common)?;
    let node = database.start_node(settings).await?;
    let start_bytes = rss::settled_bytes().await?;
    let stage = Stage::without_ids(&node, args.aggregates);
    let touched = stage.touch(0..args.aggregates, &load, "aggregates").await?;
    let resident = node.residency().aggregates;
    let revisited = revisit(&node).await?;
    let check = check_count(node.store().as_ref(), args.aggregates as u64).await?;
    node.shutdown().await;
    let seen = Seen { touched, start_bytes, resident, revisited };
    Ok(with_settings(report(common, args, &seen).checked(check), common, &load, 1))
}

async fn revisit(node: &Node) -> anyhow::Result<usize> {
    for number in 0..REVISITED {
        let counter = node.of::<Counter>(counter_id(number));
        let read = counter.read(Consistency::Leased, |state| state.count).await;
        let commands = read.with_context(|| format!("aggregate {number} could not be read again"))?;
        ensure!(commands == 1, "aggregate {number} took one command and says {commands} after its return");
    }
    Ok(REVISITED)
}

fn report(common: &Common, args: &ResidencyArgs, seen: &Seen) -> Report {
    let bound = args.bound_mib << 20;
    let peak = seen.touched.trace.rss_peak_bytes();
    let growth = peak.saturating_sub(seen.start_bytes);
    let rate = args.aggregates as f64 / seen.touched.took.as_secs_f64();
    let section = Section::new("Resident memory under a bound")
        .row("aggregates touched", count(args.aggregates as u64))
        .noted("at a rate of", per_second(rate), format!("{:.1} s in all", seen.touched.took.as_secs_f64()))
        .noted("bound", mib(bound), "on resident aggregates")
        .noted("peak of the process", mib(peak), "everything: store, driver, threads")
        .noted("peak to bound", ratio(peak as f64 / bound as f64), "")
        .noted("growth since the start", mib(growth), "peak less the idle node")
        .row("resident at the end", count(seen.resident))
        .noted("asked again", count(seen.revisited as u64), "passivated ones that still knew their command");
    let memory = seen
        .touched
        .trace
        .moments
        .iter()
        .map(|moment| (moment.at_s, moment.rss_bytes as f64 / f64::from(1 << 20)));
    Report::new(format!("loadtest residency on {}", common.store.name()))
        .section(section)
        .chart(Chart::Lines {
            title: "Resident memory of the process in MiB".into(),
            across: "seconds".into(),
            curves: vec![("resident memory".into(), memory.step_by(10).collect())],
        })
        .key("store", common.store)
        .key(
            "residency",
            json!({
                "aggregates": args.aggregates, "bound_bytes": bound, "rss_peak_bytes": peak,
                "rss_start_bytes": seen.start_bytes, "aggregates_per_s": rate,
            }),
        )
        .key("memory", json!({ "rss_bytes": peak, "resident_aggregates": seen.resident }))
        .key("ratio", json!({ "to_bound": peak as f64 / bound as f64 }))
}
