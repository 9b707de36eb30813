//! The pair of aggregate and command is checked, and so is that a command is one at all.
use orchestrix_core::prelude::*;

#[derive(Default, Serialize, Deserialize)]
struct Account;

#[derive(Event)]
enum AccountEvent {
    #[event("account.closed")]
    Closed,
}

aggregate_id!(struct AccountId, "account id");

impl Aggregate for Account {
    const TYPE: AggregateType = aggregate_type!("account");
    type Id = AccountId;
    type Event = AccountEvent;

    fn apply(&mut self, _: &AccountEvent) {}
}

#[derive(Command, Serialize, Deserialize)]
#[command("order.ship")]
struct Ship;

#[derive(Command, Serialize, Deserialize)]
struct Nameless;

fn handled<A: Handle<C>, C: Command>() {}

fn command<C: Command>() {}

fn main() {
    handled::<Account, Ship>();
    command::<Account>();
}
