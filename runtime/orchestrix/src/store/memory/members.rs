//! The runs that share an in-memory store, and the version of what they see. Plain synchronous code: the caller holds the
//! lock around each call, and reads the clock.

use std::collections::BTreeMap;
use std::time::Duration;

use orchestrix_core::Incarnation;
use orchestrix_core::store::{Member, NodeRecord, Renewed, Report};
use tokio::time::Instant;

/// How long a run is remembered whose lease has ended and that owns nothing.
const LEFTOVER_KEPT: Duration = Duration::from_mins(10);

/// The longest lease: a hundred years, which no clock runs out of.
const LEASE_MAX: Duration = Duration::from_hours(24 * 365 * 100);

/// Who joined and has not left.
pub(super) struct Members {
    version: u64,
    runs: BTreeMap<Incarnation, Run>,
}

struct Run {
    node: NodeRecord,
    until: Instant,
    draining: bool,
    deposed: bool,
    load: u64,
}

impl Run {
    fn is_alive(&self, now: Instant) -> bool {
        !self.deposed && self.until > now
    }
}

impl Members {
    pub(super) fn new() -> Self {
        Self { version: 1, runs: BTreeMap::new() }
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// Something that a view tells has changed.
    pub(super) fn change(&mut self) {
        self.version += 1;
    }

    pub(super) fn join(&mut self, node: NodeRecord, lease: Duration, now: Instant) {
        let until = end(lease, now);
        if let Some(run) = self.runs.get_mut(&node.incarnation) {
            run.until = if run.deposed { run.until } else { until };
            let is_news = run.node != node;
            run.node = node;
            self.version += u64::from(is_news);
            return;
        }
        let run = Run { node, until, draining: false, deposed: false, load: 0 };
        self.runs.insert(run.node.incarnation, run);
        self.change();
    }

    /// Forgets runs that ended long ago, except those that own something.
    pub(super) fn clear_leftovers(&mut self, now: Instant, owns: impl Fn(Incarnation) -> bool) {
        let before = self.runs.len();
        self.runs.retain(|id, run| now.saturating_duration_since(run.until) < LEFTOVER_KEPT || owns(*id));
        self.version += u64::from(self.runs.len() < before);
    }

    pub(super) fn renew(
        &mut self,
        owner: Incarnation,
        lease: Duration,
        report: Report,
        now: Instant,
    ) -> Renewed {
        let run = self.runs.get_mut(&owner).filter(|run| !run.deposed);
        let holds = run.is_some();
        if let Some(run) = run {
            run.until = end(lease, now);
            run.load = report.load;
            let is_news = report.draining && !run.draining;
            run.draining |= report.draining;
            self.version += u64::from(is_news);
        }
        Renewed { holds, view: self.version }
    }

    pub(super) fn leave(&mut self, owner: Incarnation) {
        let left = self.runs.remove(&owner).is_some();
        self.version += u64::from(left);
    }

    /// Marks a run as draining; `false` when it is no member.
    pub(super) fn drain(&mut self, run: Incarnation) -> bool {
        let Some(run) = self.runs.get_mut(&run) else { return false };
        let is_news = !std::mem::replace(&mut run.draining, true);
        self.version += u64::from(is_news);
        true
    }

    /// Returns the name of a run that holds its lease.
    pub(super) fn holder(&self, run: Incarnation, now: Instant) -> Option<&str> {
        self.runs.get(&run).filter(|run| run.is_alive(now)).map(|run| run.node.name.as_str())
    }

    /// Somebody takes over a shard of the run, whose lease has ended.
    pub(super) fn depose(&mut self, run: Incarnation) {
        if let Some(run) = self.runs.get_mut(&run) {
            run.deposed = true;
        }
    }

    pub(super) fn all(&self, now: Instant) -> Vec<Member> {
        let member = |run: &Run| Member {
            node: run.node.clone(),
            lease_left: run.until.saturating_duration_since(now),
            draining: run.draining,
            deposed: run.deposed,
            load: run.load,
        };
        self.runs.values().map(member).collect()
    }
}

fn end(lease: Duration, now: Instant) -> Instant {
    now + lease.min(LEASE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> NodeRecord {
        NodeRecord {
            incarnation: Incarnation::fresh(),
            name: "one".to_owned(),
            host: String::new(),
            boot_id: String::new(),
            pid_namespace: String::new(),
            pid: 1,
            pid_started: 0,
            application_version: "1".to_owned(),
            address: None,
        }
    }

    #[test]
    fn a_lease_ends_when_its_time_has_passed_and_holds_again_once_renewed() {
        let (mut members, node, now) = (Members::new(), node(), Instant::now());
        let (run, second) = (node.incarnation, Duration::from_secs(1));
        members.join(node, second, now);
        assert_eq!(members.holder(run, now), Some("one"));
        assert_eq!(members.holder(run, now + second), None);
        assert!(members.renew(run, second, Report::default(), now + second).holds);
        assert_eq!(members.holder(run, now + second), Some("one"));
    }

    #[test]
    fn a_run_that_ended_long_ago_is_forgotten_unless_it_owns_something() {
        let (mut members, node, now) = (Members::new(), node(), Instant::now());
        let run = node.incarnation;
        members.join(node, Duration::ZERO, now);
        let version = members.version();
        members.clear_leftovers(now + LEFTOVER_KEPT / 2, |_| false);
        members.clear_leftovers(now + LEFTOVER_KEPT, |id| id == run);
        assert_eq!((members.all(now).len(), members.version()), (1, version));
        members.clear_leftovers(now + LEFTOVER_KEPT, |_| false);
        assert_eq!((members.all(now).len(), members.version()), (0, version + 1));
    }

    #[test]
    fn a_lease_of_any_length_is_taken() {
        let (mut members, node, now) = (Members::new(), node(), Instant::now());
        let run = node.incarnation;
        members.join(node, Duration::MAX, now);
        assert!(members.holder(run, now).is_some());
    }
}
