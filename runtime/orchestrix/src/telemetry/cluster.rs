//! What a node of a cluster counts: the shards that it owns and why that changes, and what it asks of other nodes.
//!
//! Reasons and outcomes are closed sets of words, so the number of series stays what it is. Several nodes of one process
//! share one set of numbers: each adds its part to the gauges, and takes it back when it goes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use super::metrics::{
    CLUSTER_CLAIMS, CLUSTER_FENCES, CLUSTER_HANDOVER_TIME, CLUSTER_MOVES, CLUSTER_PEERS_CONNECTED,
    CLUSTER_REMOTE_COMMANDS, CLUSTER_SHARDS_OWNED,
};

/// Why a node claimed a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimReason {
    /// Nobody owned it: it was released, or never had an owner.
    Free,
    /// Its owner had left or was gone, or its lease had ended.
    OwnerGone,
    /// It belonged to this run, which did not have it open.
    Anew,
    /// It was sealed to be given away, and should stay after all.
    CalledOff,
}

impl ClaimReason {
    /// Every reason, in the order of the handles.
    pub const ALL: [Self; 4] = [Self::Free, Self::OwnerGone, Self::Anew, Self::CalledOff];

    /// Returns the word of the label `reason`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::OwnerGone => "owner_gone",
            Self::Anew => "anew",
            Self::CalledOff => "called_off",
        }
    }
}

/// Why a node went silent for a shard without having given it away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FenceReason {
    /// The store refused an append, since the shard has another owner or another epoch.
    AppendFenced,
    /// Nobody knows whether an append is stored.
    AppendInDoubt,
    /// The store names another owner or another epoch.
    Passed,
    /// Somebody took over, since the lease of the whole run had ended.
    Deposed,
}

impl FenceReason {
    /// Every reason, in the order of the handles.
    pub const ALL: [Self; 4] = [Self::AppendFenced, Self::AppendInDoubt, Self::Passed, Self::Deposed];

    /// Returns the word of the label `reason`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::AppendFenced => "append_fenced",
            Self::AppendInDoubt => "append_in_doubt",
            Self::Passed => "passed",
            Self::Deposed => "deposed",
        }
    }
}

/// What came of a command or a read that a node sent to another one. A command that follows a moved shard is counted
/// once for each node that it came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoteOutcome {
    /// It was done.
    Done,
    /// The aggregate refused it, or was at another version than a save expected.
    Refused,
    /// The other node does not own the shard any more, and nothing was stored.
    Moved,
    /// It was not attempted for another reason.
    Failed,
    /// Nobody knows.
    Unknown,
}

impl RemoteOutcome {
    /// Every outcome, in the order of the handles.
    pub const ALL: [Self; 5] = [Self::Done, Self::Refused, Self::Moved, Self::Failed, Self::Unknown];

    /// Returns the word of the label `outcome`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Moved => "moved",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        }
    }
}

/// The handles of a node of a cluster: [`Metrics::for_cluster`](super::Metrics::for_cluster) makes them.
pub struct ClusterMetrics {
    shards_owned: Share,
    peers_connected: Share,
    moves_in: Counter,
    moves_out: Counter,
    handover_time: Histogram,
    claims: [Counter; ClaimReason::ALL.len()],
    fences: [Counter; FenceReason::ALL.len()],
    remote_commands: [Counter; RemoteOutcome::ALL.len()],
}

impl ClusterMetrics {
    pub(super) fn new() -> Self {
        Self {
            shards_owned: Share::of(gauge!(CLUSTER_SHARDS_OWNED)),
            peers_connected: Share::of(gauge!(CLUSTER_PEERS_CONNECTED)),
            moves_in: counter!(CLUSTER_MOVES, "direction" => "in"),
            moves_out: counter!(CLUSTER_MOVES, "direction" => "out"),
            handover_time: histogram!(CLUSTER_HANDOVER_TIME),
            claims: ClaimReason::ALL.map(|reason| counter!(CLUSTER_CLAIMS, "reason" => reason.label())),
            fences: FenceReason::ALL.map(|reason| counter!(CLUSTER_FENCES, "reason" => reason.label())),
            remote_commands: RemoteOutcome::ALL
                .map(|outcome| counter!(CLUSTER_REMOTE_COMMANDS, "outcome" => outcome.label())),
        }
    }

    /// Says how many shards the node has open now.
    pub fn set_shards_owned(&self, shards: usize) {
        self.shards_owned.set(shards as u64);
    }

    /// Says how many other nodes the node is connected to now.
    pub fn set_peers_connected(&self, peers: usize) {
        self.peers_connected.set(peers as u64);
    }

