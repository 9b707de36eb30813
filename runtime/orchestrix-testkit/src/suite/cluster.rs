//! Obligations 20 and 24: what runs that share a store see of each other. A store without leases shares nothing: its
//! checks tell that it says so.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use orchestrix_core::store::{
    ClusterView, EventStore, Member, PlanOutcome, ReadError, Renewed, Report, ShardOwner, Target,
};
use orchestrix_core::{Incarnation, ShardId};

use super::bench::{Bench, LONG, committed, node};

/// Tells whether runs share the store; one that is not shared says so whatever it is asked.
pub(super) async fn is_shared(bench: &Bench) -> bool {
    let store = bench.store();
    if store.info().leases {
        return true;
    }
    let run = Incarnation::fresh();
    assert!(matches!(store.view().await, Err(ReadError::Unavailable { .. })));
    assert!(store.set_targets(run, 0, Vec::new()).await.is_err());
    assert!(store.release_shards(run, &[]).await.is_err());
    assert!(store.drain(run).await.is_err());
    let renewed = store.renew(run, LONG, Report::default()).await.expect("answers");
    assert_eq!(renewed, Renewed { holds: true, view: 0 });
    false
}

/// Reads the view.
pub(super) async fn view(store: &Arc<dyn EventStore>) -> ClusterView {
    store.view().await.expect("the view can be read")
}

/// Returns what a version stands for: all but leases and loads.
fn lasting(view: &ClusterView) -> (Vec<(Incarnation, bool, bool)>, Vec<ShardOwner>) {
    let lasting = |member: &Member| (member.incarnation(), member.draining, member.deposed);
    (view.members.iter().map(lasting).collect(), view.shards.clone())
}

/// 20. A view tells who joined, as they described themselves, and every shard with its owner and epoch.
pub async fn a_view_tells_members_and_shards(bench: Bench) {
    if !is_shared(&bench).await {
        return;
    }
    let (first, second) = (bench.join("first", LONG).await, bench.join("second", Duration::ZERO).await);
    bench.store().claim(&[ShardId::new(1)], first).await.expect("nobody holds it");
    let view = view(&bench.store()).await;
    let nodes: Vec<_> = view.members.iter().map(|member| member.node.clone()).collect();
    let mut joined = [node("first", first), node("second", second)];
    joined.sort_by_key(|node| node.incarnation);
    assert_eq!(nodes, joined, "in the order of the incarnations");
    let one = view.member(first).expect("it joined");
    assert!(one.is_alive() && one.lease_left <= LONG && !one.lease_left.is_zero(), "{one:?}");
    let two = view.member(second).expect("it joined");
    assert!(!two.is_alive() && two.lease_left.is_zero() && !two.deposed && !two.draining, "{two:?}");
    let shards: Vec<ShardId> = view.shards.iter().map(|shard| shard.shard).collect();
    assert_eq!(shards, bench.shards().all().collect::<Vec<_>>(), "all shards, in order");
    let owned = view.shards.iter().filter(|shard| shard.owner.is_some());
    let owned: Vec<_> = owned.map(|own| (own.shard.get(), own.owner, own.epoch.get(), own.target)).collect();
    assert_eq!(owned, [(1, Some(first), 1, None)]);
}

/// 20. Whatever changes what a view tells changes its version, and a renewal tells the version that is current.
pub async fn every_change_of_the_view_changes_its_version(bench: Bench) {
    if !is_shared(&bench).await {
        return;
    }
    let store = bench.store();
    let watcher = bench.join("watcher", LONG).await;
    let mut seen = view(&store).await;
    let mut changes = 0;
    let other = Incarnation::fresh();
    let shards = [ShardId::new(0), ShardId::new(1)];
    for step in 0.. {
        match step {
            0 => store.join(node("other", other), Duration::ZERO).await.expect("joins"),
            1 => drop(store.claim(&shards, other).await.expect("claims")),
            2 => assert!(store.drain(other).await.expect("is marked")),
            3 => {
                let own = seen.shards[0];
                let target = Target { shard: own.shard, owner: own.owner, epoch: own.epoch, target: watcher };
                let set = store.set_targets(watcher, seen.version, vec![target]).await.expect("answers");
                assert!(matches!(set, PlanOutcome::Set { .. }), "{set:?}");
            }
            4 => {
                let released = store.release_shards(other, &[(shards[0], seen.shards[0].epoch)]).await;
                assert_eq!(released.expect("answers"), [true]);
            }
            5 => drop(store.claim(&shards, watcher).await.expect("its lease has ended")),
            6 => store.leave(other).await.expect("leaves"),
            _ => break,
        }
        let renewed = store.renew(watcher, LONG, Report::default()).await.expect("answers");
        let now = view(&store).await;
        assert!(renewed.holds && renewed.view == now.version, "step {step}: nobody else changes anything");
        assert!(now.version > seen.version, "step {step} changed the version");
        assert_ne!(lasting(&now), lasting(&seen), "step {step} was seen");
        changes += 1;
        seen = now;
    }
    assert_eq!(changes, 7, "every step was taken");
}

