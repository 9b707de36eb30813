//! The options of `cluster`, and of the nodes that it starts.

use std::time::Duration;

use clap::Args;

use super::{Rounds, parse};
use crate::cluster::{Harm, Plan, Way};

/// What counts as a failed command, for the help.
pub(super) const FAILED_COMMANDS: &str = "\
Clients: each command goes to a node that is ready, as behind a load balancer. A client that hears of an error, loses its
connection, or waits for 5 s sends it again to another node with the same id, for 30 s in all.

failed_commands: commands of which a client heard an error that this program did not cause by a kill or a pause, or that it
gave up. Errors are: an answer that says `not attempted` (also `overloaded`) or `unknown`, a connection that ended under the
command, and 5 s without an answer, even if the next attempt succeeded. Excused, and counted as errors_during_faults, are
errors while a fault lasts: a kill from the signal until all shards of the node answer elsewhere, a pause until they do after
the node goes on and every shard has an owner. A rolling restart excuses nothing: with --roll alone 0 are expected.
A node that leaves says so to its clients, as it would by /ready; what is then not sent to it is no error.

Always on PostgreSQL; without --url a throw-away server is started.
Exit code 1 if anything was lost, doubled, missing, stale, or stored by an earlier owner after a later one.";

/// Options of `cluster`.
#[derive(Clone, Debug, Args)]
pub(crate) struct ClusterArgs {
    /// How many nodes, 1 to 32.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=32), value_name = "N")]
    pub(crate) nodes: u8,
    /// How many aggregates the load is spread over, 1 to 10000000.
    #[arg(long, default_value_t = 10_000, value_parser = parse::aggregates, value_name = "N")]
    pub(crate) aggregates: usize,
    /// How many callers send and wait, 1 to 100000.
    #[arg(long, default_value_t = 512, value_parser = parse::callers, value_name = "N")]
    pub(crate) callers: usize,
    /// Seconds of measured time; a kill, a pause or a rolling restart that is under way at its end is waited for.
    #[arg(long, default_value = "10", value_parser = parse::seconds, value_name = "S")]
    pub(crate) duration: Duration,
    /// Seconds before the measured time.
    #[arg(long, default_value = "2", value_parser = parse::seconds_or_none, value_name = "S")]
    pub(crate) warmup: Duration,
    /// Share of strong reads among the operations, 0 to 1. One that is older than an earlier answer is found.
    #[arg(long, default_value = "0", value_parser = parse::share, value_name = "SHARE")]
    pub(crate) read_share: f64,
    /// The lease of the nodes in seconds, 1 to 300.
    #[arg(long, default_value = "6", value_parser = parse::lease, value_name = "S")]
    pub(crate) lease: Duration,
    /// Kill a node this many seconds after the last fault, wait until its shards answer elsewhere, and start it again.
    #[arg(long, value_parser = parse::seconds, value_name = "S")]
    pub(crate) kill_every: Option<Duration>,
    /// Stop a node this many seconds after the last pause, for half a lease to four leases.
    #[arg(long, value_parser = parse::seconds, value_name = "S")]
    pub(crate) pause_every: Option<Duration>,
    /// Restart each node in turn, as a deployment does, before anything else is done to them.
    #[arg(long)]
    pub(crate) roll: bool,
    /// Send each command to a node that does not own its shard.
    #[arg(long)]
    pub(crate) wrong_node: bool,
    /// Seconds in which the nodes are left alone to count their transactions; 0 leaves it out.
    #[arg(long, default_value = "10", value_parser = parse::seconds_or_none, value_name = "S")]
    pub(crate) idle: Duration,
    /// Compare one node with all of them, and the right node with the wrong one, interleaved; prints the ratios.
    #[arg(long, conflicts_with_all = ["kill_every", "pause_every", "roll", "wrong_node"])]
    pub(crate) compare: bool,
    /// How often each part of a comparison is measured.
    #[command(flatten)]
    pub(crate) rounds: Rounds,
}

impl ClusterArgs {
    /// Returns what is asked for.
    pub(crate) fn plan(&self) -> Plan {
        Plan {
            nodes: usize::from(self.nodes),
            callers: self.callers,
            aggregates: self.aggregates,
            read_share: self.read_share,
            warmup: self.warmup,
            duration: self.duration,
            lease: self.lease,
            idle: self.idle,
            way: if self.wrong_node { Way::Wrong } else { Way::Any },
            harm: Harm { kill_every: self.kill_every, pause_every: self.pause_every, roll: self.roll },
        }
    }
}

/// Options of `cluster-node`.
#[derive(Clone, Debug, Args)]
pub(crate) struct NodeArgs {
    /// The lease in seconds, 1 to 300.
    #[arg(long, default_value = "6", value_parser = parse::lease, value_name = "S")]
    pub(crate) lease: Duration,
}
