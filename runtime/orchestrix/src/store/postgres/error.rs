//! What an error of the driver means: whether the statement may have taken effect, and whether the session is sound.
//!
//! The rule: an error is *certain* only when the server said, in a session that goes on, that it rolled the statement
//! back, and for a reason that is known here. Whatever else happens after a statement was sent is *doubtful*.

use std::time::Duration;

use orchestrix_core::ShardId;
use orchestrix_core::store::{ClaimError, ReadError, WriteError};
use sqlx::postgres::{PgDatabaseError, PgSeverity};

use super::rows::Malformed;

/// The server's codes that the store tells apart, from the appendix "Error Codes" of PostgreSQL's manual.
pub(super) mod code {
    pub(crate) const UNIQUE_VIOLATION: &str = "23505";
    pub(crate) const CANNOT_CONNECT_NOW: &str = "57P03";
    pub(crate) const DATA_CORRUPTED: &str = "XX001";
    pub(crate) const INDEX_CORRUPTED: &str = "XX002";
    pub(crate) const READ_ONLY: &str = "25006";
    pub(crate) const UNDEFINED_TABLE: &str = "42P01";
    pub(crate) const INVALID_SCHEMA: &str = "3F000";
    pub(crate) const DEADLOCK: &str = "40P01";
    pub(crate) const SERIALIZATION: &str = "40001";
}

/// Classes of codes after which a statement is certainly rolled back: features, data, constraints, transaction states,
/// rights, deadlocks, names, resources, limits, state of objects, and what functions raise themselves.
const CERTAIN_CLASSES: [&str; 16] =
    ["0A", "20", "21", "22", "23", "25", "28", "2F", "3D", "3F", "40", "42", "53", "54", "55", "P0"];

/// Codes of these classes after which nobody knows: "statement completion unknown".
const UNCERTAIN_CODES: [&str; 1] = ["40003"];

/// Whether something was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Certainly not, now or later.
    None,
    /// Perhaps.
    Unknown,
}

