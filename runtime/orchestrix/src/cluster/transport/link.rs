//! A connection to a peer while it is there: batches go out, answers come in, and silence is noticed.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use http::uri::{PathAndQuery, Uri};
use hyper::client::conn::http2;
use hyper::rt::Executor;
use hyper_util::rt::TokioIo;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::{Request, Status, Streaming};

use super::codec::{Batches, MESSAGE_BYTES_MAX, PATH};
use super::lane::{Caller, Lane, Next, tell};
use super::socket::{self, ConnectError, HEADERS_BYTES_MAX, HTTP2_FRAME_BYTES, STEP_TIMEOUT, WINDOW_BYTES};
use crate::cluster::wire::{self, Frame, Frames, Hello, Outcome};

/// How often silence is looked for, and how long one lasts before a sign of life is asked for.
const PING_PAUSE: Duration = Duration::from_millis(500);

/// How long a silence lasts before the peer counts as lost. It is noticed at the next look, so a peer that has stopped
/// is given up after 2.5 s at the latest, and one whose process has ended at once.
const SILENCE_MAX: Duration = Duration::from_secs(2);

/// A connection on which both sides have said who they are.
pub(super) struct Link {
    pub(super) hello: Arc<Hello>,
    inbound: Streaming<Bytes>,
    answers: Vec<(u64, Outcome)>,
    callers: Vec<(Caller, Outcome)>,
    /// HTTP/2 closes a connection when nobody can ask on it any more.
    _requests: http2::SendRequest<Body>,
    /// Ends the tasks that carry the connection, so that one on which nothing moves does not live on.
    _carried: DropGuard,
}

/// Runs the tasks of a connection until it is given up.
#[derive(Clone)]
struct Carrier(CancellationToken);

impl<F> Executor<F> for Carrier
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, task: F) {
        let given_up = self.0.clone();
        tokio::spawn(async move { given_up.run_until_cancelled(task).await });
    }
}

/// Makes a connection, and exchanges hellos on it.
pub(super) async fn connect(lane: &Arc<Lane>) -> Result<Link, ConnectError> {
    let connection = lane.begin();
    let socket = socket::connect(&lane.local, &lane.address).await?;
    match tokio::time::timeout(STEP_TIMEOUT, greet(lane, connection, socket)).await {
        Ok(greeted) => greeted.map_err(ConnectError::Refused),
        Err(_) => Err(ConnectError::Silent(format!("no hello came within {STEP_TIMEOUT:?}"))),
    }
}

async fn greet(lane: &Arc<Lane>, connection: u64, socket: socket::Socket) -> Result<Link, String> {
    let carrier = Carrier(CancellationToken::new());
    let guard = carrier.0.clone().drop_guard();
    let (requests, connected) = http2::Builder::new(carrier.clone())
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_frame_size(HTTP2_FRAME_BYTES)
        .max_header_list_size(HEADERS_BYTES_MAX)
        .max_send_buf_size(WINDOW_BYTES as usize)
        .handshake(TokioIo::new(socket))
        .await
        .map_err(|error| words(&error))?;
    // How a connection ended is told by its stream.
    carrier.execute(connected);
    let ours = Hello { wants: Some(lane.incarnation), ..lane.local.hello() };
    let outgoing = Outgoing { lane: Arc::clone(lane), connection, hello: Some(first(&ours)?) };
    let mut inbound = open(Requests(requests.clone()), outgoing).await.map_err(|status| words(&status))?;
    let hello = read_hello(inbound.message().await.map_err(|status| words(&status))?)?;
    ours.check(&hello).map_err(|why| why.to_string())?;
    if hello.incarnation != lane.incarnation {
        return Err(format!("the run {} answers there", hello.incarnation));
    }
    let (hello, answers, callers) = (Arc::new(hello), Vec::new(), Vec::new());
    Ok(Link { hello, inbound, answers, callers, _requests: requests, _carried: guard })
}

