//! The limit of the runtime in memory: bare asks to bare actors that do the same little work and nothing else.
//!
//! As many actors as aggregates, an arbiter per core, callers as tasks of the same runtime as in a run, with the same
//! books: each ask has an id, and its latency and its acknowledgement are written down. What a command through the node
//! costs above this is the node's own: deciding, recording, remembering, answering late. The same without books is
//! measured as well, and reported beside it.

use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;

use actix::{Actor, Addr, Arbiter, Context, Handler, Message, System};
use anyhow::Context as _;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::driver::{Ack, Answer, Load, Record, Timing, Window};
use crate::scenario::{CommandIds, Random, Spread, filler};

/// The actor: two numbers, as the scenario's aggregate has them.
#[derive(Default)]
struct Bare {
    count: u64,
    sum: u64,
}

impl Actor for Bare {
    type Context = Context<Self>;
}

/// Adds an amount and asks for the count.
struct Ask {
    amount: u64,
    _filler: Arc<str>,
}

impl Message for Ask {
    type Result = u64;
}

impl Handler<Ask> for Bare {
    type Result = u64;

    fn handle(&mut self, ask: Ask, _: &mut Context<Self>) -> u64 {
        self.count += 1;
        self.sum = self.sum.wrapping_add(ask.amount);
        self.count
    }
}

/// Actors on arbiters of their own. [`stop`](Stage::stop) ends their threads.
struct Stage {
    actors: Arc<[Addr<Bare>]>,
    arbiters: Vec<Arbiter>,
    system: System,
    thread: JoinHandle<()>,
}

impl Stage {
    fn start(actors: usize) -> anyhow::Result<Self> {
        let (tell, told) = sync_channel(1);
        let thread = std::thread::spawn(move || {
            let runner = System::new();
            // Nobody waits for the answer when the caller is gone, and then nobody needs the system either.
            let _ = tell.send(System::current());
            runner.block_on(std::future::pending::<()>());
        });
        let system = told.recv().context("the actors' system did not start")?;
        System::set_current(system.clone());
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let arbiters: Vec<Arbiter> = (0..cores).map(|_| Arbiter::new()).collect();
        let actors = (0..actors)
            .map(|number| Bare::start_in_arbiter(&arbiters[number % cores].handle(), |_| Bare::default()));
        Ok(Self { actors: actors.collect(), arbiters, system, thread })
    }

    fn stop(self) {
        drop(self.actors);
        for arbiter in self.arbiters {
            arbiter.stop();
            // A panic of an arbiter would have failed the asks before.
            let _ = arbiter.join();
        }
        self.system.stop();
        drop(self.thread);
    }
}

/// What a caller writes down of its answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Books {
    /// What the callers of a run write down too.
    Kept,
    /// How many there were.
    Counted,
}

/// Asks for as long as the load says and returns the answers per second of the measured time.
///
/// # Errors
/// When an actor is gone, which only a panic can cause.
pub(crate) async fn measure(load: &Load, books: Books) -> anyhow::Result<f64> {
    let stage = Stage::start(load.aggregates)?;
    let window = Window::begin(load.warmup, load.duration);
    let mut tasks = JoinSet::new();
    for number in 0..load.callers {
        let caller = Caller::new(&stage, load, number, window);
        match books {
            Books::Kept => tasks.spawn(caller.keep_books(load.callers)),
            Books::Counted => tasks.spawn(caller.count()),
        };
    }
    let mut answers = 0;
    while let Some(ended) = tasks.join_next().await {
        answers += ended.context("a caller panicked")??;
    }
    stage.stop();
    Ok(answers as f64 / window.length().as_secs_f64())
}

/// One caller.
struct Caller {
    actors: Arc<[Addr<Bare>]>,
    random: Random,
    spread: Spread,
    filler: Arc<str>,
    ids: CommandIds,
    window: Window,
}

impl Caller {
    fn new(stage: &Stage, load: &Load, number: usize, window: Window) -> Self {
        Self {
            actors: Arc::clone(&stage.actors),
            random: Random::new(load.seed, number),
            spread: Spread { aggregates: stage.actors.len(), hot: load.hot },
            filler: filler(load.payload_bytes),
            ids: CommandIds::new(window.tag, number),
            window,
        }
    }

    /// Asks some actor, and returns which one and what it answered.
    async fn ask(&mut self) -> anyhow::Result<(usize, u64)> {
        let actor = self.spread.pick(&mut self.random);
        let ask = Ask { amount: self.random.below(10) as u64, _filler: Arc::clone(&self.filler) };
        let count = self.actors[actor].send(ask).await.context("an actor is gone")?;
        Ok((actor, count))
    }

    async fn count(mut self) -> anyhow::Result<u64> {
        let mut answers = 0;
        let mut now = self.window.start;
        while now < self.window.until {
            self.ask().await?;
            now = Instant::now();
            answers += u64::from(self.window.contains(now));
        }
        Ok(answers)
    }

    async fn keep_books(mut self, callers: usize) -> anyhow::Result<u64> {
        let mut record = Record::new(callers);
        let mut sent = self.window.start;
        while sent < self.window.until {
            let id = self.ids.next(sent.saturating_duration_since(self.window.start));
            let (actor, count) = self.ask().await?;
            let now = Instant::now();
            let ack = Ack { id, aggregate: actor as u32, version: count as u32 };
            record.write(
                Answer::Added { ack, reply: count, duplicate: false },
                Timing::closed(sent, now, self.window),
            );
            sent = now;
        }
        Ok(record.commands_in_window)
    }
}
