//! TCP with or without TLS, and the settings of HTTP/2 on top of it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::Local;

/// How long each step of making a connection may take: TCP, TLS, and then the hello.
pub(super) const STEP_TIMEOUT: Duration = Duration::from_secs(3);

/// Bytes on their way in one direction of a connection, before the other side has taken some. What a network of
/// 10 Gbit/s carries in a millisecond; more only moves a queue into the kernel.
pub(super) const WINDOW_BYTES: u32 = 1 << 20;

/// Bytes of one frame of HTTP/2: large enough that its head costs nothing.
pub(super) const HTTP2_FRAME_BYTES: u32 = 256 << 10;

/// Bytes of headers, of which there are a handful.
pub(super) const HEADERS_BYTES_MAX: u32 = 8 << 10;

/// A connection, encrypted or not.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection, encrypted or not.
pub(super) type Socket = Box<dyn Io>;

/// Why a connection was not made.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    /// Somebody said no: whoever waits need not wait any longer.
    #[error("refused: {0}")]
    Refused(String),
    /// Nobody said anything: it may be a passing fault of the network.
    #[error("no answer: {0}")]
    Silent(String),
}

impl ConnectError {
    fn of(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
                Self::Silent(error.to_string())
            }
            _ => Self::Refused(error.to_string()),
        }
    }
}

/// Connects to another node.
pub(super) async fn connect(local: &Local, address: &str) -> Result<Socket, ConnectError> {
    let tcp = in_time("connecting", tcp(local, address)).await?;
    tcp.set_nodelay(true).map_err(ConnectError::of)?;
    let Some(tls) = &local.tls else { return Ok(Box::new(tcp)) };
    // Names are not looked at, see `tls`; this one is only there because TLS asks for one.
    let name = ServerName::try_from("node.orchestrix.internal").expect("it is a name");
    let connector = TlsConnector::from(tls.configs().client);
    let tls = in_time("the TLS handshake", connector.connect(name, tcp)).await?;
    Ok(Box::new(tls))
}

async fn tcp(local: &Local, address: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in lookup_host(address).await? {
        if local.tls.is_none() && !local.plaintext_allowed && !address.ip().is_loopback() {
            let words = format!("{address} is another machine, and no certificates are given");
            last = io::Error::new(io::ErrorKind::PermissionDenied, words);
            continue;
        }
        match TcpStream::connect(address).await {
            Ok(connected) => return Ok(connected),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn in_time<T>(what: &str, step: impl Future<Output = io::Result<T>>) -> Result<T, ConnectError> {
    match tokio::time::timeout(STEP_TIMEOUT, step).await {
        Ok(done) => done.map_err(ConnectError::of),
        Err(_) => Err(ConnectError::Silent(format!("{what} took longer than {STEP_TIMEOUT:?}"))),
    }
}

/// Makes a connection of another node to this one safe.
pub(super) async fn accept(local: &Arc<Local>, tcp: TcpStream) -> io::Result<Socket> {
    tcp.set_nodelay(true)?;
    let Some(tls) = &local.tls else { return Ok(Box::new(tcp)) };
    let acceptor = TlsAcceptor::from(tls.configs().server);
    match tokio::time::timeout(STEP_TIMEOUT, acceptor.accept(tcp)).await {
        Ok(accepted) => Ok(Box::new(accepted?)),
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the TLS handshake did not end in time")),
    }
}
