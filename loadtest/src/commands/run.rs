//! `loadtest run`: one load on one node.

use crate::cli::{Common, RunArgs};
use crate::database::Database;
use crate::driver::Load;
use crate::measure::{measure, with_settings};
use crate::report::Report;

/// Drives a node and reports what it did.
///
/// # Errors
/// When the node does not start, the first commands fail, or the log cannot be read.
pub(super) async fn run(common: &Common, args: &RunArgs) -> anyhow::Result<Report> {
    let load = Load { rate: args.rate, ..args.load.load(common) };
    let database = Database::of_url(common)?;
    let measured = measure(&database, &load, "run").await?;
    let title = format!("loadtest run on {}", common.store.name());
    let report = measured.report(Report::new(title), common, &load).checked(measured.check);
    let report = measured.charts().into_iter().fold(report, Report::chart);
    Ok(with_settings(report, common, &load, 1))
}
