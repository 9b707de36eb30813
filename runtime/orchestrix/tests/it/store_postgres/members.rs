//! What nodes on one database see of each other, as the server has it: what moves a version, what raises no fence, what
//! is cleared away, and what becomes of the sessions of a run that was succeeded.

use std::collections::BTreeSet;
use std::time::Duration;

use orchestrix::store::Postgres;
use orchestrix_core::store::{ClaimError, CommitOutcome, NodeRecord, PlanOutcome, Report, Target};
use orchestrix_core::{EventStore, Incarnation, ShardId};
use sqlx::Executor as _;
use sqlx::postgres::PgConnection;

use super::owner::{Owner, number, run, shards, until_waiting};
use super::place::{Place, fresh_name};
use crate::harness::in_time;

const LONG: Duration = Duration::from_hours(1);

/// How often two runs claim and release while each clears the other's fences away.
const ROUNDS: u64 = 40;

const VERSION: &str = "SELECT version FROM orchestrix.cluster_view";

/// A run that says nothing by which it could be proved to be gone.
pub fn node(name: &str, incarnation: Incarnation) -> NodeRecord {
    NodeRecord {
        incarnation,
        name: name.to_owned(),
        host: format!("{name}.example"),
        boot_id: String::new(),
        pid_namespace: String::new(),
        pid: 1,
        pid_started: 0,
        application_version: "1".to_owned(),
        address: None,
    }
}

async fn join(store: &Postgres, name: &str, lease: Duration) -> Incarnation {
    let incarnation = Incarnation::fresh();
    store.join(node(name, incarnation), lease).await.expect("joins");
    incarnation
}

/// Every run announces itself, owns every shard, and holds it for as long as the lease says.
async fn owner(store: &Postgres, name: &str, lease: Duration) -> Owner {
    let incarnation = join(store, name, lease).await;
    let claims = store.claim(&shards(store), incarnation).await.expect("claims");
    Owner { store: store.clone(), incarnation, claims }
}

/// Ends a lease as if its time had passed.
async fn end_lease(hand: &mut PgConnection, run_of: Incarnation, ago: &str) {
    let text = format!(
        "UPDATE orchestrix.nodes SET lease_until = clock_timestamp() - interval '{ago}' WHERE incarnation = '{run_of}'"
    );
    run(hand, &text).await;
}

/// Whoever changes an owner by hand is seen as well, as soon as it is committed.
#[tokio::test]
async fn a_change_by_hand_changes_the_version_when_it_is_committed() {
    let place = Place::new();
    let (mut hand, mut other) = (place.by_hand().await, place.by_hand().await);
    let before = number(&mut other, VERSION).await;
    run(&mut hand, "BEGIN").await;
    run(&mut hand, "UPDATE orchestrix.shards SET epoch = epoch + 1").await;
    run(&mut hand, "UPDATE orchestrix.shards SET target = gen_random_uuid() WHERE shard < 3").await;
    assert_eq!(number(&mut other, VERSION).await, before, "nobody is told of what may never be");
    run(&mut hand, "COMMIT").await;
    let after = number(&mut other, VERSION).await;
    assert!(after > before);
    run(&mut hand, "BEGIN; UPDATE orchestrix.shards SET epoch = epoch + 1; ROLLBACK").await;
    run(&mut hand, "UPDATE orchestrix.shards SET epoch = epoch").await;
    assert_eq!(number(&mut other, VERSION).await, after);
}

/// A transaction that changes many rows writes the version once.
#[tokio::test]
async fn a_transaction_changes_the_version_once() {
    let place = Place::new();
    let mut hand = place.by_hand().await;
    run(&mut hand, "BEGIN; SET CONSTRAINTS ALL IMMEDIATE").await;
    run(&mut hand, "UPDATE orchestrix.shards SET epoch = epoch + 1 WHERE shard = 0").await;
    let first = number(&mut hand, VERSION).await;
    run(&mut hand, "UPDATE orchestrix.shards SET epoch = epoch + 1").await;
    assert_eq!(number(&mut hand, VERSION).await, first);
    run(&mut hand, "COMMIT").await;
}

