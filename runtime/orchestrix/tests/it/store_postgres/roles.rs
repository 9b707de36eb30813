//! The roles of the schema: each may do what its work needs, and no more.

use std::time::Duration;

use orchestrix::store::Postgres;
use orchestrix_core::store::{
    NodeRecord, QuarantineRecord, Report, SnapshotOutcome, SnapshotRecord, SnapshotWrite,
};
use orchestrix_core::{EventStore, Seq, Timestamp, Version};
use sqlx::{AssertSqlSafe, Executor as _};

use super::owner::{Owner, run, stream};
use super::place::{Place, fresh_name};

/// Tells whether a role may do something; whatever it did is undone.
async fn may(place: &Place, role: &str, text: &str) -> bool {
    let mut hand = place.by_hand().await;
    run(&mut hand, &format!("BEGIN; SET LOCAL ROLE {role}")).await;
    match hand.execute(AssertSqlSafe(text)).await {
        Ok(_) => true,
        Err(error) => {
            let code =
                error.as_database_error().and_then(sqlx::error::DatabaseError::code).unwrap_or_default();
            assert_eq!(code, "42501", "{role} fails for another reason: {text}: {error}");
            false
        }
    }
}

const UPDATE: &str = "UPDATE orchestrix.events SET payload = ''";
const DELETE: &str = "DELETE FROM orchestrix.events";
const TRUNCATE: &str = "TRUNCATE orchestrix.events";
const READ: &str = "SELECT count(*) FROM orchestrix.events";

#[tokio::test]
async fn only_the_owner_may_change_what_was_stored() {
    let place = Place::new();
    let owner = Owner::of(&place.open().await).await;
    assert!(owner.note("a", 0).await.is_committed());
    for role in ["writer", "reader", "projector", "archiver"] {
        let role = format!("orchestrix_{role}");
        assert!(may(&place, &role, READ).await, "{role} may read");
        assert!(!may(&place, &role, UPDATE).await, "{role} may not change an event");
        assert!(!may(&place, &role, TRUNCATE).await, "{role} may not remove all events");
        assert!(!may(&place, &role, "DROP TABLE orchestrix.meta").await, "{role} may not drop a table");
        assert!(!may(&place, &role, DELETE).await, "{role} may not remove an event");
    }
    for role in ["orchestrix_owner", "orchestrix_migrator"] {
        assert!(may(&place, role, "ALTER TABLE orchestrix.events ADD COLUMN more int").await, "{role}");
    }
}

#[tokio::test]
async fn a_projection_may_move_its_checkpoint_and_take_no_shard() {
    let place = Place::new();
    let owner = Owner::of(&place.open().await).await;
    let save = format!("SELECT orchestrix.save_checkpoint('balances', '{}', 0, 1, 5)", owner.incarnation);
    for (role, allowed) in [("orchestrix_projector", true), ("orchestrix_reader", false)] {
        assert_eq!(may(&place, role, &save).await, allowed, "{role}");
        assert!(!may(&place, role, "UPDATE orchestrix.shards SET incarnation = NULL").await, "{role}");
        assert!(!may(&place, role, "INSERT INTO orchestrix.checkpoints VALUES ('x', 0, 1)").await, "{role}");
    }
}

/// A service whose user is a writer and nothing else does all of its work, and does not migrate.
#[tokio::test]
async fn a_writer_has_all_rights_that_a_service_needs() {
    let place = Place::new();
    let user = fresh_name("user");
    let mut hand = place.by_hand().await;
    run(&mut hand, &format!("CREATE ROLE {user} LOGIN PASSWORD 'pass' IN ROLE orchestrix_writer")).await;
    let options = Postgres::open(&place.url_of(&user, "pass").await).expect("a URL");
    let store = options.connect().await.expect("nothing is pending, so it opens");
    let owner = Owner::of(&store).await;
    let node = node(&owner);
    store.join(node, Duration::from_mins(1)).await.expect("joins");
    assert!(owner.note("a", 0).await.is_committed());
    let renewed = store.renew(owner.incarnation, Duration::from_mins(1), Report::default()).await;
    assert!(renewed.expect("renews").holds);
    store.ping().await.expect("pings");
    assert_eq!(store.load(&stream("a"), 10).await.expect("loads").events.len(), 1);
    assert_eq!(store.stats().await.expect("counts").events, 1);
    let snapshot = SnapshotWrite {
        stream: stream("a"),
        shard: owner.commit("a", 0).shard,
        epoch: owner.claims[0].epoch,
        record: SnapshotRecord {
            version: Version::new(1),
            taken_at: Timestamp::from_micros(0),
            bytes: b"x".to_vec(),
        },
    };
    let saved = store.save_snapshots(owner.incarnation, vec![snapshot]).await.expect("saves");
    assert_eq!(saved, [SnapshotOutcome::Saved]);
    store.delete_snapshot(&stream("a")).await.expect("deletes");
    let claim = (owner.claims[0].shard, owner.claims[0].epoch);
    assert!(store.save_checkpoint("c", owner.incarnation, claim, Seq::new(1)).await.expect("saves"));
    let reason = "poison".to_owned();
    let since = Timestamp::from_micros(0);
    store
        .quarantine(QuarantineRecord { stream: stream("a"), reason, command_id: None, since })
        .await
        .expect("marks");
    assert!(store.release(&stream("a")).await.expect("releases"));
    store.leave(owner.incarnation).await.expect("leaves");
    store.close().await;
    drop(hand);
    place.drop_user(&user).await;
}

fn node(owner: &Owner) -> NodeRecord {
    NodeRecord {
        incarnation: owner.incarnation,
        name: "one".to_owned(),
        host: "here".to_owned(),
        boot_id: String::new(),
        pid_namespace: String::new(),
        pid: 1,
        pid_started: 0,
        application_version: "1".to_owned(),
        address: Some("127.0.0.1:7000".to_owned()),
    }
}
