//! The limit of the runtime in memory: bare asks to bare actors that do the same little work and nothing else.
//!
//! As many actors as aggregates, an arbiter per core, callers as tasks of the same runtime as in a run. What a command
//! through the node costs above this is the node's own: deciding, recording, remembering, answering late.

use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;

use actix::{Actor, Addr, Arbiter, Context, Handler, Message, System};
use anyhow::Context as _;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::driver::{Load, Window};
use crate::scenario::{Random, Spread, filler};

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

/// Asks for as long as the load says and returns the answers per second of the measured time.
///
/// # Errors
/// When an actor is gone, which only a panic can cause.
pub(crate) async fn measure(load: &Load) -> anyhow::Result<f64> {
    let stage = Stage::start(load.aggregates)?;
    let window = Window::begin(load.warmup, load.duration);
    let mut tasks = JoinSet::new();
    for number in 0..load.callers {
        tasks.spawn(call(Arc::clone(&stage.actors), load.clone(), number, window));
    }
    let mut answers = 0;
    while let Some(ended) = tasks.join_next().await {
        answers += ended.context("a caller panicked")??;
    }
    stage.stop();
    Ok(answers as f64 / window.length().as_secs_f64())
}

async fn call(actors: Arc<[Addr<Bare>]>, load: Load, number: usize, window: Window) -> anyhow::Result<u64> {
    let mut random = Random::new(load.seed, number);
    let spread = Spread { aggregates: actors.len(), hot: load.hot };
    let filler = filler(load.payload_bytes);
    let mut answers = 0;
    let mut now = window.start;
    while now < window.until {
        let ask = Ask { amount: random.below(10) as u64, _filler: Arc::clone(&filler) };
        actors[spread.pick(&mut random)].send(ask).await.context("an actor is gone")?;
        now = Instant::now();
        answers += u64::from(window.contains(now));
    }
    Ok(answers)
}
