//! The commands that one aggregate remembers, oldest first: nothing that is in is ever moved, and an id is found by its
//! tag.
//!
//! An aggregate gets a command at a time and keeps thousands. A deque that moves to larger and larger memory, with a
//! hash table of ids beside it, took three times the bytes of what it held, and fresh memory was a fifth of a command.
//! Here entries lie in chunks, and each has a tag of two bytes apart: a search looks through the tags alone, which is
//! less than a microsecond for the sixteen thousand that are kept at most by default.

use std::collections::VecDeque;

use orchestrix_core::{CommandId, Timestamp, Version};
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smallvec::SmallVec;

/// One command that stored events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Remembered {
    /// The command's id.
    pub(crate) id: CommandId,
    /// Tells two bodies under one id apart.
    pub(crate) fingerprint: u64,
    /// The version of its last event.
    pub(crate) version: Version,
    /// When it was decided.
    pub(crate) at: Timestamp,
    /// The reply as JSON.
    pub(crate) reply: Reply,
}

/// A reply as JSON. Most are a number or a short object, which then need no memory of their own.
pub(crate) type Reply = SmallVec<[u8; 16]>;

/// How many commands one chunk holds: large enough that chunks cost little, small enough that the last one, which is
/// half empty on average, does so too.
const CHUNK: usize = 32;

/// The first chunk begins with this room and grows: most aggregates rest after a command or two.
const FIRST: usize = 2;

/// How many tags are compared at once.
const STRIDE: usize = 32;

/// Commands in the order in which they were remembered.
#[derive(Clone, Debug, Default)]
pub(super) struct Entries {
    /// All chunks but the last are full. Of the first, `gone` entries are forgotten.
    chunks: VecDeque<Vec<Remembered>>,
    gone: usize,
    /// The tag of each entry that is not forgotten.
    tags: VecDeque<u16>,
}

impl Entries {
    pub(super) fn len(&self) -> usize {
        self.tags.len()
    }

