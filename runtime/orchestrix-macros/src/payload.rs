//! The hidden structs that give one variant its payload: one to write from borrowed fields, one to read.
//!
//! The payload holds the fields under their serde names, never the variant's name or a Rust path.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote};
use syn::punctuated::Punctuated;
use syn::{Attribute, Error, Field, Fields, Ident, Meta, Result, Token, Variant};

use crate::attr::Codec;

/// The code around one variant's payload.
pub(crate) struct PayloadCode {
    /// The two structs.
    pub(crate) structs: TokenStream,
    /// A pattern that takes the variant apart.
    pub(crate) pattern: TokenStream,
    /// An expression of the struct to write, over the pattern's bindings.
    pub(crate) written: TokenStream,
    /// The type to read.
    pub(crate) read_type: Ident,
    /// An expression of the variant, over a `read` of that type.
    pub(crate) rebuilt: TokenStream,
}

/// Writes the payload code of a variant; `rename_all_fields` is the enum's serde setting of that name.
pub(crate) fn payload(
    variant: &Variant,
    codec: Codec,
    rename_all_fields: Option<&Meta>,
) -> Result<PayloadCode> {
    let ident = &variant.ident;
    let (written_type, read_type) = (format_ident!("__{ident}Written"), format_ident!("__{ident}Read"));
    let shape = Shape::of(variant, codec)?;
    let members = shape.members();
    let bindings: Vec<Ident> = (0..members.len()).map(|at| format_ident!("__field_{at}")).collect();
    let structs = shape.structs(&written_type, &read_type, serde_options(variant, rename_all_fields)?);
    Ok(PayloadCode {
        structs,
        pattern: quote!(Self::#ident { #(#members: #bindings),* }),
        written: quote!(#written_type { #(#members: #bindings),* }),
        rebuilt: quote!(Self::#ident { #(#members: read.#members),* }),
        read_type,
    })
}

/// A variant's fields, each with the serde attributes that it keeps.
struct Shape<'a> {
    fields: Vec<(&'a Field, Vec<&'a Attribute>)>,
    /// Whether the payload is the one field's own value.
    bare: bool,
}

impl<'a> Shape<'a> {
    fn of(variant: &'a Variant, codec: Codec) -> Result<Self> {
        let bare = match &variant.fields {
            Fields::Unnamed(fields) if fields.unnamed.len() == 1 => true,
            Fields::Unnamed(fields) => {
                let problem = "name the fields: places in a tuple say nothing to the readers of the log";
                return Err(Error::new_spanned(fields, problem));
            }
            Fields::Named(_) | Fields::Unit => false,
        };
        let mut fields = Vec::new();
        for field in &variant.fields {
            let kept: Vec<_> = field.attrs.iter().filter(|attr| attr.path().is_ident("serde")).collect();
            if codec == Codec::Bincode {
                kept.iter().try_for_each(|attr| bincode_can_read(attr))?;
            }
            fields.push((field, kept));
        }
        Ok(Self { fields, bare })
    }

    /// Names the members as in `Self::Variant { owner: ..., 0: ... }`, which suits every kind of variant.
    fn members(&self) -> Vec<syn::Member> {
        let member = |(at, (field, _)): (usize, &(&Field, _))| {
            field.ident.clone().map_or_else(|| syn::Member::from(at), syn::Member::from)
        };
        self.fields.iter().enumerate().map(member).collect()
    }

    fn structs(&self, written_type: &Ident, read_type: &Ident, serde_options: TokenStream) -> TokenStream {
        let lifetime = (!self.fields.is_empty()).then(|| quote!(<'a>));
        let written_body = self.body(Some(quote!(&'a)));
        let read_body = self.body(None);
        let transparent = self.bare.then(|| quote!(#[serde(transparent)]));
        quote! {
            #[allow(dead_code, reason = "a field with `serde(skip)` is taken along and not written")]
            #[derive(::orchestrix_core::private::serde::Serialize)]
            #[serde(crate = "::orchestrix_core::private::serde", #serde_options)]
            #transparent
            struct #written_type #lifetime #written_body

            #[derive(::orchestrix_core::private::serde::Deserialize)]
            #[serde(crate = "::orchestrix_core::private::serde", #serde_options)]
            #transparent
            struct #read_type #read_body
        }
    }

    fn body(&self, reference: Option<TokenStream>) -> TokenStream {
        let fields = self.fields.iter().map(|(field, attrs)| {
            let (name, ty) = (field.ident.iter(), &field.ty);
            quote!(#(#attrs)* #(#name:)* #reference #ty)
        });
        if self.bare { quote!((#(#fields),*);) } else { quote!({ #(#fields),* }) }
    }
}

/// Refuses serde attributes that bincode writes and cannot read back, since its bytes do not name the fields.
fn bincode_can_read(attr: &Attribute) -> Result<()> {
    for meta in metas(attr)? {
        if meta.path().is_ident("skip_serializing_if") || meta.path().is_ident("flatten") {
            let problem = "bincode cannot read this back; remove it or write the event with codec = \"json\"";
            return Err(Error::new_spanned(meta, problem));
        }
    }
    Ok(())
}

/// Returns the serde options of the hidden structs: how the fields are called.
fn serde_options(variant: &Variant, rename_all_fields: Option<&Meta>) -> Result<TokenStream> {
    if let Some(own) = find(&variant.attrs, "rename_all")? {
        return Ok(quote!(#own));
    }
    let Some(common) = rename_all_fields else { return Ok(TokenStream::new()) };
    // On a struct the same setting is called `rename_all`.
    let word = Ident::new("rename_all", Span::call_site());
    Ok(match common {
        Meta::NameValue(pair) => {
            let value = &pair.value;
            quote!(#word = #value)
        }
        Meta::List(list) => {
            let tokens = &list.tokens;
            quote!(#word(#tokens))
        }
        Meta::Path(path) => quote!(#path),
    })
}

/// Finds one option among the `#[serde(...)]` attributes.
pub(crate) fn find(attrs: &[Attribute], word: &str) -> Result<Option<Meta>> {
    for attr in attrs.iter().filter(|attr| attr.path().is_ident("serde")) {
        if let Some(meta) = metas(attr)?.into_iter().find(|meta| meta.path().is_ident(word)) {
            return Ok(Some(meta));
        }
    }
    Ok(None)
}

fn metas(attr: &Attribute) -> Result<Punctuated<Meta, Token![,]>> {
    attr.parse_args_with(Punctuated::parse_terminated)
}
