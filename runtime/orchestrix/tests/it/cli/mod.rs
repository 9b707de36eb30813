//! The command line, driven as people drive it: the binary on a database in a temporary folder.

mod cluster;
mod manual;
mod nights;
mod repair;
mod typed;

use std::process::{Command, Output};

use orchestrix::config::Config;
use orchestrix::{Node, Orchestrix, Settings};
use serde_json::Value;

use crate::counter::{Add, Counter, counter};

/// A database of its own, and the commands on it.
pub struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder") }
    }

    pub fn url(&self) -> String {
        format!("sqlite://{}", self.folder.path().join("counters.db").display())
    }

    pub fn config(&self) -> Config {
        Config::from_pairs(&[("DATABASE_URL", &self.url()), ("SHARD_COUNT", "4")]).expect("valid")
    }

    /// Starts a service on the database.
    pub async fn node(&self) -> Node {
        let store = self.config().open_store().await.expect("opens");
        let settings =
            Settings { snapshots: orchestrix::core::SnapshotPolicy::every(5), ..Settings::default() };
        let builder = Orchestrix::builder().store(store).aggregate::<Counter>().settings(settings);
        builder.start().await.expect("the node starts")
    }

    /// Makes a database with two counters, the first of them at version 12.
    pub async fn filled() -> Self {
        let place = Self::new();
        let node = place.node().await;
        for amount in 1..=12 {
            node.of::<Counter>(counter("one")).send(Add::new(amount)).await.expect("done");
        }
        node.of::<Counter>(counter("two")).send(Add::new(7)).await.expect("done");
        node.shutdown().await;
        place
    }

    /// Runs the binary with nothing in its environment but this database.
    pub fn run(&self, args: &[&str]) -> Answer {
        self.run_with(args, &[("DATABASE_URL", &self.url())])
    }

    pub fn run_with(&self, args: &[&str], environment: &[(&str, &str)]) -> Answer {
        let mut command = Command::new(env!("CARGO_BIN_EXE_orchestrix"));
        command.env_clear().current_dir(self.folder.path()).args(args).envs(environment.iter().copied());
        Answer::of(&command.output().expect("the binary runs"))
    }

    /// Changes the database behind everybody's back.
    pub async fn damage(&self, sql: &'static str) {
        use sqlx::ConnectOptions;
        let options =
            sqlx::sqlite::SqliteConnectOptions::new().filename(self.folder.path().join("counters.db"));
        let mut connection = options.connect().await.expect("opens");
        sqlx::query(sql).execute(&mut connection).await.expect("changes");
        sqlx::Connection::close(connection).await.expect("closes");
    }
}

/// What a command said.
#[derive(Debug)]
pub struct Answer {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Answer {
    pub fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
        Self {
            code: output.status.code().expect("it was not killed"),
            out: text(&output.stdout),
            err: text(&output.stderr),
        }
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    pub fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }
}

#[tokio::test]
async fn stats_count_what_is_stored_also_beside_a_service() {
    let place = Place::filled().await;
    let node = place.node().await;
    let json = place.run(&["stats", "--json"]).ok().json();
    assert_eq!((&json["events"], &json["streams"], &json["shards"]), (&13.into(), &2.into(), &4.into()));
    node.of::<Counter>(counter("two")).send(Add::new(1)).await.expect("done");
    let text = place.run(&["stats"]).ok().out;
    assert!(text.contains("events       14"), "{text}");
    node.shutdown().await;
}

#[tokio::test]
async fn inspect_shows_events_as_they_are_stored() {
    let place = Place::filled().await;
    let json = place.run(&["inspect", "counter", "one", "--from", "11", "--json"]).ok().json();
    assert_eq!((&json["version"], json["events"].as_array().map(Vec::len)), (&12.into(), Some(2)));
    let event = &json["events"][1];
    assert_eq!((&event["version"], &event["event_type"]), (&12.into(), &"counter.added".into()));
    assert_eq!(event["payload"]["amount"], 12);
    let text = place.run(&["inspect", "counter", "two"]).ok().out;
    assert!(text.contains("counter.added v1"), "{text}");
}

