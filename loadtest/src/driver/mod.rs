//! Drives a node through its public API, in a closed or an open loop.
//!
//! * Closed: each caller sends, waits for the answer, sends again. It shows the most that a fixed number of callers
//!   gets, and never overloads.
//! * Open: operations are due at fixed times, whatever becomes of those before. Latency counts from the time at which
//!   an operation was *due*, so a stall shows in every operation that it delayed (no coordinated omission).
//!
//! The driver shares the cores with what it measures, so a closed caller allocates nothing per command and takes no
//! lock: ids, random numbers, histograms and acknowledgements are its own until the end.

mod caller;
mod closed;
mod monitor;
mod open;
mod record;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use orchestrix::Node;
use orchestrix::core::{Clock as _, SystemClock};
use tokio::time::Instant;

pub(crate) use caller::{Answer, Caller, Choice};
pub(crate) use monitor::{Goal, Monitor, Trace};
pub(crate) use record::{Ack, Outcomes, Record, Timing};

use crate::cli::Common;
use crate::scenario::{CounterId, RunTag, Spread, counter_id, counter_ids};

/// What to send, how fast, for how long.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Load {
    /// How many aggregates there are.
    pub(crate) aggregates: usize,
    /// Closed loop: how many callers. Open loop: how many operations may be under way at once.
    pub(crate) callers: usize,
    /// Operations due per second, all callers together; `None` is a closed loop.
    pub(crate) rate: Option<f64>,
    /// What runs before the measured time.
    pub(crate) warmup: Duration,
    /// The measured time.
    pub(crate) duration: Duration,
    /// The share of operations on one aggregate, 0 to 1.
    pub(crate) hot: f64,
    /// The bytes of a stored payload.
    pub(crate) payload_bytes: usize,
    /// The share of reads among the operations, 0 to 1.
    pub(crate) read_share: f64,
    /// What the random choices start from.
    pub(crate) seed: u64,
    /// Leaves out the first command to each aggregate before the clock starts.
    pub(crate) cold: bool,
}

impl Load {
    /// Describes one command to each aggregate in turn, with no measured time.
    pub(crate) fn of_touching(common: &Common, aggregates: usize, callers: usize) -> Self {
        Self {
            aggregates,
            callers,
            rate: None,
            warmup: Duration::ZERO,
            duration: Duration::ZERO,
            hot: 0.0,
            payload_bytes: common.payload,
            read_share: 0.0,
            seed: common.seed,
            cold: true,
        }
    }
}

/// What the callers share: the node, the addresses, the clock, the live count.
#[derive(Clone)]
pub(crate) struct Stage {
    /// The node.
    pub(crate) node: Node,
    /// The aggregates.
    pub(crate) ids: Ids,
    /// Operations answered so far, roughly: callers add up now and then.
    pub(crate) live: Arc<AtomicU64>,
}

/// The addresses of the aggregates.
#[derive(Clone, Debug)]
pub(crate) enum Ids {
    /// Made before the run and shared with the runtime, as a service holds the ids of its requests.
    Held(Arc<[CounterId]>),
    /// Made when needed, so that the memory of an id belongs to the runtime alone.
    Made(usize),
}

impl Ids {
    /// Returns how many aggregates there are.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Held(ids) => ids.len(),
            Self::Made(count) => *count,
        }
    }

    /// Returns the id of the aggregate with this number.
    pub(crate) fn get(&self, number: usize) -> CounterId {
        match self {
            Self::Held(ids) => ids[number].clone(),
            Self::Made(_) => counter_id(number),
        }
    }
}

/// When the measured time begins and ends, and whose run it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    /// Keeps the run's command ids apart from others.
    pub(crate) tag: RunTag,
    /// The first operation.
    pub(crate) start: Instant,
    /// The first operation that counts.
    pub(crate) from: Instant,
    /// No operation is sent at or after this.
    pub(crate) until: Instant,
}

impl Window {
    /// Begins a run now: `warmup` that does not count, then `duration` that does.
    pub(crate) fn begin(warmup: Duration, duration: Duration) -> Self {
        let start = Instant::now();
        let from = start + warmup;
        Self { tag: RunTag::fresh(SystemClock.now()), start, from, until: from + duration }
    }

    /// Begins a run now that counts from its first operation and ends when there is nothing left to do.
    pub(crate) fn endless() -> Self {
        Self::begin(Duration::ZERO, Duration::from_hours(24 * 365))
    }

