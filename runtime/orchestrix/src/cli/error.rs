//! Why a command did not end well, and the exit code that says so.

use orchestrix_core::store::{ClaimError, ImportError, ReadError, WriteError};

use crate::config::ConfigError;
use crate::error::{HistoryError, StartError};
use crate::ops::backup::{BackupError, RestoreError};
use crate::store::{OpenError, PostgresOpenError, StoreOpenError};
use crate::telemetry::traces::TracesError;

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
    Open(#[from] StoreOpenError),
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
    /// A backup could not be taken, or is not what it should be. Exit code by cause. Handling: see the message.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// A backup could not be restored. Exit code by cause. Handling: see the message.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// The answer could not be printed. Exit code 1.
    #[error("the answer cannot be printed: {0}")]
    Output(#[from] std::io::Error),
    /// Traces cannot be exported as the settings say. Exit code 2. Handling: correct the address.
    #[error(transparent)]
    Traces(#[from] TracesError),
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
            Self::Usage(_) | Self::Config(_) | Self::Traces(_) => USAGE,
            Self::Write(_) | Self::Claim(_) => UNREACHABLE,
            Self::Read(error) | Self::History(HistoryError::Read(error)) => read_code(error),
            Self::Found(_) | Self::Output(_) | Self::History(_) => FOUND,
            Self::Open(error) => open_code(error),
            Self::Backup(error) => backup_code(error),
            Self::Restore(error) => restore_code(error),
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

fn backup_code(error: &BackupError) -> u8 {
    match error {
        BackupError::Read(error) => read_code(error),
        BackupError::Damaged { .. } | BackupError::Unsound { .. } => FOUND,
        BackupError::File { .. } => UNREACHABLE,
        _ => USAGE,
    }
}

fn restore_code(error: &RestoreError) -> u8 {
    match error {
        RestoreError::Backup(error) => backup_code(error),
        RestoreError::Read(error) => read_code(error),
        RestoreError::Import(ImportError::Unavailable { .. }) => UNREACHABLE,
        RestoreError::Import(ImportError::Gap { .. }) | RestoreError::NotOurs { .. } => FOUND,
        _ => USAGE,
    }
}

fn open_code(error: &StoreOpenError) -> u8 {
    match error {
        StoreOpenError::Sqlite(error) => sqlite_code(error),
        StoreOpenError::Postgres(error) => postgres_code(error),
    }
}

fn postgres_code(error: &PostgresOpenError) -> u8 {
    match error {
        PostgresOpenError::Url { .. }
        | PostgresOpenError::Option { .. }
        | PostgresOpenError::Pending { .. }
        | PostgresOpenError::ShardCount { .. }
        | PostgresOpenError::Newer { .. }
        | PostgresOpenError::ServerTooOld { .. }
        | PostgresOpenError::Standby { .. }
        | PostgresOpenError::NotDurable { .. } => USAGE,
        PostgresOpenError::Corrupt { .. }
        | PostgresOpenError::Changed { .. }
        | PostgresOpenError::Migration { .. } => FOUND,
        _ => UNREACHABLE,
    }
}

fn sqlite_code(error: &OpenError) -> u8 {
    match error {
        OpenError::Pending { .. }
        | OpenError::ShardCount { .. }
        | OpenError::Option { .. }
        | OpenError::Newer { .. }
        | OpenError::LibraryTooOld { .. } => USAGE,
        OpenError::Corrupt { .. } | OpenError::Changed { .. } | OpenError::Migration { .. } => FOUND,
        _ => UNREACHABLE,
    }
}

/// Looks for a cause that has a code of its own, down the chain of causes.
fn serve_code(error: &(dyn std::error::Error + 'static)) -> u8 {
    std::iter::successors(Some(error), |error| error.source()).find_map(known_code).unwrap_or(FOUND)
}

fn known_code(error: &(dyn std::error::Error + 'static)) -> Option<u8> {
    if let Some(code) = store_code(error) {
        return Some(code);
    }
    if error.is::<ConfigError>() {
        return Some(USAGE);
    }
    match error.downcast_ref::<StartError>()? {
        StartError::Open(source) => Some(store_code(&**source).unwrap_or(UNREACHABLE)),
        StartError::Claim(_) => Some(UNREACHABLE),
        StartError::Settings(_)
        | StartError::NoStore
        | StartError::NotShared { .. }
        | StartError::DuplicateType { .. }
        | StartError::DuplicateCommand { .. } => Some(USAGE),
        _ => Some(FOUND),
    }
}

fn store_code(error: &(dyn std::error::Error + 'static)) -> Option<u8> {
    let any = error.downcast_ref::<StoreOpenError>().map(open_code);
    let sqlite = || error.downcast_ref::<OpenError>().map(sqlite_code);
    let postgres = || error.downcast_ref::<PostgresOpenError>().map(postgres_code);
    any.or_else(sqlite).or_else(postgres)
}

/// Adds to the store's own words what a person at a terminal can do.
fn opening(error: &StoreOpenError) -> String {
    match error {
        StoreOpenError::Sqlite(OpenError::Held { .. }) => {
            format!("{error}; this command writes, so stop the service first and start it again afterwards")
        }
        StoreOpenError::Sqlite(OpenError::Missing { .. }) => {
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
        assert_eq!(CliError::Open(missing().into()).exit_code(), 3);
        assert_eq!(CliError::Open(corrupt.into()).exit_code(), 1);
        let url = PostgresOpenError::Url { reason: String::new() };
        assert_eq!(CliError::Open(url.into()).exit_code(), 2);
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
        let error = CliError::Open(OpenError::Missing { path: "bank.db".into() }.into());
        assert!(error.to_string().contains("create the database with `migrate`"), "{error}");
    }
}
