//! Kills a process under load, again and again, on each store.
//!
//! The child is this very binary, told by its environment to serve instead of to test. It says on its standard output
//! what it sends and what it was answered; a line that did not get out before the kill was not acknowledged. What was
//! sent and not answered is sent again by the next child under the same id, as a client would, and so are some commands
//! that were answered: their replies must be the first ones.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command as Process, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use orchestrix::core::prelude::*;
use orchestrix::core::{EventStore, SnapshotPolicy};
use orchestrix::store::Sqlite;
use orchestrix::{Node, Orchestrix, Settings};

use crate::database::{look, make_database, options, shared_server};
use crate::ledger::{Ledger, Post, ledger};
use crate::load::Dice;
use crate::told::{Sent, Told, whole_log};
use crate::{report, size, spread};

/// Of all kills at least this share must have hit commands under way, in percent: others prove nothing.
const HITS_MIN: usize = 80;

/// The callers of one child, and the ledgers that they share.
const CALLERS: u64 = 24;
const LEDGERS: u64 = 8;

/// The log is compared every so many kills, and at the end.
const CHECK_EVERY: usize = 10;

/// How many commands that were answered are sent again by each child.
const AGAIN: usize = 20;

/// Longer than any story: a new child may serve at once only because the old one is known to be gone.
const LEASE: Duration = Duration::from_mins(5);

const DATABASE: &str = "CRASH_TEST_DATABASE";
const RETRIES: &str = "CRASH_TEST_RETRIES";

/// The child's part: serves until it is killed. Without the child's environment there is nothing to do.
#[test]
fn serve_until_killed() {
    let Ok(database) = std::env::var(DATABASE) else { return };
    let retries = std::env::var(RETRIES).expect("the parent names both");
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
    let snapshots = SnapshotPolicy::every(20);
    let settings =
        Settings { snapshots, lease: LEASE, claim_wait_max: Duration::ZERO, ..Settings::default() };
    let builder = Orchestrix::builder().aggregate::<Ledger>().settings(settings);
    let builder = if database.starts_with("postgres://") {
        let store: Arc<dyn EventStore> = Arc::new(options(database).connect().await.expect("it opens"));
        builder.store(store)
    } else {
        builder.store(Sqlite::open(database))
    };
    // The test runner has begun a line of its own.
    say("");
    let node = builder.start().await.expect("the node starts at once after any kill");
    for line in std::fs::read_to_string(retries).expect("the parent wrote it").lines() {
        post(&node, parse(line).0).await;
    }
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let node = node.clone();
            tokio::spawn(async move {
                for number in caller.. {
                    let sent = (number % LEDGERS, CommandId::fresh());
                    say(&format!("sent {}", words(sent)));
                    post(&node, sent).await;
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.expect("callers do not end");
    }
}

async fn post(node: &Node, sent: Sent) {
    let (number, id) = sent;
    let reply = node.of::<Ledger>(ledger(number)).send(Post {}).id(id).await.expect("a command is answered");
    say(&format!("done {} {reply}", words(sent)));
}

fn words((number, id): Sent) -> String {
    format!("{number} {id}")
}

/// Reads a command, and what follows it.
fn parse(line: &str) -> (Sent, Option<u64>) {
    let mut words = line.split(' ');
    let number = words.next().and_then(|word| word.parse().ok()).expect("a number");
    let id = words.next().and_then(|word| word.parse().ok()).expect("an id");
    ((number, id), words.next().map(|word| word.parse().expect("a reply")))
}

/// The story on one store.
struct Story {
    told: Told,
    hits: usize,
    /// From the start of a process to its first answer.
    starts: Vec<Duration>,
}

impl Story {
    /// Reads what one child says until its output ends; kills it a random while after its first new command.
    fn listen(&mut self, mut child: Child, began: Instant, patience: Duration) {
        let out = BufReader::new(child.stdout.take().expect("the output is a pipe"));
        let (mut killer, mut answered) = (None, false);
        let child = Arc::new(std::sync::Mutex::new(child));
        for line in out.lines() {
            let line = line.expect("the output is text");
            if let Some(command) = line.strip_prefix("sent ") {
                self.told.open.insert(parse(command).0);
                killer.get_or_insert_with(|| kill_after(Arc::clone(&child), patience));
            } else if let Some(command) = line.strip_prefix("done ") {
                if !std::mem::replace(&mut answered, true) {
                    self.starts.push(began.elapsed());
                }
                let (sent, reply) = parse(command);
                self.told.done(sent, reply.expect("a reply"));
            }
        }
        let status = child.lock().expect("nobody panicked").wait().expect("the child ends");
        killer.expect("the child sent at least one command before its end").join().expect("the killer ends");
        assert!(status.code().is_none(), "the child ended by itself: {status}");
    }

    /// What the next child sends again: all that is open, and some of what was answered.
    fn retries(&self, dice: &mut Dice) -> String {
        let step = (self.told.done.len() / AGAIN).max(1);
        let from = dice.roll(step as u64) as usize;
        let again = self.told.done.keys().skip(from).step_by(step);
        let lines: Vec<String> = self.told.open.iter().chain(again).map(|sent| words(*sent)).collect();
        lines.join("\n")
    }

    fn end(&self, store: &str, kills: usize) {
        report(&format!(
            "{kills} kills on {store}: {} with commands under way; {} acknowledged; start of the process to its first \
             answer: {}",
            self.hits,
            self.told.done.len(),
            spread(&self.starts)
        ));
        assert!(self.hits * 100 >= kills * HITS_MIN, "only {} of {kills} kills hit commands", self.hits);
        assert!(self.told.done.len() > kills, "the children did real work");
    }
}

fn kill_after(child: Arc<std::sync::Mutex<Child>>, patience: Duration) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        std::thread::sleep(patience);
        child.lock().expect("nobody panicked").kill().expect("SIGKILL is sent");
    })
}

