//! What each variable becomes: one function a variable, or a few that belong together.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use orchestrix_core::{ShardCount, SnapshotPolicy};

use super::error::ConfigError;
use super::read::{Reader, invalid};
use super::source::Source;
use super::variable::row;
use super::{DatabaseUrl, Environment, PostgresChoices, StoreChoice};
use crate::settings::{InvalidSetting, Settings};
use crate::telemetry::logging::{LogFilter, LogFormat};

pub(super) fn environment(read: &mut Reader<'_>) -> Result<Environment, ConfigError> {
    let parse = |text: &str| match text {
        "development" => Some(Environment::Development),
        "production" => Some(Environment::Production),
        _ => None,
    };
    let show = |value: &Environment| format!("{value:?}").to_lowercase();
    read.value("ENVIRONMENT", Environment::Development, parse, show)
}

/// The kind of store, before its place is known.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Memory,
    Sqlite,
    Postgres,
}

pub(super) fn store(
    read: &mut Reader<'_>,
    source: &Source,
    production: bool,
) -> Result<StoreChoice, ConfigError> {
    match kind(read, source)? {
        Kind::Sqlite => Ok(StoreChoice::Sqlite { path: database_path(read)? }),
        Kind::Postgres => Ok(StoreChoice::Postgres { url: database_url(read)? }),
        Kind::Memory if production => Err(ConfigError::Contradiction {
            problem: "EVENT_STORE_TYPE is \"inmemory\" and ENVIRONMENT is \"production\"".to_owned(),
            remedy: "the in-memory store forgets everything when the process ends; use sqlite or postgres",
        }),
        Kind::Memory => {
            read.text(DATABASE_URL);
            Ok(StoreChoice::Memory)
        }
    }
}

const DATABASE_URL: &str = "DATABASE_URL";

/// Without `EVENT_STORE_TYPE` the address of the database tells the kind.
fn kind(read: &mut Reader<'_>, source: &Source) -> Result<Kind, ConfigError> {
    if let Some((value @ "eventsourcingdb", _)) = source.get("EVENT_STORE_TYPE") {
        return Err(ConfigError::NotInThisRelease {
            name: "EVENT_STORE_TYPE",
            value: value.to_owned(),
            remedy: "use postgres or sqlite, or inmemory for a trial",
        });
    }
    let parse = |text: &str| match text {
        "inmemory" => Some(Kind::Memory),
        "sqlite" => Some(Kind::Sqlite),
        "postgres" => Some(Kind::Postgres),
        _ => None,
    };
    let show = |kind: &Kind| {
        match kind {
            Kind::Memory => "inmemory",
            Kind::Sqlite => "sqlite",
            Kind::Postgres => "postgres",
        }
        .to_owned()
    };
    let is_postgres = |(url, _): (&str, _)| DatabaseUrl::parse(url).is_some();
    let default =
        if read.peek(DATABASE_URL).is_some_and(is_postgres) { Kind::Postgres } else { Kind::Sqlite };
    read.value("EVENT_STORE_TYPE", default, parse, show)
}

fn database_path(read: &mut Reader<'_>) -> Result<PathBuf, ConfigError> {
    let show = |path: &PathBuf| format!("sqlite://{}", path.display());
    let is_postgres = |(url, _): (&str, _)| DatabaseUrl::parse(url).is_some();
    if read.peek(DATABASE_URL).is_some_and(is_postgres) {
        return Err(ConfigError::Contradiction {
            problem: "EVENT_STORE_TYPE is \"sqlite\" and DATABASE_URL names a PostgreSQL database".to_owned(),
            remedy: "set EVENT_STORE_TYPE=postgres, or give sqlite://path",
        });
    }
    read.value(DATABASE_URL, PathBuf::from("data/orchestrix.db"), sqlite_path, show)
}

/// What the address leaves out comes from the `PG*` variables, so the shortest one is `postgres://`.
fn database_url(read: &mut Reader<'_>) -> Result<DatabaseUrl, ConfigError> {
    if read.peek(DATABASE_URL).is_none() {
        return Err(ConfigError::Contradiction {
            problem: "EVENT_STORE_TYPE is \"postgres\" and DATABASE_URL is not set".to_owned(),
            remedy: "give postgres://user:password@host:5432/database, or postgres:// to use the PG* variables",
        });
    }
    let never = DatabaseUrl::parse("postgres://").expect("it begins right");
    read.value(DATABASE_URL, never, DatabaseUrl::parse, ToString::to_string)
}

