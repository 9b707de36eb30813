//! The configuration of a service, from its environment: [`Config::from_env`].
//!
//! Every variable has a row in `variable.rs` and in `docs/operations/settings.md`. A value that is not allowed, or that
//! asks for what this release cannot do, stops the start with a message that says what is allowed: nothing is ignored.

mod cluster;
mod database_url;
mod error;
mod node_tls;
mod open;
mod read;
mod source;
mod traces;
mod values;
mod variable;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use orchestrix_core::ShardCount;

pub use database_url::DatabaseUrl;
pub use error::ConfigError;
pub use node_tls::NodeTls;
pub use read::Effective;
pub use source::Origin;
pub use variable::{VARIABLES, Variable};

use self::read::Reader;
use self::source::Source;
use crate::cluster::ClusterOptions;
use crate::settings::Settings;
use crate::telemetry::logging::{LogFilter, LogFormat};

/// Where the service runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Environment {
    /// At a developer's: everything is allowed.
    #[default]
    Development,
    /// Where it matters: what may lose events is refused.
    Production,
}

/// Where events are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreChoice {
    /// In memory, until the process ends.
    Memory,
    /// In a SQLite database.
    Sqlite {
        /// Its file.
        path: PathBuf,
    },
    /// In a PostgreSQL database.
    Postgres {
        /// Its address.
        url: DatabaseUrl,
    },
}

/// How a PostgreSQL database is used; the other stores ignore it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresChoices {
    /// Connections that are open in a rush, above the pool's size.
    pub pool_overflow: u32,
    /// How long a caller waits for a connection.
    pub pool_timeout: Duration,
    /// How old a connection gets before it is replaced; zero for no limit.
    pub pool_recycle: Duration,
    /// How long a start waits for a database that does not answer yet.
    pub wait: Duration,
    /// Statements that take longer are logged; zero for none.
    pub slow_query: Duration,
    /// Appends under way at once, each on a connection of its own.
    pub lanes: usize,
    /// Whether a pooler that shares sessions, such as PgBouncer in transaction mode, stands before the server.
    pub pooler: bool,
    /// Whether a database may serve that loses acknowledged events in a power cut.
    pub allow_unsafe_durability: bool,
}

/// What the environment says, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the service runs.
    pub environment: Environment,
    /// Whether more is said in the log.
    pub debug: bool,
    /// Where events are kept.
    pub store: StoreChoice,
    /// Whether a start creates and upgrades the schema.
    pub auto_migrate: bool,
    /// Connections that read at the same time.
    pub database_pool_size: u32,
    /// How long an operation waits for a connection or for the database's lock, and a statement may run.
    pub database_timeout: Duration,
    /// A replica of the PostgreSQL database.
    pub database_read_url: Option<DatabaseUrl>,
    /// How a PostgreSQL database is used.
    pub postgres: PostgresChoices,
    /// Parts of the log: of a database that is created, or to be compared with one that exists. `None` takes what the
    /// database has, and the store's own default for a new one.
    pub shard_count: Option<ShardCount>,
    /// Which log lines are written.
    pub log_filter: LogFilter,
    /// How a log line is written.
    pub log_format: LogFormat,
    /// Whether metrics are counted.
    pub metrics_enabled: bool,
    /// Where traces are exported to, the whole address; `None` when they are not.
    pub traces: Option<String>,
    /// Where the service listens for HTTP.
    pub http_addr: SocketAddr,
    /// How long the service goes on taking requests after it was told to stop.
    pub shutdown_notice: Duration,
    /// What protects the traffic between nodes.
    pub node_tls: NodeTls,
    /// How the node takes part in the cluster of its database; `None` when it stays alone.
    pub cluster: Option<ClusterOptions>,
    /// How a node runs.
    pub settings: Settings,
    effective: Vec<Effective>,
    warnings: Vec<String>,
}

