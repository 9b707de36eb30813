//! A backup beside a service that stores all the while, and restores of it to moments that chance chooses.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use orchestrix::Node;
use orchestrix::core::Timestamp;
use orchestrix::core::store::RecordedEvent;
use orchestrix::ops::backup::{Backup, Manifest, Restore, verify};

use super::heads;
use super::place::{Kind, Room, log_of, node, serves};
use crate::counter::{Add, Counter, counter};
use crate::harness::{Dice, eventually, fresh_seed};

/// Callers at once, each with a few counters of its own.
const CALLERS: u64 = 4;

/// Moments that a backup is restored to.
const MOMENTS: usize = 5;

/// Callers who go on until they are told to stop, and keep what they were told.
#[derive(Clone, Default)]
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    by_counter: Arc<Mutex<HashMap<String, u64>>>,
}

impl Load {
    fn begin(&self, node: &Arc<Node>) -> Vec<tokio::task::JoinHandle<()>> {
        (0..CALLERS).map(|caller| tokio::spawn(self.clone().call(Arc::clone(node), caller))).collect()
    }

    async fn call(self, node: Arc<Node>, caller: u64) {
        for number in 0_u64.. {
            if self.stop.load(Ordering::Acquire) {
                return;
            }
            let name = format!("caller-{caller}-{}", number % 5);
            node.of::<Counter>(counter(&name)).send(Add::new(number)).await.expect("the node serves");
            *self.by_counter.lock().expect("nobody panics").entry(name).or_default() += 1;
            self.answered.fetch_add(1, Ordering::AcqRel);
        }
    }

    fn so_far(&self) -> HashMap<String, u64> {
        self.by_counter.lock().expect("nobody panics").clone()
    }

    /// Returns who hears of the progress, and holds up the backup until twenty more commands were answered, so that it
    /// never happens to be quicker than the load.
    fn in_between(&self) -> orchestrix::ops::backup::Progress {
        let (answered, times) = (Arc::clone(&self.answered), AtomicU64::new(0));
        Arc::new(move |_, _| {
            if times.fetch_add(1, Ordering::AcqRel) < 6 {
                let before = answered.load(Ordering::Acquire);
                while answered.load(Ordering::Acquire) < before + 20 {
                    std::thread::yield_now();
                }
            }
        })
    }
}

/// A log, the backup that was taken of it under load, and what was acknowledged before that began.
struct Story {
    log: Vec<RecordedEvent>,
    folder: tempfile::TempDir,
    manifest: Manifest,
    acknowledged: HashMap<String, u64>,
}

async fn under_load(kind: Kind) -> Story {
    let room = Room::new(kind);
    let store = room.open().await;
    let node = Arc::new(node(Arc::clone(&store)).await);
    let load = Load::default();
    let callers = load.begin(&node);
    let warm = async || load.answered.load(Ordering::Acquire) >= 300;
    eventually("the load is under way", warm).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let acknowledged = load.so_far();
    let backup = Backup::new(Arc::clone(&store), folder.path()).part_events(20).progress(load.in_between());
    let manifest = backup.take().await.expect("takes");
    load.stop.store(true, Ordering::Release);
    for caller in callers {
        caller.await.expect("it was answered to its end");
    }
    let all: u64 = heads(store.as_ref()).await.iter().map(|head| head.get()).sum();
    assert!(all >= manifest.events + 100, "{all} events, {} of them in the backup", manifest.events);
    Arc::into_inner(node).expect("the callers are gone").shutdown().await;
    let log = log_of(room.open().await.as_ref()).await;
    Story { log, folder, manifest, acknowledged }
}

impl Story {
    /// Returns what a restore must give: of each shard the events up to its head, and before the first one later than
    /// the moment.
    fn prefix(&self, until: Option<Timestamp>) -> Vec<RecordedEvent> {
        let of_shard = |(shard, head): (u32, u64)| {
            let events =
                self.log.iter().filter(move |event| event.shard.get() == shard && event.seq.get() <= head);
            events.take_while(move |event| until.is_none_or(|until| event.recorded_at <= until)).cloned()
        };
        let heads = self.manifest.heads.iter().map(|head| head.get());
        (0..).zip(heads).flat_map(of_shard).collect()
    }

    async fn restore(&self, until: Option<Timestamp>, to: Kind) {
        let room = Room::new(to);
        let restore = Restore::new(self.folder.path());
        let restore = match until {
            Some(moment) => restore.until(moment),
            None => restore,
        };
        let restored = restore.into(room.open().await).await.expect("restores");
        let log = log_of(room.open().await.as_ref()).await;
        assert_eq!(log, self.prefix(until), "until {until:?}");
        assert_eq!(restored.events + restored.left_out, self.manifest.events);
        serves(&room, &log).await;
    }

    fn some_moment(&self, dice: &mut Dice) -> Timestamp {
        let event = &self.log[dice.roll(self.log.len() as u64) as usize];
        Timestamp::from_micros(event.recorded_at.as_micros() + dice.roll(3) as i64 - 1)
    }
}

async fn tell(kind: Kind) {
    let story = under_load(kind).await;
    let verified = verify(story.folder.path(), None).await.expect("it is sound");
    assert_eq!(verified.manifest, story.manifest);
    let whole = story.prefix(None);
    for (name, times) in &story.acknowledged {
        let events = whole.iter().filter(|event| *event.stream.id == **name).count() as u64;
        assert!(events >= *times, "{name}: {times} were acknowledged before, {events} are in the backup");
    }
    story.restore(None, kind).await;
    let mut dice = Dice(fresh_seed("restores to moments of chance"));
    for _ in 0..MOMENTS {
        let moment = story.some_moment(&mut dice);
        story.restore(Some(moment), kind).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_under_load_restores_to_any_moment_in_memory() {
    tell(Kind::Memory).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_under_load_restores_to_any_moment_on_sqlite() {
    tell(Kind::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_under_load_restores_to_any_moment_on_postgres() {
    tell(Kind::Postgres).await;
}