/// A standby that was promoted too early is behind, and would count on to numbers that stood for other views.
#[tokio::test]
async fn a_version_that_was_lost_is_not_used_again() {
    let place = Place::new();
    let store = place.open().await;
    let mut hand = place.by_hand().await;
    let behind = number(&mut hand, VERSION).await;
    let one = join(&store, "one", LONG).await;
    let lost = number(&mut hand, VERSION).await;
    let back = format!("UPDATE orchestrix.cluster_view SET version = {behind}");
    run(&mut hand, &format!("DELETE FROM orchestrix.nodes WHERE incarnation = '{one}'")).await;
    run(&mut hand, &back).await;
    join(&store, "two", LONG).await;
    assert!(number(&mut hand, VERSION).await > lost);
}

/// Transactions that change the view work side by side, and stand in line while they commit only.
#[tokio::test]
async fn a_change_under_way_keeps_nobody_else_from_changing_the_view() {
    let place = Place::new();
    let store = place.open().await;
    let mut hand = place.by_hand().await;
    run(&mut hand, "BEGIN; UPDATE orchestrix.shards SET epoch = epoch + 1 WHERE shard = 0").await;
    let one = in_time("a join beside it", join(&store, "one", LONG)).await;
    let claim = in_time("a claim beside it", store.claim(&[ShardId::new(1)], one)).await;
    assert_eq!(claim.expect("nobody holds it").len(), 1);
    run(&mut hand, "COMMIT").await;
}

/// A renewal is one statement that changes one row in place and moves no version.
#[tokio::test]
async fn renewals_write_one_row_and_nothing_that_others_read() {
    let place = Place::new();
    let store = place.open().await;
    let one = owner(&store, "one", LONG).await;
    let mut hand = place.by_hand().await;
    let xact = "SELECT changed_by::text::int8 FROM orchestrix.cluster_view";
    let before = (number(&mut hand, VERSION).await, number(&mut hand, xact).await);
    for load in 0..20 {
        store.renew(one.incarnation, LONG, Report { load, draining: false }).await.expect("renews");
    }
    assert_eq!((number(&mut hand, VERSION).await, number(&mut hand, xact).await), before);
}

/// A target stops no append: it neither raises a fence nor waits for what is in flight.
#[tokio::test]
async fn a_target_raises_no_fence_and_waits_for_no_append() {
    let place = Place::new();
    let store = place.open().await;
    let one = owner(&store, "one", LONG).await;
    let (mut append, mut hand) = (place.by_hand().await, place.by_hand().await);
    let generation = "SELECT max(generation) FROM orchestrix.fences";
    let before = number(&mut hand, generation).await;
    run(&mut append, "BEGIN; SELECT 1 FROM orchestrix.fences FOR SHARE").await;
    let view = store.view().await.expect("reads");
    let other = Incarnation::fresh();
    let targets = view.shards.iter().map(|own| Target {
        shard: own.shard,
        owner: own.owner,
        epoch: own.epoch,
        target: other,
    });
    let set = store.set_targets(one.incarnation, view.version, targets.collect());
    let set = in_time("targets beside an append", set).await.expect("answers");
    assert!(matches!(set, PlanOutcome::Set { view: version } if version > view.version), "{set:?}");
    run(&mut append, "COMMIT").await;
    assert_eq!(number(&mut hand, generation).await, before);
}

/// A release waits for the run's appends in flight, as a claim does.
#[tokio::test]
async fn a_release_waits_for_an_append_in_flight() {
    let place = Place::new();
    let store = place.open().await;
    let one = owner(&store, "one", LONG).await;
    let (mut append, mut hand) = (place.by_hand().await, place.by_hand().await);
    run(&mut append, "BEGIN; SELECT 1 FROM orchestrix.fences WHERE lane = 0 FOR SHARE").await;
    let given = one.claims[3];
    let release = tokio::spawn({
        let one = one.clone();
        async move { one.store.release_shards(one.incarnation, &[(given.shard, given.epoch)]).await }
    });
    until_waiting(&mut hand, 1).await;
    assert!(!release.is_finished(), "it waits for the append");
    run(&mut append, "COMMIT").await;
    assert_eq!(release.await.expect("ends").expect("answers"), [true]);
}

