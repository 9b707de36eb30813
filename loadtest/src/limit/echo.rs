//! What this machine's loopback can do at best for calls that are echoed: TCP, batches that gather while the last one is
//! written, and nothing else. Calls are told apart by their order.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;

/// Bytes that one read takes at most.
const READ_BYTES: usize = 256 << 10;

/// Connections to an echo on loopback.
pub(crate) struct BareEcho {
    lanes: Vec<Arc<Lane>>,
    /// Carries the connections, which end with this value.
    _tasks: JoinSet<()>,
}

struct Lane {
    queue: Mutex<Queue>,
    filled: Notify,
}

#[derive(Default)]
struct Queue {
    bytes: Vec<u8>,
    waiting: VecDeque<oneshot::Sender<()>>,
}

impl BareEcho {
    /// Connects to an echo of its own.
    ///
    /// # Errors
    /// When loopback gives no connection.
    pub(crate) async fn start(lanes: usize, frame_bytes: usize) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("no port is free on loopback")?;
        let address = listener.local_addr()?;
        let mut tasks = JoinSet::new();
        let mut started = Vec::new();
        for _ in 0..lanes {
            let (there, here) = tokio::join!(listener.accept(), TcpStream::connect(address));
            let ((there, _), here) = (there?, here?);
            there.set_nodelay(true)?;
            here.set_nodelay(true)?;
            let lane = Arc::new(Lane { queue: Mutex::default(), filled: Notify::new() });
            let (read, write) = here.into_split();
            tasks.spawn(serve(there));
            tasks.spawn(send(Arc::clone(&lane), write));
            tasks.spawn(receive(Arc::clone(&lane), read, frame_bytes));
            started.push(lane);
        }
        Ok(Self { lanes: started, _tasks: tasks })
    }

    /// Sends a frame and waits until it comes back.
    ///
    /// # Errors
    /// When the connection has ended.
    pub(crate) async fn echo(&self, number: usize, frame: &[u8]) -> anyhow::Result<()> {
        let lane = &self.lanes[number % self.lanes.len()];
        let (caller, answer) = oneshot::channel();
        {
            let mut queue = lane.queue.lock().unwrap_or_else(PoisonError::into_inner);
            queue.bytes.extend_from_slice(frame);
            queue.waiting.push_back(caller);
        }
        lane.filled.notify_one();
        answer.await.context("the bare connection has ended")
    }
}

async fn serve(mut socket: TcpStream) {
    let mut buffer = vec![0; READ_BYTES];
    while let Ok(read @ 1..) = socket.read(&mut buffer).await {
        if socket.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

async fn send(lane: Arc<Lane>, mut socket: OwnedWriteHalf) {
    let mut batch = Vec::new();
    loop {
        lane.filled.notified().await;
        std::mem::swap(&mut batch, &mut lane.queue.lock().unwrap_or_else(PoisonError::into_inner).bytes);
        if socket.write_all(&batch).await.is_err() {
            return;
        }
        batch.clear();
    }
}

async fn receive(lane: Arc<Lane>, mut socket: OwnedReadHalf, frame_bytes: usize) {
    let mut buffer = vec![0; READ_BYTES];
    let mut bytes = 0;
    while let Ok(read @ 1..) = socket.read(&mut buffer).await {
        bytes += read;
        let frames = bytes / frame_bytes;
        bytes %= frame_bytes;
        let mut queue = lane.queue.lock().unwrap_or_else(PoisonError::into_inner);
        for caller in queue.waiting.drain(..frames) {
            // A caller whose measured time is over has gone.
            let _ = caller.send(());
        }
    }
}
