//! Obligations 21 to 23: how a shard goes from one run to another, and what goes on meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use orchestrix_core::store::{ClusterView, CommitOutcome, EventStore, PlanOutcome, Target};
use orchestrix_core::{Epoch, Incarnation, ShardId, StreamId};
use tokio::sync::Notify;

use super::bench::{Bench, LONG, Writer, committed};
use super::cluster::{is_shared, view};

const ZERO: ShardId = ShardId::new(0);
const ONE: ShardId = ShardId::new(1);

/// Says that a shard should go to a run, as the view has it.
fn to(view: &ClusterView, shard: ShardId, target: Incarnation) -> Target {
    let own = view.shards[shard.get() as usize];
    Target { shard, owner: own.owner, epoch: own.epoch, target }
}

/// 21. A target is set where owner and epoch fit, changes neither of them, and stops no append.
pub async fn a_target_is_set_where_owner_and_epoch_fit(bench: Bench) {
    if !is_shared(&bench).await {
        return;
    }
    let store = bench.store();
    let (owner, other) = (bench.join("owner", LONG).await, bench.join("other", LONG).await);
    let writer = Writer::claim(bench.store(), &[ZERO, ONE], owner).await;
    let before = view(&store).await;
    let fits = to(&before, ZERO, other);
    let epoch = Target { epoch: Epoch::new(9), ..to(&before, ONE, other) };
    let owner_of_nothing = Target { owner: None, ..to(&before, ONE, other) };
    let set = store.set_targets(other, before.version, vec![fits, epoch, owner_of_nothing]).await;
    let after = view(&store).await;
    assert_eq!(set.expect("answers"), PlanOutcome::Set { view: after.version }, "nobody else changes it");
    assert_eq!([0, 1].map(|at| after.shards[at].target), [Some(other), None]);
    let holds = |view: &ClusterView| view.shards.iter().map(|own| (own.owner, own.epoch)).collect::<Vec<_>>();
    assert_eq!(holds(&after), holds(&before));
    let name = bench.streams_in(ZERO, 1).remove(0);
    committed(&writer.append_one(writer.commit(&name, 0, 1)).await);
}

/// 21. A shard that should stay with its owner has no target.
pub async fn a_target_that_is_the_owner_is_none(bench: Bench) {
    if !is_shared(&bench).await {
        return;
    }
    let store = bench.store();
    let (owner, other) = (bench.join("owner", LONG).await, bench.join("other", LONG).await);
    store.claim(&[ZERO], owner).await.expect("claims");
    let mut now = view(&store).await;
    for (target, stored) in [(other, Some(other)), (owner, None), (owner, None)] {
        let set = store.set_targets(owner, now.version, vec![to(&now, ZERO, target)]).await.expect("answers");
        let after = view(&store).await;
        assert_eq!(set, PlanOutcome::Set { view: after.version });
        assert_eq!(after.shards[0].target, stored);
        now = after;
    }
}

/// 21. Whoever plans from another view than the current one changes nothing, nor does one who holds no lease.
pub async fn targets_are_set_from_the_current_view_only(bench: Bench) {
    if !is_shared(&bench).await {
        return;
    }
    let store = bench.store();
    let (owner, ended) = (bench.join("owner", LONG).await, bench.join("ended", Duration::ZERO).await);
    store.claim(&[ZERO], owner).await.expect("claims");
    let old = view(&store).await;
    let late = bench.join("late", LONG).await;
    let target = vec![to(&old, ZERO, late)];
    let now = view(&store).await;
    for (planner, version) in [
        (owner, old.version),
        (owner, now.version + 1),
        (ended, now.version),
        (Incarnation::fresh(), now.version),
    ] {
        let set = store.set_targets(planner, version, target.clone()).await;
        assert_eq!(set.expect("answers"), PlanOutcome::Stale);
    }
    assert_eq!(view(&store).await.shards, now.shards);
}

