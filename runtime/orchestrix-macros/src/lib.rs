//! The derives of `orchestrix-core`: [`Event`](macro@Event) and [`Command`](macro@Command).
//!
//! They write impls that can be written by hand, as `docs/guide/aggregate.md` shows, and no control flow of the
//! domain. Names are checked here, when the program is compiled; what a name means stays with the trait's own docs.
//! Read `attr` for the attributes, then `event`, `payload` and `command` for what becomes of them.

mod attr;
mod command;
mod event;
mod payload;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Writes `orchestrix_core::Event` for an enum whose variants carry their names in the log.
///
/// On each variant: `#[event("account.deposited")]`, and where needed
///
/// * `version = 2`, the schema version that is written (default 1),
/// * `upcast_from = v1::Deposited` or `upcast_from = [v1::Deposited, v2::Deposited]`, one frozen type for each older
///   version, in order from 1; each implements `Deserialize` and `Upcast<TheEnum>`,
/// * `codec = "bincode"`, for an event that is too large or too frequent for JSON (default `"json"`).
///
/// On the enum: `#[events(retired("account.renamed", version = 1, from = v1::Renamed))]`, for a schema that is only
/// read. A variant has named fields (the payload is an object of them), no fields (the payload is `{}`), or one field
/// without a name (the payload is that value). The fields' `#[serde(...)]` attributes count, and so does `rename_all`
/// on a variant and `rename_all_fields` on the enum.
///
/// ```
/// use orchestrix_core::Event as _;
///
/// #[derive(orchestrix_core::Event)]
/// enum AccountEvent {
///     #[event("account.opened")]
///     Opened { owner: String },
/// }
///
/// let payload = AccountEvent::Opened { owner: "Ada".into() }.encode()?;
/// assert_eq!(payload.bytes, br#"{"owner":"Ada"}"#);
/// # Ok::<(), orchestrix_core::EncodeError>(())
/// ```
#[proc_macro_derive(Event, attributes(event, events, serde))]
pub fn event(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    event::expand(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Writes `orchestrix_core::Command` for a type, from `#[command("account.withdraw", reply = Balance, refusal = No)]`.
///
/// `reply` is `()` and `refusal` is `orchestrix_core::Never` where they are left out.
///
/// ```
/// use orchestrix_core::{Command as _, Never, prelude::*};
///
/// #[derive(Command, Serialize, Deserialize)]
/// #[command("account.rename")]
/// struct Rename { owner: String }
///
/// assert_eq!(Rename::NAME, "account.rename");
/// ```
#[proc_macro_derive(Command, attributes(command))]
pub fn command(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    command::expand(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}
