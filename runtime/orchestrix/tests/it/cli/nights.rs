//! Commands of the night shift: `backup`, `restore`, `archive`, `doctor` on PostgreSQL.

use std::process::Command;

use serde_json::Value;

use super::{Answer, Place};
use crate::store_postgres::owner::run;
use crate::store_postgres::place::Place as Server;

/// Runs the binary on a database.
async fn on(server: &Server, args: &[&str]) -> Answer {
    let url = server.url().await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_orchestrix"));
    command.env_clear().env("DATABASE_URL", url).current_dir(std::env::temp_dir()).args(args);
    Answer::of(&command.output().expect("the binary runs"))
}

#[tokio::test]
async fn a_database_is_backed_up_beside_its_service_verified_and_restored() {
    let place = Place::filled().await;
    let node = place.node().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let directory = folder.path().join("monday").display().to_string();
    let taken = place.run(&["backup", &directory, "--json"]).ok().json();
    assert_eq!((&taken["backup"]["events"], &taken["noted"]), (&13.into(), &false.into()));
    node.shutdown().await;
    assert!(place.run(&["backup", "--verify", &directory]).ok().out.starts_with("sound: backup "));
    let verified = place.run(&["backup", "--verify", &directory, "--json"]).ok().json();
    assert_eq!((&verified["events"], &verified["streams"]), (&13.into(), &2.into()));
    assert_eq!(place.run(&["backup", &directory]).code, 2, "there is one already");
    let other = Place::new();
    let text = other.run(&["restore", &directory]).ok().out;
    assert!(
        text.starts_with("restored 13 events of backup ") && text.contains("; 0 were left out"),
        "{text}"
    );
    other.run(&["verify"]).ok();
    let (before, after) = (place.run(&["stats", "--json"]).json(), other.run(&["stats", "--json"]).json());
    assert_eq!((&before["events"], &before["shards"]), (&after["events"], &after["shards"]));
    let again = other.run(&["restore", &directory]);
    assert!(again.code == 2 && again.err.contains("import into a new database"), "{again:?}");
    let past = Place::new();
    let cut = past.run(&["restore", &directory, "--until", "2020-01-01T00:00:00Z", "--json"]).ok().json();
    assert_eq!((&cut["events"], &cut["left_out"]), (&0.into(), &13.into()));
}

#[tokio::test]
async fn a_wrong_backup_has_its_exit_code_and_names_the_file() {
    let place = Place::filled().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let directory = folder.path().join("monday");
    let path = directory.display().to_string();
    let missing = place.run(&["backup", "--verify", &path]);
    assert!(missing.code == 2 && missing.err.contains("no complete backup"), "{missing:?}");
    place.run(&["backup", &path]).ok();
    let manifest = directory.join("manifest.json");
    let text = std::fs::read_to_string(&manifest).expect("reads");
    std::fs::write(&manifest, text.replace("\"events\": 13", "\"events\": 14")).expect("writes");
    for args in [&["backup", "--verify", &path][..], &["restore", &path]] {
        let answer = Place::new().run(args);
        assert!(answer.code == 1 && answer.err.contains("manifest.json is damaged"), "{answer:?}");
    }
    for args in
        [&["restore", &path, "--until", "soon"][..], &["restore", &path, "--position", "7"], &["backup"]]
    {
        assert_eq!(Place::new().run(args).code, 2, "{args:?}");
    }
}

#[tokio::test]
async fn an_archive_is_filled_verified_and_emptied() {
    let server = crate::archive::filled(2, 20).await;
    let moved = on(&server, &["archive", "--older-than", "0s", "--json"]).await.ok().json();
    assert_eq!(moved["archived"]["events"], 36);
    assert_eq!(on(&server, &["archive", "--older-than", "365d"]).await.ok().out.split(' ').nth(1), Some("0"));
    on(&server, &["verify"]).await.ok();
    let state = on(&server, &["archive", "--verify"]).await.ok().out;
    assert!(state.starts_with("sound: 36 events in "), "{state}");
    let mut hand = server.by_hand().await;
    run(&mut hand, "UPDATE orchestrix.events_archive SET epoch = epoch + 1 WHERE version = 3").await;
    let found = on(&server, &["archive", "--verify"]).await;
    assert!(found.code == 1 && found.out.starts_with("NOT SOUND"), "{found:?}");
    assert_eq!(on(&server, &["archive", "--restore"]).await.code, 3, "the server refuses it");
    run(&mut hand, "UPDATE orchestrix.events_archive SET epoch = epoch - 1 WHERE version = 3").await;
    let back = on(&server, &["archive", "--restore"]).await.ok().out;
    assert!(back.starts_with("moved 36 events back"), "{back}");
}

#[tokio::test]
async fn an_archive_takes_one_wish_and_a_database_that_has_one() {
    let place = Place::filled().await;
    for args in
        [&["archive"][..], &["archive", "--verify", "--restore"], &["archive", "--older-than", "soon"]]
    {
        assert_eq!(place.run(args).code, 2, "{args:?}");
    }
    let answer = place.run(&["archive", "--older-than", "1d"]);
    assert!(answer.code == 2 && answer.err.contains("a SQLite database has none"), "{answer:?}");
}

fn verdict(json: &Value, name: &str) -> String {
    let checks = json["checks"].as_array().expect("a list");
    let found =
        checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("{name} is not listed"));
    found["verdict"].as_str().expect("text").to_owned()
}

#[tokio::test]
async fn doctor_looks_at_the_server_and_knows_of_the_last_backup() {
    let server = crate::archive::filled(1, 3).await;
    let json = on(&server, &["doctor", "--json"]).await.ok().json();
    for name in
        ["durability", "clock", "encryption", "roles", "connections", "vacuum", "replication", "owners"]
    {
        assert_eq!(verdict(&json, name), "ok", "{name}: {json}");
    }
    // The tests' own user is a superuser, and no backup was taken.
    assert_eq!((verdict(&json, "rights"), verdict(&json, "backup")), ("warn".to_owned(), "warn".to_owned()));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let directory = folder.path().display().to_string();
    let taken = on(&server, &["backup", &directory, "--json"]).await.ok().json();
    assert_eq!((&taken["noted"], &taken["backup"]["events"]), (&true.into(), &3.into()));
    let json = on(&server, &["doctor", "--json"]).await.ok().json();
    assert_eq!(verdict(&json, "backup"), "ok");
}

#[tokio::test]
async fn doctor_counts_as_wrong_what_must_not_be_in_production() {
    let server = crate::archive::filled(1, 1).await;
    let answer = on(&server, &["doctor", "--production", "--json"]).await;
    assert_eq!(answer.code, 1);
    for name in ["environment", "rights", "backup"] {
        assert_eq!(verdict(&answer.json(), name), "fail", "{name}");
    }
    assert_eq!(verdict(&answer.json(), "durability"), "ok");
}
