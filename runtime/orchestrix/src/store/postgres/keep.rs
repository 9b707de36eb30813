//! The writes other than appends: claims, snapshots, checkpoints, quarantine, signs of life.

use orchestrix_core::store::{Claim, ClaimError, QuarantineRecord, SnapshotOutcome, SnapshotWrite};
use orchestrix_core::{Epoch, Incarnation, Seq, ShardId, StreamId};

use super::Inner;
use super::append::{number, shard_number};
use super::arguments::Args;
use super::error::Failed;
use super::lanes::LANES_MAX;
use super::ledger::Ownership;
use super::rows::{Elements, Malformed, Value as _, get, maybe};
use super::statements::{
    CLAIM, DELETE_SNAPSHOT, NODE, PING, QUARANTINE, RELEASE, SAVE_CHECKPOINT, SAVE_SNAPSHOTS,
};
use crate::cluster::{Life, is_gone};

/// What a claim came to.
enum Claimed {
    Taken(Vec<Claim>),
    Held { shard: ShardId, holder: Incarnation },
}

/// A run that holds a shard.
struct Holder {
    name: String,
    life: Life,
}

impl Inner {
    /// Takes shards over. A holder whose process is known to be gone does not hold any more.
    pub(super) async fn claim(
        &self,
        shards: &[ShardId],
        owner: Incarnation,
    ) -> Result<Vec<Claim>, ClaimError> {
        self.target.name_run(owner);
        let mut dead = Vec::new();
        loop {
            // What a claim that failed may have changed is found by the next append: the server compares generations.
            let (shard, holder) = match self.try_claim(shards, owner, &dead).await? {
                Claimed::Taken(claims) => return Ok(claims),
                Claimed::Held { shard, holder } => (shard, holder),
            };
            let Some(known) = self.holder(holder).await? else { continue };
            if dead.contains(&holder) || !is_gone(&known.life, &Life::own()) {
                return Err(ClaimError::Held { shard, holder: format!("{} (run {holder})", known.name) });
            }
            tracing::warn!(holder = %known.name, run = %holder, "the process of the owner is gone; taking over");
            dead.push(holder);
        }
    }

    async fn try_claim(
        &self,
        shards: &[ShardId],
        owner: Incarnation,
        dead: &[Incarnation],
    ) -> Result<Claimed, Failed> {
        let arguments = Args::default()
            .add(self.cluster())
            .add(owner)
            .array(shards.len(), || shards.iter().map(|shard| shard_number(*shard)))
            .slice(dead)
            .add(LANES_MAX);
        let rows = self.pool.run(CLAIM, arguments).await?;
        let Some(first) = rows.first() else { return Ok(Claimed::Taken(Vec::new())) };
        if let Some(holder) = maybe(first, 5)? {
            return Ok(Claimed::Held { shard: get(first, 0)?, holder });
        }
        let mut all = Vec::with_capacity(rows.len());
        for row in &rows {
            all.push((get(row, 0)?, get(row, 1)?, maybe(row, 2)?));
        }
        let ownership = Ownership { generation: get(first, 3)?, server: get(first, 4)?, shards: all };
        let claims = claims_of(shards, &ownership)?;
        self.book.install(owner, &ownership);
        Ok(Claimed::Taken(claims))
    }

    async fn holder(&self, run: Incarnation) -> Result<Option<Holder>, Failed> {
        let rows = self.pool.run(NODE, Args::default().add(run)).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let text = |at| get::<&str>(row, at).map(str::to_owned);
        let life = Life {
            host: text(1)?,
            boot_id: text(2)?,
            pid_namespace: text(3)?,
            pid: get::<i64>(row, 4)? as u32,
            started: get::<i64>(row, 5)? as u64,
        };
        Ok(Some(Holder { name: text(0)?, life }))
    }

