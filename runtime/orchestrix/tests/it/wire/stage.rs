//! Two ends of a wire: one that counts what it is asked to do, and one that asks.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use orchestrix::cluster::transport::{CALLS_MAX, Peer, PeerLost, Serve, Transport, TransportOptions};
use orchestrix::cluster::wire::{
    Call, CommandTask, DoneOutcome, Hello, Outcome, Registry, Request, Task, TypeEntry, Work,
};
use orchestrix::core::store::BoxFuture;
use orchestrix::core::{CommandId, Incarnation, Metadata, ShardId, StreamId, Version};
use tokio::sync::watch;

/// Does what the first byte of a command's body says, and counts.
pub struct Ledger {
    /// How often each command took effect.
    effects: Mutex<HashMap<CommandId, u32>>,
    /// Calls in the order in which they came.
    came: Mutex<Vec<Call>>,
    lost: Mutex<Vec<PeerLost>>,
    /// Calls that are held until this is true.
    release: watch::Sender<bool>,
    pub under_way: Arc<AtomicUsize>,
    pub under_way_max: AtomicUsize,
    pub given_up: Arc<AtomicU64>,
}

/// Answers at once with the body.
pub const ECHO: u8 = 0;
/// Answers when the ledger is told to.
pub const HOLD: u8 = 1;
/// Panics.
pub const PANIC: u8 = 2;
/// Answers with more than fits into a frame.
pub const TOO_MUCH: u8 = 3;
/// Takes effect, lets others have a turn, and answers.
pub const YIELD: u8 = 4;

impl Ledger {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            effects: Mutex::default(),
            came: Mutex::default(),
            lost: Mutex::default(),
            release: watch::Sender::new(false),
            under_way: Arc::default(),
            under_way_max: AtomicUsize::new(0),
            given_up: Arc::default(),
        })
    }

    pub fn effects_of(&self, id: CommandId) -> u32 {
        self.effects.lock().expect("not poisoned").get(&id).copied().unwrap_or_default()
    }

    pub fn came(&self) -> Vec<Call> {
        self.came.lock().expect("not poisoned").clone()
    }

    pub fn lost(&self) -> Vec<PeerLost> {
        self.lost.lock().expect("not poisoned").clone()
    }

    pub fn release(&self) {
        self.release.send_replace(true);
    }
}

/// Counts a call that is under way, and one that ends before its answer.
struct UnderWay {
    now: Arc<AtomicUsize>,
    given_up: Arc<AtomicU64>,
    is_done: bool,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.now.fetch_sub(1, Ordering::SeqCst);
        if !self.is_done {
            self.given_up.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Serve for Ledger {
    fn serve(&self, _: &Arc<Hello>, call: Call) -> BoxFuture<'static, Outcome> {
        self.came.lock().expect("not poisoned").push(call.clone());
        let Some(command) = command_of(&call).cloned() else {
            return Box::pin(std::future::ready(done(Vec::new())));
        };
        *self.effects.lock().expect("not poisoned").entry(command.command_id).or_default() += 1;
        let now = self.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        self.under_way_max.fetch_max(now, Ordering::SeqCst);
        let (now, given_up) = (Arc::clone(&self.under_way), Arc::clone(&self.given_up));
        let under_way = UnderWay { now, given_up, is_done: false };
        let mut released = self.release.subscribe();
        Box::pin(async move {
            let mut under_way = under_way;
            match command.body[0] {
                HOLD => _ = released.wait_for(|released| *released).await.expect("the ledger is there"),
                PANIC => panic!("told to panic"),
                YIELD => tokio::time::sleep(Duration::from_micros(command.body[1].into())).await,
                _ => {}
            }
            under_way.is_done = true;
            done(if command.body[0] == TOO_MUCH { vec![0; 17 << 20] } else { command.body })
        })
    }

    fn peer_lost(&self, lost: PeerLost) {
        self.lost.lock().expect("not poisoned").push(lost);
    }
}

pub fn done(body: Vec<u8>) -> Outcome {
    Outcome::Done(DoneOutcome { body, version: Version::new(1), ..DoneOutcome::default() })
}

pub fn command_of(call: &Call) -> Option<&CommandTask> {
    match &call.request {
        Request::Work(Work { task: Task::Command(command), .. }) => Some(command),
        Request::Work(_) | Request::Notice(_) => None,
    }
}

pub const COMMAND: &str = "thing.do";

pub fn registry() -> Registry {
    let mut registry = Registry::default();
    registry.add("thing", TypeEntry { state: 7, commands: [COMMAND.into()].into() });
    registry
}

pub fn options(cluster: &str) -> TransportOptions {
    TransportOptions {
        listen: ([127, 0, 0, 1], 0).into(),
        tls: None,
        plaintext_allowed: false,
        cluster: cluster.into(),
        incarnation: Incarnation::fresh(),
        node: "here".into(),
        application_version: "1".into(),
        registry: registry(),
        calls_max: CALLS_MAX,
    }
}

/// One end of a wire.
pub struct End {
    pub transport: Transport,
    pub ledger: Arc<Ledger>,
    pub incarnation: Incarnation,
}

pub async fn end(options: TransportOptions) -> End {
    let (ledger, incarnation) = (Ledger::new(), options.incarnation);
    let serve: Arc<dyn Serve> = ledger.clone();
    let transport = Transport::bind(options, serve).await.expect("a port is free");
    End { transport, ledger, incarnation }
}

impl End {
    /// Returns the other end as this one reaches it.
    pub fn peer(&self, other: &End) -> Peer {
        self.transport.peer(other.incarnation, &other.transport.address().to_string())
    }
}

/// Two ends of one cluster, and the second as the first one reaches it.
pub async fn two_ends() -> (End, End, Peer) {
    let (here, there) = (end(options("a")).await, end(options("a")).await);
    let peer = here.peer(&there);
    (here, there, peer)
}

/// Makes a call that is patient enough to fail a test rather than to time out.
pub fn call(body: &[u8]) -> Call {
    call_within(body, Duration::from_secs(50))
}

pub fn call_within(body: &[u8], within: Duration) -> Call {
    let task = Task::Command(CommandTask {
        name: COMMAND.into(),
        command_id: CommandId::fresh(),
        fresh: true,
        body: body.to_vec(),
        metadata: Metadata { traceparent: Some("00-aa-bb-01".into()), ..Metadata::default() },
    });
    let (shard, stream) = (ShardId::new(3), StreamId::new("thing", "t-1"));
    Call { within, hops: 2, request: Request::Work(Work { shard, epoch: None, stream, task }) }
}

/// Polls a future once.
pub async fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    std::future::poll_fn(|context| Poll::Ready(Pin::new(&mut *future).poll(context))).await
}

pub fn id_of(call: &Call) -> CommandId {
    command_of(call).expect("it is a command").command_id
}
