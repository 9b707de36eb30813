//! `show`: the state of one aggregate, now or in the past.

use orchestrix_core::{StreamId, Timestamp, Version};
use serde_json::json;

use super::context::Context;
use super::error::CliError;
use super::replay::Until;
use super::types::Types;

/// Which aggregate, and when.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  {bin} show account a-1\n  {bin} show account a-1 --at-version 3\n  {bin} show account a-1 --at-time 2026-01-31T12:00:00Z"
)]
pub(super) struct Args {
    /// The name of the type of aggregate, such as `account`.
    aggregate_type: String,
    /// The id of the aggregate.
    id: String,
    /// The state as it was after this version.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    at_version: Option<u64>,
    /// The state as it was at this time (RFC 3339).
    #[arg(long, conflicts_with = "at_version")]
    at_time: Option<Timestamp>,
}

/// Rebuilds the state from its events and prints it. One without events does not exist: something is wrong.
pub(super) async fn run(args: Args, types: &Types, context: &mut Context) -> Result<(), CliError> {
    let kind = types.find(&args.aggregate_type)?;
    kind.check_id(&args.id).map_err(CliError::Usage)?;
    let stream = StreamId::new(kind.name(), args.id);
    let until = match (args.at_version, args.at_time) {
        (Some(version), _) => Until::Version(Version::new(version)),
        (None, Some(time)) => Until::Time(time),
        (None, None) => Until::Now,
    };
    let store = context.look().await?;
    let shown = kind.show(store.as_ref(), &stream, until).await?;
    if shown.version == Version::ZERO {
        let when = args.at_time.map_or_else(String::new, |time| format!(" at {time}"));
        return Err(CliError::Found(format!("{stream} has no events{when}; check the id")));
    }
    let answer = json!({
        "aggregate_type": stream.aggregate_type,
        "id": stream.id,
        "version": shown.version,
        "state": shown.state,
    });
    context.out.answer(&answer, || format!("{stream} at version {}\n{:#}", shown.version, shown.state))
}
