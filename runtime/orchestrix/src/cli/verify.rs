//! `verify`: reads the whole log and looks for what cannot be: holes, doubles, disorder, events in the wrong place.
//!
//! The check itself is [`ShardCheck`].

use orchestrix_core::store::ReadError;
use orchestrix_core::{EventStore, ShardId};
use serde::Serialize;

use super::context::Context;
use super::error::CliError;
use super::progress::bar;
use crate::ops::shard_check::{Problem, ShardCheck};

/// Events read in one go.
const PAGE: usize = 1_000;

/// What the whole log looks like.
#[derive(Debug, Default, Serialize)]
struct Report {
    sound: bool,
    shards: u32,
    streams: u64,
    events: u64,
    problems: u64,
    first: Option<Problem>,
}

/// Reads every shard, and tells the first bad place.
pub(super) async fn run(context: &mut Context) -> Result<(), CliError> {
    let store = context.look().await?;
    let shards = store.info().shard_count;
    let bar = bar(&context.out, u64::from(shards.get()), "shards");
    let mut report = Report { shards: shards.get(), ..Report::default() };
    for shard in shards.all() {
        check_shard(store.as_ref(), shard, &mut report).await?;
        bar.set_message(format!("{} events", report.events));
        bar.inc(1);
    }
    bar.finish_and_clear();
    report.sound = report.problems == 0;
    context.out.answer(&report, || text(&report))?;
    if report.sound {
        Ok(())
    } else {
        Err(CliError::Found("the log is not sound; see the first bad place".to_owned()))
    }
}

fn text(report: &Report) -> String {
    let Report { shards, streams, events, problems, .. } = report;
    let counts = format!("{events} events of {streams} streams in {shards} shards");
    match &report.first {
        None => format!("sound: {counts}"),
        Some(first) => {
            let stream = first.stream.as_deref().unwrap_or("-");
            let version = first.version.map_or_else(|| "-".to_owned(), |version| version.to_string());
            format!(
                "NOT SOUND: {problems} problems in {counts}\nfirst: shard {} seq {}, {stream} version {version}: {}",
                first.shard, first.seq, first.what
            )
        }
    }
}

async fn check_shard(store: &dyn EventStore, shard: ShardId, report: &mut Report) -> Result<(), CliError> {
    let mut check = ShardCheck::new(shard, store.info().shard_count);
    loop {
        let page = match store.read_shard(shard, check.seq, PAGE).await {
            Ok(page) => page,
            // A store that notices the damage itself has found the bad place; what is behind it cannot be read.
            Err(ReadError::Corrupt { reason }) => {
                check.note(None, reason);
                break;
            }
            Err(error) => return Err(error.into()),
        };
        for event in &page {
            check.see(event);
        }
        if page.len() < PAGE {
            break;
        }
    }
    report.events += check.events;
    report.streams += check.streams.len() as u64;
    report.problems += check.problems;
    if report.first.is_none() {
        report.first = check.first;
    }
    Ok(())
}
