//! The in-memory store: the reference.

/// Placeholder.
#[derive(Debug)]
pub struct Memory;
