//! Imports into a database: the events of a step are stored as an append stores them, in one transaction and with
//! their part of the index of streams, but under the epochs that they were recorded with.

use orchestrix_core::store::{Batch, CommitOutcome, ImportError, ImportStep, ReadError, RecordedEvent};
use orchestrix_core::{Incarnation, Seq, ShardCount, ShardId};
use sqlx::sqlite::SqliteArguments;

use super::error::Refused;
use super::place::shard_and_seq;
use super::plan::{Plan, Slots};
use super::read::{Failed, read_error};
use super::readers::Readers;
use super::rows::{bind, get};
use super::writer::Writer;
use crate::store::import::{Needs, commits_of};

/// Begins an import where the log is empty, was never claimed, and is not being imported into.
const BEGIN: &str = "UPDATE log SET importing = ? WHERE importing IS NULL \
    AND NOT EXISTS (SELECT 1 FROM events) AND NOT EXISTS (SELECT 1 FROM shards WHERE incarnation IS NOT NULL) \
    AND NOT EXISTS (SELECT 1 FROM snapshots) AND NOT EXISTS (SELECT 1 FROM checkpoints) \
    AND NOT EXISTS (SELECT 1 FROM quarantine)";

const IMPORTING: &str = "SELECT importing FROM log";

/// What keeps an import out, in words.
const FOUND: &str = "SELECT CASE WHEN EXISTS (SELECT 1 FROM events) THEN 'it has events' \
    WHEN EXISTS (SELECT 1 FROM shards WHERE incarnation IS NOT NULL) THEN 'a node has taken its shards' \
    ELSE 'it has snapshots, checkpoints or quarantines' END";

/// Gives each shard the epoch of its last event, so that the next owner gets a higher one, and lets it be claimed. The
/// change of the shards changes the generation, so that no writer goes on with what it knew before.
const FINISH: &str = "BEGIN IMMEDIATE; \
    UPDATE shards SET epoch = max(epoch, coalesce((SELECT epoch FROM events WHERE pos > shards.shard * 1099511627776 \
    AND pos < (shards.shard + 1) * 1099511627776 ORDER BY pos DESC LIMIT 1), 0)); \
    UPDATE log SET importing = NULL; COMMIT";

/// The last row of each shard, in their order. One statement sees one moment.
const HEADS: &str = "SELECT (SELECT pos FROM events WHERE pos > shards.shard * 1099511627776 \
    AND pos < (shards.shard + 1) * 1099511627776 ORDER BY pos DESC LIMIT 1) FROM shards ORDER BY shard";

impl Writer {
    /// Takes one step.
    pub(super) async fn import(&mut self, step: ImportStep) -> Result<(), ImportError> {
        let taken = match step {
            ImportStep::Begin { name } => self.begin_import(&name).await,
            ImportStep::Events(events) => self.import_events(events).await,
            ImportStep::Finish => self.finish_import().await,
        };
        // A step that was refused has changed nothing, but only a settled writer knows that for certain.
        if taken.is_err() {
            self.settle().await.map_err(ImportError::unavailable)?;
        }
        taken
    }

    async fn begin_import(&mut self, name: &str) -> Result<(), ImportError> {
        self.begin().await.map_err(ImportError::unavailable)?;
        let under_way = self.importing().await?;
        if let Some(other) = under_way {
            self.done();
            return if other == name { Ok(()) } else { Err(ImportError::Another { name: other }) };
        }
        let mut arguments = SqliteArguments::default();
        bind(&mut arguments, name);
        let begun = sqlx::query_with(BEGIN, arguments).execute(&mut self.connection).await;
        if begun.map_err(ImportError::unavailable)?.rows_affected() == 0 {
            let found = sqlx::query_scalar(FOUND).fetch_one(&mut self.connection).await;
            return Err(ImportError::NotEmpty { found: found.map_err(ImportError::unavailable)? });
        }
        self.done();
        Ok(())
    }

    async fn importing(&mut self) -> Result<Option<String>, ImportError> {
        let asked = sqlx::query_scalar(IMPORTING).fetch_one(&mut self.connection).await;
        asked.map_err(ImportError::unavailable)
    }

    async fn import_events(&mut self, events: Vec<RecordedEvent>) -> Result<(), ImportError> {
        let count = ShardCount::new(self.ledger.shards.len() as u32).expect("a log has 1 to 4,096 shards");
        let needs = Needs::of(&events, count)?;
        self.begin().await.map_err(ImportError::unavailable)?;
        if self.importing().await?.is_none() {
            return Err(ImportError::NotBegun);
        }
        for (shard, head) in needs.heads {
            let found = self.ledger.shards[shard.get() as usize].head;
            if found != head {
                let reason = format!("the shard ends at seq {found}");
                return Err(ImportError::Gap { shard, seq: head.next(), reason });
            }
        }
        let places: Vec<_> = events.iter().map(|event| (event.shard, event.seq)).collect();
        let batch = Batch { owner: Incarnation::from_uuid(uuid::Uuid::nil()), commits: commits_of(events) };
        let mut slots = Slots::gather(&batch.commits, &mut self.ledger);
        self.find_heads(&mut slots).await.map_err(ImportError::unavailable)?;
        let plan = Plan::of_import(&batch, &slots, &self.ledger);
        refuse_misfits(&batch, &plan, &places)?;
        self.store_planned(&batch, plan, slots).await.map_err(ImportError::unavailable)?;
        self.done();
        Ok(())
    }

    async fn finish_import(&mut self) -> Result<(), ImportError> {
        self.begin().await.map_err(ImportError::unavailable)?;
        if self.importing().await?.is_none() {
            return Err(ImportError::NotBegun);
        }
        let finished = sqlx::raw_sql(FINISH).execute(&mut self.connection).await;
        finished.map_err(ImportError::unavailable)?;
        // Reads the epochs and the generation as they are now.
        self.settle().await.map_err(ImportError::unavailable)
    }
}

/// Refuses the step when a commit does not continue its stream. The commits are the events in their order.
fn refuse_misfits(batch: &Batch, plan: &Plan, places: &[(ShardId, Seq)]) -> Result<(), ImportError> {
    let mut at = 0;
    for (commit, outcome) in batch.commits.iter().zip(&plan.outcomes) {
        let reason = match outcome {
            CommitOutcome::Committed { .. } => None,
            CommitOutcome::Conflict { actual: Some(actual) } => {
                Some(format!("{} is at version {actual}", commit.stream))
            }
            other => Some(format!("{other:?}")),
        };
        if let Some(reason) = reason {
            let (shard, seq) = places[at];
            return Err(ImportError::Gap { shard, seq, reason });
        }
        at += commit.events.len();
    }
    Ok(())
}

impl Readers {
    /// Returns the last seq of each shard.
    pub(super) async fn heads(&self) -> Result<Vec<Seq>, ReadError> {
        let rows = self.fetch(HEADS, SqliteArguments::default()).await.map_err(read_error)?;
        let head = |row| {
            let position: Option<i64> = get(row, 0)?;
            Ok(position.map_or(Seq::ZERO, |position| shard_and_seq(position).1))
        };
        Ok(rows.iter().map(head).collect::<Result<_, _>>().map_err(Failed::Malformed)?)
    }
}

impl From<Refused> for ImportError {
    fn from(refused: Refused) -> Self {
        Self::unavailable(refused)
    }
}
