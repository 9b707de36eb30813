//! Every metric of the runtime: its name, its labels, and the handles that the runtime keeps.
//!
//! Handles are made once, when a node starts; the path of a command then costs a few atomic additions and no look-up.
//! Nothing is labelled by an aggregate's id. Several nodes of one process share one set of numbers, so gauges
//! are moved up and down, not set. `docs/operations/metrics.md` lists the same metrics; a test compares the two.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, NoopRecorder, Unit, counter, gauge, histogram};
use orchestrix_core::SnapshotDefect;

use super::cluster::ClusterMetrics;

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// A number that only grows.
    Counter,
    /// A number that moves up and down.
    Gauge,
    /// A distribution in fixed buckets, with sum and count.
    Histogram,
}

/// One metric, as it is described to the exporter and to readers of the manual.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetricInfo {
    /// The name, `orchestrix_<noun>_<unit>[_total]`.
    pub name: &'static str,
    /// What it is.
    pub kind: MetricKind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// Its unit.
    pub unit: Unit,
    /// What it counts, in one sentence.
    pub help: &'static str,
}

/// Commands by how they ended.
pub const COMMANDS: &str = "orchestrix_commands_total";
/// How long commands took.
pub const COMMAND_LATENCY: &str = "orchestrix_command_latency_seconds";
/// Reads answered.
pub const READS: &str = "orchestrix_reads_total";
/// Events made durable.
pub const EVENTS_STORED: &str = "orchestrix_events_stored_total";
/// Events read from the store.
pub const EVENTS_LOADED: &str = "orchestrix_events_loaded_total";
/// Events applied to rebuild a state.
pub const EVENTS_REPLAYED: &str = "orchestrix_events_replayed_total";
/// How long reading events took.
pub const EVENT_LOAD_TIME: &str = "orchestrix_event_load_time_seconds";
/// How long applying events took.
pub const EVENT_REPLAY_TIME: &str = "orchestrix_event_replay_time_seconds";
/// Aggregates brought into memory.
pub const ACTIVATIONS: &str = "orchestrix_activations_total";
/// Aggregates sent out of memory.
pub const PASSIVATIONS: &str = "orchestrix_passivations_total";
/// Activations that used a snapshot.
pub const SNAPSHOT_HITS: &str = "orchestrix_snapshot_hits_total";
/// Activations that found no usable snapshot.
pub const SNAPSHOT_MISSES: &str = "orchestrix_snapshot_misses_total";
/// Snapshots stored.
pub const SNAPSHOTS_SAVED: &str = "orchestrix_snapshots_saved_total";
/// Snapshots that were of no use.
pub const SNAPSHOT_DEFECTS: &str = "orchestrix_snapshot_defects_total";
/// Aggregates put in quarantine.
pub const QUARANTINES: &str = "orchestrix_quarantines_total";
/// Commits in one append.
pub const BATCH_COMMITS: &str = "orchestrix_batch_commits";
/// Events in one append.
pub const BATCH_EVENTS: &str = "orchestrix_batch_events";
/// How long one append took.
pub const COMMIT_LATENCY: &str = "orchestrix_commit_latency_seconds";
/// Commits that wait for their append.
pub const WRITER_QUEUE: &str = "orchestrix_writer_queue_commits";
/// Commands and reads under way.
pub const IN_FLIGHT: &str = "orchestrix_commands_in_flight";
/// Aggregates in memory.
pub const RESIDENT_AGGREGATES: &str = "orchestrix_resident_aggregates";
/// Their weight.
pub const RESIDENT_BYTES: &str = "orchestrix_resident_bytes";
/// What went wrong, by kind.
pub const ERRORS: &str = "orchestrix_errors_total";
/// Hooks that panicked.
pub const HOOK_PANICS: &str = "orchestrix_hook_panics_total";
/// Whether the store answered when it was last asked.
pub const STORE_UP: &str = "orchestrix_store_up";
/// Reads of the past, by what the replica had of them.
pub const REPLICA_READS: &str = "orchestrix_replica_reads_total";
/// Connections of the pool to PostgreSQL.
pub const POOL_CONNECTIONS: &str = "orchestrix_pool_connections";
/// Callers that wait for one.
pub const POOL_WAITERS: &str = "orchestrix_pool_waiters";
/// Shards that a node of a cluster has open.
pub const CLUSTER_SHARDS_OWNED: &str = "orchestrix_cluster_shards_owned";
/// Other nodes that a node is connected to.
pub const CLUSTER_PEERS_CONNECTED: &str = "orchestrix_cluster_peers_connected";
/// Shards that went from one node to another as planned.
pub const CLUSTER_MOVES: &str = "orchestrix_cluster_moves_total";
/// How long giving a shard back took.
pub const CLUSTER_HANDOVER_TIME: &str = "orchestrix_cluster_handover_seconds";
/// Shards claimed.
pub const CLUSTER_CLAIMS: &str = "orchestrix_cluster_claims_total";
/// Shards for which a node went silent.
pub const CLUSTER_FENCES: &str = "orchestrix_cluster_fences_total";
/// Commands and reads sent to other nodes.
pub const CLUSTER_REMOTE_COMMANDS: &str = "orchestrix_cluster_remote_commands_total";
/// Memory of the process.
pub const PROCESS_RESIDENT_BYTES: &str = "orchestrix_process_resident_bytes";

