//! `loadtest wire`: calls between two nodes on loopback, without aggregates, against a bare echo over TCP.
//!
//! Both echo the same bytes over as many connections, and both let batches gather while the last one is written. What
//! is between them is what frames, credits, deadlines, HTTP/2 and the answers' way to their callers cost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use orchestrix::cluster::transport::{CALLS_MAX, LANES, Peer, Serve, Transport, TransportOptions};
use orchestrix::cluster::wire::{
    Call, CommandTask, DoneOutcome, Hello, Outcome, Registry, Request, Task, TypeEntry, Work,
};
use orchestrix::core::store::BoxFuture;
use orchestrix::core::{CommandId, Incarnation, Metadata, ShardId, StreamId};
use serde_json::json;
use tokio::task::JoinSet;

use crate::cli::{Common, WireArgs};
use crate::histogram::{Latencies, median};
use crate::limit::BareEcho;
use crate::report::{Chart, Report, Section, per_second, ratio};

/// Bytes of a call and its answer besides the payload, about: what the bare echo sends as well.
const HEAD_BYTES: usize = 80;

/// How long the connections may take to come about.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// What one part came to.
struct Part {
    per_s: f64,
    p50_us: f64,
    p99_us: f64,
}

/// Measures both, interleaved, and reports the medians and their ratio.
///
/// # Errors
/// When loopback gives no connection, or a call is not answered.
pub(super) async fn wire(common: &Common, args: &WireArgs) -> anyhow::Result<Report> {
    let (mut calls, mut bare) = (Vec::new(), Vec::new());
    for round in 0..args.rounds.rounds {
        let bare_first = round % 2 == 1;
        for is_bare in [bare_first, !bare_first] {
            if is_bare {
                bare.push(measure_bare(common, args).await?);
            } else {
                calls.push(measure_calls(common, args).await?);
            }
        }
    }
    Ok(report(common, args, &calls, &bare))
}

/// Answers each command with its body.
struct EchoCommands;

impl Serve for EchoCommands {
    fn serve(&self, _: &Arc<Hello>, call: Call) -> BoxFuture<'static, Outcome> {
        let body = match call.request {
            Request::Work(Work { task: Task::Command(command), .. }) => command.body,
            Request::Work(_) | Request::Notice(_) => Vec::new(),
        };
        Box::pin(std::future::ready(Outcome::Done(DoneOutcome { body, ..DoneOutcome::default() })))
    }
}

async fn transport() -> anyhow::Result<(Transport, Incarnation)> {
    let mut registry = Registry::default();
    registry.add("echo", TypeEntry { state: 0, commands: ["echo.say".into()].into() });
    let incarnation = Incarnation::fresh();
    let options = TransportOptions {
        listen: ([127, 0, 0, 1], 0).into(),
        tls: None,
        plaintext_allowed: false,
        cluster: "loadtest".into(),
        incarnation,
        node: "loadtest".into(),
        application_version: "".into(),
        registry,
        calls_max: CALLS_MAX,
    };
    Ok((Transport::bind(options, Arc::new(EchoCommands)).await?, incarnation))
}

async fn measure_calls(common: &Common, args: &WireArgs) -> anyhow::Result<Part> {
    let ((here, _), (there, incarnation)) = (transport().await?, transport().await?);
    let peer = here.peer(incarnation, &there.address().to_string());
    tokio::time::timeout(CONNECT_MAX, call(&peer, 0, &[])).await.context("no connection came about")??;
    let payload: Arc<[u8]> = vec![7; common.payload].into();
    drive(args, move |number| {
        let (peer, payload) = (peer.clone(), Arc::clone(&payload));
        async move { call(&peer, number, &payload).await }
    })
    .await
}

