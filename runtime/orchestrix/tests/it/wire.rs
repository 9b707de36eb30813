//! Calls between nodes: over connections that are there, that break, and that never come about.

mod calls;
mod faults;
mod log;
mod nodes;
mod refusals;
mod relay;
mod stage;
mod tls;
mod tls_trust;
