//! `archive`: moves old events aside and back, while the service runs.

use std::sync::Arc;
use std::time::Duration;

use orchestrix_core::{Clock, EventStore, SystemClock};
use serde_json::json;

use super::context::{Context, Database};
use super::error::CliError;
use super::progress::bar;
use crate::ops::archive::{Archive, Archived};
use crate::store::{Postgres, StoreOpenError};

/// What to do with the archive.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  {bin} archive --older-than 365d\n  {bin} archive --verify\n  {bin} archive --restore"
)]
#[group(required = true, multiple = false)]
pub(super) struct Args {
    /// Move events that were decided so long ago: a number with s, m, h or d.
    #[arg(long, value_name = "AGE", value_parser = age)]
    older_than: Option<Duration>,
    /// Compare what is in the archive with what was put there.
    #[arg(long)]
    verify: bool,
    /// Move everything back.
    #[arg(long)]
    restore: bool,
}

/// Reads a time: a number with s, m, h or d.
pub(super) fn age(text: &str) -> Result<Duration, String> {
    let wrong = || "write a number with s, m, h or d, such as 365d".to_owned();
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)
}

/// Does it.
pub(super) async fn run(args: &Args, context: &mut Context) -> Result<(), CliError> {
    let store = open(context, args.verify).await?;
    let bar = bar(&context.out, 0, "events");
    let shown = bar.clone();
    let archive = Archive::new(store.clone()).progress(Arc::new(move |done, all| {
        shown.set_length(all.max(done));
        shown.set_position(done);
    }));
    let done = match args.older_than {
        Some(age) => move_away(archive, age, context).await,
        None if args.verify => check(archive, context).await,
        None => bring_back(archive, context).await,
    };
    bar.finish_and_clear();
    store.close().await;
    done
}

async fn open(context: &Context, read_only: bool) -> Result<Postgres, CliError> {
    let Database::Postgres(url) = context.database()? else {
        return Err(CliError::Usage(
            "the archive is a table of PostgreSQL; a SQLite database has none: copy the file, or take a `backup`"
                .to_owned(),
        ));
    };
    let options = context.config.postgres(url).map_err(StoreOpenError::from)?.auto_migrate(false);
    let options = if read_only { options.read_only() } else { options };
    Ok(options.connect().await.map_err(StoreOpenError::from)?)
}

async fn move_away(archive: Archive, age: Duration, context: &mut Context) -> Result<(), CliError> {
    let moment = SystemClock.now().minus(age);
    let archived = archive.older_than(moment).await?;
    let answer = json!({ "older_than": moment, "archived": archived });
    context.out.answer(&answer, || {
        let Archived { events, slices, streams, damaged_snapshots } = &archived;
        let moved =
            format!("moved {events} events in {slices} slices; looked at the snapshots of {streams} streams");
        if *damaged_snapshots == 0 {
            return moved;
        }
        format!(
            "{moved}\n{damaged_snapshots} of them are damaged, and their events stay: run `rebuild-snapshots`"
        )
    })
}

async fn check(archive: Archive, context: &mut Context) -> Result<(), CliError> {
    let state = archive.verify().await?;
    let counts = format!("{} events in {} slices", state.events, state.slices);
    context.out.answer(&state, || {
        if state.problems.is_empty() {
            format!("sound: {counts}")
        } else {
            format!("NOT SOUND: {counts}\n{}", state.problems.join("\n"))
        }
    })?;
    match state.problems.len() {
        0 => Ok(()),
        wrong => Err(CliError::Found(format!("the archive is not sound: {wrong} problems are listed above"))),
    }
}

async fn bring_back(archive: Archive, context: &mut Context) -> Result<(), CliError> {
    let back = archive.restore().await?;
    context.out.answer(&back, || format!("moved {} events back, out of {} slices", back.events, back.slices))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_a_number_with_a_unit() {
        assert_eq!(age("365d"), Ok(Duration::from_hours(365 * 24)));
        assert_eq!(age("90s"), Ok(Duration::from_secs(90)));
        for wrong in ["", "d", "365", "1w", "1.5d", "-1d", "99999999999999999999d", "7ä"] {
            assert!(age(wrong).expect_err("it is none").contains("365d"), "{wrong}");
        }
    }
}
