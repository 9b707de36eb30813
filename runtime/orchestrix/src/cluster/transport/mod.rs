//! Connections between nodes: calls go out, answers come back, and every call is answered exactly once and truthfully.
//!
//! | file | what |
//! |---|---|
//! | `outbox` ◇ | what waits to be sent on a lane, and who waits for the answers |
//! | `backoff` ◇ | how long a lane waits before it tries to connect again |
//! | `peer` | another node: its lanes, and the way of one call |
//! | `lane` | one connection to a peer, made again when it breaks |
//! | `link` | a connection while it is there: batches out, answers in, signs of life |
//! | `accept` | connections that other nodes make to this one |
//! | `session` | one of those while it is there: calls in, answers out |
//! | `socket` | TCP with or without TLS, and the settings of HTTP/2 |
//! | `codec` | batches as messages of gRPC |
//! | `tls` | certificates, their roles and their renewal |
//!
//! Each lane is one connection with one stream of batches in each direction, so a lane is as parallel as one core. Work
//! for a shard goes by the same lane each time: calls of one caller to one aggregate arrive in the order in which they
//! were sent. `docs/internals/transport.md` has the bounds and what a broken connection means.

mod accept;
mod backoff;
mod codec;
mod lane;
mod link;
mod outbox;
mod peer;
mod session;
mod socket;
mod tls;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use orchestrix_core::Incarnation;
use orchestrix_core::store::BoxFuture;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use super::tls_files::TlsFiles;
pub use peer::{Depth, Peer};
pub use tls::{NODE_ROLE, TlsError};

use self::tls::Tls;
use super::wire::{Call, Hello, Outcome, Registry, VERSION, VERSION_OLDEST};

/// Connections that a node makes to each of its peers. Two, so that two cores can encrypt and encode at once.
pub const LANES: usize = 2;

/// Calls that a node takes on one connection before it has answered one of them. On the connections of one peer that is
/// as many as a node has in flight by default, so one peer may use it, and several are bounded by the node itself.
pub const CALLS_MAX: u32 = 8_192;

/// What a node serves to others.
pub trait Serve: Send + Sync + 'static {
    /// Answers a call. The future is dropped when the caller has given up or the connection has ended; what it has
    /// begun by then is its own business. It is polled first in the order in which calls came in.
    fn serve(&self, from: &Arc<Hello>, call: Call) -> BoxFuture<'static, Outcome>;

    /// A connection to a peer has ended without being asked to: a hint that the peer may be gone.
    fn peer_lost(&self, lost: PeerLost) {
        let PeerLost { incarnation, reason } = lost;
        tracing::debug!(%incarnation, %reason, "the connection to a node was lost");
    }
}

/// A connection to a peer has ended. It is a hint: the peer may be well, and the store says whether it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerLost {
    /// The run at the other end.
    pub incarnation: Incarnation,
    /// What was seen.
    pub reason: String,
}

/// How a node is connected to others.
#[derive(Clone, Debug)]
pub struct TransportOptions {
    /// Where it listens. Port 0 takes a free one; see [`Transport::address`].
    pub listen: SocketAddr,
    /// What it proves itself with; `None` for plain text.
    pub tls: Option<TlsFiles>,
    /// Allows plain text beyond the addresses of this machine, for networks that encrypt by themselves.
    pub plaintext_allowed: bool,
    /// The cluster that it belongs to.
    pub cluster: Box<str>,
    /// Its run.
    pub incarnation: Incarnation,
    /// What people call it.
    pub node: Box<str>,
    /// The version of its application.
    pub application_version: Box<str>,
    /// What it can serve.
    pub registry: Registry,
    /// How many calls it takes on one connection before it has answered one of them, at least 1; [`CALLS_MAX`] unless
    /// there is a reason.
    pub calls_max: u32,
}

impl TransportOptions {
    fn hello(&self) -> Hello {
        Hello {
            version: VERSION,
            version_oldest: VERSION_OLDEST,
            cluster: self.cluster.clone(),
            incarnation: self.incarnation,
            wants: None,
            node: self.node.clone(),
            application_version: self.application_version.clone(),
            calls_max: self.calls_max.max(1),
            registry: self.registry.clone(),
        }
    }
}