impl Config {
    /// Reads the environment of the process, and the file `.env` of the working directory where that says nothing.
    ///
    /// # Errors
    /// [`ConfigError`] about the first variable that is wrong.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::read(&Source::process()?)
    }

    /// Reads a list of variables and values instead of the environment, for tests and tools.
    ///
    /// ```
    /// use orchestrix::config::Config;
    /// let config = Config::from_pairs(&[("EVENT_STORE_TYPE", "inmemory"), ("SNAPSHOT_INTERVAL", "0")])?;
    /// assert!(config.settings.snapshots.is_off());
    /// # Ok::<(), orchestrix::config::ConfigError>(())
    /// ```
    ///
    /// # Errors
    /// [`ConfigError`] about the first variable that is wrong.
    pub fn from_pairs(pairs: &[(&str, &str)]) -> Result<Self, ConfigError> {
        Self::read(&Source::from_pairs(pairs)?)
    }

    /// Returns every variable as it took effect, secrets masked, in the order of the manual.
    pub fn effective(&self) -> &[Effective] {
        &self.effective
    }

    /// Returns what works and should be changed all the same, each with its remedy.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Tells whether the service runs where it matters.
    pub fn is_production(&self) -> bool {
        self.environment == Environment::Production
    }

    fn read(source: &Source) -> Result<Self, ConfigError> {
        let mut read = Reader::new(source);
        let environment = values::environment(&mut read)?;
        let production = environment == Environment::Production;
        let debug = read.flag("DEBUG", false)?;
        let store = values::store(&mut read, source, production)?;
        let is_postgres = matches!(store, StoreChoice::Postgres { .. });
        let node_tls = node_tls::node_tls(&mut read)?;
        let config = Self {
            environment,
            debug,
            store,
            auto_migrate: read.flag("AUTO_MIGRATE", !production)?,
            database_pool_size: values::pool_size(&mut read)?,
            database_timeout: values::database_timeout(&mut read)?,
            database_read_url: values::database_read_url(&mut read, is_postgres)?,
            postgres: values::postgres(&mut read, production)?,
            shard_count: values::shard_count(&mut read)?,
            settings: Settings::default(),
            log_filter: values::log_filter(&mut read, debug)?,
            log_format: values::log_format(&mut read)?,
            metrics_enabled: read.flag("METRICS_ENABLED", true)?,
            traces: None,
            http_addr: values::http_addr(&mut read)?,
            shutdown_notice: values::shutdown_notice(&mut read)?,
            cluster: cluster::cluster(&mut read, &node_tls, is_postgres)?,
            node_tls,
            effective: Vec::new(),
            warnings: Vec::new(),
        };
        let mut warnings = Vec::new();
        let traces = traces::traces(&mut read, &mut warnings)?;
        let settings = values::settings(&mut read)?;
        VARIABLES.iter().filter(|variable| !variable.here).try_for_each(|later| read.not_here(later.name))?;
        Ok(Self { traces, settings, effective: in_order(read.effective), warnings, ..config })
    }
}

fn in_order(mut effective: Vec<Effective>) -> Vec<Effective> {
    let place = |name: &str| VARIABLES.iter().position(|variable| variable.name == name);
    effective.sort_by_key(|one| place(one.name));
    effective
}

#[cfg(test)]
mod tests {
    use orchestrix_core::SnapshotPolicy;

    use super::*;

    fn refusal(pairs: &[(&str, &str)]) -> String {
        Config::from_pairs(pairs).expect_err("is refused").to_string()
    }

    #[test]
    fn without_an_environment_the_defaults_hold_and_every_variable_is_shown() {
        let config = Config::from_pairs(&[]).expect("the defaults are valid");
        assert_eq!(config.store, StoreChoice::Sqlite { path: "data/orchestrix.db".into() });
        assert!(config.auto_migrate && config.metrics_enabled && !config.is_production());
        assert_eq!(config.settings, Settings::default());
        let shown: Vec<&str> = config.effective().iter().map(|one| one.name).collect();
        let known: Vec<&str> =
            VARIABLES.iter().filter(|variable| variable.here).map(|variable| variable.name).collect();
        assert_eq!(shown, known);
    }