/// 21. Of many who plan from one view at once, one sets its targets, all of them.
pub async fn one_of_many_planners_sets_its_targets(bench: Bench) {
    if !is_shared(&bench).await {
        return;
    }
    let store = bench.store();
    let mut runs = Vec::new();
    for number in 0..6 {
        runs.push(bench.join(&format!("run-{number}"), LONG).await);
    }
    for round in 0..5 {
        let before = view(&store).await;
        let mut planners = tokio::task::JoinSet::new();
        for run in runs.clone() {
            let (store, view) = (Arc::clone(&store), before.clone());
            // In another order for each of them.
            let mut targets: Vec<Target> = bench.shards().all().map(|shard| to(&view, shard, run)).collect();
            let turn = (round + runs.iter().position(|other| *other == run).unwrap_or(0)) % targets.len();
            targets.rotate_left(turn);
            planners.spawn(async move { (run, store.set_targets(run, view.version, targets).await) });
        }
        let answers = planners.join_all().await;
        let set = answers.iter().filter(|(_, set)| matches!(set, Ok(PlanOutcome::Set { .. })));
        let winners: Vec<Incarnation> = set.map(|(run, _)| *run).collect();
        assert_eq!(winners.len(), 1, "round {round}: {answers:?}");
        assert!(answers.iter().all(|(_, set)| set.is_ok()), "round {round}: {answers:?}");
        let after = view(&store).await;
        assert!(after.shards.iter().all(|own| own.target == Some(winners[0])), "round {round}");
        // The winner of the next round has something to change in every case.
        let winner = runs.iter().position(|run| *run == winners[0]).expect("one of them");
        runs.remove(winner);
    }
}

/// 22. A shard is given back at its epoch and by its owner; epoch and target stay, and so does what else the run owns.
pub async fn a_release_takes_what_was_given_and_nothing_else(bench: Bench) {
    if !is_shared(&bench).await {
        return;
    }
    let store = bench.store();
    let (owner, other) = (bench.join("owner", LONG).await, bench.join("other", LONG).await);
    let writer = Writer::claim(bench.store(), &[ZERO, ONE], owner).await;
    let names = [ZERO, ONE].map(|shard| bench.streams_in(shard, 1).remove(0));
    for name in &names {
        committed(&writer.append_one(writer.commit(name, 0, 1)).await);
    }
    let now = view(&store).await;
    store.set_targets(owner, now.version, vec![to(&now, ZERO, other)]).await.expect("is set");
    let epoch = writer.epoch(ZERO);
    let by_another = store.release_shards(other, &[(ZERO, epoch)]).await.expect("answers");
    assert_eq!(by_another, [false]);
    let given = [(ONE, epoch.next()), (ZERO, epoch)];
    assert_eq!(
        store.release_shards(owner, &given).await.expect("answers"),
        [false, true],
        "in the order given"
    );
    assert_eq!(store.release_shards(owner, &given).await.expect("answers"), [false, false], "once only");
    let after = view(&store).await.shards;
    assert_eq!((after[0].owner, after[0].epoch, after[0].target), (None, epoch, Some(other)));
    assert_eq!(after[1].owner, Some(owner));
    let commits = names.iter().map(|name| writer.commit(name, 1, 1)).collect();
    let outcomes = writer.append(commits).await;
    assert_eq!(outcomes[0], CommitOutcome::Fenced);
    committed(&outcomes[1]);
    let held = store.confirm(owner, &[(ZERO, epoch), (ONE, epoch)]).await.expect("answers");
    assert_eq!(held, [false, true]);
}

/// 23. What was given back may be claimed by anybody, though its former owner holds its lease; a claim clears the target.
pub async fn what_nobody_owns_may_be_claimed_by_anybody(bench: Bench) {
    if !is_shared(&bench).await {
        return;
    }
    let store = bench.store();
    let (owner, other) = (bench.join("owner", LONG).await, bench.join("other", LONG).await);
    let writer = Writer::claim(bench.store(), &[ZERO], owner).await;
    let now = view(&store).await;
    store.set_targets(owner, now.version, vec![to(&now, ZERO, other)]).await.expect("is set");
    store.release_shards(owner, &[(ZERO, writer.epoch(ZERO))]).await.expect("is released");
    let third = bench.join("third", LONG).await;
    let claims = store.claim(&[ZERO], third).await.expect("nobody owns it");
    assert_eq!(claims[0].epoch, writer.epoch(ZERO).next());
    let after = view(&store).await.shards[0];
    assert_eq!((after.owner, after.target), (Some(third), None));
    store.release_shards(third, &[(ZERO, claims[0].epoch)]).await.expect("is released");
    let back = store.claim(&[ZERO], owner).await.expect("nobody owns it");
    assert_eq!(back[0].epoch, claims[0].epoch.next(), "also by its former owner");
}

/// 22. When a release returns, no append under that ownership takes effect any more, also none that was in flight.
pub async fn after_a_release_no_append_takes_effect(bench: Bench) {
    const ROUNDS: usize = 20;
    if !is_shared(&bench).await {
        return;
    }
    let owner = bench.join("owner", LONG).await;
    let names = bench.streams_in(ZERO, ROUNDS);
    for name in &names {
        let writer = Writer::claim(bench.store(), &[ZERO], owner).await;
        let started = Arc::new(Notify::new());
        let append = tokio::spawn(append_on(writer.clone(), name.clone(), Arc::clone(&started)));
        started.notified().await;
        let released = bench.store().release_shards(owner, &[(ZERO, writer.epoch(ZERO))]).await;
        assert_eq!(released.expect("answers"), [true]);
        let log = bench.read_shard(ZERO).await;
        let acknowledged = append.await.expect("the fence stopped it");
        assert_eq!(bench.read_shard(ZERO).await, log, "nothing came after the release");
        let stored = log.iter().filter(|event| event.stream == *name).count() as u64;
        assert!(stored >= acknowledged, "{acknowledged} were acknowledged, {stored} are stored");
    }
}

