//! What a node has to do because others may share its store: hold its shards under a lease, and notice when it does not.
//!
//! | file | what |
//! |---|---|
//! | `lease` ◇ | until when a lease is believed in, and when it is renewed |
//! | `placement` ◇ | which run should own which shard |
//! | `member` ◇ | what one run does next about its lease and its shards |
//! | `routes` ◇ | where a command goes |
//! | `carrier` | carries out what a membership decides |
//! | `options` | how a node takes part |
//! | `simulation` | drives these through everything that goes wrong, in tests |
//! | `boottime` | the clock by which leases are counted |
//! | `standing` | whether this node may answer now: one look for every answer |
//! | `confirm` | asks the store who owns shards, for many reads with one question |
//! | `shards` | opens, seals and fences single shards of a running node |
//! | `keeper` | renews the lease; claims anew what was lost: single shards, or all of them as another run |
//! | `life` | whether another process is certainly gone |
//! | [`wire`] | frames between nodes, byte for byte |
//! | [`transport`] | connections between nodes |
//!
//! The lease is for liveness: it says when others may take over, and keeps this node from answering after that. Safety is
//! the epoch's, which the store checks inside every write. A store that serves one process at a time has no leases, and
//! then all of this is one atomic load for each answer.

mod boottime;
#[cfg(feature = "cluster")]
mod carrier;
#[cfg(all(test, feature = "cluster"))]
mod chance;
mod confirm;
mod keeper;
mod lease;
mod life;
#[cfg(feature = "cluster")]
mod member;
mod options;
#[cfg(feature = "cluster")]
mod placement;
#[cfg(feature = "cluster")]
mod routes;
mod shards;
#[cfg(all(test, feature = "cluster"))]
mod simulation;
mod standing;
mod tls_files;
#[cfg(feature = "cluster")]
pub mod transport;
pub mod wire;

pub(crate) use boottime::BootTime;
#[cfg(feature = "cluster")]
pub(crate) use carrier::{Carrier, Crew, INPUTS_MAX, Neighbours, Strings};
pub(crate) use confirm::Confirms;
pub(crate) use keeper::{Held, Keeper, hold};
pub(crate) use lease::Lease;
pub(crate) use life::{Life, is_gone};
#[cfg(feature = "cluster")]
pub(crate) use member::Input;
pub use options::ClusterOptions;
#[cfg(feature = "cluster")]
pub(crate) use routes::{Moved, Route, Routes};
pub use shards::Shards;
pub(crate) use standing::{Silence, Standing};
pub use tls_files::TlsFiles;