    #[test]
    fn the_manual_tells_the_true_defaults() {
        // Defaults in words depend on the machine or on other variables.
        const IN_WORDS: [&str; 15] = [
            "NODE_ADDR",
            "NODE_ADVERTISE",
            "NODE_TLS_CERT",
            "NODE_TLS_KEY",
            "NODE_TLS_CA",
            "AUTO_MIGRATE",
            "DATABASE_POOL_SIZE",
            "SHARD_COUNT",
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "JAEGER_ENDPOINT",
            "ARBITERS",
            "MAILBOX_COMMANDS_MAX",
            "NODE_NAME",
            "DATABASE_READ_URL",
            "EVENT_STORE_TYPE",
        ];
        let config = Config::from_pairs(&[]).expect("the defaults are valid");
        for one in config.effective().iter().filter(|one| !IN_WORDS.contains(&one.name)) {
            assert_eq!(one.value, variable::row(one.name).default, "{}", one.name);
        }
    }

    #[test]
    fn every_number_reaches_its_setting() {
        let pairs = [
            ("ARBITERS", "3"),
            ("COMMANDS_IN_FLIGHT_MAX", "100"),
            ("LOADS_IN_FLIGHT_MAX", "5"),
            ("LOAD_PAGE_EVENTS", "17"),
            ("COMMAND_TIMEOUT", "2.5"),
            ("DEDUP_COMMANDS_MAX", "7"),
            ("DEDUP_AGE_MAX", "60"),
            ("SNAPSHOT_INTERVAL", "9"),
            ("RESIDENCY_BYTES_MAX", "2MiB"),
            ("RESIDENCY_IDLE_MAX", "1"),
            ("BATCH_EVENTS_MAX", "11"),
            ("BATCH_BYTES_MAX", "1024"),
            ("NODE_NAME", "ada"),
            ("NODE_LEASE_SECONDS", "4"),
            ("CLAIM_WAIT_MAX", "0"),
            ("SHUTDOWN_TIMEOUT", "0"),
        ];
        let settings = Config::from_pairs(&pairs).expect("valid").settings;
        let expected = Settings {
            arbiters: 3,
            commands_in_flight_max: 100,
            mailbox_commands_max: 100,
            loads_in_flight_max: 5,
            load_page_events: 17,
            command_timeout: Duration::from_millis(2_500),
            dedup_commands_max: 7,
            dedup_age_max: Duration::from_mins(1),
            snapshots: SnapshotPolicy { events: 9, ..SnapshotPolicy::default() },
            residency_bytes_max: 2 << 20,
            residency_idle_max: Duration::from_secs(1),
            batch_events_max: 11,
            batch_bytes_max: 1_024,
            node_name: Some("ada".to_owned()),
            application_version: String::new(),
            lease: Duration::from_secs(4),
            claim_wait_max: Duration::ZERO,
            shutdown_timeout: Duration::ZERO,
        };
        assert_eq!(settings, expected);
    }

    #[test]
    fn production_migrates_by_hand_and_keeps_what_it_stores() {
        let config = Config::from_pairs(&[("ENVIRONMENT", "production")]).expect("valid");
        assert!(!config.auto_migrate);
        let text = refusal(&[("ENVIRONMENT", "production"), ("EVENT_STORE_TYPE", "inmemory")]);
        assert!(text.contains("forgets everything") && text.contains("use sqlite or postgres"), "{text}");
    }

    #[test]
    fn an_unknown_value_is_named_with_what_is_allowed() {
        let text = refusal(&[("EVENT_STORE_TYPE", "mysql")]);
        assert_eq!(text, "EVENT_STORE_TYPE is \"mysql\"; allowed is inmemory, sqlite, postgres");
        let text = refusal(&[("LOG_LEVEL", "loud")]);
        assert!(text.starts_with("LOG_LEVEL is \"loud\"; allowed is error, warn"), "{text}");
        let text = refusal(&[("MAILBOX_COMMANDS_MAX", "0")]);
        assert_eq!(text, "MAILBOX_COMMANDS_MAX is \"0\"; allowed is 1 to 16384");
        let text = refusal(&[("DATABASE_TIMEOUT", "0")]);
        assert_eq!(text, "DATABASE_TIMEOUT is \"0\"; allowed is 0.001 to 3600 seconds");
    }

