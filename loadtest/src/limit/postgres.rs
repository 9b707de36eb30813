//! The limit of PostgreSQL: raw appends of the runtime's rows to the runtime's schema, as durable as the runtime's.
//!
//! The schema is made by the store itself. Each connection has shards of its own and sends one batch after the other: a
//! set-based insert with binary arrays, or a binary `COPY`. The next batch is made ready while the last one is written.
//! There is no fence, no version to look for, nobody to answer.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use orchestrix::core::{Aggregate, Clock, Codec, CommandId, Event, ShardCount, SystemClock};
use serde::Serialize;
use sqlx::postgres::{PgArguments, PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::rows::receipt;
use super::wire::{Args, Moment, Value, put_sized};
use crate::cli::Common;
use crate::database::Database;
use crate::driver::{Load, Window};
use crate::scenario::{CommandIds, Counter, CounterEvent, Random, RunTag, counter_id, filler};

/// Batches that are made ready ahead of each connection.
const AHEAD_BATCHES: usize = 2;

/// The name of the scenario's event.
const EVENT: &str = "loadtest.added";

const COPY: &str = "COPY orchestrix.events (seq, version, epoch, recorded_at, shard, schema_version, codec, stream, \
                    command_id, aggregate_type, aggregate_id, event_type, receipt, payload) FROM STDIN (FORMAT binary)";

const INSERT: &str = "INSERT INTO orchestrix.events (seq, version, epoch, recorded_at, shard, schema_version, codec, \
                      stream, command_id, aggregate_type, aggregate_id, event_type, receipt, payload) \
                      SELECT unnest($1), unnest($2), unnest($3), unnest($4), unnest($5), unnest($6), unnest($7), \
                      unnest($8), unnest($9), unnest($10), unnest($11), unnest($12), unnest($13), unnest($14)";

/// What begins and what ends a binary copy.
const COPY_HEAD: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const COPY_TAIL: &[u8] = &[0xff, 0xff];

/// How rows are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Way {
    /// A set-based insert with arrays.
    Insert,
    /// A binary copy.
    Copy,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::Insert { "inserts" } else { "copies" })
    }
}

/// A batch in the form in which it is sent.
enum Batch {
    Insert(PgArguments),
    Copy(Vec<u8>),
}

/// One row of the table of events, without what is the same in all of them.
#[derive(Clone, Debug)]
struct Row {
    shard: i32,
    seq: i64,
    aggregate: usize,
    version: i64,
    command_id: CommandId,
    recorded_at: Moment,
    receipt: Vec<u8>,
}

/// What is the same in the rows of all connections.
#[derive(Debug)]
pub(crate) struct World {
    /// The shard of each aggregate.
    shards: Vec<i32>,
    ids: Vec<String>,
    payload: Vec<u8>,
    shard_count: usize,
}

/// Makes rows of some shards, with versions and seqs that follow each other.
#[derive(Debug)]
pub(crate) struct Rows {
    world: Arc<World>,
    /// The aggregates that live in these shards.
    own: Vec<usize>,
    versions: Vec<i64>,
    heads: Vec<i64>,
    random: Random,
    ids: CommandIds,
    started: Instant,
}

impl World {
    /// Prepares the aggregates of a load on a log with this many shards.
    pub(crate) fn new(load: &Load, count: ShardCount) -> Arc<Self> {
        let ids: Vec<String> =
            (0..load.aggregates).map(|number| counter_id(number).as_str().to_owned()).collect();
        let shard = |id: &String| count.shard_of(Counter::TYPE.as_str(), id).get() as i32;
        let event = CounterEvent::Added { amount: 1, filler: filler(load.payload_bytes) };
        Arc::new(Self {
            shards: ids.iter().map(shard).collect(),
            ids,
            payload: event.encode().expect("an amount and a text have a JSON form").bytes,
            shard_count: count.get() as usize,
        })
    }
}

impl Rows {
    /// Prepares the rows of one of several connections.
    pub(crate) fn new(world: &Arc<World>, load: &Load, number: usize, of: usize) -> Self {
        let is_own = |aggregate: &usize| world.shards[*aggregate] as usize % of == number;
        Self {
            own: (0..load.aggregates).filter(is_own).collect(),
            versions: vec![0; load.aggregates],
            heads: vec![0; world.shard_count],
            random: Random::new(load.seed, number),
            ids: CommandIds::new(RunTag::fresh(SystemClock.now()), number),
            started: Instant::now(),
            world: Arc::clone(world),
        }
    }

