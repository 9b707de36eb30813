//! The writes other than appends: claims, snapshots, checkpoints, quarantine, signs of life.

use orchestrix_core::store::{Claim, QuarantineRecord, SnapshotOutcome, SnapshotWrite};
use orchestrix_core::{Epoch, Incarnation, Seq, ShardId, StreamId};
use sqlx::Executor;
use sqlx::sqlite::SqliteArguments;

use super::place::number;
use super::rows::bind;
use super::writer::{Writer, read_ledger};

/// Raises the epochs of the shards listed in a JSON array.
const CLAIM: &str = "UPDATE shards SET epoch = epoch + 1, incarnation = ? \
                     WHERE shard IN (SELECT value FROM json_each(?))";

/// Stores a snapshot under its shard's epoch, unless one of a higher version is there. Bound last is the fence.
const SAVE_SNAPSHOT: &str = "\
    INSERT INTO snapshots (aggregate_type, id, version, taken_at, bytes) \
    SELECT ?, ?, ?, ?, ? \
    WHERE EXISTS (SELECT 1 FROM shards WHERE shard = ? AND epoch = ? AND incarnation = ?) \
    ON CONFLICT (aggregate_type, id) DO UPDATE \
    SET version = excluded.version, taken_at = excluded.taken_at, bytes = excluded.bytes \
    WHERE excluded.version >= snapshots.version";

/// Moves a checkpoint forward under its shard's epoch. A row that stays as it is counts as written.
const SAVE_CHECKPOINT: &str = "\
    INSERT INTO checkpoints (consumer, shard, seq) SELECT ?, ?, ? \
    WHERE EXISTS (SELECT 1 FROM shards WHERE shard = ? AND epoch = ? AND incarnation = ?) \
    ON CONFLICT (consumer, shard) DO UPDATE SET seq = max(seq, excluded.seq)";

const QUARANTINE: &str = "\
    INSERT INTO quarantine (aggregate_type, id, reason, command_id, since) VALUES (?, ?, ?, ?, ?) \
    ON CONFLICT (aggregate_type, id) DO UPDATE \
    SET reason = excluded.reason, command_id = excluded.command_id, since = excluded.since";

impl Writer {
    /// Takes shards over. The caller has checked that they exist.
    pub(super) async fn claim(
        &mut self,
        shards: &[ShardId],
        owner: Incarnation,
    ) -> Result<Vec<Claim>, sqlx::Error> {
        let numbers: Vec<u32> = shards.iter().map(|shard| shard.get()).collect();
        let mut arguments = SqliteArguments::default();
        bind(&mut arguments, &owner.as_uuid().as_bytes()[..]);
        bind(&mut arguments, serde_json::json!(numbers).to_string());
        self.begin().await?;
        self.connection.execute("BEGIN IMMEDIATE").await?;
        sqlx::query_with(CLAIM, arguments).execute(&mut self.connection).await?;
        let (ledger, indexed) = read_ledger(&mut self.connection).await?;
        self.connection.execute("COMMIT").await?;
        self.ledger = ledger;
        // Another process may have written meanwhile, if the lock did not work.
        self.check_tail(&indexed).await?;
        self.done();
        let claim = |shard: &ShardId| {
            let state = self.ledger.shards[shard.get() as usize];
            Claim { shard: *shard, epoch: state.epoch, head: state.head }
        };
        Ok(shards.iter().map(claim).collect())
    }

    /// Saves snapshots in one transaction.
    pub(super) async fn save_snapshots(
        &mut self,
        owner: Incarnation,
        snapshots: Vec<SnapshotWrite>,
    ) -> Result<Vec<SnapshotOutcome>, sqlx::Error> {
        // One is one statement, and so a transaction by itself.
        let is_one = snapshots.len() == 1;
        self.begin().await?;
        if !is_one {
            self.connection.execute("BEGIN IMMEDIATE").await?;
        }
        let mut outcomes = Vec::with_capacity(snapshots.len());
        for write in snapshots {
            outcomes.push(self.save_snapshot(owner, write).await?);
        }
        if !is_one {
            self.connection.execute("COMMIT").await?;
        }
        self.done();
        Ok(outcomes)
    }