/// The transport did not start. Nothing is left open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// The address cannot be listened at. Handling: choose another one.
    #[error("{address} cannot be listened at: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's words.
        source: std::io::Error,
    },
    /// Others could read along. Handling: give certificates, or say that plain text is allowed.
    #[error(
        "{address} is reached from other machines, and no certificates are given; plain text must be allowed by name"
    )]
    PlainText {
        /// The address.
        address: SocketAddr,
    },
    /// The certificates cannot be used. Handling: see the cause.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// What every connection of this node shares.
struct Local {
    /// A node that was deposed goes on as another run.
    hello: Mutex<Hello>,
    calls_max: u32,
    tls: Option<Tls>,
    plaintext_allowed: bool,
    serve: Arc<dyn Serve>,
}

impl Local {
    fn hello(&self) -> Hello {
        self.hello.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// This node's connections to others, and theirs to it.
///
/// Dropped, it ends all of them at once; callers hear what [`shutdown`](Transport::shutdown) says.
pub struct Transport {
    local: Arc<Local>,
    address: SocketAddr,
    peers: Mutex<HashMap<Incarnation, Peer>>,
    stop: CancellationToken,
    accepting: Mutex<Option<JoinHandle<()>>>,
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transport").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Transport {
    /// Listens for other nodes. Must be called inside a tokio runtime, which carries all connections.
    ///
    /// # Errors
    /// [`BindError`]. Nothing is left open.
    ///
    /// # Cancel safety
    /// A dropped call leaves nothing open.
    pub async fn bind(options: TransportOptions, serve: Arc<dyn Serve>) -> Result<Self, BindError> {
        let tls = options.tls.clone().map(Tls::read).transpose()?;
        let address = options.listen;
        if tls.is_none() && !options.plaintext_allowed && !address.ip().is_loopback() {
            return Err(BindError::PlainText { address });
        }
        let listen = |source| BindError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let plaintext_allowed = options.plaintext_allowed;
        let (hello, calls_max) = (Mutex::new(options.hello()), options.calls_max.max(1));
        let local = Arc::new(Local { hello, calls_max, tls, plaintext_allowed, serve });
        let stop = CancellationToken::new();
        let accepting = tokio::spawn(accept::accept(listener, Arc::clone(&local), stop.clone()));
        let (peers, accepting) = (Mutex::default(), Mutex::new(Some(accepting)));
        Ok(Self { local, address, peers, stop, accepting })
    }

    /// Returns where this node listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Goes on as another run of this node, for connections that are made from now on.
    pub fn become_run(&self, incarnation: Incarnation) {
        self.local.hello.lock().unwrap_or_else(PoisonError::into_inner).incarnation = incarnation;
    }

    /// Returns a run of a node, and begins to connect to it if it is new. An address that has changed is a new peer.
    pub fn peer(&self, incarnation: Incarnation, address: &str) -> Peer {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        match peers.get(&incarnation) {
            Some(peer) if peer.address() == address => peer.clone(),
            Some(_) | None => {
                let peer = Peer::new(&self.local, incarnation, address, &self.stop);
                if let Some(old) = peers.insert(incarnation, peer.clone()) {
                    old.close();
                }
                peer
            }
        }
    }

    /// Ends the connections to a run that has left. Callers who wait hear *unknown*, or *not attempted* where their
    /// call was not written.
    pub fn forget(&self, incarnation: Incarnation) {
        let peer = self.peers.lock().unwrap_or_else(PoisonError::into_inner).remove(&incarnation);
        if let Some(peer) = peer {
            peer.close();
        }
    }

    /// Takes no more calls, lets those that came in be answered for as long as `patience`, and ends all connections.
    /// Own callers who still wait hear *unknown*, or *not attempted* where their call was not written.
    ///
    /// # Cancel safety
    /// A dropped call ends connections without waiting.
    pub async fn shutdown(&self, patience: Duration) {
        self.stop.cancel();
        let accepting = self.accepting.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut accepting) = accepting
            && tokio::time::timeout(patience, &mut accepting).await.is_err()
        {
            tracing::warn!("calls of other nodes were still under way when their connections were closed");
            accepting.abort();
        }
    }
}

impl Drop for Transport {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(accepting) = self.accepting.lock().unwrap_or_else(PoisonError::into_inner).take() {
            accepting.abort();
        }
    }
}