const NONE: &[&str] = &[];
const TYPE: &[&str] = &["aggregate_type"];
const TYPE_AND_OUTCOME: &[&str] = &["aggregate_type", "outcome"];
const TYPE_AND_KIND: &[&str] = &["aggregate_type", "kind"];

const fn info(
    kind: MetricKind,
    name: &'static str,
    labels: &'static [&'static str],
    unit: Unit,
    help: &'static str,
) -> MetricInfo {
    MetricInfo { name, kind, labels, unit, help }
}

/// Every metric that the runtime exports.
#[rustfmt::skip]
pub const CATALOGUE: &[MetricInfo] = {
    use MetricKind::{Counter, Gauge, Histogram};
    use Unit::{Bytes, Count, Seconds};
    &[
        info(Counter, COMMANDS, TYPE_AND_OUTCOME, Count, "Commands by how they ended."),
        info(Histogram, COMMAND_LATENCY, TYPE, Seconds, "Time from a command's acceptance to its answer."),
        info(Counter, READS, TYPE, Count, "Reads of states that were answered."),
        info(Counter, EVENTS_STORED, TYPE, Count, "Events made durable."),
        info(Counter, EVENTS_LOADED, TYPE, Count, "Events read from the store for activations and looks at the past."),
        info(Counter, EVENTS_REPLAYED, TYPE, Count, "Events applied to rebuild a state."),
        info(Histogram, EVENT_LOAD_TIME, TYPE, Seconds, "Time to read one aggregate's snapshot and events."),
        info(Histogram, EVENT_REPLAY_TIME, TYPE, Seconds, "Time to apply the events of one activation."),
        info(Counter, ACTIVATIONS, TYPE, Count, "Aggregates brought into memory."),
        info(Counter, PASSIVATIONS, TYPE, Count, "Aggregates sent out of memory."),
        info(Counter, SNAPSHOT_HITS, TYPE, Count, "Activations that started from a snapshot."),
        info(Counter, SNAPSHOT_MISSES, TYPE, Count, "Activations of existing aggregates that replayed from the first event."),
        info(Counter, SNAPSHOTS_SAVED, TYPE, Count, "Snapshots stored."),
        info(Counter, SNAPSHOT_DEFECTS, TYPE_AND_KIND, Count, "Stored snapshots that were not used, by reason."),
        info(Counter, QUARANTINES, TYPE, Count, "Aggregates put in quarantine."),
        info(Histogram, BATCH_COMMITS, NONE, Count, "Commits in one append."),
        info(Histogram, BATCH_EVENTS, NONE, Count, "Events in one append."),
        info(Histogram, COMMIT_LATENCY, NONE, Seconds, "Time of one append, durability included."),
        info(Gauge, WRITER_QUEUE, NONE, Count, "Commits that wait for their append."),
        info(Gauge, IN_FLIGHT, NONE, Count, "Commands and reads accepted and not yet answered."),
        info(Gauge, RESIDENT_AGGREGATES, NONE, Count, "Aggregates in memory."),
        info(Gauge, RESIDENT_BYTES, NONE, Bytes, "Weight of the aggregates in memory."),
        info(Counter, ERRORS, &["kind"], Count, "Failures by kind; refusals by the domain are not failures."),
        info(Counter, HOOK_PANICS, NONE, Count, "Calls of observability hooks that panicked."),
        info(Gauge, STORE_UP, NONE, Count, "1 when the store answered the last time it was asked, else 0."),
        info(Counter, REPLICA_READS, &["result"], Count, "Reads of the past by what the replica had: all of it (`whole`), a part (`topped_up` from the store), no answer (`failed`)."),
        info(Gauge, POOL_CONNECTIONS, &["state"], Count, "Connections of the pool to PostgreSQL, idle or in use."),
        info(Gauge, POOL_WAITERS, NONE, Count, "Callers that wait for a connection of the pool."),
        info(Gauge, CLUSTER_SHARDS_OWNED, NONE, Count, "Shards that this node has open."),
        info(Gauge, CLUSTER_PEERS_CONNECTED, NONE, Count, "Other nodes that this node is connected to."),
        info(Counter, CLUSTER_MOVES, &["direction"], Count, "Shards that came to this node (`in`) or were given away (`out`) as planned."),
        info(Histogram, CLUSTER_HANDOVER_TIME, NONE, Seconds, "Time from a shard's seal to its release."),
        info(Counter, CLUSTER_CLAIMS, &["reason"], Count, "Shards claimed, by reason."),
        info(Counter, CLUSTER_FENCES, &["reason"], Count, "Shards for which this node went silent, by reason."),
        info(Counter, CLUSTER_REMOTE_COMMANDS, &["outcome"], Count, "Commands and reads sent to other nodes, by how they ended there."),
        info(Gauge, PROCESS_RESIDENT_BYTES, NONE, Bytes, "Resident memory of the process."),
    ]
};

