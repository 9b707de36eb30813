//! One event as a line: a CloudEvent with everything that it takes to store it again as it was.
//!
//! It is the event of [`cloudevent`] with three attributes more: `codec`, `headers` and `receipt`, the latter two
//! in base64. The payload stands in `data` byte for byte, if it is JSON on one line; everything else, and what only
//! claims to be JSON, stands in `data_base64`.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use orchestrix_core::store::RecordedEvent;
use orchestrix_core::{Codec, CommandId, Epoch, Metadata, Seq, ShardId, Timestamp, Version};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::bus::cloudevent;

/// The attributes in the order in which they are written.
#[derive(Serialize, Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    specversion: Cow<'a, str>,
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    source: Cow<'a, str>,
    #[serde(rename = "type", borrow)]
    event_type: Cow<'a, str>,
    /// Left out where no calendar has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<Timestamp>,
    #[serde(borrow)]
    datacontenttype: Cow<'a, str>,
    version: Version,
    schemaversion: u16,
    shard: ShardId,
    shardseq: Seq,
    epoch: Epoch,
    commandid: CommandId,
    correlationid: Uuid,
    causationid: Uuid,
    #[serde(skip_serializing_if = "Option::is_none", borrow)]
    traceparent: Option<Cow<'a, str>>,
    /// Microseconds since 1970, where `time` is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    recordedus: Option<i64>,
    codec: Codec,
    #[serde(skip_serializing_if = "Option::is_none", borrow)]
    headers: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none", borrow)]
    receipt: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none", borrow)]
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none", borrow)]
    data_base64: Option<Cow<'a, str>>,
}

/// Writes an event at the end of a text, with the end of its line.
pub(super) fn write(text: &mut Vec<u8>, event: &RecordedEvent) {
    // Metadata that cannot be read is kept in `headers` all the same.
    let Metadata { correlation_id, causation_id, traceparent, .. } = event.metadata().unwrap_or_default();
    let command = *event.command_id.as_uuid();
    let in_calendar = event.recorded_at.to_string().parse() == Ok(event.recorded_at);
    let raw = raw_json(event);
    let line = Line {
        specversion: "1.0".into(),
        id: event.version.to_string().into(),
        source: cloudevent::source(&event.stream).into(),
        event_type: (&*event.event_type).into(),
        time: in_calendar.then_some(event.recorded_at),
        datacontenttype: if event.codec == Codec::Json {
            "application/json"
        } else {
            "application/octet-stream"
        }
        .into(),
        version: event.version,
        schemaversion: event.schema_version,
        shard: event.shard,
        shardseq: event.seq,
        epoch: event.epoch,
        commandid: event.command_id,
        correlationid: correlation_id.unwrap_or(command),
        causationid: causation_id.unwrap_or(command),
        traceparent: traceparent.map(|trace| trace.into_string().into()),
        recordedus: (!in_calendar).then_some(event.recorded_at.as_micros()),
        codec: event.codec,
        headers: event.headers.as_deref().map(|bytes| STANDARD.encode(bytes).into()),
        receipt: event.receipt.as_deref().map(|bytes| STANDARD.encode(bytes).into()),
        data_base64: raw.is_none().then(|| STANDARD.encode(&event.payload).into()),
        data: raw,
    };
    serde_json::to_writer(&mut *text, &line).expect("texts and numbers always have a JSON form");
    text.push(b'\n');
}

/// Returns the payload as JSON, if it comes back byte for byte when it stands in a line.
fn raw_json(event: &RecordedEvent) -> Option<&RawValue> {
    // A `null` would come back as nothing at all.
    if event.codec != Codec::Json || event.payload == b"null" || event.payload.contains(&b'\n') {
        return None;
    }
    let raw: &RawValue = serde_json::from_slice(&event.payload).ok()?;
    // Space around a value is not part of it.
    (raw.get().len() == event.payload.len()).then_some(raw)
}

