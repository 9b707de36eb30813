//! Looks at a run from outside: throughput and memory over time, and a progress bar on a terminal.
//!
//! A thread of its own does it, because the driver's tasks may be late exactly when it matters.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tokio::time::Instant;

use crate::rss;

/// The time between two looks.
const STEP: Duration = Duration::from_millis(100);

/// What was seen at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Moment {
    /// Seconds since the run began.
    pub(crate) at_s: f64,
    /// Operations answered so far.
    pub(crate) answered: u64,
    /// Resident memory of the process in bytes; 0 where the system does not tell.
    pub(crate) rss_bytes: u64,
}

/// What was seen of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Trace {
    /// The moments, in order.
    pub(crate) moments: Vec<Moment>,
}

impl Trace {
    /// Returns the most resident memory that was seen, in bytes.
    pub(crate) fn rss_peak_bytes(&self) -> u64 {
        self.moments.iter().map(|moment| moment.rss_bytes).max().unwrap_or(0)
    }

    /// Returns operations per second over time, averaged over about `points` stretches of equal length.
    pub(crate) fn rates(&self, points: usize) -> Vec<(f64, f64)> {
        let stride = self.moments.len().div_ceil(points.max(1)).max(1);
        let picked: Vec<&Moment> = self.moments.iter().step_by(stride).collect();
        picked.windows(2).filter_map(|pair| rate_between(pair[0], pair[1])).collect()
    }
}

fn rate_between(first: &Moment, second: &Moment) -> Option<(f64, f64)> {
    let length = second.at_s - first.at_s;
    let answered = second.answered.saturating_sub(first.answered) as f64;
    (length > 0.0).then(|| (second.at_s, answered / length))
}

/// What the end of a run is known by, for the progress bar.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    /// It ends after this long.
    Time(Duration),
    /// It ends after this many answers.
    Answers(u64),
}

/// A running observation. Stop it to get what it saw.
pub(crate) struct Monitor {
    stop: SyncSender<()>,
    thread: JoinHandle<Trace>,
}

impl Monitor {
    /// Starts to watch a count.
    pub(crate) fn start(label: &str, live: Arc<AtomicU64>, goal: Goal) -> Self {
        let (stop, stopped) = sync_channel(1);
        let label = label.to_owned();
        let thread = std::thread::spawn(move || watch(&live, &stopped, &label, goal));
        Self { stop, thread }
    }

    /// Stops watching and returns what was seen.
    pub(crate) fn stop(self) -> Trace {
        // The thread can only have ended by a panic, and then join tells.
        let _ = self.stop.send(());
        self.thread.join().expect("the monitor only reads counters and draws")
    }
}

fn watch(live: &AtomicU64, stopped: &Receiver<()>, label: &str, goal: Goal) -> Trace {
    let (start, before) = (Instant::now(), live.load(Ordering::Relaxed));
    let bar = progress(label, goal);
    let mut trace = Trace::default();
    loop {
        let answered = live.load(Ordering::Relaxed) - before;
        let at_s = start.elapsed().as_secs_f64();
        trace.moments.push(Moment { at_s, answered, rss_bytes: rss::now_bytes().unwrap_or(0) });
        bar.set_position(match goal {
            Goal::Time(_) => (at_s * 1_000.0) as u64,
            Goal::Answers(_) => answered,
        });
        bar.set_message(live_rate(&trace));
        if stopped.recv_timeout(STEP) != Err(RecvTimeoutError::Timeout) {
            bar.finish_and_clear();
            return trace;
        }
    }
}

/// The rate over the last second.
fn live_rate(trace: &Trace) -> String {
    let moments = &trace.moments;
    let last = moments.last().expect("the caller has just pushed one");
    let earlier = &moments[moments.len().saturating_sub(11)];
    let rate = rate_between(earlier, last).map_or(0.0, |(_, rate)| rate);
    format!("{rate:.0}/s, {} MiB", last.rss_bytes >> 20)
}

/// Makes a bar that shows itself on a terminal only.
fn progress(label: &str, goal: Goal) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{prefix:<24} [{bar:30}] {msg}")
        .expect("the template is a constant that indicatif reads");
    let length = match goal {
        Goal::Time(time) => time.as_millis() as u64,
        Goal::Answers(answers) => answers,
    };
    let bar = ProgressBar::new(length).with_style(style);
    bar.set_prefix(label.to_owned());
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(answered: &[u64]) -> Trace {
        let moment = |(tenth, answered): (usize, &u64)| Moment {
            at_s: tenth as f64 / 10.0,
            answered: *answered,
            rss_bytes: 1 << tenth,
        };
        Trace { moments: answered.iter().enumerate().map(moment).collect() }
    }

    #[test]
    fn rates_are_differences_over_time() {
        let rates = trace(&[0, 10, 30]).rates(100);
        assert_eq!(rates.len(), 2);
        assert!((rates[0].1 - 100.0).abs() < 0.001 && (rates[1].1 - 200.0).abs() < 0.001, "{rates:?}");
    }

    #[test]
    fn a_long_trace_is_thinned_out() {
        let counts: Vec<u64> = (0..1_000).collect();
        let rates = trace(&counts[..50]).rates(10);
        assert!(rates.len() <= 10, "{}", rates.len());
        assert!(rates.iter().all(|(_, rate)| (rate - 10.0).abs() < 0.001));
    }

    #[test]
    fn the_peak_is_the_largest_and_nothing_seen_is_zero() {
        assert_eq!(trace(&[1, 2, 3]).rss_peak_bytes(), 4);
        assert_eq!(Trace::default().rss_peak_bytes(), 0);
    }
}