/// While another planner's transaction is under way, nobody waits for it.
#[tokio::test]
async fn a_second_planner_is_told_that_one_is_at_work() {
    let place = Place::new();
    let store = place.open().await;
    let one = join(&store, "one", LONG).await;
    let view = store.view().await.expect("reads");
    let mut hand = place.by_hand().await;
    let plan = format!(
        "BEGIN; SELECT * FROM orchestrix.set_targets('{one}', {}, '{{0}}', '{{NULL}}', '{{0}}', ARRAY['{one}'::uuid])",
        view.version
    );
    run(&mut hand, &plan).await;
    let target = Target { shard: ShardId::new(1), owner: None, epoch: view.shards[1].epoch, target: one };
    let set = in_time("a second planner", store.set_targets(one, view.version, vec![target])).await;
    assert_eq!(set.expect("answers"), PlanOutcome::Busy);
    run(&mut hand, "COMMIT").await;
    let set = store.set_targets(one, view.version, vec![target]).await;
    assert_eq!(set.expect("answers"), PlanOutcome::Stale);
    assert_eq!(store.view().await.expect("reads").shards[0].target, Some(one));
}

/// What crashes left behind is cleared away by a later start, unless it still owns something.
#[tokio::test]
async fn rows_of_runs_that_never_came_back_are_cleared_away() {
    let place = Place::new();
    let store = place.open().await;
    let mut hand = place.by_hand().await;
    let holder = join(&store, "holder", Duration::ZERO).await;
    store.claim(&[ShardId::new(0)], holder).await.expect("claims");
    let (gone, lately) =
        (join(&store, "gone", Duration::ZERO).await, join(&store, "lately", Duration::ZERO).await);
    for run_of in [holder, gone] {
        end_lease(&mut hand, run_of, "11 minutes").await;
    }
    end_lease(&mut hand, lately, "9 minutes").await;
    let starter = join(&store, "starter", LONG).await;
    let view = store.view().await.expect("reads");
    let members: BTreeSet<_> = view.members.iter().map(|member| member.node.incarnation).collect();
    assert_eq!(members, BTreeSet::from([holder, lately, starter]));
    store.claim(&[ShardId::new(0)], starter).await.expect("a leftover blocks nobody");
    join(&store, "another", LONG).await;
    assert_eq!(store.view().await.expect("reads").member(holder), None, "it owns nothing any more");
}

/// A session as a node of the store names it, in the middle of something.
async fn session_of(place: &Place, run_of: Incarnation) -> PgConnection {
    let mut session = place.by_hand().await;
    run(&mut session, &format!("SET application_name = 'orchestrix {run_of} zombie'")).await;
    run(&mut session, "BEGIN; SELECT 1").await;
    session
}

#[tokio::test]
async fn what_a_succeeded_run_left_under_way_is_ended_and_nothing_else() {
    let place = Place::new();
    let store = place.open().await;
    let zombie = owner(&store, "zombie", LONG).await;
    let living = join(&store, "living", LONG).await;
    let mut left = session_of(&place, zombie.incarnation).await;
    let mut other = session_of(&place, living).await;
    let mut hand = place.by_hand().await;
    let ended = "SET lease_until = clock_timestamp()";
    run(&mut hand, &format!("UPDATE orchestrix.nodes {ended} WHERE incarnation = '{}'", zombie.incarnation))
        .await;
    let mut later = session_of(&place, zombie.incarnation).await;
    store.claim(&[ShardId::new(0)], living).await.expect("its lease has ended");
    let error = left.execute("SELECT 1").await.expect_err("it was ended");
    assert!(error.to_string().contains("terminating") || error.as_database_error().is_none(), "{error}");
    other.execute("SELECT 1").await.expect("a run that lives is left alone");
    later.execute("SELECT 1").await.expect("what began after the lease is fenced anyway");
}

#[tokio::test]
async fn a_run_that_holds_its_lease_keeps_its_sessions_when_others_claim() {
    let place = Place::new();
    let store = place.open().await;
    let holder = owner(&store, "holder", LONG).await;
    let other = join(&store, "other", LONG).await;
    let mut session = session_of(&place, holder.incarnation).await;
    let refused = store.claim(&shards(&store), other).await;
    assert!(matches!(refused, Err(ClaimError::Held { .. })), "{refused:?}");
    let given = holder.claims[0];
    store.release_shards(holder.incarnation, &[(given.shard, given.epoch)]).await.expect("answers");
    store.claim(&[given.shard], other).await.expect("it was given back");
    session.execute("SELECT 1").await.expect("its session lives");
}