/// The closed set of words for the label `kind` of [`ERRORS`]; the first ones are those of
/// [`NotAttempted::kind`](crate::NotAttempted::kind).
pub const ERROR_KINDS: &[&str] = &[
    "overloaded",
    "deadline_exceeded",
    "unavailable",
    "not_owner",
    "behind",
    "shutting_down",
    "id_reused",
    "id_expired",
    "quarantined",
    "not_registered",
    "invalid_id",
    "unencodable",
    "unknown_command",
    "unknown",
    "conflict",
    "fenced",
    "panicked",
    "undecodable",
    "snapshot",
    "other",
];

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandOutcome {
    /// Its events are durable, or it had none.
    Done,
    /// The aggregate refused it.
    Refused,
    /// Nobody knows.
    Unknown,
    /// A bound was hit.
    Overloaded,
    /// It was not attempted for any other reason.
    Failed,
    /// It got the answer of an earlier command with the same id.
    Duplicate,
}

impl CommandOutcome {
    /// Every outcome, in the order of the handles.
    pub const ALL: [Self; 6] =
        [Self::Done, Self::Refused, Self::Unknown, Self::Overloaded, Self::Failed, Self::Duplicate];

    /// Returns the word of the label `outcome`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
            Self::Overloaded => "overloaded",
            Self::Failed => "failed",
            Self::Duplicate => "duplicate",
        }
    }
}

const DEFECTS: [&str; 8] = [
    "no_header",
    "other_form",
    "other_schema",
    "checksum",
    "undecodable",
    "ahead_of_stream",
    "other_place",
    "other",
];

const fn defect_index(defect: SnapshotDefect) -> usize {
    match defect {
        SnapshotDefect::NoHeader => 0,
        SnapshotDefect::OtherForm => 1,
        SnapshotDefect::OtherSchema => 2,
        SnapshotDefect::Checksum => 3,
        SnapshotDefect::Undecodable => 4,
        SnapshotDefect::AheadOfStream => 5,
        SnapshotDefect::OtherPlace => 6,
        _ => 7,
    }
}

/// The node's handles that belong to no single kind of aggregate.
pub struct Metrics {
    /// Commits in one append: record once an append.
    pub batch_commits: Histogram,
    /// Events in one append: record once an append.
    pub batch_events: Histogram,
    /// Seconds that one append took.
    pub commit_latency: Histogram,
    /// Commits that wait: up when queued, down when taken into an append.
    pub writer_queue: Gauge,
    /// Commands and reads under way: up when accepted, down when answered.
    pub in_flight: Gauge,
    /// Aggregates in memory: up and down.
    pub resident_aggregates: Gauge,
    /// Their weight in bytes: up and down.
    pub resident_bytes: Gauge,
    /// Hooks that panicked.
    pub hook_panics: Counter,
    /// Set to 1 when the store answered, to 0 when it did not.
    pub store_up: Gauge,
    errors: Vec<Counter>,
    enabled: bool,
}

