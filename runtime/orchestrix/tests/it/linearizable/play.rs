//! The runs of a node on one log: stopped or killed and started again while callers are at work.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use orchestrix::core::{CommandId, ShardId, SnapshotPolicy};
use orchestrix::store::Memory;
use orchestrix::{Node, NodeStatus, Settings};
use orchestrix_testkit::{Fault, FaultControl, FaultCounts, Faulty, Operation};
use tokio::sync::watch;

use crate::harness::{Lanes, empty_log, in_time, start};
use crate::tampered::Tampered;

const FAULTS: [Fault; 7] = [
    Fault::FailBefore,
    Fault::Conflict,
    Fault::Drop,
    Fault::LoseAck,
    Fault::CommitLate { after: None },
    Fault::CommitLate { after: Some(Duration::from_micros(200)) },
    Fault::Delay(Duration::from_micros(300)),
];

/// One run of the node.
pub struct Act {
    pub number: u64,
    pub node: Node,
    pub faults: FaultControl,
    /// Set when the process is killed: whoever has not heard by then hears nothing.
    pub killed: watch::Sender<bool>,
}

/// What the loads of all runs found.
#[derive(Default)]
pub struct Loads {
    pub all: AtomicU64,
    pub from_snapshot: AtomicU64,
}

/// A command that somebody sent: to which counter, its id, its amount.
pub type Sent = (u64, CommandId, u64);

/// The runs of the node on one log, and what was counted meanwhile.
pub struct Play {
    pub log: Memory,
    lanes: Lanes,
    seed: u64,
    acts: watch::Sender<Arc<Act>>,
    /// The order of invocations and answers.
    time: AtomicU64,
    pub calls: AtomicU64,
    under_way: AtomicU64,
    sent: Mutex<Vec<Sent>>,
    pub loads: Arc<Loads>,
    hit: Mutex<Vec<FaultCounts>>,
    pub restarts_with_work: AtomicU64,
    /// One shard moves at a time: a claim that is not the last of its shard must not open it.
    moving: tokio::sync::Mutex<()>,
    pub moves: AtomicU64,
}

impl Play {
    pub async fn begin(seed: u64, lanes: Lanes) -> Arc<Self> {
        let (log, loads) = (empty_log(), Arc::default());
        let first = act(0, seed, lanes, &log, &loads).await;
        Arc::new(Self {
            log,
            lanes,
            seed,
            acts: watch::Sender::new(first),
            time: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            under_way: AtomicU64::new(0),
            sent: Mutex::default(),
            loads,
            hit: Mutex::default(),
            restarts_with_work: AtomicU64::new(0),
            moving: tokio::sync::Mutex::default(),
            moves: AtomicU64::new(0),
        })
    }

    pub fn act(&self) -> Arc<Act> {
        Arc::clone(&self.acts.borrow())
    }

    fn moment(&self) -> u64 {
        self.time.fetch_add(1, Ordering::SeqCst)
    }

    /// Returns the commands that were sent so far and may be sent again, by whom is left to chance.
    pub fn sent(&self) -> MutexGuard<'_, Vec<Sent>> {
        self.sent.lock().expect("nothing panics under this lock")
    }

    /// Waits for the answer to a call, unless the node is killed first.
    pub async fn call<T>(&self, act: &Act, call: impl Future<Output = T>) -> (u64, u64, Option<T>) {
        let mut killed = act.killed.subscribe();
        self.under_way.fetch_add(1, Ordering::SeqCst);
        let invoked = self.moment();
        let answer = tokio::select! {
            biased;
            _ = killed.wait_for(|killed| *killed) => None,
            answer = call => Some(answer),
        };
        let returned = self.moment();
        self.under_way.fetch_sub(1, Ordering::SeqCst);
        // What a killed process still says reaches nobody.
        (invoked, returned, answer.filter(|_| !*act.killed.borrow()))
    }

    /// Has the node give a shard away and take it back, sealed or fenced. It ends early with the run of the node.
    pub async fn move_shard(&self, act: &Act, shard: ShardId, is_sealed: bool) {
        let moving = async {
            let _alone = self.moving.lock().await;
            let shards = act.node.shards();
            if is_sealed {
                shards.seal(&[shard]).await;
            } else {
                shards.fence(&[shard]).await;
            }
            while let (Some(owner), NodeStatus::Running) = (shards.owner(), act.node.status()) {
                if let Ok(claims) = act.node.store().claim(&[shard], owner).await {
                    shards.open(&claims);
                    self.moves.fetch_add(1, Ordering::SeqCst);
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        let mut killed = act.killed.subscribe();
        tokio::select! {
            _ = killed.wait_for(|killed| *killed) => {}
            () = moving => {}
        }
    }

    /// Ends the node and starts it again on the same log. A killed one can reach its store no more, and what it had
    /// sent there may arrive late.
    pub async fn restart(&self, kill: bool) {
        let old = self.act();
        self.restarts_with_work
            .fetch_add(u64::from(self.under_way.load(Ordering::SeqCst) > 0), Ordering::SeqCst);
        if kill {
            old.killed.send_replace(true);
            old.faults.take_down();
        } else {
            old.node.shutdown().await;
        }
        let number = old.number + 1;
        let seed = self.seed.wrapping_add(number);
        let new = act(number, seed, self.lanes, &self.log, &self.loads).await;
        self.acts.send_replace(new);
        old.faults.release_late().await;
        self.hit.lock().expect("nothing panics under this lock").push(old.faults.faults_hit());
        if kill {
            // Its threads end in their own time; nobody listens to it any more.
            tokio::spawn(async move { old.node.shutdown().await });
        }
    }

    /// Ends the last run and returns which faults hit in all of them.
    pub async fn end(&self) -> Vec<FaultCounts> {
        let last = self.act();
        last.node.shutdown().await;
        let mut hit = self.hit.lock().expect("nothing panics under this lock").clone();
        hit.push(last.faults.faults_hit());
        hit
    }

    /// Returns when another run has taken this one's place.
    pub async fn next_act(&self, after: &Act) {
        let mut acts = self.acts.subscribe();
        let next = acts.wait_for(|act| act.number > after.number);
        in_time("the next start of the node", next).await.expect("the sender lives");
    }
}

/// Starts the node over a store in which every tenth append goes wrong.
async fn act(number: u64, seed: u64, lanes: Lanes, log: &Memory, loads: &Arc<Loads>) -> Arc<Act> {
    let (broken, faults) = Faulty::new(Arc::new(log.clone()));
    let loads = Arc::clone(loads);
    let mut counted = Tampered::over(broken).on_load(move |_, loaded| {
        loads.all.fetch_add(1, Ordering::SeqCst);
        loads.from_snapshot.fetch_add(u64::from(loaded.snapshot.is_some()), Ordering::SeqCst);
    });
    if lanes == Lanes::Apart {
        counted = counted.with_lanes(1);
    }
    let settings = Settings {
        arbiters: 2,
        batch_events_max: 1 + (seed % 5) as usize,
        snapshots: SnapshotPolicy::every(7),
        shutdown_timeout: Duration::from_secs(20),
        ..Settings::default()
    };
    let node = start(counted.shared(), settings).await;
    faults.randomly(seed, 0.1, &FAULTS);
    for operation in
        [Operation::Claim, Operation::Load, Operation::Read, Operation::Confirm, Operation::Snapshot]
    {
        faults.fail(operation, 2);
    }
    Arc::new(Act { number, node, faults, killed: watch::Sender::new(false) })
}
