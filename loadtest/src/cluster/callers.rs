//! Many callers in a closed loop: each sends, waits until it is done, sends again, to any node.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::Context as _;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::deliver::{Course, Delivered, Order};
use crate::driver::{Record, Timing, Window};
use crate::histogram::Latencies;
use crate::scenario::{CommandIds, Random};

/// What clients write down.
#[derive(Clone, Debug)]
pub(crate) struct Book {
    /// What every measurement writes down.
    pub(crate) record: Record,
    /// From sending to done, of commands that met a rolling restart.
    pub(crate) in_roll: Latencies,
    /// The same of all others.
    pub(crate) outside: Latencies,
    /// Commands of which a client heard an error that no fault excuses, or that were given up.
    pub(crate) failed_commands: u64,
    /// Errors that clients heard while a fault lasted.
    pub(crate) excused: u64,
    /// Attempts besides the first of each command.
    pub(crate) retries: u64,
    /// Commands that were recognised as done when they were sent again, by a client or by a node.
    pub(crate) recognised: u64,
    /// Answers that were older than one given before they were asked for.
    pub(crate) stale: u64,
    /// The first error that nothing excuses.
    pub(crate) why: Option<String>,
}

impl Book {
    /// Opens the book of one of `callers` callers.
    pub(super) fn new(callers: usize) -> Self {
        let latencies = Latencies::new(callers);
        Self {
            record: Record::new(callers),
            in_roll: latencies.clone(),
            outside: latencies,
            failed_commands: 0,
            excused: 0,
            retries: 0,
            recognised: 0,
            stale: 0,
            why: None,
        }
    }

    /// Writes down what came of an order.
    pub(super) fn write(&mut self, delivered: Delivered, timing: Timing, rolling: bool) {
        if timing.counts {
            let latencies = if rolling { &mut self.in_roll } else { &mut self.outside };
            latencies.record(timing.since_sent);
        }
        self.failed_commands += u64::from(delivered.failures > 0);
        self.excused += delivered.excused;
        self.retries += delivered.retries;
        self.recognised += u64::from(delivered.recognised);
        self.stale += u64::from(delivered.stale);
        self.why = self.why.take().or(delivered.why);
        self.record.write(delivered.answer, timing);
    }

    /// Adds another book of the same run.
    pub(super) fn merge(&mut self, other: Self) {
        self.in_roll.merge(&other.in_roll);
        self.outside.merge(&other.outside);
        self.add_counts(&other);
        self.record.merge(other.record);
    }

    /// Takes over what the check and the counts need of clients that are not part of the measured load.
    pub(super) fn keep(&mut self, other: Self) {
        self.add_counts(&other);
        self.record.keep_acks_of(other.record);
    }

    fn add_counts(&mut self, other: &Self) {
        self.failed_commands += other.failed_commands;
        self.excused += other.excused;
        self.retries += other.retries;
        self.recognised += other.recognised;
        self.stale += other.stale;
        if self.why.is_none() {
            self.why.clone_from(&other.why);
        }
    }
}

/// How callers are numbered and what they choose.
#[derive(Clone, Copy, Debug)]
pub(super) struct Crowd {
    /// How many.
    pub(super) callers: usize,
    /// How many counters they choose from.
    pub(super) aggregates: usize,
    /// The share of reads.
    pub(super) read_share: f64,
    /// What the random choices start from.
    pub(super) seed: u64,
}

/// Sends one command to each counter of a range.
///
/// # Errors
/// When a caller panicked.
pub(super) async fn touch(course: &Arc<Course>, crowd: Crowd, range: Range<usize>) -> anyhow::Result<Book> {
    let window = Window::endless();
    let mut tasks = JoinSet::new();
    for number in 0..crowd.callers {
        let (course, turns) = (Arc::clone(course), range.clone().skip(number).step_by(crowd.callers));
        tasks.spawn(async move {
            let mut caller = Caller::new(crowd, number, window);
            let mut book = Book::new(crowd.callers);
            for aggregate in turns {
                let order = caller.add(aggregate, Instant::now());
                caller.carry_out(&course, order, &mut book).await;
            }
            book
        });
    }
    merged(tasks, crowd).await
}

/// Sends until the course is stopped. What is sent after `window.from` counts.
///
/// # Errors
/// When a caller panicked.
pub(super) async fn run(course: &Arc<Course>, crowd: Crowd, window: Window) -> anyhow::Result<Book> {
    let mut tasks = JoinSet::new();
    for number in 0..crowd.callers {
        let course = Arc::clone(course);
        tasks.spawn(async move {
            let mut caller = Caller::new(crowd, number, window);
            let mut book = Book::new(crowd.callers);
            while !course.stopped.load(Ordering::Relaxed) {
                let order = caller.choose(Instant::now());
                caller.carry_out(&course, order, &mut book).await;
            }
            book
        });
    }
    merged(tasks, crowd).await
}

async fn merged(mut tasks: JoinSet<Book>, crowd: Crowd) -> anyhow::Result<Book> {
    let mut merged = Book::new(crowd.callers);
    while let Some(book) = tasks.join_next().await {
        merged.merge(book.context("a caller of the load test panicked")?);
    }
    Ok(merged)
}

struct Caller {
    crowd: Crowd,
    random: Random,
    ids: CommandIds,
    window: Window,
}

impl Caller {
    fn new(crowd: Crowd, number: usize, window: Window) -> Self {
        let (random, ids) = (Random::new(crowd.seed, number), CommandIds::new(window.tag, number));
        Self { crowd, random, ids, window }
    }

    fn choose(&mut self, now: Instant) -> Order {
        let aggregate = self.random.below(self.crowd.aggregates);
        if self.random.chance(self.crowd.read_share) {
            Order::Read { aggregate: aggregate as u32 }
        } else {
            self.add(aggregate, now)
        }
    }

    fn add(&mut self, aggregate: usize, now: Instant) -> Order {
        let id = self.ids.next(now.saturating_duration_since(self.window.start));
        Order::Add { id, aggregate: aggregate as u32, amount: self.random.below(10) as u64 }
    }

    async fn carry_out(&mut self, course: &Course, order: Order, book: &mut Book) {
        let (sent, rolling) = (Instant::now(), course.faults.rolling());
        let delivered = course.deliver(order, &mut self.random).await;
        let answered = Instant::now();
        let took = answered - sent;
        let in_time = self.window.contains(answered) && !course.stopped.load(Ordering::Relaxed);
        let timing = Timing {
            since_due: took,
            since_sent: took,
            counts: self.window.contains(sent),
            answered_in_window: in_time,
        };
        book.write(delivered, timing, rolling || course.faults.rolling());
        course.live.fetch_add(1, Ordering::Relaxed);
    }
}
