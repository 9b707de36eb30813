//! What a node has to do because others may share its store: hold its shards under a lease, and notice when it does not.
//!
//! | file | what |
//! |---|---|
//! | `lease` ◇ | until when a lease is believed in, and when it is renewed |
//! | `placement` ◇ | which run should own which shard |
//! | `member` ◇ | what one run does next about its lease and its shards |
//! | `routes` ◇ | where a command goes |
//! | `simulation` | drives these through everything that goes wrong, in tests |
//! | `boottime` | the clock by which leases are counted |
//! | `standing` | whether this node may answer now: one look for every answer |
//! | `keeper` | renews the lease; after a loss sends everybody out of memory and claims anew |
//! | `life` | whether another process is certainly gone |
//!
//! The lease is for liveness: it says when others may take over, and keeps this node from answering after that. Safety is
//! the epoch's, which the store checks inside every write. A store that serves one process at a time has no leases, and
//! then all of this is one atomic load for each answer.

mod boottime;
#[cfg(test)]
mod chance;
mod keeper;
mod lease;
mod life;
#[cfg_attr(not(test), expect(dead_code, reason = "the keeper takes it up with the hand-over"))]
mod member;
mod placement;
#[cfg_attr(not(test), expect(dead_code, reason = "the keeper takes it up with the hand-over"))]
mod routes;
#[cfg(test)]
mod simulation;
mod standing;

pub(crate) use keeper::{Keeper, hold};
pub(crate) use lease::Lease;
pub(crate) use life::{Life, is_gone};
pub(crate) use standing::Standing;
