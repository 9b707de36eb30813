//! The command line: a tool for every kind of question that people ask a store, one file each.
//!
//! The binary `orchestrix` knows no domain. An application offers the same commands and those that need its types:
//!
//! ```no_run
//! use orchestrix::cli::Cli;
//! use orchestrix::config::Config;
//! # use orchestrix_core::prelude::*;
//! # aggregate_id!(pub struct AccountId, "account id");
//! # #[derive(Event, Serialize, Deserialize)] pub enum Opened { #[event("account.opened")] Opened {} }
//! # #[derive(Default, Serialize, Deserialize)] pub struct Account {}
//! # impl Aggregate for Account {
//! #     const TYPE: AggregateType = aggregate_type!("account");
//! #     type Id = AccountId;
//! #     type Event = Opened;
//! #     fn apply(&mut self, _: &Opened) {}
//! # }
//! async fn serve(config: Config) -> Result<(), orchestrix::StartError> {
//!     // start a node with `config.settings`, listen on `config.http_addr`, wait for the signal to stop
//!     # Ok(())
//! }
//!
//! #[tokio::main]
//! async fn main() -> std::process::ExitCode {
//!     Cli::new("bank").aggregate::<Account>().run(std::env::args_os(), serve).await
//! }
//! ```
//!
//! Commands that only look open the store read-only, so they work beside a running service.
//! Exit codes: 0 done, 1 found something wrong, 2 wrong use or configuration, 3 the store could not be reached.

mod archive;
mod args;
mod backup;
mod cluster;
mod completions;
mod context;
mod doctor;
mod drain;
mod error;
mod inspect;
mod migrate;
mod output;
mod progress;
mod quarantine;
mod rebuild;
mod replay;
mod settings;
mod show;
mod stats;
mod tail;
mod types;
mod verify;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use orchestrix_core::Aggregate;

pub use error::CliError;

use self::args::{AppArgs, AppCommand, Program, Tool, ToolArgs};
use self::context::Context;
use self::output::Output;
use self::types::Types;
use crate::config::Config;
use crate::telemetry::traces::Traces;
use crate::telemetry::{exporter, logging};

/// The command line of a program.
pub struct Cli {
    name: &'static str,
    version: Option<&'static str>,
    types: Types,
    config: Option<Config>,
}

/// What a command line asks for.
enum Wanted {
    Serve,
    Tool(Tool),
    Typed(AppCommand),
}

impl Cli {
    /// Begins the command line of a program with this name.
    pub fn new(name: &'static str) -> Self {
        Self { name, version: None, types: Types::default(), config: None }
    }

    /// Sets what `--version` answers, usually `env!("CARGO_PKG_VERSION")`; without it, the runtime's own version.
    #[must_use]
    pub fn version(mut self, version: &'static str) -> Self {
        self.version = Some(version);
        self
    }

    /// Registers a kind of aggregate, so that `show` and `rebuild-snapshots` know it.
    #[must_use]
    pub fn aggregate<A: Aggregate>(mut self) -> Self {
        self.types.add::<A>();
        self
    }

