//! The command line: what can be asked for, in which units, with which defaults, and what is refused.

mod cluster;
mod parse;

use std::path::PathBuf;
use std::time::Duration;

pub(crate) use cluster::{ClusterArgs, NodeArgs};
pub(crate) use parse::Place;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Serialize;

use crate::driver::Load;

const EXAMPLES: &str = "\
Examples:
  loadtest run --store sqlite
  loadtest run --store memory --rate 20000 --read-share 0.5 --html run.html
  loadtest compare --store sqlite --aggregates 10000 --callers 512 --rounds 3 --json compare.json
  loadtest compare --store postgres --callers 512
  loadtest latency
  loadtest startup --events 5000000
  loadtest wire --callers 1024
  loadtest cluster --nodes 3 --duration 60 --kill-every 15
  loadtest cluster --nodes 3 --roll
  loadtest cluster --nodes 3 --compare

Exit codes: 0 done, 1 the check found something lost, doubled or missing, 2 wrong use, 3 something could not be run.";

/// Measures Orchestrix against the limit of the machine that it runs on.
///
/// Every figure is meant to be read beside a limit that was measured in the same run, on the same cores and the same disk;
/// compare figures of two runs only when nothing else was going on. Every run of the runtime ends with a check that replays
/// the log: acknowledged commands lost, commands applied twice, versions or seqs missing.
#[derive(Debug, Parser)]
#[command(name = "loadtest", version, after_help = EXAMPLES)]
pub(crate) struct Cli {
    /// What to measure.
    #[command(subcommand)]
    pub(crate) command: Command,
    /// What every measurement understands.
    #[command(flatten)]
    pub(crate) common: Common,
}

impl Cli {
    /// Fills in what follows from the rest: a cluster is always on PostgreSQL.
    pub(crate) fn settled(mut self) -> Self {
        if matches!(self.command, Command::Cluster(_)) {
            self.common.store = StoreKind::Postgres;
        }
        self
    }
}

/// Where the events go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum StoreKind {
    /// In memory: shows the runtime's own cost.
    Memory,
    /// In an SQLite file, durable.
    Sqlite,
    /// In a PostgreSQL database, durable.
    Postgres,
}

impl StoreKind {
    /// Returns the name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
        }
    }
}

/// Options of every subcommand.
#[derive(Clone, Debug, Args)]
pub(crate) struct Common {
    /// Where the events go.
    #[arg(long, value_enum, global = true, default_value = "sqlite")]
    pub(crate) store: StoreKind,
    /// The SQLite file, as a path or `sqlite://path`, or the PostgreSQL database, as `postgres://...`. It is kept. Without it a
    /// temporary directory under ./data is used and removed, or a PostgreSQL server of its own is started. Measurements that
    /// need several databases put them beside this one and remove them.
    #[arg(long, global = true, value_parser = parse::place, value_name = "URL")]
    pub(crate) url: Option<Place>,
    /// How many appends the PostgreSQL store has under way at once, 1 to 8 [default: the store's own].
    #[arg(long, global = true, value_parser = clap::value_parser!(u8).range(1..=8), value_name = "N")]
    pub(crate) lanes: Option<u8>,
    /// Threads of the tokio runtime that carries the callers; the node starts its own threads besides [default: one per core].
    #[arg(long, global = true, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) workers: Option<u16>,
    /// What random choices start from: the same seed gives the same load.
    #[arg(long, global = true, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Bytes of a stored payload, 32 to 1048576.
    #[arg(long, global = true, default_value_t = 200, value_parser = parse::payload, value_name = "BYTES")]
    pub(crate) payload: usize,
    /// Write the result as JSON to this file.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Write the result as one self-contained page with charts to this file.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
}

/// What can be measured.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Drives the runtime and reports commands per second, latencies, outcomes, memory.
    Run(RunArgs),
    /// Measures what this machine can do at best with the same rows, without the runtime: batched appends for SQLite and
    /// PostgreSQL, bare asks to bare actors for memory.
    Limit(LimitArgs),
    /// Measures the limit, one transaction per command, and the runtime, interleaved, and prints the ratios of the medians.
    Compare(CompareArgs),
    /// Measures one caller: a command through the runtime against a raw durable commit of one row, in turn.
    Latency(LatencyArgs),
    /// Measures one hot aggregate against the same load spread over all, interleaved.
    Hot(CompareArgs),
    /// Measures the memory that a resident idle aggregate takes over its own state.
    Footprint(FootprintArgs),
    /// Touches many aggregates in turn under a small bound on resident memory.
    Residency(ResidencyArgs),
    /// Measures how long a node takes to start on a long log, against an empty one.
    Startup(StartupArgs),
    /// Measures goodput, refusals and memory at a multiple of the capacity.
    Overload(OverloadArgs),
    /// Measures calls between two nodes on loopback, without aggregates, against a bare echo over TCP with the same batching.
    Wire(WireArgs),
    /// Starts nodes as processes of their own on loopback, drives them, kills, pauses or restarts them, and checks the log.
    #[command(after_help = cluster::FAILED_COMMANDS)]
    Cluster(ClusterArgs),
    /// Starts a node on --url once and prints how long it took; `startup` calls it.
    #[command(hide = true)]
    Probe,
    /// Joins the cluster of --url and serves the clients of `cluster`, which calls it.
    #[command(hide = true)]
    ClusterNode(NodeArgs),
}