/// Why a statement has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    /// No session was to be had; nothing was sent.
    #[error(transparent)]
    NoSession(#[from] NoSession),
    /// The driver or the server failed after the statement was sent.
    #[error("{statement}: {}", said(.source))]
    Driver { statement: &'static str, source: sqlx::Error },
    /// The server did not answer in time; the session was given up.
    #[error("{statement}: the server did not answer within {limit:?}")]
    TimedOut { statement: &'static str, limit: Duration },
    /// The answer makes no sense.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The caller asks for a shard that is not there; nothing was sent.
    #[error("there is no shard {shard}; the log has {count}, counted from 0")]
    NoSuchShard { shard: ShardId, count: u32 },
    /// The store was opened to look; nothing was sent.
    #[error("the database was opened read-only")]
    ReadOnly,
    /// The task that did the work is gone.
    #[error("the work was cut off: {0}")]
    CutOff(String),
}

/// Why there is no session. Nothing was sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoSession {
    #[error("the store is closed")]
    Closed,
    #[error("no connection was free within {limit:?}; {in_use} are in use and {waiting} callers wait")]
    Busy { limit: Duration, in_use: usize, waiting: usize },
    #[error("no connection to {place}: {}", said(.source))]
    Connect { place: String, source: sqlx::Error },
    #[error("{place} did not answer within {limit:?}")]
    TimedOut { place: String, limit: Duration },
    #[error("{place} cannot be used: {reason}")]
    Unfit { place: String, reason: String },
}

impl Failed {
    /// Tells whether the statement may have taken effect.
    pub(super) fn effect(&self) -> Effect {
        match self {
            Self::NoSession(_) | Self::NoSuchShard { .. } | Self::ReadOnly => Effect::None,
            Self::Driver { source, .. } => effect(source),
            Self::TimedOut { .. } | Self::Malformed(_) | Self::CutOff(_) => Effect::Unknown,
        }
    }

    /// Returns the server's code, if it gave one.
    pub(super) fn code(&self) -> Option<&str> {
        match self {
            Self::Driver { source, .. } => sql_state(source),
            _ => None,
        }
    }

    /// Tells whether the session was lost, as it is when the server went away and came back.
    pub(super) fn is_lost_session(&self) -> bool {
        match self {
            Self::Driver { source, .. } => match sql_state(source) {
                Some(state) => state.starts_with("57P") || state.starts_with("08"),
                None => matches!(source, sqlx::Error::Io(_)),
            },
            _ => false,
        }
    }

    /// Tells whether one of the values cannot be stored, which is nobody else's fault.
    pub(super) fn is_about_values(&self) -> bool {
        self.effect() == Effect::None
            && self.code().is_some_and(|code| code.starts_with("22") || code.starts_with("54"))
    }

    /// Tells whether the same statement may go well at once: the server chose it as the victim.
    pub(super) fn is_worth_repeating(&self) -> bool {
        matches!(self.code(), Some(code::DEADLOCK | code::SERIALIZATION))
    }
}

/// Tells whether a statement that ended with this error may have taken effect.
pub(super) fn effect(error: &sqlx::Error) -> Effect {
    match database_error(error) {
        Some(own) => effect_of_code(own.severity() == PgSeverity::Error, own.code()),
        // The driver refuses before it sends what it cannot encode.
        None if matches!(error, sqlx::Error::Encode(_)) => Effect::None,
        None => Effect::Unknown,
    }
}

/// The same for what a server said: whether its session goes on, and its code.
fn effect_of_code(session_goes_on: bool, code: &str) -> Effect {
    let class = code.get(..2).unwrap_or_default();
    let certain = CERTAIN_CLASSES.contains(&class) && !UNCERTAIN_CODES.contains(&code);
    if session_goes_on && certain { Effect::None } else { Effect::Unknown }
}

/// Tells whether a session that met this error may be used again: the server has rolled back and goes on.
pub(super) fn is_sound(error: &sqlx::Error) -> bool {
    match database_error(error) {
        Some(own) => effect(error) == Effect::None && !spoils_session(own.code()),
        None => matches!(error, sqlx::Error::Encode(_)),
    }
}

/// A session of a server that has become a standby, that is out of something, or that does not know its user any more is
/// of no use for the next statement, though this one is certainly undone.
fn spoils_session(code: &str) -> bool {
    code == code::READ_ONLY || code.starts_with("53") || code.starts_with("28")
}

/// Tells whether a database that refuses a connection with this error may take one soon.
pub(super) fn may_pass(error: &sqlx::Error) -> bool {
    match sql_state(error) {
        Some(state) => {
            state == code::CANNOT_CONNECT_NOW || state.starts_with("53") || state.starts_with("57")
        }
        None => matches!(error, sqlx::Error::Io(_) | sqlx::Error::Protocol(_)),
    }
}

/// Returns the server's code, if it gave one.
pub(super) fn sql_state(error: &sqlx::Error) -> Option<&str> {
    database_error(error).map(PgDatabaseError::code)
}

fn database_error(error: &sqlx::Error) -> Option<&PgDatabaseError> {
    error.as_database_error()?.try_downcast_ref()
}

/// Says an error with the server's code and its details.
pub(super) fn said(error: &sqlx::Error) -> String {
    let Some(own) = database_error(error) else { return error.to_string() };
    let detail = own.detail().map_or_else(String::new, |detail| format!(" ({detail})"));
    format!("{} [SQLSTATE {}]{detail}", own.message(), own.code())
}

impl From<Failed> for ReadError {
    fn from(failed: Failed) -> Self {
        match &failed {
            Failed::Malformed(_) => Self::Corrupt { reason: failed.to_string() },
            _ => match failed.code() {
                Some(code::DATA_CORRUPTED | code::INDEX_CORRUPTED) => {
                    Self::Corrupt { reason: failed.to_string() }
                }
                _ => Self::unavailable(failed),
            },
        }
    }
}

impl From<Failed> for WriteError {
    fn from(failed: Failed) -> Self {
        Self::unavailable(failed)
    }
}

impl From<Failed> for ClaimError {
    fn from(failed: Failed) -> Self {
        Self::unavailable(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_driver_says_by_itself_is_doubtful() {
        let cut = sqlx::Error::Io(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
        assert_eq!(effect(&cut), Effect::Unknown);
        assert_eq!(effect(&sqlx::Error::Protocol("unexpected message".into())), Effect::Unknown);
        assert_eq!(effect(&sqlx::Error::WorkerCrashed), Effect::Unknown);
        assert_eq!(effect(&sqlx::Error::Encode("too long".into())), Effect::None);
        for error in [&cut, &sqlx::Error::WorkerCrashed] {
            assert!(!is_sound(error), "{error}");
        }
    }

    #[test]
    fn the_servers_code_tells_what_is_certainly_undone() {
        let undone = [
            "23505", "22021", "22P02", "25006", "28000", "40001", "40P01", "42501", "42P01", "53100",
            "53200", "53300", "54000", "55P03", "0A000", "P0001",
        ];
        for code in undone {
            assert_eq!(effect_of_code(true, code), Effect::None, "{code}");
            assert_eq!(effect_of_code(false, code), Effect::Unknown, "{code} at the end of a session");
        }
        let doubtful = [
            "08000", "08003", "08006", "08007", "40003", "57014", "57P01", "57P02", "57P03", "57P05",
            "58000", "58030", "XX000", "XX001", "F0000", "72000", "", "?",
        ];
        for code in doubtful {
            assert_eq!(effect_of_code(true, code), Effect::Unknown, "{code}");
        }
    }

    #[test]
    fn a_session_is_kept_after_a_refusal_and_not_after_a_shortage() {
        assert!(!spoils_session("23505") && !spoils_session("55P03") && !spoils_session("42501"));
        assert!(spoils_session("25006") && spoils_session("53100") && spoils_session("28000"));
    }

    #[test]
    fn nothing_was_done_before_there_was_a_session() {
        let limit = Duration::from_secs(1);
        let busy = Failed::NoSession(NoSession::Busy { limit, in_use: 3, waiting: 1 });
        assert_eq!(busy.effect(), Effect::None);
        assert_eq!(Failed::TimedOut { statement: "append", limit }.effect(), Effect::Unknown);
        assert_eq!(Failed::CutOff("cancelled".to_owned()).effect(), Effect::Unknown);
        assert_eq!(Failed::ReadOnly.effect(), Effect::None);
    }

    #[test]
    fn a_database_that_is_not_there_yet_may_come() {
        assert!(may_pass(&sqlx::Error::Io(std::io::Error::from(std::io::ErrorKind::ConnectionRefused))));
        assert!(!may_pass(&sqlx::Error::Configuration("no such sslmode".into())));
    }
}