/// Appends batches to one stream until the fence stops it; returns how many events were acknowledged.
async fn append_on(writer: Writer, name: StreamId, started: Arc<Notify>) -> u64 {
    let mut stored = 0;
    loop {
        let commits = (0..3).map(|at| writer.commit(&name, stored + at, 1)).collect();
        let outcomes = writer.append(commits).await;
        stored += outcomes.iter().take_while(|outcome| outcome.is_committed()).count() as u64;
        started.notify_one();
        tokio::task::yield_now().await;
        match outcomes.last() {
            Some(CommitOutcome::Committed { .. }) => {}
            Some(CommitOutcome::Fenced) => return stored,
            other => panic!("only a fence may stop this writer, not {other:?}"),
        }
    }
}

/// 22, 23. While a run appends to what it keeps, it gives other shards back and claims them anew, one by one and several
/// at once: no append of what it holds fails, and what it has just claimed takes appends at once.
pub async fn what_a_run_keeps_stays_appendable_while_others_come_and_go(bench: Bench) {
    const ROUNDS: usize = 12;
    if !is_shared(&bench).await {
        return;
    }
    let run = bench.join("run", LONG).await;
    let kept = Writer::claim(bench.store(), &[ZERO], run).await;
    let keeping = Arc::new(Keeping::default());
    let mut appends = tokio::task::JoinSet::new();
    for name in bench.streams_in(ZERO, 3) {
        appends.spawn(append_until_done(kept.clone(), name, Arc::clone(&keeping)));
    }
    let mut movers = tokio::task::JoinSet::new();
    let moving: Vec<ShardId> = bench.shards().all().skip(1).take(3).collect();
    for &shard in &moving {
        let names = bench.streams_in(shard, ROUNDS);
        movers.spawn(give_and_take(bench.store(), run, shard, names, Arc::clone(&keeping)));
    }
    movers.join_all().await;
    keeping.done.store(true, Ordering::Release);
    let appended: u64 = appends.join_all().await.iter().sum();
    let floor = (2 * ROUNDS) as u64;
    assert!(appended >= floor, "only {appended} appends went on meanwhile");
    assert_eq!(bench.read_shard(ZERO).await.len() as u64, appended, "and each is stored once");
    for shard in moving {
        assert_eq!(bench.read_shard(shard).await.len(), 3 * ROUNDS, "shard {shard}: each is stored once");
    }
}

/// The appends to what is kept, as those who move the rest see them.
#[derive(Default)]
struct Keeping {
    appended: AtomicU64,
    done: AtomicBool,
}

impl Keeping {
    /// Waits until another append was answered, so that each move meets some.
    async fn goes_on(&self) {
        let before = self.appended.load(Ordering::Acquire);
        while self.appended.load(Ordering::Acquire) == before {
            tokio::task::yield_now().await;
        }
    }
}

async fn append_until_done(writer: Writer, name: StreamId, keeping: Arc<Keeping>) -> u64 {
    let mut version = 0;
    while !keeping.done.load(Ordering::Acquire) {
        committed(&writer.append_one(writer.commit(&name, version, 1)).await);
        keeping.appended.fetch_add(1, Ordering::AcqRel);
        version += 1;
        tokio::task::yield_now().await;
    }
    version
}

/// Claims a shard, appends to it at once, and gives it back, once for each of the streams.
async fn give_and_take(
    store: Arc<dyn EventStore>,
    run: Incarnation,
    shard: ShardId,
    names: Vec<StreamId>,
    keeping: Arc<Keeping>,
) {
    for name in names {
        keeping.goes_on().await;
        let writer = Writer::claim(Arc::clone(&store), &[shard], run).await;
        for version in 0..3 {
            committed(&writer.append_one(writer.commit(&name, version, 1)).await);
        }
        keeping.goes_on().await;
        let released = store.release_shards(run, &[(shard, writer.epoch(shard))]).await;
        assert_eq!(released.expect("answers"), [true]);
        let late = writer.append_one(writer.commit(&name, 3, 1)).await;
        assert_eq!(late, CommitOutcome::Fenced, "it was given back");
    }
}
