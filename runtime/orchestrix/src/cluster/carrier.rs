//! Carries out what a membership decides: calls of the store, shards of the node, words to other nodes.
//!
//! Every call of the store runs in a task of its own and comes back as an input, so that a slow one holds up nothing
//! else, and none is ever dropped half-way. What concerns one shard is done in the order in which it was decided: each
//! piece of work waits for the ones before it on the same shards. Only a fence waits for nobody.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use orchestrix_core::store::{Claim, ClusterView, Member, Report, Target};
use orchestrix_core::{Epoch, EventStore, Incarnation, ShardId, StreamId};
use tokio::sync::{mpsc, oneshot, watch};

use super::boottime::BootTime;
use super::keeper::record;
use super::life::{Life, is_gone};
use super::member::{Answer, Effect, Input, Loss, Membership, Why};
use super::placement::{Cause, Limits};
use super::shards::Shards;
use crate::aggregate::Shared;
use crate::telemetry::{ClaimReason, ClusterMetrics, FenceReason};

/// How many shards of one node are on the move at once: enough that a node of 256 shards is empty after a few waves, few
/// enough that most of its aggregates are at home at any moment.
const WAVE_MAX: usize = 32;

/// By how much of its share a node may be off it before shards move for the sake of balance.
const TOLERANCE_PERCENT: u32 = 10;

/// What waits for the membership. Answers of the store are few, since one call of each kind is under way; what is over
/// the bound are hints, and hints may be lost.
pub(crate) const INPUTS_MAX: usize = 1_024;

/// How often it is looked whether an append has found another owner, and whether the node is still there.
const LOOK_PAUSE: Duration = Duration::from_millis(50);

/// The other nodes, as far as a carrier has to do with them.
pub(crate) trait Neighbours: Send + Sync {
    /// The view is another one.
    fn on_view(&self, view: &ClusterView);

    /// This node goes on as another run.
    fn on_run(&self, run: Incarnation);

    /// These shards were opened.
    fn on_open(&self, shards: &[ShardId]);

    /// Tells runs to look at the store.
    fn hint(&self, runs: &[Incarnation]);

    /// Tells a run which aggregates of shards that it will get are in use.
    fn warm(&self, to: Incarnation, streams: Vec<StreamId>);
}

/// The task that keeps a node in the cluster of its store.
pub(crate) struct Carrier {
    membership: Membership,
    /// Weak, so that a node that is dropped without a shutdown comes apart; its lease then ends by itself.
    shared: Weak<Shared>,
    store: Arc<dyn EventStore>,
    shards: Shards,
    neighbours: Arc<dyn Neighbours>,
    address: String,
    sender: mpsc::Sender<Input>,
    inputs: mpsc::Receiver<Input>,
    stop: oneshot::Receiver<()>,
    left: watch::Sender<bool>,
    /// The last piece of work on each shard.
    last: HashMap<ShardId, watch::Receiver<bool>>,
    /// Runs that were proved to be gone.
    gone: HashSet<Incarnation>,
    /// Since when shards are being given away.
    sealed_at: HashMap<ShardId, Instant>,
    metrics: Arc<ClusterMetrics>,
    outage: Arc<Outage>,
}

/// What a carrier is made of.
pub(crate) struct Crew {
    pub(crate) shared: Arc<Shared>,
    pub(crate) shards: Shards,
    pub(crate) neighbours: Arc<dyn Neighbours>,
    /// Where other nodes reach this one.
    pub(crate) address: String,
    pub(crate) sender: mpsc::Sender<Input>,
    pub(crate) inputs: mpsc::Receiver<Input>,
    pub(crate) metrics: Arc<ClusterMetrics>,
}

/// What is left to talk to a carrier once it runs.
pub(crate) struct Strings {
    /// Ends it.
    pub(crate) stop: oneshot::Sender<()>,
    /// Tells when the node has left.
    pub(crate) left: watch::Receiver<bool>,
}

impl Carrier {
    pub(crate) fn new(crew: Crew) -> (Self, Strings) {
        let Crew { shared, shards, neighbours, address, sender, inputs, metrics } = crew;
        let (stopping, stop) = oneshot::channel();
        let (left, has_left) = watch::channel(false);
        let limits = Limits { wave_max: WAVE_MAX, tolerance_percent: TOLERANCE_PERCENT };
        let membership =
            Membership::new(shared.ownership.owner(), shared.settings.lease, limits, BootTime::now());
        let carrier = Self {
            membership,
            store: Arc::clone(&shared.store),
            shared: Arc::downgrade(&shared),
            shards,
            neighbours,
            address,
            sender,
            inputs,
            stop,
            left,
            last: HashMap::new(),
            gone: HashSet::new(),
            sealed_at: HashMap::new(),
            metrics,
            outage: Arc::default(),
        };
        (carrier, Strings { stop: stopping, left: has_left })
    }

