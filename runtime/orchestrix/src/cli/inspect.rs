//! `inspect`: one aggregate's events as they are stored, without knowing its type. Also how `tail` shows an event.

use orchestrix_core::codec::Codec;
use orchestrix_core::store::{Loaded, RecordedEvent, StreamRange};
use orchestrix_core::{ShardCount, StreamId, Version};
use serde_json::{Value, json};

use super::context::Context;
use super::error::CliError;

/// Which events.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  {bin} inspect account a-1\n  {bin} inspect account a-1 --from 100 --limit 20 --json"
)]
pub(super) struct Args {
    /// The name of the type of aggregate, such as `account`.
    aggregate_type: String,
    /// The id of the aggregate.
    id: String,
    /// The first version to show.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// The most events to show.
    #[arg(long, default_value_t = 100)]
    limit: usize,
}

/// Reads and prints. An aggregate without events is something wrong: usually a typing error.
pub(super) async fn run(args: Args, context: &mut Context) -> Result<(), CliError> {
    let store = context.look().await?;
    let stream = StreamId::new(args.aggregate_type, args.id);
    let about = store.load(&stream, 0).await?;
    if about.version == Version::ZERO {
        return Err(CliError::Found(format!("{stream} has no events; check the type and the id")));
    }
    let range = StreamRange::from(Version::new(args.from.max(1)), args.limit);
    let events = store.read_stream(&stream, range).await?;
    let shards = store.info().shard_count;
    context.out.answer(&document(&stream, shards, &about, &events), || text(&stream, &about, &events))
}

fn document(stream: &StreamId, shards: ShardCount, about: &Loaded, events: &[RecordedEvent]) -> Value {
    let snapshot = about.snapshot.as_ref().map(|snapshot| {
        json!({ "version": snapshot.version, "taken_at": snapshot.taken_at, "bytes": snapshot.bytes.len() })
    });
    json!({
        "aggregate_type": stream.aggregate_type,
        "id": stream.id,
        "shard": shards.shard_of_stream(stream),
        "version": about.version,
        "snapshot": snapshot,
        "quarantine": about.quarantine,
        "events": events.iter().map(event_json).collect::<Vec<_>>(),
    })
}

fn text(stream: &StreamId, about: &Loaded, events: &[RecordedEvent]) -> String {
    let mut lines = vec![format!("{stream} is at version {}", about.version)];
    if let Some(snapshot) = &about.snapshot {
        let (bytes, version, at) = (snapshot.bytes.len(), snapshot.version, snapshot.taken_at);
        lines.push(format!("snapshot of version {version}, {bytes} bytes, taken {at}"));
    }
    if let Some(quarantine) = &about.quarantine {
        lines.push(format!("in quarantine since {}: {}", quarantine.since, quarantine.reason));
    }
    lines.extend(events.iter().map(event_text));
    lines.join("\n")
}

/// Returns an event as JSON, with its payload as far as it is readable.
pub(super) fn event_json(event: &RecordedEvent) -> Value {
    json!({
        "aggregate_type": event.stream.aggregate_type,
        "id": event.stream.id,
        "version": event.version,
        "shard": event.shard,
        "seq": event.seq,
        "epoch": event.epoch,
        "event_type": event.event_type,
        "schema_version": event.schema_version,
        "recorded_at": event.recorded_at,
        "command_id": event.command_id,
        "metadata": event.headers.as_deref().map(readable),
        "codec": event.codec,
        "payload": payload(event),
    })
}

/// Returns an event as a line for people.
pub(super) fn event_text(event: &RecordedEvent) -> String {
    let RecordedEvent { version, recorded_at, event_type, schema_version, command_id, .. } = event;
    let place = format!("shard {} seq {}", event.shard, event.seq);
    format!(
        "{version:>6}  {recorded_at}  {event_type} v{schema_version}  {}  [{place}, command {command_id}]",
        payload(event)
    )
}

fn payload(event: &RecordedEvent) -> Value {
    match event.codec {
        Codec::Json => readable(&event.payload),
        Codec::Bincode => hex(&event.payload),
    }
}

/// JSON as it stands; damaged bytes are shown rather than hidden, since this is where people look for the damage.
fn readable(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|_| hex(bytes))
}

fn hex(bytes: &[u8]) -> Value {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    let digits = digits.map(|digit| char::from_digit(digit.into(), 16).expect("four bits are one digit"));
    json!({ "hex": digits.collect::<String>() })
}
