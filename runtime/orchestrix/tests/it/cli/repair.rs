//! Commands that keep a database in order: `migrate`, `verify`, `quarantine`, `doctor`.

use orchestrix::core::store::QuarantineRecord;
use orchestrix::core::{EventStore, StreamId, Timestamp};
use serde_json::Value;

use super::Place;

#[test]
fn migrate_rehearses_then_applies_and_then_has_nothing_to_do() {
    let place = Place::new();
    let pending = |json: &Value| {
        let all = json["migrations"].as_array().expect("a list");
        all.iter().filter(|one| one["applied"] == false).count()
    };
    let before = place.run(&["migrate", "status", "--json"]).ok().json();
    assert!(pending(&before) > 0);
    let rehearsed = place.run(&["migrate", "--dry-run", "--json"]).ok().json();
    assert_eq!(rehearsed["did"], "dry_run");
    assert_eq!(
        place.run(&["migrate", "status", "--json"]).ok().json(),
        before,
        "a rehearsal changes nothing"
    );
    assert!(place.run(&["migrate"]).ok().out.starts_with("applied:"));
    assert_eq!(pending(&place.run(&["migrate", "status", "--json"]).ok().json()), 0);
    assert_eq!(place.run(&["migrate"]).ok().out, "the schema is up to date\n");
    assert_eq!(place.run(&["migrate", "--dry-run", "status"]).code, 2);
}

#[tokio::test]
async fn verify_finds_a_sound_log_sound() {
    let place = Place::filled().await;
    let json = place.run(&["verify", "--json"]).ok().json();
    assert_eq!((&json["sound"], &json["events"], &json["streams"]), (&true.into(), &13.into(), &2.into()));
    assert_eq!(place.run(&["verify"]).ok().out, "sound: 13 events of 2 streams in 4 shards\n");
}

#[tokio::test]
async fn verify_finds_the_place_of_a_deleted_event() {
    let place = Place::filled().await;
    place.damage("DELETE FROM events WHERE version = 5").await;
    let answer = place.run(&["verify", "--json"]);
    assert_eq!(answer.code, 1, "{answer:?}");
    let json = answer.json();
    assert_eq!((&json["sound"], &json["first"]["stream"]), (&false.into(), &"counter/one".into()));
    assert_eq!(json["first"]["version"], 6);
}

#[tokio::test]
async fn verify_finds_an_event_that_moved_to_another_stream() {
    let place = Place::filled().await;
    place.damage("UPDATE events SET version = 40 WHERE version = 12").await;
    let answer = place.run(&["verify"]);
    assert_eq!(answer.code, 1, "{answer:?}");
    assert!(answer.out.contains("version 12 is missing"), "{answer:?}");
}

async fn quarantine(place: &Place, store: &dyn EventStore) {
    let record = QuarantineRecord {
        stream: StreamId::new("counter", "one"),
        reason: "apply panicked at version 3".to_owned(),
        command_id: None,
        since: Timestamp::from_micros(0),
    };
    store.quarantine(record).await.expect("marks");
    store.close().await;
    let listed = place.run(&["quarantine", "list", "--json"]).ok().json();
    assert_eq!(listed[0]["stream"]["id"], "one");
}

#[tokio::test]
async fn a_quarantine_is_listed_released_and_gone() {
    let place = Place::filled().await;
    quarantine(&place, place.config().open_store().await.expect("opens").as_ref()).await;
    let text = place.run(&["quarantine", "list"]).ok().out;
    assert!(text.contains("counter/one") && text.contains("apply panicked"), "{text}");
    let sick = place.run(&["doctor"]);
    assert_eq!(sick.code, 1, "{sick:?}");
    assert_eq!(
        place.run(&["quarantine", "release", "counter", "one"]).ok().out,
        "counter/one takes commands again\n"
    );
    assert_eq!(place.run(&["quarantine", "list"]).ok().out, "nothing is in quarantine\n");
    let again = place.run(&["quarantine", "release", "counter", "one"]);
    assert_eq!(again.code, 1, "{again:?}");
    place.run(&["doctor"]).ok();
}

#[tokio::test]
async fn what_writes_is_refused_while_a_service_runs() {
    let place = Place::filled().await;
    let node = place.node().await;
    for args in [&["quarantine", "release", "counter", "one"][..], &["migrate"]] {
        let answer = place.run(args);
        assert_eq!(answer.code, 3, "{answer:?}");
        let holder = format!("process {}", std::process::id());
        assert!(answer.err.contains(&holder) && answer.err.contains("stop the service"), "{answer:?}");
    }
    place.run(&["quarantine", "list"]).ok();
    place.run(&["verify"]).ok();
    node.shutdown().await;
}

#[tokio::test]
async fn doctor_tries_a_durable_write_or_names_the_service_that_runs() {
    let place = Place::filled().await;
    let verdicts = |json: &Value| {
        let checks = json["checks"].as_array().expect("a list").clone();
        move |name: &str| {
            let found = checks.iter().find(|check| check["name"] == name).expect("it is listed");
            format!(
                "{} {}",
                found["verdict"].as_str().expect("text"),
                found["detail"].as_str().expect("text")
            )
        }
    };
    let idle = verdicts(&place.run(&["doctor", "--json"]).ok().json());
    assert!(
        idle("owner").starts_with("ok no service runs; journal and sync are durable"),
        "{}",
        idle("owner")
    );
    assert!(idle("library").starts_with("ok SQLite 3."), "{}", idle("library"));
    assert!(idle("migrations").starts_with("ok all"), "{}", idle("migrations"));
    assert!(idle("contents").starts_with("ok 13 events of 2 streams"), "{}", idle("contents"));
    let node = place.node().await;
    let busy = verdicts(&place.run(&["doctor", "--json"]).ok().json());
    assert!(busy("owner").contains(&format!("process {}", std::process::id())), "{}", busy("owner"));
    node.shutdown().await;
}

#[test]
fn doctor_warns_of_a_database_that_does_not_exist_and_makes_none() {
    let place = Place::new();
    let json = place.run(&["doctor", "--json"]).ok().json();
    let check = json["checks"].as_array().expect("a list").iter().find(|check| check["name"] == "database");
    assert_eq!(check.expect("it is listed")["verdict"], "warn");
    assert_eq!(place.run(&["stats"]).code, 3);
}
