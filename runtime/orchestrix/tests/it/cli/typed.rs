//! An application's command line: `show` and `rebuild-snapshots` with its types, and serving.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use orchestrix::StartError;
use orchestrix::cli::Cli;
use orchestrix::config::{Config, ConfigError};
use serde_json::Value;

use super::Place;
use crate::counter::{Add, Counter, counter};

/// A page that a command prints on.
#[derive(Clone, Default)]
struct Page(Arc<Mutex<Vec<u8>>>);

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("nobody panicked").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Runs a command of the application; serving is not asked for here.
async fn run(place: &Place, args: &[&str]) -> (ExitCode, String) {
    let page = Page::default();
    let args = std::iter::once("counters").chain(args.iter().copied()).map(OsString::from);
    let serve = |_: Config| async { Err::<(), _>(StartError::NoStore) };
    let cli = Cli::new("counters").aggregate::<Counter>().config(place.config());
    let code = cli.run_to(args, serve, Box::new(page.clone())).await;
    let text = page.0.lock().expect("nobody panicked").clone();
    (code, String::from_utf8(text).expect("UTF-8"))
}

async fn json(place: &Place, args: &[&str]) -> Value {
    let (code, text) = run(place, &[args, &["--json"]].concat()).await;
    assert_eq!(code, ExitCode::SUCCESS, "{text}");
    serde_json::from_str(&text).expect("JSON")
}

#[tokio::test]
async fn show_tells_the_state_now_and_then() {
    let place = Place::filled().await;
    let now = json(&place, &["show", "counter", "one"]).await;
    assert_eq!((&now["version"], &now["state"]["total"]), (&12.into(), &78.into()));
    let then = json(&place, &["show", "counter", "one", "--at-version", "3"]).await;
    assert_eq!((&then["version"], &then["state"]["total"]), (&3.into(), &6.into()));
    let later = json(&place, &["show", "counter", "one", "--at-time", "2200-01-01T00:00:00Z"]).await;
    assert_eq!(later, now);
}

#[tokio::test]
async fn show_says_what_is_wrong_with_the_question() {
    let place = Place::filled().await;
    for (args, code) in [
        (&["show", "account", "one"][..], 2),
        (&["show", "counter", "three"], 1),
        (&["show", "counter", "one", "--at-version", "13"], 1),
        (&["show", "counter", "one", "--at-version", "0"], 2),
        (&["show", "counter", "one", "--at-time", "yesterday"], 2),
        (&["show", "counter", "one", "--at-time", "1999-01-01T00:00:00Z"], 1),
    ] {
        assert_eq!(run(&place, args).await.0, ExitCode::from(code), "{args:?}");
    }
}

#[tokio::test]
async fn a_rebuilt_snapshot_is_used_and_knows_the_commands_before_it() {
    let place = Place::new();
    let node = place.node().await;
    let id = orchestrix::core::CommandId::fresh();
    let one = node.of::<Counter>(counter("one"));
    one.send(Add::new(5)).id(id).await.expect("done");
    node.shutdown().await;
    let report = json(&place, &["rebuild-snapshots"]).await;
    assert_eq!((&report["aggregates"], &report["written"]), (&1.into(), &1.into()));
    assert_eq!(json(&place, &["stats"]).await["snapshots"], 1);
    let node = place.node().await;
    let again = node.of::<Counter>(counter("one")).send(Add::new(5)).id(id).receipt().await.expect("done");
    assert!(again.duplicate && again.reply == 5);
    node.shutdown().await;
}

#[tokio::test]
async fn a_damaged_snapshot_is_found_and_mended() {
    let place = Place::filled().await;
    json(&place, &["rebuild-snapshots"]).await;
    let sound = json(&place, &["rebuild-snapshots", "--verify"]).await;
    assert_eq!((&sound["same"], &sound["written"]), (&2.into(), &0.into()));
    place.damage("UPDATE snapshots SET bytes = x'00' WHERE id = 'one'").await;
    let (code, text) = run(&place, &["rebuild-snapshots", "--verify"]).await;
    assert_eq!(code, ExitCode::from(1));
    assert!(text.contains("counter/one: the snapshot is not right: it has no snapshot header"), "{text}");
    let mended = json(&place, &["rebuild-snapshots", "--type", "counter", "--id", "one"]).await;
    assert_eq!(mended["written"], 1);
    assert_eq!(json(&place, &["rebuild-snapshots", "--verify"]).await["same"], 2);
}

#[tokio::test]
async fn a_snapshot_ahead_of_its_stream_is_found_and_replaced() {
    let place = Place::filled().await;
    json(&place, &["rebuild-snapshots"]).await;
    place.damage("UPDATE snapshots SET version = 99 WHERE id = 'one'").await;
    let (code, text) = run(&place, &["rebuild-snapshots", "--verify"]).await;
    assert_eq!(code, ExitCode::from(1));
    assert!(text.contains("it is of version 99, the stream is at 12"), "{text}");
    json(&place, &["rebuild-snapshots"]).await;
    assert_eq!(json(&place, &["rebuild-snapshots", "--verify"]).await["same"], 2);
}

#[tokio::test]
async fn snapshots_are_compared_beside_a_service_and_rebuilt_without_it() {
    let place = Place::filled().await;
    let node = place.node().await;
    json(&place, &["rebuild-snapshots", "--verify"]).await;
    let (code, _) = run(&place, &["rebuild-snapshots"]).await;
    assert_eq!(code, ExitCode::from(3), "the service holds the database");
    node.shutdown().await;
}

#[tokio::test]
async fn without_a_command_the_service_runs_and_its_end_is_the_exit_code() {
    let place = Place::new();
    let serve = |served: Result<(), StartError>, args: &'static [&'static str]| {
        let cli = Cli::new("counters").config(place.config());
        let args: Vec<OsString> = args.iter().map(OsString::from).collect();
        cli.run(args, |_| async { served })
    };
    assert_eq!(serve(Ok(()), &["counters"]).await, ExitCode::SUCCESS);
    assert_eq!(serve(Ok(()), &["counters", "serve"]).await, ExitCode::SUCCESS);
    assert_eq!(serve(Err(StartError::NoStore), &["counters"]).await, ExitCode::from(2));
    let thread = StartError::Thread("no more threads".to_owned());
    assert_eq!(serve(Err(thread), &["counters"]).await, ExitCode::from(1));
    let config = |_: Config| async { Err::<(), _>(ConfigError::NotText { name: "HTTP_ADDR" }) };
    let cli = Cli::new("counters").config(place.config());
    assert_eq!(cli.run(["counters".into()], config).await, ExitCode::from(2));
}
