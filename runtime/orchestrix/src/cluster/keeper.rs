//! Keeps the node's shards: renews the lease, and claims anew what was lost.
//!
//! A shard that an append found to have another owner is that shard's loss: its aggregates leave memory, and it is claimed
//! again under the same lease, while the others go on. A lease that another run has ended is the loss of all: everybody
//! leaves memory, and the node claims as a new run.
//!
//! No call of the store is ever dropped half-way: the keeper waits for each answer, and is told to stop between two of
//! them. An answer that comes late does no harm, since the lease is counted from before the question was sent.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use orchestrix_core::store::{Claim, ClaimError, NodeRecord, Renewed, Report, WriteError};
use orchestrix_core::{EventStore, Incarnation, ShardId};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::boottime::BootTime;
use super::lease::{Lease, Renewal};
use super::life::Life;
use super::shards::Shards;
use crate::aggregate::Shared;
use crate::settings::Settings;

/// How often a start looks again whether the shards are free.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause between two attempts to claim anew, whatever the lease: a holder may leave at any time.
const CLAIM_PAUSE_MAX: Duration = Duration::from_secs(1);

/// How many attempts to claim anew fall into a lease.
const RETRIES: u32 = 12;

/// Shards under a lease.
pub(crate) struct Held {
    pub(crate) claims: Vec<Claim>,
    /// `None` at a store without leases.
    pub(crate) lease: Option<Lease>,
}

impl Held {
    /// Makes what a member of a cluster has before it has joined: a lease that has not begun.
    pub(crate) fn nothing(lease: Duration) -> Self {
        Self { claims: Vec::new(), lease: Some(Lease::new(lease)) }
    }
}

