//! The OpenAPI document: made from the routes themselves, so a route cannot be missing from it.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use axum::http::header;
use axum::response::IntoResponse;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{ContentBuilder, Header, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{IntoResponses, OpenApi};

use super::problem::{CONTENT_TYPE, Document, Kind};

/// What the document says about the bank as a whole.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "The example bank",
        description = "Accounts and transfers on Orchestrix. Amounts are integers in minor units. Every error is an \
                       `application/problem+json` document whose `type` and `outcome` tell what to do next."
    ),
    tags(
        (name = "accounts", description = "Open, change and read accounts"),
        (name = "transfers", description = "Move money from account to account"),
        (name = "operations", description = "For whoever runs the bank")
    ),
    components(schemas(Document))
)]
pub(crate) struct Head;

static DOCUMENT: LazyLock<String> = LazyLock::new(|| {
    let (_, mut document) = super::routes().split_for_parts();
    let kinds = Kind::ALL.map(|kind| {
        let (slug, status, title, _) = kind.row();
        format!("| `{slug}` | {} | {title} |", status.as_u16())
    });
    let table = format!("\n\n| type | status | title |\n|---|---|---|\n{}", kinds.join("\n"));
    document.info.description.get_or_insert_default().push_str(&table);
    document.to_json().expect("the document is made of texts and numbers")
});

/// Describes this service.
#[utoipa::path(
    get, path = "/openapi.json", tag = "operations",
    responses((status = 200, description = "This document", content_type = "application/json", body = Object))
)]
pub(crate) async fn describe() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT.as_str())
}

/// What any command may answer instead of success.
const COMMAND: [Kind; 11] = [
    Kind::InvalidRequest,
    Kind::RequestTimeout,
    Kind::TooLarge,
    Kind::UnsupportedMediaType,
    Kind::IdempotencyKeyReused,
    Kind::CommandExpired,
    Kind::Overloaded,
    Kind::StoreUnavailable,
    Kind::OutcomeUnknown,
    Kind::AggregateQuarantined,
    Kind::Internal,
];

/// What any read may answer instead of success.
const READ: [Kind; 5] = [
    Kind::InvalidRequest,
    Kind::Overloaded,
    Kind::StoreUnavailable,
    Kind::AggregateQuarantined,
    Kind::Internal,
];

/// Declares what a route may answer instead of success: what all of its sort may, and kinds of its own.
macro_rules! problems {
    ($($name:ident = $sort:ident + [$($kind:ident),*];)*) => {$(
        #[doc = concat!("What a route with `", stringify!($name), "` may answer instead of success.")]
        pub(crate) struct $name;

        impl IntoResponses for $name {
            fn responses() -> BTreeMap<String, RefOr<Response>> {
                answers($sort.into_iter().chain([$(Kind::$kind),*]))
            }
        }
    )*};
}

problems! {
    OpenAccountProblems = COMMAND + [AccountExists];
    DepositProblems = COMMAND + [AccountNotFound, AccountClosed, BalanceTooLarge];
    WithdrawProblems = COMMAND + [AccountNotFound, AccountClosed, InsufficientFunds];
    CloseAccountProblems = COMMAND + [AccountNotFound, AccountClosed, AccountNotEmpty];
    ReadAccountProblems = READ + [AccountNotFound, VersionNotFound];
    RequestTransferProblems = COMMAND + [TransferExists];
    ReadTransferProblems = READ + [TransferNotFound];
}

/// Returns one documented answer for each status; kinds that share a status share its description.
fn answers(kinds: impl IntoIterator<Item = Kind>) -> BTreeMap<String, RefOr<Response>> {
    let mut lines: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for kind in kinds {
        let (slug, status, title, _) = kind.row();
        lines.entry(status.as_str().to_owned()).or_default().push(format!("`{slug}`: {title}"));
    }
    lines
        .into_iter()
        .map(|(status, lines)| {
            let response = answer(&status, &lines.join("\n\n"));
            (status, response.into())
        })
        .collect()
}

fn answer(status: &str, description: &str) -> Response {
    let document = Ref::from_schema_name("Problem");
    let content = ContentBuilder::new().schema(Some(document)).build();
    let response = ResponseBuilder::new().description(description).content(CONTENT_TYPE, content);
    if matches!(status, "429" | "503") {
        let mut seconds = Header::new(ObjectBuilder::new().schema_type(Type::Integer));
        seconds.description = Some("Seconds to wait before a retry".to_owned());
        return response.header("Retry-After", seconds).build();
    }
    response.build()
}
