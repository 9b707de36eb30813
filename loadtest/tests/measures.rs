//! Runs the program as a user would, for a moment, and reads what it hands out.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn loadtest(home: &Path, line: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
    command.args(line.split(' ')).current_dir(home);
    command.output().expect("the program can be started")
}

/// Runs a measurement that must succeed, and returns its JSON.
fn measured(line: &str) -> Value {
    let home = tempfile::tempdir().expect("a directory");
    let output = loadtest(home.path(), &format!("{line} --json result.json --html result.html"));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{line}: {} {told}", output.status);
    let page = std::fs::read_to_string(home.path().join("result.html")).expect("the page was written");
    assert!(page.starts_with("<!doctype html>") && page.contains("<svg"), "{page}");
    let left: Vec<_> = std::fs::read_dir(home.path().join("data")).map_or(Vec::new(), Iterator::collect);
    assert!(left.is_empty(), "temporary databases were left behind: {left:?}");
    let text = std::fs::read_to_string(home.path().join("result.json")).expect("the JSON was written");
    serde_json::from_str(&text).expect("it is JSON")
}

/// The keys that scripts rely on; `docs/benchmarks.md` lists them.
fn has_the_keys_of_a_run(json: &Value) {
    let keys = [
        "/store",
        "/commands_per_s",
        "/events_per_s",
        "/latency_us/p50",
        "/latency_us/p90",
        "/latency_us/p99",
        "/latency_us/p999",
        "/latency_us/max",
        "/outcomes/done",
        "/outcomes/refused",
        "/outcomes/unknown",
        "/outcomes/overloaded",
        "/outcomes/failed",
        "/check/acknowledged",
        "/check/lost",
        "/check/duplicated",
        "/check/holes",
        "/memory/rss_bytes",
        "/memory/resident_aggregates",
        "/settings/callers",
    ];
    for key in keys {
        assert!(json.pointer(key).is_some(), "{key} is missing in {json:#}");
    }
}

fn number(json: &Value, key: &str) -> f64 {
    json.pointer(key).and_then(Value::as_f64).unwrap_or_else(|| panic!("{key} is no number in {json:#}"))
}

fn nothing_was_lost(json: &Value) {
    assert!(number(json, "/check/acknowledged") > 0.0, "nothing was acknowledged: {json:#}");
    for key in ["/check/lost", "/check/duplicated", "/check/holes", "/check/wrong_replies"] {
        assert_eq!(json.pointer(key), Some(&Value::from(0)), "{key} in {json:#}");
    }
}

const SMALL: &str = "--aggregates 100 --callers 16 --duration 0.5 --warmup 0.1";

#[test]
fn a_run_in_memory_is_measured_and_checked() {
    let json = measured(&format!("run --store memory {SMALL} --read-share 0.3"));
    has_the_keys_of_a_run(&json);
    nothing_was_lost(&json);
    assert!(number(&json, "/commands_per_s") > 0.0 && number(&json, "/reads_per_s") > 0.0, "{json:#}");
    assert_eq!(json.pointer("/memory/resident_aggregates"), Some(&Value::from(100)));
}

#[test]
fn a_run_on_sqlite_is_measured_and_checked() {
    let json = measured(&format!("run --store sqlite {SMALL}"));
    has_the_keys_of_a_run(&json);
    nothing_was_lost(&json);
    assert!(number(&json, "/outcomes/done") > 0.0, "{json:#}");
}

/// On a throw-away server of its own, which goes away with the program.
#[test]
fn a_run_on_postgres_is_measured_and_checked() {
    let json = measured(&format!("run --store postgres --lanes 3 {SMALL}"));
    has_the_keys_of_a_run(&json);
    nothing_was_lost(&json);
    assert!(number(&json, "/outcomes/done") > 0.0, "{json:#}");
}

#[test]
fn compare_on_postgres_gives_all_parts_and_the_best_shape() {
    let json = measured(
        "compare --store postgres --aggregates 100 --callers 16 --duration 0.2 --warmup 0.1 --rounds 1",
    );
    has_the_keys_of_a_run(&json);
    nothing_was_lost(&json);
    for key in ["/limit/events_per_s", "/naive/commands_per_s", "/ratio/to_limit", "/ratio/to_naive"] {
        assert!(number(&json, key) > 0.0, "{key} in {json:#}");
    }
    let shape = json.pointer("/limit/shape").and_then(Value::as_str).expect("a shape");
    assert!(shape.contains("connections"), "{shape}");
}

#[test]
fn one_caller_is_measured_beside_a_raw_commit_on_postgres() {
    let json = measured("latency --store postgres --pairs 20 --aggregates 10");
    nothing_was_lost(&json);
    assert!(number(&json, "/ratio/to_limit") > 0.0, "{json:#}");
}

#[test]
fn an_open_loop_sends_what_is_due() {
    let json = measured(&format!("run --store memory {SMALL} --rate 400"));
    nothing_was_lost(&json);
    // 400 a second for half a second are due whatever the machine does; what it is late with or leaves out is told.
    let outcomes = json.pointer("/outcomes").expect("outcomes").as_object().expect("an object");
    let answered: u64 = outcomes.values().filter_map(Value::as_u64).sum();
    let due = answered as f64 + number(&json, "/unsent");
    assert!((180.0..=260.0).contains(&due), "{json:#}");
}

#[test]
fn compare_gives_all_parts_and_their_ratios() {
    let json = measured(&format!("compare --store sqlite {SMALL} --rounds 1"));
    has_the_keys_of_a_run(&json);
    nothing_was_lost(&json);
    for key in ["/limit/events_per_s", "/naive/commands_per_s", "/ratio/to_limit", "/ratio/to_naive"] {
        assert!(number(&json, key) > 0.0, "{key} in {json:#}");
    }
}

#[test]
fn a_log_that_was_kept_is_driven_again() {
    let home = tempfile::tempdir().expect("a directory");
    for _ in 0..2 {
        let output = loadtest(home.path(), &format!("run --url sqlite://kept.db {SMALL} --json result.json"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let text = std::fs::read_to_string(home.path().join("result.json")).expect("the JSON was written");
    let json: Value = serde_json::from_str(&text).expect("it is JSON");
    nothing_was_lost(&json);
    assert!(
        number(&json, "/check/events") > number(&json, "/check/acknowledged"),
        "the first run's events are there"
    );
}

#[test]
fn a_start_on_a_filled_log_serves_a_command() {
    let json = measured("startup --events 2000 --aggregates 50 --starts 1");
    assert_eq!(json.pointer("/startup/events"), Some(&Value::from(2_000)));
    assert!(number(&json, "/startup/start_us") > 0.0 && number(&json, "/startup/first_command_us") > 0.0);
}

#[test]
fn wrong_use_ends_with_code_2_and_a_failure_with_3() {
    let home = tempfile::tempdir().expect("a directory");
    let wrong = loadtest(home.path(), "run --callers 0");
    assert_eq!(wrong.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("--callers"));
    std::fs::write(home.path().join("no.db"), "this is no database, and long enough to be seen as none")
        .expect("writes");
    let failed = loadtest(home.path(), "run --url no.db --duration 0.1");
    assert_eq!(failed.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&failed.stderr).contains("no.db"));
}
