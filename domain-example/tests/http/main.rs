//! The bank's HTTP contract, story by story.
//!
//! Most stories call the router in this process, on the in-memory store. `abuse`, `garbled` and `connections` use real
//! sockets on loopback, and `process`, `cluster`, `drill` and `traces` processes. The service's own modules are part of
//! this binary, since a binary's modules cannot be imported.

#[path = "../../src/driver/mod.rs"]
mod driver;
#[path = "../../src/files.rs"]
mod files;
#[path = "../../src/http/mod.rs"]
mod http;

mod abuse;
mod accounts;
#[cfg(unix)]
mod cluster;
mod connections;
#[cfg(unix)]
mod drill;
mod events;
mod faults;
mod garbled;
mod health;
mod openapi;
mod problems;
#[cfg(unix)]
mod process;
mod quick_start;
mod support;
#[cfg(all(unix, feature = "otlp"))]
mod traces;
mod transfers;
mod wire;