impl Metrics {
    /// Registers every metric at the recorder of this process; without one, all handles do nothing.
    pub fn new() -> Self {
        describe();
        Self {
            batch_commits: histogram!(BATCH_COMMITS),
            batch_events: histogram!(BATCH_EVENTS),
            commit_latency: histogram!(COMMIT_LATENCY),
            writer_queue: gauge!(WRITER_QUEUE),
            in_flight: gauge!(IN_FLIGHT),
            resident_aggregates: gauge!(RESIDENT_AGGREGATES),
            resident_bytes: gauge!(RESIDENT_BYTES),
            hook_panics: counter!(HOOK_PANICS),
            store_up: gauge!(STORE_UP),
            errors: ERROR_KINDS.iter().map(|kind| counter!(ERRORS, "kind" => *kind)).collect(),
            enabled: true,
        }
    }

    /// Makes handles that do nothing, whatever recorder the process has.
    pub fn disabled() -> Self {
        Self { enabled: false, ..metrics::with_local_recorder(&NoopRecorder, Self::new) }
    }

    /// Makes the handles of one kind of aggregate. Call it once when the kind is registered, and keep them.
    pub fn for_type(&self, aggregate_type: &'static str) -> TypeMetrics {
        if self.enabled {
            TypeMetrics::new(aggregate_type)
        } else {
            metrics::with_local_recorder(&NoopRecorder, || TypeMetrics::new(aggregate_type))
        }
    }

    /// Makes the handles of a node of a cluster. Keep them as long as the node: their part of the gauges goes with them.
    pub fn for_cluster(&self) -> ClusterMetrics {
        if self.enabled {
            ClusterMetrics::new()
        } else {
            metrics::with_local_recorder(&NoopRecorder, ClusterMetrics::new)
        }
    }

    /// Makes the handles of a replica.
    pub(crate) fn for_replica(&self) -> ReplicaMetrics {
        if self.enabled {
            ReplicaMetrics::new()
        } else {
            metrics::with_local_recorder(&NoopRecorder, ReplicaMetrics::new)
        }
    }

