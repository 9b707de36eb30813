//! `completions`: a script that makes a shell complete the commands.

use clap_complete::Shell;

use super::error::CliError;
use super::output::Output;

/// Which shell.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  {bin} completions bash > /etc/bash_completion.d/{bin}\n  {bin} completions zsh > ~/.zfunc/_{bin}"
)]
pub(super) struct Args {
    /// The shell that is to complete.
    shell: Shell,
}

/// Prints the script.
pub(super) fn run(
    args: &Args,
    mut command: clap::Command,
    name: &str,
    out: &mut Output,
) -> Result<(), CliError> {
    // The generator gives up on a writer that fails, so it writes to memory first.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    Ok(out.writer().write_all(&script)?)
}
