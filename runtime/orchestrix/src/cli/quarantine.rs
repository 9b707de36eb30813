//! `quarantine`: which aggregates take no commands, why, and the way back.

use orchestrix_core::StreamId;
use orchestrix_core::store::QuarantineRecord;
use serde_json::json;

use super::context::Context;
use super::error::CliError;
use super::output::table;

/// What to do.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  {bin} quarantine list\n  {bin} quarantine release account a-1")]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List the aggregates in quarantine, the longest-standing first.
    List {
        /// The most to list.
        #[arg(long, default_value_t = 1_000)]
        limit: usize,
    },
    /// Let an aggregate take commands again, once its cause is mended. The service must be stopped meanwhile.
    Release {
        /// The name of the type of aggregate, such as `account`.
        aggregate_type: String,
        /// The id of the aggregate.
        id: String,
    },
}

/// Lists or releases.
pub(super) async fn run(args: Args, context: &mut Context) -> Result<(), CliError> {
    match args.action {
        Action::List { limit } => list(limit, context).await,
        Action::Release { aggregate_type, id } => release(StreamId::new(aggregate_type, id), context).await,
    }
}

async fn list(limit: usize, context: &mut Context) -> Result<(), CliError> {
    let records = context.look().await?.quarantined(limit).await?;
    context.out.answer(&records, || text(&records))
}

fn text(records: &[QuarantineRecord]) -> String {
    if records.is_empty() {
        return "nothing is in quarantine".to_owned();
    }
    let row = |record: &QuarantineRecord| {
        let command = record.command_id.map_or_else(|| "-".to_owned(), |id| id.to_string());
        [record.since.to_string(), record.stream.to_string(), command, record.reason.clone()]
    };
    let head = ["since", "aggregate", "command", "reason"].map(str::to_owned);
    table(&std::iter::once(head).chain(records.iter().map(row)).collect::<Vec<_>>())
}

async fn release(stream: StreamId, context: &mut Context) -> Result<(), CliError> {
    let store = context.change().await?;
    let released = store.release(&stream).await;
    store.close().await;
    if !released? {
        return Err(CliError::Found(format!(
            "{stream} is not in quarantine; `quarantine list` shows what is"
        )));
    }
    let answer = json!({ "released": stream.to_string() });
    context.out.answer(&answer, || format!("{stream} takes commands again"))
}