async fn call(peer: &Peer, number: usize, payload: &[u8]) -> anyhow::Result<()> {
    let task = Task::Command(CommandTask {
        name: "echo.say".into(),
        command_id: CommandId::fresh(),
        fresh: true,
        body: payload.to_vec(),
        metadata: Metadata::default(),
    });
    let (shard, stream) = (ShardId::new(number as u32), StreamId::new("echo", "e-1"));
    let request = Request::Work(Work { shard, epoch: None, stream, task });
    let outcome = peer.call(Call { within: Duration::from_secs(30), hops: 0, request }).await;
    ensure!(matches!(outcome, Outcome::Done(_)), "a call was not answered: {outcome:?}");
    Ok(())
}

async fn measure_bare(common: &Common, args: &WireArgs) -> anyhow::Result<Part> {
    let frame: Arc<[u8]> = vec![7; common.payload + HEAD_BYTES].into();
    let echo = Arc::new(BareEcho::start(LANES, frame.len()).await?);
    drive(args, move |number| {
        let (echo, frame) = (Arc::clone(&echo), Arc::clone(&frame));
        async move { echo.echo(number, &frame).await }
    })
    .await
}

/// Has callers ask again and again until the time is over.
async fn drive<F>(args: &WireArgs, ask: impl Fn(usize) -> F + Clone + Send + 'static) -> anyhow::Result<Part>
where
    F: Future<Output = anyhow::Result<()>> + Send,
{
    let started = Instant::now();
    let until = started + args.duration;
    let (mut running, callers) = (JoinSet::new(), args.callers);
    for number in 0..callers {
        let ask = ask.clone();
        running.spawn(async move {
            let mut latencies = Latencies::new(callers);
            let mut asked = 0_u64;
            while Instant::now() < until {
                let begun = Instant::now();
                ask(number).await?;
                latencies.record(begun.elapsed());
                asked += 1;
            }
            anyhow::Ok((latencies, asked))
        });
    }
    let (mut latencies, mut asked) = (Latencies::new(callers), 0);
    while let Some(caller) = running.join_next().await {
        let (own, count) = caller.context("a caller panicked")??;
        latencies.merge(&own);
        asked += count;
    }
    let per_s = asked as f64 / started.elapsed().as_secs_f64();
    Ok(Part { per_s, p50_us: latencies.quantile_us(0.5), p99_us: latencies.quantile_us(0.99) })
}

fn report(common: &Common, args: &WireArgs, calls: &[Part], bare: &[Part]) -> Report {
    let middle = |parts: &[Part]| {
        let of = |value: fn(&Part) -> f64| median(parts.iter().map(value)).unwrap_or_default();
        Part { per_s: of(|part| part.per_s), p50_us: of(|part| part.p50_us), p99_us: of(|part| part.p99_us) }
    };
    let (calls, bare) = (middle(calls), middle(bare));
    let latency = |part: &Part| format!("{:.0} µs, {:.0} µs", part.p50_us, part.p99_us);
    let section = Section::new("Medians")
        .noted("calls", per_second(calls.per_s), format!("{} callers, {LANES} connections", args.callers))
        .noted("bare echo", per_second(bare.per_s), "as many bytes over TCP, batches alike")
        .noted("calls to bare echo", ratio(calls.per_s / bare.per_s), "1 is what the machine can do")
        .noted("p50, p99 of calls", latency(&calls), "")
        .noted("p50, p99 of the bare echo", latency(&bare), "");
    let json =
        |part: &Part| json!({ "requests_per_s": part.per_s, "p50_us": part.p50_us, "p99_us": part.p99_us });
    Report::new("loadtest wire")
        .section(section)
        .chart(Chart::Bars {
            title: "Requests per second, medians".into(),
            bars: vec![("calls".into(), calls.per_s), ("bare echo".into(), bare.per_s)],
        })
        .key("calls", json(&calls))
        .key("bare", json(&bare))
        .key("ratio", json!({ "to_bare": calls.per_s / bare.per_s }))
        .key(
            "settings",
            json!({
                "callers": args.callers,
                "payload_bytes": common.payload,
                "duration_s": args.duration.as_secs_f64(),
                "rounds": args.rounds.rounds,
                "workers": crate::workers(common),
            }),
        )
}
