//! `backup` and `restore`: a log as files, and back.

use std::path::PathBuf;
use std::sync::Arc;

use indicatif::ProgressBar;
use orchestrix_core::{EventStore, Seq, ShardId, Timestamp};
use serde_json::json;

use super::context::{Context, Database};
use super::error::CliError;
use super::output::human_bytes;
use super::progress::bar;
use crate::ops::backup::{Backup, Manifest, Progress, Restore, Restored, Verified, verify};
use crate::store::{Postgres, StoreOpenError};

/// What to do with a directory.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  {bin} backup /backups/monday\n  {bin} backup /backups/monday --verify")]
pub(super) struct BackupArgs {
    /// Where the backup lies. An interrupted one goes on when the command is given again.
    directory: PathBuf,
    /// Read a complete backup and look for wrong bytes, holes and doubles; the database is not needed.
    #[arg(long)]
    verify: bool,
}

/// What to restore.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  {bin} restore /backups/monday\n  {bin} restore /backups/monday --until \
                  2026-01-31T12:00:00Z\n  {bin} restore /backups/monday --position 3:1200 --position 7:41"
)]
pub(super) struct RestoreArgs {
    /// Where the backup lies.
    directory: PathBuf,
    /// Leave out, in each shard, the first event that was decided after this moment (RFC 3339) and all behind it.
    #[arg(long)]
    until: Option<Timestamp>,
    /// Leave out what comes after a seq of a shard; may be given for several shards.
    #[arg(long, value_name = "SHARD:SEQ", value_parser = position)]
    position: Vec<(ShardId, Seq)>,
}

fn position(text: &str) -> Result<(ShardId, Seq), String> {
    let parsed = text.split_once(':').and_then(|(shard, seq)| Some((shard.parse().ok()?, seq.parse().ok()?)));
    let (shard, seq) = parsed.ok_or("write it as SHARD:SEQ, such as 3:1200")?;
    Ok((ShardId::new(shard), Seq::new(seq)))
}

/// Takes a backup, or verifies one.
pub(super) async fn backup(args: BackupArgs, context: &mut Context) -> Result<(), CliError> {
    let bar = bar(&context.out, 0, "events");
    if args.verify {
        let verified = verify(&args.directory, Some(shown(&bar))).await;
        bar.finish_and_clear();
        let verified = verified?;
        return context.out.answer(&verified, || verified_text(&verified));
    }
    let (store, postgres) = look(context).await?;
    let mut backup = Backup::new(Arc::clone(&store), &args.directory).progress(shown(&bar));
    if let Some(postgres) = &postgres {
        backup = backup.cluster(postgres.cluster());
    }
    let taken = backup.take().await;
    bar.finish_and_clear();
    store.close().await;
    let manifest = taken?;
    let noted = match postgres {
        Some(_) => note(context, &manifest).await.map(|()| true),
        None => Ok(false),
    };
    let note = noted.as_ref().err().map(ToString::to_string);
    let answer = json!({ "backup": manifest, "noted": noted.is_ok_and(|noted| noted), "note": note });
    context.out.answer(&answer, || taken_text(&manifest, note.as_deref()))
}

/// Opens the log to read it. PostgreSQL tells besides which life of the database it is.
async fn look(context: &Context) -> Result<(Arc<dyn EventStore>, Option<Postgres>), CliError> {
    match context.database()? {
        Database::Sqlite(_) => Ok((context.look().await?, None)),
        Database::Postgres(url) => {
            let options = context.config.postgres(url).map_err(StoreOpenError::from)?.read_only();
            let store = options.connect().await.map_err(StoreOpenError::from)?;
            Ok((Arc::new(store.clone()), Some(store)))
        }
    }
}

/// Has the database remember the backup, so that `doctor` knows its age. The backup is good without that, too.
async fn note(context: &Context, manifest: &Manifest) -> Result<(), CliError> {
    let Database::Postgres(url) = context.database()? else { return Ok(()) };
    let options = context.config.postgres(url).map_err(StoreOpenError::from)?.auto_migrate(false);
    let store = options.connect().await.map_err(StoreOpenError::from)?;
    let taken = (manifest.started_at, manifest.ended_at);
    let noted = store.note_backup(manifest.backup, taken, manifest.events).await;
    store.close().await;
    Ok(noted?)
}

fn taken_text(manifest: &Manifest, note: Option<&str>) -> String {
    let Manifest { backup, events, parts, started_at, .. } = manifest;
    let bytes = human_bytes(parts.iter().map(|part| part.bytes).sum());
    let text = format!(
        "backup {backup}: the log of {started_at}, {events} events in {} files, {bytes}",
        parts.len()
    );
    match note {
        None => text,
        Some(reason) => format!("{text}\nthe database could not take a note of it: {reason}"),
    }
}

fn verified_text(verified: &Verified) -> String {
    let Verified { manifest: Manifest { backup, events, parts, started_at, .. }, streams } = verified;
    let files = parts.len();
    format!(
        "sound: backup {backup}, the log of {started_at}, {events} events of {streams} streams in {files} files"
    )
}

/// Restores a backup into the database that the settings name, which is made if it is missing.
pub(super) async fn restore(args: RestoreArgs, context: &mut Context) -> Result<(), CliError> {
    context.database()?;
    let mut config = context.config.clone();
    // What comes is whole, and so is what it comes into: the schema is made here, whatever the service may do.
    config.auto_migrate = true;
    if config.shard_count.is_none() {
        config.shard_count = Some(Manifest::load(&args.directory).await?.shard_count);
    }
    let store = config.open_store().await?;
    let bar = bar(&context.out, 0, "events");
    let mut restore = Restore::new(&args.directory).progress(shown(&bar));
    if let Some(moment) = args.until {
        restore = restore.until(moment);
    }
    for (shard, seq) in args.position {
        restore = restore.position(shard, seq);
    }
    let restored = restore.into(Arc::clone(&store)).await;
    bar.finish_and_clear();
    store.close().await;
    let restored = restored?;
    context.out.answer(&restored, || restored_text(&restored))
}

fn restored_text(restored: &Restored) -> String {
    let Restored { backup, events, found, left_out, .. } = restored;
    let went_on =
        if *found > 0 { format!("; {found} of them were there from before") } else { String::new() };
    format!("restored {events} events of backup {backup}{went_on}; {left_out} were left out")
}

/// Shows how far it has come.
fn shown(bar: &ProgressBar) -> Progress {
    let bar = bar.clone();
    Arc::new(move |done, all| {
        bar.set_length(all);
        bar.set_position(done);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_a_shard_and_a_seq() {
        assert_eq!(position("3:1200"), Ok((ShardId::new(3), Seq::new(1_200))));
        for wrong in ["3", "3:", ":7", "a:b", "-1:2", "1:2:3"] {
            assert!(position(wrong).expect_err("it is none").contains("SHARD:SEQ"), "{wrong}");
        }
    }
}