pub(super) fn database_read_url(
    read: &mut Reader<'_>,
    is_postgres: bool,
) -> Result<Option<DatabaseUrl>, ConfigError> {
    let parse = |text: &str| DatabaseUrl::parse(text).map(Some);
    let show = |url: &Option<DatabaseUrl>| url.as_ref().map_or_else(String::new, ToString::to_string);
    let url = read.value("DATABASE_READ_URL", None, parse, show)?;
    if url.is_some() && !is_postgres {
        return Err(ConfigError::Contradiction {
            problem: "DATABASE_READ_URL is set, and the events are not in PostgreSQL".to_owned(),
            remedy: "only a PostgreSQL database has a replica; remove it, or set DATABASE_URL=postgres://...",
        });
    }
    Ok(url)
}

pub(super) fn postgres(read: &mut Reader<'_>, production: bool) -> Result<PostgresChoices, ConfigError> {
    let timeout = Duration::from_secs(30);
    let lanes = |text: &str| text.parse().ok().filter(|lanes| (1..=8).contains(lanes));
    let overflow = |text: &str| text.parse().ok().filter(|more| (0..=256).contains(more));
    let choices = PostgresChoices {
        pool_overflow: read.value("DATABASE_POOL_OVERFLOW", 10, overflow, ToString::to_string)?,
        pool_timeout: within_an_hour(read, "DATABASE_POOL_TIMEOUT", timeout)?,
        pool_recycle: read.seconds("DATABASE_POOL_RECYCLE", Duration::from_hours(1))?,
        wait: read.seconds("DATABASE_WAIT", Duration::from_mins(1))?,
        slow_query: slow_query(read)?,
        lanes: read.value("DATABASE_LANES", 2, lanes, ToString::to_string)?,
        pooler: read.flag("DATABASE_POOLER", false)?,
        allow_unsafe_durability: read.flag("ALLOW_UNSAFE_DURABILITY", false)?,
    };
    if production && choices.allow_unsafe_durability {
        return Err(ConfigError::Contradiction {
            problem: "ALLOW_UNSAFE_DURABILITY is \"true\" and ENVIRONMENT is \"production\"".to_owned(),
            remedy: "such a database loses acknowledged events in a power cut; turn its durability on",
        });
    }
    Ok(choices)
}

fn slow_query(read: &mut Reader<'_>) -> Result<Duration, ConfigError> {
    let parse = |text: &str| text.parse().ok().filter(|millis| (0..=3_600_000).contains(millis));
    let millis: u64 = read.value("SLOW_QUERY_MS", 1_000, parse, ToString::to_string)?;
    Ok(Duration::from_millis(millis))
}

/// Reads `sqlite://path`. Options after `?` are refused, since what they would change decides about durability.
fn sqlite_path(url: &str) -> Option<PathBuf> {
    let path = url.strip_prefix("sqlite://")?;
    (!path.is_empty() && !path.contains('?') && path != ":memory:").then(|| PathBuf::from(path))
}

pub(super) fn pool_size(read: &mut Reader<'_>) -> Result<u32, ConfigError> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as u32;
    let parse = |text: &str| text.parse().ok().filter(|size| (1..=256).contains(size));
    read.value("DATABASE_POOL_SIZE", (2 * cores + 1).min(256), parse, ToString::to_string)
}

pub(super) fn database_timeout(read: &mut Reader<'_>) -> Result<Duration, ConfigError> {
    within_an_hour(read, "DATABASE_TIMEOUT", Duration::from_secs(30))
}

pub(super) fn shutdown_notice(read: &mut Reader<'_>) -> Result<Duration, ConfigError> {
    let notice = read.seconds("SHUTDOWN_NOTICE", Duration::ZERO)?;
    let is_allowed = notice <= Duration::from_hours(1);
    if is_allowed { Ok(notice) } else { Err(invalid("SHUTDOWN_NOTICE", &notice.as_secs_f64().to_string())) }
}

fn within_an_hour(
    read: &mut Reader<'_>,
    name: &'static str,
    default: Duration,
) -> Result<Duration, ConfigError> {
    let timeout = read.seconds(name, default)?;
    let allowed = Duration::from_millis(1)..=Duration::from_hours(1);
    if allowed.contains(&timeout) {
        return Ok(timeout);
    }
    Err(invalid(name, &timeout.as_secs_f64().to_string()))
}

