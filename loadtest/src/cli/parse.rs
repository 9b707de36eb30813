//! How values of the command line are read. Each refusal says what is allowed; clap adds the option and the value.

use std::path::PathBuf;
use std::time::Duration;

use crate::scenario::PAYLOAD_BYTES_MIN;

/// The most aggregates that a run may have: their addresses alone take half a gigabyte.
const AGGREGATES_MAX: usize = 10_000_000;
/// The most callers: more only queue.
const CALLERS_MAX: usize = 100_000;
/// The largest payload, in bytes.
const PAYLOAD_BYTES_MAX: usize = 1 << 20;
/// The longest time that an option may ask for, in seconds.
const SECONDS_MAX: f64 = 86_400.0;

/// Where a database lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// An SQLite file.
    File(PathBuf),
    /// A PostgreSQL database.
    Server(String),
}

/// Reads the place of a database: that of an SQLite file, with or without `sqlite://`, or the URL of a PostgreSQL database.
pub(super) fn place(text: &str) -> Result<Place, String> {
    if text.starts_with("postgres://") || text.starts_with("postgresql://") {
        return Ok(Place::Server(text.to_owned()));
    }
    let path = text.strip_prefix("sqlite://").or_else(|| text.strip_prefix("sqlite:")).unwrap_or(text);
    if path.is_empty() || path == ":memory:" || path.contains("://") {
        return Err(
            "give the path of a file, for instance sqlite://data/loadtest.db, or postgres://...".to_owned()
        );
    }
    Ok(Place::File(PathBuf::from(path)))
}

fn whole(text: &str, min: usize, max: usize) -> Result<usize, String> {
    let number: usize = text.parse().map_err(|_| "give a whole number".to_owned())?;
    if (min..=max).contains(&number) { Ok(number) } else { Err(format!("allowed is {min} to {max}")) }
}

/// Reads a number of aggregates.
pub(super) fn aggregates(text: &str) -> Result<usize, String> {
    whole(text, 1, AGGREGATES_MAX)
}

/// Reads a number of aggregates that is large enough to measure their memory.
pub(super) fn many_aggregates(text: &str) -> Result<usize, String> {
    whole(text, 1_000, AGGREGATES_MAX)
}

/// Reads a number of callers.
pub(super) fn callers(text: &str) -> Result<usize, String> {
    whole(text, 1, CALLERS_MAX)
}

/// Reads the size of a payload in bytes.
pub(super) fn payload(text: &str) -> Result<usize, String> {
    whole(text, PAYLOAD_BYTES_MIN, PAYLOAD_BYTES_MAX)
}

fn real(text: &str, min: f64, max: f64) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "give a number".to_owned())?;
    if (min..=max).contains(&number) { Ok(number) } else { Err(format!("allowed is {min} to {max}")) }
}

/// Reads a share, 0 to 1.
pub(super) fn share(text: &str) -> Result<f64, String> {
    real(text, 0.0, 1.0)
}

/// Reads how many times the capacity is offered.
pub(super) fn factor(text: &str) -> Result<f64, String> {
    real(text, 1.0, 100.0)
}

/// Reads operations per second.
pub(super) fn rate(text: &str) -> Result<f64, String> {
    real(text, 0.1, 10_000_000.0)
}

/// Reads a time that is not nothing, in seconds.
pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    real(text, 0.1, SECONDS_MAX).map(Duration::from_secs_f64)
}

/// Reads the lease of a node, in seconds: what the runtime's settings allow.
pub(super) fn lease(text: &str) -> Result<Duration, String> {
    real(text, 1.0, 300.0).map(Duration::from_secs_f64)
}

/// Reads a time that may be nothing, in seconds.
pub(super) fn seconds_or_none(text: &str) -> Result<Duration, String> {
    real(text, 0.0, SECONDS_MAX).map(Duration::from_secs_f64)
}
