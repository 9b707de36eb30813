//! Connections that other nodes make to this one.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::server::{Grpc, StreamingService};
use tonic::{Request, Response, Status, Streaming};

use super::Local;
use super::codec::{Batches, MESSAGE_BYTES_MAX, PATH};
use super::session::Session;
use super::socket::{self, HEADERS_BYTES_MAX, HTTP2_FRAME_BYTES, WINDOW_BYTES};

/// Connections at once: two for each of 500 peers. Over it the system's own queue holds those that come.
const CONNECTIONS_MAX: usize = 1_024;

/// How long accepting pauses after the system could not give a connection, for instance for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long a connection may be silent on the level of HTTP/2 before it is asked, and then before it is closed. It ends
/// connections that never open a stream.
const SILENCE: Duration = Duration::from_secs(10);

/// Accepts until it is stopped; then it waits until all connections have ended.
pub(super) async fn accept(listener: TcpListener, local: Arc<Local>, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            (accepted, place) = next(&listener, &places) => match accepted {
                Ok((tcp, from)) => {
                    connections.spawn(serve(tcp, from, Arc::clone(&local), stop.clone(), place));
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection of another node could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Waits for a place and then for a connection.
async fn next(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> (std::io::Result<(TcpStream, SocketAddr)>, OwnedSemaphorePermit) {
    let place = Arc::clone(places).acquire_owned().await.expect("the semaphore is never closed");
    (listener.accept().await, place)
}

/// Serves one connection until it ends.
async fn serve(
    tcp: TcpStream,
    from: SocketAddr,
    local: Arc<Local>,
    stop: CancellationToken,
    place: OwnedSemaphorePermit,
) {
    let _place = place;
    let socket = match socket::accept(&local, tcp).await {
        Ok(socket) => socket,
        Err(error) => {
            tracing::warn!(%from, %error, "a connection to the node's port was refused");
            return;
        }
    };
    let lanes = Lanes { local, from, stop: stop.clone() };
    let service = service_fn(move |request| answer(lanes.clone(), request));
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_frame_size(HTTP2_FRAME_BYTES)
        .max_header_list_size(HEADERS_BYTES_MAX)
        .max_send_buf_size(WINDOW_BYTES as usize)
        .max_concurrent_streams(1)
        .keep_alive_interval(SILENCE)
        .keep_alive_timeout(SILENCE)
        .serve_connection(TokioIo::new(socket), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%from, %error, "a connection of another node has ended");
    }
}

async fn answer(lanes: Lanes, request: http::Request<Incoming>) -> Result<http::Response<Body>, Infallible> {
    if request.uri().path() != PATH {
        tracing::warn!(from = %lanes.from, path = request.uri().path(), "something that is no node asks at the node's port");
        return Ok(Status::unimplemented("there is only one method here").into_http());
    }
    let mut grpc = Grpc::new(Batches)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    Ok(grpc.streaming(lanes, request).await)
}

/// Begins the one stream of a connection.
#[derive(Clone)]
struct Lanes {
    local: Arc<Local>,
    from: SocketAddr,
    stop: CancellationToken,
}

impl StreamingService<bytes::Bytes> for Lanes {
    type Response = bytes::Bytes;
    type ResponseStream = Session;
    type Future = std::future::Ready<Result<Response<Session>, Status>>;

    fn call(&mut self, request: Request<Streaming<bytes::Bytes>>) -> Self::Future {
        let session =
            Session::new(Arc::clone(&self.local), self.from, self.stop.clone(), request.into_inner());
        std::future::ready(Ok(Response::new(session)))
    }
}