/// The load that most measurements share.
#[derive(Clone, Debug, Args)]
pub(crate) struct LoadArgs {
    /// How many aggregates the load is spread over, 1 to 10000000.
    #[arg(long, default_value_t = 10_000, value_parser = parse::aggregates, value_name = "N")]
    pub(crate) aggregates: usize,
    /// How many callers send and wait; with --rate: how many operations may be under way at once. 1 to 100000.
    #[arg(long, default_value_t = 512, value_parser = parse::callers, value_name = "N")]
    pub(crate) callers: usize,
    /// Seconds of measured time.
    #[arg(long, default_value = "5", value_parser = parse::seconds, value_name = "S")]
    pub(crate) duration: Duration,
    /// Seconds before the measured time.
    #[arg(long, default_value = "2", value_parser = parse::seconds_or_none, value_name = "S")]
    pub(crate) warmup: Duration,
    /// Share of operations that goes to one aggregate, 0 to 1.
    #[arg(long, default_value = "0", value_parser = parse::share, value_name = "SHARE")]
    pub(crate) hot: f64,
    /// Share of reads among the operations, 0 to 1.
    #[arg(long, default_value = "0", value_parser = parse::share, value_name = "SHARE")]
    pub(crate) read_share: f64,
    /// Do not send each aggregate a command before the clock starts: activations then fall into the measured time.
    #[arg(long)]
    pub(crate) cold: bool,
}

impl LoadArgs {
    /// Returns the load of a closed loop.
    pub(crate) fn load(&self, common: &Common) -> Load {
        Load {
            aggregates: self.aggregates,
            callers: self.callers,
            rate: None,
            warmup: self.warmup,
            duration: self.duration,
            hot: self.hot,
            payload_bytes: common.payload,
            read_share: self.read_share,
            seed: common.seed,
            cold: self.cold,
        }
    }
}

/// Options of `run`.
#[derive(Clone, Debug, Args)]
pub(crate) struct RunArgs {
    /// The load.
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    /// Open loop: this many operations are due per second, and latency counts from the due time. Without it the loop is
    /// closed: each caller waits for its answer.
    #[arg(long, value_parser = parse::rate, value_name = "PER_SECOND")]
    pub(crate) rate: Option<f64>,
}

/// Options of `limit`.
#[derive(Clone, Debug, Args)]
pub(crate) struct LimitArgs {
    /// The load; only what matters without a runtime is used.
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    /// How often each is measured, interleaved; medians are reported.
    #[command(flatten)]
    pub(crate) rounds: Rounds,
}

/// Options of `compare` and `hot`.
#[derive(Clone, Debug, Args)]
pub(crate) struct CompareArgs {
    /// The load.
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    /// How often each is measured, interleaved; medians are reported.
    #[command(flatten)]
    pub(crate) rounds: Rounds,
}

/// How often to repeat.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Rounds {
    /// How often each part is measured, interleaved, 1 to 99; medians are reported.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=99), value_name = "N")]
    pub(crate) rounds: u8,
}

/// Options of `latency`.
#[derive(Clone, Debug, Args)]
pub(crate) struct LatencyArgs {
    /// Pairs of a command and a raw commit, 10 to 10000000.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(10..=10_000_000), value_name = "N")]
    pub(crate) pairs: u32,
    /// How many aggregates the commands are spread over, 1 to 10000000.
    #[arg(long, default_value_t = 10_000, value_parser = parse::aggregates, value_name = "N")]
    pub(crate) aggregates: usize,
}

/// Options of `footprint`.
#[derive(Clone, Debug, Args)]
pub(crate) struct FootprintArgs {
    /// How many idle aggregates to measure, 1000 to 10000000. 150,000 others are made first, to fill caches and pools.
    #[arg(long, default_value_t = 100_000, value_parser = parse::many_aggregates, value_name = "N")]
    pub(crate) aggregates: usize,
    /// How many callers make them, 1 to 100000.
    #[arg(long, default_value_t = 256, value_parser = parse::callers, value_name = "N")]
    pub(crate) callers: usize,
}

