//! `loadtest cluster`: several nodes behind a load balancer, and what is done to them meanwhile.

use std::time::Duration;

use anyhow::ensure;
use serde::Serialize;
use serde_json::json;

use crate::cli::{ClusterArgs, Common, NodeArgs, StoreKind};
use crate::cluster::{self, Book, Findings, Plan, Run};
use crate::database::Database;
use crate::driver::Load;
use crate::histogram::{Latencies, Percentiles};
use crate::measure::with_settings;
use crate::report::{Chart, Report, Section, count, millis, per_second};

/// Drives a cluster and reports what it did and what became of it.
///
/// # Errors
/// When a node does not start or leave, or the log cannot be read.
pub(super) async fn cluster(common: &Common, args: &ClusterArgs) -> anyhow::Result<Report> {
    let (plan, database) = (args.plan(), Database::of_url(common)?);
    let run = cluster::run(common, &database, &plan, "cluster").await?;
    Ok(with_plan(report(common, &plan, &run), common, &plan, 1))
}

/// `loadtest cluster-node`: one of the nodes.
///
/// # Errors
/// When it does not start.
pub(super) async fn node(common: &Common, args: &NodeArgs) -> anyhow::Result<()> {
    ensure!(
        common.store == StoreKind::Postgres && common.url.is_some(),
        "a node needs the URL of a database"
    );
    cluster::serve(&Database::of_url(common)?, common.payload, args.lease).await
}

/// Adds the settings of a run to a report.
pub(super) fn with_plan(report: Report, common: &Common, plan: &Plan, rounds: u8) -> Report {
    let load = Load {
        warmup: plan.warmup,
        duration: plan.duration,
        read_share: plan.read_share,
        cold: false,
        ..Load::of_touching(common, plan.aggregates, plan.callers)
    };
    let cluster = json!({
        "nodes": plan.nodes,
        "lease_s": plan.lease.as_secs_f64(),
        "kill_every_s": plan.harm.kill_every.map(|every| every.as_secs_f64()),
        "pause_every_s": plan.harm.pause_every.map(|every| every.as_secs_f64()),
        "roll": plan.harm.roll,
        "way": format!("{:?}", plan.way).to_lowercase(),
    });
    with_settings(report, common, &load, rounds).key("cluster", cluster)
}

/// The middle, the 99th of a hundred and the longest, in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
struct Spread {
    p50: f64,
    p99: f64,
    max: f64,
}

impl Spread {
    /// Of single times; `None` when there are none.
    fn of(times: &[Duration]) -> Option<Self> {
        let mut sorted = times.to_vec();
        sorted.sort_unstable();
        let at = |percent: usize| {
            let place = (sorted.len() * percent).div_ceil(100).checked_sub(1)?;
            sorted.get(place).map(|time| time.as_secs_f64() * 1e3)
        };
        Some(Self { p50: at(50)?, p99: at(99)?, max: at(100)? })
    }

    fn of_latencies(latencies: &Latencies) -> Self {
        let Percentiles { p50, p99, max, .. } = latencies.percentiles();
        Self { p50: p50 / 1e3, p99: p99 / 1e3, max: max / 1e3 }
    }

    fn text(self) -> String {
        let [p50, p99, max] = [self.p50, self.p99, self.max].map(|time| millis(time * 1e3));
        format!("{p50}, {p99}, {max}")
    }
}

fn report(common: &Common, plan: &Plan, run: &Run) -> Report {
    let (book, findings) = (&run.book, &run.findings);
    let percentiles = book.record.latency.percentiles();
    let mut report = Report::new(format!("loadtest cluster of {} on {}", plan.nodes, common.store.name()))
        .section(throughput(run))
        .section(Section::new("Latency, from the first attempt to done").percentiles(&percentiles))
        .section(outcomes(book));
    if findings.kills + findings.pauses > 0 {
        report = report.section(faults(findings));
    }
    if let Some(pauses) = Spread::of(&findings.shard_pauses) {
        report = report.section(roll(book, findings, pauses));
    }
    report.warnings.extend(book.why.as_ref().map(|why| format!("a client heard: {why}")));
    keys(report.checked(run.check), common, run).chart(Chart::Lines {
        title: "Operations per second over time".into(),
        across: "seconds".into(),
        curves: vec![("operations".into(), run.trace.rates(120))],
    })
}

