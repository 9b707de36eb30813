//! A proxy between a node and its PostgreSQL that cuts, delays and loses what passes through it, exactly where a test
//! asks for it.
//!
//! It knows where a request ends and which statement it executes, so that a [`Cut`] hits one step of one statement and
//! not a moment that might mean anything. Sessions must not be encrypted (`sslmode=disable`).

mod link;
mod trap;
mod wire;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

pub use trap::{Answer, Armed, At, Cut};

use link::Link;
use trap::{Stage, Trap};

/// What holds for all connections.
#[derive(Clone, Copy, Debug, Default)]
struct Switches {
    /// Grows with each cut of everything.
    cuts: u64,
    stalled: bool,
    refusing: bool,
}

/// What the proxy and its connections share.
#[derive(Debug)]
struct Shared {
    traps: Mutex<Vec<Trap>>,
    switches: watch::Sender<Switches>,
    /// Grows with each release of what is held.
    releases: watch::Sender<u64>,
    connections: AtomicU64,
}

/// A proxy on the loopback address. It ends with this value, and so do its connections.
///
/// ```
/// use orchestrix_testkit::proxy::{At, Cut, Proxy};
///
/// # async fn example(server: std::net::SocketAddr) -> std::io::Result<()> {
/// let proxy = Proxy::start(server).await?;
/// let lost = proxy.set(At::Statement("orchestrix.append"), Cut::SwallowAnswer);
/// // ... append something through `proxy.address()` ...
/// lost.sprung().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: AbortHandle,
}

impl Proxy {
    /// Starts a proxy to a server, on a port that is free. The calling runtime carries it.
    ///
    /// # Errors
    /// When no port can be listened on.
    ///
    /// # Cancel safety
    /// Nothing was started when it is dropped.
    pub async fn start(server: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            traps: Mutex::default(),
            switches: watch::Sender::default(),
            releases: watch::Sender::default(),
            connections: AtomicU64::new(0),
        });
        let accepting = tokio::spawn(accept(listener, server, Arc::clone(&shared))).abort_handle();
        Ok(Self { address, shared, accepting })
    }

    /// Returns where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns how many connections came so far.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Sets a trap, which springs once. Of several for one place, the first one springs first.
    pub fn set(&self, at: At, cut: Cut) -> Armed {
        let (stage, armed) = watch::channel(Stage::Armed);
        self.shared.traps().push(Trap { at, cut, stage, releases: 0 });
        Armed { stage: armed }
    }

    /// Takes away every trap that has not sprung.
    pub fn disarm(&self) {
        self.shared.traps().clear();
    }

    /// Cuts every connection now.
    pub fn cut_all(&self) {
        self.shared.switches.send_modify(|switches| switches.cuts += 1);
    }

    /// Passes nothing on any more, either way, without a cut; what is said meanwhile is delivered later.
    pub fn stall(&self) {
        self.shared.switches.send_modify(|switches| switches.stalled = true);
    }

    /// Passes everything on again.
    pub fn resume(&self) {
        self.shared.switches.send_modify(|switches| switches.stalled = false);
    }

    /// Sets whether new connections are ended at once.
    pub fn refuse(&self, on: bool) {
        self.shared.switches.send_modify(|switches| switches.refusing = on);
    }

    /// Lets go of everything that traps hold or delay now.
    pub fn release(&self) {
        self.shared.releases.send_modify(|releases| *releases += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut_all();
    }
}

impl Shared {
    fn traps(&self) -> std::sync::MutexGuard<'_, Vec<Trap>> {
        self.traps.lock().expect("nothing panics under this lock")
    }

    /// Takes the trap that springs at a place, if there is one.
    fn spring(&self, place: At, text: &str) -> Option<Trap> {
        let mut traps = self.traps();
        let found = traps.iter().position(|trap| match (trap.at, place) {
            (At::Connect, At::Connect) => true,
            (At::Statement(part), At::Statement(_)) => text.contains(part),
            _ => false,
        });
        let mut trap = traps.remove(found?);
        trap.spring(*self.releases.borrow());
        Some(trap)
    }

    async fn until_released(&self, trap: &Trap) {
        let mut releases = self.releases.subscribe();
        // The sender lives in here.
        let _ = releases.wait_for(|now| *now != trap.releases).await;
    }
}

async fn accept(listener: TcpListener, server: SocketAddr, shared: Arc<Shared>) {
    // A listener that fails has none left to serve.
    while let Ok((client, _)) = listener.accept().await {
        shared.connections.fetch_add(1, Ordering::Relaxed);
        if shared.switches.borrow().refusing {
            continue;
        }
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            // A server that is away looks to the client like one that hangs up; so does every failure on the way.
            if let Ok(server) = TcpStream::connect(server).await {
                let _ = Link::new(shared, client, server).run().await;
            }
        });
    }
}
