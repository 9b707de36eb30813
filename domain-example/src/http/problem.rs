//! Every error that the bank answers, as `application/problem+json` (RFC 9457).
//!
//! [`Kind`] is the closed list: one row each with the last segment of `type`, the status, the title and what became
//! of the command. A caller decides by `type` and `outcome`; `detail` is for a person.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use orchestrix::{HistoryError, NotAttempted, SendError, Unknown};
use orchestrix_core::store::ReadError;
use orchestrix_core::{CommandId, Version};
use serde::Serialize;
use utoipa::ToSchema;

/// The media type of an error.
pub(crate) const CONTENT_TYPE: &str = "application/problem+json";

/// The header that carries a command's id, on requests and on answers.
pub(crate) const KEY_HEADER: &str = "idempotency-key";

/// When a retry has a chance after the store did not answer.
const STORE_RETRY_AFTER: Duration = Duration::from_secs(1);

/// What became of the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// It had no effect and never will have: the domain was not even asked.
    NotAttempted,
    /// The domain said no. It had no effect and never will have.
    Refused,
    /// Nobody knows. A retry with the same key tells.
    Unknown,
}

/// The kinds of errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The input is malformed or invalid.
    InvalidRequest,
    /// No route has this path.
    UnknownPath,
    /// The path is known, the method is not.
    MethodNotAllowed,
    /// The body did not arrive in time.
    RequestTimeout,
    /// The body is over the limit.
    TooLarge,
    /// The body is not JSON by its content type.
    UnsupportedMediaType,
    /// There is no such account.
    AccountNotFound,
    /// The account has not reached that version.
    VersionNotFound,
    /// There is no such transfer.
    TransferNotFound,
    /// The account was opened before.
    AccountExists,
    /// The transfer was requested before, by another command.
    TransferExists,
    /// The account is closed.
    AccountClosed,
    /// The account still holds money.
    AccountNotEmpty,
    /// The balance does not suffice.
    InsufficientFunds,
    /// The account would hold more than an account may hold.
    BalanceTooLarge,
    /// The key was used for another command or body.
    IdempotencyKeyReused,
    /// The key is older than the account remembers.
    CommandExpired,
    /// A bound was hit.
    Overloaded,
    /// The store does not answer.
    StoreUnavailable,
    /// Nobody knows what became of the command.
    OutcomeUnknown,
    /// The aggregate's events or code made it fail.
    AggregateQuarantined,
    /// A bug of our own.
    Internal,
}

impl Kind {
    /// Every kind, for the documentation and its test.
    pub(crate) const ALL: [Self; 22] = [
        Self::InvalidRequest,
        Self::UnknownPath,
        Self::MethodNotAllowed,
        Self::RequestTimeout,
        Self::TooLarge,
        Self::UnsupportedMediaType,
        Self::AccountNotFound,
        Self::VersionNotFound,
        Self::TransferNotFound,
        Self::AccountExists,
        Self::TransferExists,
        Self::AccountClosed,
        Self::AccountNotEmpty,
        Self::InsufficientFunds,
        Self::BalanceTooLarge,
        Self::IdempotencyKeyReused,
        Self::CommandExpired,
        Self::Overloaded,
        Self::StoreUnavailable,
        Self::OutcomeUnknown,
        Self::AggregateQuarantined,
        Self::Internal,
    ];

