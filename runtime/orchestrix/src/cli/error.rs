//! Why a command did not end well, and the exit code that says so.

use orchestrix_core::store::{ClaimError, ReadError, WriteError};

use crate::config::ConfigError;
use crate::error::{HistoryError, StartError};
use crate::store::{OpenError, PostgresOpenError};

/// A command did not end well.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CliError {
    /// What was asked for makes no sense. Exit code 2. Handling: ask for something else.
    #[error("{0}")]
    Usage(String),
    /// The settings are wrong. Exit code 2. Handling: correct the one that is named.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The command did its work and found something wrong. Exit code 1. Handling: see what it printed.
    #[error("{0}")]
    Found(String),
    /// The store could not be opened. Exit code by cause. Handling: see the message.
    #[error("{}", opening(.0))]
    Open(#[from] OpenError),
    /// The store did not answer, or holds what cannot be. Exit code 3 or 1.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store did not take a write. Exit code 3. Handling: repeat the command.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The shards could not be claimed. Exit code 3. Handling: stop the service first.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// An aggregate could not be rebuilt. Exit code 1, or 3 when the store did not answer.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The answer could not be printed. Exit code 1.
    #[error("the answer cannot be printed: {0}")]
    Output(#[from] std::io::Error),
    /// The service ended with an error. Exit code by cause.
    #[error("{}", chain(.0.as_ref()))]
    Serve(Box<dyn std::error::Error + Send + Sync>),
}

const FOUND: u8 = 1;
const USAGE: u8 = 2;
const UNREACHABLE: u8 = 3;

impl CliError {
    /// Returns the exit code: 1 found something wrong, 2 wrong use or configuration, 3 the store was not reached.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Config(_) => USAGE,
            Self::Write(_) | Self::Claim(_) => UNREACHABLE,
            Self::Read(error) | Self::History(HistoryError::Read(error)) => read_code(error),
            Self::Found(_) | Self::Output(_) | Self::History(_) => FOUND,
            Self::Open(error) => open_code(error),
            Self::Serve(error) => serve_code(error.as_ref()),
        }
    }

    /// Tells whether the reader of the output went away, as `head` does: nothing is wrong then.
    pub(super) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == std::io::ErrorKind::BrokenPipe)
    }
}

fn read_code(error: &ReadError) -> u8 {
    if matches!(error, ReadError::Corrupt { .. }) { FOUND } else { UNREACHABLE }
}

fn open_code(error: &OpenError) -> u8 {
    match error {
        OpenError::Pending { .. }
        | OpenError::ShardCount { .. }
        | OpenError::Option { .. }
        | OpenError::Newer { .. }
        | OpenError::LibraryTooOld { .. } => USAGE,
        OpenError::Corrupt { .. } | OpenError::Changed { .. } | OpenError::Migration { .. } => FOUND,
        OpenError::Postgres(error) => postgres_code(error),
        _ => UNREACHABLE,
    }
}

fn postgres_code(error: &PostgresOpenError) -> u8 {
    match error {
        PostgresOpenError::Url { .. }
        | PostgresOpenError::Option { .. }
        | PostgresOpenError::ServerTooOld { .. }
        | PostgresOpenError::Standby { .. }
        | PostgresOpenError::NotDurable { .. }
        | PostgresOpenError::Pending { .. }
        | PostgresOpenError::Newer { .. }
        | PostgresOpenError::ShardCount { .. } => USAGE,
        PostgresOpenError::Changed { .. }
        | PostgresOpenError::Migration { .. }
        | PostgresOpenError::Corrupt { .. } => FOUND,
        _ => UNREACHABLE,
    }
}

/// Looks for a cause that has a code of its own, down the chain of causes.
fn serve_code(error: &(dyn std::error::Error + 'static)) -> u8 {
    std::iter::successors(Some(error), |error| error.source()).find_map(known_code).unwrap_or(FOUND)
}

fn known_code(error: &(dyn std::error::Error + 'static)) -> Option<u8> {
    if let Some(open) = error.downcast_ref::<OpenError>() {
        return Some(open_code(open));
    }
    if error.is::<ConfigError>() {
        return Some(USAGE);
    }
    match error.downcast_ref::<StartError>()? {
        StartError::Open(source) => {
            source.downcast_ref::<OpenError>().map_or(Some(UNREACHABLE), |open| Some(open_code(open)))
        }
        StartError::Claim(_) => Some(UNREACHABLE),
        StartError::Settings(_) | StartError::NoStore | StartError::DuplicateType { .. } => Some(USAGE),
        _ => Some(FOUND),
    }
}

/// Adds to the store's own words what a person at a terminal can do.
fn opening(error: &OpenError) -> String {
    match error {
        OpenError::Held { .. } => {
            format!("{error}; this command writes, so stop the service first and start it again afterwards")
        }
        OpenError::Missing { .. } => {
            format!("{error}; check DATABASE_URL (`config` shows it), or create the database with `migrate`")
        }
        _ => error.to_string(),
    }
}

/// Joins an error and its causes, leaving out those that the one above repeats.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    for cause in std::iter::successors(error.source(), |error| error.source()) {
        let words = cause.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serve(error: impl std::error::Error + Send + Sync + 'static) -> CliError {
        CliError::Serve(Box::new(error))
    }

    #[test]
    fn the_exit_code_tells_use_from_reach_from_findings() {
        let missing = || OpenError::Missing { path: "bank.db".into() };
        let corrupt = OpenError::Corrupt { path: "bank.db".into(), reason: "no header".to_owned() };
        assert_eq!(CliError::Usage(String::new()).exit_code(), 2);
        assert_eq!(CliError::Found(String::new()).exit_code(), 1);
        assert_eq!(CliError::Open(missing()).exit_code(), 3);
        assert_eq!(CliError::Open(corrupt).exit_code(), 1);
        let unreachable = PostgresOpenError::Unreachable {
            place: "db/bank as ada".to_owned(),
            reason: "refused".to_owned(),
            waited: std::time::Duration::ZERO,
        };
        assert_eq!(CliError::Open(unreachable.into()).exit_code(), 3);
        let standby = PostgresOpenError::Standby { place: "db/bank as ada".to_owned() };
        assert_eq!(CliError::Open(standby.into()).exit_code(), 2);
        assert_eq!(CliError::Read(ReadError::Corrupt { reason: String::new() }).exit_code(), 1);
        assert_eq!(CliError::Read(ReadError::unavailable("gone")).exit_code(), 3);
    }

    #[test]
    fn a_service_that_did_not_start_keeps_its_cause() {
        assert_eq!(serve(StartError::NoStore).exit_code(), 2);
        let open = StartError::Open(Box::new(OpenError::Missing { path: "bank.db".into() }));
        let error = serve(open);
        assert_eq!(error.exit_code(), 3);
        assert!(error.to_string().contains("bank.db"), "{error}");
        assert_eq!(serve(std::io::Error::other("no idea")).exit_code(), 1);
    }

    #[test]
    fn a_missing_database_comes_with_what_to_do() {
        let error = CliError::Open(OpenError::Missing { path: "bank.db".into() });
        assert!(error.to_string().contains("create the database with `migrate`"), "{error}");
    }
}
