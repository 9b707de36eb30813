//! Names of things in the log: [`AggregateType`], [`StreamId`], and the [`AggregateId`] of a user's own type.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A name in the log or on the wire: usually a constant of the program, sometimes read back from a store.
pub type Name = Cow<'static, str>;

/// The longest name of an aggregate, an event or a command, in bytes.
pub const NAME_BYTES_MAX: usize = 128;

/// The longest aggregate id, in bytes.
pub const ID_BYTES_MAX: usize = 255;

/// The name of a kind of aggregate, as it stands in the log.
///
/// Made by [`aggregate_type!`](crate::aggregate_type), which checks the name when the program is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AggregateType(&'static str);

impl AggregateType {
    /// Checks a name: 1 to 128 bytes of lower-case letters, digits, `-`, `_` and `.`, the first a letter.
    ///
    /// # Panics
    /// When the name breaks the rule; in a `const` that is a compile error.
    pub const fn new(name: &'static str) -> Self {
        assert!(is_name(name), "a name has 1 to 128 of a-z, 0-9, '-', '_', '.', and starts with a letter");
        Self(name)
    }

    /// Returns the name.
    pub const fn as_str(&self) -> &'static str {
        self.0
    }
}

impl fmt::Display for AggregateType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// Tells whether a text may name an aggregate type, an event type or a command.
pub const fn is_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    if bytes.is_empty() || bytes.len() > NAME_BYTES_MAX || !bytes[0].is_ascii_lowercase() {
        return false;
    }
    let mut at = 0;
    while at < bytes.len() {
        let byte = bytes[at];
        if !(byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_' | b'.')) {
            return false;
        }
        at += 1;
    }
    true
}

/// Makes an [`AggregateType`](crate::AggregateType) from a literal and checks it when the program is compiled.
///
/// ```
/// use orchestrix_core::{aggregate_type, AggregateType};
/// const ACCOUNT: AggregateType = aggregate_type!("account");
/// assert_eq!(ACCOUNT.as_str(), "account");
/// ```
#[macro_export]
macro_rules! aggregate_type {
    ($name:literal) => {
        const { $crate::AggregateType::new($name) }
    };
}

/// One aggregate's events: the kind of aggregate and its id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StreamId {
    /// The name of the kind of aggregate.
    pub aggregate_type: Name,
    /// The aggregate's own id.
    pub id: Arc<str>,
}

impl StreamId {
    /// Names a stream.
    pub fn new(aggregate_type: impl Into<Name>, id: impl Into<Arc<str>>) -> Self {
        Self { aggregate_type: aggregate_type.into(), id: id.into() }
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.aggregate_type, self.id)
    }
}

/// A text that cannot be an aggregate's id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} {problem}")]
pub struct InvalidId {
    /// What the id names, for instance `account id`.
    pub name: &'static str,
    /// What is wrong with it and what is allowed.
    pub problem: String,
}

/// The id type of an aggregate. A type of its own keeps an `AccountId` from addressing an `Order`.
///
/// [`aggregate_id!`](crate::aggregate_id) writes one over a text; any other type may implement it by hand.
/// `from_key(as_key(id))` must give the same id back, and two ids are equal exactly when their keys are.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an aggregate's id",
    note = "declare it with `aggregate_id!(pub struct {Self}, \"account id\");` or implement `AggregateId`"
)]
pub trait AggregateId: Clone + Send + Sync + 'static {
    /// Returns the id as it stands in the log: 1 to 255 bytes without control characters.
    fn as_key(&self) -> Cow<'_, str>;

    /// Reads an id from the log or from a caller.
    ///
    /// # Errors
    /// [`InvalidId`] when the text is not such an id; nothing has happened.
    fn from_key(key: &str) -> Result<Self, InvalidId>;

    /// Returns the id as shared text. Types that hold an `Arc<str>` override it to save a copy.
    fn to_shared(&self) -> Arc<str> {
        Arc::from(self.as_key())
    }
}

/// Checks the rule that every id keeps: 1 to 255 bytes, no control characters.
///
/// # Errors
/// [`InvalidId`] that says which part of the rule is broken.
pub fn check_key(name: &'static str, key: &str) -> Result<(), InvalidId> {
    let problem = if key.is_empty() {
        "is empty; give 1 to 255 bytes".to_owned()
    } else if key.len() > ID_BYTES_MAX {
        format!("has {} bytes; at most {ID_BYTES_MAX} are allowed", key.len())
    } else if key.chars().any(char::is_control) {
        "has a control character; remove it".to_owned()
    } else {
        return Ok(());
    };
    Err(InvalidId { name, problem })
}

