//! SQLite: each command reads the version of its stream and the head of its shard, inserts its event and commits. SQLite has one
//! writer, so callers queue, in order, for one connection: that is faster than many connections that find it busy.

use std::sync::Arc;

use anyhow::Context as _;
use orchestrix::core::{Aggregate, Clock, Codec, CommandId, Event, SystemClock};
use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection as _, Row as _};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::cli::Common;
use crate::database::Database;
use crate::driver::{Load, Window};
use crate::limit::{place, receipt, sqlite};
use crate::scenario::{CommandIds, Counter, CounterEvent, Random, Spread, counter_id, filler};

const HEADS: &str = "SELECT (SELECT max(version) FROM stream_index WHERE stream = ?1) AS version, \
                     (SELECT max(pos) FROM events WHERE pos BETWEEN ?2 AND ?3) AS pos";

const INSERT: &str = "INSERT INTO events (pos, stream, version, epoch, event_type, schema_version, codec, \
                      command_id, recorded_at, headers, receipt, payload) \
                      VALUES (?, ?, ?, 1, 'loadtest.added', 1, ?, ?, ?, NULL, ?, ?)";

/// Whoever reads the version from the index keeps it up to date with each commit.
const INSERT_ENTRY: &str = "INSERT INTO stream_index (stream, version, pos) VALUES (?, ?, ?)";

/// What the callers share.
struct Desk {
    connection: Mutex<SqliteConnection>,
    shards: Vec<u32>,
    payload_bytes: usize,
}

/// Has the callers of a load commit one by one, on a database of its own, and returns the commands per second.
///
/// # Errors
/// When the database cannot be made or written.
pub(super) async fn measure(common: &Common, load: &Load) -> anyhow::Result<f64> {
    let database = Database::temporary(common)?;
    let (connection, count) = sqlite::prepare(&database, load).await?;
    let connection = Mutex::new(connection);
    let shard = |number| count.shard_of(Counter::TYPE.as_str(), counter_id(number).as_str()).get();
    let shards = (0..load.aggregates).map(shard).collect();
    let desk = Arc::new(Desk { connection, shards, payload_bytes: load.payload_bytes });
    let window = Window::begin(load.warmup, load.duration);
    let mut tasks = JoinSet::new();
    for number in 0..load.callers {
        tasks.spawn(call(Arc::clone(&desk), load.clone(), number, window));
    }
    let mut commands = 0;
    while let Some(ended) = tasks.join_next().await {
        commands += ended.context("a caller panicked")??;
    }
    let desk = Arc::into_inner(desk).context("a caller is still at work")?;
    desk.connection.into_inner().close().await.context("the database could not be closed")?;
    Ok(commands as f64 / window.length().as_secs_f64())
}

async fn call(desk: Arc<Desk>, load: Load, number: usize, window: Window) -> anyhow::Result<u64> {
    let mut random = Random::new(load.seed, number);
    let mut ids = CommandIds::new(window.tag, number);
    let spread = Spread { aggregates: load.aggregates, hot: load.hot };
    let mut commands = 0;
    let mut now = Instant::now();
    while now < window.until {
        let id = ids.next(window.start.elapsed());
        desk.command(spread.pick(&mut random), id).await.context("a transaction failed")?;
        now = Instant::now();
        commands += u64::from(window.contains(now));
    }
    Ok(commands)
}

impl Desk {
    async fn command(&self, aggregate: usize, id: CommandId) -> Result<(), sqlx::Error> {
        let (shard, stream) = (self.shards[aggregate], aggregate as i64 + 1);
        let mut connection = self.connection.lock().await;
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        let heads = sqlx::query(HEADS)
            .bind(stream)
            .bind(place(shard, 0))
            .bind(place(shard + 1, 0) - 1)
            .fetch_one(&mut *transaction)
            .await?;
        let version = heads.try_get::<Option<i64>, _>("version")?.unwrap_or(0) + 1;
        let pos = heads.try_get::<Option<i64>, _>("pos")?.unwrap_or(place(shard, 0)) + 1;
        sqlx::query(INSERT)
            .bind(pos)
            .bind(stream)
            .bind(version)
            .bind(i64::from(Codec::Json.as_u8()))
            .bind(id.as_uuid().as_bytes().as_slice())
            .bind(SystemClock.now().as_micros())
            .bind(receipt(version as u64))
            .bind(self.payload())
            .execute(&mut *transaction)
            .await?;
        sqlx::query(INSERT_ENTRY).bind(stream).bind(version).bind(pos).execute(&mut *transaction).await?;
        transaction.commit().await
    }

    /// Encodes the event, as every command must.
    fn payload(&self) -> Vec<u8> {
        let event = CounterEvent::Added { amount: 1, filler: filler(self.payload_bytes) };
        event.encode().expect("an amount and a text have a JSON form").bytes
    }
}
