//! Imports into an empty database, and the heads of all shards at one moment.

use orchestrix_core::store::{ImportError, ImportStep, RecordedEvent};
use orchestrix_core::{Seq, ShardId, StreamId, Version};
use uuid::Uuid;

use super::Inner;
use super::append::{number, shard_number};
use super::arguments::Args;
use super::error::{Failed, code};
use super::key::StreamKey;
use super::moment::Moment;
use super::rows::{get, maybe};
use super::statements::{Statement, statement};
use crate::store::import::{Needs, gap};

const HEADS: Statement = statement(
    "heads_of_all",
    "SELECT coalesce((SELECT e.seq FROM orchestrix.events AS e WHERE e.shard = s.shard ORDER BY e.seq DESC LIMIT 1), 0) \
     FROM orchestrix.shards AS s ORDER BY s.shard",
);

const BEGIN: Statement =
    statement("import_begin", "SELECT i.state, i.found FROM orchestrix.import_begin($1) AS i");

const EVENTS: Statement = statement(
    "import_events",
    "SELECT i.state, i.place, i.found FROM orchestrix.import_events($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, \
     $13, $14, $15, $16, $17, $18, $19, $20) AS i",
);

const FINISH: Statement = statement("import_finish", "SELECT orchestrix.import_finish()");

/// A step on its way to the server.
struct Step<'a> {
    events: &'a [RecordedEvent],
    keys: Vec<StreamKey>,
    heads: Vec<(ShardId, Seq)>,
    /// Without streams that begin in the step.
    before: Vec<(StreamId, Version)>,
}

impl Inner {
    /// Returns the last seq of each shard. One statement sees one moment.
    pub(super) async fn heads(&self) -> Result<Vec<Seq>, Failed> {
        let rows = self.pool.run(HEADS, Args::default()).await?;
        Ok(rows.iter().map(|row| get(row, 0)).collect::<Result<_, _>>()?)
    }

    pub(super) async fn import(&self, step: ImportStep) -> Result<(), ImportError> {
        match step {
            ImportStep::Begin { name } => self.begin_import(&name).await,
            ImportStep::Events(events) => self.import_events(&events).await,
            ImportStep::Finish => self.finish_import().await,
        }
    }

    async fn begin_import(&self, name: &str) -> Result<(), ImportError> {
        let row = self.pool.run_one(BEGIN, Args::default().add(name)).await?;
        let (state, found): (i32, &str) = (read(&row, 0)?, read(&row, 1)?);
        match state {
            0 => Ok(()),
            1 => Err(ImportError::Another { name: found.to_owned() }),
            _ => Err(ImportError::NotEmpty { found: found.to_owned() }),
        }
    }

    async fn import_events(&self, events: &[RecordedEvent]) -> Result<(), ImportError> {
        let needs = Needs::of(events, self.book.shard_count)?;
        let Some(first) = events.first() else { return Ok(()) };
        if let Some(wrong) = events.iter().find(|event| Moment::exact(event.recorded_at).is_none()) {
            return Err(gap(wrong, format!("{} is no time that PostgreSQL can keep", wrong.recorded_at)));
        }
        let keys = events.iter().map(|event| self.book.key(&event.stream)).collect();
        let before = needs.versions.into_iter().filter(|(_, version)| *version > Version::ZERO).collect();
        let step = Step { events, keys, heads: needs.heads, before };
        // Not repeated: what was stored would be a double the second time.
        let mut lease = self.pool.lease().await.map_err(Failed::from)?;
        let row = match lease.session().run_one(EVENTS, self.bind(&step)).await {
            Ok(row) => row,
            Err(failed) if failed.code() == Some(code::UNIQUE_VIOLATION) => {
                return Err(gap(first, format!("the step holds what is stored already: {failed}")));
            }
            Err(failed) => return Err(failed.into()),
        };
        let (state, place, found): (i32, i32, i64) = (read(&row, 0)?, read(&row, 1)?, read(&row, 2)?);
        match state {
            0 => Ok(()),
            1 => Err(ImportError::NotBegun),
            2 => Err(step.wrong_head(place, found)),
            _ => Err(step.wrong_version(place)),
        }
    }

    fn bind(&self, step: &Step<'_>) -> Args {
        let Step { events, keys, heads, before } = step;
        let count = events.len();
        let bytes = events.iter().map(|event| event.payload.len() + 300).sum();
        let each = || events.iter();
        Args::with_capacity(20, bytes)
            .array(heads.len(), || heads.iter().map(|(shard, _)| shard_number(*shard)))
            .array(heads.len(), || heads.iter().map(|(_, seq)| number(seq.get())))
            .array(before.len(), || before.iter().map(|(stream, _)| self.book.key(stream)))
            .array(before.len(), || before.iter().map(|(_, version)| number(version.get())))
            .array(before.len(), || {
                before.iter().map(|(stream, _)| shard_number(self.book.shard_count.shard_of_stream(stream)))
            })
            .array(count, || each().map(|event| number(event.seq.get())))
            .array(count, || each().map(|event| number(event.version.get())))
            .array(count, || each().map(|event| number(event.epoch.get())))
            .array(count, || each().map(|event| Moment::nearest(event.recorded_at)))
            .array(count, || each().map(|event| shard_number(event.shard)))
            .array(count, || each().map(|event| i32::from(event.schema_version)))
            .array(count, || each().map(|event| i16::from(event.codec.as_u8())))
            .slice(keys)
            .array(count, || each().map(|event| event.command_id))
            .array(count, || each().map(|event| &*event.stream.aggregate_type))
            .array(count, || each().map(|event| &*event.stream.id))
            .array(count, || each().map(|event| &*event.event_type))
            .array(count, || each().map(|event| event.headers.as_deref()))
            .array(count, || each().map(|event| event.receipt.as_deref()))
            .array(count, || each().map(|event| &*event.payload))
    }

    async fn finish_import(&self) -> Result<(), ImportError> {
        let row = self.pool.run_one(FINISH, Args::default()).await?;
        let cluster: Option<Uuid> = maybe(&row, 0).map_err(Failed::from)?;
        let cluster = cluster.ok_or(ImportError::NotBegun)?;
        self.set_cluster(cluster);
        Ok(())
    }
}

fn read<'r, T: super::rows::Value<'r>>(row: &'r sqlx::postgres::PgRow, at: usize) -> Result<T, ImportError> {
    Ok(get(row, at).map_err(Failed::from)?)
}

impl Step<'_> {
    fn wrong_head(&self, place: i32, found: i64) -> ImportError {
        let (shard, head) = self.heads[(place - 1) as usize];
        ImportError::Gap { shard, seq: head.next(), reason: format!("the shard ends at seq {found}") }
    }

    fn wrong_version(&self, place: i32) -> ImportError {
        let (stream, version) = &self.before[(place - 1) as usize];
        let first = self.events.iter().find(|event| event.stream == *stream);
        let first = first.expect("what a step needs, it needs for one of its events");
        gap(first, format!("version {version} of {stream} is missing"))
    }
}

impl From<Failed> for ImportError {
    fn from(failed: Failed) -> Self {
        Self::unavailable(failed)
    }
}