    pub(super) async fn save_snapshots(
        &self,
        owner: Incarnation,
        snapshots: &[SnapshotWrite],
    ) -> Result<Vec<SnapshotOutcome>, Failed> {
        if snapshots.is_empty() {
            return Ok(Vec::new());
        }
        let count = snapshots.len();
        let arguments = Args::default()
            .add(owner)
            .array(count, || snapshots.iter().map(|write| shard_number(write.shard)))
            .array(count, || snapshots.iter().map(|write| number(write.epoch.get())))
            .array(count, || snapshots.iter().map(|write| number(write.record.version.get())))
            .array(count, || snapshots.iter().map(|write| write.record.taken_at))
            .array(count, || snapshots.iter().map(|write| self.book.key(&write.stream)))
            .array(count, || snapshots.iter().map(|write| &*write.stream.aggregate_type))
            .array(count, || snapshots.iter().map(|write| &*write.stream.id))
            .array(count, || snapshots.iter().map(|write| &*write.record.bytes));
        let row = self.pool.run_one(SAVE_SNAPSHOTS, arguments).await?;
        let mut answers = Elements::of(maybe(&row, 0)?)?;
        let mut outcomes = Vec::with_capacity(count);
        while answers.len() > 0 {
            outcomes.push(match answers.next()?.and_then(i32::read) {
                Some(0) => SnapshotOutcome::Saved,
                Some(1) => SnapshotOutcome::Superseded,
                Some(2) => SnapshotOutcome::Fenced,
                other => return Err(Malformed(format!("a snapshot was answered with {other:?}")).into()),
            });
        }
        if outcomes.len() == count {
            Ok(outcomes)
        } else {
            Err(Malformed(format!("{count} snapshots got {} answers", outcomes.len())).into())
        }
    }

    pub(super) async fn delete_snapshot(&self, stream: &StreamId) -> Result<(), Failed> {
        let arguments =
            Args::default().add(self.book.key(stream)).add(&*stream.aggregate_type).add(&*stream.id);
        self.pool.run(DELETE_SNAPSHOT, arguments).await.map(|_| ())
    }

    pub(super) async fn save_checkpoint(
        &self,
        consumer: &str,
        owner: Incarnation,
        (shard, epoch): (ShardId, Epoch),
        seq: Seq,
    ) -> Result<bool, Failed> {
        let arguments = Args::default()
            .add(consumer)
            .add(owner)
            .add(shard_number(shard))
            .add(number(epoch.get()))
            .add(number(seq.get()));
        Ok(get(&self.pool.run_one(SAVE_CHECKPOINT, arguments).await?, 0)?)
    }

    pub(super) async fn quarantine(&self, record: &QuarantineRecord) -> Result<(), Failed> {
        let arguments = Args::default()
            .add(&*record.stream.aggregate_type)
            .add(&*record.stream.id)
            .add(&*record.reason)
            .add(record.command_id)
            .add(record.since);
        self.pool.run(QUARANTINE, arguments).await.map(|_| ())
    }

    pub(super) async fn release(&self, stream: &StreamId) -> Result<bool, Failed> {
        let arguments = Args::default().add(&*stream.aggregate_type).add(&*stream.id);
        Ok(!self.pool.run_once(RELEASE, arguments).await?.is_empty())
    }

    /// Writes durably in a lane, as an append does.
    pub(super) async fn ping(&self) -> Result<(), Failed> {
        let mut lane = self.lanes.take().await?;
        match lane.session().await?.run_one(PING, Args::default()).await {
            // The lane had not heard yet that the server was away in between.
            Err(failed) if failed.is_lost_session() => {
                lane.session().await?.run_one(PING, Args::default()).await.map(|_| ())
            }
            answered => answered.map(|_| ()),
        }
    }
}

/// Puts the shards that were asked for into the order asked for.
fn claims_of(shards: &[ShardId], ownership: &Ownership) -> Result<Vec<Claim>, Malformed> {
    let find = |wanted: &ShardId| {
        let found = ownership.shards.iter().find(|(shard, ..)| shard == wanted);
        let claim = found
            .and_then(|(shard, epoch, head)| Some(Claim { shard: *shard, epoch: *epoch, head: (*head)? }));
        claim.ok_or_else(|| Malformed(format!("shard {wanted} is not among those that were claimed")))
    };
    shards.iter().map(find).collect()
}
