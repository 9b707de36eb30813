//! What stands in `#[event(...)]`, `#[events(...)]` and `#[command(...)]`, read and checked.
//!
//! Every mistake is reported at the words that hold it, with the remedy. Whether the attributes of one enum fit
//! together is decided in [`crate::event`].

use proc_macro2::Span;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Attribute, Error, Ident, LitInt, LitStr, Result, Token, Type, bracketed, parenthesized, token};

/// The form that an event's payload is written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Codec {
    #[default]
    Json,
    Bincode,
}

/// `#[event("account.deposited", version = 2, codec = "json", upcast_from = v1::Deposited)]`.
pub(crate) struct EventAttr {
    /// The name in the log.
    pub(crate) name: LitStr,
    /// The schema version that is written.
    pub(crate) version: u16,
    /// The codec that is written.
    pub(crate) codec: Codec,
    /// The frozen types of the older versions, from 1 on.
    pub(crate) upcast_from: Vec<Type>,
}

impl Parse for EventAttr {
    fn parse(input: ParseStream) -> Result<Self> {
        let (mut version, mut codec, mut upcast_from) = (1, Codec::Json, Vec::new());
        let name = name_and_options(input, |key, value| {
            match key.to_string().as_str() {
                "version" => version = schema_version(value)?,
                "codec" => codec = codec_name(value)?,
                "upcast_from" => upcast_from = one_or_many(value)?,
                _ => return Err(unknown_option(key, "`version`, `codec` and `upcast_from`")),
            }
            Ok(())
        })?;
        Ok(Self { name, version, codec, upcast_from })
    }
}

/// `retired("account.renamed", version = 1, from = v1::Renamed)`, inside `#[events(...)]`.
pub(crate) struct RetiredAttr {
    /// The name in the log.
    pub(crate) name: LitStr,
    /// The schema version that is read.
    pub(crate) version: u16,
    /// The frozen type of that schema.
    pub(crate) from: Type,
}

impl Parse for RetiredAttr {
    fn parse(input: ParseStream) -> Result<Self> {
        let word: Ident = input.parse()?;
        if word != "retired" {
            return Err(Error::new(
                word.span(),
                "`events` knows `retired(\"name\", version = 1, from = Type)` only",
            ));
        }
        let content;
        parenthesized!(content in input);
        let (mut version, mut from) = (1, None);
        let name = name_and_options(&content, |key, value| {
            match key.to_string().as_str() {
                "version" => version = schema_version(value)?,
                "from" => from = Some(value.parse()?),
                _ => return Err(unknown_option(key, "`version` and `from`")),
            }
            Ok(())
        })?;
        let from = from.ok_or_else(|| {
            Error::new(name.span(), "a retired event needs `from = ...`, the frozen type of its payload")
        })?;
        Ok(Self { name, version, from })
    }
}

/// `#[command("account.withdraw", reply = Balance, refusal = WithdrawRefusal)]`.
pub(crate) struct CommandAttr {
    /// The name on the wire.
    pub(crate) name: LitStr,
    /// The reply, where it is not `()`.
    pub(crate) reply: Option<Type>,
    /// The refusal, where there is one.
    pub(crate) refusal: Option<Type>,
}

impl Parse for CommandAttr {
    fn parse(input: ParseStream) -> Result<Self> {
        let (mut reply, mut refusal) = (None, None);
        let name = name_and_options(input, |key, value| {
            match key.to_string().as_str() {
                "reply" => reply = Some(value.parse()?),
                "refusal" => refusal = Some(value.parse()?),
                _ => return Err(unknown_option(key, "`reply` and `refusal`")),
            }
            Ok(())
        })?;
        Ok(Self { name, reply, refusal })
    }
}

/// Reads every `#[events(retired(...), ...)]` of an enum.
pub(crate) fn retired(attrs: &[Attribute]) -> Result<Vec<RetiredAttr>> {
    let mut found = Vec::new();
    for attr in attrs.iter().filter(|attr| attr.path().is_ident("events")) {
        found.extend(attr.parse_args_with(Punctuated::<RetiredAttr, Token![,]>::parse_terminated)?);
    }
    Ok(found)
}

/// Reads the one attribute called `word`; `owner` is where it is missed, `example` what to write there.
pub(crate) fn required<T: Parse>(attrs: &[Attribute], word: &str, owner: &Ident, example: &str) -> Result<T> {
    let mut found = attrs.iter().filter(|attr| attr.path().is_ident(word));
    let Some(attr) = found.next() else {
        return Err(Error::new(owner.span(), format!("`{owner}` has no name yet; add `{example}`")));
    };
    if let Some(second) = found.next() {
        return Err(Error::new_spanned(
            second,
            format!("`{owner}` has a name already; remove one of the two"),
        ));
    }
    if attr.meta.require_list().is_err() {
        return Err(Error::new_spanned(attr, format!("the name is missing; write `{example}`")));
    }
    attr.parse_args()
}

