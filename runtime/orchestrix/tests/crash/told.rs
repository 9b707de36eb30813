//! What callers were told, and the comparison of that with the log.

use std::collections::{BTreeMap, BTreeSet};

use orchestrix::core::store::{EventStore, RecordedEvent};
use orchestrix::core::{CommandId, Seq};

use crate::ledger::EVENTS;

/// A command: its ledger and its id.
pub type Sent = (u64, CommandId);

/// Everything that callers were told.
#[derive(Debug, Default)]
pub struct Told {
    /// Done, with the reply.
    pub done: BTreeMap<Sent, u64>,
    /// Certainly not done, and never sent again.
    pub never: BTreeSet<Sent>,
    /// Sent, and not answered for certain yet.
    pub open: BTreeSet<Sent>,
}

impl Told {
    /// Takes note of a reply. A second one must be the first one again.
    ///
    /// # Panics
    /// When it is another one.
    pub fn done(&mut self, sent: Sent, reply: u64) {
        self.open.remove(&sent);
        let first = *self.done.entry(sent).or_insert(reply);
        assert_eq!(first, reply, "a retry of {sent:?} got another reply");
    }

    /// Takes note of a command that was not attempted and is not sent again.
    pub fn never(&mut self, sent: Sent) {
        self.open.remove(&sent);
        self.never.insert(sent);
    }

    /// Compares the log with it: every acknowledged command is there once, whole and where its reply says; what was not
    /// attempted is not there; nothing is there that nobody sent; seqs and versions have no hole.
    ///
    /// # Panics
    /// When it is not so.
    pub fn check(&self, log: &[RecordedEvent]) {
        let mut streams: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        let mut commands: BTreeMap<Sent, Vec<u64>> = BTreeMap::new();
        for event in log {
            let number = number_of(event);
            streams.entry(number).or_default().push(event.version.get());
            commands.entry((number, event.command_id)).or_default().push(event.version.get());
        }
        for (number, versions) in &mut streams {
            versions.sort_unstable();
            let dense = versions.iter().copied().eq(1..=versions.len() as u64);
            assert!(dense, "the versions of ledger {number} are 1..n");
        }
        for (sent, versions) in &mut commands {
            self.check_command(*sent, versions);
        }
        for sent in self.done.keys() {
            assert!(commands.contains_key(sent), "lost: acknowledged command {sent:?} is not in the log");
        }
    }

    fn check_command(&self, sent: Sent, versions: &mut [u64]) {
        versions.sort_unstable();
        assert_eq!(versions.len() as u64, EVENTS, "command {sent:?} is there once and whole");
        let (first, last) = (versions[0], versions[versions.len() - 1]);
        assert_eq!(last - first, EVENTS - 1, "command {sent:?} is in one piece");
        assert!(!self.never.contains(&sent), "command {sent:?} was not attempted, and is in the log");
        match self.done.get(&sent) {
            Some(reply) => assert_eq!(*reply, last, "command {sent:?} is where its reply says"),
            None => assert!(self.open.contains(&sent), "nobody sent {sent:?}"),
        }
    }
}

fn number_of(event: &RecordedEvent) -> u64 {
    let number = event.stream.id.strip_prefix("l-").and_then(|number| number.parse().ok());
    number.expect("only ledgers are stored")
}

/// Reads everything that is stored.
///
/// # Panics
/// When a seq is missing.
pub async fn whole_log(store: &dyn EventStore) -> Vec<RecordedEvent> {
    let mut log = Vec::new();
    for shard in store.info().shard_count.all() {
        let mut after = Seq::ZERO;
        loop {
            let events = store.read_shard(shard, after, 1_000).await.expect("the log is readable");
            if events.is_empty() {
                break;
            }
            for event in events {
                assert_eq!(event.seq, after.next(), "shard {shard} has no hole");
                after = event.seq;
                log.push(event);
            }
        }
    }
    log
}