    /// Returns the next row.
    fn next(&mut self) -> Row {
        let aggregate = self.own[self.random.below(self.own.len())];
        let shard = self.world.shards[aggregate];
        self.versions[aggregate] += 1;
        self.heads[shard as usize] += 1;
        let version = self.versions[aggregate];
        Row {
            shard,
            seq: self.heads[shard as usize],
            aggregate,
            version,
            command_id: self.ids.next(self.started.elapsed()),
            recorded_at: Moment::of_micros(SystemClock.now().as_micros()),
            receipt: receipt(version as u64),
        }
    }

    fn batch(&mut self, way: Way, count: usize) -> Batch {
        let rows: Vec<Row> = (0..count).map(|_| self.next()).collect();
        match way {
            Way::Insert => Batch::Insert(arguments(&self.world, &rows).into_inner()),
            Way::Copy => Batch::Copy(copy(&self.world, &rows)),
        }
    }
}

/// Returns the arguments of an insert of one row.
pub(crate) fn one_row(rows: &mut Rows) -> PgArguments {
    let row = rows.next();
    arguments(&rows.world, &[row]).into_inner()
}

/// Inserts one row in a transaction of its own.
///
/// # Errors
/// When the server refuses it.
pub(crate) async fn commit_one(connection: &mut PgConnection, row: PgArguments) -> anyhow::Result<()> {
    append(connection, Batch::Insert(row)).await
}

/// Spreads the numbers of aggregates over all keys, as a hash would (SplitMix64's mixing, twice).
fn stream_key(aggregate: usize) -> u128 {
    let mut random = Random::new(aggregate as u64, 0);
    (u128::from(random.next()) << 64) | u128::from(random.next())
}

fn arguments(world: &World, rows: &[Row]) -> Args {
    let codec = i16::from(Codec::Json.as_u8());
    Args::default()
        .array(|| rows.iter().map(|row| row.seq))
        .array(|| rows.iter().map(|row| row.version))
        .array(|| rows.iter().map(|_| 1_i64))
        .array(|| rows.iter().map(|row| row.recorded_at))
        .array(|| rows.iter().map(|row| row.shard))
        .array(|| rows.iter().map(|_| 1_i32))
        .array(|| rows.iter().map(|_| codec))
        .array(|| rows.iter().map(|row| stream_key(row.aggregate)))
        .array(|| rows.iter().map(|row| row.command_id.as_uuid().as_u128()))
        .array(|| rows.iter().map(|_| Counter::TYPE.as_str()))
        .array(|| rows.iter().map(|row| world.ids[row.aggregate].as_str()))
        .array(|| rows.iter().map(|_| EVENT))
        .array(|| rows.iter().map(|row| row.receipt.as_slice()))
        .array(|| rows.iter().map(|_| world.payload.as_slice()))
}

fn copy(world: &World, rows: &[Row]) -> Vec<u8> {
    let mut bytes = COPY_HEAD.to_vec();
    for row in rows {
        bytes.extend_from_slice(&14_i16.to_be_bytes());
        let mut put = |value: &dyn Fn(&mut Vec<u8>)| value(&mut bytes);
        put(&sized(row.seq));
        put(&sized(row.version));
        put(&sized(1_i64));
        put(&sized(row.recorded_at));
        put(&sized(row.shard));
        put(&sized(1_i32));
        put(&sized(i16::from(Codec::Json.as_u8())));
        put(&sized(stream_key(row.aggregate)));
        put(&sized(row.command_id.as_uuid().as_u128()));
        put(&sized(Counter::TYPE.as_str()));
        put(&sized(world.ids[row.aggregate].as_str()));
        put(&sized(EVENT));
        put(&sized(row.receipt.as_slice()));
        put(&sized(world.payload.as_slice()));
    }
    bytes.extend_from_slice(COPY_TAIL);
    bytes
}

fn sized<T: Value>(value: T) -> impl Fn(&mut Vec<u8>) {
    move |buffer| put_sized(buffer, &value)
}

