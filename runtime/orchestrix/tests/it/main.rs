//! One binary, a module per story.
#![allow(unreachable_pub, missing_docs, reason = "nobody uses a test binary as a library")]

mod archive;
mod backup;
mod bounds;
mod cli;
mod cluster;
mod commands;
mod counter;
mod embedded;
mod evictions;
mod harness;
mod leases;
mod linearizable;
mod panicking_codec;
mod poison;
mod retries;
mod run_ahead;
mod shards;
mod snapshots;
mod start_and_stop;
mod store_faulty;
mod store_memory;
mod store_postgres;
mod store_sqlite;
mod tampered;
#[cfg(feature = "cluster")]
mod wire;
