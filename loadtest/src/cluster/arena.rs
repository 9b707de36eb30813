//! A run from the first start to the check of the log.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use sqlx::Connection as _;
use sqlx::postgres::PgConnection;
use tokio::time::{Instant, sleep, sleep_until};

use super::Plan;
use super::callers::{self, Book, Crowd};
use super::deliver::Course;
use super::faults::Faults;
use super::fleet::{Fleet, Way};
use super::harm::{Findings, Nodes};
use super::probe::{Counters, Prober};
use super::process::NodeOptions;
use crate::check::{Check, check};
use crate::cli::Common;
use crate::database::Database;
use crate::driver::{Goal, Monitor, Record, Trace, Window};
use crate::scenario::Random;

/// Callers that send the first commands at most.
const FIRST_CALLERS_MAX: usize = 512;

/// The number of the generator that chooses what is done to the nodes: none of the callers has it.
const HARM_NUMBER: usize = usize::MAX;

/// The time between two looks at who owns what, where commands are sent by that.
const OWNERS_EVERY: Duration = Duration::from_millis(500);

/// What a run gave.
#[derive(Debug)]
pub(crate) struct Run {
    /// Commands done per second of the measured time.
    pub(crate) commands_per_s: f64,
    /// Reads done per second of the measured time.
    pub(crate) reads_per_s: f64,
    /// What the clients wrote down, without the acknowledgements.
    pub(crate) book: Book,
    /// What was done to the nodes.
    pub(crate) findings: Findings,
    /// What the replay of the log found.
    pub(crate) check: Check,
    /// Transactions of one node per second while nobody asked for anything, where that was measured.
    pub(crate) idle_per_node_s: Option<f64>,
    /// What was seen from outside.
    pub(crate) trace: Trace,
}

/// Starts the nodes on a database, drives them, does to them what was asked for, lets them leave, checks the log.
///
/// # Errors
/// When a node does not start, ends by itself or does not leave, or the log cannot be read.
pub(crate) async fn run(
    common: &Common,
    database: &Database,
    plan: &Plan,
    label: &str,
) -> anyhow::Result<Run> {
    // Before the nodes, so that the schema is there and one of them does not have to make it.
    let store = database.open().await?;
    let counters = Counters::new(store.info().shard_count, plan.aggregates);
    let shards = store.info().shard_count.get();
    let course = Arc::new(course(plan, shards, counters.shards.clone()));
    let prober = Prober::new(&course, &counters, common.seed);
    let options = NodeOptions {
        url: database.url()?.to_owned(),
        lease: plan.lease,
        payload_bytes: common.payload,
        lanes: common.lanes,
    };
    let mut nodes = Nodes::new(options, &course, prober, Random::new(common.seed, HARM_NUMBER));
    nodes.start_all().await?;
    let idle_per_node_s = idle(database.url()?, plan).await?;
    let mut driven = drive(common, plan, &course, &mut nodes, label).await?;
    let (findings, book) = nodes.leave_all().await?;
    driven.book.keep(book);
    driven.book.record.acks.extend(course.fleet.close());
    let mut promised = Record::new(1);
    promised.acks = std::mem::take(&mut driven.book.record.acks);
    promised.wrong_replies = driven.book.record.wrong_replies + driven.book.stale;
    let check = check(store.as_ref(), promised).await?;
    store.close().await;
    Ok(Run {
        commands_per_s: driven.book.record.commands_in_window as f64 / driven.measured.as_secs_f64(),
        reads_per_s: driven.book.record.reads_in_window as f64 / driven.measured.as_secs_f64(),
        book: driven.book,
        findings,
        check,
        idle_per_node_s,
        trace: driven.trace,
    })
}

fn course(plan: &Plan, shards: u32, of_counters: Vec<u32>) -> Course {
    Course {
        fleet: Fleet::new(plan.nodes, shards),
        faults: Faults::default(),
        floors: of_counters.iter().map(|_| AtomicU64::new(0)).collect(),
        shards: of_counters,
        way: plan.way,
        live: Arc::default(),
        stopped: AtomicBool::new(false),
    }
}

/// What driving the nodes gave.
struct Driven {
    book: Book,
    measured: Duration,
    trace: Trace,
}

async fn drive(
    common: &Common,
    plan: &Plan,
    course: &Arc<Course>,
    nodes: &mut Nodes,
    label: &str,
) -> anyhow::Result<Driven> {
    let (callers, aggregates) = (plan.callers, plan.aggregates);
    let crowd = Crowd { callers, aggregates, read_share: plan.read_share, seed: common.seed };
    let first = Crowd { callers: callers.min(FIRST_CALLERS_MAX), ..crowd };
    let touched = callers::touch(course, first, 0..aggregates).await?;
    ensure!(
        touched.record.outcomes.all() == touched.record.outcomes.done,
        "only {} of {aggregates} aggregates took their first command: {}",
        touched.record.outcomes.done,
        touched.why.as_deref().unwrap_or("nobody knows why"),
    );
    let window = Window::begin(plan.warmup, Duration::from_hours(24 * 365));
    let until = window.from + plan.duration;
    let monitor = Monitor::start(label, Arc::clone(&course.live), Goal::Time(until - window.start));
    let load = tokio::spawn({
        let course = Arc::clone(course);
        async move { callers::run(&course, crowd, window).await }
    });
    let looking = (plan.way != Way::Any).then(|| tokio::spawn(keep_learning(Arc::clone(course))));
    sleep_until(window.from).await;
    let harmed = nodes.harm(plan, until).await;
    course.stopped.store(true, Ordering::Relaxed);
    let measured = window.from.elapsed();
    if let Some(looking) = looking {
        looking.abort();
    }
    let mut book = load.await.context("the callers panicked")??;
    let trace = monitor.stop();
    harmed?;
    book.keep(touched);
    Ok(Driven { book, measured, trace })
}

/// Keeps up with who owns what.
async fn keep_learning(course: Arc<Course>) {
    loop {
        course.fleet.learn_owners().await;
        sleep(OWNERS_EVERY).await;
    }
}

/// How late sessions tell the server about their transactions, at most: what was made before the count must not be in it.
const TOLD_LATE: Duration = Duration::from_secs(1);

/// Leaves the nodes alone and returns how many transactions each makes per second meanwhile.
async fn idle(url: &str, plan: &Plan) -> anyhow::Result<Option<f64>> {
    if plan.idle.is_zero() {
        return Ok(None);
    }
    let mut connection = PgConnection::connect(url).await.context("the server does not answer")?;
    sleep(TOLD_LATE).await;
    let (began, before) = (Instant::now(), transactions(&mut connection).await?);
    sleep(plan.idle).await;
    let (after, took) = (transactions(&mut connection).await?, began.elapsed());
    connection.close().await.context("the server does not answer")?;
    // The first look is one of those that the second one sees.
    let made = (after - before - 1).max(0) as f64;
    Ok(Some(made / took.as_secs_f64() / plan.nodes as f64))
}

/// Returns the transactions that were committed or rolled back in this database so far. A statement outside of a
/// transaction is one of its own.
async fn transactions(connection: &mut PgConnection) -> anyhow::Result<i64> {
    let text = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()";
    sqlx::query_scalar(text).fetch_one(connection).await.context("the server does not count transactions")
}
