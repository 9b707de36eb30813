//! What the store knows about its shards and streams, and what it decides from that. A decision file: no database.
//!
//! A run of a node that owns a shard is the only one that appends to it. So what it stored or read is enough to number
//! events and to know that a version exists; the server checks what only it can know: that the ownership has not
//! changed (the generation of the fence), that it is still the same server, and that no place is taken already. What
//! the store does not know it asks for first.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use orchestrix_core::store::{Commit, CommitOutcome};
use orchestrix_core::{Epoch, Incarnation, Seq, ShardCount, ShardId, Version};

use super::key::StreamKey;
use super::moment::Moment;
use crate::store::recent::Recent;

/// The streams whose versions are remembered; a stream takes some 50 bytes.
const STREAMS_MAX: usize = 1 << 18;

/// The runs of nodes that are remembered. A store has one at a time; more are there around a change.
const RUNS_MAX: usize = 16;

/// What a run owned when its generation was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ownership {
    /// The generation of its fence.
    pub(super) generation: i64,
    /// The server that it was read from, by the moment of its start.
    pub(super) server: Moment,
    /// Every shard that the run owns, with its epoch and, where it was read too, the last seq.
    pub(super) shards: Vec<(ShardId, Epoch, Option<Seq>)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Owned {
    epoch: Option<Epoch>,
    /// The last seq, where it is certain.
    head: Option<Seq>,
    /// The last seq that was acknowledged or read: the server must never have less.
    reached: Seq,
}

impl Owned {
    /// Takes note of a last seq that was read; `false` when the server has less than before.
    fn read(&mut self, head: Seq) -> bool {
        let kept = head >= self.reached;
        self.head = Some(head);
        self.reached = head;
        kept
    }
}

#[derive(Debug)]
struct Run {
    generation: i64,
    server: Moment,
    shards: Vec<Owned>,
}

/// The end of a stream as the server tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The stream has this version.
    Version(Version),
    /// Another stream has the same key.
    Stranger,
}

/// Something by the key of a stream. The keys are hashes already.
pub(super) type ByKey<T> = HashMap<StreamKey, T, BuildHasherDefault<KeyHasher>>;

/// The versions of streams that are known to exist.
type Known = Recent<StreamKey, u64, BuildHasherDefault<KeyHasher>>;

/// Takes half of a key for its hash.
#[derive(Debug, Default)]
pub(super) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write(&mut self, _: &[u8]) {}

    fn write_u128(&mut self, key: u128) {
        self.0 = key as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// What must be read before a batch can be planned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// What the run owns.
    Ownership,
    /// The last seqs of these shards.
    Heads(Vec<ShardId>),
    /// The versions of the batch's streams.
    Versions,
}

/// One commit that is to be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    /// Its place in the batch.
    pub(super) commit: usize,
    /// The seq of its first event.
    pub(super) first_seq: Seq,
}

/// A version of a stream that must exist already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Before {
    pub(super) stream: StreamKey,
    pub(super) version: Version,
    pub(super) shard: ShardId,
}

/// What a batch would store, and what is answered for the rest.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) generation: i64,
    pub(super) server: Moment,
    pub(super) placed: Vec<Placed>,
    pub(super) refused: Vec<(usize, CommitOutcome)>,
    pub(super) before: Vec<Before>,
}

/// A batch that is being planned.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) owner: Incarnation,
    pub(super) commits: &'a [Commit],
    /// The key of each commit's stream.
    pub(super) keys: &'a [StreamKey],
    /// The commits that have no answer yet.
    pub(super) open: &'a [usize],
    /// The versions of the streams, once they had to be read.
    pub(super) versions: Option<&'a ByKey<Found>>,
    /// Whether the ownership was read since the batch came.
    pub(super) is_fresh: bool,
}

/// What the store knows.
#[derive(Debug)]
pub(super) struct Ledger {
    runs: HashMap<Incarnation, Run>,
    /// The remembered runs, the oldest first.
    order: VecDeque<Incarnation>,
    /// Versions that are known to exist. A version never goes away, except with its server.
    known: Known,
    /// The shards of appends under way.
    busy: Vec<bool>,
    shard_count: ShardCount,
}

impl Ledger {
    pub(super) fn new(shard_count: ShardCount) -> Self {
        Self {
            runs: HashMap::new(),
            order: VecDeque::new(),
            known: Recent::new(STREAMS_MAX),
            busy: vec![false; shard_count.get() as usize],
            shard_count,
        }
    }

