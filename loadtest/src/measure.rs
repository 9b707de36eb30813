//! One measurement of the runtime: start a node, drive it, replay the log, stop the node.

use orchestrix::{Node, Settings};
use serde::Serialize;

use crate::check::{Check, check};
use crate::cli::Common;
use crate::database::Database;
use crate::driver::{Drive, Load, Outcomes, Stage, Trace};
use crate::histogram::Latencies;
use crate::report::{Chart, Report, Section, count, mib, per_second};

/// What one measurement of the runtime gave.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    /// Commands done per second.
    pub(crate) commands_per_s: f64,
    /// Reads done per second.
    pub(crate) reads_per_s: f64,
    /// From due to done.
    pub(crate) latency: Latencies,
    /// From sending to being turned away.
    pub(crate) refusal: Latencies,
    /// From due to sent, in an open loop.
    pub(crate) lateness: Latencies,
    /// Operations of an open loop that the driver did not come to send.
    pub(crate) unsent: u64,
    /// How operations ended.
    pub(crate) outcomes: Outcomes,
    /// Why the first one failed that failed.
    pub(crate) first_failure: Option<String>,
    /// What the replay of the log found.
    pub(crate) check: Check,
    /// Memory at the end of the drive.
    pub(crate) memory: Memory,
    /// Bytes that the driver itself keeps for the check; part of the resident memory.
    pub(crate) driver_bytes: u64,
    /// What was seen from outside.
    pub(crate) trace: Trace,
}

/// What is in memory at the end of a drive.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Memory {
    /// The most resident memory of the process while it was driven, in bytes.
    pub(crate) rss_bytes: u64,
    /// Aggregates that are resident.
    pub(crate) resident_aggregates: u64,
}

/// Starts a node on a database, drives it, checks the log, stops the node.
///
/// # Errors
/// When the node does not start, the first commands fail, or the log cannot be read.
pub(crate) async fn measure(database: &Database, load: &Load, label: &str) -> anyhow::Result<Measured> {
    let node = database.start_node(Settings::default()).await?;
    let measured = drive_and_check(&node, load, label).await;
    node.shutdown().await;
    measured
}

/// Drives a running node and checks its log.
///
/// # Errors
/// When the first commands fail, or the log cannot be read.
pub(crate) async fn drive_and_check(node: &Node, load: &Load, label: &str) -> anyhow::Result<Measured> {
    let stage = Stage::new(node, load.aggregates);
    let drive = stage.drive(load, label).await?;
    let resident_aggregates = node.residency().aggregates;
    let memory = Memory { rss_bytes: drive.trace.rss_peak_bytes(), resident_aggregates };
    let (commands_per_s, reads_per_s) = (drive.commands_per_s(), drive.reads_per_s());
    let Drive { mut record, trace, .. } = drive;
    let [latency, refusal, lateness] = [&record.latency, &record.refusal, &record.lateness].map(Clone::clone);
    let (outcomes, unsent, first_failure) = (record.outcomes, record.unsent, record.first_failure.take());
    let driver_bytes = size_of_val(record.acks.as_slice()) as u64;
    let check = check(node.store().as_ref(), record).await?;
    Ok(Measured {
        commands_per_s,
        reads_per_s,
        latency,
        refusal,
        lateness,
        unsent,
        outcomes,
        first_failure,
        check,
        memory,
        driver_bytes,
        trace,
    })
}

impl Measured {
    /// Puts the values of a run into a report, under the keys that scripts rely on.
    pub(crate) fn report(&self, report: Report, common: &Common, load: &Load) -> Report {
        let percentiles = self.latency.percentiles();
        let mut report = report
            .section(self.rates(load))
            .section(Section::new("Latency, from due to done").percentiles(&percentiles))
            .section(self.outcomes_section())
            .key("store", common.store)
            .key("commands_per_s", self.commands_per_s)
            .key("events_per_s", self.commands_per_s)
            .key("reads_per_s", self.reads_per_s)
            .key("latency_us", percentiles)
            .key("outcomes", self.outcomes)
            .key("memory", self.memory);
        if load.rate.is_some() {
            let late = self.lateness.percentiles();
            report = report.key("driver_late_us", late).key("unsent", self.unsent).section(
                Section::new("Lateness of the driver itself, part of the latency").percentiles(&late),
            );
        }
        report.warnings.extend(self.first_failure.clone());
        if self.unsent > 0 {
            let left_out = count(self.unsent);
            report.warnings.push(format!("the driver could not keep up and left {left_out} operations out"));
        }
        report
    }