/// 20. A renewal that tells nothing new, a load, a mark that is there already, a claim that is refused: no other version.
pub async fn what_changes_nothing_leaves_the_version(bench: Bench) {
    if !is_shared(&bench).await {
        return;
    }
    let store = bench.store();
    let (one, two) = (bench.join("one", LONG).await, bench.join("two", LONG).await);
    store.claim(&[ShardId::new(0)], one).await.expect("nobody holds it");
    assert!(store.drain(one).await.expect("is marked"));
    let before = view(&store).await;
    for load in [7, 8] {
        store.renew(one, LONG, Report { load, draining: load == 8 }).await.expect("renews");
    }
    assert!(store.drain(one).await.expect("is marked already"));
    store.join(node("two", two), LONG).await.expect("a second time");
    store.claim(&[ShardId::new(0)], two).await.expect_err("it is held");
    let released = store.release_shards(two, &[(ShardId::new(0), before.shards[0].epoch)]).await;
    assert_eq!(released.expect("answers"), [false]);
    store.leave(Incarnation::fresh()).await.expect("nobody left");
    assert!(!store.drain(Incarnation::fresh()).await.expect("answers"), "there is no such run");
    let after = view(&store).await;
    assert_eq!((after.version, lasting(&after)), (before.version, lasting(&before)));
    assert_eq!(after.member(one).map(|one| one.load), Some(8), "the load is told all the same");
}

/// 20. A view is of one moment, and one version stands for one view, also while others change it.
pub async fn one_version_stands_for_one_view_while_it_changes(bench: Bench) {
    const VIEWS_MIN: usize = 40;
    if !is_shared(&bench).await {
        return;
    }
    let store = bench.store();
    let watcher = bench.join("watcher", LONG).await;
    let done = Arc::new(AtomicBool::new(false));
    let mut others = tokio::task::JoinSet::new();
    for number in 0..3 {
        others.spawn(come_and_go(Arc::clone(&store), number, Arc::clone(&done)));
    }
    let mut known: HashMap<u64, _> = HashMap::new();
    // It comes to an end as long as the others come to run; the suite has a limit for when they do not.
    while known.len() < VIEWS_MIN {
        let promised = store.renew(watcher, LONG, Report::default()).await.expect("answers").view;
        let now = view(&store).await;
        assert!(now.version >= promised, "version {} was promised, {} was read", promised, now.version);
        let claimed: Vec<_> = now.shards.iter().map(|own| own.epoch).collect();
        assert!(
            claimed.windows(2).all(|two| two[0] == two[1]),
            "all shards are claimed at once: {claimed:?}"
        );
        let lasting = lasting(&now);
        let first = known.entry(now.version).or_insert_with(|| lasting.clone());
        assert_eq!(*first, lasting, "version {} has two views", now.version);
        tokio::task::yield_now().await;
    }
    done.store(true, Ordering::Release);
    others.join_all().await;
}

/// Joins without a lease, claims every shard, is marked, and leaves, again and again.
async fn come_and_go(store: Arc<dyn EventStore>, number: usize, done: Arc<AtomicBool>) {
    let shards: Vec<ShardId> = store.info().shard_count.all().collect();
    while !done.load(Ordering::Acquire) {
        let run = Incarnation::fresh();
        store.join(node(&format!("other-{number}"), run), Duration::ZERO).await.expect("joins");
        store.claim(&shards, run).await.expect("nobody holds a lease");
        tokio::task::yield_now().await;
        store.drain(run).await.expect("is marked");
        store.leave(run).await.expect("leaves");
    }
}

/// 24. A run that is draining stays so until it leaves, whoever said it first, and goes on with what it owns.
pub async fn a_run_that_is_draining_stays_so(bench: Bench) {
    if !is_shared(&bench).await {
        return;
    }
    let store = bench.store();
    let (told, itself) = (bench.join("told", LONG).await, bench.join("itself", LONG).await);
    assert!(store.drain(told).await.expect("is marked"));
    store.renew(itself, LONG, Report { load: 0, draining: true }).await.expect("renews");
    for (run, name) in [(told, "told"), (itself, "itself")] {
        assert!(store.renew(run, LONG, Report::default()).await.expect("renews").holds);
        store.join(node(name, run), LONG).await.expect("a second time");
    }
    let view = view(&store).await;
    assert!(view.members.iter().all(|member| member.draining && member.is_alive()), "{:?}", view.members);
    let writer = super::Writer::claim(store, &[ShardId::new(0)], told).await;
    let name = bench.streams_in(ShardId::new(0), 1).remove(0);
    committed(&writer.append_one(writer.commit(&name, 0, 1)).await);
}