    /// Runs until it is told to stop, has left, or the node is gone.
    pub(crate) async fn run(mut self) {
        let mut next = Some(Input::Tick);
        while !self.membership.has_left() {
            if let Some(input) = next {
                self.hear(input);
            }
            let pause = self.pause();
            let heard = tokio::select! {
                biased;
                _ = &mut self.stop => return,
                input = self.inputs.recv() => input,
                () = tokio::time::sleep(pause) => None,
            };
            next = heard.or_else(|| self.look_around());
            if self.shared.strong_count() == 0 {
                return;
            }
            if self.is_broken() {
                return self.give_up().await;
            }
        }
        self.left.send_replace(true);
    }

    fn is_broken(&self) -> bool {
        self.shared.upgrade().is_some_and(|shared| shared.standing.is_broken())
    }

    /// A node that has broken serves nobody any more, and others need not wait for its lease to end. What may still be
    /// under way of it is fenced by their claims.
    async fn give_up(&self) {
        tracing::error!("this node is broken; it leaves its shards to the others and must be started again");
        self.outage.told("leave", self.store.leave(self.membership.run()).await);
    }

    fn pause(&self) -> Duration {
        let due = self.membership.wake().map(|wake| BootTime::now().until(wake));
        due.map_or(LOOK_PAUSE, |due| due.min(LOOK_PAUSE))
    }

    /// Takes up what an append has found out, and says that time goes by.
    fn look_around(&mut self) -> Option<Input> {
        let shared = self.shared.upgrade()?;
        shared.standing.looking();
        let is_owned = |shard: &ShardId| shared.ownership.open_term(*shard).is_some();
        self.metrics.set_shards_owned(shared.shards.all().filter(is_owned).count());
        for (shard, epoch) in shared.ownership.take_lost() {
            self.hear(Input::Lost { shard, epoch, loss: Loss::Fenced });
        }
        Some(Input::Tick)
    }

    fn hear(&mut self, input: Input) {
        let effects = self.membership.on(input, BootTime::now());
        self.follow_run();
        for effect in effects {
            self.carry(effect);
        }
    }

    /// Lets everybody know when the node goes on as another run. Nothing of the former one is in memory by then.
    fn follow_run(&self) {
        let (Some(shared), run) = (self.shared.upgrade(), self.membership.run()) else { return };
        if shared.ownership.owner() != run {
            // What was lost before was the former run's.
            shared.ownership.take_lost();
            shared.ownership.change_owner(run);
            self.neighbours.on_run(run);
        }
    }

    fn carry(&mut self, effect: Effect) {
        let (store, me, outage) = (Arc::clone(&self.store), self.membership.run(), Arc::clone(&self.outage));
        match effect {
            Effect::Join { former } => self.join(former),
            Effect::Renew { draining } => {
                let report = Report { load: 0, draining };
                let lease = self.lease();
                self.call(async move {
                    Answer::Renewed(outage.told("renew the lease", store.renew(me, lease, report).await))
                });
            }
            Effect::Look => {
                self.call(async move { Answer::View(outage.told("read the view", store.view().await)) });
            }
            Effect::SetTargets { view, moves } => self.set_targets(view, moves),
            Effect::Claim(shards) => self.claim(shards),
            Effect::Release(shards) => self.release(shards),
            Effect::Leave => {
                self.call(async move { Answer::Left(outage.told("leave", store.leave(me).await).is_some()) });
            }
            Effect::Open(claims) => self.open(claims),
            Effect::Seal(shards) => self.seal(shards),
            Effect::Fence(shards) => {
                say(&shards, "fencing");
                for (_, why) in &shards {
                    count_fence(&self.metrics, *why, 1);
                }
                self.fence(shards.into_iter().map(|(shard, _)| shard).collect());
            }
            Effect::FenceAll(why) => self.fence_all(why),
            Effect::Extend(until) => self.extend(until),
            Effect::Publish => self.publish(),
            Effect::Hint(runs) => self.neighbours.hint(&runs),
        }
    }

    fn lease(&self) -> Duration {
        self.shared.upgrade().map_or(Duration::ZERO, |shared| shared.settings.lease)
    }

    /// Calls the store, and lets the membership hear what came of it.
    fn call(&self, call: impl Future<Output = Answer> + Send + 'static) {
        let (run, sent, inputs) = (self.membership.run(), BootTime::now(), self.sender.clone());
        tokio::spawn(async move {
            let answer = call.await;
            // A carrier that has ended wants to know nothing more.
            let _ = inputs.send(Input::Answer { run, sent, answer }).await;
        });
    }