/// Declares an aggregate's id type over a text of 1 to 255 bytes without control characters.
///
/// The second argument is the word that errors use. A third one is a function from `&str` to `Result<(), String>`
/// that adds the application's own rule. The type serializes as its text and checks the rule when it is read, so that
/// a command or an event can carry the id of another aggregate.
///
/// ```
/// use orchestrix_core::{aggregate_id, AggregateId};
/// aggregate_id!(
///     /// Names an account.
///     pub struct AccountId, "account id"
/// );
/// let id = AccountId::from_key("a-1")?;
/// assert_eq!(id.as_str(), "a-1");
/// assert!(AccountId::from_key("").is_err());
/// # Ok::<(), orchestrix_core::InvalidId>(())
/// ```
#[macro_export]
macro_rules! aggregate_id {
    ($(#[$meta:meta])* $vis:vis struct $name:ident, $word:literal) => {
        $crate::aggregate_id!($(#[$meta])* $vis struct $name, $word, |_: &str| Ok::<(), String>(()));
    };
    ($(#[$meta:meta])* $vis:vis struct $name:ident, $word:literal, $check:expr) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        $vis struct $name(::std::sync::Arc<str>);

        impl $name {
            /// Returns the id as text.
            #[allow(dead_code, reason = "not every application reads its ids as text")]
            $vis fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl $crate::AggregateId for $name {
            fn as_key(&self) -> ::std::borrow::Cow<'_, str> {
                ::std::borrow::Cow::Borrowed(&self.0)
            }

            fn from_key(key: &str) -> ::std::result::Result<Self, $crate::InvalidId> {
                $crate::check_key($word, key)?;
                let check: fn(&str) -> ::std::result::Result<(), String> = $check;
                check(key).map_err(|problem| $crate::InvalidId { name: $word, problem })?;
                Ok(Self(::std::sync::Arc::from(key)))
            }

            fn to_shared(&self) -> ::std::sync::Arc<str> {
                ::std::sync::Arc::clone(&self.0)
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl ::std::str::FromStr for $name {
            type Err = $crate::InvalidId;

            fn from_str(text: &str) -> ::std::result::Result<Self, Self::Err> {
                <Self as $crate::AggregateId>::from_key(text)
            }
        }

        impl $crate::private::serde::Serialize for $name {
            fn serialize<S: $crate::private::serde::Serializer>(
                &self,
                serializer: S,
            ) -> ::std::result::Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> $crate::private::serde::Deserialize<'de> for $name {
            fn deserialize<D: $crate::private::serde::Deserializer<'de>>(
                deserializer: D,
            ) -> ::std::result::Result<Self, D::Error> {
                let key = <::std::string::String as $crate::private::serde::Deserialize>::deserialize(deserializer)?;
                <Self as $crate::AggregateId>::from_key(&key).map_err($crate::private::serde::de::Error::custom)
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_the_rule() {
        assert!(is_name("account.opened-2_x"));
        for bad in ["", "Account", "1a", "a b", "ä", &"a".repeat(129)] {
            assert!(!is_name(bad), "{bad:?} is no name");
        }
    }

    aggregate_id!(struct EvenId, "even id", |key| {
        if key.len().is_multiple_of(2) { Ok(()) } else { Err("must have an even length".to_owned()) }
    });

    #[test]
    fn an_id_keeps_its_rule_when_it_is_read() {
        let id: EvenId = serde_json::from_str("\"ab\"").expect("an id");
        assert_eq!(serde_json::to_string(&id).expect("text"), "\"ab\"");
        let error = serde_json::from_str::<EvenId>("\"abc\"").expect_err("odd").to_string();
        assert!(error.starts_with("even id must have an even length"), "{error}");
        assert!(serde_json::from_str::<EvenId>("\"\"").is_err());
    }

    #[test]
    fn an_id_says_what_is_wrong_with_it() {
        let error = check_key("account id", "a\nb").expect_err("a control character");
        assert_eq!(error.to_string(), "account id has a control character; remove it");
        assert!(check_key("account id", &"x".repeat(256)).is_err());
        assert!(check_key("account id", "x").is_ok());
    }
}