    /// Returns the last segment of `type`, the status, the title and the outcome.
    pub(crate) const fn row(self) -> (&'static str, StatusCode, &'static str, Outcome) {
        use Outcome::{NotAttempted as Never, Refused, Unknown};
        match self {
            Self::InvalidRequest => row("invalid-request", 400, "The request is invalid", Never),
            Self::UnknownPath => row("unknown-path", 404, "There is nothing at this path", Never),
            Self::MethodNotAllowed => row("method-not-allowed", 405, "The path has no such method", Never),
            Self::RequestTimeout => row("request-timeout", 408, "The body did not arrive in time", Never),
            Self::TooLarge => row("too-large", 413, "The body is too large", Never),
            Self::UnsupportedMediaType => row("unsupported-media-type", 415, "The body must be JSON", Never),
            Self::AccountNotFound => row("account-not-found", 404, "There is no such account", Refused),
            Self::VersionNotFound => row("version-not-found", 404, "There is no such version yet", Refused),
            Self::TransferNotFound => row("transfer-not-found", 404, "There is no such transfer", Refused),
            Self::AccountExists => row("account-exists", 409, "The account exists already", Refused),
            Self::TransferExists => row("transfer-exists", 409, "The transfer exists already", Refused),
            Self::AccountClosed => row("account-closed", 409, "The account is closed", Refused),
            Self::AccountNotEmpty => row("account-not-empty", 409, "The account still holds money", Refused),
            Self::InsufficientFunds => {
                row("insufficient-funds", 422, "The balance does not suffice", Refused)
            }
            Self::BalanceTooLarge => {
                row("balance-too-large", 422, "The account would hold too much", Refused)
            }
            Self::IdempotencyKeyReused => {
                row("idempotency-key-reused", 409, "The key was used for something else", Never)
            }
            Self::CommandExpired => row("command-expired", 410, "The key is too old to be retried", Never),
            Self::Overloaded => row("overloaded", 429, "The bank is busy", Never),
            Self::StoreUnavailable => row("store-unavailable", 503, "The event store does not answer", Never),
            Self::OutcomeUnknown => row("outcome-unknown", 504, "Nobody knows what became of it", Unknown),
            Self::AggregateQuarantined => {
                row("aggregate-quarantined", 500, "The aggregate is quarantined", Never)
            }
            Self::Internal => row("internal-error", 500, "The bank made a mistake", Unknown),
        }
    }
}

const fn row(
    slug: &'static str,
    status: u16,
    title: &'static str,
    outcome: Outcome,
) -> (&'static str, StatusCode, &'static str, Outcome) {
    let Ok(status) = StatusCode::from_u16(status) else { panic!("the table has a number that is no status") };
    (slug, status, title, outcome)
}

/// An error on its way to the client.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    kind: Kind,
    detail: String,
    command_id: Option<CommandId>,
    retry_after: Option<Duration>,
}

/// The document that a client reads.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct Document {
    /// A reference whose last segment is the kind of error.
    #[schema(example = "/problems/insufficient-funds")]
    r#type: String,
    /// The kind of error for a person.
    title: &'static str,
    /// The status of the answer.
    status: u16,
    /// What happened this time, and what to do about it.
    detail: String,
    /// The id of the command, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = "uuid")]
    command_id: Option<CommandId>,
    /// What became of the command.
    outcome: Outcome,
}

impl Problem {
    /// Makes a problem of a kind.
    pub(crate) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), command_id: None, retry_after: None }
    }

    /// Makes the problem of a field, a parameter or a header that is invalid.
    pub(crate) fn invalid(field: &str, problem: impl std::fmt::Display) -> Self {
        Self::new(Kind::InvalidRequest, format!("{field}: {problem}"))
    }

    /// Adds the id of the command that it is about.
    pub(crate) fn of_command(mut self, id: impl Into<Option<CommandId>>) -> Self {
        self.command_id = id.into();
        self
    }

    fn retry_after(mut self, time: Duration) -> Self {
        self.retry_after = Some(time);
        self
    }

    /// Turns a failed command into a problem; `refused` says what the domain's refusal is.
    pub(crate) fn from_send<R>(error: SendError<R>, id: CommandId, refused: impl FnOnce(R) -> Self) -> Self {
        let problem = match error {
            SendError::Refused(refusal) => refused(refusal),
            SendError::NotAttempted(error) => error.into(),
            SendError::Unknown(error) => error.into(),
        };
        problem.of_command(id)
    }
}

impl From<NotAttempted> for Problem {
    fn from(error: NotAttempted) -> Self {
        let detail = error.to_string();
        match error {
            NotAttempted::Overloaded { retry_after, .. } => {
                Self::new(Kind::Overloaded, detail).retry_after(retry_after)
            }
            NotAttempted::DeadlineExceeded => {
                Self::new(Kind::Overloaded, detail).retry_after(STORE_RETRY_AFTER)
            }
            NotAttempted::Unavailable { .. } | NotAttempted::NotOwner { .. } | NotAttempted::ShuttingDown => {
                unavailable(detail)
            }
            NotAttempted::Behind { .. } => Self::new(Kind::VersionNotFound, detail),
            NotAttempted::IdReused { .. } => {
                Self::new(Kind::IdempotencyKeyReused, format!("{detail}; use a fresh Idempotency-Key"))
            }
            NotAttempted::IdExpired { .. } => Self::new(
                Kind::CommandExpired,
                format!("{detail}; look at the account, and use a fresh Idempotency-Key if it was not done"),
            ),
            NotAttempted::Quarantined { .. } => Self::new(Kind::AggregateQuarantined, detail),
            NotAttempted::InvalidId { .. } => Self::new(Kind::InvalidRequest, detail),
            _ => Self::new(Kind::Internal, detail),
        }
    }
}

