//! Every mistake in the attributes of an enum is reported at its place, all in one go.
use orchestrix_core::Event;

#[derive(Event)]
enum Mistakes {
    NoName,
    #[event]
    Empty,
    #[event("Account Opened")]
    BadName,
    #[event("account.deposited", version = 3, upcast_from = Old)]
    MissingUpcaster { amount: u64 },
    #[event("account.moved", upcast_from = Old)]
    MissingVersion,
    #[event("account.withdrawn", codec = "xml")]
    BadCodec,
    #[event("account.closed", retired = true)]
    BadOption,
    #[event("account.renamed")]
    Pair(u8, u8),
    #[event("account.audited", codec = "bincode")]
    Unreadable {
        #[serde(skip_serializing_if = "Option::is_none")]
        note: Option<u8>,
    },
}

struct Old;

fn main() {}
