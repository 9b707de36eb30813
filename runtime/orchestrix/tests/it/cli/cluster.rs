//! `cluster`, `drain`, and what `doctor` says about owners, on a database that nodes share.

use std::process::Command;
use std::time::Duration;

use orchestrix::store::Postgres;
use orchestrix_core::store::{Claim, Target};
use orchestrix_core::{EventStore, Incarnation, ShardId};

use super::{Answer, Place};
use crate::store_postgres::members::node;
use crate::store_postgres::owner::run;
use crate::store_postgres::place::Place as Server;

const LONG: Duration = Duration::from_hours(1);

fn command(url: &str, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_orchestrix"));
    command.env_clear().env("DATABASE_URL", url).current_dir(std::env::temp_dir()).args(args);
    command
}

async fn on(server: &Server, args: &[&str]) -> Answer {
    Answer::of(&command(&server.url().await, args).output().expect("the binary runs"))
}

/// A node that joined, by its run, and the shards that it claimed.
async fn start(store: &Postgres, name: &str, shards: &[u32]) -> (Incarnation, Vec<Claim>) {
    let incarnation = Incarnation::fresh();
    store.join(node(name, incarnation), LONG).await.expect("joins");
    let shards: Vec<ShardId> = shards.iter().map(|shard| ShardId::new(*shard)).collect();
    (incarnation, store.claim(&shards, incarnation).await.expect("claims"))
}

#[tokio::test]
async fn cluster_shows_nodes_shards_and_moves() {
    let server = Server::new();
    let store = server.open().await;
    let (ada, claims) = start(&store, "ada", &[0, 1, 2, 5]).await;
    let (bob, _) = start(&store, "bob", &[3, 4]).await;
    let view = store.view().await.expect("reads");
    let target = Target { shard: ShardId::new(5), owner: Some(ada), epoch: claims[3].epoch, target: bob };
    store.set_targets(bob, view.version, vec![target]).await.expect("is set");
    let text = on(&server, &["cluster"]).await.ok().out;
    for words in ["ada", "bob", "alive", "0-2\n", "3-4\n", "8 shards, 1 on the move, 2 without an owner"] {
        assert!(text.contains(words), "{words} in {text}");
    }
    let json = on(&server, &["cluster", "--json"]).await.ok().json();
    assert_eq!((&json["moves"], &json["shards_without_owner"]), (&1.into(), &2.into()));
    assert_eq!(json["shards"][5]["target"], bob.to_string());
    let nodes = json["nodes"].as_array().expect("a list");
    let owned: Vec<_> = nodes.iter().map(|node| (node["name"].as_str(), node["shards"].as_u64())).collect();
    assert_eq!(owned, [(Some("ada"), Some(4)), (Some("bob"), Some(2))]);
    assert!(nodes.iter().all(|node| node["lease_left_ms"].as_u64().is_some_and(|left| left > 0)));
}

#[tokio::test]
async fn drain_marks_a_node_and_waits_until_it_owns_nothing() {
    let server = Server::new();
    let store = server.open().await;
    let (ada, claims) = start(&store, "ada", &[0, 1]).await;
    start(&store, "bob", &[2]).await;
    let mut drain = command(&server.url().await, &["drain", "ada", "--json"]);
    let drain = tokio::task::spawn_blocking(move || Answer::of(&drain.output().expect("the binary runs")));
    while !store.view().await.expect("reads").member(ada).is_some_and(|ada| ada.draining) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for claim in claims {
        assert!(!drain.is_finished(), "it waits");
        store.release_shards(ada, &[(claim.shard, claim.epoch)]).await.expect("is released");
    }
    let json = drain.await.expect("ends").ok().json();
    assert_eq!((&json["shards_before"], &json["shards_left"]), (&2.into(), &0.into()));
    assert_eq!(json["incarnation"], ada.to_string());
}

#[tokio::test]
async fn drain_says_what_it_could_not_do_by_its_exit_code() {
    let server = Server::new();
    let store = server.open().await;
    let (ada, _) = start(&store, "ada", &[0, 1]).await;
    let late = on(&server, &["drain", &ada.to_string(), "--wait", "1s"]).await;
    assert!(late.code == 1 && late.err.contains("still owns 2 of 2 shards"), "{late:?}");
    assert!(late.err.contains("no other node is there to take them"), "{late:?}");
    let asked = on(&server, &["drain", "ada", "--wait", "0s"]).await.ok();
    assert!(asked.out.contains("asked to give its 2 shards away"), "{asked:?}");
    let unknown = on(&server, &["drain", "eve"]).await;
    assert!(unknown.code == 1 && unknown.err.contains("no node eve; there are: ada"), "{unknown:?}");
    let embedded = Place::filled().await;
    for args in [&["cluster"][..], &["drain", "ada"]] {
        let answer = embedded.run(args);
        assert!(answer.code == 2 && answer.err.contains("there is no cluster"), "{answer:?}");
    }
}

#[tokio::test]
async fn doctor_warns_of_shards_that_nobody_serves() {
    let server = Server::new();
    let store = server.open().await;
    let owners = async || {
        let json = on(&server, &["doctor", "--json"]).await.json();
        let checks = json["checks"].as_array().expect("a list").clone();
        let owners = checks.into_iter().find(|check| check["name"] == "owners").expect("it is checked");
        (owners["verdict"].to_string(), owners["detail"].to_string())
    };
    let (ada, _) = start(&store, "ada", &[0, 1, 2, 3, 4, 5]).await;
    let (bob, _) = start(&store, "bob", &[6]).await;
    let (verdict, detail) = owners().await;
    assert!(verdict.contains("warn") && detail.contains("1 shards have no owner"), "{detail}");
    store.leave(bob).await.expect("leaves");
    let (verdict, detail) = owners().await;
    assert!(verdict.contains("warn") && detail.contains("2 shards have no owner"), "{detail}");
    store.claim(&[ShardId::new(6), ShardId::new(7)], ada).await.expect("claims");
    assert!(owners().await.0.contains("ok"));
    let mut hand = server.by_hand().await;
    run(&mut hand, "UPDATE orchestrix.nodes SET lease_until = clock_timestamp() - interval '3 seconds'")
        .await;
    let (verdict, detail) = owners().await;
    assert!(verdict.contains("warn") && detail.contains("the lease of ada is over"), "{detail}");
}
