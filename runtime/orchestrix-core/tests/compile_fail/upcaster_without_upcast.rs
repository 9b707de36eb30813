//! A frozen type must say what it means today.
use orchestrix_core::prelude::*;

#[derive(Event)]
enum AccountEvent {
    #[event("account.opened", version = 2, upcast_from = v1::Opened)]
    Opened { owner: String },
}

mod v1 {
    #[derive(orchestrix_core::prelude::Deserialize)]
    pub struct Opened {}
}

fn main() {}