#[tokio::test]
async fn inspecting_what_does_not_exist_is_a_finding() {
    let place = Place::filled().await;
    let answer = place.run(&["inspect", "counter", "three"]);
    assert_eq!(answer.code, 1);
    assert_eq!(answer.err, "error: counter/three has no events; check the type and the id\n");
}

#[tokio::test]
async fn tail_shows_the_newest_events_in_order() {
    let place = Place::filled().await;
    let text = place.run(&["tail", "-n", "3", "--json"]).ok().out;
    let events: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect();
    let places: Vec<(&str, u64)> = events
        .iter()
        .map(|event| (event["id"].as_str().expect("text"), event["version"].as_u64().expect("a number")))
        .collect();
    assert_eq!(places, [("one", 11), ("one", 12), ("two", 1)]);
    let none = place.run(&["tail", "--type", "account"]).ok().out;
    assert_eq!(none, "");
}

#[tokio::test]
async fn tail_follows_what_a_service_stores() {
    use tokio::io::{AsyncBufReadExt, BufReader};
    let place = Place::filled().await;
    let node = place.node().await;
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_orchestrix"));
    command.env_clear().env("DATABASE_URL", place.url()).args(["tail", "--follow", "-n", "1", "--json"]);
    let mut child = command.stdout(std::process::Stdio::piped()).kill_on_drop(true).spawn().expect("runs");
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let first = lines.next_line().await.expect("reads").expect("the newest event");
    assert!(first.contains("\"id\":\"two\""), "{first}");
    node.of::<Counter>(counter("three")).send(Add::new(1)).await.expect("done");
    let next = lines.next_line().await.expect("reads").expect("the event that followed");
    assert!(next.contains("\"id\":\"three\""), "{next}");
    node.shutdown().await;
}

#[tokio::test]
async fn config_shows_what_takes_effect_and_where_it_comes_from() {
    let place = Place::new();
    std::fs::write(place.folder.path().join(".env"), "LOG_FORMAT=json\n").expect("writes");
    let json = place.run_with(&["config", "--json"], &[("SNAPSHOT_INTERVAL", "0")]).ok().json();
    let find = |name: &str| {
        let found = json.as_array().expect("a list").iter().find(|one| one["name"] == name);
        found.map(|one| (one["value"].clone(), one["origin"].clone())).expect("it is listed")
    };
    assert_eq!(find("SNAPSHOT_INTERVAL"), ("0".into(), "environment".into()));
    assert_eq!(find("LOG_FORMAT"), ("json".into(), "env_file".into()));
    assert_eq!(find("ENVIRONMENT"), ("development".into(), "default".into()));
}

#[test]
fn a_wrong_setting_is_exit_code_2_and_names_what_is_allowed() {
    let answer = Place::new().run_with(&["stats"], &[("EVENT_STORE_TYPE", "mysql")]);
    assert_eq!(answer.code, 2);
    assert_eq!(answer.err, "error: EVENT_STORE_TYPE is \"mysql\"; allowed is inmemory, sqlite, postgres\n");
    let answer = Place::new().run_with(&["stats"], &[("EVENT_STORE_TYPE", "inmemory")]);
    assert_eq!(answer.code, 2, "{answer:?}");
}

#[test]
fn a_missing_database_is_exit_code_3_and_nothing_is_made() {
    let place = Place::new();
    for args in [&["stats"][..], &["verify"], &["tail"], &["quarantine", "list"], &["inspect", "a", "b"]] {
        let answer = place.run(args);
        assert_eq!(answer.code, 3, "{answer:?}");
        assert!(answer.err.contains("DATABASE_URL"), "{answer:?}");
    }
    assert_eq!(std::fs::read_dir(place.folder.path()).expect("reads").count(), 0);
    let json = place.run(&["stats", "--json"]).err;
    assert!(json.contains("\"exit_code\":3"), "{json}");
}

#[test]
fn completions_name_the_commands() {
    let script = Place::new().run(&["completions", "bash"]).ok().out;
    assert!(script.contains("quarantine") && script.contains("_orchestrix"), "{script}");
}

#[test]
fn without_a_command_the_binary_explains_itself() {
    let answer = Place::new().run(&[]);
    assert_eq!(answer.code, 2);
    assert!(answer.err.contains("verify") && answer.err.contains("Usage"), "{answer:?}");
}