    async fn save_snapshot(
        &mut self,
        owner: Incarnation,
        SnapshotWrite { stream, shard, epoch, record }: SnapshotWrite,
    ) -> Result<SnapshotOutcome, sqlx::Error> {
        let mut arguments = SqliteArguments::default();
        bind_name(&mut arguments, &stream);
        bind(&mut arguments, number(record.version.get()));
        bind(&mut arguments, record.taken_at.as_micros());
        bind(&mut arguments, record.bytes);
        bind_fence(&mut arguments, shard, epoch, owner);
        let written = sqlx::query_with(SAVE_SNAPSHOT, arguments).execute(&mut self.connection).await?;
        if written.rows_affected() > 0 {
            return Ok(SnapshotOutcome::Saved);
        }
        // Nothing was written; asking once more tells the two reasons apart.
        Ok(if self.holds(shard, epoch, owner).await? {
            SnapshotOutcome::Superseded
        } else {
            SnapshotOutcome::Fenced
        })
    }

    async fn holds(&mut self, shard: ShardId, epoch: Epoch, owner: Incarnation) -> Result<bool, sqlx::Error> {
        let mut arguments = SqliteArguments::default();
        bind_fence(&mut arguments, shard, epoch, owner);
        let text = "SELECT count(*) FROM shards WHERE shard = ? AND epoch = ? AND incarnation = ?";
        let count: i64 = sqlx::query_scalar_with(text, arguments).fetch_one(&mut self.connection).await?;
        Ok(count == 1)
    }

    /// Deletes a snapshot, if there is one.
    pub(super) async fn delete_snapshot(&mut self, stream: &StreamId) -> Result<(), sqlx::Error> {
        let mut arguments = SqliteArguments::default();
        bind_name(&mut arguments, stream);
        self.write("DELETE FROM snapshots WHERE aggregate_type = ? AND id = ?", arguments).await.map(|_| ())
    }

    /// Moves a consumer forward; `false` when fenced.
    pub(super) async fn save_checkpoint(
        &mut self,
        consumer: &str,
        owner: Incarnation,
        (shard, epoch): (ShardId, Epoch),
        seq: Seq,
    ) -> Result<bool, sqlx::Error> {
        let mut arguments = SqliteArguments::default();
        bind(&mut arguments, consumer);
        bind(&mut arguments, i64::from(shard.get()));
        bind(&mut arguments, number(seq.get()));
        bind_fence(&mut arguments, shard, epoch, owner);
        Ok(self.write(SAVE_CHECKPOINT, arguments).await? > 0)
    }

    /// Marks an aggregate, in place of an earlier mark.
    pub(super) async fn quarantine(&mut self, record: &QuarantineRecord) -> Result<(), sqlx::Error> {
        let mut arguments = SqliteArguments::default();
        bind_name(&mut arguments, &record.stream);
        bind(&mut arguments, &*record.reason);
        bind(&mut arguments, record.command_id.map(|id| id.as_uuid().as_bytes().to_vec()));
        bind(&mut arguments, record.since.as_micros());
        self.write(QUARANTINE, arguments).await.map(|_| ())
    }

    /// Lifts a mark; `false` when there was none.
    pub(super) async fn release(&mut self, stream: &StreamId) -> Result<bool, sqlx::Error> {
        let mut arguments = SqliteArguments::default();
        bind_name(&mut arguments, stream);
        Ok(self.write("DELETE FROM quarantine WHERE aggregate_type = ? AND id = ?", arguments).await? > 0)
    }

    /// Writes durably without changing anything that is read.
    pub(super) async fn ping(&mut self) -> Result<(), sqlx::Error> {
        self.write("UPDATE log SET settled = settled + 1", SqliteArguments::default()).await.map(|_| ())
    }

    /// Runs one statement as a transaction of its own and returns how many rows it wrote.
    async fn write(&mut self, text: &'static str, arguments: SqliteArguments) -> Result<u64, sqlx::Error> {
        self.begin().await?;
        let written = sqlx::query_with(text, arguments).execute(&mut self.connection).await?;
        self.done();
        Ok(written.rows_affected())
    }
}

fn bind_name(arguments: &mut SqliteArguments, stream: &StreamId) {
    bind(arguments, &*stream.aggregate_type);
    bind(arguments, &*stream.id);
}

fn bind_fence(arguments: &mut SqliteArguments, shard: ShardId, epoch: Epoch, owner: Incarnation) {
    bind(arguments, i64::from(shard.get()));
    bind(arguments, number(epoch.get()));
    bind(arguments, &owner.as_uuid().as_bytes()[..]);
}
