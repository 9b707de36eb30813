//! The open loop: operations are due at fixed times and are sent then, whatever became of those before.
//!
//! A few pacers share the schedule. Each has its own book and a bound on what it has under way; at that bound it waits,
//! and the wait counts, since latency is measured from the due time. What a driver that cannot keep up has not sent by
//! the end of the measured time is counted and not sent any more.

use std::future::poll_fn;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use anyhow::Context as _;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::caller::{Answer, perform};
use super::record::Timing;
use super::{Caller, Choice, Load, Record, Stage, Window};
use crate::scenario::Spread;

/// How many pacers share the schedule: enough to use the driver's threads, few enough to send in bursts of several.
const PACERS: usize = 16;

/// One operation that has its answer.
struct Answered {
    answer: Answer,
    due: Instant,
    sent: Instant,
    at: Instant,
}

/// Sends at a rate until the window ends, waits for the last answers, and merges the pacers' books.
///
/// # Errors
/// When a pacer or an operation panicked.
pub(super) async fn run(
    stage: &Stage,
    load: &Load,
    window: Window,
    rate: f64,
    spread: Spread,
) -> anyhow::Result<Record> {
    let pacers = PACERS.min(load.callers);
    let every = Duration::from_secs_f64(pacers as f64 / rate);
    let under_way_max = load.callers.div_ceil(pacers);
    let mut tasks = JoinSet::new();
    for number in 0..pacers {
        let caller = Caller::new(stage, load, number, Choice::Random(spread), window);
        let record = Record::new(load.callers);
        let due = window.start + every.mul_f64(number as f64 / pacers as f64);
        tasks.spawn(Pacer { caller, record, window, every, due, under_way_max }.pace());
    }
    let mut merged = Record::new(load.callers);
    while let Some(record) = tasks.join_next().await {
        merged.merge(record.context("a pacer of the load test panicked")??);
    }
    Ok(merged)
}

struct Pacer {
    caller: Caller,
    record: Record,
    window: Window,
    every: Duration,
    due: Instant,
    under_way_max: usize,
}

impl Pacer {
    async fn pace(mut self) -> anyhow::Result<Record> {
        let mut under_way = JoinSet::new();
        let mut now = Instant::now();
        while now < self.window.until && self.due < self.window.until {
            sleep_until(self.due).await;
            now = Instant::now();
            while self.due <= now && now < self.window.until {
                if under_way.len() >= self.under_way_max {
                    self.take(under_way.join_next().await)?;
                }
                self.send(&mut under_way).await;
                now = Instant::now();
            }
            while let Some(answered) = under_way.try_join_next() {
                self.take(Some(answered))?;
            }
        }
        self.record.unsent += self.left_over();
        while let Some(answered) = under_way.join_next().await {
            self.take(Some(answered))?;
        }
        Ok(self.record)
    }

    /// Counts the operations that were due and that the driver did not come to send.
    fn left_over(&self) -> u64 {
        let left = self.window.until.saturating_duration_since(self.due);
        (left.as_secs_f64() / self.every.as_secs_f64()).ceil() as u64
    }

    /// Sends what is due. An operation that has its answer at once, as one that is turned away has, costs no task.
    async fn send(&mut self, under_way: &mut JoinSet<Answered>) {
        let due = self.due;
        self.due += self.every;
        let sent = Instant::now();
        if self.window.contains(due) {
            self.record.lateness.record(sent.saturating_duration_since(due));
        }
        let Some(operation) = self.caller.choose(sent) else { return };
        let stage = self.caller.stage().clone();
        let mut answering = Box::pin(async move {
            let answer = perform(&stage, operation).await;
            Answered { answer, due, sent, at: Instant::now() }
        });
        match poll_fn(|task| Poll::Ready(answering.as_mut().poll(task))).await {
            Poll::Ready(answered) => self.write(answered),
            Poll::Pending => {
                under_way.spawn(answering);
            }
        }
    }

    fn take(&mut self, answered: Option<Result<Answered, JoinError>>) -> anyhow::Result<()> {
        if let Some(answered) = answered {
            self.write(answered.context("an operation panicked")?);
        }
        Ok(())
    }

    fn write(&mut self, answered: Answered) {
        let Answered { answer, due, sent, at } = answered;
        self.caller.stage().live.fetch_add(u64::from(answer.is_done()), Ordering::Relaxed);
        self.record.write(
            answer,
            Timing {
                since_due: at.saturating_duration_since(due),
                since_sent: at.saturating_duration_since(sent),
                counts: self.window.contains(due),
                answered_in_window: self.window.contains(at),
            },
        );
    }
}
