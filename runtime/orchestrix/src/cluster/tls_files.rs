//! The files that a node proves itself with: what the settings and the transport share.

use std::path::PathBuf;

/// The files that a node proves itself with, and checks others by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The node's certificate with those that lead to the authority's, in PEM.
    pub cert: PathBuf,
    /// The key of the certificate, in PEM.
    pub key: PathBuf,
    /// The certificates of the authorities whose nodes are believed, in PEM.
    pub ca: PathBuf,
}
