//! The bank as a service: `bank`, which is `bank serve`.
//!
//! | module | what |
//! |---|---|
//! | `serve` | starts everything, waits, stops everything |
//! | `http` | the interface: routes, problems, connections |
//! | `driver` | carries transfers out |
//! | `files` | how many connections the system allows |
//!
//! The rules of the bank are in the library `domain_example`, which knows nothing of all this.

mod driver;
mod files;
mod http;
mod serve;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use orchestrix::config::Config;

// Connections and commands are many small allocations on many threads, which the system's allocator serialises.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The process was started wrongly: by its arguments or its environment.
const WRONG_USE: u8 = 2;

/// An example bank on Orchestrix.
#[derive(Debug, Parser)]
#[command(name = "bank", version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Task>,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Serves the bank over HTTP until SIGTERM or SIGINT. This is what happens without a subcommand.
    Serve,
}

fn main() -> ExitCode {
    let Arguments { command } = Arguments::parse();
    let config = match Config::from_env() {
        Ok(config) => config,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(WRONG_USE);
        }
    };
    match command.unwrap_or(Task::Serve) {
        Task::Serve => serve::run(config),
    }
}
