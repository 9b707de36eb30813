//! The table of the variables: what each means, what it may be, what it is by default.
//!
//! `docs/operations/settings.md` has the same rows; a test compares them word by word.

/// A variable of the environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its name. The value may also stand in a file that `NAME_FILE` names.
    pub name: &'static str,
    /// What it is when it is not set, in words where that depends on others.
    pub default: &'static str,
    /// What it may be, with its unit.
    pub allowed: &'static str,
    /// What it does.
    pub meaning: &'static str,
    /// Whether it is shown masked.
    pub secret: bool,
    /// Whether this release can do it. A later release's variable stops the start, so that nobody relies on it in vain.
    pub here: bool,
}

const fn now(
    name: &'static str,
    default: &'static str,
    allowed: &'static str,
    meaning: &'static str,
) -> Variable {
    Variable { name, default, allowed, meaning, secret: false, here: true }
}

const fn later(name: &'static str, meaning: &'static str) -> Variable {
    Variable { name, default: "not set", allowed: "not set", meaning, secret: false, here: false }
}

const fn secret(variable: Variable) -> Variable {
    Variable { secret: true, ..variable }
}

/// Every variable that the runtime knows, those of later releases included.
#[rustfmt::skip]
pub const VARIABLES: &[Variable] = &[
    now("ENVIRONMENT", "development", "development, production", "Production refuses the in-memory store and does not migrate by itself."),
    now("DEBUG", "false", "true, false", "Makes `debug` the default of `LOG_LEVEL`."),
    now("EVENT_STORE_TYPE", "sqlite; postgres when DATABASE_URL says so", "inmemory, sqlite, postgres", "Where events are kept. The in-memory store forgets them when the process ends."),
    secret(now("DATABASE_URL", "sqlite://data/orchestrix.db", "sqlite://path, postgres://user:password@host:port/database?options", "The database. The in-memory store does not use it. What a PostgreSQL address leaves out comes from the PG* variables; `sslmode=verify-full` and `sslrootcert` are options.")),
    secret(now("DATABASE_READ_URL", "not set", "postgres://user:password@host:port/database?options", "PostgreSQL: a replica from which the past is read as far as it has it; what it lacks comes from the database itself.")),
    now("AUTO_MIGRATE", "true; false in production", "true, false", "Whether a start creates and upgrades the schema. When it is off, run `migrate`."),
    now("DATABASE_POOL_SIZE", "2 x cores + 1", "1 to 256 connections", "Connections for everything but appends, which have their own."),
    now("DATABASE_POOL_OVERFLOW", "10", "0 to 256 connections", "PostgreSQL: connections that are open in a rush, above the pool's size, and closed after it."),
    now("DATABASE_POOL_TIMEOUT", "30", "0.001 to 3600 seconds", "PostgreSQL: how long a caller waits for a connection of the pool."),
    now("DATABASE_POOL_RECYCLE", "3600", "seconds; 0 for no limit", "PostgreSQL: how old a connection gets before it is replaced."),
    now("DATABASE_TIMEOUT", "30", "0.001 to 3600 seconds", "How long a statement may run, and an operation waits for the database's lock."),
    now("DATABASE_WAIT", "60", "seconds", "PostgreSQL: how long a start waits for a database that does not answer yet."),
    now("DATABASE_LANES", "2", "1 to 8 appends", "PostgreSQL: appends under way at once, each on a connection of its own."),
    now("DATABASE_POOLER", "false", "true, false", "PostgreSQL: whether a pooler that shares sessions, such as PgBouncer in transaction mode, stands before the server."),
    now("SLOW_QUERY_MS", "1000", "0 to 3600000 milliseconds; 0 for none", "PostgreSQL: statements that take as long or longer are logged."),
    now("ALLOW_UNSAFE_DURABILITY", "false", "true, false", "PostgreSQL: lets a database serve that loses acknowledged events in a power cut. For trials."),
    now("SHARD_COUNT", "what the database has; for a new one 16 with SQLite, 256 with PostgreSQL", "1 to 4096 shards", "Parts of the log. The number is fixed when the database is created; another one is refused later."),
    now("SNAPSHOT_INTERVAL", "100", "0 to 4294967295 events", "Events after which an aggregate takes a snapshot; 0 turns snapshots off. Kinds of aggregates with a policy of their own keep it."),
    now("LOG_LEVEL", "info", "error, warn, info, debug, trace, off, or a list such as info,orchestrix=debug", "Which log lines are written."),
    now("LOG_FORMAT", "text", "text, json", "How a log line is written."),
    now("METRICS_ENABLED", "true", "true, false", "Whether metrics are counted and `/metrics` is served."),
    now("TRACING_ENABLED", "false", "true, false", "Whether traces are exported, over HTTP by OTLP. It needs a build with the feature `otlp`, which the bank has."),
    now("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318", "http://host:port", "The collector that traces go to; `/v1/traces` is added to it. Read together with `TRACING_ENABLED` only."),
    now("JAEGER_ENDPOINT", "not set", "http://host:port/path or host:port", "The old name of `OTEL_EXPORTER_OTLP_ENDPOINT`: its host is taken, with port 4318, and a warning is logged."),
    now("HTTP_ADDR", "127.0.0.1:8000", "address:port", "Where the service listens for HTTP."),
    now("ARBITERS", "cores", "1 to 256 threads", "Threads that carry aggregates."),
    now("COMMANDS_IN_FLIGHT_MAX", "16384", "1 to 1000000 commands", "Commands and reads accepted and not yet answered on the whole node. Over it callers hear `overloaded`."),
    now("MAILBOX_COMMANDS_MAX", "8192, at most COMMANDS_IN_FLIGHT_MAX", "1 to COMMANDS_IN_FLIGHT_MAX commands", "The same for one aggregate."),
    now("LOADS_IN_FLIGHT_MAX", "64", "1 to 4096 loads", "Aggregates that are read from the store at the same time."),
    now("LOAD_PAGE_EVENTS", "1024", "16 to 100000 events", "Events read in one step of a load; it bounds the memory of a long replay."),
    now("COMMAND_TIMEOUT", "30", "0.001 to 3600 seconds", "How long a command may take when its sender gives no deadline."),
    now("DEDUP_COMMANDS_MAX", "16384", "1 to 100000 commands", "Command ids that one aggregate remembers with their replies."),
    now("DEDUP_AGE_MAX", "86400", "1 to 2592000 seconds", "How long a command id is remembered. An older one is refused as expired."),
    now("RESIDENCY_BYTES_MAX", "256MiB", "at least 1MiB", "Memory for aggregates. Over it the least recently used ones leave memory."),
    now("RESIDENCY_IDLE_MAX", "600", "0.01 to 2592000 seconds", "How long an aggregate stays in memory without being used."),
    now("BATCH_EVENTS_MAX", "1024", "1 to 100000 events", "Events that one append carries at most."),
    now("BATCH_BYTES_MAX", "4MiB", "1KiB to 1GiB", "Bytes that one append carries at most. A larger commit travels alone."),
    now("NODE_NAME", "host/process", "any text", "What a second node is told that finds the shards held."),
    now("NODE_LEASE_SECONDS", "6", "1 to 300 seconds", "How long a node holds its shards without hearing from the database, where several nodes may share it."),
    now("CLAIM_WAIT_MAX", "10", "0 to 3600 seconds", "How long a start waits for shards that another node holds; 0 refuses at once."),
    now("SHUTDOWN_TIMEOUT", "30", "0 to 3600 seconds", "How long a shutdown waits for work under way."),
    now("SHUTDOWN_NOTICE", "0", "0 to 3600 seconds", "How long a service goes on taking requests after a signal to stop, while `/ready` says no already, so that a load balancer can notice."),
    now("NODE_ADDR", "not set", "address:port", "Where this node listens for other nodes. With it the node joins the cluster of its PostgreSQL database; without it the node stays alone."),
    now("NODE_ADVERTISE", "where it listens", "host:port", "How other nodes reach this one. It must be set when `NODE_ADDR` is a wildcard such as 0.0.0.0, and behind a translation of addresses."),
    now("NODE_TLS_CERT", "not set", "name of a PEM file", "The certificate that this node shows to other nodes. It must be a node's; see the page on TLS."),
    secret(now("NODE_TLS_KEY", "not set", "name of a PEM file", "The key of `NODE_TLS_CERT`.")),
    now("NODE_TLS_CA", "not set", "name of a PEM file", "The authorities whose nodes are believed."),
    now("NODE_PLAINTEXT_ALLOWED", "false", "true, false", "Lets the traffic between nodes leave this machine as plain text, for networks that encrypt by themselves."),
    secret(later("NATS_URL", "The message bus to publish to.")),
];

/// Returns the row of a variable.
///
/// # Panics
/// When there is none: every variable that is read has a row.
pub(super) fn row(name: &str) -> &'static Variable {
    VARIABLES.iter().find(|variable| variable.name == name).expect("every variable that is read has a row")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_has_exactly_these_rows() {
        let manual = include_str!("../../../../docs/operations/settings.md");
        let mut listed: Vec<&str> = manual.lines().filter(|line| line.starts_with("| `")).collect();
        let mut known: Vec<String> = VARIABLES
            .iter()
            .map(|Variable { name, default, allowed, meaning, here, .. }| {
                if *here {
                    format!("| `{name}` | {default} | {allowed} | {meaning} |")
                } else {
                    format!("| `{name}` | {meaning} |")
                }
            })
            .collect();
        listed.sort_unstable();
        known.sort_unstable();
        assert_eq!(listed, known);
    }

    #[test]
    fn the_example_file_names_only_known_variables() {
        let example = include_str!("../../../../.env.example");
        for line in example.lines().filter(|line| line.contains('=')) {
            let name = line.trim_start_matches(['#', ' ']).split('=').next().expect("split gives one part");
            assert!(VARIABLES.iter().any(|variable| variable.name == name && variable.here), "{name}");
        }
    }
}