/// Says an error with its causes.
fn words(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        words = format!("{words}: {error}");
        cause = error.source();
    }
    words
}

fn first(hello: &Hello) -> Result<Bytes, String> {
    let mut batch = BytesMut::new();
    wire::put_hello(&mut batch, hello).map_err(|error| error.to_string())?;
    Ok(batch.freeze())
}

async fn open(requests: Requests, outgoing: Outgoing) -> Result<Streaming<Bytes>, Status> {
    let mut grpc = Grpc::with_origin(requests, Uri::from_static("http://node"))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let (request, path) = (Request::new(outgoing), PathAndQuery::from_static(PATH));
    Ok(grpc.streaming(request, path, Batches).await?.into_inner())
}

fn read_hello(first: Option<Bytes>) -> Result<Hello, String> {
    let batch = first.ok_or("it closed the connection without a hello")?;
    match Frames::of(batch).map_err(|error| error.to_string())?.next() {
        Some(Ok(Frame::Hello(hello))) => Ok(*hello),
        Some(Ok(Frame::Unwelcome(why))) => Err(why.to_string()),
        Some(Ok(_)) | None => Err("its first frame is no hello".to_owned()),
        Some(Err(error)) => Err(error.to_string()),
    }
}

impl Link {
    /// Takes answers in until the connection ends, and returns why it did.
    pub(super) async fn run(mut self, lane: &Lane) -> String {
        let mut look = tokio::time::interval(PING_PAUSE);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        loop {
            tokio::select! {
                biased;
                batch = self.inbound.message() => {
                    heard = Instant::now();
                    if let Err(reason) = self.take_in(batch, lane) {
                        return reason;
                    }
                }
                _ = look.tick() => {
                    match heard.elapsed() {
                        silence if silence >= SILENCE_MAX => return format!("no sign of life for {SILENCE_MAX:?}"),
                        silence if silence >= PING_PAUSE => lane.ping(0),
                        _ => {}
                    }
                }
            }
        }
    }

    fn take_in(&mut self, batch: Result<Option<Bytes>, Status>, lane: &Lane) -> Result<(), String> {
        let batch = batch.map_err(|status| words(&status))?.ok_or("the other node ended the connection")?;
        let read = self.read(batch);
        // What was read before a frame that cannot be read is answered.
        lane.answered(&mut self.answers, &mut self.callers);
        for (caller, outcome) in self.callers.drain(..) {
            tell(caller, outcome);
        }
        read
    }

    fn read(&mut self, batch: Bytes) -> Result<(), String> {
        for frame in Frames::of(batch).map_err(|error| error.to_string())? {
            match frame.map_err(|error| error.to_string())? {
                Frame::Answer { id, outcome } => self.answers.push((id, outcome)),
                Frame::Pong { .. } => {}
                Frame::Unwelcome(why) => return Err(why.to_string()),
                Frame::Hello(_) | Frame::Call { .. } | Frame::Cancel { .. } | Frame::Ping { .. } => {
                    return Err("the other node sent a frame that only a caller sends".to_owned());
                }
            }
        }
        Ok(())
    }
}

/// Batches on their way out: whatever has queued while the last one was being written.
struct Outgoing {
    lane: Arc<Lane>,
    connection: u64,
    hello: Option<Bytes>,
}

impl Stream for Outgoing {
    type Item = Bytes;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let Some(hello) = self.hello.take() {
            return Poll::Ready(Some(hello));
        }
        match self.lane.next(self.connection, context.waker()) {
            Next::Batch(batch) => Poll::Ready(Some(batch)),
            Next::Nothing => Poll::Pending,
            Next::Ended => Poll::Ready(None),
        }
    }
}

/// hyper's connection as the service that tonic expects.
struct Requests(http2::SendRequest<Body>);

impl tower_service::Service<http::Request<Body>> for Requests {
    type Response = http::Response<hyper::body::Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}