/// Opens a connection as durable as the store's own.
///
/// # Errors
/// When the server does not let it in.
pub(crate) async fn connect(database: &Database) -> anyhow::Result<PgConnection> {
    let options: PgConnectOptions = database.url()?.parse().context("the URL is not understood")?;
    let options = options.options([("synchronous_commit", "on"), ("plan_cache_mode", "force_generic_plan")]);
    options.disable_statement_logging().connect().await.context("the server does not let the load test in")
}

/// Makes the schema and tells how many shards the store chose.
///
/// # Errors
/// When the database cannot be made.
pub(crate) async fn prepare(database: &Database) -> anyhow::Result<ShardCount> {
    // The store makes its own schema; an empty log is all that is wanted of it.
    let store = database.open().await?;
    let count = store.info().shard_count;
    store.close().await;
    Ok(count)
}

/// Appends batches for as long as the load says, to a database of its own, and returns the events per second.
///
/// # Errors
/// When the database cannot be made or written.
pub(super) async fn measure(
    common: &Common,
    load: &Load,
    way: Way,
    batch: usize,
    connections: usize,
) -> anyhow::Result<f64> {
    let database = Database::temporary(common)?;
    let world = World::new(load, prepare(&database).await?);
    let mut open = Vec::new();
    for number in 0..connections {
        open.push((connect(&database).await?, Rows::new(&world, load, number, connections)));
    }
    let window = Window::begin(load.warmup, load.duration);
    let mut tasks = JoinSet::new();
    for (connection, mut rows) in open {
        let (ready, batches) = mpsc::channel(AHEAD_BATCHES);
        // It ends when its connection has had enough.
        tokio::spawn(async move { while ready.send(rows.batch(way, batch)).await.is_ok() {} });
        tasks.spawn(append_for(connection, batches, window));
    }
    let mut rate = 0.0;
    while let Some(ended) = tasks.join_next().await {
        let (appended, took) = ended.context("a connection's task panicked")??;
        rate += (appended * batch) as f64 / took.as_secs_f64();
    }
    Ok(rate)
}

/// Appends until the window is over; returns the batches of the measured time, and how long they took in all.
async fn append_for(
    mut connection: PgConnection,
    mut batches: mpsc::Receiver<Batch>,
    window: Window,
) -> anyhow::Result<(usize, Duration)> {
    let mut appended = 0;
    let mut began = None;
    let mut now = Instant::now();
    while now < window.until || appended == 0 {
        if began.is_none() && window.contains(now) {
            began = Some(now);
        }
        append(&mut connection, batches.recv().await.context("no batch was made")?).await?;
        now = Instant::now();
        appended += usize::from(began.is_some());
    }
    connection.close().await.context("a connection of the limit could not be closed")?;
    let took = now.duration_since(began.context("the warm-up did not end")?);
    Ok((appended, took))
}

async fn append(connection: &mut PgConnection, batch: Batch) -> anyhow::Result<()> {
    match batch {
        Batch::Insert(arguments) => {
            sqlx::query_with(INSERT, arguments).execute(connection).await.context("a raw insert failed")?;
        }
        Batch::Copy(bytes) => {
            let mut copy = connection.copy_in_raw(COPY).await.context("a raw copy failed")?;
            copy.send(bytes).await.context("a raw copy failed")?;
            copy.finish().await.context("a raw copy failed")?;
        }
    }
    Ok(())
}

/// Commits of one row, one after the other, for one caller: each an insert that commits by itself.
#[derive(Debug)]
pub(crate) struct Raw {
    connection: PgConnection,
    rows: Rows,
}

impl Raw {
    /// Prepares a database.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(crate) async fn open(database: &Database, load: &Load) -> anyhow::Result<Self> {
        let world = World::new(load, prepare(database).await?);
        Ok(Self { connection: connect(database).await?, rows: Rows::new(&world, load, 0, 1) })
    }

    /// Makes one row durable.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) async fn commit_one(&mut self) -> anyhow::Result<()> {
        let row = one_row(&mut self.rows);
        commit_one(&mut self.connection, row).await
    }

    /// Closes the connection.
    ///
    /// # Errors
    /// When the driver says so; everything that was committed stays.
    pub(crate) async fn close(self) -> anyhow::Result<()> {
        self.connection.close().await.context("the database of the raw commits could not be closed")
    }
}
