//! One binary, a module per story.
#![allow(unreachable_pub, missing_docs, reason = "nobody uses a test binary as a library")]

mod cli;
mod commands;
mod counter;
mod embedded;
mod panicking_codec;
mod store_faulty;
mod store_memory;
mod store_sqlite;
