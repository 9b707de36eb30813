//! A whole node on PostgreSQL, and the command line beside it.

use std::process::Command;

use orchestrix::config::Config;
use orchestrix::core::store::ClaimError;
use orchestrix::core::{EventStore, Incarnation, SnapshotPolicy};
use orchestrix::{Node, Orchestrix, Settings};
use serde_json::Value;

use super::owner::run;
use super::place::Place;
use crate::counter::{Add, Counter, counter};

async fn node(place: &Place) -> Node {
    let url = place.url().await;
    let config = Config::from_pairs(&[("DATABASE_URL", &url)]).expect("valid");
    let store = config.open_store().await.expect("opens");
    assert_eq!(store.info().name, "postgres");
    let node_name = Some("service".to_owned());
    let settings = Settings { snapshots: SnapshotPolicy::every(5), node_name, ..Settings::default() };
    let builder = Orchestrix::builder().store(store).aggregate::<Counter>().settings(settings);
    builder.start().await.expect("the node starts")
}

/// Makes a log with two counters, the first of them at version 12.
async fn fill(place: &Place) {
    let node = node(place).await;
    for amount in 1..=12 {
        node.of::<Counter>(counter("one")).send(Add::new(amount)).await.expect("done");
    }
    node.of::<Counter>(counter("two")).send(Add::new(7)).await.expect("done");
    node.shutdown().await;
}

/// Runs the binary on the database, with nothing else in its environment; returns its exit code and what it said.
async fn tool(place: &Place, args: &[&str]) -> (i32, String) {
    let (url, folder) = (place.url().await, tempfile::tempdir().expect("a folder"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_orchestrix"));
    command.env_clear().env("DATABASE_URL", url).current_dir(folder.path()).args(args);
    let output = tokio::task::spawn_blocking(move || command.output().expect("the binary runs"));
    let output = output.await.expect("it ends");
    let said = String::from_utf8([output.stdout, output.stderr].concat()).expect("text");
    (output.status.code().expect("it was not killed"), said)
}

async fn json(place: &Place, args: &[&str]) -> Value {
    let (code, said) = tool(place, args).await;
    assert_eq!(code, 0, "{said}");
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_keeps_its_aggregates_over_a_restart() {
    let place = Place::new();
    fill(&place).await;
    let node = node(&place).await;
    let reply = node.of::<Counter>(counter("one")).send(Add::new(1)).await.expect("done");
    assert_eq!(reply, 79, "12 events, one snapshot and one more command");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_looks_into_the_log_beside_a_running_node() {
    let place = Place::new();
    fill(&place).await;
    let node = node(&place).await;
    let stats = json(&place, &["stats", "--json"]).await;
    assert_eq!(
        (&stats["store"], &stats["events"], &stats["streams"]),
        (&"postgres".into(), &13.into(), &2.into())
    );
    let sound = json(&place, &["verify", "--json"]).await;
    assert_eq!((&sound["sound"], &sound["events"]), (&true.into(), &13.into()));
    let (code, said) = tool(&place, &["tail", "--lines", "3"]).await;
    assert_eq!((code, said.lines().count()), (0, 3), "{said}");
    let (code, said) = tool(&place, &["inspect", "counter", "one"]).await;
    assert!(code == 0 && said.contains("12"), "{said}");
    let well = json(&place, &["doctor", "--json"]).await;
    assert_eq!(well["healthy"], true, "{well}");
    let schema = json(&place, &["migrate", "status", "--json"]).await;
    assert!(schema["migrations"].as_array().expect("a list").iter().all(|one| one["applied"] == true));
    node.of::<Counter>(counter("two")).send(Add::new(1)).await.expect("the node was not disturbed");
    // What would take the shards away is refused, and names the service.
    let store = place.open().await;
    let shards: Vec<_> = store.info().shard_count.all().collect();
    let refused = store.claim(&shards, Incarnation::fresh()).await;
    assert!(
        matches!(&refused, Err(ClaimError::Held { holder, .. }) if holder.contains("service")),
        "{refused:?}"
    );
    node.shutdown().await;
    let (code, said) = tool(&place, &["quarantine", "release", "counter", "one"]).await;
    assert!(code == 1 && said.contains("is not in quarantine"), "{code}: {said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_finds_the_place_of_a_deleted_event() {
    let place = Place::new();
    fill(&place).await;
    let mut hand = place.by_hand().await;
    run(&mut hand, "DELETE FROM orchestrix.events WHERE version = 5").await;
    let (code, said) = tool(&place, &["verify"]).await;
    assert!(code == 1 && said.contains("counter/one"), "{code}: {said}");
}

#[tokio::test]
async fn a_database_that_is_not_there_is_named_with_what_to_check() {
    let place = Place::new();
    let url = place.url().await.replace("orchestrix_test", "missing");
    let config = Config::from_pairs(&[("DATABASE_URL", &url), ("DATABASE_WAIT", "1")]).expect("valid");
    let error = config.open_store().await.err().expect("there is none").to_string();
    assert!(error.contains("SQLSTATE 3D000") && error.contains("check the user"), "{error}");
}
