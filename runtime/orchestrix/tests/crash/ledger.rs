//! The aggregate of these stories. Each command stores several events, so that a part of a commit would show.

use orchestrix::core::prelude::*;

/// How many events a command stores.
pub const EVENTS: u64 = 3;

aggregate_id!(
    /// Names a ledger.
    pub struct LedgerId, "ledger id"
);

#[derive(Clone, Debug, PartialEq, Event)]
pub enum LedgerEvent {
    #[event("ledger.posted")]
    Posted { part: u64 },
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Ledger {
    pub parts: u64,
}

impl Aggregate for Ledger {
    const TYPE: AggregateType = aggregate_type!("ledger");
    type Id = LedgerId;
    type Event = LedgerEvent;

    fn apply(&mut self, _: &LedgerEvent) {
        self.parts += 1;
    }
}

/// Replies with the number of parts afterwards, which is the version of its last event.
#[derive(Clone, Debug, Serialize, Deserialize, Command)]
#[command("ledger.post", reply = u64)]
pub struct Post {}

impl Handle<Post> for Ledger {
    fn handle(&self, _: &Post, _: &Context) -> Decision<Self, Post> {
        emit_all((0..EVENTS).map(|part| LedgerEvent::Posted { part })).reply(self.parts + EVENTS)
    }
}

pub fn ledger(number: u64) -> LedgerId {
    LedgerId::from_key(&format!("l-{number}")).expect("a good id")
}
