//! Where events are kept, and how the connections to it are shared: what the variables about the database become.

use std::path::PathBuf;
use std::time::Duration;

use super::error::ConfigError;
use super::read::{Reader, invalid, masked};
use super::source::{Origin, Source};
use super::{ConnectionSettings, DatabaseUrl, StoreChoice};
use crate::store::Postgres;

const TYPE: &str = "EVENT_STORE_TYPE";
const URL: &str = "DATABASE_URL";

/// The kind of store, before its place is known.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Memory,
    Sqlite,
    Postgres,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Memory => "inmemory",
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
        }
    }
}

/// Reads which store it is and where it lies.
pub(super) fn store(
    read: &mut Reader<'_>,
    source: &Source,
    production: bool,
) -> Result<StoreChoice, ConfigError> {
    match kind(read, source)? {
        Kind::Memory if production => Err(ConfigError::Contradiction {
            problem: "EVENT_STORE_TYPE is \"inmemory\" and ENVIRONMENT is \"production\"".to_owned(),
            remedy: "the in-memory store forgets everything when the process ends; use sqlite or postgres",
        }),
        Kind::Memory => {
            read.text(URL);
            Ok(StoreChoice::Memory)
        }
        Kind::Sqlite => sqlite(read),
        Kind::Postgres => postgres(read),
    }
}

/// Without a word about the kind, the URL says it.
fn kind(read: &mut Reader<'_>, source: &Source) -> Result<Kind, ConfigError> {
    if let Some((value @ "eventsourcingdb", _)) = source.get(TYPE) {
        return Err(ConfigError::NotInThisRelease {
            name: TYPE,
            value: value.to_owned(),
            remedy: "use postgres or sqlite, or inmemory for a trial",
        });
    }
    let parse = |text: &str| {
        [Kind::Memory, Kind::Sqlite, Kind::Postgres].into_iter().find(|kind| kind.name() == text)
    };
    let implied =
        if source.get(URL).is_some_and(|(url, _)| is_postgres(url)) { Kind::Postgres } else { Kind::Sqlite };
    read.value(TYPE, implied, parse, |kind| kind.name().to_owned())
}

fn is_postgres(url: &str) -> bool {
    url.starts_with("postgres://") || url.starts_with("postgresql://")
}

fn sqlite(read: &mut Reader<'_>) -> Result<StoreChoice, ConfigError> {
    if let Some((url, _)) = read.peek(URL)
        && is_postgres(url)
    {
        return Err(mismatch(Kind::Sqlite, url));
    }
    let default = PathBuf::from("data/orchestrix.db");
    let path = read.value(URL, default, sqlite_path, |path| format!("sqlite://{}", path.display()))?;
    Ok(StoreChoice::Sqlite { path })
}

/// Reads `sqlite://path`. Options after `?` are refused, since what they would change decides about durability.
fn sqlite_path(url: &str) -> Option<PathBuf> {
    let path = url.strip_prefix("sqlite://")?;
    (!path.is_empty() && !path.contains('?') && path != ":memory:").then(|| PathBuf::from(path))
}

fn postgres(read: &mut Reader<'_>) -> Result<StoreChoice, ConfigError> {
    let url = match read.peek(URL) {
        Some((url, _)) if url.starts_with("sqlite://") => return Err(mismatch(Kind::Postgres, url)),
        Some((url, _)) => url.trim().to_owned(),
        None => "postgres://".to_owned(),
    };
    let understood = |url: &str| (is_postgres(url) && Postgres::open(url).is_ok()).then(|| url.to_owned());
    if read.peek(URL).is_some() {
        read.value(URL, url.clone(), understood, Clone::clone)?;
    } else {
        read.note(URL, &url, Origin::Default);
    }
    Ok(StoreChoice::Postgres { url: DatabaseUrl(url) })
}

fn mismatch(kind: Kind, url: &str) -> ConfigError {
    ConfigError::Contradiction {
        problem: format!("EVENT_STORE_TYPE is {:?} and DATABASE_URL is {:?}", kind.name(), masked(URL, url)),
        remedy: "give the URL of such a database, or another type",
    }
}

/// Reads how connections to PostgreSQL are shared and watched.
pub(super) fn connections(
    read: &mut Reader<'_>,
    production: bool,
) -> Result<ConnectionSettings, ConfigError> {
    let number = |max: usize| move |text: &str| text.parse().ok().filter(|number: &usize| *number <= max);
    let recycle = recycle(read)?;
    let slow_ms: usize = read.value("SLOW_QUERY_MS", 1_000, number(3_600_000), ToString::to_string)?;
    let lanes = |text: &str| text.parse().ok().filter(|lanes: &usize| (1..=8).contains(lanes));
    let connections = ConnectionSettings {
        overflow: read.value("DATABASE_POOL_OVERFLOW", 0, number(1_024), ToString::to_string)?,
        recycle: Some(recycle).filter(|recycle| !recycle.is_zero()),
        lanes: read.value("DATABASE_LANES", 2, lanes, ToString::to_string)?,
        slow_query: (slow_ms > 0).then(|| Duration::from_millis(slow_ms as u64)),
        pooler: read.flag("DATABASE_POOLER", false)?,
        allow_unsafe_durability: read.flag("ALLOW_UNSAFE_DURABILITY", false)?,
    };
    if production && connections.allow_unsafe_durability {
        return Err(ConfigError::Contradiction {
            problem: "ALLOW_UNSAFE_DURABILITY is \"true\" and ENVIRONMENT is \"production\"".to_owned(),
            remedy: "a power cut would lose acknowledged events; remove it, and turn durability on at the server",
        });
    }
    Ok(connections)
}

fn recycle(read: &mut Reader<'_>) -> Result<Duration, ConfigError> {
    const NAME: &str = "DATABASE_POOL_RECYCLE";
    let age = read.seconds(NAME, Duration::ZERO)?;
    if age <= Duration::from_hours(30 * 24) {
        Ok(age)
    } else {
        Err(invalid(NAME, &age.as_secs_f64().to_string()))
    }
}