    fn join(&self, former: Option<Incarnation>) {
        let Some(shared) = self.shared.upgrade() else { return };
        let (store, lease, outage) = (Arc::clone(&self.store), self.lease(), Arc::clone(&self.outage));
        let node = record(self.membership.run(), &shared.settings, Some(self.address.clone()));
        self.call(async move {
            if let Some(former) = former
                && outage.told("let the former run leave", store.leave(former).await).is_none()
            {
                return Answer::Joined(false);
            }
            Answer::Joined(outage.told("join", store.join(node, lease).await).is_some())
        });
    }

    fn claim(&self, wanted: Vec<(ShardId, Why)>) {
        say(&wanted, "claiming");
        let (store, me) = (Arc::clone(&self.store), self.membership.run());
        let (metrics, outage) = (Arc::clone(&self.metrics), Arc::clone(&self.outage));
        self.call(async move {
            let shards: Vec<_> = wanted.iter().map(|(shard, _)| *shard).collect();
            let claims = outage.told("claim shards", store.claim(&shards, me).await);
            if claims.is_some() {
                for (_, why) in &wanted {
                    count_claim(&metrics, *why);
                }
            }
            Answer::Claimed(claims)
        });
    }

    fn release(&mut self, shards: Vec<(ShardId, Epoch)>) {
        let (store, me) = (Arc::clone(&self.store), self.membership.run());
        let (metrics, outage) = (Arc::clone(&self.metrics), Arc::clone(&self.outage));
        let sealed_at: Vec<_> = shards.iter().map(|(shard, _)| self.sealed_at.remove(shard)).collect();
        self.call(async move {
            let released = outage.told("release shards", store.release_shards(me, &shards).await);
            for (sealed_at, is_released) in sealed_at.into_iter().zip(released.iter().flatten()) {
                if let Some(sealed_at) = sealed_at.filter(|_| *is_released) {
                    metrics.moved_out(sealed_at.elapsed());
                }
            }
            Answer::Released(released)
        });
    }

    fn set_targets(&self, view: u64, moves: Vec<(Target, Cause)>) {
        let reasons: Vec<_> = moves.iter().map(|(target, cause)| (target.shard, *cause)).collect();
        say(&reasons, "planning to move");
        let (store, me, outage) = (Arc::clone(&self.store), self.membership.run(), Arc::clone(&self.outage));
        let targets = moves.into_iter().map(|(target, _)| target).collect();
        self.call(async move {
            Answer::Targets(outage.told("set targets", store.set_targets(me, view, targets).await))
        });
    }

    /// Does work on shards after whatever was decided about them before.
    fn after(&mut self, shards: &[ShardId], work: impl Future<Output = ()> + Send + 'static) {
        let (done, is_done) = watch::channel(false);
        let before: Vec<_> =
            shards.iter().filter_map(|shard| self.last.insert(*shard, is_done.clone())).collect();
        tokio::spawn(async move {
            for mut before in before {
                // Work whose task is gone is over, too.
                let _ = before.wait_for(|done| *done).await;
            }
            work.await;
            done.send_replace(true);
        });
    }

    fn open(&mut self, claims: Vec<Claim>) {
        let opened: Vec<_> = claims.iter().map(|claim| claim.shard).collect();
        tracing::info!(shards = opened.len(), "this node owns shards that it has claimed");
        let (shards, neighbours) = (self.shards.clone(), Arc::clone(&self.neighbours));
        self.after(&opened.clone(), async move {
            shards.open(&claims);
            neighbours.on_open(&opened);
        });
    }

    fn seal(&mut self, sealed: Vec<(ShardId, Epoch, Why)>) {
        let reasons: Vec<_> = sealed.iter().map(|(shard, _, why)| (*shard, *why)).collect();
        say(&reasons, "sealing");
        for (shard, epoch, _) in sealed {
            self.sealed_at.insert(shard, Instant::now());
            let target = self.membership.view().and_then(|view| {
                view.shards.iter().find(|row| row.shard == shard).and_then(|row| row.target)
            });
            let (shards, neighbours, inputs) =
                (self.shards.clone(), Arc::clone(&self.neighbours), self.sender.clone());
            self.after(&[shard], async move {
                if let Some(target) = target {
                    let streams = shards.warm_list(shard).await;
                    neighbours.warm(target, streams);
                }
                shards.seal(&[shard]).await;
                // A carrier that has ended releases nothing.
                let _ = inputs.send(Input::Sealed(vec![(shard, epoch)])).await;
            });
        }
    }