    /// Counts shards that the store let the node have.
    pub fn claimed(&self, reason: ClaimReason, shards: u64) {
        self.claims[reason as usize].increment(shards);
    }

    /// Counts shards for which the node went silent.
    pub fn fenced(&self, reason: FenceReason, shards: u64) {
        self.fences[reason as usize].increment(shards);
    }

    /// Counts shards that came from another node because the plan says so.
    pub fn moved_in(&self, shards: u64) {
        self.moves_in.increment(shards);
    }

    /// Counts a shard that the node gave back for another one, and how long that took from its seal to its release:
    /// so long nobody took work for it here.
    pub fn moved_out(&self, took: Duration) {
        self.moves_out.increment(1);
        self.handover_time.record(took.as_secs_f64());
    }

    /// Counts an answer of another node, or the lack of one.
    pub fn remote_command(&self, outcome: RemoteOutcome) {
        self.remote_commands[outcome as usize].increment(1);
    }
}

/// One node's part of a gauge that all nodes of a process share.
struct Share {
    gauge: Gauge,
    part: AtomicU64,
}

impl Share {
    fn of(gauge: Gauge) -> Self {
        // Without this the gauge is not on the page until there is something to count.
        gauge.increment(0.0);
        Self { gauge, part: AtomicU64::new(0) }
    }

    /// Makes this node's part another one. Of several at once the last one holds.
    fn set(&self, part: u64) {
        let before = self.part.swap(part, Ordering::Relaxed);
        self.gauge.increment(part as f64 - before as f64);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::exporter::Recorder;
    use crate::telemetry::metrics::Metrics;

    /// Returns the value of one series, written as on the page.
    fn value(recorder: &Recorder, series: &str) -> f64 {
        let page = recorder.render();
        let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{series} is not on the page:\n{page}")).parse().expect("a number")
    }

    fn near(actual: f64, expected: f64) {
        assert!((actual - expected).abs() < 1e-9, "{actual} is not {expected}");
    }

    #[test]
    fn nodes_of_one_process_add_up_and_take_their_part_with_them() {
        let recorder = Recorder::new();
        let made = || metrics::with_local_recorder(&recorder, || Metrics::new().for_cluster());
        let (one, other) = (made(), made());
        one.set_shards_owned(10);
        other.set_shards_owned(6);
        other.set_peers_connected(1);
        one.set_shards_owned(7);
        near(value(&recorder, CLUSTER_SHARDS_OWNED), 13.0);
        drop(other);
        near(value(&recorder, CLUSTER_SHARDS_OWNED), 7.0);
        near(value(&recorder, CLUSTER_PEERS_CONNECTED), 0.0);
    }

    #[test]
    fn every_reason_and_outcome_lands_under_its_word() {
        let recorder = Recorder::new();
        let cluster = metrics::with_local_recorder(&recorder, || Metrics::new().for_cluster());
        for (number, reason) in (1..).zip(ClaimReason::ALL) {
            cluster.claimed(reason, number);
        }
        for (number, reason) in (11..).zip(FenceReason::ALL) {
            cluster.fenced(reason, number);
        }
        for outcome in RemoteOutcome::ALL {
            cluster.remote_command(outcome);
        }
        for (number, word) in (1_u8..).zip(["free", "owner_gone", "anew", "called_off"]) {
            let series = format!("{CLUSTER_CLAIMS}{{reason=\"{word}\"}}");
            near(value(&recorder, &series), f64::from(number));
        }
        for (number, word) in (11_u8..).zip(["append_fenced", "append_in_doubt", "passed", "deposed"]) {
            let series = format!("{CLUSTER_FENCES}{{reason=\"{word}\"}}");
            near(value(&recorder, &series), f64::from(number));
        }
        for word in ["done", "refused", "moved", "failed", "unknown"] {
            near(value(&recorder, &format!("{CLUSTER_REMOTE_COMMANDS}{{outcome=\"{word}\"}}")), 1.0);
        }
    }

    #[test]
    fn a_hand_over_is_counted_with_its_time() {
        let recorder = Recorder::new();
        let cluster = metrics::with_local_recorder(&recorder, || Metrics::new().for_cluster());
        cluster.moved_in(5);
        cluster.moved_out(Duration::from_millis(250));
        cluster.moved_out(Duration::from_millis(250));
        near(value(&recorder, &format!("{CLUSTER_MOVES}{{direction=\"in\"}}")), 5.0);
        near(value(&recorder, &format!("{CLUSTER_MOVES}{{direction=\"out\"}}")), 2.0);
        near(value(&recorder, &format!("{CLUSTER_HANDOVER_TIME}_sum")), 0.5);
    }
}
