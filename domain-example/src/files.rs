//! How many files the process may have open. Every connection is one.

/// Files that are not connections: the store, the log, the runtime's own.
const RESERVED: u64 = 256;

/// Raises the limit of open files as far as the system lets the process, and returns how many may be connections.
///
/// A login shell often starts with 1,024, which a few clients that keep their connections use up.
pub(crate) fn raise_limit() -> usize {
    let connections = raised().saturating_sub(RESERVED).max(RESERVED);
    usize::try_from(connections).unwrap_or(usize::MAX)
}

#[cfg(unix)]
fn raised() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: now.maximum, maximum: now.maximum };
    let current = if setrlimit(Resource::Nofile, wanted).is_ok() { now.maximum } else { now.current };
    // No limit at all.
    current.unwrap_or(u64::MAX)
}

#[cfg(not(unix))]
fn raised() -> u64 {
    u64::MAX
}