pub(super) fn shard_count(read: &mut Reader<'_>) -> Result<Option<ShardCount>, ConfigError> {
    let parse = |text: &str| text.parse().ok().and_then(ShardCount::new).map(Some);
    let show = |count: &Option<ShardCount>| count.map_or_else(String::new, |count| count.get().to_string());
    read.value("SHARD_COUNT", None, parse, show)
}

pub(super) fn log_filter(read: &mut Reader<'_>, debug: bool) -> Result<LogFilter, ConfigError> {
    let default = if debug { "debug".parse() } else { "info".parse() };
    let default = default.expect("both are filters");
    read.value("LOG_LEVEL", default, |text| text.parse().ok(), ToString::to_string)
}

pub(super) fn log_format(read: &mut Reader<'_>) -> Result<LogFormat, ConfigError> {
    let parse = |text: &str| match text {
        "text" => Some(LogFormat::Text),
        "json" => Some(LogFormat::Json),
        _ => None,
    };
    read.value("LOG_FORMAT", LogFormat::Text, parse, |format| format!("{format:?}").to_lowercase())
}

pub(super) fn http_addr(read: &mut Reader<'_>) -> Result<SocketAddr, ConfigError> {
    let default = SocketAddr::from(([127, 0, 0, 1], 8_000));
    read.value("HTTP_ADDR", default, |text| text.parse().ok(), ToString::to_string)
}

pub(super) fn settings(read: &mut Reader<'_>) -> Result<Settings, ConfigError> {
    let default = Settings::default();
    let commands_in_flight_max = read.count("COMMANDS_IN_FLIGHT_MAX", default.commands_in_flight_max)?;
    // The default must not contradict a lower bound of the node that was chosen on purpose.
    let mailbox = default.mailbox_commands_max.min(commands_in_flight_max);
    let settings = Settings {
        arbiters: read.count("ARBITERS", default.arbiters)?,
        commands_in_flight_max,
        mailbox_commands_max: read.count("MAILBOX_COMMANDS_MAX", mailbox)?,
        loads_in_flight_max: read.count("LOADS_IN_FLIGHT_MAX", default.loads_in_flight_max)?,
        load_page_events: read.count("LOAD_PAGE_EVENTS", default.load_page_events)?,
        command_timeout: read.seconds("COMMAND_TIMEOUT", default.command_timeout)?,
        dedup_commands_max: read.count("DEDUP_COMMANDS_MAX", default.dedup_commands_max)?,
        dedup_age_max: read.seconds("DEDUP_AGE_MAX", default.dedup_age_max)?,
        snapshots: snapshots(read, default.snapshots)?,
        residency_bytes_max: read.bytes("RESIDENCY_BYTES_MAX", default.residency_bytes_max)?,
        residency_idle_max: read.seconds("RESIDENCY_IDLE_MAX", default.residency_idle_max)?,
        batch_events_max: read.count("BATCH_EVENTS_MAX", default.batch_events_max)?,
        batch_bytes_max: read.bytes("BATCH_BYTES_MAX", default.batch_bytes_max as u64)? as usize,
        node_name: read.text("NODE_NAME").map(str::to_owned),
        application_version: default.application_version,
        lease: read.seconds("NODE_LEASE_SECONDS", default.lease)?,
        claim_wait_max: read.seconds("CLAIM_WAIT_MAX", default.claim_wait_max)?,
        shutdown_timeout: read.seconds("SHUTDOWN_TIMEOUT", default.shutdown_timeout)?,
    };
    settings.validate().map_err(|error| out_of_range(&error))?;
    Ok(settings)
}

fn snapshots(read: &mut Reader<'_>, default: SnapshotPolicy) -> Result<SnapshotPolicy, ConfigError> {
    let parse = |text: &str| text.parse().ok();
    let events: u32 = read.value("SNAPSHOT_INTERVAL", default.events, parse, ToString::to_string)?;
    Ok(if events == 0 { SnapshotPolicy::OFF } else { SnapshotPolicy { events, ..default } })
}

/// A variable has the name of its setting in capitals.
fn out_of_range(error: &InvalidSetting) -> ConfigError {
    let name = match error.name {
        "lease" => "NODE_LEASE_SECONDS".to_owned(),
        name => name.to_uppercase(),
    };
    let name = row(&name).name;
    ConfigError::Invalid { name, value: error.value.clone(), allowed: error.allowed.clone() }
}
