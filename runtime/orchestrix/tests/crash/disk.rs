//! The server's disks run full under load, and are freed again.
//!
//! Its data and its log of changes lie on small disks of their own, since a server answers the two in different ways:
//! without room for data a statement fails, without room for the log the whole server goes down.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use orchestrix_testkit::postgres::{PostgresServer, SmallDisk};

use crate::database::{look, make_database, options};
use crate::load::{Callers, Dice, in_time, settings, start};
use crate::told::whole_log;
use crate::{report, size, spread};

/// Enough for a fresh server and some work.
const DATA_MIB: u32 = 160;
const WAL_MIB: u32 = 48;

/// Settings that go with the small disk: its log of changes stays far below it.
const SETTINGS: [(&str, &str); 4] =
    [("shared_buffers", "16MB"), ("max_wal_size", "16MB"), ("min_wal_size", "2MB"), ("wal_recycle", "off")];

/// Mounts the disks. Where that is not allowed, the story cannot be told: on a machine that checks changes for everybody
/// that is a failure, elsewhere it is said, past the test runner, which keeps what passing tests print.
fn disks() -> Option<[SmallDisk; 2]> {
    match SmallDisk::mount("data", DATA_MIB).and_then(|data| Ok([data, SmallDisk::mount("wal", WAL_MIB)?])) {
        Ok(disks) => Some(disks),
        Err(error) => {
            let needed =
                format!("the story of the full disk was NOT run: {error}; run the tests as root on Linux");
            assert!(std::env::var_os("CI").is_none(), "{needed}");
            writeln!(std::io::stderr(), "{needed}").expect("somebody reads it");
            None
        }
    }
}

/// Starts the server again if it went down.
async fn see_to(server: &Arc<PostgresServer>) -> bool {
    let server = Arc::clone(server);
    let seen_to = tokio::task::spawn_blocking(move || {
        let is_down = !server.is_up();
        if is_down {
            server.resume().unwrap_or_else(|error| panic!("{error}"));
        }
        is_down
    });
    seen_to.await.expect("no panic")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_loses_nothing_and_doubles_nothing() {
    let Some([data, wal]) = disks() else { return };
    let rounds = size(4, 20);
    let server = PostgresServer::start_on(data.path(), Some(wal.path()), &SETTINGS);
    let server = Arc::new(server.unwrap_or_else(|error| panic!("{error}")));
    let url = make_database(&server).await;
    let store = options(&url).connect().await.expect("the database opens");
    let (node, seen) = start(Arc::new(store), settings(Duration::from_secs(1))).await;
    let (callers, mut dice) = (Callers::begin(&node), Dice::of("full disks"));
    let (mut downs, mut back, mut met) = (0, Vec::new(), [0, 0]);
    for round in 0..rounds {
        callers.load.all_done().await;
        dice.a_while(30_000).await;
        let disk = if round % 2 == 0 { &data } else { &wal };
        let before = seen.appends_seen();
        disk.fill().unwrap_or_else(|error| panic!("{error}"));
        // Until an append has met it: what is in doubt, or what the store refused.
        let refused = || {
            let now = seen.appends_seen();
            now.unavailable + now.unknown > before.unavailable + before.unknown
        };
        in_time("an append that meets the full disk", async {
            while !refused() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
        dice.a_while(400_000).await;
        let after = seen.appends_seen();
        met[0] += usize::from(after.unavailable > before.unavailable);
        met[1] += usize::from(after.unknown > before.unknown);
        disk.free().unwrap_or_else(|error| panic!("{error}"));
        downs += usize::from(see_to(&server).await);
        back.push(callers.load.all_done().await);
    }
    let load = callers.end().await;
    node.shutdown().await;
    let log = whole_log(&look(&url).await).await;
    load.told().check(&log);
    let [refused, doubtful] = met;
    let (not_attempted, unknown) = (load.not_attempted().clone(), load.unknown.load(Ordering::Relaxed));
    report(&format!(
        "{rounds} full disks, data and log in turns: {refused} with appends refused for it, {doubtful} with appends in \
         doubt, the server went down {downs} times; {} done, not attempted {not_attempted:?}, {unknown} unknown (resolved \
         within {:?}); room to the next answer: {}",
        load.told().done.len(),
        load.resolved_max(),
        spread(&back)
    ));
    assert!(refused > 0 && doubtful > 0, "both answers of a full disk were met");
}
