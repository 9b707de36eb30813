//! Kills, pauses, and the rolling restart, one at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::time::{Instant, sleep, sleep_until};

use super::callers::Book;
use super::deliver::Course;
use super::line::Line;
use super::probe::Prober;
use super::process::{NodeOptions, Process};
use super::{Harm, Plan};
use crate::scenario::Random;

/// The part of a killed node's shards that must answer again, in percent.
const ANSWERING_PERCENT: usize = 99;

/// How long a node may take to get its first shard after it has joined.
const SHARDS_MAX: Duration = Duration::from_mins(1);

/// The time between two looks whether something has come about.
const LOOK: Duration = Duration::from_millis(50);

/// The shortest and the longest pause, in leases.
const PAUSE_LEASES: (f64, f64) = (0.5, 4.0);

/// How many digits of a lease a random pause tells apart.
const PAUSE_STEPS: usize = 1_000;

/// What became of it all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Findings {
    /// How often a node was killed.
    pub(crate) kills: u64,
    /// Of each kill: from the signal until 99 % of the node's shards answered again.
    pub(crate) failovers: Vec<Duration>,
    /// Kills while the node had commands under way.
    pub(crate) kills_in_flight: u64,
    /// How often a node was stopped for a while.
    pub(crate) pauses: u64,
    /// Pauses while the node had commands under way.
    pub(crate) pauses_in_flight: u64,
    /// Pauses longer than a lease: the node comes back to shards that it has lost.
    pub(crate) pauses_over_lease: u64,
    /// Nodes that were restarted in turn.
    pub(crate) restarts: u64,
    /// Of each shard: the longest time that one command took during the rolling restart.
    pub(crate) shard_pauses: Vec<Duration>,
    /// How long the rolling restart took.
    pub(crate) roll_took: Duration,
}

/// The processes of the nodes, and what is done to them.
pub(super) struct Nodes {
    options: NodeOptions,
    course: Arc<Course>,
    prober: Prober,
    processes: Vec<Option<Process>>,
    random: Random,
    findings: Findings,
    book: Book,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Kill,
    Pause,
    Nothing,
}

impl Nodes {
    /// Prepares nodes; none is started yet.
    pub(super) fn new(options: NodeOptions, course: &Arc<Course>, prober: Prober, random: Random) -> Self {
        let processes = (0..course.fleet.nodes()).map(|_| None).collect();
        let (findings, book) = (Findings::default(), Book::new(1));
        Self { options, course: Arc::clone(course), prober, processes, random, findings, book }
    }

    /// Starts every node and waits until each owns shards.
    ///
    /// # Errors
    /// When one does not start or gets no shard.
    pub(super) async fn start_all(&mut self) -> anyhow::Result<()> {
        for node in 0..self.processes.len() {
            self.start(node).await?;
        }
        self.settle().await
    }

    /// Does what was asked for until the time has come, and finishes what it has begun.
    ///
    /// # Errors
    /// When a node ends by itself, or does not come back.
    pub(super) async fn harm(&mut self, plan: &Plan, until: Instant) -> anyhow::Result<()> {
        if plan.harm.roll {
            self.roll().await?;
        }
        let (mut kill_at, mut pause_at) = due(plan.harm, Instant::now());
        loop {
            let (next, at) = next(kill_at, pause_at, until);
            sleep_until(at).await;
            match next {
                Next::Nothing => return Ok(()),
                Next::Kill => {
                    self.kill().await?;
                    kill_at = due(plan.harm, Instant::now()).0;
                }
                Next::Pause => {
                    self.pause().await?;
                    pause_at = due(plan.harm, Instant::now()).1;
                }
            }
        }
    }

    /// Lets every node leave, and returns what was found and written down.
    ///
    /// # Errors
    /// When one does not leave as it should.
    pub(super) async fn leave_all(mut self) -> anyhow::Result<(Findings, Book)> {
        for process in self.processes.iter_mut().flatten() {
            process.leave().await?;
        }
        Ok((self.findings, self.book))
    }

    async fn start(&mut self, node: usize) -> anyhow::Result<()> {
        let process = Process::start(&self.options).await?;
        self.course.fleet.set(node, Some(Line::connect(process.clients()).await?));
        self.processes[node] = Some(process);
        Ok(())
    }

    /// Waits until every node that is up owns shards and every shard has an owner.
    async fn settle(&self) -> anyhow::Result<()> {
        let (fleet, began) = (&self.course.fleet, Instant::now());
        loop {
            let mut each = true;
            for node in 0..fleet.nodes() {
                each &= !fleet.owned_by(node).await.is_empty();
            }
            if each && fleet.learn_owners().await >= fleet.shards() as usize {
                return Ok(());
            }
            ensure!(began.elapsed() < SHARDS_MAX, "the shards are not shared out among the nodes");
            sleep(LOOK).await;
        }
    }

    fn process(&mut self, node: usize) -> anyhow::Result<&mut Process> {
        self.processes[node].as_mut().context("a node is down that should be up")
    }

