//! Snapshots: cached state, always disposable. Anything wrong with one means replay, never an error.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::aggregate::Aggregate;
use crate::codec::{EncodeError, bincode, scratch};

/// When a running aggregate takes a snapshot: as soon as one of the set limits is reached since the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotPolicy {
    /// After this many events; 0 is off.
    pub events: u32,
    /// After this many bytes of event payload; 0 is off.
    pub bytes: u64,
    /// When the last activation spent this long on replay; zero is off.
    pub replay_time: Duration,
}

impl SnapshotPolicy {
    /// No snapshots at all.
    pub const OFF: Self = Self { events: 0, bytes: 0, replay_time: Duration::ZERO };

    /// A snapshot every `events` events; 0 is off.
    pub const fn every(events: u32) -> Self {
        Self { events, ..Self::OFF }
    }

    /// Tells whether no limit is set.
    pub fn is_off(&self) -> bool {
        *self == Self::OFF
    }

    /// Tells whether a limit is reached by what came since the last snapshot.
    pub fn is_due(&self, events: u64, bytes: u64, replay_time: Duration) -> bool {
        let reached = |limit: u64, value: u64| limit > 0 && value >= limit;
        reached(u64::from(self.events), events)
            || reached(self.bytes, bytes)
            || (events > 0 && !self.replay_time.is_zero() && replay_time >= self.replay_time)
    }
}

impl Default for SnapshotPolicy {
    /// Every 100 events, or every 256 KiB of them, or when a replay took 50 ms.
    fn default() -> Self {
        Self { events: 100, bytes: 256 << 10, replay_time: Duration::from_millis(50) }
    }
}

/// Why a stored snapshot was not used. It is counted, the events are replayed, the answer is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotDefect {
    /// The bytes do not start as a snapshot does.
    #[error("it has no snapshot header")]
    NoHeader,
    /// It was written in a form that this release does not read.
    #[error("it was written in another form")]
    OtherForm,
    /// It was written by another version of the aggregate's state.
    #[error("it holds another version of the state")]
    OtherSchema,
    /// Its bytes are damaged.
    #[error("its checksum does not match")]
    Checksum,
    /// Its bytes are whole and still not this state.
    #[error("its state does not decode")]
    Undecodable,
    /// It is a snapshot of another aggregate, or of another version than the one it is stored as.
    #[error("it belongs to another aggregate or version")]
    OtherPlace,
    /// It claims a version that its stream has not reached.
    #[error("it is ahead of its stream")]
    AheadOfStream,
}

const MAGIC: &[u8; 4] = b"OXSN";
const FORM_BINCODE: u8 = 1;
const HEADER_BYTES: usize = 4 + 1 + 8 + 8;

/// Puts the header before a snapshot's body: magic, form, schema fingerprint, checksum of the body.
pub fn seal(fingerprint: u64, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
    bytes.extend_from_slice(&[0; HEADER_BYTES]);
    bytes.extend_from_slice(body);
    write_header(&mut bytes, fingerprint);
    bytes
}

/// Encodes a value and seals it, as [`seal`] does, without a copy of the body on the way.
///
/// # Errors
/// [`EncodeError`] when the value has no bincode form.
pub fn seal_value<T: Serialize>(
    fingerprint: u64,
    what: &'static str,
    value: &T,
) -> Result<Vec<u8>, EncodeError> {
    scratch::with(|buffer| {
        buffer.extend_from_slice(&[0; HEADER_BYTES]);
        bincode::encode_onto(buffer, what, value)?;
        write_header(buffer, fingerprint);
        Ok(buffer.as_slice().to_vec())
    })
}

/// Writes the header over the front of `bytes`; the body is already behind it.
fn write_header(bytes: &mut [u8], fingerprint: u64) {
    let (header, body) = bytes.split_at_mut(HEADER_BYTES);
    header[..4].copy_from_slice(MAGIC);
    header[4] = FORM_BINCODE;
    header[5..13].copy_from_slice(&fingerprint.to_le_bytes());
    header[13..].copy_from_slice(&xxh3_64(body).to_le_bytes());
}

/// Checks the header and returns the body.
///
/// # Errors
/// The [`SnapshotDefect`] that makes it useless; the caller replays instead.
pub fn open(fingerprint: u64, bytes: &[u8]) -> Result<&[u8], SnapshotDefect> {
    let (header, body) = bytes.split_at_checked(HEADER_BYTES).ok_or(SnapshotDefect::NoHeader)?;
    let number = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes"));
    if &header[..4] != MAGIC {
        return Err(SnapshotDefect::NoHeader);
    }
    if header[4] != FORM_BINCODE {
        return Err(SnapshotDefect::OtherForm);
    }
    if number(5) != fingerprint {
        return Err(SnapshotDefect::OtherSchema);
    }
    if number(13) != xxh3_64(body) {
        return Err(SnapshotDefect::Checksum);
    }
    Ok(body)
}

