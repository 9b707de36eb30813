//! `migrate`: creates or upgrades the schema, rehearses that, or tells where it stands.

use serde_json::json;

use super::context::Context;
use super::error::CliError;
use super::output::table;
use crate::store::MigrationStatus;

/// What to do about the schema.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  {bin} migrate status\n  {bin} migrate --dry-run\n  {bin} migrate")]
pub(super) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    /// Apply everything in a transaction and roll it back: tells whether it would work on this very data.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List the migrations that this program knows, and whether the database has them. Changes nothing.
    Status,
}

/// Does it. Two that run at the same time are safe: the second one waits, or finds the database held.
pub(super) async fn run(args: &Args, context: &mut Context) -> Result<(), CliError> {
    let options = context.database()?;
    let (done, migrations) = match (&args.action, args.dry_run) {
        (Some(Action::Status), true) => {
            return Err(CliError::Usage("`status` changes nothing, so it takes no --dry-run".to_owned()));
        }
        (Some(Action::Status), false) => ("status", options.migration_status().await?),
        (None, true) => ("dry_run", options.migrate_dry_run().await?),
        (None, false) => ("applied", options.migrate().await?),
    };
    let answer = json!({ "did": done, "migrations": migrations });
    context.out.answer(&answer, || text(done, &migrations))
}

fn text(done: &str, migrations: &[MigrationStatus]) -> String {
    match (done, migrations.is_empty()) {
        (_, true) => "the schema is up to date".to_owned(),
        ("applied", _) => format!("applied:\n{}", rows(migrations, |_| "done")),
        ("dry_run", _) => format!("would apply, and it would work:\n{}", rows(migrations, |_| "pending")),
        _ => rows(migrations, |one| if one.applied { "applied" } else { "pending" }),
    }
}

fn rows(migrations: &[MigrationStatus], state: impl Fn(&MigrationStatus) -> &'static str) -> String {
    let row = |one: &MigrationStatus| {
        [format!("{:04}", one.version), state(one).to_owned(), one.description.clone()]
    };
    table(&migrations.iter().map(row).collect::<Vec<_>>())
}
