//! Requests that arrive late: after their sender has given them up, asked again, and perhaps been answered.

use std::sync::Arc;
use std::time::{Duration, Instant};

use orchestrix::core::{CommandId, Never};
use orchestrix::{Consistency, Node, NotAttempted, SendError, Settings};
use orchestrix_testkit::FaultControl;
use orchestrix_testkit::proxy::{Answer, At, Cut, Proxy};

use crate::database::{address, look, make_database, options, shared_server, through};
use crate::ledger::{EVENTS, Ledger, Post, ledger};
use crate::load::{in_time, settings, start};
use crate::told::{Told, whole_log};
use crate::{report, size};

const APPEND: At = At::Statement("orchestrix.append(");
const CLAIM: At = At::Statement("orchestrix.claim_in(");
const RENEW: At = At::Statement("SET lease_until");

/// A node behind a proxy, and nobody but the story itself who sends anything.
struct Stage {
    proxy: Proxy,
    url: String,
    node: Node,
    seen: FaultControl,
    told: Told,
}

impl Stage {
    async fn begin(settings: Settings, statements: Duration) -> Self {
        let server = shared_server();
        let url = make_database(server).await;
        let proxy = Proxy::start(address(server)).await.expect("a proxy");
        let store = options(&through(&url, server, proxy.address())).timeout(statements);
        let (node, seen) = start(Arc::new(store.connect().await.expect("opens")), settings).await;
        Self { proxy, url, node, seen, told: Told::default() }
    }

    fn send(&self, number: u64, id: CommandId) -> tokio::task::JoinHandle<Result<u64, SendError<Never>>> {
        let to = self.node.of::<Ledger>(ledger(number));
        tokio::spawn(async move { to.send(Post {}).id(id).within(Duration::from_mins(1)).await })
    }

    async fn done(&mut self, number: u64, id: CommandId) {
        let reply = in_time("a command", self.send(number, id)).await.expect("no panic");
        self.told.done((number, id), reply.expect("a healthy node does it"));
    }

    /// Sends commands with a short deadline until nobody knows of one. Those that were not looked at in time are not it.
    async fn left_unknown(&mut self, number: u64) -> CommandId {
        let to = self.node.of::<Ledger>(ledger(number));
        loop {
            let id = CommandId::fresh();
            match to.send(Post {}).id(id).within(Duration::from_millis(50)).await {
                Err(SendError::Unknown(_)) => return id,
                Err(SendError::NotAttempted(_)) => self.told.never((number, id)),
                done => panic!("its answer is held back, and yet it is {done:?}"),
            }
        }
    }