/// Reads what [`write`] wrote, without the end of the line.
pub(super) fn read(text: &[u8]) -> Result<RecordedEvent, String> {
    let line: Line<'_> = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let stream = cloudevent::stream(&line.source).map_err(|error| error.to_string())?;
    let bytes = |text: &str| STANDARD.decode(text).map_err(|error| format!("base64: {error}"));
    let payload = match (line.data, line.data_base64) {
        (Some(raw), None) => raw.get().as_bytes().to_vec(),
        (None, Some(text)) => bytes(&text)?,
        _ => return Err("it needs either data or data_base64".to_owned()),
    };
    let recorded_at = match (line.time, line.recordedus) {
        (Some(time), None) => time,
        (None, Some(micros)) => Timestamp::from_micros(micros),
        _ => return Err("it needs either time or recordedus".to_owned()),
    };
    Ok(RecordedEvent {
        stream,
        version: line.version,
        shard: line.shard,
        seq: line.shardseq,
        epoch: line.epoch,
        event_type: line.event_type.into_owned().into(),
        schema_version: line.schemaversion,
        codec: line.codec,
        command_id: line.commandid,
        recorded_at,
        headers: line.headers.map(|text| bytes(&text)).transpose()?.map(Into::into),
        receipt: line.receipt.map(|text| bytes(&text)).transpose()?,
        payload,
    })
}

#[cfg(test)]
mod tests {
    use orchestrix_core::StreamId;
    use proptest::prelude::*;

    use super::*;

    fn event(codec: Codec, payload: Vec<u8>) -> RecordedEvent {
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
            headers: None,
            receipt: None,
            payload,
        }
    }

    fn there_and_back(event: &RecordedEvent) -> RecordedEvent {
        let mut text = Vec::new();
        write(&mut text, event);
        let line = text.strip_suffix(b"\n").expect("a line has an end");
        assert!(!line.contains(&b'\n'), "it is one line");
        read(line).expect("it is one of ours")
    }

    proptest! {
        #[test]
        fn every_event_comes_back_byte_for_byte(
            codec in prop_oneof![Just(Codec::Json), Just(Codec::Bincode)],
            payload in any::<Vec<u8>>(),
            headers in any::<Option<Vec<u8>>>(),
            receipt in any::<Option<Vec<u8>>>(),
            id in "\\PC{1,20}",
            micros in any::<i64>(),
        ) {
            let event = RecordedEvent {
                stream: StreamId::new("account", &*id),
                headers: headers.map(Into::into),
                receipt,
                recorded_at: Timestamp::from_micros(micros),
                ..event(codec, payload)
            };
            prop_assert_eq!(there_and_back(&event), event);
        }
    }

    #[test]
    fn json_comes_back_as_it_was_written() {
        for text in [
            r#"{"b":1,"a":2.50,"c":1e3,"b":1}"#,
            r#"{ "a" : 1 }"#,
            "123456789012345678901234567890",
            "null",
            " 1",
            "1\n",
            "[1,\n2]",
            r#""\u0041""#,
            "",
            "{",
        ] {
            let event = event(Codec::Json, text.as_bytes().to_vec());
            assert_eq!(there_and_back(&event), event, "{text:?}");
        }
    }

    #[test]
    fn a_line_is_a_cloud_event_that_any_receiver_reads() {
        let mut text = Vec::new();
        let event = event(Codec::Json, br#"{"amount":1}"#.to_vec());
        write(&mut text, &event);
        let cloud: cloudevents::Event = serde_json::from_slice(&text).expect("a CloudEvent");
        let back = cloudevent::from_cloud_event(&cloud).expect("is ours");
        assert_eq!(RecordedEvent { headers: None, ..back }, event);
    }

    #[test]
    fn what_is_no_line_is_told() {
        assert!(read(b"{}").expect_err("nothing is there").contains("specversion"));
        let mut text = Vec::new();
        write(&mut text, &event(Codec::Json, b"{}".to_vec()));
        let both =
            String::from_utf8(text).expect("text").replace("\"data\":{}", "\"data\":{},\"data_base64\":\"\"");
        assert!(read(both.trim_end().as_bytes()).expect_err("both").contains("either data or data_base64"));
    }
}
