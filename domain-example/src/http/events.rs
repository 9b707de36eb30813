//! An account's events as CloudEvents: `GET /accounts/{id}/events`.

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use domain_example::account::{Account, AccountId};
use orchestrix::bus::cloudevent::{BATCH_CONTENT_TYPE, to_batch};
use orchestrix_core::Version;
use orchestrix_core::store::RecordedEvent;
use serde::Deserialize;
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::accounts::no_account;
use super::extract::{Form, Id, Params, number};
use super::openapi::ReadAccountProblems;
use super::problem::{Kind, Problem};
use super::{Bank, in_time};

/// The most events on one page. A page is built in memory, so this bounds what one request may cost.
const PAGE_EVENTS_MAX: u64 = 1_000;

/// The events on one page when the caller does not say.
const PAGE_EVENTS: u64 = 100;

/// Which events to show.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct EventsQuery {
    /// The first version wanted, from 1. Default 1.
    #[param(value_type = Option<u64>, minimum = 1)]
    from_version: Option<String>,
    /// The most events to return, 1 to 1,000. Default 100.
    #[param(value_type = Option<u64>, minimum = 1, maximum = 1000)]
    limit: Option<String>,
}

impl Form for EventsQuery {
    const FIELDS: &'static [(&'static str, &'static str)] =
        &[("from_version", "give an integer from 1"), ("limit", "give an integer from 1 to 1000")];
}

/// An event of an account, in the structured JSON form of CloudEvents 1.0.
#[derive(ToSchema)]
#[schema(as = CloudEvent)]
#[expect(dead_code, reason = "it documents what the runtime's CloudEvents look like")]
pub(crate) struct CloudEventAnswer {
    /// Always `1.0`.
    specversion: String,
    /// The event's version in its account.
    id: String,
    /// The account.
    #[schema(example = "/account/alice")]
    source: String,
    /// The event's name.
    #[schema(example = "account.deposited")]
    r#type: String,
    /// When it was decided.
    #[schema(format = "date-time")]
    time: String,
    /// Always `application/json` here.
    datacontenttype: String,
    /// What happened.
    data: Value,
    /// The event's version in its account.
    version: u64,
    /// The version of the schema of `data`.
    schemaversion: u16,
    /// The command that led to it.
    #[schema(format = "uuid")]
    commandid: String,
    /// The shard of the account.
    shard: u32,
    /// The event's place in the shard.
    shardseq: u64,
    /// The epoch under which it was written.
    epoch: u64,
    /// The conversation that it belongs to.
    #[schema(format = "uuid")]
    correlationid: String,
    /// What led to the command.
    #[schema(format = "uuid")]
    causationid: String,
    /// The caller's trace context, when there was one.
    traceparent: Option<String>,
}

/// Lists the events of an account, oldest first. A full page has a `Link` header with the address of the next one.
#[utoipa::path(
    get, path = "/accounts/{id}/events", tag = "accounts",
    params(("id" = String, Path, description = "The account's id"), EventsQuery),
    responses(
        (status = 200, description = "The events", content_type = "application/cloudevents-batch+json",
         body = Vec<CloudEventAnswer>),
        ReadAccountProblems
    )
)]
pub(crate) async fn list(
    State(bank): State<Bank>,
    Id(id): Id<AccountId>,
    Params(query): Params<EventsQuery>,
) -> Result<Response, Problem> {
    let from = number::<EventsQuery>("from_version", query.from_version.as_deref(), 1..=u64::MAX >> 1)?;
    let limit = number::<EventsQuery>("limit", query.limit.as_deref(), 1..=PAGE_EVENTS_MAX)?;
    let (from, limit) = (Version::new(from.unwrap_or(1)), limit.unwrap_or(PAGE_EVENTS));
    let account = bank.node.of::<Account>(id.clone());
    let page = in_time(account.history(from, limit as usize)).await?;
    if page.is_empty() && !super::accounts::exists(&bank, &id).await? {
        return Err(no_account(&id));
    }
    let events: Vec<RecordedEvent> = page.into_iter().map(|event| event.recorded).collect();
    let body = to_batch(&events).map_err(|error| Problem::new(Kind::Internal, error.to_string()))?;
    let mut response = ([(header::CONTENT_TYPE, BATCH_CONTENT_TYPE)], body).into_response();
    if let Some(last) = events.last().filter(|_| events.len() as u64 == limit) {
        response.headers_mut().insert(header::LINK, next_page(&id, last.version.next(), limit));
    }
    Ok(response)
}

fn next_page(id: &AccountId, from: Version, limit: u64) -> HeaderValue {
    let link = format!("</accounts/{id}/events?from_version={from}&limit={limit}>; rel=\"next\"");
    HeaderValue::from_str(&link).expect("an account id is plain ASCII")
}