impl From<Unknown> for Problem {
    fn from(error: Unknown) -> Self {
        Self::new(Kind::OutcomeUnknown, error.to_string()).of_command(error.command_id)
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Unavailable { .. } => unavailable(error.to_string()),
            _ => Self::new(Kind::Internal, error.to_string()),
        }
    }
}

impl From<HistoryError> for Problem {
    fn from(error: HistoryError) -> Self {
        match error {
            HistoryError::Read(error) => error.into(),
            HistoryError::FutureVersion { stream, actual: Version::ZERO, .. } => {
                Self::new(Kind::AccountNotFound, format!("{stream} does not exist"))
            }
            HistoryError::FutureVersion { .. } => Self::new(Kind::VersionNotFound, error.to_string()),
            HistoryError::Decode { .. } | HistoryError::Panicked { .. } => {
                Self::new(Kind::AggregateQuarantined, error.to_string())
            }
            _ => Self::new(Kind::Internal, error.to_string()),
        }
    }
}

/// Makes the problem of a store that does not answer.
pub(crate) fn unavailable(detail: impl Into<String>) -> Problem {
    Problem::new(Kind::StoreUnavailable, detail).retry_after(STORE_RETRY_AFTER)
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (slug, status, title, outcome) = self.kind.row();
        // A store that is down is reported once where it is noticed, not with every request that it fails.
        if status.is_server_error() && self.kind != Kind::StoreUnavailable {
            tracing::warn!(kind = slug, detail = %self.detail, command_id = ?self.command_id, "a request failed");
        }
        let document = Document {
            r#type: format!("/problems/{slug}"),
            title,
            status: status.as_u16(),
            detail: self.detail,
            command_id: self.command_id,
            outcome,
        };
        let mut response = (status, Json(document)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
        if let Some(time) = self.retry_after {
            headers.insert(header::RETRY_AFTER, whole_seconds(time).into());
        }
        if let Some(id) = self.command_id {
            headers.insert(KEY_HEADER, key_value(id));
        }
        response
    }
}

/// Returns a command's id as the value of a header.
pub(crate) fn key_value(id: CommandId) -> HeaderValue {
    HeaderValue::from_str(&id.to_string()).expect("a UUID is plain ASCII")
}

/// `Retry-After` knows whole seconds only, and 0 would invite a retry at once.
fn whole_seconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis().div_ceil(1_000)).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_lists_exactly_these_problems() {
        let manual = include_str!("../../../docs/operations/errors.md");
        let table = manual.split("## Problems that the bank answers").nth(1).expect("there is such a part");
        let cells = table.lines().filter_map(|line| line.strip_prefix("| `"));
        let listed: Vec<String> =
            cells.map(|row| row.split(" | ").take(3).collect::<Vec<_>>().join(" ")).collect();
        let known = Kind::ALL.map(|kind| {
            let (name, status, _, outcome) = kind.row();
            let outcome = match outcome {
                Outcome::NotAttempted => "not attempted",
                Outcome::Refused => "refused",
                Outcome::Unknown => "unknown",
            };
            format!("{name}` {} {outcome}", status.as_u16())
        });
        assert_eq!(listed, known);
    }

    #[test]
    fn every_kind_has_a_name_of_its_own() {
        let mut names: Vec<_> = Kind::ALL.iter().map(|kind| kind.row().0).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Kind::ALL.len());
    }

    #[test]
    fn a_retry_is_asked_for_after_at_least_a_second() {
        assert_eq!(whole_seconds(Duration::ZERO), 1);
        assert_eq!(whole_seconds(Duration::from_millis(1_001)), 2);
    }
}
