//! Runs a small cluster as a user would: one kill and one rolling restart under load, then the check of the log.

use std::process::Command;

use serde_json::Value;

/// Runs a cluster for a few seconds and returns its JSON; its check must have passed.
fn cluster(line: &str) -> Value {
    let home = tempfile::tempdir().expect("a directory");
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
    let common = "--callers 16 --aggregates 200 --warmup 0.1 --lease 2 --json result.json --html result.html";
    command.arg("cluster").args(line.split(' ')).args(common.split(' '));
    let output = command.current_dir(home.path()).output().expect("the program can be started");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{line}: {} {told}", output.status);
    let page = std::fs::read_to_string(home.path().join("result.html")).expect("the page was written");
    assert!(page.starts_with("<!doctype html>") && page.contains("<svg"), "{page}");
    let text = std::fs::read_to_string(home.path().join("result.json")).expect("the JSON was written");
    serde_json::from_str(&text).expect("it is JSON")
}

fn number(json: &Value, key: &str) -> f64 {
    json.pointer(key).and_then(Value::as_f64).unwrap_or_else(|| panic!("{key} is no number in {json:#}"))
}

fn nothing_was_lost(json: &Value) {
    assert!(number(json, "/check/acknowledged") > 0.0, "nothing was acknowledged: {json:#}");
    for key in ["lost", "duplicated", "holes", "fallen_epochs", "wrong_replies"] {
        assert_eq!(json.pointer(&format!("/check/{key}")), Some(&Value::from(0)), "{key} in {json:#}");
    }
}

#[test]
fn a_killed_node_loses_and_doubles_nothing() {
    let json = cluster("--nodes 3 --duration 2 --kill-every 1 --idle 0 --read-share 0.2");
    nothing_was_lost(&json);
    assert!(number(&json, "/faults/kills") >= 1.0, "{json:#}");
    assert!(number(&json, "/faults/kills_in_flight") >= 1.0, "no kill hit commands under way: {json:#}");
    assert!(number(&json, "/failover_ms/p99") > 0.0, "{json:#}");
    for key in ["/commands_per_s", "/reads_per_s", "/outcomes/done", "/latency_us/p99"] {
        assert!(number(&json, key) > 0.0, "{key} in {json:#}");
    }
}

#[test]
fn a_rolling_restart_fails_no_command() {
    let json = cluster("--nodes 2 --duration 1 --roll --idle 0.5");
    nothing_was_lost(&json);
    assert_eq!(json.pointer("/roll/restarts"), Some(&Value::from(2)), "{json:#}");
    assert_eq!(json.pointer("/failed_commands"), Some(&Value::from(0)), "{json:#}");
    assert!(number(&json, "/roll/shard_pause_ms/max") > 0.0, "{json:#}");
    assert!(number(&json, "/idle_transactions_per_node_s") >= 0.0, "{json:#}");
}

#[test]
fn a_node_that_is_stopped_past_its_lease_stores_nothing_under_its_old_epochs() {
    let json = cluster("--nodes 2 --duration 1 --pause-every 0.5 --idle 0");
    nothing_was_lost(&json);
    assert!(number(&json, "/faults/pauses") >= 1.0, "{json:#}");
    assert!(number(&json, "/faults/pauses_in_flight") >= 1.0, "{json:#}");
}

#[test]
fn a_comparison_gives_all_parts_and_their_ratios() {
    let json = cluster("--nodes 2 --duration 0.5 --compare --rounds 1");
    nothing_was_lost(&json);
    for key in ["/ratio/all_to_one", "/ratio/wrong_to_right", "/commands_per_s/one", "/commands_per_s/wrong"]
    {
        assert!(number(&json, key) > 0.0, "{key} in {json:#}");
    }
}
