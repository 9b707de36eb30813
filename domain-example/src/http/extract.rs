//! What a request must bring: ids in its path, parameters, a body, a key, and where it comes from.
//!
//! Every extractor answers with a [`Problem`] that names the field, says what is wrong and what would be right.
//! The order of a handler's arguments is the order of the checks; [`Caller`] comes first, so that whatever fails after
//! it carries the command's id.

use std::error::Error;
use std::time::Duration;

use axum::body::{Bytes, to_bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRef, FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use orchestrix::telemetry::traces;
use orchestrix_core::{AggregateId, CommandId, Metadata};
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::problem::{Kind, Problem};

/// How much of a request is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BodyLimits {
    /// Bytes of a body, at least 1. Default 65,536: the largest valid one takes less than 1,024. Over it: 413.
    pub(crate) bytes_max: usize,
    /// How long a body may take to arrive, at least 1 ms. Default 10 s. Over it: 408.
    pub(crate) time_max: Duration,
}

impl Default for BodyLimits {
    fn default() -> Self {
        Self { bytes_max: 64 << 10, time_max: Duration::from_secs(10) }
    }
}

/// The longest piece of the caller's own input that an error repeats, in characters.
const QUOTE_CHARS_MAX: usize = 100;

/// Who asks: the command's identity and what travels with it.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// From `Idempotency-Key`; a fresh id when there is none.
    pub(crate) command_id: CommandId,
    /// From `traceparent`, `X-Correlation-Id` and `X-Causation-Id`.
    pub(crate) metadata: Metadata,
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let key = uuid_header(&parts.headers, "Idempotency-Key")?;
        let command_id = key.map_or_else(CommandId::fresh, CommandId::from_uuid);
        // The extractors that follow find the id here.
        parts.extensions.insert(command_id);
        let metadata = metadata(&parts.headers).map_err(|problem| problem.of_command(command_id))?;
        Ok(Self { command_id, metadata })
    }
}

fn metadata(headers: &HeaderMap) -> Result<Metadata, Problem> {
    Ok(Metadata {
        correlation_id: uuid_header(headers, "X-Correlation-Id")?,
        causation_id: uuid_header(headers, "X-Causation-Id")?,
        // While traces are exported, the request's own span comes between its caller and the command.
        traceparent: traces::carried().or_else(|| trace_parent(headers)),
        headers: Vec::new(),
    })
}

fn uuid_header(headers: &HeaderMap, name: &'static str) -> Result<Option<Uuid>, Problem> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Problem::invalid(name, "is given twice; give it once"));
    }
    let id = value.to_str().ok().and_then(|text| Uuid::parse_str(text).ok());
    let rule = "is no UUID; give one such as 01997fa3-8f2e-7cc3-98c4-dc0c0c07398f, or leave the header out";
    id.map(Some).ok_or_else(|| Problem::invalid(name, rule))
}

/// The W3C's rule for a trace context that makes no sense is to go on without it.
pub(crate) fn trace_parent(headers: &HeaderMap) -> Option<Box<str>> {
    let text = headers.get("traceparent")?.to_str().ok()?;
    let lengths: Vec<usize> = text.split('-').map(str::len).collect();
    let plain = |byte: u8| byte == b'-' || byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let known = lengths == [2, 32, 16, 2] && text.bytes().all(plain) && !text.starts_with("ff");
    known.then(|| text.into())
}

/// The id of an aggregate, from the path.
#[derive(Clone, Debug)]
pub(crate) struct Id<I>(pub I);

impl<I: AggregateId, S: Send + Sync> FromRequestParts<S> for Id<I> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let command_id = parts.extensions.get::<CommandId>().copied();
        let path: Result<Path<String>, PathRejection> = Path::from_request_parts(parts, state).await;
        let read = path
            .map_err(|_| Problem::invalid("path", "is not UTF-8 after percent-decoding; correct the id"))
            .and_then(|Path(text)| aggregate_id(None, &text));
        read.map(Self).map_err(|problem| problem.of_command(command_id))
    }
}

/// Reads an id that came in a path or in the field `field`.
///
/// # Errors
/// A [`Problem`] that names the field, or the id's own word when there is none.
pub(crate) fn aggregate_id<I: AggregateId>(field: Option<&str>, text: &str) -> Result<I, Problem> {
    I::from_key(text).map_err(|error| {
        let own_word = error.name.replace(' ', "_");
        Problem::invalid(field.unwrap_or(&own_word), error.problem)
    })
}

/// A body or a query that a handler reads, with a rule for each of its fields.
pub(crate) trait Form: DeserializeOwned {
    /// Each field with what would be right: `give ...`.
    const FIELDS: &'static [(&'static str, &'static str)];

    /// What an empty body means; `None` when there must be one.
    fn without_body() -> Option<Self> {
        None
    }
}

/// The parameters of a query.
#[derive(Clone, Debug)]
pub(crate) struct Params<T>(pub T);

impl<T: Form, S: Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = parts.uri.query().unwrap_or_default();
        serde_urlencoded::from_str(query)
            .map(Self)
            .map_err(|error| explain::<T>("query", "", &error.to_string()))
    }
}

/// A JSON body.
#[derive(Clone, Debug)]
pub(crate) struct JsonBody<T>(pub T);

impl<T: Form, S> FromRequest<S> for JsonBody<T>
where
    S: Send + Sync,
    BodyLimits: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let command_id = request.extensions().get::<CommandId>().copied();
        let read = read_form(request, BodyLimits::from_ref(state)).await;
        read.map(Self).map_err(|problem| problem.of_command(command_id))
    }
}