    pub(super) fn front(&self) -> Option<&Remembered> {
        self.chunks.front()?.get(self.gone)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Remembered> {
        self.chunks.iter().flatten().skip(self.gone)
    }

    pub(super) fn push_back(&mut self, command: Remembered) {
        self.tags.push_back(tag(command.id));
        let is_first = self.chunks.len() <= 1;
        match self.chunks.back_mut() {
            Some(chunk) if chunk.len() < CHUNK => {
                if chunk.len() == chunk.capacity() {
                    chunk.reserve_exact(chunk.len().min(CHUNK - chunk.len()));
                }
                chunk.push(command);
            }
            _ => {
                let mut chunk =
                    Vec::with_capacity(if is_first && self.chunks.is_empty() { FIRST } else { CHUNK });
                chunk.push(command);
                self.chunks.push_back(chunk);
            }
        }
    }

    /// Forgets the oldest one and returns what it was.
    pub(super) fn pop_front(&mut self) -> Option<Remembered> {
        self.tags.pop_front()?;
        let chunk = self.chunks.front_mut()?;
        let hollow = Remembered { reply: Reply::new(), ..chunk[self.gone] };
        let entry = std::mem::replace(&mut chunk[self.gone], hollow);
        self.gone += 1;
        if self.gone == chunk.len() {
            self.chunks.pop_front();
            self.gone = 0;
        }
        Some(entry)
    }

    /// Finds the command with this id.
    pub(super) fn find(&self, id: CommandId) -> Option<&Remembered> {
        let (wanted, (older, newer)) = (tag(id), self.tags.as_slices());
        let place = |tags: &[u16], from| {
            places(tags, wanted).map(|at| self.at(from + at)).find(|entry| entry.id == id)
        };
        place(newer, older.len()).or_else(|| place(older, 0))
    }

    /// Returns the entry at a place, counted from the oldest one.
    fn at(&self, place: usize) -> &Remembered {
        let place = self.gone + place;
        &self.chunks[place / CHUNK][place % CHUNK]
    }

    /// Returns the memory that it takes, in bytes.
    pub(super) fn weight_bytes(&self) -> usize {
        let entries: usize = match (self.chunks.front(), self.chunks.len()) {
            (Some(only), 1) => only.capacity(),
            (_, chunks) => chunks * CHUNK,
        };
        entries * size_of::<Remembered>()
            + self.chunks.capacity() * size_of::<Vec<Remembered>>()
            + self.tags.capacity() * size_of::<u16>()
    }
}

/// Returns a few bits of an id, mixed from all of it: ids that were made in one go differ in a few bits only.
fn tag(id: CommandId) -> u16 {
    let id = id.as_uuid().as_u128();
    // A multiplication by the golden ratio carries every bit up into the highest ones (Knuth, volume 3, section 6.4).
    ((id as u64 ^ (id >> 64) as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 48) as u16
}

/// Returns the places of a tag. Most strides do not have it, and are passed over without a look at each.
fn places(tags: &[u16], wanted: u16) -> impl Iterator<Item = usize> {
    tags.chunks(STRIDE)
        .enumerate()
        .filter(move |(_, stride)| stride.iter().fold(0, |found, tag| found | u8::from(*tag == wanted)) != 0)
        .flat_map(move |(number, stride)| {
            stride
                .iter()
                .enumerate()
                .filter(move |(_, tag)| **tag == wanted)
                .map(move |(at, _)| number * STRIDE + at)
        })
}

impl Serialize for Entries {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeSeq;
        let mut all = serializer.serialize_seq(Some(self.len()))?;
        self.iter().try_for_each(|entry| all.serialize_element(entry))?;
        all.end()
    }
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Entries;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("the commands that an aggregate remembers")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Entries, A::Error> {
                let mut entries = Entries::default();
                while let Some(entry) = all.next_element()? {
                    entries.push_back(entry);
                }
                Ok(entries)
            }
        }
        deserializer.deserialize_seq(All)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn entry(number: u64) -> Remembered {
        let id = CommandId::from_uuid(Uuid::from_u128(u128::from(number)));
        let (version, at) = (Version::new(number), Timestamp::from_micros(number as i64));
        Remembered { id, fingerprint: number, version, at, reply: Reply::from_slice(&number.to_le_bytes()) }
    }

    #[test]
    fn what_was_not_forgotten_is_found_and_nothing_else() {
        let mut entries = Entries::default();
        let mut oldest = 1;
        for number in 1..=300 {
            entries.push_back(entry(number));
            // It forgets two of three for a while and then catches up, so that chunks empty at every length.
            while entries.len() as u64 > 1 + number % 97 {
                assert_eq!(entries.pop_front(), Some(entry(oldest)));
                oldest += 1;
            }
            assert_eq!(entries.front().map(|entry| entry.fingerprint), Some(oldest));
            assert!(entries.iter().map(|entry| entry.fingerprint).eq(oldest..=number));
            for wanted in 0..=number + 1 {
                let found = entries.find(entry(wanted).id).cloned();
                assert_eq!(found, (oldest..=number).contains(&wanted).then(|| entry(wanted)), "{wanted}");
            }
        }
    }

    #[test]
    fn ids_of_one_tag_are_told_apart() {
        let first = entry(1);
        let twin =
            (2_u64..1 << 24).map(entry).find(|other| tag(other.id) == tag(first.id)).expect("one of 65,536");
        let mut entries = Entries::default();
        entries.push_back(first.clone());
        assert_eq!(entries.find(twin.id), None);
        entries.push_back(twin.clone());
        assert_eq!((entries.find(first.id), entries.find(twin.id)), (Some(&first), Some(&twin)));
    }

    #[test]
    fn an_aggregate_that_rests_after_a_command_keeps_little() {
        let mut entries = Entries::default();
        assert_eq!(entries.weight_bytes(), 0);
        entries.push_back(entry(1));
        assert!(entries.weight_bytes() <= 256, "{}", entries.weight_bytes());
        (2..=1_000).for_each(|number| entries.push_back(entry(number)));
        assert!(entries.weight_bytes() <= 1_000 * 72 + CHUNK * 64, "{}", entries.weight_bytes());
    }
}
