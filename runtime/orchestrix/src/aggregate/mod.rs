//! Aggregates as actors.