/// Takes all shards for a run of a node, and waits for their holder as long as the settings allow.
///
/// # Errors
/// [`ClaimError::Held`] names the holder; [`ClaimError::Unavailable`] when the store does not answer. The run has left
/// again.
pub(crate) async fn hold(
    store: &dyn EventStore,
    owner: Incarnation,
    settings: &Settings,
) -> Result<Held, ClaimError> {
    let shards: Vec<_> = store.info().shard_count.all().collect();
    if !store.info().leases {
        return Ok(Held { claims: store.claim(&shards, owner).await?, lease: None });
    }
    let began = Instant::now();
    let mut told = false;
    loop {
        let error = match join_and_claim(store, owner, settings, &shards).await {
            Ok((claims, lease)) => return Ok(Held { claims, lease: Some(lease) }),
            Err(error) => error,
        };
        let is_worth_waiting = matches!(error, ClaimError::Held { .. });
        if !is_worth_waiting || began.elapsed() >= settings.claim_wait_max {
            if let Err(error) = store.leave(owner).await {
                tracing::warn!(%error, "the start failed, and its lease is left to end by itself");
            }
            return Err(error);
        }
        if !std::mem::replace(&mut told, true) {
            tracing::warn!(%error, wait = ?settings.claim_wait_max, "waiting for the shards of another run");
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}

async fn join_and_claim(
    store: &dyn EventStore,
    owner: Incarnation,
    settings: &Settings,
    shards: &[ShardId],
) -> Result<(Vec<Claim>, Lease), ClaimError> {
    let mut lease = Lease::new(settings.lease);
    let sent = BootTime::now();
    store.join(record(owner, settings, None), settings.lease).await.map_err(ClaimError::unavailable)?;
    let claims = store.claim(shards, owner).await?;
    lease.on_renewal(sent, Renewal::Extended);
    Ok((claims, lease))
}

/// Takes all shards as a new run. Nobody speaks for the former one any more, so its lease is given back first: where it
/// was fenced by a claim of its own that came late, it would keep its successor out for as long as that lease lasts.
async fn succeed(
    store: &dyn EventStore,
    former: Incarnation,
    owner: Incarnation,
    settings: &Settings,
    shards: &[ShardId],
) -> Result<(Vec<Claim>, Lease), ClaimError> {
    store.leave(former).await.map_err(ClaimError::unavailable)?;
    join_and_claim(store, owner, settings, shards).await
}

/// Describes this run to the others.
pub(super) fn record(incarnation: Incarnation, settings: &Settings, address: Option<String>) -> NodeRecord {
    let Life { host, boot_id, pid_namespace, pid, started } = Life::own();
    let name = settings.node_name.clone().unwrap_or_else(|| format!("{host}/{pid}"));
    NodeRecord {
        incarnation,
        name,
        host,
        boot_id,
        pid_namespace,
        pid,
        pid_started: started,
        application_version: settings.application_version.clone(),
        address,
    }
}

/// The task that keeps the shards of a running node.
pub(crate) struct Keeper {
    /// Weak, so that a node that is dropped without a shutdown comes apart; its lease then ends by itself.
    shared: Weak<Shared>,
    shards: Shards,
    lease: Lease,
    stop: oneshot::Receiver<()>,
    outage: Option<Outage>,
    lost: Lost,
}

/// Shards that were lost one by one, on their way back.
#[derive(Default)]
struct Lost {
    shards: Vec<ShardId>,
    /// Sends their aggregates out of memory. In a task of its own: it may wait for the store, and the lease must be
    /// renewed meanwhile.
    fencing: Option<JoinHandle<()>>,
    /// Why they could not be claimed, as it was said.
    told: Option<String>,
}

impl Lost {
    /// Tells whether the aggregates have gone, and nobody has tried to claim since.
    fn are_fenced(&self) -> bool {
        self.fencing.as_ref().is_some_and(JoinHandle::is_finished)
    }
}

/// What was said about a store that does not answer: once that it is away, once that the lease has ended, once that it
/// is back, however long it takes.
#[derive(Clone, Copy, Debug)]
struct Outage {
    since: Instant,
    lease_ended: bool,
}

/// Why the keeper ends.
struct Ended;

impl Keeper {
    /// Makes the keeper of a node, and the word that ends it.
    pub(crate) fn new(shared: &Arc<Shared>, shards: Shards, lease: Lease) -> (Self, oneshot::Sender<()>) {
        let (stopping, stop) = oneshot::channel();
        let shared = Arc::downgrade(shared);
        (Self { shared, shards, lease, stop, outage: None, lost: Lost::default() }, stopping)
    }

    /// Runs until it is told to stop, or the node is gone.
    pub(crate) async fn run(mut self) {
        while self.round().await.is_ok() {}
    }

    async fn round(&mut self) -> Result<(), Ended> {
        let shared = self.shared()?;
        if shared.standing.is_deposed() {
            return self.claim_anew(&shared).await;
        }
        shared.standing.looking();
        let sent = BootTime::now();
        let (owner, length) = (shared.ownership.owner(), self.lease.length());
        let renewal = match shared.store.renew(owner, length, Report::default()).await {
            Ok(Renewed { holds: true, .. }) => Renewal::Extended,
            Ok(Renewed { holds: false, .. }) => Renewal::Deposed,
            Err(error) => {
                self.tell_of_outage(&error);
                Renewal::NoAnswer
            }
        };
        if renewal == Renewal::Extended
            && let Some(outage) = self.outage.take()
        {
            tracing::info!(outage = ?outage.since.elapsed(), "the lease of this node is renewed again");
        }
        let pause = self.lease.on_renewal(sent, renewal);
        if let Some(until) = self.lease.until() {
            shared.standing.extend(until);
        }
        let Some(pause) = pause else {
            if shared.standing.depose() {
                tracing::error!("another run took over the shards of this node, whose lease had ended");
            }
            return Ok(());
        };
        if renewal == Renewal::Extended {
            self.regain(&shared).await;
        }
        drop(shared);
        self.pause(if self.lost.shards.is_empty() { pause } else { pause.min(self.claim_pause()) }).await
    }

    /// Takes back what was lost one by one, as soon as its aggregates have left memory and nobody else holds it.
    async fn regain(&mut self, shared: &Shared) {
        let lost = shared.ownership.take_lost();
        if !lost.is_empty() {
            self.lost.shards.extend(lost.into_iter().map(|(shard, _)| shard));
            let (shards, lost) = (self.shards.clone(), self.lost.shards.clone());
            self.lost.fencing = Some(tokio::spawn(async move { shards.fence(&lost).await }));
        }
        if self.lost.shards.is_empty()
            || self.lost.fencing.as_ref().is_some_and(|fencing| !fencing.is_finished())
        {
            return;
        }
        self.lost.fencing = None;
        match shared.store.claim(&self.lost.shards, shared.ownership.owner()).await {
            Ok(claims) => {
                self.shards.open(&claims);
                self.lost = Lost::default();
                tracing::info!(shards = claims.len(), "this node holds the shards again that it had lost");
            }
            Err(error) => tell_once(&error, &mut self.lost.told),
        }
    }

    fn tell_of_outage(&mut self, error: &WriteError) {
        let left = self.lease.until().map_or(Duration::ZERO, |until| BootTime::now().until(until));
        match &mut self.outage {
            None => {
                tracing::warn!(%error, ?left, "the lease of this node could not be renewed; trying on");
                self.outage = Some(Outage { since: Instant::now(), lease_ended: false });
            }
            Some(outage) if left.is_zero() && !outage.lease_ended => {
                outage.lease_ended = true;
                tracing::error!(%error, "the lease of this node has ended; it answers nothing until the store does");
            }
            Some(_) => tracing::debug!(%error, ?left, "the lease of this node could not be renewed"),
        }
    }

    fn shared(&self) -> Result<Arc<Shared>, Ended> {
        self.shared.upgrade().ok_or(Ended)
    }

    /// Waits, unless there is something to do or to end.
    async fn pause(&mut self, pause: Duration) -> Result<(), Ended> {
        // An append that was fenced says so at any time, and so do aggregates that have left; it is looked for in steps.
        let (end, were_fenced) = (Instant::now() + pause, self.lost.are_fenced());
        loop {
            let Some(left) = end.checked_duration_since(Instant::now()) else { return Ok(()) };
            tokio::select! {
                _ = &mut self.stop => return Err(Ended),
                () = tokio::time::sleep(left.min(LOOK_PAUSE)) => {}
            }
            let shared = self.shared()?;
            let have_left = self.lost.are_fenced() != were_fenced;
            if shared.standing.is_deposed() || shared.standing.is_asked() || have_left {
                return Ok(());
            }
        }
    }

    fn claim_pause(&self) -> Duration {
        (self.lease.length() / RETRIES).min(CLAIM_PAUSE_MAX)
    }

    /// Sends everybody out of memory, since their states may be old, and claims under a new incarnation until it holds.
    async fn claim_anew(&mut self, shared: &Arc<Shared>) -> Result<(), Ended> {
        let all: Vec<_> = shared.shards.all().collect();
        self.shards.fence(&all).await;
        // Those that were lost one by one are among them.
        (self.lost, _) = (Lost::default(), shared.ownership.take_lost());
        let (former, owner) = (shared.ownership.owner(), Incarnation::fresh());
        let mut told = None;
        loop {
            match succeed(&*shared.store, former, owner, &shared.settings, &all).await {
                Ok((claims, lease)) => {
                    self.lease = lease;
                    self.resume(shared, owner, &claims);
                    return Ok(());
                }
                Err(error) => tell_once(&error, &mut told),
            }
            if self.shards.is_gone() {
                return Err(Ended);
            }
            let pause = self.claim_pause();
            tokio::select! {
                _ = &mut self.stop => return Err(Ended),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn resume(&self, shared: &Shared, owner: Incarnation, claims: &[Claim]) {
        shared.ownership.change_owner(owner);
        self.shards.open(claims);
        if let Some(until) = self.lease.until() {
            shared.standing.restore(until);
        }
        tracing::info!(shards = claims.len(), %owner, "this node holds its shards again");
    }
}

/// Says why shards cannot be claimed, when that is another reason than before.
fn tell_once(error: &ClaimError, told: &mut Option<String>) {
    let words = error.to_string();
    if told.as_ref() != Some(&words) {
        tracing::warn!(%error, "the shards of this node could not be claimed anew; trying on");
        *told = Some(words);
    }
}
