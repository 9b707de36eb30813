//! Traces of the bank as a process, as a collector of OpenTelemetry gets them.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use rustix::process::Signal;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use crate::process::{connect, exit_code, signal, started_as};
use crate::wire::{Reply, read_reply};

/// What reached the collector.
#[derive(Clone, Default)]
struct Collected(Arc<Mutex<Vec<ExportTraceServiceRequest>>>);

/// Starts a collector; `status` is what it answers.
async fn collector(status: StatusCode) -> (Collected, String) {
    let collected = Collected::default();
    let take = async move |State(collected): State<Collected>, body: Bytes| {
        let request = ExportTraceServiceRequest::decode(body).expect("OTLP in protobuf");
        collected.0.lock().expect("nothing panics under this lock").push(request);
        status
    };
    let routes = Router::new().route("/v1/traces", post(take)).with_state(collected.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, routes).await.expect("it serves") });
    (collected, address)
}

impl Collected {
    /// Returns every span, after a look at who sent them.
    fn spans(&self) -> Vec<Span> {
        let requests = self.0.lock().expect("nothing panics under this lock");
        let resources = requests.iter().flat_map(|request| &request.resource_spans);
        let spans = resources.flat_map(|of| {
            let resource = of.resource.as_ref().expect("a resource");
            assert_eq!(text(&resource.attributes, "service.name"), "bank");
            of.scope_spans.iter().flat_map(|scope| scope.spans.clone())
        });
        spans.collect()
    }
}

fn text(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|one| one.key == key).and_then(|one| one.value.as_ref());
    match found.and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        other => panic!("{key} is {other:?} in {attributes:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// Sends one request to a bank.
async fn send(address: &str, head: &str, body: &str) -> Reply {
    let mut stream = connect(address).await;
    let length = body.len();
    let kind = "Host: bank\r\nContent-Type: application/json";
    let request = format!("{head}\r\n{kind}\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).await.expect("it is taken");
    read_reply(&mut stream).await.expect("an answer")
}

async fn open(address: &str) {
    let body = r#"{"account_id":"a","owner":"Ada","currency":"EUR"}"#;
    assert_eq!(send(address, "POST /accounts HTTP/1.1", body).await.status, 201);
}

async fn deposit_in(address: &str, traceparent: &str) {
    let head = format!("POST /accounts/a/deposit HTTP/1.1\r\ntraceparent: {traceparent}");
    assert_eq!(send(address, &head, r#"{"amount":1}"#).await.status, 200);
}

fn variables(collector: &str) -> [(&str, &str); 3] {
    [
        ("EVENT_STORE_TYPE", "inmemory"),
        ("TRACING_ENABLED", "true"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector),
    ]
}

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";
const UNSAMPLED: &str = "00-1bf7651916cd43dd8448eb211c80319c-c7ad6b7169203331-00";

#[tokio::test]
async fn a_command_is_a_span_of_its_caller_s_trace() {
    let (collected, collector) = collector(StatusCode::OK).await;
    let (mut bank, address, _) = started_as(&variables(&collector)).await;
    open(&address).await;
    for _ in 0..20 {
        deposit_in(&address, &format!("00-{TRACE}-{CALLER}-01")).await;
    }
    deposit_in(&address, UNSAMPLED).await;
    let events = send(&address, "GET /accounts/a/events HTTP/1.1", "").await.body;
    signal(&bank, Signal::TERM);
    assert_eq!(exit_code(&mut bank).await, Some(0));

    let spans = collected.spans();
    let named = |name: &str| spans.iter().filter(|span| span.name == name).cloned().collect::<Vec<_>>();
    let (requests, commands) = (named("POST /accounts/{id}/deposit"), named("command"));
    assert_eq!((requests.len(), commands.len()), (20, 21), "each once, and none that its caller excludes");
    for request in &requests {
        assert_eq!((hex(&request.trace_id), hex(&request.parent_span_id)), (TRACE.into(), CALLER.into()));
        assert_eq!(text(&request.attributes, "http.response.status_code"), "200");
        let of_request = commands.iter().filter(|command| command.parent_span_id == request.span_id);
        let [command] = of_request.collect::<Vec<_>>()[..] else {
            panic!("one command a request: {commands:?}")
        };
        assert_eq!(hex(&command.trace_id), TRACE);
        assert_eq!(text(&command.attributes, "aggregate"), "account");
        assert_eq!(text(&command.attributes, "id"), "a");
        assert!(!text(&command.attributes, "command_id").is_empty());
        // What is stored leads to the request's span.
        assert!(events.contains(&format!("00-{TRACE}-{}-01", hex(&request.span_id))), "{events}");
    }
    let [opened] = &named("POST /accounts")[..] else { panic!("one account was opened: {spans:?}") };
    assert!(opened.parent_span_id.is_empty(), "it begins a trace of its own");
    assert!(commands.iter().any(|command| command.parent_span_id == opened.span_id));
}

#[tokio::test]
async fn a_collector_that_is_not_there_or_refuses_disturbs_nobody() {
    let (refused, refusing) = collector(StatusCode::BAD_REQUEST).await;
    let closed = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let absent = format!("http://{}", closed.local_addr().expect("an address"));
    drop(closed);
    for collector in [&absent, &refusing] {
        let variables = variables(collector);
        // Batches of one, so that there are many failures to be silent about.
        let small = [("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1"), ("OTEL_BSP_SCHEDULE_DELAY", "1")];
        let (mut bank, address, log) = started_as(&[&variables[..], &small].concat()).await;
        open(&address).await;
        for _ in 0..20 {
            deposit_in(&address, &format!("00-{TRACE}-{CALLER}-01")).await;
        }
        signal(&bank, Signal::TERM);
        assert_eq!(exit_code(&mut bank).await, Some(0));
        let log = log.await.expect("the log is read");
        assert_eq!(log.matches("traces cannot be exported").count(), 1, "{log}");
    }
    assert!(!refused.spans().is_empty(), "it was asked");
}

#[tokio::test]
async fn an_address_of_jaeger_is_taken_with_a_warning() {
    let variables = [
        ("EVENT_STORE_TYPE", "inmemory"),
        ("TRACING_ENABLED", "true"),
        ("JAEGER_ENDPOINT", "http://127.0.0.1:14268/api/traces"),
        ("OTEL_TRACES_SAMPLER", "always_off"),
    ];
    let (mut bank, address, log) = started_as(&variables).await;
    open(&address).await;
    signal(&bank, Signal::TERM);
    assert_eq!(exit_code(&mut bank).await, Some(0));
    let log = log.await.expect("the log is read");
    assert!(log.contains("JAEGER_ENDPOINT is an old name"), "{log}");
    assert!(log.contains("set OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318"), "{log}");
}