    /// Counts a failure. A word outside [`ERROR_KINDS`] counts as `other`, so that the set stays closed.
    pub fn error(&self, kind: &str) {
        let at = ERROR_KINDS.iter().position(|known| *known == kind).unwrap_or(ERROR_KINDS.len() - 1);
        self.errors[at].increment(1);
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// The handles of a replica.
pub(crate) struct ReplicaMetrics {
    pub(crate) whole: Counter,
    pub(crate) topped_up: Counter,
    pub(crate) failed: Counter,
}

impl ReplicaMetrics {
    fn new() -> Self {
        let made = |result: &'static str| counter!(REPLICA_READS, "result" => result);
        Self { whole: made("whole"), topped_up: made("topped_up"), failed: made("failed") }
    }
}

/// The handles of one kind of aggregate.
pub struct TypeMetrics {
    /// Reads of the state that were answered.
    pub reads: Counter,
    /// Events made durable.
    pub events_stored: Counter,
    /// Aggregates brought into memory.
    pub activations: Counter,
    /// Aggregates sent out of memory.
    pub passivations: Counter,
    /// Activations that started from a snapshot.
    pub snapshot_hits: Counter,
    /// Activations of existing aggregates that replayed from the first event.
    pub snapshot_misses: Counter,
    /// Snapshots stored.
    pub snapshots_saved: Counter,
    /// Aggregates put in quarantine.
    pub quarantines: Counter,
    commands: [Counter; CommandOutcome::ALL.len()],
    command_latency: Histogram,
    events_loaded: Counter,
    event_load_time: Histogram,
    events_replayed: Counter,
    event_replay_time: Histogram,
    snapshot_defects: [Counter; DEFECTS.len()],
}

impl TypeMetrics {
    fn new(aggregate_type: &'static str) -> Self {
        let count = |name: &'static str| counter!(name, "aggregate_type" => aggregate_type);
        let spread = |name: &'static str| histogram!(name, "aggregate_type" => aggregate_type);
        Self {
            reads: count(READS),
            events_stored: count(EVENTS_STORED),
            activations: count(ACTIVATIONS),
            passivations: count(PASSIVATIONS),
            snapshot_hits: count(SNAPSHOT_HITS),
            snapshot_misses: count(SNAPSHOT_MISSES),
            snapshots_saved: count(SNAPSHOTS_SAVED),
            quarantines: count(QUARANTINES),
            commands: CommandOutcome::ALL.map(
                |outcome| counter!(COMMANDS, "aggregate_type" => aggregate_type, "outcome" => outcome.label()),
            ),
            command_latency: spread(COMMAND_LATENCY),
            events_loaded: count(EVENTS_LOADED),
            event_load_time: spread(EVENT_LOAD_TIME),
            events_replayed: count(EVENTS_REPLAYED),
            event_replay_time: spread(EVENT_REPLAY_TIME),
            snapshot_defects: DEFECTS
                .map(|kind| counter!(SNAPSHOT_DEFECTS, "aggregate_type" => aggregate_type, "kind" => kind)),
        }
    }

    /// Counts an answered command and how long it took since it was accepted.
    pub fn command(&self, outcome: CommandOutcome, took: Duration) {
        self.commands[outcome as usize].increment(1);
        self.command_latency.record(took.as_secs_f64());
    }

    /// Counts events that were read from the store in one go.
    pub fn loaded(&self, events: u64, took: Duration) {
        self.events_loaded.increment(events);
        self.event_load_time.record(took.as_secs_f64());
    }

    /// Counts events that were applied to rebuild one state.
    pub fn replayed(&self, events: u64, took: Duration) {
        self.events_replayed.increment(events);
        self.event_replay_time.record(took.as_secs_f64());
    }

    /// Counts a stored snapshot that could not be used.
    pub fn snapshot_defect(&self, defect: SnapshotDefect) {
        self.snapshot_defects[defect_index(defect)].increment(1);
    }
}

/// The handles of a pool of connections.
pub struct PoolMetrics {
    idle: Gauge,
    in_use: Gauge,
    waiters: Gauge,
}

impl PoolMetrics {
    /// Registers them at the recorder of this process.
    pub fn new() -> Self {
        Self {
            idle: gauge!(POOL_CONNECTIONS, "state" => "idle"),
            in_use: gauge!(POOL_CONNECTIONS, "state" => "in_use"),
            waiters: gauge!(POOL_WAITERS),
        }
    }

    /// Says how the pool stands.
    pub fn set(&self, idle: usize, in_use: usize, waiters: usize) {
        self.idle.set(idle as f64);
        self.in_use.set(in_use as f64);
        self.waiters.set(waiters as f64);
    }
}

impl Default for PoolMetrics {
    fn default() -> Self {
        Self::new()
    }
}

fn describe() {
    for metric in CATALOGUE {
        let MetricInfo { name, unit, help, .. } = *metric;
        match metric.kind {
            MetricKind::Counter => metrics::describe_counter!(name, unit, help),
            MetricKind::Gauge => metrics::describe_gauge!(name, unit, help),
            MetricKind::Histogram => metrics::describe_histogram!(name, unit, help),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use orchestrix_core::{Epoch, ShardId, Version};

    use super::*;
    use crate::NotAttempted;
    use crate::telemetry::exporter::Recorder;

    fn names() -> BTreeSet<&'static str> {
        CATALOGUE.iter().map(|metric| metric.name).collect()
    }

    #[test]
    fn the_manual_lists_exactly_the_metrics_that_exist() {
        let manual = include_str!("../../../../docs/operations/metrics.md");
        let listed: BTreeSet<String> = manual
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
            .filter(|(name, _)| name.starts_with("orchestrix_"))
            .map(|(name, rest)| {
                format!("{name}{}", rest.trim_start_matches(" | ").split('|').next().unwrap_or(""))
            })
            .map(|row| row.trim().to_owned())
            .collect();
        let exist: BTreeSet<String> = CATALOGUE
            .iter()
            .map(|metric| format!("{}{}", metric.name, format!("{:?}", metric.kind).to_lowercase()))
            .collect();
        assert_eq!(listed, exist);
    }

    #[test]
    fn every_metric_is_registered_with_the_labels_it_promises() {
        let recorder = Recorder::new();
        let page = metrics::with_local_recorder(&recorder, || {
            let metrics = Metrics::new();
            let _types = metrics.for_type("account");
            let _replica = metrics.for_replica();
            let _cluster = metrics.for_cluster();
            PoolMetrics::new().set(1, 2, 3);
            gauge!(PROCESS_RESIDENT_BYTES).set(1.0);
            recorder.render()
        });
        for metric in CATALOGUE {
            let line = page.lines().find(|line| {
                line.strip_prefix(metric.name).is_some_and(|rest| rest.starts_with(['{', ' ', '_']))
            });
            let line = line.unwrap_or_else(|| panic!("{} is not rendered", metric.name));
            for label in metric.labels {
                assert!(line.contains(&format!("{label}=\"")), "{line} lacks {label}");
            }
            assert!(page.contains(&format!("# HELP {} ", metric.name)), "{} has no help", metric.name);
        }
    }

    #[test]
    fn names_keep_the_rule() {
        assert_eq!(names().len(), CATALOGUE.len(), "a name is used twice");
        for metric in CATALOGUE {
            assert!(metric.name.starts_with("orchestrix_"), "{}", metric.name);
            assert_eq!(
                metric.name.ends_with("_total"),
                metric.kind == MetricKind::Counter,
                "{}",
                metric.name
            );
            assert!(!metric.labels.contains(&"id"), "{}", metric.name);
        }
    }

    #[test]
    fn outcomes_defects_and_errors_land_under_their_words() {
        let recorder = Recorder::new();
        let page = metrics::with_local_recorder(&recorder, || {
            let metrics = Metrics::new();
            let types = metrics.for_type("account");
            for outcome in CommandOutcome::ALL {
                types.command(outcome, Duration::from_millis(1));
            }
            types.snapshot_defect(SnapshotDefect::Checksum);
            metrics.error("fenced");
            metrics.error("no such kind");
            recorder.render()
        });
        for outcome in CommandOutcome::ALL {
            let line =
                format!("{COMMANDS}{{aggregate_type=\"account\",outcome=\"{}\"}} 1\n", outcome.label());
            assert!(page.contains(&line), "{line}");
        }
        assert!(
            page.contains(
                "orchestrix_snapshot_defects_total{aggregate_type=\"account\",kind=\"checksum\"} 1"
            )
        );
        assert!(page.contains("orchestrix_errors_total{kind=\"fenced\"} 1"));
        assert!(page.contains("orchestrix_errors_total{kind=\"other\"} 1"));
        assert!(page.contains("orchestrix_command_latency_seconds_count{aggregate_type=\"account\"} 6"));
    }

    #[test]
    fn disabled_metrics_reach_no_recorder() {
        let recorder = Recorder::new();
        let page = metrics::with_local_recorder(&recorder, || {
            let metrics = Metrics::disabled();
            metrics.for_type("account").command(CommandOutcome::Done, Duration::ZERO);
            metrics.for_cluster().set_shards_owned(1);
            metrics.error("fenced");
            recorder.render()
        });
        assert!(!page.contains("orchestrix_commands"), "{page}");
        assert!(!page.contains("orchestrix_cluster"), "{page}");
        assert!(!page.contains("orchestrix_errors"), "{page}");
    }

    #[test]
    fn every_reason_of_a_command_not_attempted_has_its_word() {
        let all = [
            NotAttempted::Overloaded { what: "x".into(), limit: 1, retry_after: Duration::ZERO },
            NotAttempted::DeadlineExceeded,
            NotAttempted::Unavailable { reason: Arc::from("x") },
            NotAttempted::NotOwner { shard: ShardId::new(1), owner: None, epoch: Epoch::ZERO },
            NotAttempted::Behind { version: Version::ZERO, wanted: Version::new(1) },
            NotAttempted::ShuttingDown,
            NotAttempted::InvalidId { problem: Arc::from("x") },
            NotAttempted::Unencodable { reason: Arc::from("x") },
        ];
        for error in all {
            assert!(ERROR_KINDS.contains(&error.kind()), "{}", error.kind());
        }
    }
}
