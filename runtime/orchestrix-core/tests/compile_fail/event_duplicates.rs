//! Two events of one name and version are refused, also when one of them is only read.
use orchestrix_core::prelude::*;

#[derive(Event)]
enum Twice {
    #[event("account.opened")]
    Opened,
    #[event("account.opened")]
    Reopened,
}

#[derive(Event)]
#[events(retired("note.read", version = 1, from = Old))]
enum Retired {
    #[event("note.read")]
    Read,
}

#[derive(Deserialize)]
struct Old;

#[derive(Event)]
struct NotAnEnum;

fn main() {}