/// Options of `residency`.
#[derive(Clone, Debug, Args)]
pub(crate) struct ResidencyArgs {
    /// How many aggregates to touch, 1000 to 10000000.
    #[arg(long, default_value_t = 1_000_000, value_parser = parse::many_aggregates, value_name = "N")]
    pub(crate) aggregates: usize,
    /// The bound on resident aggregates in MiB, 1 to 1048576.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..=1 << 20), value_name = "MIB")]
    pub(crate) bound_mib: u64,
    /// How many callers touch them, 1 to 100000.
    #[arg(long, default_value_t = 256, value_parser = parse::callers, value_name = "N")]
    pub(crate) callers: usize,
}

/// Options of `startup`.
#[derive(Clone, Debug, Args)]
pub(crate) struct StartupArgs {
    /// How many events the log has, 0 to 1000000000. A file given by --url that has as many is used as it is.
    #[arg(long, default_value_t = 5_000_000, value_parser = clap::value_parser!(u64).range(0..=1_000_000_000), value_name = "N")]
    pub(crate) events: u64,
    /// How many aggregates they belong to, 1 to 10000000.
    #[arg(long, default_value_t = 100_000, value_parser = parse::aggregates, value_name = "N")]
    pub(crate) aggregates: usize,
    /// How often a fresh process starts a node on each database, 1 to 99; medians are reported.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u8).range(1..=99), value_name = "N")]
    pub(crate) starts: u8,
}

/// Options of `overload`.
#[derive(Clone, Debug, Args)]
pub(crate) struct OverloadArgs {
    /// The load whose capacity is measured first, in a closed loop.
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    /// How many times the capacity is offered, 1 to 100.
    #[arg(long, default_value = "5", value_parser = parse::factor, value_name = "X")]
    pub(crate) factor: f64,
    /// The bound on the memory of the whole process in MiB that the report compares with.
    #[arg(long, default_value_t = 1_024, value_parser = clap::value_parser!(u64).range(1..=1 << 20), value_name = "MIB")]
    pub(crate) bound_mib: u64,
}

/// Options of `wire`.
#[derive(Clone, Debug, Args)]
pub(crate) struct WireArgs {
    /// How many callers send and wait, 1 to 100000.
    #[arg(long, default_value_t = 512, value_parser = parse::callers, value_name = "N")]
    pub(crate) callers: usize,
    /// Seconds of measured time.
    #[arg(long, default_value = "3", value_parser = parse::seconds, value_name = "S")]
    pub(crate) duration: Duration,
    /// How often each is measured, interleaved; medians are reported.
    #[command(flatten)]
    pub(crate) rounds: Rounds,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parsed(line: &str) -> Result<Cli, String> {
        Cli::try_parse_from(line.split(' ')).map_err(|error| error.to_string())
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_defaults_are_those_of_the_help() {
        let cli = parsed("loadtest compare").expect("valid");
        let Command::Compare(args) = cli.command else { panic!("another command was parsed") };
        let load = args.load.load(&cli.common);
        assert_eq!(
            (load.aggregates, load.callers, load.payload_bytes, args.rounds.rounds),
            (10_000, 512, 200, 3)
        );
        assert_eq!((load.warmup, load.duration), (Duration::from_secs(2), Duration::from_secs(5)));
        assert_eq!(cli.common.store, StoreKind::Sqlite);
    }

    #[test]
    fn what_is_out_of_range_is_named_with_the_range() {
        let wrong = [
            ("run --hot 1.5", "--hot", "allowed is 0 to 1"),
            ("run --hot NaN", "--hot", "allowed is 0 to 1"),
            ("run --read-share -0.1", "--read-share", "allowed is 0 to 1"),
            ("run --callers 0", "--callers", "allowed is 1 to 100000"),
            ("run --aggregates many", "--aggregates", "give a whole number"),
            ("run --payload 8", "--payload", "allowed is 32 to 1048576"),
            ("run --duration 0", "--duration", "allowed is 0.1 to 86400"),
            ("run --rate 0", "--rate", "allowed is 0.1"),
            ("run --url mysql://x/y", "--url", "give the path of a file"),
            ("run --lanes 9", "--lanes", "1..=8"),
            ("run --store redis", "--store", "possible values: memory, sqlite, postgres"),
            ("overload --factor 0.5", "--factor", "allowed is 1 to 100"),
            ("compare --rounds 0", "--rounds", "1..=99"),
        ];
        for (line, option, problem) in wrong {
            let line = line.replace(" -0.1", "=-0.1");
            let error = parsed(&format!("loadtest {line}")).expect_err("is out of range");
            assert!(error.contains(option) && error.contains(problem), "{line}: {error}");
        }
    }

    #[test]
    fn a_file_is_understood_in_each_spelling() {
        for url in ["sqlite://a/b.db", "sqlite:a/b.db", "a/b.db"] {
            let cli = parsed(&format!("loadtest run --url {url}")).expect("valid");
            assert_eq!(cli.common.url, Some(Place::File(PathBuf::from("a/b.db"))));
        }
        assert!(parsed("loadtest run --url sqlite::memory:").is_err());
    }
}
