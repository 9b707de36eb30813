//! What a run of a node says about itself to the others that share its store.

use serde::{Deserialize, Serialize};

use crate::version::Incarnation;

/// A run of a node, as the store knows it. What is said about host and process lets another run on the same machine
/// prove that this one is gone, before its lease ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// The run.
    pub incarnation: Incarnation,
    /// The name that people call the node by; it is what a refused claim tells.
    pub name: String,
    /// The machine's name.
    pub host: String,
    /// What tells one start of the machine from the next; empty where it cannot be told.
    pub boot_id: String,
    /// Where the number of the process is valid; empty where it cannot be told.
    pub pid_namespace: String,
    /// The number of the process.
    pub pid: u32,
    /// When the process began, in the system's own count; 0 where it cannot be told.
    pub pid_started: u64,
    /// The version of the application.
    pub application_version: String,
    /// Where other nodes reach it, if they do.
    pub address: Option<String>,
}