fn throughput(run: &Run) -> Section {
    let section =
        Section::new("Throughput").noted("commands", per_second(run.commands_per_s), "done, one event each");
    let section = if run.reads_per_s > 0.0 {
        section.noted("reads", per_second(run.reads_per_s), "strong reads")
    } else {
        section
    };
    match run.idle_per_node_s {
        Some(rate) => section.noted("transactions when idle", format!("{rate:.2}/s"), "of each node"),
        None => section,
    }
}

fn outcomes(book: &Book) -> Section {
    let outcomes = book.record.outcomes;
    Section::new("Outcomes, of operations sent in the measured time")
        .row("done", count(outcomes.done))
        .noted("given up", count(outcomes.all() - outcomes.done), "after all attempts")
        .noted("failed commands", count(book.failed_commands), "an error that nothing excuses; see --help")
        .noted("errors during faults", count(book.excused), "between a kill or a pause and its end")
        .noted("retries", count(book.retries), "with the same id, also where nothing was sent")
        .noted("recognised", count(book.recognised), "had been done when they were sent again")
        .noted("stale answers", count(book.stale), "older than one given before they were asked for")
}

fn faults(findings: &Findings) -> Section {
    let section = Section::new("Faults")
        .noted("kills", count(findings.kills), "each until 99 % of the shards answer again")
        .noted("that hit commands under way", count(findings.kills_in_flight), "at the node's clients")
        .noted("pauses", count(findings.pauses), "of half a lease to four")
        .noted("that hit commands under way", count(findings.pauses_in_flight), "at the node's clients")
        .noted("longer than a lease", count(findings.pauses_over_lease), "the node comes back deposed");
    match Spread::of(&findings.failovers) {
        Some(spread) => section.noted("failover p50, p99, longest", spread.text(), "from the signal"),
        None => section,
    }
}

fn roll(book: &Book, findings: &Findings, pauses: Spread) -> Section {
    Section::new("Rolling restart")
        .row("nodes restarted", count(findings.restarts))
        .row("took", format!("{:.1} s", findings.roll_took.as_secs_f64()))
        .noted("longest pause of a shard", pauses.text(), "p50, p99, longest over the shards")
        .noted("latency in it", Spread::of_latencies(&book.in_roll).text(), "p50, p99, longest")
        .noted("latency outside", Spread::of_latencies(&book.outside).text(), "p50, p99, longest")
}

fn keys(report: Report, common: &Common, run: &Run) -> Report {
    let (book, findings) = (&run.book, &run.findings);
    report
        .key("store", common.store)
        .key("commands_per_s", run.commands_per_s)
        .key("events_per_s", run.commands_per_s)
        .key("reads_per_s", run.reads_per_s)
        .key("latency_us", book.record.latency.percentiles())
        .key("outcomes", book.record.outcomes)
        .key("failover_ms", Spread::of(&findings.failovers))
        .key("failed_commands", book.failed_commands)
        .key("errors_during_faults", book.excused)
        .key("retries", book.retries)
        .key("recognised", book.recognised)
        .key("stale_answers", book.stale)
        .key("idle_transactions_per_node_s", run.idle_per_node_s)
        .key(
            "faults",
            json!({
                "kills": findings.kills, "kills_in_flight": findings.kills_in_flight,
                "pauses": findings.pauses, "pauses_in_flight": findings.pauses_in_flight,
                "pauses_over_lease": findings.pauses_over_lease,
            }),
        )
        .key(
            "roll",
            Spread::of(&findings.shard_pauses).map(|pauses| {
                json!({
                    "restarts": findings.restarts, "took_s": findings.roll_took.as_secs_f64(),
                    "shard_pause_ms": pauses, "latency_ms": Spread::of_latencies(&book.in_roll),
                    "latency_outside_ms": Spread::of_latencies(&book.outside),
                })
            }),
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_of_times_that_were_measured() {
        let times: Vec<Duration> = (1..=200).rev().map(Duration::from_millis).collect();
        let spread = Spread::of(&times).expect("there are times");
        assert_eq!(spread.text(), "100.00 ms, 198.00 ms, 200.00 ms");
        assert!(Spread::of(&[]).is_none());
    }
}
