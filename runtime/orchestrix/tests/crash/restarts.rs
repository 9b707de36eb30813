//! The server crashes under a node that goes on running, and comes back.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use orchestrix::NodeStatus;
use orchestrix_testkit::postgres::{PostgresServer, Stop};

use crate::database::{look, make_database, options, own_server};
use crate::load::{Callers, Dice, settings, start};
use crate::told::whole_log;
use crate::{report, size, spread};

const LEASE: Duration = Duration::from_secs(1);

/// One time in so many the server stays away for longer than a lease.
const LONG_EVERY: usize = 5;

/// Of all crashes at least this share must have met appends under way, in percent.
const HITS_MIN: usize = 60;

/// What is counted.
#[derive(Default)]
struct Counts {
    hits: usize,
    doubtful: usize,
    lapses: usize,
    back: Vec<Duration>,
    ready: Vec<Duration>,
}

async fn steer(server: &Arc<PostgresServer>, how: Option<Stop>) {
    let server = Arc::clone(server);
    let steered = tokio::task::spawn_blocking(move || match how {
        Some(how) => server.stop(how),
        None => server.resume(),
    });
    steered.await.expect("no panic").unwrap_or_else(|error| panic!("{error}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_of_the_server_loses_nothing_and_doubles_nothing() {
    let rounds = size(8, 50);
    let server = Arc::new(own_server());
    let url = make_database(&server).await;
    let store = options(&url).connect().await.expect("the database opens");
    let (node, seen) = start(Arc::new(store), settings(LEASE)).await;
    let (callers, mut dice) = (Callers::begin(&node), Dice::of("restarts"));
    let mut counts = Counts::default();
    for round in 0..rounds {
        callers.load.all_done().await;
        dice.a_while(60_000).await;
        let before = seen.appends_seen();
        counts.hits += usize::from(before.under_way > 0);
        steer(&server, Some(Stop::Immediate)).await;
        let is_long = round % LONG_EVERY == LONG_EVERY - 1;
        if is_long {
            tokio::time::sleep(LEASE).await;
            counts.lapses += usize::from(node.status() == NodeStatus::Suspended);
        }
        dice.a_while(500_000).await;
        counts.doubtful += usize::from(seen.appends_seen().doubtful > before.doubtful);
        let began = Instant::now();
        steer(&server, None).await;
        counts.ready.push(callers.load.all_done().await);
        counts.back.push(began.elapsed());
    }
    let load = callers.end().await;
    node.shutdown().await;
    let log = whole_log(&look(&url).await).await;
    load.told().check(&log);
    let done = load.told().done.len();
    let (not_attempted, unknown) = (load.not_attempted().clone(), load.unknown.load(Ordering::Relaxed));
    report(&format!(
        "{rounds} crashes of the server: {} with appends under way, {} with an append in doubt, {} lapses of the \
         lease; {done} done, not attempted {not_attempted:?}, {unknown} unknown (resolved within {:?}); first answer \
         after the start began: {}; after the server was ready: {}",
        counts.hits,
        counts.doubtful,
        counts.lapses,
        load.resolved_max(),
        spread(&counts.back),
        spread(&counts.ready),
    ));
    assert!(counts.hits * 100 >= rounds * HITS_MIN, "only {} of {rounds} met appends", counts.hits);
    assert!(counts.doubtful * 100 >= rounds * HITS_MIN, "only {} left one in doubt", counts.doubtful);
    assert_eq!(
        counts.lapses,
        rounds / LONG_EVERY,
        "the lease lapsed whenever the server stayed away for long"
    );
    assert!(unknown > 0 && !not_attempted.is_empty(), "callers heard both");
}