    /// Chooses a node, and tells what it owns and whether it has commands under way.
    async fn choose(&mut self) -> (usize, Vec<u32>) {
        let node = self.random.below(self.processes.len());
        (node, self.course.fleet.owned_by(node).await)
    }

    fn under_way(&self, node: usize) -> bool {
        self.course.fleet.line(node).is_some_and(|line| line.under_way() > 0)
    }

    /// Kills a node, waits until its shards answer elsewhere, and starts it again.
    async fn kill(&mut self) -> anyhow::Result<()> {
        let (node, shards) = self.choose().await;
        self.course.faults.begin();
        let (killed, in_flight) = (Instant::now(), self.under_way(node));
        self.process(node)?.kill().await?;
        self.processes[node] = None;
        self.course.fleet.set(node, None);
        self.findings.kills += 1;
        self.findings.kills_in_flight += u64::from(in_flight);
        if self.processes.len() == 1 {
            // There is no elsewhere.
            self.start(node).await?;
        }
        let probed = self.prober.answer(&shards, killed).await?;
        self.course.faults.end();
        self.book.keep(probed.book);
        self.findings.failovers.extend(share_of(probed.took, ANSWERING_PERCENT));
        if self.processes[node].is_none() {
            self.start(node).await?;
        }
        self.settle().await
    }

    /// Stops a node for a while, lets it go on, and waits until what it owned answers.
    async fn pause(&mut self) -> anyhow::Result<()> {
        let (node, shards) = self.choose().await;
        let (min, max) = PAUSE_LEASES;
        let part = self.random.below(PAUSE_STEPS) as f64 / PAUSE_STEPS as f64;
        let leases = min + (max - min) * part;
        self.course.faults.begin();
        let in_flight = self.under_way(node);
        self.process(node)?.pause()?;
        sleep(self.options.lease.mul_f64(leases)).await;
        self.process(node)?.resume()?;
        let probed = self.prober.answer(&shards, Instant::now()).await?;
        self.settle().await?;
        self.course.faults.end();
        self.book.keep(probed.book);
        self.findings.pauses += 1;
        self.findings.pauses_in_flight += u64::from(in_flight);
        self.findings.pauses_over_lease += u64::from(leases > 1.0);
        Ok(())
    }

    /// Restarts each node in turn, as a deployment does, while every shard is watched.
    async fn roll(&mut self) -> anyhow::Result<()> {
        let (began, stop) = (Instant::now(), Arc::new(AtomicBool::new(false)));
        let watching = tokio::spawn(self.prober.clone().watch(Arc::clone(&stop)));
        self.course.faults.set_rolling(true);
        let rolled = self.restart_each().await;
        self.course.faults.set_rolling(false);
        stop.store(true, Ordering::Relaxed);
        let probed = watching.await.context("the watch over the shards panicked")??;
        self.book.keep(probed.book);
        self.findings.shard_pauses = probed.took;
        self.findings.roll_took = began.elapsed();
        rolled
    }

    async fn restart_each(&mut self) -> anyhow::Result<()> {
        for node in 0..self.processes.len() {
            self.process(node)?.leave().await?;
            self.processes[node] = None;
            self.course.fleet.set(node, None);
            self.start(node).await?;
            self.settle().await?;
            self.findings.restarts += 1;
        }
        Ok(())
    }
}

/// Returns when the next kill and the next pause are due.
fn due(harm: Harm, now: Instant) -> (Option<Instant>, Option<Instant>) {
    (harm.kill_every.map(|every| now + every), harm.pause_every.map(|every| now + every))
}

/// Returns what comes next and when.
fn next(kill_at: Option<Instant>, pause_at: Option<Instant>, until: Instant) -> (Next, Instant) {
    let soonest = kill_at.into_iter().chain(pause_at).min().filter(|at| *at < until);
    match soonest {
        Some(at) if Some(at) == kill_at => (Next::Kill, at),
        Some(at) => (Next::Pause, at),
        None => (Next::Nothing, until),
    }
}

/// Returns the time after which this part of them, in percent and rounded up, was over.
fn share_of(mut took: Vec<Duration>, percent: usize) -> Option<Duration> {
    took.sort_unstable();
    let needed = (took.len() * percent).div_ceil(100);
    took.get(needed.checked_sub(1)?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_first_comes_first_and_nothing_begins_after_the_end() {
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(next(Some(at(3)), Some(at(2)), at(9)), (Next::Pause, at(2)));
        assert_eq!(next(Some(at(3)), None, at(9)), (Next::Kill, at(3)));
        assert_eq!(next(Some(at(9)), Some(at(10)), at(9)), (Next::Nothing, at(9)));
    }

    #[test]
    fn a_failover_is_over_when_99_of_100_shards_answer() {
        let times = |count: u64| (1..=count).map(Duration::from_millis).collect::<Vec<_>>();
        assert_eq!(share_of(times(100), 99), Some(Duration::from_millis(99)));
        assert_eq!(share_of(times(3), 99), Some(Duration::from_millis(3)));
        assert_eq!(share_of(Vec::new(), 99), None);
    }
}