    /// Uses this configuration instead of the environment, for tests and embedding.
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.config = Some(config);
        self
    }

    /// Runs an application's command line. Without a command it serves: sets up logs and metrics as configured, and
    /// calls `serve`, whose error becomes the exit code.
    pub async fn run<S, F, E>(self, args: impl IntoIterator<Item = OsString>, serve: S) -> ExitCode
    where
        S: FnOnce(Config) -> F,
        F: Future<Output = Result<(), E>>,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.run_to(args, serve, Box::new(std::io::stdout())).await
    }

    /// As [`run`](Self::run), and prints to a writer of the caller's.
    pub async fn run_to<S, F, E>(
        self,
        args: impl IntoIterator<Item = OsString>,
        serve: S,
        out: Box<dyn Write + Send>,
    ) -> ExitCode
    where
        S: FnOnce(Config) -> F,
        F: Future<Output = Result<(), E>>,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let args = match args::parse::<AppArgs>(self.program(), args) {
            Ok(args) => args,
            Err(error) => return args::exit(&error),
        };
        let wanted = match args.command {
            None | Some(AppCommand::Serve) => Wanted::Serve,
            Some(AppCommand::Tool(tool)) => Wanted::Tool(tool),
            Some(typed) => Wanted::Typed(typed),
        };
        let done = match wanted {
            Wanted::Serve => self.serve(serve).await,
            Wanted::Tool(tool) => self.tool::<AppArgs>(tool, args.json, out).await,
            Wanted::Typed(typed) => self.typed(typed, args.json, out).await,
        };
        finish(done, args.json)
    }

    /// Runs the command line of a program without a domain: the commands that need no types.
    pub async fn run_tools(self, args: impl IntoIterator<Item = OsString>) -> ExitCode {
        let args = match args::parse::<ToolArgs>(self.program(), args) {
            Ok(args) => args,
            Err(error) => return args::exit(&error),
        };
        let done = self.tool::<ToolArgs>(args.command, args.json, Box::new(std::io::stdout())).await;
        finish(done, args.json)
    }

    async fn serve<S, F, E>(self, serve: S) -> Result<(), CliError>
    where
        S: FnOnce(Config) -> F,
        F: Future<Output = Result<(), E>>,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let config = self.configuration()?;
        let traces = self.observe(&config)?;
        let served = serve(config).await.map_err(|error| CliError::Serve(error.into()));
        if let Some(traces) = traces {
            traces.finish().await;
        }
        served
    }

    /// Sets up logs, metrics and traces as configured. An application that set up its own log or recorder before keeps
    /// it.
    fn observe(&self, config: &Config) -> Result<Option<Traces>, CliError> {
        let traces = config.traces.as_ref().map(|to| Traces::start(to, self.name)).transpose()?;
        let _ = match &traces {
            Some(traces) => logging::init_with_traces(&config.log_filter, config.log_format, traces),
            None => logging::init(&config.log_filter, config.log_format),
        };
        for warning in config.warnings() {
            tracing::warn!("{warning}");
        }
        if config.metrics_enabled {
            let _ = exporter::install();
        }
        Ok(traces)
    }

    async fn typed(
        self,
        command: AppCommand,
        json: bool,
        out: Box<dyn Write + Send>,
    ) -> Result<(), CliError> {
        let mut context = Context::new(self.configuration()?, Output::new(out, json));
        match command {
            AppCommand::Show(args) => show::run(args, &self.types, &mut context).await,
            AppCommand::RebuildSnapshots(args) => rebuild::run(args, &self.types, &mut context).await,
            AppCommand::Serve | AppCommand::Tool(_) => unreachable!("run_to has taken these out"),
        }
    }

    async fn tool<P: clap::CommandFactory>(
        self,
        tool: Tool,
        json: bool,
        out: Box<dyn Write + Send>,
    ) -> Result<(), CliError> {
        let mut out = Output::new(out, json);
        if let Tool::Completions(args) = tool {
            return completions::run(&args, args::command::<P>(self.program()), self.name, &mut out);
        }
        let mut context = Context::new(self.configuration()?, out);
        match tool {
            Tool::Migrate(args) => migrate::run(&args, &mut context).await,
            Tool::Config => settings::run(&mut context),
            Tool::Stats => stats::run(&mut context).await,
            Tool::Inspect(args) => inspect::run(args, &mut context).await,
            Tool::Tail(args) => tail::run(&args, &mut context).await,
            Tool::Verify => verify::run(&mut context).await,
            Tool::Quarantine(args) => quarantine::run(args, &mut context).await,
            Tool::Archive(args) => archive::run(&args, &mut context).await,
            Tool::Backup(args) => backup::backup(args, &mut context).await,
            Tool::Restore(args) => backup::restore(args, &mut context).await,
            Tool::Cluster => cluster::run(&mut context).await,
            Tool::Drain(args) => drain::run(&args, &mut context).await,
            Tool::Doctor(args) => doctor::run(&args, &mut context).await,
            Tool::Completions(_) => unreachable!("it needs no configuration and was run above"),
        }
    }

    fn program(&self) -> Program {
        let version = self.version.unwrap_or(env!("CARGO_PKG_VERSION"));
        Program { name: self.name, version }
    }

    fn configuration(&self) -> Result<Config, CliError> {
        match &self.config {
            Some(config) => Ok(config.clone()),
            None => Ok(Config::from_env()?),
        }
    }
}

/// Tells the person what went wrong, and the shell by the exit code.
fn finish(done: Result<(), CliError>, json: bool) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is_broken_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            let code = error.exit_code();
            if json {
                let line = serde_json::json!({ "error": error.to_string(), "exit_code": code });
                eprintln!("{line}");
            } else {
                eprintln!("error: {error}");
            }
            ExitCode::from(code)
        }
    }
}
