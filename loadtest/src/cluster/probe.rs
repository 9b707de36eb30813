//! One command to each shard: when it answers, and for how long it did not.
//!
//! Each shard has a counter of its own for this, which the callers leave alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use orchestrix::core::{Aggregate as _, CommandId, ShardCount};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::callers::Book;
use super::deliver::{Course, Order};
use crate::driver::Timing;
use crate::scenario::{Counter, Random, counter_id};

/// The time between two commands to one shard while it is watched.
const STEP: Duration = Duration::from_millis(50);

/// Returns the shard of a counter.
fn shard_of(shards: ShardCount, number: usize) -> u32 {
    shards.shard_of(Counter::TYPE.as_str(), counter_id(number).as_str()).get()
}

/// The counters of a run: those of the callers, and after them the ones for probes.
pub(super) struct Counters {
    /// The shard of each, by number.
    pub(super) shards: Vec<u32>,
    /// The number of the one for probes, by shard.
    probes: Vec<u32>,
}

impl Counters {
    /// Numbers the counters of the callers, and finds one more for each shard.
    pub(super) fn new(count: ShardCount, aggregates: usize) -> Self {
        let mut shards: Vec<u32> = (0..aggregates).map(|number| shard_of(count, number)).collect();
        let mut probes = vec![None; count.get() as usize];
        let mut missing = probes.len();
        while missing > 0 {
            let (number, shard) = (shards.len(), shard_of(count, shards.len()));
            shards.push(shard);
            let place = &mut probes[shard as usize];
            missing -= usize::from(place.is_none());
            place.get_or_insert(number as u32);
        }
        Self { shards, probes: probes.into_iter().flatten().collect() }
    }
}

/// Sends commands to single shards.
#[derive(Clone)]
pub(super) struct Prober {
    course: Arc<Course>,
    /// The counter, by shard.
    counters: Arc<[u32]>,
    seed: u64,
}

/// What probing gave.
#[derive(Debug)]
pub(super) struct Probed {
    /// How long each shard took, in no order.
    pub(super) took: Vec<Duration>,
    /// What was acknowledged.
    pub(super) book: Book,
}

impl Prober {
    /// Makes the prober of a run.
    pub(super) fn new(course: &Arc<Course>, counters: &Counters, seed: u64) -> Self {
        Self { course: Arc::clone(course), counters: counters.probes.as_slice().into(), seed }
    }

    /// Sends one command to each of these shards and waits until all are answered. Tells how long each took, measured from
    /// `since`.
    ///
    /// # Errors
    /// When a probe panicked.
    pub(super) async fn answer(&self, shards: &[u32], since: Instant) -> anyhow::Result<Probed> {
        let mut tasks = JoinSet::new();
        for shard in shards {
            let (prober, shard) = (self.clone(), *shard);
            tasks.spawn(async move {
                let mut book = Book::new(1);
                let mut random = Random::new(prober.seed, shard as usize);
                prober.send(shard, &mut random, &mut book).await;
                (since.elapsed(), book)
            });
        }
        gathered(tasks).await
    }

    /// Sends commands to every shard, one after the other to each, until told to stop. Tells the longest time that each
    /// took for one.
    ///
    /// # Errors
    /// When a probe panicked.
    pub(super) async fn watch(self, stop: Arc<AtomicBool>) -> anyhow::Result<Probed> {
        let mut tasks = JoinSet::new();
        for shard in 0..self.counters.len() as u32 {
            let (prober, stop) = (self.clone(), Arc::clone(&stop));
            tasks.spawn(async move {
                let (mut longest, mut book) = (Duration::ZERO, Book::new(1));
                let mut random = Random::new(prober.seed, shard as usize);
                // Spread over the step, so that they do not come in one wave.
                sleep(STEP * (shard % 50) / 50).await;
                while !stop.load(Ordering::Relaxed) {
                    longest = longest.max(prober.send(shard, &mut random, &mut book).await);
                    sleep(STEP).await;
                }
                (longest, book)
            });
        }
        gathered(tasks).await
    }

    async fn send(&self, shard: u32, random: &mut Random, book: &mut Book) -> Duration {
        let aggregate = self.counters[shard as usize];
        let order = Order::Add { id: CommandId::fresh(), aggregate, amount: 1 };
        let sent = Instant::now();
        let delivered = self.course.deliver(order, random).await;
        let took = sent.elapsed();
        let timing = Timing { since_due: took, since_sent: took, counts: false, answered_in_window: false };
        book.write(delivered, timing, false);
        took
    }
}

async fn gathered(mut tasks: JoinSet<(Duration, Book)>) -> anyhow::Result<Probed> {
    let mut probed = Probed { took: Vec::new(), book: Book::new(1) };
    while let Some(task) = tasks.join_next().await {
        let (took, book) = task.context("a probe of the load test panicked")?;
        probed.took.push(took);
        probed.book.keep(book);
    }
    Ok(probed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_shard_has_a_counter_of_its_own_beyond_those_of_the_callers() {
        let count = ShardCount::new(16).expect("a count");
        let counters = Counters::new(count, 40);
        assert_eq!(counters.probes.len(), 16);
        for (shard, number) in counters.probes.iter().enumerate() {
            assert!(*number >= 40, "{number} belongs to the callers");
            assert_eq!(counters.shards[*number as usize], shard as u32);
        }
    }
}
