//! Who may move events: the archiver, and by the functions alone.

use orchestrix::ops::archive::Archive;
use orchestrix::store::Postgres;
use sqlx::{AssertSqlSafe, Executor as _};

use super::{LATER, filled};
use crate::store_postgres::owner::run;
use crate::store_postgres::place::{Place, fresh_name};

/// Tells whether a role may do something; whatever it did is undone.
async fn may(place: &Place, role: &str, text: &str) -> bool {
    let mut hand = place.by_hand().await;
    run(&mut hand, &format!("BEGIN; SET LOCAL ROLE orchestrix_{role}")).await;
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

#[tokio::test]
async fn nobody_but_the_archiver_moves_events_and_it_by_the_function_alone() {
    let place = filled(1, 1).await;
    let slice = "SELECT * FROM orchestrix.archive_slice(0, now(), 10, '{}', '{}', '{}')";
    let writes = [
        "DELETE FROM orchestrix.events",
        "DELETE FROM orchestrix.events_archive",
        "UPDATE orchestrix.events_archive SET epoch = 1",
        "INSERT INTO orchestrix.events_archive SELECT * FROM orchestrix.events_archive",
        "UPDATE orchestrix.archive_slices SET restored_at = now()",
        "DELETE FROM orchestrix.backups",
    ];
    for role in ["writer", "reader", "projector", "archiver"] {
        for text in writes {
            assert!(!may(&place, role, text).await, "{role}: {text}");
        }
        assert!(may(&place, role, "SELECT count(*) FROM orchestrix.events_archive").await, "{role} reads");
        assert_eq!(may(&place, role, slice).await, role == "archiver", "{role}");
        assert!(!may(&place, role, "SELECT * FROM orchestrix.import_begin('x')").await, "{role}");
    }
}

/// A user that is an archiver and nothing else does all of the work.
#[tokio::test]
async fn an_archiver_has_all_rights_that_the_archive_needs() {
    let place = filled(2, 20).await;
    let user = fresh_name("archiver");
    let mut hand = place.by_hand().await;
    run(&mut hand, &format!("CREATE ROLE {user} LOGIN PASSWORD 'pass' IN ROLE orchestrix_archiver")).await;
    let options = Postgres::open(&place.url_of(&user, "pass").await).expect("a URL");
    let store = options.connect().await.expect("nothing is pending, so it opens");
    let archive = || Archive::new(store.clone());
    assert_eq!(archive().older_than(LATER).await.expect("moves").events, 36);
    assert_eq!(archive().verify().await.expect("verifies").problems, Vec::<String>::new());
    assert_eq!(archive().restore().await.expect("restores").events, 36);
    orchestrix::core::EventStore::close(&store).await;
    drop(hand);
    place.drop_user(&user).await;
}