    /// Sends fresh commands until one is done.
    async fn until_done(&mut self, number: u64) {
        loop {
            let id = CommandId::fresh();
            match self.send(number, id).await.expect("no panic") {
                Ok(reply) => return self.told.done((number, id), reply),
                Err(SendError::NotAttempted(_)) => self.told.never((number, id)),
                other => panic!("with so much time everything is certain: {other:?}"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn end(self) {
        self.node.shutdown().await;
        let store = look(&self.url).await;
        self.told.check(&whole_log(&store).await);
    }
}

/// The old request arrives after the node has claimed again and told its caller that nothing was stored. In every
/// second round the command has been sent again and done by then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_arrives_after_it_was_given_up_stores_nothing() {
    let rounds = size(20, 100);
    let mut stage = Stage::begin(settings(Duration::from_secs(6)), Duration::from_secs(30)).await;
    for round in 0..rounds {
        let number = round as u64 % 4;
        stage.done(number, CommandId::fresh()).await;
        let held = stage.proxy.set(APPEND, Cut::HoldRequest);
        let id = CommandId::fresh();
        let first = in_time("the first answer", stage.send(number, id)).await.expect("no panic");
        assert!(held.has_sprung(), "round {round}: its request is held");
        assert!(matches!(first, Err(SendError::NotAttempted(_))), "round {round}: {first:?}");
        let is_sent_again_first = round % 2 == 0;
        if is_sent_again_first {
            stage.done(number, id).await;
        } else {
            stage.told.never.insert((number, id));
        }
        stage.proxy.release();
        let answer = in_time("the late request", held.over()).await;
        assert_ne!(answer, Answer::None, "round {round}: the server has looked at it");
        stage.told.check(&whole_log(&look(&stage.url).await).await);
        if !is_sent_again_first {
            // It was certainly not done, so it may be sent once more, and is then done once.
            stage.told.never.remove(&(number, id));
            stage.done(number, id).await;
        }
    }
    let doubtful = stage.seen.appends_seen().doubtful;
    stage.end().await;
    report(&format!("late requests: {rounds} arrived after a new claim, {doubtful} appends were in doubt"));
    assert!(doubtful as usize >= rounds, "every round had one in doubt");
}

/// Nothing is cut: the request only takes longer than the store waits. It is given up, and arrives later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_takes_longer_than_anybody_waits_stores_nothing_later() {
    let mut stage = Stage::begin(settings(Duration::from_secs(6)), Duration::from_secs(1)).await;
    stage.done(1, CommandId::fresh()).await;
    let held = stage.proxy.set(APPEND, Cut::DelayRequest);
    let id = CommandId::fresh();
    let first = in_time("the first answer", stage.send(1, id)).await.expect("no panic");
    assert!(matches!(first, Err(SendError::NotAttempted(_))), "{first:?}");
    stage.proxy.release();
    in_time("the late request", held.over()).await;
    stage.told.never.insert((1, id));
    stage.told.check(&whole_log(&look(&stage.url).await).await);
    stage.told.never.clear();
    stage.done(1, id).await;
    stage.end().await;
}

/// The commit is made; its answer comes late, after the caller has heard *unknown* and asked again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_is_late_is_done_once() {
    let rounds = size(5, 100);
    let mut stage = Stage::begin(settings(Duration::from_secs(6)), Duration::from_secs(30)).await;
    for round in 0..rounds as u64 {
        let held = stage.proxy.set(APPEND, Cut::DelayAnswer);
        let id = stage.left_unknown(round % 4).await;
        let again = stage.send(round % 4, id);
        in_time("the commit", held.sprung()).await;
        stage.proxy.release();
        let reply = in_time("the retry", again).await.expect("no panic").expect("it is done");
        stage.told.done((round % 4, id), reply);
        in_time("the late answer", held.over()).await;
    }
    stage.end().await;
    report(&format!("late answers: {rounds} commits were told after their callers had given up"));
}

/// A node that is fenced by a claim of its own, which comes late, takes its shards again at once: it does not wait for the
/// end of its own lease, which is longer than anybody waits here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_own_claim_that_comes_late_does_not_stop_a_node_for_a_lease() {
    let rounds = size(3, 100);
    let mut stage = Stage::begin(settings(Duration::from_mins(5)), Duration::from_secs(30)).await;
    let mut longest = Duration::ZERO;
    for round in 0..rounds {
        let held = stage.proxy.set(CLAIM, Cut::HoldRequest);
        stage.proxy.set(APPEND, Cut::BeforeRequest);
        in_time("the claim that is made again", stage.until_done(1)).await;
        assert!(held.has_sprung(), "round {round}: the first claim is held");
        stage.proxy.release();
        assert_eq!(in_time("the late claim", held.over()).await, Answer::Done, "round {round}");
        let began = Instant::now();
        in_time("the node that was fenced by itself", stage.until_done(1)).await;
        longest = longest.max(began.elapsed());
    }
    let fenced = stage.seen.appends_seen().fenced;
    stage.end().await;
    report(&format!("late claims: {rounds} of its own, {fenced} commits fenced; back within {longest:?}"));
    assert!(fenced as usize >= rounds, "each late claim has fenced the node");
}

