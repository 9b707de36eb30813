//! Nodes as processes of their own on loopback, clients that send to any of them, and what is done to them meanwhile.
//!
//! | file | what |
//! |---|---|
//! | `frame` | what a client asks a node and what it hears, as bytes |
//! | `serve` | a node's side of it: the process that `cluster-node` is |
//! | `line` | a client's connection to one node: many asks under way at once |
//! | `process` | a node's process: started, killed, stopped for a while, asked to leave |
//! | `fleet` | who can be asked at the moment, and who owns what |
//! | `deliver` | one command until it is done: retries with the same id at other nodes |
//! | `callers` | many callers in a closed loop |
//! | `probe` | one command to each shard: when it answers, and how long it did not |
//! | `faults` | when something was done to a node, so that what it caused is told from what it should not |
//! | `harm` | kills, pauses, and the rolling restart |
//! | `arena` | all of it on one database, from the first start to the check of the log |

mod arena;
mod callers;
mod deliver;
mod faults;
mod fleet;
mod frame;
mod harm;
mod line;
mod probe;
mod process;
mod serve;

use std::time::Duration;

pub(crate) use arena::{Run, run};
pub(crate) use callers::Book;
pub(crate) use fleet::Way;
pub(crate) use harm::Findings;
pub(crate) use serve::serve;

/// What to start, what to send, what to do to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// How many nodes.
    pub(crate) nodes: usize,
    /// How many callers.
    pub(crate) callers: usize,
    /// How many aggregates.
    pub(crate) aggregates: usize,
    /// The share of strong reads.
    pub(crate) read_share: f64,
    /// What runs before the measured time.
    pub(crate) warmup: Duration,
    /// The measured time; a fault or a roll that is under way at its end is waited for.
    pub(crate) duration: Duration,
    /// The lease of a node.
    pub(crate) lease: Duration,
    /// How long the nodes are left idle, to count their transactions.
    pub(crate) idle: Duration,
    /// Which node a command is sent to.
    pub(crate) way: Way,
    /// What is done to the nodes.
    pub(crate) harm: Harm,
}

/// What is done to the nodes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Harm {
    /// The time between two kills.
    pub(crate) kill_every: Option<Duration>,
    /// The time between two pauses.
    pub(crate) pause_every: Option<Duration>,
    /// Restarts each node in turn.
    pub(crate) roll: bool,
}
