//! Connections that are cut at every step of every statement that matters, under load.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use orchestrix::Node;
use orchestrix_testkit::FaultControl;
use orchestrix_testkit::proxy::{Armed, At, Cut, Proxy};

use crate::database::{address, look, make_database, options, shared_server, through};
use crate::load::{Callers, Dice, in_time, settings, start};
use crate::told::whole_log;
use crate::{report, size, spread};

const APPEND: At = At::Statement("orchestrix.append(");
const CLAIM: At = At::Statement("orchestrix.claim_in(");
const LOAD: At = At::Statement("orchestrix.snapshots AS s ON");
const RENEW: At = At::Statement("SET lease_until");

/// The steps of a statement at which it is cut.
const STEPS: [Cut; 7] = [
    Cut::BeforeRequest,
    Cut::InRequest,
    Cut::AfterRequest,
    Cut::SwallowAnswer,
    Cut::InAnswer,
    Cut::AfterAnswer,
    Cut::Answers,
];

/// As many bytes of a connection that begins pass: none, a part of the greeting, of the log-in, of what follows it.
const GREETINGS: [Cut; 6] = [
    Cut::BeforeRequest,
    Cut::AfterClientBytes(20),
    Cut::AfterServerBytes(10),
    Cut::AfterServerBytes(100),
    Cut::AfterClientBytes(700),
    Cut::AfterServerBytes(500),
];

/// A node behind a proxy, with callers.
struct Stage {
    proxy: Proxy,
    url: String,
    node: Node,
    seen: FaultControl,
    callers: Callers,
    dice: Dice,
    recovered: Vec<Duration>,
}

impl Stage {
    async fn begin(story: &str, lease: Duration) -> Self {
        let server = shared_server();
        let url = make_database(server).await;
        let proxy = Proxy::start(address(server)).await.expect("a proxy");
        let behind = options(&through(&url, server, proxy.address()));
        let opened = behind.connect().await.expect("the database opens through the proxy");
        let (node, seen) = start(Arc::new(opened), settings(lease)).await;
        let callers = Callers::begin(&node);
        callers.load.all_done().await;
        Self { proxy, url, node, seen, callers, dice: Dice::of(story), recovered: Vec::new() }
    }

    /// Waits until all traps of a round have sprung and the node has done a command that was sent afterwards.
    async fn round(&mut self, traps: &[Armed]) {
        for trap in traps {
            in_time("a trap that springs", trap.sprung()).await;
        }
        self.recovered.push(self.callers.load.all_done().await);
        self.dice.a_while(5_000).await;
    }

