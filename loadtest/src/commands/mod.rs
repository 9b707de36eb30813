//! The measurements, one a file. Each takes its options and returns a report.

mod cluster;
mod cluster_compare;
mod compare;
mod footprint;
mod hot;
mod latency;
mod limit;
mod overload;
mod residency;
mod run;
mod startup;
mod wire;

use crate::cli::{Cli, Command};
use crate::report::Report;

/// Carries out what the command line asks for; `None` when there is nothing to report.
///
/// # Errors
/// When something could not be run: a directory, a database, a node, a first command, the check.
pub(crate) async fn carry_out(cli: &Cli) -> anyhow::Result<Option<Report>> {
    let common = &cli.common;
    let report = match &cli.command {
        Command::Run(args) => run::run(common, args).await,
        Command::Limit(args) => limit::limit(common, args).await,
        Command::Compare(args) => compare::compare(common, args).await,
        Command::Latency(args) => latency::latency(common, args).await,
        Command::Hot(args) => hot::hot(common, args).await,
        Command::Footprint(args) => footprint::footprint(common, args).await,
        Command::Residency(args) => residency::residency(common, args).await,
        Command::Startup(args) => startup::startup(common, args).await,
        Command::Overload(args) => overload::overload(common, args).await,
        Command::Wire(args) => wire::wire(common, args).await,
        Command::Cluster(args) if args.compare => cluster_compare::compare(common, args).await,
        Command::Cluster(args) => cluster::cluster(common, args).await,
        Command::ClusterNode(args) => return cluster::node(common, args).await.map(|()| None),
        Command::Probe => return startup::probe(common).await.map(|()| None),
    };
    report.map(Some)
}
