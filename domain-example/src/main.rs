//! The bank as a service: `bank`, which is `bank serve`. Its other commands are the runtime's (`bank --help`).
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

use domain_example::{Account, Transfer};
use orchestrix::cli::Cli;

// Connections and commands are many small allocations on many threads, which the system's allocator serialises.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: the runtime could not be started: {error}; raise the limit of threads");
            return ExitCode::FAILURE;
        }
    };
    let cli =
        Cli::new("bank").version(env!("CARGO_PKG_VERSION")).aggregate::<Account>().aggregate::<Transfer>();
    runtime.block_on(cli.run(std::env::args_os(), serve::run))
}
