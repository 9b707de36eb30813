//! Kills a process under load, again and again, and compares the log with everything that it acknowledged.
//!
//! The child is this very binary, told by its environment to serve instead of to test. It says on its standard output
//! what it sends and what it was answered; a line that did not get out before the kill was not acknowledged. What was
//! sent and not answered is sent again by the next child under the same id, as a client would.
#![allow(missing_docs, reason = "nobody uses a test binary as a library")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command as Process, Stdio};
use std::sync::Arc;
use std::time::Duration;

use orchestrix::core::prelude::*;
use orchestrix::core::store::RecordedEvent;
use orchestrix::core::{EventStore, Seq, SnapshotPolicy};
use orchestrix::store::Sqlite;
use orchestrix::{Orchestrix, Settings};

/// How often a process is killed.
const KILLS: usize = 50;

/// At least this many of the kills must have hit commands under way: others prove nothing.
const KILLS_UNDER_LOAD_MIN: usize = 40;

/// The callers of one child, and the aggregates that they share.
const CALLERS: u64 = 24;
const AGGREGATES: u64 = 8;

/// Each command stores this many events, so that a part of a commit would show.
const EVENTS: usize = 3;

const DATABASE: &str = "CRASH_TEST_DATABASE";
const RETRIES: &str = "CRASH_TEST_RETRIES";

aggregate_id!(
    /// Names a ledger.
    pub struct LedgerId, "ledger id"
);

#[derive(Clone, Debug, PartialEq, Event)]
enum LedgerEvent {
    #[event("ledger.posted")]
    Posted { part: usize },
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Ledger {
    parts: u64,
}

impl Aggregate for Ledger {
    const TYPE: AggregateType = aggregate_type!("ledger");
    type Id = LedgerId;
    type Event = LedgerEvent;

    fn apply(&mut self, _: &LedgerEvent) {
        self.parts += 1;
    }
}

#[derive(Clone, Debug, Serialize, Deserialize, Command)]
#[command("ledger.post", reply = u64)]
struct Post {}

impl Handle<Post> for Ledger {
    fn handle(&self, _: &Post, _: &Context) -> Decision<Self, Post> {
        emit_all((0..EVENTS).map(|part| LedgerEvent::Posted { part })).reply(self.parts + EVENTS as u64)
    }
}

fn ledger(number: u64) -> LedgerId {
    LedgerId::from_key(&format!("l-{number}")).expect("a good id")
}

/// The child's part: serves until it is killed. Without the child's environment there is nothing to do.
#[test]
fn serve_until_killed() {
    let Ok(database) = std::env::var(DATABASE) else { return };
    let retries = std::env::var(RETRIES).expect("the parent names both files");
    tokio::runtime::Runtime::new().expect("a runtime").block_on(serve(&database, &retries));
}

/// Writes one line at once. A pipe that is gone means that the parent is.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    if out.write_all(format!("{line}\n").as_bytes()).and_then(|()| out.flush()).is_err() {
        std::process::exit(1);
    }
}

async fn serve(database: &str, retries: &str) {
    let settings = Settings { snapshots: SnapshotPolicy::every(20), ..Settings::default() };
    let builder = Orchestrix::builder().store(Sqlite::open(database)).aggregate::<Ledger>();
    // The test runner has begun a line of its own.
    say("");
    let node = builder.settings(settings).start().await.expect("the node starts after any kill");
    for line in std::fs::read_to_string(retries).expect("the parent wrote it").lines() {
        let (number, id) = line.split_once(' ').expect("a number and an id");
        let to = node.of::<Ledger>(ledger(number.parse().expect("a number")));
        to.send(Post {}).id(id.parse().expect("an id")).await.expect("a retry is answered");
        say(&format!("done {line}"));
    }
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let node = node.clone();
            tokio::spawn(async move {
                for number in caller.. {
                    let (number, id) = (number % AGGREGATES, CommandId::fresh());
                    say(&format!("sent {number} {id}"));
                    let to = node.of::<Ledger>(ledger(number));
                    to.send(Post {}).id(id).await.expect("a command is answered");
                    say(&format!("done {number} {id}"));
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.expect("callers do not end");
    }
}

/// What the children said so far.
#[derive(Default)]
struct Heard {
    done: BTreeSet<String>,
    open: BTreeSet<String>,
}

impl Heard {
    /// Reads what one child says until its output ends; kills it a random while after its first new command.
    fn listen(&mut self, mut child: Child, patience: Duration) {
        let out = BufReader::new(child.stdout.take().expect("the output is a pipe"));
        let mut killer = None;
        let child = Arc::new(std::sync::Mutex::new(child));
        for line in out.lines() {
            let line = line.expect("the output is text");
            if let Some(command) = line.strip_prefix("sent ") {
                self.open.insert(command.to_owned());
                killer.get_or_insert_with(|| kill_after(Arc::clone(&child), patience));
            } else if let Some(command) = line.strip_prefix("done ") {
                self.open.remove(command);
                self.done.insert(command.to_owned());
            }
        }
        let status = child.lock().expect("nobody panicked").wait().expect("the child ends");
        killer.expect("the child sent at least one command before its end").join().expect("the killer ends");
        assert!(status.code().is_none(), "the child ended by itself: {status}");
    }
}

fn kill_after(child: Arc<std::sync::Mutex<Child>>, patience: Duration) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        std::thread::sleep(patience);
        child.lock().expect("nobody panicked").kill().expect("SIGKILL is sent");
    })
}

