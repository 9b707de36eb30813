//! `rebuild-snapshots`: writes every snapshot anew from the events, or compares the stored ones with a replay.

use std::sync::Arc;

use indicatif::ProgressBar;
use orchestrix_core::store::{SnapshotOutcome, SnapshotWrite};
use orchestrix_core::{Clock, Epoch, EventStore, Incarnation, ShardId, StreamId, SystemClock, Version};
use serde::Serialize;

use super::context::Context;
use super::error::CliError;
use super::progress::bar;
use super::types::{Compared, Kind, Types, of_one};
use crate::aggregate::Window;

/// Streams listed in one go.
const PAGE: usize = 1_000;

/// Which snapshots, and what to do.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  {bin} rebuild-snapshots --verify\n  {bin} rebuild-snapshots --type account\n  {bin} rebuild-snapshots --type account --id a-1"
)]
pub(super) struct Args {
    /// Only this type of aggregate.
    #[arg(long = "type")]
    aggregate_type: Option<String>,
    /// Only this aggregate.
    #[arg(long, requires = "aggregate_type")]
    id: Option<String>,
    /// Write nothing: compare the stored snapshots with a replay. Works beside a running service.
    #[arg(long)]
    verify: bool,
}

/// What was done.
#[derive(Debug, Default, Serialize)]
struct Report {
    /// Aggregates that were looked at.
    aggregates: u64,
    /// Snapshots written.
    written: u64,
    /// Snapshots that tell what the events tell.
    same: u64,
    /// Aggregates without a snapshot, which is nothing wrong.
    without: u64,
    /// Aggregates about which something is wrong.
    wrong: Vec<Wrong>,
}

#[derive(Debug, Serialize)]
struct Wrong {
    aggregate: String,
    problem: String,
}

/// Goes through the aggregates; one that is wrong does not keep it from the others.
pub(super) async fn run(args: Args, types: &Types, context: &mut Context) -> Result<(), CliError> {
    let kinds = match &args.aggregate_type {
        Some(name) => vec![types.find(name)?],
        None => types.all().collect(),
    };
    if kinds.is_empty() {
        return Err(CliError::Usage("the program registers no type of aggregate".to_owned()));
    }
    let store = if args.verify { context.look().await? } else { context.change().await? };
    let settings = &context.config.settings;
    let window = Window { commands_max: settings.dedup_commands_max, age_max: settings.dedup_age_max };
    let streams = if args.id.is_some() { 1 } else { store.stats().await?.streams };
    let claims = if args.verify { Claims::default() } else { Claims::take(store.as_ref()).await? };
    let bar = bar(&context.out, streams, "aggregates");
    let mut work = Work {
        store: Arc::clone(&store),
        window,
        claims,
        verify: args.verify,
        bar,
        report: Report::default(),
    };
    let done = work.each(&kinds, args.id.as_deref()).await;
    work.bar.finish_and_clear();
    store.close().await;
    done?;
    finish(&work.report, args.verify, context)
}

fn finish(report: &Report, verify: bool, context: &mut Context) -> Result<(), CliError> {
    context.out.answer(report, || text(report, verify))?;
    match report.wrong.len() {
        0 => Ok(()),
        wrong => Err(CliError::Found(format!("{wrong} aggregates are not right; they are listed above"))),
    }
}

fn text(report: &Report, verify: bool) -> String {
    let Report { aggregates, written, same, without, wrong } = report;
    let head = if verify {
        format!("{aggregates} aggregates: {same} snapshots are right, {without} have none")
    } else {
        format!("{aggregates} aggregates: {written} snapshots written")
    };
    let wrong = wrong.iter().map(|wrong| format!("{}: {}", wrong.aggregate, wrong.problem));
    std::iter::once(head).chain(wrong).collect::<Vec<_>>().join("\n")
}

/// Ownership of all shards, which a snapshot is written under.
#[derive(Default)]
struct Claims {
    owner: Option<Incarnation>,
    epochs: Vec<Epoch>,
}

impl Claims {
    async fn take(store: &dyn EventStore) -> Result<Self, CliError> {
        let owner = Incarnation::fresh();
        let shards: Vec<ShardId> = store.info().shard_count.all().collect();
        let claims = store.claim(&shards, owner).await?;
        Ok(Self { owner: Some(owner), epochs: claims.iter().map(|claim| claim.epoch).collect() })
    }
}

struct Work {
    store: Arc<dyn EventStore>,
    window: Window,
    claims: Claims,
    verify: bool,
    bar: ProgressBar,
    report: Report,
}

impl Work {
    async fn each(&mut self, kinds: &[&dyn Kind], id: Option<&str>) -> Result<(), CliError> {
        for kind in kinds {
            match id {
                Some(id) => self.one(*kind, StreamId::new(kind.name(), id)).await?,
                None => self.all_of(*kind).await?,
            }
        }
        Ok(())
    }

    async fn all_of(&mut self, kind: &dyn Kind) -> Result<(), CliError> {
        let mut after: Option<Arc<str>> = None;
        loop {
            let page = self.store.list_streams(kind.name(), after.as_deref(), PAGE).await?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            after = Some(Arc::clone(&last.id));
            for (stream, _) in page {
                self.one(kind, stream).await?;
            }
        }
    }

    async fn one(&mut self, kind: &dyn Kind, stream: StreamId) -> Result<(), CliError> {
        self.report.aggregates += 1;
        let done =
            if self.verify { self.compare(kind, &stream).await } else { self.rebuild(kind, &stream).await };
        if let Err(problem) = of_one(done)? {
            self.report.wrong.push(Wrong { aggregate: stream.to_string(), problem });
        }
        self.bar.inc(1);
        Ok(())
    }

    async fn compare(&mut self, kind: &dyn Kind, stream: &StreamId) -> Result<(), CliError> {
        match kind.compare(self.store.as_ref(), stream, self.window).await? {
            Compared::None => self.report.without += 1,
            Compared::Same => self.report.same += 1,
            Compared::Different(reason) => {
                return Err(CliError::Found(format!("the snapshot is not right: {reason}")));
            }
        }
        Ok(())
    }

    /// The old snapshot goes first: a wrong one of a higher version would keep its place otherwise.
    async fn rebuild(&mut self, kind: &dyn Kind, stream: &StreamId) -> Result<(), CliError> {
        let built = kind.snapshot(self.store.as_ref(), stream, self.window, SystemClock.now()).await?;
        let Some(record) = built else {
            return Err(CliError::Found("it has no events; check the id".to_owned()));
        };
        let shard = self.store.info().shard_count.shard_of_stream(stream);
        let (owner, epoch) = (self.claims.owner, self.claims.epochs[shard.get() as usize]);
        let owner = owner.expect("the shards were claimed before anything is written");
        let version = record.version;
        self.store.delete_snapshot(stream).await?;
        let write = SnapshotWrite { stream: stream.clone(), shard, epoch, record };
        let outcome = self.store.save_snapshots(owner, vec![write]).await?;
        self.written(&outcome, version)
    }

    fn written(&mut self, outcome: &[SnapshotOutcome], version: Version) -> Result<(), CliError> {
        match outcome.first() {
            Some(SnapshotOutcome::Saved) => {
                self.report.written += 1;
                Ok(())
            }
            other => {
                Err(CliError::Found(format!("the snapshot of version {version} was not taken: {other:?}")))
            }
        }
    }
}