async fn read_form<T: Form>(request: Request, limits: BodyLimits) -> Result<T, Problem> {
    let is_json = is_json(request.headers());
    if !is_json && (T::without_body().is_none() || request.headers().contains_key(header::CONTENT_TYPE)) {
        let detail = "Content-Type: is not application/json; send JSON and say so";
        return Err(Problem::new(Kind::UnsupportedMediaType, detail));
    }
    let bytes = read_bytes(request, limits).await?;
    match T::without_body() {
        Some(form) if bytes.is_empty() => Ok(form),
        _ => parse(&bytes),
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let essence = |text: &str| text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    content_type.map(essence).is_some_and(|text| text == "application/json")
}

async fn read_bytes(request: Request, limits: BodyLimits) -> Result<Bytes, Problem> {
    let too_large =
        || Problem::new(Kind::TooLarge, format!("body: is over {} bytes; send less", limits.bytes_max));
    if announced_bytes(request.headers()).is_some_and(|bytes| bytes > limits.bytes_max as u64) {
        return Err(too_large());
    }
    let reading = to_bytes(request.into_body(), limits.bytes_max);
    match tokio::time::timeout(limits.time_max, reading).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if is_over_limit(&error) => Err(too_large()),
        Ok(Err(_)) => Err(Problem::invalid("body", "did not arrive whole; send it again")),
        Err(_) => {
            let detail = format!("body: took longer than {:?}; send it faster", limits.time_max);
            Err(Problem::new(Kind::RequestTimeout, detail))
        }
    }
}

fn announced_bytes(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn is_over_limit(error: &axum::Error) -> bool {
    error.source().is_some_and(<dyn Error>::is::<http_body_util::LengthLimitError>)
}

/// Reads a JSON object. An array would pass for a struct with serde, so the first character decides.
fn parse<T: Form>(bytes: &[u8]) -> Result<T, Problem> {
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(Problem::invalid("body", format!("is no JSON object; {}", fields_of::<T>())));
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let form = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        if error.inner().is_data() {
            explain::<T>("body", &path, &error.inner().to_string())
        } else {
            Problem::invalid("body", format!("is no valid JSON: {}", error.inner()))
        }
    })?;
    json.end()
        .map_err(|error| Problem::invalid("body", format!("goes on after its JSON object: {error}")))?;
    Ok(form)
}

/// Says which field is wrong, why, and what would be right, from the words of serde.
fn explain<T: Form>(whole: &str, path: &str, words: &str) -> Problem {
    let words = words.split(" at line ").next().unwrap_or(words);
    if let Some(name) = quoted(words, "unknown field `") {
        return Problem::invalid(&quotable(name), format!("is not known here; {}", fields_of::<T>()));
    }
    if let Some(name) = quoted(words, "missing field `") {
        return Problem::invalid(name, format!("is missing; {}", rule_of::<T>(name)));
    }
    if let Some(name) = quoted(words, "duplicate field `") {
        return Problem::invalid(name, "is given twice; give it once");
    }
    if path.is_empty() || path == "." {
        return Problem::invalid(whole, quotable(words));
    }
    if words.starts_with("invalid ") {
        // Serde's words: what was found, and what type was expected, which the field's rule says better.
        let found = words.rsplit_once(", expected ").map_or(words, |(found, _)| found);
        return Problem::invalid(path, format!("{}; {}", quotable(found), rule_of::<T>(path)));
    }
    // The domain's words name the field and the rule.
    let spoken = path.replace('_', " ");
    let words = words.strip_prefix(&*spoken).map_or(words, str::trim_start);
    let short = quotable(words);
    if short.len() == words.len() {
        return Problem::invalid(path, short);
    }
    Problem::invalid(path, format!("{short}; {}", rule_of::<T>(path)))
}

/// Returns the name that serde puts between backticks. It may be the caller's own and hold backticks itself.
fn quoted<'a>(words: &'a str, start: &str) -> Option<&'a str> {
    let rest = words.strip_prefix(start)?;
    let ends = ["`, expected", "`, there are", "`"];
    ends.iter().find_map(|end| rest.rsplit_once(end)).map(|(name, _)| name)
}

fn rule_of<T: Form>(field: &str) -> &'static str {
    T::FIELDS.iter().find(|(name, _)| *name == field).map_or("give it", |(_, rule)| rule)
}

fn fields_of<T: Form>() -> String {
    if T::FIELDS.is_empty() {
        return "leave the body empty".to_owned();
    }
    let names: Vec<_> = T::FIELDS.iter().map(|(name, _)| *name).collect();
    format!("the fields are {}", names.join(", "))
}

/// Shortens what the caller sent, so that an error cannot be made as large as the input.
fn quotable(text: &str) -> String {
    let mut chars = text.chars();
    let short: String = chars.by_ref().take(QUOTE_CHARS_MAX).collect();
    if chars.next().is_some() { format!("{short}...") } else { short }
}

/// Reads a number from a query.
///
/// # Errors
/// A [`Problem`] that names the parameter and its rule.
pub(crate) fn number<T: Form>(
    field: &str,
    text: Option<&str>,
    range: std::ops::RangeInclusive<u64>,
) -> Result<Option<u64>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let value = text.parse().ok().filter(|value| digits && range.contains(value));
    value
        .map(Some)
        .ok_or_else(|| Problem::invalid(field, format!("is {:?}; {}", quotable(text), rule_of::<T>(field))))
}
