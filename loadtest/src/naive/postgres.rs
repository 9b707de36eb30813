//! PostgreSQL: the callers share 64 connections, and each command is one insert that commits by itself.
//!
//! That is the fastest form there is: versions and seqs are counted here, where a usual store would read them from the
//! database first, in a transaction of two or more round trips.

use std::sync::Arc;

use anyhow::Context as _;
use sqlx::postgres::PgConnection;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::cli::Common;
use crate::database::Database;
use crate::driver::{Load, Window};
use crate::limit::postgres::{Rows, World, commit_one, connect, one_row, prepare};

/// As many as usual pools have at most.
const CONNECTIONS: usize = 64;

/// What the callers share.
struct Desk {
    rows: Mutex<Rows>,
    free: Mutex<mpsc::Receiver<PgConnection>>,
    back: mpsc::Sender<PgConnection>,
}

/// Has the callers of a load commit one by one, on a database of its own, and returns the commands per second.
///
/// # Errors
/// When the database cannot be made or written.
pub(super) async fn measure(common: &Common, load: &Load) -> anyhow::Result<f64> {
    let database = Database::temporary(common)?;
    let world = World::new(load, prepare(&database).await?);
    let (back, free) = mpsc::channel(CONNECTIONS);
    for _ in 0..CONNECTIONS.min(load.callers) {
        back.send(connect(&database).await?).await.context("there is room for every connection")?;
    }
    let rows = Mutex::new(Rows::new(&world, load, 0, 1));
    let desk = Arc::new(Desk { rows, free: Mutex::new(free), back });
    let window = Window::begin(load.warmup, load.duration);
    let mut tasks = JoinSet::new();
    for _ in 0..load.callers {
        tasks.spawn(call(Arc::clone(&desk), window));
    }
    let mut commands = 0;
    while let Some(ended) = tasks.join_next().await {
        commands += ended.context("a caller panicked")??;
    }
    Ok(commands as f64 / window.length().as_secs_f64())
}

async fn call(desk: Arc<Desk>, window: Window) -> anyhow::Result<u64> {
    let mut commands = 0;
    let mut now = Instant::now();
    while now < window.until {
        let row = one_row(&mut *desk.rows.lock().await);
        let connection = desk.free.lock().await.recv().await;
        let mut connection = connection.context("the connections are shared by callers alone")?;
        commit_one(&mut connection, row).await?;
        desk.back.send(connection).await.context("there is room for every connection")?;
        now = Instant::now();
        commands += u64::from(window.contains(now));
    }
    Ok(commands)
}
