//! What each variable becomes: one function a variable, or a few that belong together.

use std::net::SocketAddr;
use std::time::Duration;

use orchestrix_core::{ShardCount, SnapshotPolicy};

use super::Environment;
use super::error::ConfigError;
use super::read::{Reader, invalid};
use super::variable::row;
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

pub(super) fn pool_size(read: &mut Reader<'_>) -> Result<u32, ConfigError> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as u32;
    let parse = |text: &str| text.parse().ok().filter(|size| (1..=256).contains(size));
    read.value("DATABASE_POOL_SIZE", (2 * cores + 1).min(256), parse, ToString::to_string)
}

pub(super) fn database_timeout(read: &mut Reader<'_>) -> Result<Duration, ConfigError> {
    let timeout = read.seconds("DATABASE_TIMEOUT", Duration::from_secs(30))?;
    let allowed = Duration::from_millis(1)..=Duration::from_hours(1);
    if allowed.contains(&timeout) {
        return Ok(timeout);
    }
    Err(invalid("DATABASE_TIMEOUT", &timeout.as_secs_f64().to_string()))
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

/// An address for traces is fine while nobody asks for traces: it says where they would go.
pub(super) fn traces(read: &mut Reader<'_>) -> Result<(), ConfigError> {
    read.text("OTEL_EXPORTER_OTLP_ENDPOINT");
    read.text("JAEGER_ENDPOINT");
    if read.flag("TRACING_ENABLED", false)? {
        return Err(ConfigError::NotInThisRelease {
            name: "TRACING_ENABLED",
            value: "true".to_owned(),
            remedy: "remove it or set it to false; LOG_FORMAT=json writes the same fields to the log",
        });
    }
    Ok(())
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
    let name = error.name.to_uppercase();
    let name = row(&name).name;
    ConfigError::Invalid { name, value: error.value.clone(), allowed: error.allowed.clone() }
}
