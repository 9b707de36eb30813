//! `stats`: what is stored, by count.

use serde_json::json;

use super::context::Context;
use super::error::CliError;
use super::output::{human_bytes, table};

/// Counts and prints.
pub(super) async fn run(context: &mut Context) -> Result<(), CliError> {
    let store = context.look().await?;
    let (info, stats) = (store.info(), store.stats().await?);
    let answer = json!({
        "store": info.name,
        "shards": info.shard_count,
        "events": stats.events,
        "streams": stats.streams,
        "snapshots": stats.snapshots,
        "quarantined": stats.quarantined,
        "bytes": stats.bytes,
    });
    context.out.answer(&answer, || {
        let bytes = stats.bytes.map_or_else(|| "unknown".to_owned(), human_bytes);
        table(&[
            ["store".to_owned(), info.name.to_owned()],
            ["shards".to_owned(), info.shard_count.get().to_string()],
            ["events".to_owned(), stats.events.to_string()],
            ["streams".to_owned(), stats.streams.to_string()],
            ["snapshots".to_owned(), stats.snapshots.to_string()],
            ["quarantined".to_owned(), stats.quarantined.to_string()],
            ["size".to_owned(), bytes],
        ])
    })
}