    /// Marks shards as busy, all of them or none.
    pub(super) fn try_hold(&mut self, shards: &[ShardId]) -> bool {
        if shards.iter().any(|shard| self.busy[shard.get() as usize]) {
            return false;
        }
        self.mark(shards, true);
        true
    }

    /// Lets go of them.
    pub(super) fn release(&mut self, shards: &[ShardId]) {
        self.mark(shards, false);
    }

    fn mark(&mut self, shards: &[ShardId], busy: bool) {
        for shard in shards {
            self.busy[shard.get() as usize] = busy;
        }
    }

    /// Takes note of a version that was read or stored.
    pub(super) fn learn(&mut self, stream: StreamKey, version: Version) {
        if self.known.get(&stream).is_none_or(|known| known < version.get()) {
            self.known.put(stream, version.get());
        }
    }

    /// Takes note of what a run owns, unless something newer is known.
    ///
    /// A run that loses a shard gets another generation, and one that gains a shard keeps its own. So two answers of one
    /// generation that came in any order tell of no loss, and what either of them has is owned.
    ///
    /// Returns the shards whose acknowledged events the server does not have any more.
    pub(super) fn install(&mut self, owner: Incarnation, ownership: &Ownership) -> Vec<ShardId> {
        let old = self.runs.get(&owner);
        if old.is_some_and(|old| old.generation > ownership.generation && old.server == ownership.server) {
            return Vec::new();
        }
        let moved = old.is_some_and(|old| old.server != ownership.server);
        let lost_none = old.filter(|old| old.generation == ownership.generation && !moved);
        let mut shards = match lost_none {
            Some(old) => old.shards.clone(),
            None => vec![Owned::default(); self.shard_count.get() as usize],
        };
        let mut lost = Vec::new();
        for (shard, epoch, head) in &ownership.shards {
            let Some(place) = shards.get_mut(shard.get() as usize) else { continue };
            let before = old.map(|old| old.shards[shard.get() as usize]).unwrap_or_default();
            let same = before.epoch == Some(*epoch) && !moved;
            *place = Owned { epoch: Some(*epoch), head: before.head.filter(|_| same), ..before };
            if head.is_some_and(|head| !place.read(head)) {
                lost.push(*shard);
            }
        }
        if moved {
            self.known = Recent::new(STREAMS_MAX);
        }
        let run = Run { generation: ownership.generation, server: ownership.server, shards };
        if self.runs.insert(owner, run).is_none() {
            self.order.push_back(owner);
        }
        if self.order.len() > RUNS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.runs.remove(&oldest);
        }
        lost
    }

    /// Takes note of last seqs that were read while the shards were held.
    ///
    /// Returns the shards whose acknowledged events the server does not have any more.
    pub(super) fn learn_heads(&mut self, owner: Incarnation, heads: &[(ShardId, Seq)]) -> Vec<ShardId> {
        let Some(run) = self.runs.get_mut(&owner) else { return Vec::new() };
        let mut lost = Vec::new();
        for (shard, head) in heads {
            if run.shards.get_mut(shard.get() as usize).is_some_and(|place| !place.read(*head)) {
                lost.push(*shard);
            }
        }
        lost
    }

    /// Forgets the last seqs of shards: they are read again before the next append.
    pub(super) fn forget_heads(&mut self, owner: Incarnation, shards: impl Iterator<Item = ShardId>) {
        let Some(run) = self.runs.get_mut(&owner) else { return };
        shards.for_each(|shard| run.shards[shard.get() as usize].head = None);
    }

    /// Takes note of what was stored.
    pub(super) fn stored(&mut self, asked: &Asked<'_>, plan: &Plan) {
        for placed in &plan.placed {
            let commit = &asked.commits[placed.commit];
            self.learn(asked.keys[placed.commit], commit.last_version());
            let Some(run) = self.runs.get_mut(&asked.owner) else { continue };
            let shard = &mut run.shards[commit.shard.get() as usize];
            // A claim in between has read a head that counts these events.
            if shard.epoch == Some(commit.epoch) {
                let last = Seq::new(placed.first_seq.get() + commit.events.len() as u64 - 1);
                shard.head = shard.head.max(Some(last));
                shard.reached = shard.reached.max(last);
            }
        }
    }

    /// Decides about each open commit in turn, each on top of those before it.
    pub(super) fn plan(&mut self, asked: &Asked<'_>) -> Result<Plan, Need> {
        let run = self.runs.get(&asked.owner).ok_or(Need::Ownership)?;
        let mut planner = Planner {
            run,
            known: &mut self.known,
            versions: asked.versions,
            is_fresh: asked.is_fresh,
            heads: vec![None; self.shard_count.get() as usize],
            staged: ByKey::with_capacity_and_hasher(asked.open.len(), BuildHasherDefault::default()),
            unknown_heads: Vec::new(),
            plan: Plan::empty(run, asked.open.len()),
        };
        for &at in asked.open {
            match planner.decide(at, &asked.commits[at], asked.keys[at])? {
                None => {}
                Some(refused) => planner.plan.refused.push((at, refused)),
            }
        }
        if planner.unknown_heads.is_empty() {
            Ok(planner.plan)
        } else {
            Err(Need::Heads(planner.unknown_heads))
        }
    }
}

