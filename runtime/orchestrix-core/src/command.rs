//! Commands: what a caller may ask of an aggregate, and the identity that makes a retry harmless.

use std::fmt;
use std::str::FromStr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock::Timestamp;

/// The identity of one command. A retry carries the same id and gets the first outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CommandId(Uuid);

impl CommandId {
    /// Makes a new id: a UUID of version 7, which tells its age.
    pub fn fresh() -> Self {
        Self(Uuid::now_v7())
    }

    /// Wraps an id that the caller chose.
    pub const fn from_uuid(id: Uuid) -> Self {
        Self(id)
    }

    /// Returns the id.
    pub const fn as_uuid(&self) -> &Uuid {
        &self.0
    }

    /// Returns when the id was made, in whole milliseconds, if it is of version 7; other versions do not tell.
    pub fn made_at(&self) -> Option<Timestamp> {
        if self.0.get_version_num() != 7 {
            return None;
        }
        let millis = self.0.as_u128() >> 80;
        Some(Timestamp::from_micros(millis as i64 * 1_000))
    }
}

impl fmt::Display for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for CommandId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::parse_str(text).map(Self)
    }
}

/// Something that a caller asks of an aggregate, with the reply and the refusal that belong to it.
///
/// `#[derive(Command)]` with `#[command("account.withdraw", reply = Balance, refusal = WithdrawRefusal)]` writes it.
/// The value must serialize: its bytes tell two bodies under one command id apart, and carry it between nodes.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a command",
    note = "add `#[derive(Command)]` and `#[command(\"account.withdraw\", reply = ..., refusal = ...)]`"
)]
pub trait Command: Serialize + DeserializeOwned + Send + 'static {
    /// The name on the wire, for instance `account.withdraw`.
    const NAME: &'static str;
    /// What the aggregate answers when it accepts. It is stored with the events, so that a retry gets it again.
    type Reply: Serialize + DeserializeOwned + Send + 'static;
    /// What the aggregate answers when it refuses. A refusal stores nothing.
    type Refusal: std::error::Error + Serialize + DeserializeOwned + Send + 'static;
}

/// The refusal of a command that is never refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Never {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_7_id_tells_its_age_and_others_do_not() {
        let id: CommandId = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f".parse().expect("a UUID");
        assert_eq!(id.made_at().map(|time| time.to_string()), Some("2022-02-22T19:22:22.000000Z".to_owned()));
        assert_eq!(CommandId::from_uuid(Uuid::nil()).made_at(), None);
    }
}