/// A lease counts from before the renewal was sent. Here the answer to one is late by most of a lease, and none follows:
/// the node must fall silent before another one, which the server lets in, has written anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewal_that_was_told_late_does_not_make_the_lease_longer() {
    const LEASE: Duration = Duration::from_secs(2);
    let rounds = size(1, 20);
    // Only the lease may silence it.
    let patient = Settings { command_timeout: Duration::from_mins(1), ..settings(LEASE) };
    for round in 0..rounds {
        let mut stage = Stage::begin(patient.clone(), Duration::from_secs(30)).await;
        stage.done(1, CommandId::fresh()).await;
        let renewal = stage.proxy.set(RENEW, Cut::DelayAnswer);
        in_time("a renewal", renewal.sprung()).await;
        let other = async {
            let store = options(&stage.url).connect().await.expect("opens");
            let (other, _) = start(Arc::new(store), patient.clone()).await;
            let reply = other.of::<Ledger>(ledger(1)).send(Post {}).await.expect("it serves");
            assert_eq!(reply, 2 * EVENTS, "round {round}");
            other
        };
        let late = async {
            tokio::time::sleep(LEASE * 3 / 4).await;
            stage.proxy.release();
            in_time("the late answer", renewal.over()).await;
            stage.proxy.stall();
        };
        let (other, ()) = tokio::join!(in_time("the other node", other), late);
        let of = stage.node.of::<Ledger>(ledger(1));
        let read = of.read_versioned(Consistency::Leased, |state| state.parts);
        let seen = in_time("a read", read).await;
        assert!(
            matches!(seen, Err(NotAttempted::Unavailable { .. } | NotAttempted::NotOwner { .. })),
            "round {round}: the first node read {seen:?} after the second one had written"
        );
        stage.proxy.resume();
        other.shutdown().await;
        stage.node.shutdown().await;
    }
    report(&format!("late renewals: {rounds} takeovers, no stale read"));
}

/// A read waits for the commit that it was computed on, whose answer is late. Meanwhile another node has taken over and
/// written: the commit is done, but the read would be old.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_that_waited_until_another_node_had_written_says_nothing() {
    const LEASE: Duration = Duration::from_secs(1);
    let rounds = size(1, 20);
    let patient = Settings { command_timeout: Duration::from_mins(1), ..settings(LEASE) };
    for round in 0..rounds {
        let mut stage = Stage::begin(patient.clone(), Duration::from_secs(30)).await;
        stage.done(1, CommandId::fresh()).await;
        // The one that is under way holds up all others.
        let renewal = stage.proxy.set(RENEW, Cut::DelayRequest);
        in_time("a renewal", renewal.sprung()).await;
        let commit = stage.proxy.set(APPEND, Cut::DelayAnswer);
        let id = CommandId::fresh();
        let command = stage.send(1, id);
        in_time("the commit", commit.sprung()).await;
        let of = stage.node.of::<Ledger>(ledger(1));
        let read =
            tokio::spawn(async move { of.read_versioned(Consistency::Leased, |state| state.parts).await });
        in_time("the read", async {
            while stage.node.residency().in_flight < 2 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        let store = options(&stage.url).connect().await.expect("opens");
        let (other, _) = start(Arc::new(store), patient.clone()).await;
        let reply = other.of::<Ledger>(ledger(1)).send(Post {}).await.expect("it serves");
        assert_eq!(reply, 3 * EVENTS, "round {round}: it has seen the commit");
        stage.proxy.release();
        let done = in_time("the commit's answer", command).await.expect("no panic").expect("it is done");
        assert_eq!(done, 2 * EVENTS, "round {round}: what was stored is told");
        let seen = in_time("the read's answer", read).await.expect("no panic");
        assert!(
            matches!(seen, Err(NotAttempted::Unavailable { .. } | NotAttempted::NotOwner { .. })),
            "round {round}: the first node read {seen:?} after the second one had written"
        );
        other.shutdown().await;
        stage.node.shutdown().await;
    }
    report(&format!("late reads: {rounds} takeovers, no stale read"));
}
