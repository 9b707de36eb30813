//! What may be typed: the commands and their options.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use super::{archive, backup, completions, doctor, drain, inspect, migrate, quarantine, rebuild, show, tail};

/// The runtime's own tools: look into a store, check it, keep it in order.
///
/// Settings come from the environment and from `.env`; `config` shows them. Exit codes: 0 done, 1 found something
/// wrong, 2 wrong use or configuration, 3 the store could not be reached.
#[derive(Debug, Parser)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(super) struct ToolArgs {
    #[command(subcommand)]
    pub(super) command: Tool,
    /// Print JSON instead of text for people.
    #[arg(long, global = true)]
    pub(super) json: bool,
}

/// Runs the service, or one of the tools that look into its store.
///
/// Without a command it serves. Settings come from the environment and from `.env`; `config` shows them. Exit codes:
/// 0 done, 1 found something wrong, 2 wrong use or configuration, 3 the store could not be reached.
#[derive(Debug, Parser)]
pub(super) struct AppArgs {
    #[command(subcommand)]
    pub(super) command: Option<AppCommand>,
    /// Print JSON instead of text for people.
    #[arg(long, global = true)]
    pub(super) json: bool,
}

/// The commands of an application.
#[derive(Debug, Subcommand)]
pub(super) enum AppCommand {
    /// Run the service; this is what happens without a command, too.
    Serve,
    /// Show the state of one aggregate, now or in the past.
    Show(show::Args),
    /// Write every snapshot anew from the events, or compare the stored ones with a replay.
    RebuildSnapshots(rebuild::Args),
    #[command(flatten)]
    Tool(Tool),
}

/// The commands that need no domain.
#[derive(Debug, Subcommand)]
pub(super) enum Tool {
    /// Create or upgrade the schema of the database.
    Migrate(migrate::Args),
    /// Show the settings that take effect, and where each comes from.
    #[command(after_help = "Examples:\n  {bin} config\n  LOG_LEVEL=debug {bin} config --json")]
    Config,
    /// Count what is stored.
    #[command(after_help = "Examples:\n  {bin} stats\n  {bin} stats --json")]
    Stats,
    /// Show the events of one aggregate as they are stored.
    Inspect(inspect::Args),
    /// Show the newest events of the whole log.
    Tail(tail::Args),
    /// Look for holes, doubles and disorder in the whole log. Exit code 1 and the first bad place when there is one.
    #[command(after_help = "Examples:\n  {bin} verify && echo sound\n  {bin} verify --json")]
    Verify,
    /// List or release aggregates that take no commands.
    Quarantine(quarantine::Args),
    /// Move old events of a PostgreSQL database into its archive, while the service runs; or back.
    Archive(archive::Args),
    /// Write the log into files, while the service runs.
    Backup(backup::BackupArgs),
    /// Bring a backup into an empty database.
    Restore(backup::RestoreArgs),
    /// Show the nodes that share the database, and who owns which shards.
    #[command(after_help = "Examples:\n  {bin} cluster\n  {bin} cluster --json")]
    Cluster,
    /// Ask a node to give its shards to the others, and wait until it has.
    Drain(drain::Args),
    /// Check the place where the service runs: settings, database, disk, durability, quarantines.
    Doctor(doctor::Args),
    /// Print a completion script for a shell.
    Completions(completions::Args),
}

/// What a program calls itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Program {
    pub(super) name: &'static str,
    pub(super) version: &'static str,
}

/// Returns the command line of a program under its own name, also in its examples.
pub(super) fn command<P: CommandFactory>(program: Program) -> clap::Command {
    let Program { name, version } = program;
    let with_name = |sub: clap::Command| {
        let help = sub.get_after_help().map(|help| help.to_string().replace("{bin}", name));
        match help {
            Some(help) => sub.after_help(help),
            None => sub,
        }
    };
    P::command().name(name).bin_name(name).version(version).mut_subcommands(with_name)
}

/// Reads what was typed.
pub(super) fn parse<P: CommandFactory + FromArgMatches>(
    program: Program,
    args: impl IntoIterator<Item = OsString>,
) -> Result<P, clap::Error> {
    let mut command = command::<P>(program);
    let matches = command.try_get_matches_from_mut(args)?;
    P::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

/// Prints clap's answer: help is done (0), everything else is wrong use (2).
pub(super) fn exit(error: &clap::Error) -> ExitCode {
    // Nobody is left to hear that the terminal is gone.
    let _ = error.print();
    ExitCode::from(error.exit_code() as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BANK: Program = Program { name: "bank", version: "7.1" };

    fn read(line: &str) -> Result<AppArgs, clap::Error> {
        parse(BANK, line.split(' ').map(OsString::from))
    }

    #[test]
    fn the_definitions_hold_together() {
        command::<AppArgs>(BANK).debug_assert();
        command::<ToolArgs>(BANK).debug_assert();
    }

    #[test]
    fn an_application_serves_unless_told_otherwise() {
        assert!(read("bank").expect("parses").command.is_none());
        let args = read("bank verify --json").expect("parses");
        assert!(args.json && matches!(args.command, Some(AppCommand::Tool(Tool::Verify))));
    }

    #[test]
    fn wrong_use_is_exit_code_2_and_help_is_0() {
        assert_eq!(read("bank fly").expect_err("unknown").exit_code(), 2);
        assert_eq!(read("bank show account").expect_err("an id is missing").exit_code(), 2);
        assert_eq!(read("bank --version").expect_err("is an answer").to_string(), "bank 7.1\n");
        assert_eq!(read("bank --help").expect_err("is help").exit_code(), 0);
    }

    #[test]
    fn examples_speak_of_the_program_itself() {
        let help = read("bank inspect --help").expect_err("is help").to_string();
        assert!(help.contains("bank inspect account a-1") && !help.contains("{bin}"), "{help}");
    }

    #[test]
    fn a_program_without_a_domain_offers_no_typed_commands() {
        let typed = parse::<ToolArgs>(BANK, ["orchestrix", "show", "account", "a"].map(OsString::from));
        assert_eq!(typed.expect_err("unknown").exit_code(), 2);
    }
}