/// Checks the header and returns the body, whatever version of whatever state it holds: for tools that know no types.
///
/// # Errors
/// The [`SnapshotDefect`] that makes it useless to everybody.
pub fn open_any(bytes: &[u8]) -> Result<&[u8], SnapshotDefect> {
    let fingerprint = bytes.get(5..13).and_then(|part| part.try_into().ok()).map(u64::from_le_bytes);
    open(fingerprint.ok_or(SnapshotDefect::NoHeader)?, bytes)
}

/// Returns the fingerprint of an aggregate's state: its type, its `SNAPSHOT_VERSION` and the shape of its default.
pub fn schema_fingerprint<A: Aggregate>() -> u64 {
    let shape = serde_json::to_vec(&A::default()).unwrap_or_default();
    let head = format!("{}/{}/{}/", A::TYPE, A::SNAPSHOT_VERSION, size_of::<A>());
    xxh3_64(&[head.as_bytes(), &shape].concat())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{AggregateType, Event, aggregate_id, aggregate_type};

    proptest! {
        #[test]
        fn a_sealed_body_opens(fingerprint in any::<u64>(), body in any::<Vec<u8>>()) {
            let sealed = seal(fingerprint, &body);
            prop_assert_eq!(open(fingerprint, &sealed), Ok(&body[..]));
            let encoded = bincode::encode("body", &body).expect("encodes");
            let at_once = seal_value(fingerprint, "body", &body).expect("encodes");
            prop_assert_eq!(at_once, seal(fingerprint, &encoded));
        }

        #[test]
        fn bytes_that_were_never_sealed_are_refused(bytes in any::<Vec<u8>>()) {
            prop_assert!(open(7, &bytes).is_err());
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let good = seal(7, b"some state");
        for at in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[at / 8] ^= 1 << (at % 8);
            assert!(open(7, &bad).is_err(), "bit {at}");
        }
        for cut in 0..good.len() {
            assert!(open(7, &good[..cut]).is_err(), "cut at {cut}");
        }
        assert_eq!(open(8, &good), Err(SnapshotDefect::OtherSchema));
        assert_eq!(open_any(&good), Ok(&b"some state"[..]));
        assert_eq!(open_any(&good[..20]), Err(SnapshotDefect::NoHeader));
        assert_eq!(open_any(&[&good[..], b"more"].concat()), Err(SnapshotDefect::Checksum));
    }

    #[test]
    fn a_policy_is_due_by_its_first_limit() {
        let policy = SnapshotPolicy { events: 10, bytes: 100, replay_time: Duration::from_millis(5) };
        assert!(!policy.is_due(9, 99, Duration::ZERO));
        assert!(policy.is_due(10, 0, Duration::ZERO));
        assert!(policy.is_due(1, 100, Duration::ZERO));
        assert!(policy.is_due(1, 0, Duration::from_millis(5)));
        assert!(!policy.is_due(0, 0, Duration::from_millis(5)), "nothing new, nothing to save");
        assert!(!SnapshotPolicy::OFF.is_due(1_000, 1_000_000, Duration::from_secs(9)));
    }

    #[derive(Event)]
    enum TankEvent {
        #[event("tank.filled")]
        Filled,
    }

    aggregate_id!(struct TankId, "tank id");

    /// Declares a tank in a module of its own: one name, several states.
    macro_rules! tank {
        ($release:ident, $version:literal, $($field:ident: $type:ty),*) => {
            mod $release {
                use super::*;

                #[derive(Default, Serialize, Deserialize)]
                pub(super) struct Tank {
                    $($field: $type),*
                }

                impl Aggregate for Tank {
                    const TYPE: AggregateType = aggregate_type!("tank");
                    const SNAPSHOT_VERSION: u32 = $version;
                    type Id = TankId;
                    type Event = TankEvent;

                    fn apply(&mut self, _: &TankEvent) {}
                }
            }
        };
    }

    tank!(first, 1, litres: u64);
    tank!(same, 1, litres: u64);
    tank!(other_meaning, 2, litres: u64);
    tank!(other_name, 1, gallons: u64);
    tank!(other_type, 1, litres: u32);

    #[test]
    fn a_fingerprint_follows_the_version_and_the_shape_of_the_state() {
        let first = schema_fingerprint::<first::Tank>();
        assert_eq!(first, schema_fingerprint::<same::Tank>());
        assert_ne!(first, schema_fingerprint::<other_meaning::Tank>());
        assert_ne!(first, schema_fingerprint::<other_name::Tank>());
        assert_ne!(first, schema_fingerprint::<other_type::Tank>());
    }
}
