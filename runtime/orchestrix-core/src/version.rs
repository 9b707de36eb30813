//! Places and fencing tokens: [`Version`], [`Seq`], [`Epoch`], [`Incarnation`].

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(u64);

        impl $name {
            /// The place before the first one.
            pub const ZERO: Self = Self(0);

            /// Wraps a number.
            pub const fn new(value: u64) -> Self {
                Self(value)
            }

            /// Returns the number.
            pub const fn get(self) -> u64 {
                self.0
            }

            /// Returns the place that follows this one.
            pub const fn next(self) -> Self {
                Self(self.0 + 1)
            }

            /// Returns the place `by` further on.
            pub const fn plus(self, by: u64) -> Self {
                Self(self.0 + by)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

counter! {
    /// An event's place in its stream. The first event has version 1; 0 means that the stream is empty.
    Version
}

counter! {
    /// An event's place in its shard, dense and in commit order. The first event has seq 1; 0 means "before all".
    Seq
}

counter! {
    /// The fencing token of a shard: it grows by one with every claim, and only its newest holder may write.
    Epoch
}

/// One run of a node. Two owners at the same epoch are told apart by it, so a write must match both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Incarnation(Uuid);

impl Incarnation {
    /// Makes an incarnation that no other run of any node has.
    pub fn fresh() -> Self {
        Self(Uuid::now_v7())
    }

    /// Wraps an identifier that was stored.
    pub const fn from_uuid(id: Uuid) -> Self {
        Self(id)
    }

    /// Returns the identifier.
    pub const fn as_uuid(&self) -> &Uuid {
        &self.0
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_version_follows_zero() {
        assert_eq!(Version::ZERO.next(), Version::new(1));
        assert_eq!(Version::new(3).plus(4).get(), 7);
    }

    #[test]
    fn two_fresh_incarnations_differ() {
        assert_ne!(Incarnation::fresh(), Incarnation::fresh());
    }
}