    /// Tells whether a moment counts.
    pub(crate) fn contains(&self, moment: Instant) -> bool {
        (self.from..self.until).contains(&moment)
    }

    /// Returns how long the measured time is.
    pub(crate) fn length(&self) -> Duration {
        self.until - self.from
    }
}

/// Callers that send the first commands at most.
const FIRST_CALLERS_MAX: usize = 512;

/// What touching each aggregate once gave.
#[derive(Debug)]
pub(crate) struct Touched {
    /// What the callers wrote down, merged.
    pub(crate) record: Record,
    /// How long it took.
    pub(crate) took: Duration,
    /// What was seen from outside while it ran.
    pub(crate) trace: Trace,
}

/// What a drive gave.
#[derive(Debug)]
pub(crate) struct Drive {
    /// What the callers wrote down, merged.
    pub(crate) record: Record,
    /// The measured time.
    pub(crate) measured: Duration,
    /// What was seen from outside while it ran.
    pub(crate) trace: Trace,
}

impl Drive {
    /// Returns the commands done per second of the measured time.
    pub(crate) fn commands_per_s(&self) -> f64 {
        self.record.commands_in_window as f64 / self.measured.as_secs_f64()
    }

    /// Returns the reads done per second of the measured time.
    pub(crate) fn reads_per_s(&self) -> f64 {
        self.record.reads_in_window as f64 / self.measured.as_secs_f64()
    }
}

impl Stage {
    /// Prepares the stage for a number of aggregates.
    pub(crate) fn new(node: &Node, aggregates: usize) -> Self {
        Self::with_ids(node, Ids::Held(counter_ids(aggregates)))
    }

    /// Prepares the stage for aggregates whose ids are not kept by the driver.
    pub(crate) fn without_ids(node: &Node, aggregates: usize) -> Self {
        Self::with_ids(node, Ids::Made(aggregates))
    }

    fn with_ids(node: &Node, ids: Ids) -> Self {
        Self { node: node.clone(), ids, live: Arc::default() }
    }

    /// Sends one command to each aggregate of a range of numbers, in turn, from `callers` callers.
    ///
    /// # Errors
    /// When one of the commands was not done; the message has the first reason.
    pub(crate) async fn touch(
        &self,
        range: Range<usize>,
        load: &Load,
        label: &str,
    ) -> anyhow::Result<Touched> {
        let count = range.len();
        let window = Window::endless();
        let callers = load.callers.clamp(1, count.max(1));
        let choice = |number| Choice::InTurn { next: range.start + number, step: callers, end: range.end };
        let monitor = Monitor::start(label, Arc::clone(&self.live), Goal::Answers(count as u64));
        let ran = closed::run(self, load, window, callers, choice).await;
        let trace = monitor.stop();
        let record = ran?;
        ensure!(
            record.outcomes.all() == record.outcomes.done,
            "only {} of {count} aggregates took their first command: {}",
            record.outcomes.done,
            record.first_failure.as_deref().unwrap_or("the node was overloaded; use fewer callers"),
        );
        Ok(Touched { record, took: window.start.elapsed(), trace })
    }

    /// Warms up and measures.
    ///
    /// # Errors
    /// When the first commands fail, or a caller panicked.
    pub(crate) async fn drive(&self, load: &Load, label: &str) -> anyhow::Result<Drive> {
        let mut record = Record::new(load.callers);
        if !load.cold {
            // A bound that is fine in an open loop would overload the node here.
            let first = Load { callers: load.callers.min(FIRST_CALLERS_MAX), ..load.clone() };
            let first = self.touch(0..self.ids.len(), &first, label).await;
            record.keep_acks_of(first.context("before the measured time")?.record);
        }
        let window = Window::begin(load.warmup, load.duration);
        let goal = Goal::Time(window.until - window.start);
        let monitor = Monitor::start(label, Arc::clone(&self.live), goal);
        let spread = Spread { aggregates: self.ids.len(), hot: load.hot };
        let ran = match load.rate {
            None => closed::run(self, load, window, load.callers, |_| Choice::Random(spread)).await,
            Some(rate) => open::run(self, load, window, rate, spread).await,
        };
        let trace = monitor.stop();
        record.merge(ran?);
        Ok(Drive { record, measured: window.length(), trace })
    }
}