impl Plan {
    fn empty(run: &Run, commits: usize) -> Self {
        Self {
            generation: run.generation,
            server: run.server,
            placed: Vec::with_capacity(commits),
            refused: Vec::new(),
            before: Vec::new(),
        }
    }
}

struct Planner<'a> {
    run: &'a Run,
    known: &'a mut Known,
    versions: Option<&'a ByKey<Found>>,
    is_fresh: bool,
    /// The last seqs with what is placed so far.
    heads: Vec<Option<Seq>>,
    /// The versions of streams with what is placed so far.
    staged: ByKey<Version>,
    unknown_heads: Vec<ShardId>,
    plan: Plan,
}

impl Planner<'_> {
    /// Places a commit, or returns why it cannot be stored.
    fn decide(&mut self, at: usize, commit: &Commit, key: StreamKey) -> Result<Option<CommitOutcome>, Need> {
        if let Some(fenced) = self.fence(commit)? {
            return Ok(Some(fenced));
        }
        if let Some(conflict) = self.check_version(commit, key)? {
            return Ok(Some(conflict));
        }
        self.staged.insert(key, commit.last_version());
        self.place(at, commit);
        Ok(None)
    }

    /// Compares the epoch with the one that is known. An older one is certainly over.
    fn fence(&self, commit: &Commit) -> Result<Option<CommitOutcome>, Need> {
        match self.run.shards[commit.shard.get() as usize].epoch {
            Some(epoch) if epoch == commit.epoch => Ok(None),
            Some(epoch) if epoch > commit.epoch => Ok(Some(CommitOutcome::Fenced)),
            _ if self.is_fresh => Ok(Some(CommitOutcome::Fenced)),
            _ => Err(Need::Ownership),
        }
    }

    fn check_version(&mut self, commit: &Commit, key: StreamKey) -> Result<Option<CommitOutcome>, Need> {
        let staged = self.staged.get(&key).copied();
        let Some(versions) = self.versions else {
            return match staged {
                None => self.look_for_before(commit, key).map(|()| None),
                Some(version) if version == commit.expected => Ok(None),
                Some(_) => Err(Need::Versions),
            };
        };
        let actual = match (staged, versions.get(&key).copied()) {
            (Some(version), _) | (None, Some(Found::Version(version))) => version,
            (None, None) => Version::ZERO,
            (None, Some(Found::Stranger)) => return Ok(Some(stranger(commit))),
        };
        let fits = actual == commit.expected;
        Ok((!fits).then_some(CommitOutcome::Conflict { actual: Some(actual) }))
    }

    /// Has the server look for the version before the commit's first, unless it is known to exist.
    ///
    /// A version that is taken is found by the server's index, unless it is in the archive. That has neither the first
    /// version of a stream nor the last, but perhaps the second: so what builds on the first one asks for the end of
    /// its stream, if it is not known, and so does what is certainly too late.
    fn look_for_before(&mut self, commit: &Commit, key: StreamKey) -> Result<(), Need> {
        let expected = commit.expected.get();
        // The first version is never in the archive.
        if expected == 0 {
            return Ok(());
        }
        match self.known.get(&key) {
            Some(known) if known > expected => Err(Need::Versions),
            Some(known) if known == expected => Ok(()),
            _ if expected == 1 => Err(Need::Versions),
            _ => {
                self.plan.before.push(Before { stream: key, version: commit.expected, shard: commit.shard });
                Ok(())
            }
        }
    }

    fn place(&mut self, at: usize, commit: &Commit) {
        let shard = commit.shard.get() as usize;
        let Some(head) = self.heads[shard].or(self.run.shards[shard].head) else {
            if !self.unknown_heads.contains(&commit.shard) {
                self.unknown_heads.push(commit.shard);
            }
            return;
        };
        self.plan.placed.push(Placed { commit: at, first_seq: head.next() });
        self.heads[shard] = Some(head.plus(commit.events.len() as u64));
    }
}

