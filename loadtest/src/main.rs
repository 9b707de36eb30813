//! The load test of Orchestrix: measures the runtime against the limit of the machine that it runs on.
//!
//! Read in this order: [`scenario`] (what is sent), [`driver`] (how), [`check`] (what must hold afterwards),
//! [`limit`] and [`naive`] (what to compare with), [`cluster`] (several nodes, and what is done to them), [`commands`] (the measurements), [`report`] (how they are told).

mod check;
mod cli;
mod cluster;
mod commands;
mod database;
mod driver;
mod fill;
mod histogram;
mod limit;
mod measure;
mod naive;
mod report;
mod rss;
mod scenario;
mod server;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;

use cli::{Cli, Common, Place, StoreKind};
use report::Report;

/// The allocator that a service would choose; the footprint is measured with it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Something was lost, doubled or missing.
const EXIT_FOUND: u8 = 1;
/// Something could not be run.
const EXIT_FAILED: u8 = 3;
/// The run was interrupted, by the shells' convention.
const EXIT_INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let cli = Cli::parse().settled();
    match run(&cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("loadtest: {error:#}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<ExitCode> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(workers(&cli.common)).enable_all().build();
    let runtime = runtime.context("the threads of the driver could not be started")?;
    runtime.block_on(async {
        tokio::select! {
            report = commands::carry_out(cli) => match report? {
                Some(report) => hand_out(report, &cli.common),
                None => Ok(ExitCode::SUCCESS),
            },
            // Leaving this function drops what was under way, and with it the temporary databases.
            _ = tokio::signal::ctrl_c() => Ok(ExitCode::from(EXIT_INTERRUPTED)),
        }
    })
}

fn hand_out(mut report: Report, common: &Common) -> anyhow::Result<ExitCode> {
    if common.store == StoreKind::Sqlite {
        let place = match &common.url {
            Some(Place::File(file)) => file.as_path(),
            _ => Path::new("data"),
        };
        report.warnings.extend(database::warning_about(place));
    }
    if common.store == StoreKind::Postgres && common.url.is_none() {
        report.warnings.extend(database::warning_about(&std::env::temp_dir()));
    }
    if cfg!(debug_assertions) {
        report.warnings.push("this is a debug build; build with --release to measure".into());
    }
    print!("{}", report.table());
    common.json.as_ref().map_or(Ok(()), |file| report.write_json(file))?;
    common.html.as_ref().map_or(Ok(()), |file| report.write_html(file))?;
    Ok(if report.passed() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FOUND) })
}

/// Returns how many cores this process may use.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Returns how many threads carry the callers.
fn workers(common: &Common) -> usize {
    common.workers.map_or_else(cores, usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The common options of a command line that names a file.
    pub(crate) fn common(file: &Path) -> Common {
        let file = file.to_str().expect("a temporary path is text");
        Cli::try_parse_from(["loadtest", "run", "--url", file]).expect("a valid command line").common
    }
}
