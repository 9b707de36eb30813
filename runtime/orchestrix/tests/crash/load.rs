//! Callers of a node in this process, who write down what they are told and ask again about what nobody knew.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use orchestrix::core::{CommandId, EventStore, Never, SnapshotPolicy};
use orchestrix::{Node, NotAttempted, Orchestrix, SendError, Settings};
use orchestrix_testkit::{FaultControl, Faulty};
use tokio::task::JoinSet;

use crate::ledger::{Ledger, Post, ledger};
use crate::told::{Sent, Told};

/// The ledgers, and the callers who share them.
const LEDGERS: u64 = 8;
const CALLERS: u64 = 24;

/// How long a caller who was refused waits, as one would who does not want to make things worse.
const PAUSE: Duration = Duration::from_millis(5);

/// One retry in so many is made once more at the end, to compare the replies.
const AGAIN_EVERY: usize = 5;

/// Turns a hang into a failure.
const PATIENCE: Duration = Duration::from_mins(2);

/// Settings that suit stories of faults: short waits, snapshots often.
pub fn settings(lease: Duration) -> Settings {
    Settings {
        arbiters: 2,
        lease,
        claim_wait_max: Duration::from_mins(1),
        command_timeout: Duration::from_millis(400),
        snapshots: SnapshotPolicy::every(60),
        // More than any ledger does in a story: some of the first commands are asked for again at the end.
        dedup_commands_max: 100_000,
        ..Settings::default()
    }
}

/// Starts a node on a store, with a count of what the store answers.
pub async fn start(store: Arc<dyn EventStore>, settings: Settings) -> (Node, FaultControl) {
    let (counted, seen) = Faulty::new(store);
    let store: Arc<dyn EventStore> = counted;
    let builder = Orchestrix::builder().store(store).aggregate::<Ledger>().settings(settings);
    (builder.metrics(false).start().await.expect("the node starts"), seen)
}

/// What callers share.
pub struct Load {
    node: Node,
    told: Mutex<Told>,
    ended: AtomicBool,
    /// Answers by kind.
    not_attempted: Mutex<BTreeMap<&'static str, u64>>,
    pub unknown: AtomicU64,
    /// The longest time from the first *unknown* about a command to its answer.
    resolved_max: Mutex<Duration>,
}

/// A load that runs.
pub struct Callers {
    pub load: Arc<Load>,
    tasks: JoinSet<()>,
}

impl Callers {
    pub fn begin(node: &Node) -> Self {
        let load = Arc::new(Load {
            node: node.clone(),
            told: Mutex::default(),
            ended: AtomicBool::new(false),
            not_attempted: Mutex::default(),
            unknown: AtomicU64::new(0),
            resolved_max: Mutex::default(),
        });
        let mut tasks = JoinSet::new();
        for caller in 0..CALLERS {
            let load = Arc::clone(&load);
            tasks.spawn(async move {
                for number in caller.. {
                    if load.ended.load(Ordering::Acquire) {
                        return;
                    }
                    load.post(number % LEDGERS).await;
                }
            });
        }
        Self { load, tasks }
    }

    /// Ends the load when every caller has a certain answer, and asks once more about a part of the commands.
    pub async fn end(mut self) -> Arc<Load> {
        self.load.ended.store(true, Ordering::Release);
        let ended = async { while self.tasks.join_next().await.is_some_and(|ended| ended.is_ok()) {} };
        in_time("the callers", ended).await;
        assert!(self.tasks.is_empty(), "a caller found something wrong");
        let again: Vec<Sent> = self.load.told().done.keys().copied().step_by(AGAIN_EVERY).collect();
        for sent in again {
            in_time("a retry", self.load.until_done(sent)).await;
        }
        self.load
    }
}

