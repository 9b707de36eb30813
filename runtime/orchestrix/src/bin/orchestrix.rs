//! The runtime's own command line: the tools that need no domain.

use std::process::ExitCode;

use orchestrix::cli::Cli;

#[tokio::main]
async fn main() -> ExitCode {
    Cli::new("orchestrix").run_tools(std::env::args_os()).await
}
