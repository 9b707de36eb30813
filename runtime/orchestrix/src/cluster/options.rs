//! How a node takes part in the cluster of its store.

use std::net::SocketAddr;

use super::TlsFiles;

/// How a node takes part in the cluster of its store. Nodes that share a store find each other there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterOptions {
    /// Where it listens for other nodes. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// The host and port by which other nodes reach it. Default: where it listens, so it must be given where that is a
    /// wildcard address or behind a translation of addresses.
    pub advertise: Option<String>,
    /// What it proves itself with; `None` for plain text.
    pub tls: Option<TlsFiles>,
    /// Allows plain text beyond the addresses of this machine, for networks that encrypt by themselves. Default: no.
    pub plaintext_allowed: bool,
}

impl ClusterOptions {
    /// Listens at an address, in plain text, which is allowed on this machine's own addresses only.
    pub fn new(listen: SocketAddr) -> Self {
        Self { listen, advertise: None, tls: None, plaintext_allowed: false }
    }
}
