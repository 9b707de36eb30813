//! Reads that see the index and the tail as one: what is in neither was not answered when the read began.
//!
//! The order is the point. The index is read first, in one statement, and the tail after it. Between the two, events
//! may leave the tail for the index, and would be seen in neither: then the read begins again. So whatever was
//! answered before the read began is found (obligation 10 of a store), and the answer is the log at one moment, that
//! of the look at the tail: later commits are in the tail at the earliest after it, and in the index after they
//! left the tail. A commit enters the tail as a whole and stays there until the index has all of it.
//!
//! What the tail knows is where events lie. They never change, so reading them is a second step without a moment of
//! its own.

use std::collections::HashMap;
use std::sync::{MutexGuard, PoisonError};

use orchestrix_core::store::RecordedEvent;
use sqlx::sqlite::{SqliteArguments, SqliteRow};

use super::late;
use super::pack::{packed_event, packed_stream, unpack_named_events};
use super::pages::EVENTS_MAX;
use super::place::{position, shard_and_seq};
use super::read::{Failed, packed};
use super::readers::Readers;
use super::rows::{Malformed, bind};
use super::tail::{Late, Tail};

/// The events at places, which are bound as a JSON array.
pub(super) const PLACES: &str = concat!(
    "SELECT CAST(group_concat(",
    packed_stream!(),
    packed_event!(),
    ", '') AS BLOB) FROM json_each(?) AS wanted CROSS JOIN events AS e ON e.pos = wanted.value ",
    "CROSS JOIN streams AS s ON s.stream = e.stream"
);

impl Readers {
    /// Runs one statement on the index, and looks for what the tail that goes with the answer knows besides.
    ///
    /// `look` holds up the writer: it copies what it needs and leaves everything else to its caller.
    pub(super) async fn combine<T>(
        &self,
        text: &'static str,
        arguments: impl Fn() -> SqliteArguments,
        look: impl Fn(&[SqliteRow], &Tail) -> Result<T, Malformed>,
    ) -> Result<(Vec<SqliteRow>, T), Failed> {
        loop {
            self.follow().await?;
            let before = self.tail().forgotten();
            let rows = self.fetch(text, arguments()).await?;
            self.follow().await?;
            let tail = self.tail();
            if tail.forgotten() == before {
                let seen = look(&rows, &tail)?;
                drop(tail);
                return Ok((rows, seen));
            }
        }
    }

    /// Looks at the tail; nobody holds it for longer than it takes to copy a batch.
    pub(super) fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings the tail up to date where another process writes; the writer of this one does so itself.
    async fn follow(&self) -> Result<(), Failed> {
        if !self.follows {
            return Ok(());
        }
        let arguments = late::known(self.tail().heads());
        let (found, indexed) = late::unpack(&self.fetch(late::LATE, arguments).await?)?;
        self.tail().follow(found, &indexed);
        Ok(())
    }

    /// Reads the events at places that the tail named, in the order asked for.
    pub(super) async fn fetch_late(&self, wanted: &[Late]) -> Result<Vec<RecordedEvent>, Failed> {
        let mut found = HashMap::with_capacity(wanted.len());
        for part in wanted.chunks(EVENTS_MAX) {
            let places: Vec<i64> = part.iter().map(|late| late.position).collect();
            let mut arguments = SqliteArguments::default();
            bind(&mut arguments, serde_json::json!(places).to_string());
            let rows = self.fetch(PLACES, arguments).await?;
            let events = unpack_named_events(packed(&rows, 0)?)?;
            found.extend(events.into_iter().map(|event| (position(event.shard, event.seq), event)));
        }
        let event = |late: &Late| {
            found.get(&late.position).cloned().ok_or_else(|| {
                let (shard, seq) = shard_and_seq(late.position);
                Malformed(format!("seq {seq} of shard {shard} was stored and is not there"))
            })
        };
        Ok(wanted.iter().map(event).collect::<Result<_, _>>()?)
    }
}

/// Returns what the tail knows of a stream beyond `events`, which came from the index in the order of their versions.
///
/// Fails when the two know another place for the same version.
pub(super) fn beyond(events: &[RecordedEvent], late: Vec<Late>) -> Result<Vec<Late>, Malformed> {
    let mut beyond = Vec::with_capacity(late.len());
    for late in late {
        let same = events.binary_search_by_key(&(late.version as u64), |event| event.version.get());
        match same.map(|at| position(events[at].shard, events[at].seq)) {
            Ok(indexed) if indexed != late.position => return Err(late.stored_twice(indexed)),
            Ok(_) => {}
            Err(_) => beyond.push(late),
        }
    }
    Ok(beyond)
}
