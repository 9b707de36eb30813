//! The way to the collector: one POST a batch, on a connection of its own.
//!
//! Batches come every few seconds and carry hundreds of spans, so a kept connection would save nothing worth its code.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderValue};
use hyper_util::rt::TokioIo;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use tokio::net::TcpStream;
use tokio::runtime::Handle;

/// How long one attempt to reach the collector may take: the default of the OTLP specification.
pub(super) const EXPORT_TIME_MAX: Duration = Duration::from_secs(10);

/// How much of an answer is read: it says how many spans were refused and why, which takes some hundred bytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Where spans are posted to. The SDK exports on a thread without a runtime, so requests are carried by the service's.
pub(super) struct Collector {
    handle: Handle,
    endpoint: String,
    /// So that the log has one line when it fails and one when it works again, not one a batch.
    is_failing: AtomicBool,
}

impl Collector {
    pub(super) fn new(endpoint: &str, handle: Handle) -> Self {
        Self { handle, endpoint: endpoint.to_owned(), is_failing: AtomicBool::new(false) }
    }

    fn note(&self, failure: Option<String>) {
        let was_failing = self.is_failing.swap(failure.is_some(), Ordering::Relaxed);
        match failure {
            Some(reason) if !was_failing => {
                tracing::warn!(
                    endpoint = self.endpoint,
                    reason,
                    "traces cannot be exported; they are dropped"
                );
            }
            None if was_failing => tracing::info!(endpoint = self.endpoint, "traces are exported again"),
            Some(_) | None => {}
        }
    }
}

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Collector({})", self.endpoint)
    }
}

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        // The timer is made by the task: this thread has none.
        let sent = self.handle.spawn(async { tokio::time::timeout(EXPORT_TIME_MAX, post(request)).await });
        let answer = match sent.await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(format!("no answer within {EXPORT_TIME_MAX:?}").into()),
            Err(stopped) => Err(stopped.into()),
        };
        self.note(match &answer {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(format!("the collector answered {}", answer.status())),
            Err(error) => Some(error.to_string()),
        });
        answer
    }
}

async fn post(request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let request = addressed(request)?;
    let (host, port) = (request.uri().host().unwrap_or_default(), request.uri().port_u16().unwrap_or(80));
    // The brackets of an IPv6 address belong to the URL.
    let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async {
        let (mut parts, body) = request.into_parts();
        parts.uri = parts.uri.path().parse()?;
        let answer = sender.send_request(Request::from_parts(parts, Full::new(body))).await?;
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await?;
        Ok(Response::from_parts(parts, body.to_bytes()))
    };
    tokio::pin!(connection, exchange);
    // The connection moves only while it is polled. When it ends first, the exchange knows why.
    tokio::select! {
        answer = &mut exchange => answer,
        _ = &mut connection => exchange.await,
    }
}

/// Adds the header that HTTP/1.1 demands.
fn addressed(mut request: Request<Bytes>) -> Result<Request<Bytes>, HttpError> {
    let authority = request.uri().authority().ok_or("the collector's address has no host")?;
    let host = HeaderValue::from_str(authority.as_str())?;
    request.headers_mut().insert(HOST, host);
    Ok(request)
}