    #[test]
    fn what_a_later_release_does_is_not_ignored() {
        for (name, value) in [("EVENT_STORE_TYPE", "eventsourcingdb"), ("NATS_URL", "nats://localhost")] {
            let text = refusal(&[(name, value)]);
            assert!(text.starts_with(name) && text.contains("this release cannot do that"), "{text}");
        }
    }

    #[test]
    fn no_message_and_no_listing_tells_a_password() {
        let pairs = [("DATABASE_URL", "postgres://ada:hunter2@db/bank"), ("EVENT_STORE_TYPE", "sqlite")];
        let text = refusal(&pairs);
        assert!(!text.contains("hunter2"), "{text}");
        let config = Config::from_pairs(&pairs[..1]).expect("a PostgreSQL database");
        let shown = format!("{config:?}");
        assert!(shown.contains("ada:***") && !shown.contains("hunter2"), "{shown}");
        let pairs = [("EVENT_STORE_TYPE", "inmemory"), ("DATABASE_URL", "mysql://ada:hunter2@db/bank")];
        let config = Config::from_pairs(&pairs).expect("the in-memory store does not use it");
        let shown = format!("{:?}", config.effective());
        assert!(shown.contains("ada:***") && !shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn the_address_tells_the_store_and_every_choice_reaches_it() {
        let config = Config::from_pairs(&[
            ("DATABASE_URL", "postgresql://bank@db/bank"),
            ("DATABASE_READ_URL", "postgres://bank:pass@replica/bank"),
            ("DATABASE_POOL_OVERFLOW", "3"),
            ("DATABASE_POOL_TIMEOUT", "2"),
            ("DATABASE_POOL_RECYCLE", "0"),
            ("DATABASE_WAIT", "5"),
            ("SLOW_QUERY_MS", "250"),
            ("DATABASE_LANES", "4"),
            ("DATABASE_POOLER", "true"),
            ("ALLOW_UNSAFE_DURABILITY", "true"),
        ])
        .expect("valid");
        assert!(matches!(&config.store, StoreChoice::Postgres { url } if url.expose().ends_with("db/bank")));
        let expected = PostgresChoices {
            pool_overflow: 3,
            pool_timeout: Duration::from_secs(2),
            pool_recycle: Duration::ZERO,
            wait: Duration::from_secs(5),
            slow_query: Duration::from_millis(250),
            lanes: 4,
            pooler: true,
            allow_unsafe_durability: true,
        };
        assert_eq!(config.postgres, expected);
        let replica = config.database_read_url.expect("it is set");
        assert_eq!(replica.to_string(), "postgres://bank:***@replica/bank");
    }

    #[test]
    fn what_contradicts_itself_is_refused_with_the_remedy() {
        let text = refusal(&[("EVENT_STORE_TYPE", "postgres")]);
        assert!(text.contains("DATABASE_URL is not set") && text.contains("postgres://"), "{text}");
        let pairs = [("EVENT_STORE_TYPE", "sqlite"), ("DATABASE_URL", "postgres://db/bank")];
        assert!(refusal(&pairs).contains("set EVENT_STORE_TYPE=postgres"));
        let pairs = [("DATABASE_READ_URL", "postgres://replica/bank")];
        assert!(refusal(&pairs).contains("only a PostgreSQL database has a replica"));
        let pairs = [("ENVIRONMENT", "production"), ("ALLOW_UNSAFE_DURABILITY", "true")];
        assert!(refusal(&pairs).contains("loses acknowledged events"));
    }

    #[test]
    fn options_in_the_url_are_refused() {
        let text = refusal(&[("DATABASE_URL", "sqlite://data/bank.db?mode=memory")]);
        assert!(text.contains("allowed is sqlite://path"), "{text}");
    }
}
