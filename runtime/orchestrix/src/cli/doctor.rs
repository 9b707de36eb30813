//! `doctor`: looks at the place where the service runs, and says what to do about what is not well.
//!
//! It works beside a running service and stops at nothing: each check says its own. What only the owner of the
//! database can try (a durable write, the settings of the writing connection) is tried when no service runs.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use orchestrix_core::EventStore;
use serde::Serialize;
use serde_json::json;
use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;

use super::context::Context;
use super::error::CliError;
use super::output::{human_bytes, table};
use crate::config::{Config, StoreChoice};
use crate::store::{OpenError, PostgresOpenError};

/// Less free space than this is a warning, a tenth of it a failure.
const FREE_BYTES_MIN: u64 = 1 << 30;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

/// One check and what it found.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    verdict: Verdict,
    detail: String,
}

fn check(name: &'static str, verdict: Verdict, detail: impl Into<String>) -> Check {
    Check { name, verdict, detail: detail.into() }
}

/// Runs every check; exit code 1 when one of them failed.
pub(super) async fn run(context: &mut Context) -> Result<(), CliError> {
    let mut checks = vec![settings(&context.config), memory(&context.config)];
    match &context.config.store {
        StoreChoice::Memory => {
            checks.push(check(
                "store",
                Verdict::Warn,
                "the in-memory store forgets everything when the process ends",
            ));
        }
        StoreChoice::Sqlite { path } => sqlite(&context.config, path, &mut checks).await,
        StoreChoice::Postgres { .. } => postgres(&context.config, &mut checks).await,
    }
    let healthy = checks.iter().all(|check| check.verdict != Verdict::Fail);
    let answer = json!({ "healthy": healthy, "checks": checks });
    context.out.answer(&answer, || text(&checks))?;
    if healthy {
        Ok(())
    } else {
        Err(CliError::Found("something is not well; see the lines that say FAIL".to_owned()))
    }
}

fn text(checks: &[Check]) -> String {
    let word = |verdict| match verdict {
        Verdict::Ok => "ok",
        Verdict::Warn => "WARN",
        Verdict::Fail => "FAIL",
    };
    let row = |check: &Check| [word(check.verdict).to_owned(), check.name.to_owned(), check.detail.clone()];
    table(&checks.iter().map(row).collect::<Vec<_>>())
}

fn settings(config: &Config) -> Check {
    if config.is_production() && config.debug {
        return check("settings", Verdict::Warn, "DEBUG is on in production; the log grows fast");
    }
    if config.settings.snapshots.is_off() {
        return check("settings", Verdict::Warn, "SNAPSHOT_INTERVAL is 0: long aggregates load slowly");
    }
    check("settings", Verdict::Ok, "every variable is valid; `config` shows them")
}

/// The memory that aggregates may take must fit into the machine.
fn memory(config: &Config) -> Check {
    let wanted = config.settings.residency_bytes_max;
    let limit = human_bytes(wanted);
    match available_memory() {
        None => check(
            "memory",
            Verdict::Ok,
            format!("aggregates may take {limit}; the system does not tell what is free"),
        ),
        Some(free) if free < wanted => check(
            "memory",
            Verdict::Warn,
            format!(
                "aggregates may take {limit}, {} are available; lower RESIDENCY_BYTES_MAX",
                human_bytes(free)
            ),
        ),
        Some(free) => {
            check("memory", Verdict::Ok, format!("aggregates may take {limit} of {}", human_bytes(free)))
        }
    }
}

fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}

async fn sqlite(config: &Config, path: &Path, checks: &mut Vec<Check>) {
    checks.push(library().await);
    checks.push(database_file(path));
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    checks.push(writable(folder));
    checks.push(disk(folder));
    if !path.exists() {
        return;
    }
    checks.push(migrations(config).await);
    checks.push(owner(config, path).await);
    contents(config, checks).await;
}

/// Tells which SQLite the program carries. Opening a database refuses one that is too old.
async fn library() -> Check {
    match sqlite_version().await {
        Ok(version) => check("library", Verdict::Ok, format!("SQLite {version}")),
        Err(error) => check("library", Verdict::Fail, error.to_string()),
    }
}

async fn sqlite_version() -> Result<String, sqlx::Error> {
    let mut connection = SqliteConnectOptions::new().in_memory(true).connect().await?;
    sqlx::query_scalar("SELECT sqlite_version()").fetch_one(&mut connection).await
}

