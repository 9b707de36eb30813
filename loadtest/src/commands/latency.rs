//! `loadtest latency`: one caller. What does a command cost above the durable commit that it cannot do without?
//!
//! A command through the node and a raw commit of one row take turns, each on its own database, so both see the same
//! machine. One-caller figures depend on how deep an idle core sleeps: quote the ratio, not the microseconds.

use anyhow::Context as _;
use orchestrix::Settings;
use serde_json::json;
use tokio::time::Instant;

use crate::check::check;
use crate::cli::{Common, LatencyArgs, StoreKind};
use crate::database::Database;
use crate::driver::{Caller, Choice, Load, Record, Stage, Window};
use crate::histogram::Latencies;
use crate::limit::{postgres, sqlite};
use crate::measure::with_settings;
use crate::report::{Chart, Report, Section, ratio};
use crate::scenario::Spread;

/// Measures pairs of a command and a raw commit and reports both medians and their ratio.
///
/// # Errors
/// When a database cannot be made, a command fails, or the log cannot be read.
pub(super) async fn latency(common: &Common, args: &LatencyArgs) -> anyhow::Result<Report> {
    anyhow::ensure!(
        common.store != StoreKind::Memory,
        "latency compares with a durable commit: use --store sqlite or postgres"
    );
    let load = Load::of_touching(common, args.aggregates, 1);
    let (database, beside) = (Database::temporary(common)?, Database::temporary(common)?);
    let node = database.start_node(Settings::default()).await?;
    let stage = Stage::new(&node, load.aggregates);
    let mut raw = Raw::open(common.store, &beside, &load).await?;
    let (mut record, commits) = pairs(&stage, &load, &mut raw, args.pairs).await?;
    raw.close().await?;
    let commands = record.latency.clone();
    let failure = record.first_failure.take();
    let check = check(node.store().as_ref(), record).await?;
    node.shutdown().await;
    if let Some(reason) = failure {
        anyhow::bail!("a command failed: {reason}");
    }
    let report = report(common, &commands, &commits).checked(check);
    Ok(with_settings(report, common, &load, 1))
}

/// Commits of one row, one after the other.
enum Raw {
    Sqlite(sqlite::Raw),
    Postgres(postgres::Raw),
}

impl Raw {
    async fn open(store: StoreKind, database: &Database, load: &Load) -> anyhow::Result<Self> {
        match store {
            StoreKind::Postgres => postgres::Raw::open(database, load).await.map(Self::Postgres),
            _ => sqlite::Raw::open(database, load).await.map(Self::Sqlite),
        }
    }

    async fn commit_one(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Sqlite(raw) => raw.commit_one().await,
            Self::Postgres(raw) => raw.commit_one().await,
        }
    }

    async fn close(self) -> anyhow::Result<()> {
        match self {
            Self::Sqlite(raw) => raw.close().await,
            Self::Postgres(raw) => raw.close().await,
        }
    }
}

/// Performs the pairs after touching every aggregate once; returns the commands' book and the commits' latencies.
async fn pairs(stage: &Stage, load: &Load, raw: &mut Raw, pairs: u32) -> anyhow::Result<(Record, Latencies)> {
    let first = Load { callers: 256, ..load.clone() };
    let touched = stage.touch(0..load.aggregates, &first, "first commands").await?;
    let window = Window::endless();
    let spread = Spread { aggregates: load.aggregates, hot: 0.0 };
    let mut caller = Caller::new(stage, load, 0, Choice::Random(spread), window);
    let (mut record, mut commits) = (Record::new(1), Latencies::new(1));
    record.keep_acks_of(touched.record);
    for _ in 0..pairs {
        caller.call_at(Instant::now(), &mut record, window).await;
        let before = Instant::now();
        raw.commit_one().await.context("a raw commit failed")?;
        commits.record(before.elapsed());
    }
    Ok((record, commits))
}

fn report(common: &Common, commands: &Latencies, commits: &Latencies) -> Report {
    let (command, commit) = (commands.percentiles(), commits.percentiles());
    let to_commit = command.p50 / commit.p50;
    let bars = vec![
        ("command, p50".to_owned(), command.p50),
        ("raw commit, p50".to_owned(), commit.p50),
        ("command, p99".to_owned(), command.p99),
        ("raw commit, p99".to_owned(), commit.p99),
    ];
    Report::new(format!("loadtest latency of one caller on {}", common.store.name()))
        .section(Section::new("Ratio of the medians").noted(
            "command to raw commit",
            ratio(to_commit),
            "1 would be a runtime that costs nothing",
        ))
        .section(Section::new("A command through the node").percentiles(&command))
        .section(Section::new("A raw durable commit of one row").percentiles(&commit))
        .chart(Chart::Bars { title: "Microseconds".into(), bars })
        .key("store", common.store)
        .key("latency_us", command)
        .key("limit", json!({ "latency_us": commit }))
        .key("ratio", json!({ "to_limit": to_commit }))
}