fn spawn(database: &Path, retries: &Path) -> Child {
    Process::new(std::env::current_exe().expect("the test knows its binary"))
        .args(["serve_until_killed", "--exact", "--nocapture", "--test-threads=1"])
        .env(DATABASE, database)
        .env(RETRIES, retries)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("the child starts")
}

async fn whole_log(database: &Path) -> Vec<RecordedEvent> {
    let store = Sqlite::open(database).connect().await.expect("the database opens after any kill");
    let mut log = Vec::new();
    for shard in store.info().shard_count.all() {
        let mut after = Seq::ZERO;
        loop {
            let events = store.read_shard(shard, after, 1_000).await.expect("the log is readable");
            let Some(last) = events.last() else { break };
            assert_eq!(events[0].seq, after.next(), "shard {shard} has no hole");
            after = last.seq;
            log.extend(events);
        }
    }
    store.close().await;
    log
}

/// Every acknowledged command is in the log exactly once and whole; nothing else is there in part; versions are dense.
fn check(log: &[RecordedEvent], heard: &Heard) {
    let mut commands: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let mut streams: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for event in log {
        let number = event.stream.id.strip_prefix("l-").expect("only ledgers are stored");
        let command = format!("{number} {}", event.command_id);
        commands.entry(command).or_default().push(event.version.get());
        streams.entry(&event.stream.id).or_default().push(event.version.get());
    }
    for (command, versions) in &mut commands {
        versions.sort_unstable();
        assert_eq!(versions.len(), EVENTS, "command {command} is there once and whole");
        assert_eq!(
            versions[EVENTS - 1] - versions[0],
            EVENTS as u64 - 1,
            "command {command} is in one piece"
        );
        assert!(heard.done.contains(command) || heard.open.contains(command), "command {command} was sent");
    }
    for command in &heard.done {
        assert!(commands.contains_key(command), "acknowledged command {command} is in the log");
    }
    for (stream, versions) in &mut streams {
        versions.sort_unstable();
        assert!(versions.iter().copied().eq(1..=versions.len() as u64), "versions of {stream} are 1..n");
    }
}

#[tokio::test]
async fn a_kill_loses_nothing_and_doubles_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let (database, retries) = (folder.path().join("crash.db"), folder.path().join("retries"));
    let (mut heard, mut under_load) = (Heard::default(), 0);
    for round in 0..KILLS {
        let open: Vec<String> = heard.open.iter().cloned().collect();
        std::fs::write(&retries, open.join("\n")).expect("the retries are written");
        // Random enough by the scheduler; spread evenly over the phases of an append.
        let patience = Duration::from_micros(1_000 + (round as u64 * 7_919) % 60_000);
        heard.listen(spawn(&database, &retries), patience);
        under_load += usize::from(!heard.open.is_empty());
        if round % 10 == 9 {
            check(&whole_log(&database).await, &heard);
        }
    }
    let log = whole_log(&database).await;
    check(&log, &heard);
    println!(
        "{KILLS} kills, {under_load} under load, {} acknowledged, {} events",
        heard.done.len(),
        log.len()
    );
    assert!(under_load >= KILLS_UNDER_LOAD_MIN, "only {under_load} of {KILLS} kills hit commands under way");
    assert!(heard.done.len() > KILLS, "the children did real work");
}
