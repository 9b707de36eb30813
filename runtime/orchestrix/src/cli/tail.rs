//! `tail`: the newest events of the whole log, and those that follow.
//!
//! The log has an order in each shard and none across shards, so events are shown by the time of their decision.
//! The head of a shard is found by halving: seqs are dense, so there is an event after a seq exactly when the head is
//! further on.

use std::time::Duration;

use orchestrix_core::store::{ReadError, RecordedEvent};
use orchestrix_core::{EventStore, Seq, ShardId};

use super::context::Context;
use super::error::CliError;
use super::inspect::{event_json, event_text};

/// How often the store is asked for more.
const POLL: Duration = Duration::from_millis(500);

/// Events read from a shard in one go.
const PAGE: usize = 1_000;

/// What to show.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  {bin} tail\n  {bin} tail --lines 100 --type account\n  {bin} tail --follow --json"
)]
pub(super) struct Args {
    /// Go on with events as they are stored, until it is interrupted.
    #[arg(long, short)]
    follow: bool,
    /// How many of the newest events to start with.
    #[arg(long, short = 'n', default_value_t = 20)]
    lines: usize,
    /// Only events of this type of aggregate.
    #[arg(long = "type")]
    aggregate_type: Option<String>,
}

/// Prints the newest events, and goes on if asked to.
pub(super) async fn run(args: &Args, context: &mut Context) -> Result<(), CliError> {
    let store = context.look().await?;
    let (mut heads, newest) = newest(store.as_ref(), args.lines, args.aggregate_type.as_deref()).await?;
    print(&newest, context)?;
    if !args.follow {
        return Ok(());
    }
    loop {
        let (more, is_behind) = advance(store.as_ref(), &mut heads, args.aggregate_type.as_deref()).await?;
        print(&more, context)?;
        if !is_behind {
            tokio::time::sleep(POLL).await;
        }
    }
}

fn print(events: &[RecordedEvent], context: &mut Context) -> Result<(), CliError> {
    for event in events {
        context
            .out
            .item(&event_json(event), || format!("{}  {}", event.stream, event_text(event).trim_start()))?;
    }
    Ok(())
}

/// Where reading goes on in each shard.
type Heads = Vec<(ShardId, Seq)>;

/// Returns the heads of all shards and the newest events before them.
async fn newest(
    store: &dyn EventStore,
    lines: usize,
    wanted: Option<&str>,
) -> Result<(Heads, Vec<RecordedEvent>), ReadError> {
    let mut heads = Vec::new();
    let mut events = Vec::new();
    for shard in store.info().shard_count.all() {
        let head = head(store, shard).await?;
        heads.push((shard, head));
        events.append(&mut last(store, shard, head, lines, wanted).await?);
    }
    in_time(&mut events);
    let first = events.len().saturating_sub(lines);
    Ok((heads, events.split_off(first)))
}

/// Returns the last events of a shard that are wanted: pages from the end, until there are enough.
async fn last(
    store: &dyn EventStore,
    shard: ShardId,
    head: Seq,
    lines: usize,
    wanted: Option<&str>,
) -> Result<Vec<RecordedEvent>, ReadError> {
    let mut found: Vec<RecordedEvent> = Vec::new();
    let mut end = head.get();
    // Where some events are passed over, a page of just the lines wanted would be too small a step.
    let step = if wanted.is_some() { PAGE } else { lines.min(PAGE) } as u64;
    while found.len() < lines && end > 0 {
        let start = end.saturating_sub(step);
        let mut page = store.read_shard(shard, Seq::new(start), (end - start) as usize).await?;
        page.retain(|event| is_wanted(event, wanted));
        page.append(&mut found);
        found = page;
        end = start;
    }
    let first = found.len().saturating_sub(lines);
    Ok(found.split_off(first))
}

/// Reads what was stored since, and moves the heads on; tells whether there may be more.
async fn advance(
    store: &dyn EventStore,
    heads: &mut Heads,
    wanted: Option<&str>,
) -> Result<(Vec<RecordedEvent>, bool), ReadError> {
    let mut events = Vec::new();
    let mut is_behind = false;
    for (shard, head) in heads.iter_mut() {
        let mut page = store.read_shard(*shard, *head, PAGE).await?;
        *head = page.last().map_or(*head, |event| event.seq);
        is_behind |= page.len() == PAGE;
        page.retain(|event| is_wanted(event, wanted));
        events.append(&mut page);
    }
    in_time(&mut events);
    Ok((events, is_behind))
}

/// Finds the last seq of a shard in about 2 log2(n) reads of one event.
pub(super) async fn head(store: &dyn EventStore, shard: ShardId) -> Result<Seq, ReadError> {
    let mut known = 0;
    let mut step = 1;
    while exists_after(store, shard, known + step - 1).await? {
        known += step;
        step *= 2;
    }
    while step > 1 {
        step /= 2;
        if exists_after(store, shard, known + step - 1).await? {
            known += step;
        }
    }
    Ok(Seq::new(known))
}

async fn exists_after(store: &dyn EventStore, shard: ShardId, seq: u64) -> Result<bool, ReadError> {
    Ok(!store.read_shard(shard, Seq::new(seq), 1).await?.is_empty())
}

fn is_wanted(event: &RecordedEvent, wanted: Option<&str>) -> bool {
    wanted.is_none_or(|wanted| event.stream.aggregate_type == wanted)
}

/// Sorts by time; what has the same time stays in the order of its shard.
fn in_time(events: &mut [RecordedEvent]) {
    events.sort_by_key(|event| event.recorded_at);
}
