//! What `#[derive(Event)]` writes: the table of schemas, and the ways into the log and back.

use std::collections::HashSet;

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DataEnum, DeriveInput, Error, Ident, LitStr, Result, Type, Variant};

use crate::attr::{self, Codec, EventAttr, RetiredAttr};
use crate::payload::{self, PayloadCode};

/// Writes `impl Event`.
pub(crate) fn expand(input: &DeriveInput) -> Result<TokenStream> {
    attr::no_generics(&input.generics, "an event")?;
    let variants = written_variants(variants_of(input)?, payload::find(&input.attrs, "rename_all_fields")?)?;
    let schemas = Schemas::collect(&variants, attr::retired(&input.attrs)?)?;
    Ok(implementation(&input.ident, &variants, &schemas))
}

fn variants_of(input: &DeriveInput) -> Result<&DataEnum> {
    let problem = match &input.data {
        Data::Enum(data) if !data.variants.is_empty() => return Ok(data),
        Data::Enum(_) => "an aggregate needs at least one event; add a variant",
        Data::Struct(_) | Data::Union(_) => "events are an enum with one variant for each event",
    };
    Err(Error::new(input.ident.span(), problem))
}

/// One variant with its attribute and the code of its payload.
struct Written {
    ident: Ident,
    attr: EventAttr,
    payload: PayloadCode,
}

/// Reads all variants, and reports the mistakes of all of them at once.
fn written_variants(data: &DataEnum, rename_all_fields: Option<syn::Meta>) -> Result<Vec<Written>> {
    let mut written = Vec::new();
    let mut mistakes: Option<Error> = None;
    for variant in &data.variants {
        match written_variant(variant, rename_all_fields.as_ref()) {
            Ok(one) => written.push(one),
            Err(mistake) => match &mut mistakes {
                Some(mistakes) => mistakes.combine(mistake),
                None => mistakes = Some(mistake),
            },
        }
    }
    mistakes.map_or(Ok(written), Err)
}

