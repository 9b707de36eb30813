//! Placeholder.
use proc_macro::TokenStream;
/// Placeholder.
#[proc_macro_derive(Event, attributes(event, events))]
pub fn event(_input: TokenStream) -> TokenStream {
    TokenStream::new()
}
/// Placeholder.
#[proc_macro_derive(Command, attributes(command))]
pub fn command(_input: TokenStream) -> TokenStream {
    TokenStream::new()
}