    fn rates(&self, load: &Load) -> Section {
        let mut section = Section::new("Throughput and memory").noted(
            "commands",
            per_second(self.commands_per_s),
            "done, one event each",
        );
        if load.read_share > 0.0 {
            section = section.noted("reads", per_second(self.reads_per_s), "strong reads of the state");
        }
        section
            .noted(
                "resident memory",
                mib(self.memory.rss_bytes),
                "the whole process with the load, at its peak",
            )
            .noted("of it the load's", mib(self.driver_bytes), "acknowledgements kept for the check")
            .row("resident aggregates", count(self.memory.resident_aggregates))
    }

    fn outcomes_section(&self) -> Section {
        let outcomes = self.outcomes;
        Section::new("Outcomes, of operations due in the measured time")
            .row("done", count(outcomes.done))
            .row("refused", count(outcomes.refused))
            .row("unknown", count(outcomes.unknown))
            .row("overloaded", count(outcomes.overloaded))
            .row("failed", count(outcomes.failed))
    }

    /// Returns the charts of a run.
    pub(crate) fn charts(&self) -> [Chart; 2] {
        let of = self.latency.percentiles();
        let bars =
            [("p50", of.p50), ("p90", of.p90), ("p99", of.p99), ("p99.9", of.p999), ("longest", of.max)];
        [
            Chart::Lines {
                title: "Operations per second over time".into(),
                across: "seconds".into(),
                curves: vec![("operations".into(), self.trace.rates(120))],
            },
            Chart::Bars {
                title: "Latency in milliseconds, from due to done".into(),
                bars: bars.into_iter().map(|(name, us)| (name.into(), us / 1_000.0)).collect(),
            },
        ]
    }
}

/// What a figure must be quoted with.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct SettingsOfRun {
    aggregates: usize,
    callers: usize,
    rate: Option<f64>,
    duration_s: f64,
    warmup_s: f64,
    hot: f64,
    payload_bytes: usize,
    read_share: f64,
    seed: u64,
    cold: bool,
    workers: usize,
    cores: usize,
    rounds: u8,
}

/// Adds the settings of a run to a report.
pub(crate) fn with_settings(report: Report, common: &Common, load: &Load, rounds: u8) -> Report {
    let settings = SettingsOfRun {
        aggregates: load.aggregates,
        callers: load.callers,
        rate: load.rate,
        duration_s: load.duration.as_secs_f64(),
        warmup_s: load.warmup.as_secs_f64(),
        hot: load.hot,
        payload_bytes: load.payload_bytes,
        read_share: load.read_share,
        seed: load.seed,
        cold: load.cold,
        workers: crate::workers(common),
        cores: crate::cores(),
        rounds,
    };
    report.section(settings.section(common)).key("settings", settings)
}

impl SettingsOfRun {
    fn section(&self, common: &Common) -> Section {
        let section = Section::new("Settings")
            .row("store", common.store.name())
            .row("aggregates", count(self.aggregates as u64))
            .row("callers", count(self.callers as u64))
            .row("payload", format!("{} bytes", self.payload_bytes))
            .row("seed", self.seed.to_string())
            .row("driver threads, cores", format!("{}, {}", self.workers, self.cores))
            .row("rounds", self.rounds.to_string());
        if self.duration_s == 0.0 {
            return section;
        }
        let pace = self.rate.map_or("closed".into(), |rate| format!("open, {} due", per_second(rate)));
        section
            .row("loop", pace)
            .row("warm-up and measured time", format!("{} s + {} s", self.warmup_s, self.duration_s))
            .row("hot share, read share", format!("{}, {}", self.hot, self.read_share))
    }
}
