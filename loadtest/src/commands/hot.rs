//! `loadtest hot`: everything on one aggregate, against the same load spread over all.
//!
//! A runtime that waits for the commit of one command before it decides the next is limited here to one commit per
//! round trip. One that runs ahead is not.

use serde_json::json;

use crate::check::Check;
use crate::cli::{Common, CompareArgs};
use crate::database::Database;
use crate::driver::Load;
use crate::histogram::median;
use crate::measure::{Measured, measure, with_settings};
use crate::report::{Chart, Report, Section, per_second, ratio};

/// Measures both loads, interleaved, and reports the medians and their ratio.
///
/// # Errors
/// When a part cannot be run.
pub(super) async fn hot(common: &Common, args: &CompareArgs) -> anyhow::Result<Report> {
    let mut spread = args.load.load(common);
    spread.hot = 0.0;
    // The share that was asked for, or all of it when none was.
    let share = if args.load.hot > 0.0 { args.load.hot } else { 1.0 };
    let hot = Load { hot: share, ..spread.clone() };
    let (mut on_all, mut on_one) = (Vec::new(), Vec::new());
    for round in 0..args.rounds.rounds {
        let hot_first = round % 2 == 1;
        for is_hot in [hot_first, !hot_first] {
            let database = Database::temporary(common)?;
            let (load, label, runs) =
                if is_hot { (&hot, "hot", &mut on_one) } else { (&spread, "spread", &mut on_all) };
            runs.push(measure(&database, load, label).await?);
        }
    }
    let report = report(common, &on_all, &on_one, share);
    Ok(with_settings(report, common, &hot, args.rounds.rounds))
}

fn report(common: &Common, on_all: &[Measured], on_one: &[Measured], share: f64) -> Report {
    let middle =
        |runs: &[Measured], of: fn(&Measured) -> f64| median(runs.iter().map(of)).unwrap_or_default();
    let [spread, hot] = [on_all, on_one].map(|runs| middle(runs, |run| run.commands_per_s));
    let [spread_p99, hot_p99] =
        [on_all, on_one].map(|runs| middle(runs, |run| run.latency.quantile_us(0.99)));
    let mut check = Check::default();
    on_all.iter().chain(on_one).for_each(|run| check.add(run.check));
    let section = Section::new("Medians")
        .noted("spread", per_second(spread), "over all aggregates")
        .noted("hot", per_second(hot), format!("{} % of it on one aggregate", share * 100.0))
        .noted("hot to spread", ratio(hot / spread), "1 is an aggregate that is as fast as all of them")
        .noted("p99 spread, hot", format!("{:.2} ms, {:.2} ms", spread_p99 / 1e3, hot_p99 / 1e3), "");
    Report::new(format!("loadtest hot on {}", common.store.name()))
        .section(section)
        .chart(Chart::Bars {
            title: "Commands per second, medians".into(),
            bars: vec![("spread".into(), spread), ("hot".into(), hot)],
        })
        .checked(check)
        .key("store", common.store)
        .key("spread", json!({ "commands_per_s": spread, "p99_us": spread_p99 }))
        .key("hot", json!({ "commands_per_s": hot, "p99_us": hot_p99, "share": share }))
        .key("ratio", json!({ "to_spread": hot / spread }))
}