fn stranger(commit: &Commit) -> CommitOutcome {
    let reason = format!("{} has the key of another stream; it needs another id", commit.stream);
    CommitOutcome::Unavailable { reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use orchestrix_core::store::NewEvent;
    use orchestrix_core::{Codec, CommandId, StreamId, Timestamp};

    use super::*;

    const SHARD: ShardId = ShardId::new(0);
    const SERVER: Moment = Moment(1);

    fn ownership(generation: i64, epoch: u64, head: Option<u64>) -> Ownership {
        Ownership { generation, server: SERVER, shards: vec![(SHARD, Epoch::new(epoch), head.map(Seq::new))] }
    }

    fn commit(id: &str, epoch: u64, expected: u64, events: usize) -> Commit {
        let event = NewEvent {
            event_type: "noted".into(),
            schema_version: 1,
            codec: Codec::Json,
            payload: b"{}".to_vec(),
        };
        Commit {
            stream: StreamId::new("note", id),
            shard: SHARD,
            epoch: Epoch::new(epoch),
            expected: Version::new(expected),
            command_id: CommandId::fresh(),
            recorded_at: Timestamp::from_micros(1),
            headers: None,
            receipt: None,
            events: vec![event; events],
        }
    }

    /// A ledger of one shard, and the run that owns it.
    struct Scene {
        ledger: Ledger,
        owner: Incarnation,
    }

    impl Scene {
        /// The run owns the shard at epoch 3 and generation 7; its last seq is 10.
        fn new() -> Self {
            let mut scene = Self::unknown();
            assert_eq!(scene.ledger.install(scene.owner, &ownership(7, 3, Some(10))), []);
            scene
        }

        fn unknown() -> Self {
            let ledger = Ledger::new(ShardCount::new(1).expect("in range"));
            Self { ledger, owner: Incarnation::fresh() }
        }

        fn plan(&mut self, commits: &[Commit]) -> Result<Plan, Need> {
            self.plan_with(commits, None, false)
        }

        fn plan_with(
            &mut self,
            commits: &[Commit],
            versions: Option<&ByKey<Found>>,
            is_fresh: bool,
        ) -> Result<Plan, Need> {
            let keys: Vec<_> = commits.iter().map(key).collect();
            let open: Vec<_> = (0..commits.len()).collect();
            let owner = self.owner;
            self.ledger.plan(&Asked { owner, commits, keys: &keys, open: &open, versions, is_fresh })
        }

        fn store(&mut self, commits: &[Commit]) {
            let plan = self.plan(commits).expect("everything is known");
            let keys: Vec<_> = commits.iter().map(key).collect();
            let open: Vec<_> = (0..commits.len()).collect();
            let asked = Asked {
                owner: self.owner,
                commits,
                keys: &keys,
                open: &open,
                versions: None,
                is_fresh: false,
            };
            self.ledger.stored(&asked, &plan);
        }
    }

    fn key(commit: &Commit) -> StreamKey {
        StreamKey::of(&commit.stream, 0)
    }

    fn places(plan: &Plan) -> Vec<(usize, u64)> {
        plan.placed.iter().map(|placed| (placed.commit, placed.first_seq.get())).collect()
    }

    #[test]
    fn seqs_follow_the_head_over_commits_and_batches() {
        let mut scene = Scene::new();
        let commits = [commit("a", 3, 0, 2), commit("b", 3, 0, 1), commit("a", 3, 2, 1)];
        assert_eq!(places(&scene.plan(&commits).expect("plans")), [(0, 11), (1, 13), (2, 14)]);
        scene.store(&commits);
        assert_eq!(places(&scene.plan(&[commit("c", 3, 0, 1)]).expect("plans")), [(0, 15)]);
    }

    #[test]
    fn only_versions_that_nobody_has_seen_are_looked_for() {
        let mut scene = Scene::new();
        let before = |plan: &Plan| plan.before.iter().map(|before| before.version.get()).collect::<Vec<_>>();
        let later = [commit("a", 3, 2, 1), commit("a", 3, 3, 1)];
        assert_eq!(before(&scene.plan(&later).expect("plans")), [2], "the second one builds on the first");
        scene.ledger.learn(key(&later[0]), Version::new(2));
        assert_eq!(before(&scene.plan(&later).expect("plans")), [0; 0]);
        scene.store(&later);
        assert_eq!(before(&scene.plan(&[commit("a", 3, 4, 1)]).expect("plans")), [0; 0]);
        assert_eq!(before(&scene.plan(&[commit("a", 3, 9, 1)]).expect("plans")), [9]);
    }

    #[test]
    fn what_is_not_known_is_asked_for_and_an_answer_ends_the_asking() {
        let mut scene = Scene::unknown();
        let commits = [commit("a", 3, 0, 1)];
        assert_eq!(scene.plan(&commits), Err(Need::Ownership));
        scene.ledger.install(scene.owner, &ownership(7, 3, None));
        assert_eq!(scene.plan(&commits), Err(Need::Heads(vec![SHARD])));
        assert_eq!(scene.ledger.learn_heads(scene.owner, &[(SHARD, Seq::new(4))]), []);
        assert_eq!(places(&scene.plan(&commits).expect("plans")), [(0, 5)]);
        scene.ledger.forget_heads(scene.owner, [SHARD].into_iter());
        assert_eq!(scene.plan(&commits), Err(Need::Heads(vec![SHARD])));
    }

    #[test]
    fn an_older_epoch_is_over_and_a_newer_one_is_asked_about() {
        let mut scene = Scene::new();
        let older = scene.plan(&[commit("a", 2, 0, 1)]).expect("plans");
        assert_eq!(older.refused, [(0, CommitOutcome::Fenced)]);
        let newer = [commit("a", 4, 0, 1)];
        assert_eq!(scene.plan(&newer), Err(Need::Ownership));
        let fresh = scene.plan_with(&newer, None, true).expect("plans");
        assert_eq!(fresh.refused, [(0, CommitOutcome::Fenced)]);
    }

    #[test]
    fn with_the_versions_read_each_commit_is_judged_on_top_of_those_before() {
        let mut scene = Scene::new();
        let commits = [
            commit("a", 3, 5, 1),
            commit("a", 3, 9, 1),
            commit("b", 3, 0, 2),
            commit("c", 3, 0, 1),
            commit("a", 3, 6, 1),
        ];
        assert_eq!(scene.plan(&commits), Err(Need::Versions));
        let versions: ByKey<Found> = [
            (key(&commits[0]), Found::Version(Version::new(5))),
            (key(&commits[2]), Found::Version(Version::new(1))),
            (key(&commits[3]), Found::Stranger),
        ]
        .into_iter()
        .collect();
        let plan = scene.plan_with(&commits, Some(&versions), false).expect("plans");
        assert_eq!(places(&plan), [(0, 11), (4, 12)]);
        let conflict = |version| CommitOutcome::Conflict { actual: Some(Version::new(version)) };
        assert_eq!(plan.refused[..2], [(1, conflict(6)), (2, conflict(1))]);
        assert!(
            matches!(&plan.refused[2], (3, CommitOutcome::Unavailable { reason }) if reason.contains("another id"))
        );
    }

    /// What the unique index of the log would not find, since it may be in the archive, is asked for.
    #[test]
    fn the_end_of_a_stream_is_asked_for_where_the_archive_may_hide_a_version() {
        let mut scene = Scene::new();
        assert_eq!(scene.plan(&[commit("a", 3, 1, 1)]), Err(Need::Versions), "the second one may be there");
        assert!(scene.plan(&[commit("a", 3, 2, 1)]).is_ok(), "the server looks for the one before");
        scene.ledger.learn(key(&commit("a", 3, 0, 1)), Version::new(9));
        assert_eq!(scene.plan(&[commit("a", 3, 5, 1)]), Err(Need::Versions), "it is too late for certain");
        assert!(scene.plan(&[commit("a", 3, 9, 1)]).is_ok() && scene.plan(&[commit("a", 3, 0, 1)]).is_ok());
    }

    #[test]
    fn what_was_read_earlier_does_not_replace_what_was_read_later() {
        let mut scene = Scene::new();
        scene.ledger.install(scene.owner, &ownership(5, 2, Some(4)));
        assert_eq!(scene.plan(&[commit("a", 3, 0, 1)]).expect("plans").generation, 7);
        scene.ledger.install(scene.owner, &ownership(9, 4, None));
        assert_eq!(
            scene.plan(&[commit("a", 4, 0, 1)]),
            Err(Need::Heads(vec![SHARD])),
            "the head was another epoch's"
        );
    }

    /// A claim whose answer is late does not know of what another claim took meanwhile; with a loss comes a generation.
    #[test]
    fn answers_of_one_generation_add_up_in_any_order() {
        let [one, two] = [0, 1].map(ShardId::new);
        let mut ledger = Ledger::new(ShardCount::new(2).expect("in range"));
        let owner = Incarnation::fresh();
        let answer = |generation, shards: &[(ShardId, u64)]| {
            let shards = shards.iter().map(|(shard, head)| (*shard, Epoch::new(1), Some(Seq::new(*head))));
            Ownership { generation, server: SERVER, shards: shards.collect() }
        };
        let held =
            |ledger: &Ledger| ledger.runs[&owner].shards.iter().map(|own| own.epoch.is_some()).collect();
        ledger.install(owner, &answer(7, &[(two, 5)]));
        ledger.install(owner, &answer(7, &[(one, 4)]));
        let both: Vec<bool> = held(&ledger);
        assert_eq!(both, [true, true]);
        assert_eq!(ledger.runs[&owner].shards[1].head, Some(Seq::new(5)), "its head is known as before");
        ledger.install(owner, &answer(8, &[(one, 4)]));
        let one_lost: Vec<bool> = held(&ledger);
        assert_eq!(one_lost, [true, false]);
        ledger.install(owner, &answer(7, &[(two, 5)]));
        let still: Vec<bool> = held(&ledger);
        assert_eq!(still, [true, false], "an older answer gives nothing back");
    }

    #[test]
    fn an_append_that_a_claim_has_counted_does_not_move_the_head_again() {
        let mut scene = Scene::new();
        let commits = [commit("a", 3, 0, 2)];
        let plan = scene.plan(&commits).expect("plans");
        // The claim waited for the append, so its head counts it; the append's answer comes late.
        scene.ledger.install(scene.owner, &ownership(8, 4, Some(12)));
        let keys = [key(&commits[0])];
        let asked = Asked {
            owner: scene.owner,
            commits: &commits,
            keys: &keys,
            open: &[0],
            versions: None,
            is_fresh: false,
        };
        scene.ledger.stored(&asked, &plan);
        assert_eq!(places(&scene.plan(&[commit("b", 4, 0, 1)]).expect("plans")), [(0, 13)]);
    }

    #[test]
    fn another_server_is_trusted_with_nothing_and_events_that_it_lost_are_noticed() {
        let mut scene = Scene::new();
        scene.store(&[commit("a", 3, 0, 5)]);
        let other = Ownership { server: Moment(2), ..ownership(1, 3, None) };
        assert_eq!(scene.ledger.install(scene.owner, &other), []);
        let next = [commit("a", 3, 5, 1)];
        assert_eq!(scene.plan(&next), Err(Need::Heads(vec![SHARD])));
        assert_eq!(scene.ledger.learn_heads(scene.owner, &[(SHARD, Seq::new(12))]), [SHARD]);
        let plan = scene.plan(&next).expect("plans");
        assert_eq!(
            (places(&plan), plan.before.len()),
            (vec![(0, 13)], 1),
            "the version before is looked for"
        );
    }

    #[test]
    fn shards_are_held_all_or_none() {
        let mut ledger = Ledger::new(ShardCount::new(3).expect("in range"));
        let [one, two, three] = [0, 1, 2].map(ShardId::new);
        assert!(ledger.try_hold(&[one, two]));
        assert!(!ledger.try_hold(&[two, three]));
        assert!(ledger.try_hold(&[three]), "the refused one holds nothing");
        ledger.release(&[one, two]);
        assert!(ledger.try_hold(&[two]));
    }

    #[test]
    fn the_oldest_run_is_forgotten() {
        let mut scene = Scene::new();
        for _ in 0..RUNS_MAX {
            scene.ledger.install(Incarnation::fresh(), &ownership(1, 1, None));
        }
        assert_eq!(scene.plan(&[commit("a", 3, 0, 1)]), Err(Need::Ownership));
        assert_eq!(scene.ledger.runs.len(), RUNS_MAX);
    }
}