/// A service whose user may not end another user's session takes over all the same.
#[tokio::test]
async fn a_takeover_needs_no_right_to_end_sessions() {
    let place = Place::new();
    let store = place.open().await;
    let zombie = owner(&store, "zombie", LONG).await;
    let mut left = session_of(&place, zombie.incarnation).await;
    let user = fresh_name("user");
    let mut hand = place.by_hand().await;
    end_lease(&mut hand, zombie.incarnation, "0 seconds").await;
    run(&mut hand, &format!("CREATE ROLE {user} LOGIN PASSWORD 'pass' IN ROLE orchestrix_writer")).await;
    let options = Postgres::open(&place.url_of(&user, "pass").await).expect("a URL");
    let writer = options.connect().await.expect("opens");
    let successor = owner(&writer, "successor", LONG).await;
    assert!(successor.note("a", 0).await.is_committed());
    left.execute("SELECT 1").await.expect("a superuser's session is left alone");
    let view = writer.view().await.expect("reads");
    let target = Target {
        shard: ShardId::new(0),
        owner: Some(successor.incarnation),
        epoch: successor.claims[0].epoch,
        target: zombie.incarnation,
    };
    let set = writer.set_targets(successor.incarnation, view.version, vec![target]).await.expect("may plan");
    assert!(matches!(set, PlanOutcome::Set { .. }), "{set:?}");
    let given = [(successor.claims[0].shard, successor.claims[0].epoch)];
    assert_eq!(writer.release_shards(successor.incarnation, &given).await.expect("may release"), [true]);
    assert!(writer.drain(successor.incarnation).await.expect("may mark"));
    writer.leave(successor.incarnation).await.expect("leaves");
    writer.close().await;
    drop(hand);
    place.drop_user(&user).await;
}

/// After a release the run knows what it still owns: no append has to find out, and what was given back is fenced.
#[tokio::test]
async fn after_a_release_the_rest_is_appended_to_at_once() {
    let place = Place::new();
    let store = place.open().await;
    let one = owner(&store, "one", LONG).await;
    let given = one.commit("a", 0).shard;
    store
        .release_shards(one.incarnation, &[(given, one.claims[given.get() as usize].epoch)])
        .await
        .expect("answers");
    let ids: Vec<String> = (0..20).map(|at| format!("n-{at}")).collect();
    let commits: Vec<_> = ids.iter().map(|id| one.commit(id, 0)).collect();
    let of: Vec<ShardId> = commits.iter().map(|commit| commit.shard).collect();
    for (shard, outcome) in of.iter().zip(one.append(commits).await) {
        match outcome {
            CommitOutcome::Committed { .. } => assert_ne!(*shard, given),
            CommitOutcome::Fenced => assert_eq!(*shard, given),
            other => panic!("shard {shard}: {other:?}"),
        }
    }
}

/// A run that owns nothing has its fences cleared away by the claims of others; claims of its own that come at the same
/// moment leave it with fences all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_claims_while_its_fences_are_cleared_away_may_append() {
    let place = Place::new();
    let stores = [place.open().await, place.open().await];
    let mut runs = Vec::new();
    for (at, store) in stores.iter().enumerate() {
        let incarnation = join(store, &format!("run-{at}"), LONG).await;
        runs.push(tokio::spawn(claim_append_release(store.clone(), incarnation, at)));
    }
    for run in runs {
        assert_eq!(in_time("claims and releases", run).await.expect("no append is fenced"), ROUNDS);
    }
}

async fn claim_append_release(store: Postgres, incarnation: Incarnation, at: usize) -> u64 {
    let mut stored = 0;
    let id = (0..).map(|number| format!("s-{number}"));
    let shard_of = |id: &str| store.info().shard_count.shard_of_stream(&super::owner::stream(id));
    let id = id.into_iter().find(|id| shard_of(id).get() as usize == at).expect("there is one");
    while stored < ROUNDS {
        let mut claims = store.claim(&[shard_of(&id)], incarnation).await.expect("nobody owns it");
        let claim = claims.remove(0);
        // `Owner` looks an epoch up by the number of the shard.
        let all = shards(&store).into_iter().map(|shard| orchestrix_core::store::Claim { shard, ..claim });
        let own = Owner { store: store.clone(), incarnation, claims: all.collect() };
        let outcome = own.note(&id, stored).await;
        assert!(outcome.is_committed(), "round {stored}: {outcome:?}");
        stored += 1;
        let released = store.release_shards(incarnation, &[(claim.shard, claim.epoch)]).await;
        assert_eq!(released.expect("answers"), [true]);
    }
    stored
}