fn written_variant(variant: &Variant, rename_all_fields: Option<&syn::Meta>) -> Result<Written> {
    let attr: EventAttr =
        attr::required(&variant.attrs, "event", &variant.ident, r#"#[event("account.opened")]"#)?;
    check_upcasters(&attr)?;
    let payload = payload::payload(variant, attr.codec, rename_all_fields)?;
    Ok(Written { ident: variant.ident.clone(), attr, payload })
}

/// Every version before the written one must stay readable.
fn check_upcasters(attr: &EventAttr) -> Result<()> {
    let (needed, given) = (usize::from(attr.version - 1), attr.upcast_from.len());
    if needed == given {
        return Ok(());
    }
    let name = attr.name.value();
    let problem = if given < needed {
        let missing = given + 1;
        format!(
            "version {missing} of \"{name}\" would become unreadable: `upcast_from` needs {needed} frozen type(s), \
             one for each version before {}, and has {given}",
            attr.version
        )
    } else {
        format!(
            "`upcast_from` has {given} type(s), and \"{name}\" has {needed} version(s) before {}; raise `version`",
            attr.version
        )
    };
    Err(Error::new(attr.name.span(), problem))
}

/// One schema that is read.
struct Schema {
    name: LitStr,
    version: u16,
    /// The frozen type of an old schema; `None` for the one that is written.
    from: Option<Type>,
}

/// All schemas of one enum, by name and then by version.
struct Schemas(Vec<Schema>);

impl Schemas {
    fn collect(variants: &[Written], retired: Vec<RetiredAttr>) -> Result<Self> {
        let mut all = Vec::new();
        for EventAttr { name, version, upcast_from, .. } in variants.iter().map(|written| &written.attr) {
            let old = (1_u16..).zip(upcast_from);
            all.extend(old.map(|(version, from)| Schema {
                name: name.clone(),
                version,
                from: Some(from.clone()),
            }));
            all.push(Schema { name: name.clone(), version: *version, from: None });
        }
        all.extend(retired.into_iter().map(|RetiredAttr { name, version, from }| Schema {
            name,
            version,
            from: Some(from),
        }));
        Self(all).without_duplicates()
    }

    /// Refuses two schemas of one name and version, and sorts the rest.
    fn without_duplicates(mut self) -> Result<Self> {
        let mut seen = HashSet::new();
        for schema in &self.0 {
            if !seen.insert((schema.name.value(), schema.version)) {
                let problem = format!(
                    "\"{}\" version {} is taken by another event of this enum; choose another name",
                    schema.name.value(),
                    schema.version
                );
                return Err(Error::new(schema.name.span(), problem));
            }
        }
        self.0.sort_by_key(|schema| (schema.name.value(), schema.version));
        Ok(self)
    }

    fn table(&self) -> impl Iterator<Item = TokenStream> {
        self.0.iter().map(|Schema { name, version, from }| {
            let current = from.is_none();
            quote! {
                ::orchestrix_core::EventSchema { event_type: #name, schema_version: #version, current: #current }
            }
        })
    }

    fn upcasting_arms(&self) -> impl Iterator<Item = TokenStream> {
        self.0.iter().filter_map(|Schema { name, version, from }| {
            let from = from.as_ref()?;
            Some(quote! {
                (#name, #version) => {
                    let old = raw.read::<#from>()?;
                    let events = <#from as ::orchestrix_core::Upcast<Self>>::upcast(old);
                    ::core::result::Result::Ok(::orchestrix_core::Decoded::Many(events))
                }
            })
        })
    }
}

fn implementation(ident: &Ident, variants: &[Written], schemas: &Schemas) -> TokenStream {
    let assertions = schemas.0.iter().map(|schema| attr::name_assertion(&schema.name));
    let structs = variants.iter().map(|written| &written.payload.structs);
    let idents: Vec<_> = variants.iter().map(|written| &written.ident).collect();
    let patterns = variants.iter().map(|written| &written.payload.pattern);
    let names = variants.iter().map(|written| &written.attr.name);
    let versions = variants.iter().map(|written| written.attr.version);
    let payloads = variants.iter().map(encoded);
    let (table, decoding, upcasting) =
        (schemas.table(), variants.iter().map(decoding_arm), schemas.upcasting_arms());
    quote! {
        const _: () = {
            #(#assertions)*
            #(#structs)*

            #[automatically_derived]
            impl ::orchestrix_core::Event for #ident {
                const SCHEMAS: &'static [::orchestrix_core::EventSchema] = &[#(#table),*];

                fn event_type(&self) -> &'static str {
                    match self { #(Self::#idents { .. } => #names),* }
                }

                fn schema_version(&self) -> u16 {
                    match self { #(Self::#idents { .. } => #versions),* }
                }

                fn encode(
                    &self,
                ) -> ::core::result::Result<::orchestrix_core::Payload, ::orchestrix_core::EncodeError> {
                    match self { #(#patterns => #payloads),* }
                }

                fn decode(
                    raw: ::orchestrix_core::RawEvent<'_>,
                ) -> ::core::result::Result<::orchestrix_core::Decoded<Self>, ::orchestrix_core::DecodeError> {
                    match (raw.event_type, raw.schema_version) {
                        #(#decoding)*
                        #(#upcasting)*
                        _ => ::core::result::Result::Err(::orchestrix_core::private::unknown::<Self>(&raw)),
                    }
                }
            }
        };
    }
}

fn encoded(written: &Written) -> TokenStream {
    let (name, value) = (&written.attr.name, &written.payload.written);
    match written.attr.codec {
        Codec::Json => quote!(::orchestrix_core::Payload::json(#name, &#value)),
        Codec::Bincode => quote!(::orchestrix_core::Payload::bincode(#name, &#value)),
    }
}

fn decoding_arm(written: &Written) -> TokenStream {
    let EventAttr { name, version, .. } = &written.attr;
    let PayloadCode { read_type, rebuilt, .. } = &written.payload;
    quote! {
        (#name, #version) => {
            let read = raw.read::<#read_type>()?;
            ::core::result::Result::Ok(::orchestrix_core::Decoded::One(#rebuilt))
        }
    }
}