fn database_file(path: &Path) -> Check {
    let shown = path.display();
    match std::fs::metadata(path) {
        Ok(file) => check("database", Verdict::Ok, format!("{shown}, {}", human_bytes(file.len()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => check(
            "database",
            Verdict::Warn,
            format!("{shown} does not exist yet; `migrate` or a first start makes it"),
        ),
        Err(error) => check("database", Verdict::Fail, format!("{shown} cannot be looked at: {error}")),
    }
}

/// Tries to make a file: permissions alone do not tell about read-only file systems.
fn writable(folder: &Path) -> Check {
    let probe = folder.join(format!(".orchestrix-doctor-{}", std::process::id()));
    let made = std::fs::OpenOptions::new().write(true).create_new(true).open(&probe).map(|_| ());
    let shown = folder.display();
    match made.and_then(|()| std::fs::remove_file(&probe)) {
        Ok(()) => check("directory", Verdict::Ok, format!("files can be made in {shown}")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            check("directory", Verdict::Warn, format!("{shown} does not exist yet; a first start makes it"))
        }
        Err(error) => check(
            "directory",
            Verdict::Fail,
            format!("no file can be made in {shown}: {error}; check its owner"),
        ),
    }
}

fn disk(folder: &Path) -> Check {
    let Some(free) = free_bytes(folder) else {
        return check("disk", Verdict::Warn, "the free space cannot be told here");
    };
    let detail = format!("{} are free in {}", human_bytes(free), folder.display());
    if free < FREE_BYTES_MIN / 10 {
        check("disk", Verdict::Fail, format!("{detail}; make room before appends fail"))
    } else if free < FREE_BYTES_MIN {
        check("disk", Verdict::Warn, format!("{detail}; make room soon"))
    } else {
        check("disk", Verdict::Ok, detail)
    }
}

#[cfg(unix)]
fn free_bytes(folder: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(folder).ok()?;
    Some(found.f_bavail * found.f_frsize)
}

#[cfg(not(unix))]
fn free_bytes(_folder: &Path) -> Option<u64> {
    None
}

/// The server, the schema, one durable write, the contents. Works beside a running service.
async fn postgres(config: &Config, checks: &mut Vec<Check>) {
    let schema = migrations(config).await;
    let is_reachable = schema.verdict != Verdict::Fail;
    checks.push(schema);
    if !is_reachable {
        return;
    }
    match writer(config).await {
        Ok(store) => {
            let written = write_once(store.as_ref(), "database", "the server is durable").await;
            store.close().await;
            checks.push(written);
            contents(config, checks).await;
        }
        Err(error @ OpenError::Postgres(PostgresOpenError::Pending { .. })) => {
            checks.push(check("database", Verdict::Warn, error.to_string()));
        }
        Err(error) => checks.push(check("database", Verdict::Fail, error.to_string())),
    }
}

/// Opens the store as the service would, without a change of its schema.
async fn writer(config: &Config) -> Result<Arc<dyn EventStore>, OpenError> {
    let mut config = config.clone();
    config.auto_migrate = false;
    config.open_store().await
}

async fn migrations(config: &Config) -> Check {
    let status = match config.database() {
        Ok(Some(database)) => database.migration_status().await,
        Ok(None) => Ok(Vec::new()),
        Err(error) => Err(error),
    };
    match status {
        Err(error) => check("migrations", Verdict::Fail, error.to_string()),
        Ok(all) => match all.iter().filter(|one| !one.applied).count() {
            0 => check("migrations", Verdict::Ok, format!("all {} are applied", all.len())),
            pending => check(
                "migrations",
                Verdict::Warn,
                format!("{pending} of {} are pending; run `migrate`", all.len()),
            ),
        },
    }
}

/// Opens the database as the service would, which checks the library and the durability settings, and writes once.
async fn owner(config: &Config, path: &Path) -> Check {
    match config.sqlite(path).auto_migrate(false).connect().await {
        Ok(store) => {
            let answer = write_once(&store, "owner", "no service runs; journal and sync are durable").await;
            store.close().await;
            answer
        }
        Err(error @ OpenError::Held { .. }) => check(
            "owner",
            Verdict::Ok,
            format!("a service runs on it, and checked durability when it started: {error}"),
        ),
        Err(error @ OpenError::Pending { .. }) => check("owner", Verdict::Warn, error.to_string()),
        Err(error) => check("owner", Verdict::Fail, error.to_string()),
    }
}

async fn write_once(store: &dyn EventStore, name: &'static str, well: &str) -> Check {
    let began = Instant::now();
    match store.ping().await {
        Ok(()) => {
            let took = began.elapsed().as_micros();
            check(name, Verdict::Ok, format!("{well}, one write took {took} us"))
        }
        Err(error) => check(name, Verdict::Fail, error.to_string()),
    }
}

async fn contents(config: &Config, checks: &mut Vec<Check>) {
    let stats = match config.open_store_read_only().await {
        Ok(store) => store.stats().await.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    match stats {
        Err(error) => checks.push(check("contents", Verdict::Fail, error)),
        Ok(stats) => {
            let detail = format!(
                "{} events of {} streams, {} snapshots",
                stats.events, stats.streams, stats.snapshots
            );
            checks.push(check("contents", Verdict::Ok, detail));
            checks.push(match stats.quarantined {
                0 => check("quarantine", Verdict::Ok, "nothing is in quarantine"),
                some => check(
                    "quarantine",
                    Verdict::Fail,
                    format!("{some} aggregates take no commands; `quarantine list`"),
                ),
            });
        }
    }
}
