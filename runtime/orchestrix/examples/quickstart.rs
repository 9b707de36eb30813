//! The whole of it in one file: an aggregate, a node, commands, a read.
//!
//! Run it with `cargo run --package orchestrix --example quickstart`.

use orchestrix::store::Sqlite;
use orchestrix::{Consistency, Orchestrix, SendError};
use orchestrix_core::prelude::*;

aggregate_id!(struct SeatId, "seat id");

/// A seat in a theatre, free or taken.
#[derive(Default, Serialize, Deserialize)]
struct Seat {
    guest: Option<String>,
}

#[derive(Event)]
enum SeatEvent {
    #[event("seat.booked")]
    Booked { guest: String },
}

impl Aggregate for Seat {
    const TYPE: AggregateType = aggregate_type!("seat");
    type Id = SeatId;
    type Event = SeatEvent;

    fn commands(list: &mut impl CommandList<Self>) {
        list.add::<Book>();
    }

    fn apply(&mut self, event: &SeatEvent) {
        match event {
            SeatEvent::Booked { guest } => self.guest = Some(guest.clone()),
        }
    }
}

#[derive(Serialize, Deserialize, Command)]
#[command("seat.book", refusal = Taken)]
struct Book {
    guest: String,
}

#[derive(Debug, Serialize, Deserialize, thiserror::Error)]
#[error("the seat is taken by {guest}")]
struct Taken {
    guest: String,
}

impl Handle<Book> for Seat {
    fn handle(&self, command: &Book, _: &Context) -> Decision<Self, Book> {
        match &self.guest {
            Some(guest) => Err(Taken { guest: guest.clone() }),
            None => emit(SeatEvent::Booked { guest: command.guest.clone() }).done(),
        }
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // A service would name a file of its own, such as `data/theatre.db`.
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("theatre.db");

    let node = Orchestrix::builder().store(Sqlite::open(&file)).aggregate::<Seat>().start().await?;
    let seat = node.of::<Seat>(SeatId::from_key("row-5-seat-12")?);

    // Answered when the event is safe on the disk.
    seat.send(Book { guest: "Ada".to_owned() }).await?;

    // The domain says no; nothing was stored and nothing will be.
    match seat.send(Book { guest: "Grace".to_owned() }).await {
        Err(SendError::Refused(Taken { guest })) => println!("refused: {guest} was first"),
        other => anyhow::bail!("two guests on one seat: {other:?}"),
    }
    node.shutdown().await;

    // Another day: the seat is rebuilt from its events.
    let node = Orchestrix::builder().store(Sqlite::open(&file)).aggregate::<Seat>().start().await?;
    let seat = node.of::<Seat>(SeatId::from_key("row-5-seat-12")?);
    let guest = seat.read(Consistency::Leased, |seat| seat.guest.clone()).await?;
    assert_eq!(guest.as_deref(), Some("Ada"));
    node.shutdown().await;
    Ok(())
}
