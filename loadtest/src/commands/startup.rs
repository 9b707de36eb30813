//! `loadtest startup`: how long does a node take to start on a long log, against an empty one?
//!
//! The log is filled straight through the store. Each start is a process of its own, so nothing is warm but the file
//! cache of the system; long and empty log take turns. The first command then shows that the node really serves.

use std::collections::HashMap;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, ensure};
use orchestrix::Settings;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::cli::{Common, StartupArgs, StoreKind};
use crate::database::Database;
use crate::driver::Load;
use crate::fill::fill;
use crate::histogram::median;
use crate::measure::with_settings;
use crate::report::{Chart, Report, Section, count, millis, per_second, ratio};
use crate::scenario::{Add, Counter, counter_id, filler};

/// What a start told about itself.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Start {
    /// From the beginning of `main` to a node that takes commands, in microseconds.
    start_us: f64,
    /// From there to the answer of the first command, in microseconds.
    first_command_us: f64,
}

/// Fills a log, starts nodes on it and on an empty one in turn, and reports the medians.
///
/// # Errors
/// When a database cannot be filled or a start fails.
pub(super) async fn startup(common: &Common, args: &StartupArgs) -> anyhow::Result<Report> {
    ensure!(
        common.store == StoreKind::Sqlite,
        "startup needs a log that outlives a process: use --store sqlite"
    );
    let (long, empty) = (Database::of_url(common)?, Database::temporary(common)?);
    let filled = fill(&long, args.events, args.aggregates, common.payload).await?;
    empty.start_node(Settings::default()).await?.shutdown().await;
    let mut starts: HashMap<&str, Vec<Start>> = HashMap::new();
    for number in 0..args.starts {
        let mut order = [("long", &long), ("empty", &empty)];
        order.rotate_left(usize::from(number) % 2);
        for (name, database) in order {
            starts.entry(name).or_default().push(start(common, database).await?);
        }
    }
    let load = Load::of_touching(common, args.aggregates, 1);
    let report = report(common, filled.events, &starts["long"], &starts["empty"]);
    let report = report.section(
        Section::new("Filling the log")
            .row("events written", count(filled.written))
            .row("at a rate of", per_second(filled.per_second())),
    );
    Ok(with_settings(report, common, &load, args.starts))
}

/// Starts a process that starts a node, and waits for its end.
async fn start(common: &Common, database: &Database) -> anyhow::Result<Start> {
    let mut command = Command::new(std::env::current_exe().context("the path of this program is not known")?);
    command.args([
        "probe",
        "--store",
        common.store.name(),
        "--payload",
        &common.payload.to_string(),
        "--url",
    ]);
    command.arg(database.file()?).stderr(Stdio::inherit());
    let output = tokio::task::spawn_blocking(move || command.output()).await;
    let output = output.context("nobody waited for the process that starts a node")?;
    let output = output.context("this program could not be started again")?;
    ensure!(output.status.success(), "the process that starts a node ended with {}", output.status);
    serde_json::from_slice(&output.stdout).context("the process that starts a node told nothing")
}

/// `loadtest probe`: starts a node, sends one command, prints how long both took.
///
/// # Errors
/// When the node does not start or the command fails.
pub(super) async fn probe(common: &Common) -> anyhow::Result<()> {
    let began = Instant::now();
    let database = Database::of_url(common)?;
    let node = database.start_node(Settings::default()).await?;
    let start_us = began.elapsed().as_secs_f64() * 1e6;
    let add = Add { amount: 1, filler: filler(common.payload) };
    let sent = Instant::now();
    node.of::<Counter>(counter_id(0)).send(add).await.context("the first command failed")?;
    let first_command_us = sent.elapsed().as_secs_f64() * 1e6;
    node.shutdown().await;
    println!("{}", json!(Start { start_us, first_command_us }));
    Ok(())
}

fn report(common: &Common, events: u64, long: &[Start], empty: &[Start]) -> Report {
    let middle = |starts: &[Start], of: fn(&Start) -> f64| median(starts.iter().map(of)).unwrap_or_default();
    let [long_us, empty_us] = [long, empty].map(|starts| middle(starts, |start| start.start_us));
    let [long_first, empty_first] =
        [long, empty].map(|starts| middle(starts, |start| start.first_command_us));
    let section = Section::new("From the start of the process to a node that takes commands, medians")
        .noted("long log", millis(long_us), format!("{} events", count(events)))
        .noted("empty log", millis(empty_us), "")
        .noted("long to empty", ratio(long_us / empty_us), "1 is a start that does not depend on the log")
        .noted("first command, long log", millis(long_first), "with the activation of its aggregate")
        .noted("first command, empty log", millis(empty_first), "");
    Report::new("loadtest startup on sqlite")
        .section(section)
        .chart(Chart::Bars {
            title: "Milliseconds to start".into(),
            bars: vec![
                (format!("{} events", count(events)), long_us / 1e3),
                ("empty log".into(), empty_us / 1e3),
            ],
        })
        .key("store", common.store)
        .key(
            "startup",
            json!({
                "events": events, "start_us": long_us, "empty_start_us": empty_us,
                "first_command_us": long_first, "empty_first_command_us": empty_first, "starts": long,
            }),
        )
        .key("ratio", json!({ "to_empty": long_us / empty_us }))
}
