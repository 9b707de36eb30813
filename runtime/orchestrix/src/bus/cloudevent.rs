//! Stored events as CloudEvents 1.0, and back.
//!
//! `source` is `/{aggregate type}/{id}` and `id` is the version: together they name an event once and for all, so a
//! receiver can drop what it has seen. A JSON payload travels as `data`, a bincode payload as `data_base64`.
//!
//! | attribute | holds |
//! |---|---|
//! | `type`, `schemaversion` | the event's name in the log and the version of its schema |
//! | `version` | the place in the stream, as a number |
//! | `shard`, `shardseq`, `epoch` | the place in the shard and the epoch under which it was written |
//! | `commandid` | the command that led to it |
//! | `correlationid` | the conversation; the command's own id when the caller named none |
//! | `causationid` | what led to the command; the command's own id when the caller named nothing |
//! | `traceparent` | the caller's trace context, when there was one |
//!
//! The application's own headers and the receipt stay inside: they are for the application alone.
//! Numbers above 2^31 - 1 are written as they are, although CloudEvents promises receivers 32 bits only.

use chrono::{DateTime, Utc};
use cloudevents::event::ExtensionValue;
use cloudevents::{AttributesReader, Data, Event, EventBuilder, EventBuilderV10};
use orchestrix_core::store::RecordedEvent;
use orchestrix_core::{
    Codec, CommandId, DecodeError, Epoch, Metadata, Seq, ShardId, StreamId, Timestamp, Version,
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::Value;
use uuid::Uuid;

/// The media type of a JSON array of CloudEvents.
pub const BATCH_CONTENT_TYPE: &str = "application/cloudevents-batch+json";

const JSON: &str = "application/json";
const BINARY: &str = "application/octet-stream";

/// What a URI's path escapes: everything but the characters that RFC 3986 leaves unreserved.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Returns a stored event as a CloudEvent.
///
/// # Errors
/// [`DecodeError::Malformed`] when the payload is not the JSON that it claims to be, when the metadata cannot be read,
/// or when a number or the time is out of the range that a CloudEvent can carry.
pub fn to_cloud_event(event: &RecordedEvent) -> Result<Event, DecodeError> {
    let metadata = event.metadata()?;
    let command = event.command_id.to_string();
    let own_or = |id: Option<Uuid>| id.map_or_else(|| command.clone(), |id| id.to_string());
    let mut builder = EventBuilderV10::new()
        .id(event.version.to_string())
        .source(source(&event.stream))
        .ty(&*event.event_type)
        .time(time(event.recorded_at)?)
        .extension("version", number("version", event.version.get())?)
        .extension("schemaversion", i64::from(event.schema_version))
        .extension("shard", i64::from(event.shard.get()))
        .extension("shardseq", number("seq", event.seq.get())?)
        .extension("epoch", number("epoch", event.epoch.get())?)
        .extension("correlationid", own_or(metadata.correlation_id))
        .extension("causationid", own_or(metadata.causation_id))
        .extension("commandid", command.clone());
    if let Some(trace) = metadata.traceparent {
        builder = builder.extension("traceparent", trace.into_string());
    }
    let builder = match event.codec {
        Codec::Json => builder.data(JSON, json(event)?),
        Codec::Bincode => builder.data(BINARY, event.payload.clone()),
    };
    builder.build().map_err(|error| malformed("event", error.to_string()))
}

/// Returns events as the body of a [`BATCH_CONTENT_TYPE`] message.
///
/// # Errors
/// As [`to_cloud_event`]; the first event that fails is named.
pub fn to_batch(events: &[RecordedEvent]) -> Result<Vec<u8>, DecodeError> {
    let events = events.iter().map(to_cloud_event).collect::<Result<Vec<_>, _>>()?;
    orchestrix_core::codec::json::encode("batch", &events)
        .map_err(|error| malformed("batch", error.to_string()))
}

/// A CloudEvent that no node wrote, or that somebody changed. Handling: leave it to whoever it is meant for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no event of this system: attribute {attribute} {problem}")]
pub struct NotOurs {
    /// The attribute that gives it away.
    pub attribute: &'static str,
    /// What is wrong with it.
    pub problem: String,
}

/// Reads a CloudEvent that [`to_cloud_event`] wrote. Headers and receipt do not travel, so they come back empty; the
/// text of a JSON payload comes back with the same meaning, perhaps with its fields in another order.
///
/// # Errors
/// [`NotOurs`] names the first attribute that is missing or cannot be.
pub fn from_cloud_event(event: &Event) -> Result<RecordedEvent, NotOurs> {
    let (codec, payload) = payload(event)?;
    let metadata = Metadata {
        correlation_id: Some(uuid(event, "correlationid")?),
        causation_id: Some(uuid(event, "causationid")?),
        traceparent: text(event, "traceparent").ok().map(Into::into),
        headers: Vec::new(),
    };
    let headers = metadata.encode().map_err(|error| not_ours("correlationid", error.to_string()))?;
    let time = event.time().ok_or_else(|| not_ours("time", "is missing"))?;
    Ok(RecordedEvent {
        stream: stream(event.source())?,
        version: Version::new(count(event, "version")?),
        shard: ShardId::new(narrow(event, "shard")?),
        seq: Seq::new(count(event, "shardseq")?),
        epoch: Epoch::new(count(event, "epoch")?),
        event_type: event.ty().to_owned().into(),
        schema_version: narrow(event, "schemaversion")?,
        codec,
        command_id: CommandId::from_uuid(uuid(event, "commandid")?),
        recorded_at: Timestamp::from_micros(time.timestamp_micros()),
        headers: headers.map(Into::into),
        receipt: None,
        payload,
    })
}

/// Returns the source of a stream's events.
pub(crate) fn source(stream: &StreamId) -> String {
    format!("/{}/{}", stream.aggregate_type, utf8_percent_encode(&stream.id, ESCAPED))
}

/// Reads a stream out of the source of its events.
pub(crate) fn stream(source: &str) -> Result<StreamId, NotOurs> {
    let wrong = || not_ours("source", format!("is {source:?}; it must be /type/id"));
    let (aggregate_type, id) =
        source.strip_prefix('/').and_then(|path| path.split_once('/')).ok_or_else(wrong)?;
    let id = percent_decode_str(id).decode_utf8().map_err(|_| wrong())?;
    Ok(StreamId::new(aggregate_type.to_owned(), &*id))
}

fn time(time: Timestamp) -> Result<DateTime<Utc>, DecodeError> {
    DateTime::from_timestamp_micros(time.as_micros())
        .ok_or_else(|| malformed("time", format!("{time} is in no calendar")))
}

fn number(what: &str, value: u64) -> Result<i64, DecodeError> {
    i64::try_from(value).map_err(|_| malformed(what, format!("{value} is over 2^63 - 1")))
}

fn json(event: &RecordedEvent) -> Result<Value, DecodeError> {
    orchestrix_core::codec::json::decode(&event.event_type, &event.payload)
}

fn payload(event: &Event) -> Result<(Codec, Vec<u8>), NotOurs> {
    match event.data() {
        Some(Data::Json(value)) => Ok((Codec::Json, value.to_string().into_bytes())),
        Some(Data::Binary(bytes)) => Ok((Codec::Bincode, bytes.clone())),
        Some(Data::String(_)) => Err(not_ours("data", "is neither JSON nor binary")),
        None => Err(not_ours("data", "is missing")),
    }
}

fn text<'e>(event: &'e Event, name: &'static str) -> Result<&'e str, NotOurs> {
    match event.extension(name) {
        Some(ExtensionValue::String(text)) => Ok(text),
        Some(_) => Err(not_ours(name, "is no text")),
        None => Err(not_ours(name, "is missing")),
    }
}

fn uuid(event: &Event, name: &'static str) -> Result<Uuid, NotOurs> {
    text(event, name)?.parse().map_err(|_| not_ours(name, "is no UUID"))
}

fn count(event: &Event, name: &'static str) -> Result<u64, NotOurs> {
    match event.extension(name) {
        Some(ExtensionValue::Integer(value)) => {
            u64::try_from(*value).map_err(|_| not_ours(name, "is negative"))
        }
        Some(_) => Err(not_ours(name, "is no number")),
        None => Err(not_ours(name, "is missing")),
    }
}

fn narrow<N: TryFrom<u64>>(event: &Event, name: &'static str) -> Result<N, NotOurs> {
    N::try_from(count(event, name)?).map_err(|_| not_ours(name, "is too large"))
}

fn malformed(what: &str, reason: String) -> DecodeError {
    DecodeError::Malformed { what: what.to_owned(), reason }
}

fn not_ours(attribute: &'static str, problem: impl Into<String>) -> NotOurs {
    NotOurs { attribute, problem: problem.into() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn recorded(codec: Codec, payload: &[u8]) -> RecordedEvent {
        let metadata = Metadata {
            correlation_id: Some(Uuid::from_u128(1)),
            causation_id: Some(Uuid::from_u128(2)),
            traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
            headers: Vec::new(),
        };
        RecordedEvent {
            stream: StreamId::new("account", "zürich/7 ä"),
            version: Version::new(3),
            shard: ShardId::new(212),
            seq: Seq::new(4_000_000_000),
            epoch: Epoch::new(9),
            event_type: "account.deposited".into(),
            schema_version: 2,
            codec,
            command_id: CommandId::from_uuid(Uuid::from_u128(7)),
            recorded_at: "2026-01-31T12:00:00.000001Z".parse().expect("RFC 3339"),
            headers: metadata.encode().expect("encodes").map(Into::into),
            receipt: None,
            payload: payload.to_vec(),
        }
    }

    fn over_the_wire(event: &RecordedEvent) -> RecordedEvent {
        let text = serde_json::to_string(&to_cloud_event(event).expect("converts")).expect("serializes");
        from_cloud_event(&serde_json::from_str(&text).expect("is a CloudEvent")).expect("is ours")
    }

    #[test]
    fn a_json_event_survives_the_wire() {
        let event = recorded(Codec::Json, br#"{"amount":100,"note":null}"#);
        assert_eq!(over_the_wire(&event), event);
    }

    #[test]
    fn a_bincode_event_survives_the_wire() {
        let event = recorded(Codec::Bincode, &[0, 255, 1, 128]);
        assert_eq!(over_the_wire(&event), event);
    }

    #[test]
    fn the_json_form_is_the_one_that_receivers_rely_on() {
        let event = recorded(Codec::Json, br#"{"amount":100}"#);
        let seen = serde_json::to_value(to_cloud_event(&event).expect("converts")).expect("serializes");
        let wanted = json!({
            "specversion": "1.0",
            "source": "/account/z%C3%BCrich%2F7%20%C3%A4",
            "id": "3",
            "type": "account.deposited",
            "time": "2026-01-31T12:00:00.000001Z",
            "datacontenttype": "application/json",
            "data": { "amount": 100 },
            "version": 3,
            "schemaversion": 2,
            "shard": 212,
            "shardseq": 4_000_000_000_u64,
            "epoch": 9,
            "commandid": "00000000-0000-0000-0000-000000000007",
            "correlationid": "00000000-0000-0000-0000-000000000001",
            "causationid": "00000000-0000-0000-0000-000000000002",
            "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        });
        assert_eq!(seen, wanted);
    }

    #[test]
    fn without_metadata_the_command_stands_for_conversation_and_cause() {
        let event = RecordedEvent { headers: None, ..recorded(Codec::Json, b"{}") };
        let cloud = to_cloud_event(&event).expect("converts");
        for name in ["correlationid", "causationid", "commandid"] {
            assert_eq!(text(&cloud, name), Ok("00000000-0000-0000-0000-000000000007"), "{name}");
        }
        assert!(cloud.extension("traceparent").is_none());
    }

    #[test]
    fn a_payload_that_is_not_the_json_it_claims_is_an_error() {
        let error = to_cloud_event(&recorded(Codec::Json, b"{")).expect_err("half an object");
        assert!(matches!(error, DecodeError::Malformed { .. }), "{error}");
    }

    #[test]
    fn a_foreign_event_is_told_apart_by_its_first_wrong_attribute() {
        let foreign = |change: fn(&mut Value)| {
            let ours = to_cloud_event(&recorded(Codec::Json, b"{}")).expect("converts");
            let mut value = serde_json::to_value(ours).expect("serializes");
            change(&mut value);
            let event: Event = serde_json::from_value(value).expect("still a CloudEvent");
            from_cloud_event(&event).expect_err("it is not ours").attribute
        };
        assert_eq!(foreign(|event| event["source"] = json!("urn:else:where")), "source");
        assert_eq!(foreign(|event| event["version"] = json!(-1)), "version");
        assert_eq!(foreign(|event| event["shard"] = json!(1_u64 << 40)), "shard");
        assert_eq!(foreign(|event| event["commandid"] = json!("seven")), "commandid");
        assert_eq!(foreign(|event| event["time"] = Value::Null), "time");
    }
}