    /// Ends terms at once; what is opened again waits until the aggregates have gone.
    fn fence(&mut self, fenced: Vec<ShardId>) {
        let (done, is_done) = watch::channel(false);
        self.last.extend(fenced.iter().map(|shard| (*shard, is_done.clone())));
        let shards = self.shards.clone();
        tokio::spawn(async move {
            shards.fence(&fenced).await;
            done.send_replace(true);
        });
    }

    fn fence_all(&mut self, why: Why) {
        let Some(shared) = self.shared.upgrade() else { return };
        shared.standing.depose();
        count_fence(&self.metrics, why, u64::from(shared.shards.get()));
        tracing::error!(reason = %why, "this node leaves everything and goes on as another run");
        let (all, shards, inputs) =
            (shared.shards.all().collect::<Vec<_>>(), self.shards.clone(), self.sender.clone());
        let before: Vec<_> = self.last.drain().map(|(_, done)| done).collect();
        tokio::spawn(async move {
            shards.fence(&all).await;
            for mut before in before {
                // Work whose task is gone is over, too.
                let _ = before.wait_for(|done| *done).await;
            }
            // What was decided before and came to its turn only now may have opened a shard.
            shards.fence(&all).await;
            // A carrier that has ended goes on as nobody.
            let _ = inputs.send(Input::Fenced { next: Incarnation::fresh() }).await;
        });
    }

    fn extend(&self, until: BootTime) {
        let Some(shared) = self.shared.upgrade() else { return };
        if shared.standing.is_deposed() {
            shared.standing.restore(until);
        } else {
            shared.standing.extend(until);
        }
    }

    fn publish(&mut self) {
        let Some(view) = self.membership.view() else { return };
        self.neighbours.on_view(view);
        self.gone.retain(|run| view.member(*run).is_some());
        let own = Life::own();
        let found: Vec<_> = view
            .members
            .iter()
            .filter(|member| is_gone(&life_of(member), &own))
            .map(Member::incarnation)
            .filter(|run| !self.gone.contains(run))
            .collect();
        for run in found {
            tracing::warn!(%run, "the process of another node on this machine is gone");
            self.gone.insert(run);
            // A hint like any other: a full queue is looked through soon, and then this is found again.
            if self.sender.try_send(Input::Gone(run)).is_err() {
                self.gone.remove(&run);
            }
        }
    }
}

fn count_claim(metrics: &ClusterMetrics, why: Why) {
    let reason = match why {
        Why::Free => ClaimReason::Free,
        Why::OwnerGone => ClaimReason::OwnerGone,
        Why::CalledOff => ClaimReason::CalledOff,
        _ => ClaimReason::Anew,
    };
    metrics.claimed(reason, 1);
    if reason == ClaimReason::Free {
        metrics.moved_in(1);
    }
}

fn count_fence(metrics: &ClusterMetrics, why: Why, shards: u64) {
    let reason = match why {
        Why::AppendFenced => FenceReason::AppendFenced,
        Why::AppendInDoubt => FenceReason::AppendInDoubt,
        Why::Deposed => FenceReason::Deposed,
        _ => FenceReason::Passed,
    };
    metrics.fenced(reason, shards);
}

fn life_of(member: &Member) -> Life {
    let node = &member.node;
    Life {
        host: node.host.clone(),
        boot_id: node.boot_id.clone(),
        pid_namespace: node.pid_namespace.clone(),
        pid: node.pid,
        started: node.pid_started,
    }
}

/// Whether the store answers, so that an outage is told once and not for each attempt.
#[derive(Default)]
struct Outage(AtomicBool);

impl Outage {
    /// Logs what the store did not answer; the membership tries again.
    fn told<T, E: Display>(&self, what: &'static str, answer: Result<T, E>) -> Option<T> {
        match &answer {
            Ok(_) if self.0.swap(false, Ordering::Relaxed) => tracing::info!("the store answers again"),
            Ok(_) => {}
            Err(error) if self.0.swap(true, Ordering::Relaxed) => {
                tracing::debug!(%error, "the store did not {what}");
            }
            Err(error) => tracing::warn!(%error, "the store did not {what}; trying on"),
        }
        answer.ok()
    }
}

/// Logs a change of ownership, reason by reason.
fn say<R: Display + Copy + Ord>(shards: &[(ShardId, R)], what: &'static str) {
    let mut reasons: BTreeMap<R, usize> = BTreeMap::new();
    for (_, reason) in shards {
        *reasons.entry(*reason).or_default() += 1;
    }
    for (reason, shards) in reasons {
        tracing::info!(shards, %reason, "{what}");
    }
}
