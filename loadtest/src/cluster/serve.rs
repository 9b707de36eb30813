//! `loadtest cluster-node`: one node of the cluster, as a process of its own.
//!
//! It tells on its standard output where clients find it, as one line. On SIGTERM it tells its clients that it leaves,
//! shuts the node down, which hands its shards over, answers what is still asked, and ends. It also ends when its
//! standard input does, so that it does not outlive whoever started it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use orchestrix::core::CommandId;
use orchestrix::{Consistency, Node, NotAttempted, SendError, ShardState};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::frame::{Answer, Ask, Frames, IN_FLIGHT_MAX, Kind, Outbox, READ_BYTES, Request, Told};
use crate::database::Database;
use crate::scenario::{Add, Counter, counter_id, filler};

/// How long answers may take to leave after the node has shut down.
const LAST_ANSWERS_MAX: Duration = Duration::from_secs(2);

/// What all connections of the process share.
struct Desk {
    node: Node,
    filler: Arc<str>,
    /// Turns true when the node leaves.
    leaving: watch::Receiver<bool>,
}

/// Joins the cluster of a database and serves clients until it is told to stop.
///
/// # Errors
/// When the node does not start, or loopback gives no port.
pub(crate) async fn serve(database: &Database, payload_bytes: usize, lease: Duration) -> anyhow::Result<()> {
    let node = database.join(lease).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await.context("no port is free on loopback")?;
    println!("{}", listener.local_addr()?);
    let (word, leaving) = watch::channel(false);
    let desk = Arc::new(Desk { node: node.clone(), filler: filler(payload_bytes), leaving });
    let mut connections = JoinSet::new();
    let told = told_to_stop();
    tokio::pin!(told);
    loop {
        tokio::select! {
            stop = &mut told => { stop?; break }
            accepted = listener.accept() => {
                let (socket, _) = accepted.context("a client could not be let in")?;
                connections.spawn(attend(Arc::clone(&desk), socket));
            }
        }
    }
    // Nobody listens when no client is there.
    let _ = word.send(true);
    node.shutdown().await;
    drop(desk);
    let _ = tokio::time::timeout(LAST_ANSWERS_MAX, connections.join_all()).await;
    Ok(())
}

/// Waits for SIGTERM, or for the end of the process that started this one.
async fn told_to_stop() -> anyhow::Result<()> {
    let mut term = signal(SignalKind::terminate()).context("SIGTERM cannot be waited for")?;
    let (gone, parent) = tokio::sync::oneshot::channel();
    // A thread of its own: one of the runtime's would be waited for at the end.
    std::thread::spawn(move || {
        let ended = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        let _ = gone.send(ended);
    });
    tokio::select! {
        _ = term.recv() => Ok(()),
        _ = parent => std::process::exit(0),
    }
}

/// Serves one client until it goes, or until the node has left and everything is answered.
async fn attend(desk: Arc<Desk>, socket: TcpStream) {
    // Without it answers only come later.
    let _ = socket.set_nodelay(true);
    let (mut read, write) = socket.into_split();
    let outbox = Arc::new(Outbox::default());
    let writing = tokio::spawn({
        let outbox = Arc::clone(&outbox);
        async move { outbox.write_to(write).await }
    });
    let places = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
    let (mut leaving, mut told) = (desk.leaving.clone(), false);
    let (mut frames, mut buffer) = (Frames::default(), vec![0; READ_BYTES]);
    loop {
        tokio::select! {
            // An error means that the process ends.
            _ = leaving.changed(), if !told => {
                outbox.put(&Told::Leaving);
                told = true;
            }
            // The client goes by itself when it has been told to and has all its answers.
            read = read.read(&mut buffer) => {
                let Ok(bytes @ 1..) = read else { break };
                frames.fill(&buffer[..bytes]);
                if take(&desk, &mut frames, &outbox, &places).await.is_err() {
                    break;
                }
            }
        }
    }
    writing.abort();
}

/// Starts to answer each ask that has come.
async fn take(
    desk: &Arc<Desk>,
    frames: &mut Frames,
    outbox: &Arc<Outbox>,
    places: &Arc<Semaphore>,
) -> anyhow::Result<()> {
    while let Some(request) = frames.next::<Request>()? {
        // When all places are taken nothing more is read, and the client's socket fills up.
        let place = Arc::clone(places).acquire_owned().await?;
        let (desk, outbox) = (Arc::clone(desk), Arc::clone(outbox));
        tokio::spawn(async move {
            let answer = desk.answer(request.ask).await;
            outbox.put(&Told::Answer(request.ticket, answer));
            drop(place);
        });
    }
    Ok(())
}

impl Desk {
    async fn answer(&self, ask: Ask) -> Answer {
        match ask {
            Ask::Add { command, aggregate, amount } => {
                let id = CommandId::from_uuid(Uuid::from_bytes(command));
                let add = Add { amount, filler: Arc::clone(&self.filler) };
                let counter = self.node.of::<Counter>(counter_id(aggregate as usize));
                match counter.send(add).id(id).receipt().await {
                    Ok(done) => Answer::Added {
                        count: done.reply,
                        version: done.version.get(),
                        duplicate: done.duplicate,
                    },
                    Err(SendError::Refused(never)) => match never {},
                    Err(SendError::NotAttempted(error)) => not_attempted(&error),
                    Err(SendError::Unknown(error)) => Answer::Unknown(error.to_string()),
                }
            }
            Ask::Read { aggregate } => {
                let counter = self.node.of::<Counter>(counter_id(aggregate as usize));
                match counter.read(Consistency::Leased, |state| state.count).await {
                    Ok(count) => Answer::Read { count },
                    Err(error) => not_attempted(&error),
                }
            }
            Ask::Owned => Answer::Owned(self.open_shards()),
        }
    }

    fn open_shards(&self) -> Vec<u32> {
        let shards = self.node.shards();
        let open = |shard: &_| matches!(shards.state(*shard), Some(ShardState::Open { .. }));
        self.node.store().info().shard_count.all().filter(open).map(orchestrix::core::ShardId::get).collect()
    }
}

fn not_attempted(error: &NotAttempted) -> Answer {
    let kind = match error {
        NotAttempted::Overloaded { .. } => Kind::Overloaded,
        NotAttempted::DeadlineExceeded
        | NotAttempted::Unavailable { .. }
        | NotAttempted::NotOwner { .. }
        | NotAttempted::ShuttingDown => Kind::Passing,
        _ => Kind::Final,
    };
    Answer::NotAttempted { kind, reason: error.to_string() }
}