/// Reads `"name"`, then `, key = value` to the end, and gives each key to `option` with the input at its value.
fn name_and_options(
    input: ParseStream,
    mut option: impl FnMut(&Ident, ParseStream) -> Result<()>,
) -> Result<LitStr> {
    let name = checked_name(input)?;
    let mut seen: Vec<Ident> = Vec::new();
    while !input.is_empty() {
        input.parse::<Token![,]>()?;
        if input.is_empty() {
            break;
        }
        let key: Ident = input.parse()?;
        if seen.contains(&key) {
            return Err(Error::new(key.span(), format!("`{key}` is given twice")));
        }
        input.parse::<Token![=]>()?;
        option(&key, input)?;
        seen.push(key);
    }
    Ok(name)
}

fn checked_name(input: ParseStream) -> Result<LitStr> {
    let name: LitStr = input.parse().map_err(|error| {
        Error::new(error.span(), "the name comes first, as a text such as \"account.opened\"")
    })?;
    if is_name(&name.value()) {
        return Ok(name);
    }
    let problem =
        "a name has 1 to 128 of a-z, 0-9, '-', '_', '.', and starts with a letter, as in \"account.opened\"";
    Err(Error::new(name.span(), problem))
}

/// The rule of `orchestrix_core::stream::is_name`, here for the sake of a good message. The derives also emit an
/// assertion of that function, so this copy can never let a name through that the core refuses.
fn is_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
    name.len() <= 128 && name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(allowed)
}

fn schema_version(input: ParseStream) -> Result<u16> {
    let number: LitInt = input.parse()?;
    number
        .base10_parse::<u16>()
        .ok()
        .filter(|version| *version > 0)
        .ok_or_else(|| Error::new(number.span(), "a schema version is a number from 1 to 65535"))
}

fn codec_name(input: ParseStream) -> Result<Codec> {
    let name: LitStr = input.parse()?;
    match name.value().as_str() {
        "json" => Ok(Codec::Json),
        "bincode" => Ok(Codec::Bincode),
        _ => Err(Error::new(name.span(), "the codecs are \"json\" and \"bincode\"")),
    }
}

fn one_or_many(input: ParseStream) -> Result<Vec<Type>> {
    if !input.peek(token::Bracket) {
        return Ok(vec![input.parse()?]);
    }
    let content;
    bracketed!(content in input);
    Ok(Punctuated::<Type, Token![,]>::parse_terminated(&content)?.into_iter().collect())
}

fn unknown_option(key: &Ident, known: &str) -> Error {
    Error::new(key.span(), format!("`{key}` is no option here; there are {known}"))
}

/// Refuses generics: what is stored needs one shape, and one name for it.
pub(crate) fn no_generics(generics: &syn::Generics, what: &str) -> Result<()> {
    if generics.params.is_empty() {
        return Ok(());
    }
    Err(Error::new_spanned(generics, format!("{what} has no generics: one name in the log means one shape")))
}

/// Emits the assertion that ties a name to the core's own rule.
pub(crate) fn name_assertion(name: &LitStr) -> proc_macro2::TokenStream {
    let span: Span = name.span();
    quote::quote_spanned! {span=>
        const _: () = assert!(::orchestrix_core::stream::is_name(#name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_the_rule_of_the_core() {
        assert!(is_name("account.opened-2_x"));
        for bad in ["", "Account", "1a", "a b", "ä", &"a".repeat(129)] {
            assert!(!is_name(bad), "{bad:?} is no name");
        }
    }

    #[test]
    fn an_attribute_is_read_whole() {
        let attr: EventAttr =
            syn::parse_str(r#""a.b", version = 3, codec = "bincode", upcast_from = [v1::B, v2::B],"#)
                .expect("parses");
        assert_eq!((attr.name.value().as_str(), attr.version, attr.codec), ("a.b", 3, Codec::Bincode));
        assert_eq!(attr.upcast_from.len(), 2);
    }

    #[test]
    fn a_mistake_is_named() {
        let problem = |text: &str| syn::parse_str::<EventAttr>(text).err().expect("an error").to_string();
        assert_eq!(problem(r#""a", version = 0"#), "a schema version is a number from 1 to 65535");
        assert_eq!(problem(r#""a", version = 1, version = 2"#), "`version` is given twice");
        assert_eq!(problem(r#""a", codec = "xml""#), "the codecs are \"json\" and \"bincode\"");
        assert!(problem(r#""a", name = 1"#).contains("`name` is no option here"));
        assert!(problem("version = 1").contains("the name comes first"));
    }
}
