//! A relay between two ends that cuts, holds up and refuses connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

#[derive(Clone, Copy, Default)]
struct Switches {
    cuts: u64,
    refuses: bool,
    holds: bool,
}

pub struct Relay {
    pub address: SocketAddr,
    switches: watch::Sender<Switches>,
    connections: Arc<AtomicU64>,
    bytes: Arc<AtomicU64>,
}

impl Relay {
    pub async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let switches = watch::Sender::new(Switches::default());
        let (connections, bytes) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (watched, count, sum) = (switches.subscribe(), Arc::clone(&connections), Arc::clone(&bytes));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Switches { cuts, refuses, .. } = *watched.borrow();
                if refuses {
                    continue;
                }
                // Counted after it was seen how many cuts there were: a cut after that hits it.
                count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(carry(client, server, cuts, watched.clone(), Arc::clone(&sum)));
            }
        });
        Self { address, switches, connections, bytes }
    }

    /// Cuts what is connected now.
    pub fn cut(&self) {
        self.switches.send_modify(|switches| switches.cuts += 1);
    }

    /// Closes every new connection at once.
    pub fn refuse(&self, on: bool) {
        self.switches.send_modify(|switches| switches.refuses = on);
    }

    /// Passes nothing on, in either direction, and says nothing.
    pub fn hold(&self, on: bool) {
        self.switches.send_modify(|switches| switches.holds = on);
    }

    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::SeqCst)
    }

    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::SeqCst)
    }
}

async fn carry(
    client: TcpStream,
    server: SocketAddr,
    cuts: u64,
    switches: watch::Receiver<Switches>,
    sum: Arc<AtomicU64>,
) {
    let Ok(server) = TcpStream::connect(server).await else { return };
    let mut watched = switches.clone();
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    tokio::select! {
        () = pump(from_client, to_server, switches.clone(), &sum) => {}
        () = pump(from_server, to_client, switches, &sum) => {}
        _ = watched.wait_for(|switches| switches.cuts > cuts) => {}
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut switches: watch::Receiver<Switches>,
    sum: &AtomicU64,
) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if switches.wait_for(|switches| !switches.holds).await.is_err() {
            return;
        }
        sum.fetch_add(read as u64, Ordering::SeqCst);
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
