//! The closed loop: a task per caller that sends, waits, sends again.

use std::sync::atomic::Ordering;

use anyhow::Context as _;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::caller::perform;
use super::{Caller, Choice, Load, Record, Stage, Timing, Window};

/// How many answers a caller collects before it adds them to the live count, so that callers seldom meet there.
const LIVE_STEP: u64 = 8;

/// Runs callers until the window ends or their choices do, and merges their books.
///
/// # Errors
/// When a caller panicked.
pub(super) async fn run(
    stage: &Stage,
    load: &Load,
    window: Window,
    callers: usize,
    choice: impl Fn(usize) -> Choice,
) -> anyhow::Result<Record> {
    let mut tasks = JoinSet::new();
    for number in 0..callers {
        let caller = Caller::new(stage, load, number, choice(number), window);
        tasks.spawn(call(caller, Record::new(load.callers), window));
    }
    let mut merged = Record::new(load.callers);
    while let Some(record) = tasks.join_next().await {
        merged.merge(record.context("a caller of the load test panicked")?);
    }
    Ok(merged)
}

async fn call(mut caller: Caller, mut record: Record, window: Window) -> Record {
    let mut answers = 0;
    let mut sent = Instant::now();
    while sent < window.until {
        // The end of one operation is the start of the next: one clock reading for both.
        let Some(now) = caller.call_at(sent, &mut record, window).await else { break };
        sent = now;
        answers += 1;
        if answers % LIVE_STEP == 0 {
            caller.stage().live.fetch_add(LIVE_STEP, Ordering::Relaxed);
        }
    }
    caller.stage().live.fetch_add(answers % LIVE_STEP, Ordering::Relaxed);
    record
}

impl Caller {
    /// Performs the next operation at once and writes it down. Returns when it was answered; `None` when there is
    /// nothing left to do.
    pub(crate) async fn call_at(
        &mut self,
        sent: Instant,
        record: &mut Record,
        window: Window,
    ) -> Option<Instant> {
        let operation = self.choose(sent)?;
        let answer = perform(self.stage(), operation).await;
        let now = Instant::now();
        record.write(answer, Timing::closed(sent, now, window));
        Some(now)
    }
}
