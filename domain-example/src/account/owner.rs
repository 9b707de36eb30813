//! The name of an account's owner, checked where it enters the bank.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest name, in characters.
pub const OWNER_CHARS_MAX: usize = 200;

/// The name of an account's owner: 1 to 200 characters, none of them a control character, not blank throughout.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct OwnerName(String);

/// A text that is no [`OwnerName`]. The text itself is personal and stays out of the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidOwnerName {
    /// There is nothing in it but white space.
    #[error("owner is blank; give 1 to {OWNER_CHARS_MAX} characters")]
    Blank,
    /// It is too long.
    #[error("owner has {0} characters; give 1 to {OWNER_CHARS_MAX}")]
    TooLong(usize),
    /// It has a line feed or the like.
    #[error("owner has a control character; remove it")]
    ControlCharacter,
}

impl OwnerName {
    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for OwnerName {
    type Error = InvalidOwnerName;

    fn try_from(text: String) -> Result<Self, InvalidOwnerName> {
        let chars = text.chars().count();
        if text.trim().is_empty() {
            Err(InvalidOwnerName::Blank)
        } else if chars > OWNER_CHARS_MAX {
            Err(InvalidOwnerName::TooLong(chars))
        } else if text.chars().any(char::is_control) {
            Err(InvalidOwnerName::ControlCharacter)
        } else {
            Ok(Self(text))
        }
    }
}

impl FromStr for OwnerName {
    type Err = InvalidOwnerName;

    fn from_str(text: &str) -> Result<Self, InvalidOwnerName> {
        text.to_owned().try_into()
    }
}

impl From<OwnerName> for String {
    fn from(owner: OwnerName) -> Self {
        owner.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_counted_in_characters_not_bytes() {
        assert!("ß".repeat(OWNER_CHARS_MAX).parse::<OwnerName>().is_ok());
        let long = "a".repeat(OWNER_CHARS_MAX + 1);
        assert_eq!(long.parse::<OwnerName>(), Err(InvalidOwnerName::TooLong(201)));
    }

    #[test]
    fn blank_names_and_control_characters_are_refused() {
        for blank in ["", " ", "\u{a0}\t"] {
            assert_eq!(blank.parse::<OwnerName>(), Err(InvalidOwnerName::Blank));
        }
        assert_eq!("Ada\nLovelace".parse::<OwnerName>(), Err(InvalidOwnerName::ControlCharacter));
        assert_eq!("Ada Lovelace".parse::<OwnerName>().expect("a name").as_str(), "Ada Lovelace");
    }
}