impl Load {
    pub fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().expect("nothing panics under this lock but a failure")
    }

    /// Returns how often a command was not attempted, by the kind of the answer.
    pub fn not_attempted(&self) -> MutexGuard<'_, BTreeMap<&'static str, u64>> {
        self.not_attempted.lock().expect("nothing panics under this lock")
    }

    /// Returns the longest time from the first *unknown* about a command to its answer.
    pub fn resolved_max(&self) -> Duration {
        *self.resolved_max.lock().expect("nothing panics under this lock")
    }

    /// Sends one command, and asks again until its outcome is certain. Returns whether it was done.
    pub async fn post(&self, number: u64) -> bool {
        let sent = (number, CommandId::fresh());
        self.told().open.insert(sent);
        match self.send(sent).await {
            Ok(()) => true,
            Err(SendError::NotAttempted(why)) => {
                *self.not_attempted().entry(why.kind()).or_default() += 1;
                self.told().never(sent);
                tokio::time::sleep(PAUSE).await;
                false
            }
            Err(SendError::Unknown(_)) => {
                self.unknown.fetch_add(1, Ordering::Relaxed);
                let since = Instant::now();
                self.until_done(sent).await;
                let mut longest = self.resolved_max.lock().expect("nothing panics under this lock");
                *longest = since.elapsed().max(*longest);
                true
            }
        }
    }

    /// Sends a command of which nobody knows until it is done: an attempt that is refused says nothing of the first.
    async fn until_done(&self, sent: Sent) {
        while let Err(error) = self.send(sent).await {
            let is_passing = match &error {
                SendError::Unknown(_) => true,
                SendError::NotAttempted(why) => matches!(
                    why,
                    NotAttempted::Unavailable { .. }
                        | NotAttempted::NotOwner { .. }
                        | NotAttempted::Overloaded { .. }
                        | NotAttempted::DeadlineExceeded
                ),
                SendError::Refused(_) => false,
            };
            assert!(is_passing, "{sent:?} cannot be sent again: {error}");
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn send(&self, sent: Sent) -> Result<(), SendError<Never>> {
        let (number, id) = sent;
        let done = self.node.of::<Ledger>(ledger(number)).send(Post {}).id(id).receipt().await?;
        assert_eq!(done.reply, done.version.get(), "the reply is the version");
        self.told().done(sent, done.reply);
        Ok(())
    }

    /// Returns when every ledger has done a command that was sent from now on, and after how long.
    pub async fn all_done(self: &Arc<Self>) -> Duration {
        let began = Instant::now();
        let mut ledgers = JoinSet::new();
        for number in 0..LEDGERS {
            let load = Arc::clone(self);
            ledgers.spawn(async move { while !load.post(number).await {} });
        }
        in_time("a command that is done", ledgers.join_all()).await;
        began.elapsed()
    }

    /// Sends a ledger out of memory, so that the next command loads it.
    pub async fn forget(&self, number: u64) {
        self.node.passivate::<Ledger>(&ledger(number)).await;
    }
}

/// Turns a hang into a failure.
///
/// # Panics
/// When the future does not end.
pub async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    let ended = tokio::time::timeout(PATIENCE, future).await;
    ended.unwrap_or_else(|_| panic!("this came to no end: {what}"))
}

/// Chance from a seed: SplitMix64.
pub struct Dice(u64);

impl Dice {
    /// A seed that is new in each run, printed so that a failure can be run again; `STORY_SEED` sets it.
    pub fn of(story: &str) -> Self {
        let given = std::env::var("STORY_SEED").ok().and_then(|text| text.parse().ok());
        let seed = given.unwrap_or_else(|| CommandId::fresh().as_uuid().as_u128() as u64);
        println!("{story}: STORY_SEED={seed}");
        Self(seed)
    }

    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % sides
    }

    /// Waits for a random while of at most so many microseconds: a moment that nobody chose.
    pub async fn a_while(&mut self, micros_max: u64) {
        tokio::time::sleep(Duration::from_micros(self.roll(micros_max))).await;
    }
}
