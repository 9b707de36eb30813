//! What `#[derive(Command)]` writes: the name, the reply and the refusal.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{DeriveInput, Result};

use crate::attr::{self, CommandAttr};

/// Writes `impl Command`.
pub(crate) fn expand(input: &DeriveInput) -> Result<TokenStream> {
    attr::no_generics(&input.generics, "a command")?;
    let command: CommandAttr = attr::required(
        &input.attrs,
        "command",
        &input.ident,
        r#"#[command("account.withdraw", reply = Balance, refusal = WithdrawRefusal)]"#,
    )?;
    let (ident, name) = (&input.ident, &command.name);
    let assertion = attr::name_assertion(name);
    let reply = command.reply.map_or_else(|| quote!(()), |reply| quote!(#reply));
    let refusal =
        command.refusal.map_or_else(|| quote!(::orchestrix_core::Never), |refusal| quote!(#refusal));
    Ok(quote! {
        #assertion
        #[automatically_derived]
        impl ::orchestrix_core::Command for #ident {
            const NAME: &'static str = #name;
            type Reply = #reply;
            type Refusal = #refusal;
        }
    })
}
