//! The handle that steers a [`Faulty`](super::Faulty) store.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use orchestrix_core::store::{Batch, CommitOutcome, EventStore};
use tokio::sync::{Notify, watch};

use super::plan::{Call, Fault, FaultCounts, Operation, Plan, Random};
use super::seen::AppendCounts;

/// How many appends may be put off at once; one more is lost as by [`Fault::Drop`]. Far above what a test keeps open.
const LATE_BATCHES_MAX: usize = 1_024;

/// Steers the faults of one store and counts those that hit. Clones steer the same store.
#[derive(Clone)]
pub struct FaultControl {
    shared: Arc<Shared>,
}

struct Shared {
    store: Arc<dyn EventStore>,
    plan: Mutex<Plan>,
    /// Appends that wait for [`FaultControl::release_late`].
    late: Mutex<VecDeque<Batch>>,
    /// Wakes what is held.
    released: Notify,
    /// How many appends and other calls are held now.
    held: watch::Sender<usize>,
    /// What the store itself answered.
    seen: Mutex<AppendCounts>,
}

impl FaultControl {
    pub(super) fn over(store: Arc<dyn EventStore>) -> Self {
        let shared = Shared {
            store,
            plan: Mutex::default(),
            late: Mutex::default(),
            released: Notify::new(),
            held: watch::Sender::new(0),
            seen: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    pub(super) fn store(&self) -> &dyn EventStore {
        &*self.shared.store
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.shared.plan.lock().expect("nothing panics under this lock")
    }

    pub(super) fn next_append(&self, commits: usize) -> Option<Fault> {
        self.plan().next_append(commits)
    }

    pub(super) fn next_call(&self, operation: Operation) -> Call {
        self.plan().next_call(operation)
    }

    /// Breaks the append with this number. The first one since the store was wrapped has number 1; appends of empty
    /// batches do not count.
    pub fn on_append(&self, number: u64, fault: Fault) {
        self.plan().numbered.insert(number, fault);
    }

    /// Breaks the next append.
    pub fn on_next_append(&self, fault: Fault) {
        self.plan().script.push_front(Some(fault));
    }

    /// Adds a fate for each of the next appends, in order; `None` lets one through.
    pub fn script(&self, faults: impl IntoIterator<Item = Option<Fault>>) {
        self.plan().script.extend(faults);
    }

    /// Breaks this share of all appends (0 to 1), each by one of the faults, drawn from a seed.
    ///
    /// # Panics
    /// When the share is out of range or no fault is named.
    pub fn randomly(&self, seed: u64, share: f64, faults: &[Fault]) {
        let random = Random::new(seed, share, faults);
        self.plan().random = Some(random);
    }

    /// Fails the next `times` calls of a kind with `Unavailable`, before they reach the store; `u64::MAX` fails all of
    /// them until [`heal`](FaultControl::heal).
    pub fn fail(&self, operation: Operation, times: u64) {
        self.plan().failing.insert(operation, (Call::FailBefore, times));
    }

    /// Carries out the next `times` calls of a kind and answers `Unavailable` all the same.
    pub fn fail_after(&self, operation: Operation, times: u64) {
        self.plan().failing.insert(operation, (Call::FailAfter, times));
    }

    /// Carries out the next `times` calls of a kind after a delay, and answers truly.
    pub fn delay(&self, operation: Operation, delay: Duration, times: u64) {
        self.plan().failing.insert(operation, (Call::Delay(delay), times));
    }

    /// Holds the next `times` calls of a kind until [`release_held`](FaultControl::release_held); then they are carried
    /// out and answered truly. [`wait_for_held`](FaultControl::wait_for_held) counts them as well.
    pub fn hold(&self, operation: Operation, times: u64) {
        self.plan().failing.insert(operation, (Call::Hold, times));
    }

    /// Fails every call with `Unavailable`, as a store that cannot be reached, until [`heal`](FaultControl::heal).
    pub fn take_down(&self) {
        self.plan().down = true;
    }

    /// Ends all faults that have not come yet. What is held or put off stays so until it is released.
    pub fn heal(&self) {
        self.plan().heal();
    }

    /// Returns how many faults have hit, by kind: a test of faults sets a floor on it.
    pub fn faults_hit(&self) -> FaultCounts {
        self.plan().hits
    }

    /// Returns what the wrapped store itself answered to appends so far, and how many are under way in it. Those that
    /// were put off are not counted.
    pub fn appends_seen(&self) -> AppendCounts {
        *self.shared.seen()
    }

    pub(super) fn append_begins(&self) -> UnderWay<'_> {
        self.shared.seen().under_way += 1;
        UnderWay(&self.shared)
    }

    pub(super) fn append_answered(&self, outcomes: &[CommitOutcome]) {
        self.shared.seen().count(outcomes);
    }

    /// Returns how many appends came, empty ones aside.
    pub fn appends(&self) -> u64 {
        self.plan().appends
    }

    /// Waits until this many appends and other calls are held.
    ///
    /// # Cancel safety
    /// It only looks; dropping it changes nothing.
    pub async fn wait_for_held(&self, appends: usize) {
        let mut held = self.shared.held.subscribe();
        held.wait_for(|now| *now >= appends).await.expect("the sender lives as long as this handle");
    }

    /// Lets everything go on that is held now.
    pub fn release_held(&self) {
        self.shared.released.notify_waiters();
    }

    /// Waits for the next [`release_held`](FaultControl::release_held).
    pub(super) async fn wait_for_release(&self) {
        let mut released = std::pin::pin!(self.shared.released.notified());
        // Listed as a waiter before it is counted as held, so that a release after `wait_for_held` cannot miss it.
        released.as_mut().enable();
        let _held = Held::new(&self.shared.held);
        released.await;
    }

    /// Carries out the appends that were put off, in their order, and returns what became of each commit.
    ///
    /// # Cancel safety
    /// When it is dropped, the append under way may or may not take effect; those after it stay put off.
    pub async fn release_late(&self) -> Vec<CommitOutcome> {
        let mut outcomes = Vec::new();
        while let Some(batch) = self.next_late() {
            outcomes.extend(self.append_late(batch).await);
        }
        outcomes
    }

    fn next_late(&self) -> Option<Batch> {
        self.shared.late.lock().expect("nothing panics under this lock").pop_front()
    }

    /// Puts an append off: for a time, or until it is released.
    pub(super) fn commit_late(&self, batch: Batch, after: Option<Duration>) {
        if let Some(after) = after {
            let control = self.clone();
            tokio::spawn(async move {
                tokio::time::sleep(after).await;
                control.append_late(batch).await;
            });
            return;
        }
        let mut late = self.shared.late.lock().expect("nothing panics under this lock");
        if late.len() < LATE_BATCHES_MAX {
            late.push_back(batch);
        }
    }

    async fn append_late(&self, batch: Batch) -> Vec<CommitOutcome> {
        let outcomes = self.store().append(batch).await;
        let stored = outcomes.iter().filter(|outcome| outcome.is_committed()).count() as u64;
        let hits = &mut self.plan().hits;
        hits.late_commits_stored += stored;
        hits.late_commits_refused += outcomes.len() as u64 - stored;
        outcomes
    }
}

impl fmt::Debug for FaultControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultControl").field("plan", &*self.plan()).finish_non_exhaustive()
    }
}

impl Shared {
    fn seen(&self) -> MutexGuard<'_, AppendCounts> {
        self.seen.lock().expect("nothing panics under this lock")
    }
}

/// Counts an append as under way for as long as it lives, also when its future is dropped.
pub(super) struct UnderWay<'a>(&'a Shared);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.seen().under_way -= 1;
    }
}

/// Counts a call as held for as long as it lives, also when its future is dropped.
struct Held<'a>(&'a watch::Sender<usize>);

impl<'a> Held<'a> {
    fn new(held: &'a watch::Sender<usize>) -> Self {
        held.send_modify(|count| *count += 1);
        Self(held)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}
