//! Keeps the node's shards: renews the lease, and after a loss sends everybody out of memory and claims anew.
//!
//! No call of the store is ever dropped half-way: the keeper waits for each answer, and is told to stop between two of
//! them. An answer that comes late does no harm, since the lease is counted from before the question was sent.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use orchestrix_core::store::{Claim, ClaimError, NodeRecord, Renewed, Report, WriteError};
use orchestrix_core::{EventStore, Incarnation, ShardId};
use tokio::sync::{mpsc, oneshot};

use super::boottime::BootTime;
use super::lease::{Lease, Renewal};
use super::life::Life;
use crate::aggregate::{Inbox, Shared};
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
    store.join(record(owner, settings), settings.lease).await.map_err(ClaimError::unavailable)?;
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
fn record(incarnation: Incarnation, settings: &Settings) -> NodeRecord {
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
        address: None,
    }
}

/// The task that keeps the shards of a running node.
pub(crate) struct Keeper {
    /// Weak, so that a node that is dropped without a shutdown comes apart; its lease then ends by itself.
    shared: Weak<Shared>,
    inboxes: Vec<mpsc::WeakSender<Inbox>>,
    lease: Lease,
    stop: oneshot::Receiver<()>,
    outage: Option<Outage>,
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
    pub(crate) fn new(
        shared: &Arc<Shared>,
        inboxes: &[mpsc::Sender<Inbox>],
        lease: Lease,
    ) -> (Self, oneshot::Sender<()>) {
        let (stopping, stop) = oneshot::channel();
        let inboxes = inboxes.iter().map(mpsc::Sender::downgrade).collect();
        (Self { shared: Arc::downgrade(shared), inboxes, lease, stop, outage: None }, stopping)
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
        drop(shared);
        self.pause(pause).await
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
        // An append that was fenced says so at any time; it is looked for in steps.
        let end = Instant::now() + pause;
        loop {
            let Some(left) = end.checked_duration_since(Instant::now()) else { return Ok(()) };
            tokio::select! {
                _ = &mut self.stop => return Err(Ended),
                () = tokio::time::sleep(left.min(LOOK_PAUSE)) => {}
            }
            if self.shared()?.standing.is_deposed() {
                return Ok(());
            }
        }
    }

    /// Sends everybody out of memory, since their states may be old, and claims under a new incarnation until it holds.
    async fn claim_anew(&mut self, shared: &Arc<Shared>) -> Result<(), Ended> {
        self.fence_all().await;
        let (former, owner) = (shared.ownership.owner(), Incarnation::fresh());
        let shards: Vec<_> = shared.shards.all().collect();
        let mut told = None;
        loop {
            match succeed(&*shared.store, former, owner, &shared.settings, &shards).await {
                Ok((claims, lease)) => {
                    self.lease = lease;
                    self.resume(shared, owner, &claims).await;
                    return Ok(());
                }
                Err(error) => {
                    let words = error.to_string();
                    if told.as_ref() != Some(&words) {
                        tracing::warn!(%error, "the shards of this node could not be claimed anew; trying on");
                        told = Some(words);
                    }
                }
            }
            if self.inboxes.iter().all(|inbox| inbox.upgrade().is_none()) {
                return Err(Ended);
            }
            let pause = (self.lease.length() / RETRIES).min(CLAIM_PAUSE_MAX);
            tokio::select! {
                _ = &mut self.stop => return Err(Ended),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn fence_all(&self) {
        let mut waiting = Vec::new();
        for inbox in self.inboxes.iter().filter_map(mpsc::WeakSender::upgrade) {
            let (gone, wait) = oneshot::channel();
            if inbox.send(Inbox::Fence(gone)).await.is_ok() {
                waiting.push(wait);
            }
        }
        for wait in waiting {
            // An arbiter that is gone has nobody left.
            let _ = wait.await;
        }
    }

    async fn resume(&self, shared: &Shared, owner: Incarnation, claims: &[Claim]) {
        shared.ownership.change_owner(owner, claims);
        for inbox in self.inboxes.iter().filter_map(mpsc::WeakSender::upgrade) {
            // An arbiter that is gone takes no work either way.
            let _ = inbox.send(Inbox::Reopen).await;
        }
        if let Some(until) = self.lease.until() {
            shared.standing.restore(until);
        }
        tracing::info!(shards = claims.len(), %owner, "this node holds its shards again");
    }
}