fn spawn(database: &str, retries: &Path) -> Child {
    Process::new(std::env::current_exe().expect("the test knows its binary"))
        .args(["kills::serve_until_killed", "--exact", "--nocapture", "--test-threads=1"])
        .env(DATABASE, database)
        .env(RETRIES, retries)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("the child starts")
}

/// Kills children on a database; `open` opens it for a look in between.
async fn kill_again_and_again(
    kind: &str,
    database: &str,
    kills: usize,
    open: impl AsyncFn() -> Arc<dyn EventStore>,
) {
    let folder = tempfile::tempdir().expect("a folder");
    let retries = folder.path().join("retries");
    let mut story = Story { told: Told::default(), hits: 0, starts: Vec::new() };
    let mut dice = Dice::of("kills");
    for round in 1..=kills {
        std::fs::write(&retries, story.retries(&mut dice)).expect("the retries are written");
        let patience = Duration::from_micros(1_000 + dice.roll(120_000));
        let began = Instant::now();
        story.listen(spawn(database, &retries), began, patience);
        story.hits += usize::from(!story.told.open.is_empty());
        if round % CHECK_EVERY == 0 || round == kills {
            let log = open().await;
            story.told.check(&whole_log(&*log).await);
            log.close().await;
        }
    }
    story.end(kind, kills);
}

#[tokio::test]
async fn a_kill_on_sqlite_loses_nothing_and_doubles_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("crash.db").display().to_string();
    let open = async || {
        let store = Sqlite::open(&path).connect().await.expect("the database opens after any kill");
        Arc::new(store) as Arc<dyn EventStore>
    };
    kill_again_and_again("SQLite", &path, size(50, 50), open).await;
}

#[tokio::test]
async fn a_kill_on_postgres_loses_nothing_and_doubles_nothing() {
    let url = make_database(shared_server()).await;
    let open = async || Arc::new(look(&url).await) as Arc<dyn EventStore>;
    // The tables are there before the first child, so that the time of its start is like that of the others.
    options(&url).connect().await.expect("the database opens").close().await;
    kill_again_and_again("PostgreSQL", &url, size(20, 50), open).await;
}