    /// Ends the load, compares the log, and returns what is to be reported.
    async fn end(self) -> (String, orchestrix_testkit::AppendCounts) {
        let load = self.callers.end().await;
        self.node.shutdown().await;
        let log = whole_log(&look(&self.url).await).await;
        load.told().check(&log);
        let words = format!(
            "{} done, not attempted {:?}, {} unknown (resolved within {:?}); a cut to the next answer: {}",
            load.told().done.len(),
            load.not_attempted(),
            load.unknown.load(Ordering::Relaxed),
            load.resolved_max(),
            spread(&self.recovered),
        );
        (words, self.seen.appends_seen())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_that_is_cut_at_any_step_is_told_truly() {
    let each = size(8, 100);
    let mut stage = Stage::begin("cut appends", Duration::from_secs(6)).await;
    let mut lines = Vec::new();
    for step in STEPS {
        let before = stage.seen.appends_seen().doubtful;
        for _ in 0..each {
            let trap = stage.proxy.set(APPEND, step);
            stage.round(&[trap]).await;
        }
        let doubtful = (stage.seen.appends_seen().doubtful - before) as usize;
        lines.push(format!("{step:?}: {each} cuts, {doubtful} left an append in doubt"));
        // An answer that was passed on whole may have been read before the cut; every other cut hits one in flight.
        let floor = if step == Cut::AfterAnswer { 0 } else { each };
        assert!(doubtful >= floor, "{step:?}: only {doubtful} of {each} cuts hit an append in flight");
    }
    let (words, _) = stage.end().await;
    report(&format!("cut appends: {}; {words}", lines.join("; ")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_is_cut_at_any_step_is_made_again() {
    let each = size(3, 100);
    let mut stage = Stage::begin("cut claims", Duration::from_secs(6)).await;
    for step in STEPS {
        for _ in 0..each {
            // An append in doubt is what makes a node claim. Whether it is stored must not matter.
            let lost = if stage.dice.roll(2) == 0 { Cut::SwallowAnswer } else { Cut::BeforeRequest };
            let traps = [stage.proxy.set(APPEND, lost), stage.proxy.set(CLAIM, step)];
            stage.round(&traps).await;
        }
    }
    let (words, seen) = stage.end().await;
    report(&format!("cut claims: {} cuts, each for an append in doubt; {words}", each * STEPS.len()));
    assert!(seen.doubtful as usize >= each * STEPS.len(), "every round had an append in doubt");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_cut_while_it_begins_is_made_again() {
    let each = size(3, 100);
    let mut stage = Stage::begin("cut greetings", Duration::from_secs(6)).await;
    for step in GREETINGS {
        for _ in 0..each {
            // A lane that lost its session connects.
            let traps = [stage.proxy.set(APPEND, Cut::AfterRequest), stage.proxy.set(At::Connect, step)];
            stage.round(&traps).await;
        }
    }
    let (words, seen) = stage.end().await;
    report(&format!(
        "cut greetings: {} cuts, each after an append in doubt; {words}",
        each * GREETINGS.len()
    ));
    assert!(seen.doubtful as usize >= each * GREETINGS.len(), "every round had an append in doubt");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_that_is_cut_at_any_step_is_told_truly() {
    let each = size(3, 100);
    let mut stage = Stage::begin("cut loads", Duration::from_secs(6)).await;
    for step in STEPS {
        for round in 0..each {
            let trap = stage.proxy.set(LOAD, step);
            // A ledger that is busy stays a moment longer; some other one goes.
            while !trap.has_sprung() {
                stage.callers.load.forget(round as u64 % 8).await;
                stage.dice.a_while(2_000).await;
            }
            stage.round(&[trap]).await;
        }
    }
    let (words, _) = stage.end().await;
    report(&format!("cut loads: {} cuts; {words}", each * STEPS.len()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewal_that_is_cut_at_any_step_is_made_again() {
    let each = size(1, 100);
    let mut stage = Stage::begin("cut renewals", Duration::from_secs(1)).await;
    for step in STEPS {
        for _ in 0..each {
            let trap = stage.proxy.set(RENEW, step);
            stage.round(&[trap]).await;
        }
    }
    let (words, seen) = stage.end().await;
    report(&format!("cut renewals: {} cuts; {words}", each * STEPS.len()));
    assert_eq!(seen.fenced, 0, "nobody else was there to take over");
}

/// Everything at once, at moments that nobody chose.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_cut_at_any_moment_is_told_truly() {
    let rounds = size(20, 200);
    let mut stage = Stage::begin("cut everything", Duration::from_secs(6)).await;
    let mut hits = 0;
    for _ in 0..rounds {
        stage.dice.a_while(20_000).await;
        hits += usize::from(stage.seen.appends_seen().under_way > 0);
        match stage.dice.roll(3) {
            0 => stage.proxy.cut_all(),
            1 => {
                stage.proxy.refuse(true);
                stage.proxy.cut_all();
                stage.dice.a_while(100_000).await;
                stage.proxy.refuse(false);
            }
            _ => {
                stage.proxy.stall();
                stage.dice.a_while(300_000).await;
                stage.proxy.cut_all();
                stage.proxy.resume();
            }
        }
        stage.round(&[]).await;
    }
    let (words, seen) = stage.end().await;
    report(&format!(
        "cut everything: {rounds} cuts, {hits} with appends under way, {} in doubt; {words}",
        seen.doubtful
    ));
    assert!(hits * 2 >= rounds, "only {hits} of {rounds} cuts met an append under way");
}
