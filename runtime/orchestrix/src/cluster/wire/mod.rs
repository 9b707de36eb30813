//! Frames: what travels between nodes, byte for byte.
//!
//! A message of a stream is a *batch*: one byte with the version of frames, then frames one after the other.
//!
//! ```text
//! batch   version u8, then frames
//! frame   length u32 of what follows, kind u8, id u64, payload            numbers in little endian
//! call    kind 3: id of the call, microseconds that are left u32, `Call` in bincode
//! answer  kind 4: id of the call, `Outcome` in bincode
//! cancel  kind 5: id of the call, nothing
//! ping    kind 6, pong kind 7: a number, nothing
//! hello   kind 1: 0, `Hello` in JSON
//! unwelcome kind 2: 0, `Unwelcome` in JSON
//! ```
//!
//! Bytes from outside never panic and never allocate more than [`FRAME_BYTES_MAX`]: every mistake in them is a
//! [`FrameError`]. What a version of frames means never changes; a change is a new version.
//!
//! | file | what |
//! |---|---|
//! | `call` | what one node asks of another |
//! | `outcome` | what became of it, with every error that a caller can see |
//! | `hello` | what two nodes tell each other before that |
//! | [`typed`] | commands, replies, refusals, events and states, and their forms in calls and outcomes |

mod call;
#[cfg(test)]
mod golden;
mod hello;
mod outcome;
pub mod typed;

use std::time::Duration;

use ::bincode::config::{self, Configuration, Limit, LittleEndian, Varint};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use call::{Call, CommandTask, EventBody, Notice, ReadTask, Request, SaveTask, Task, Work};
pub use hello::{Hello, Registry, TypeEntry, Unwelcome, VERSION, VERSION_OLDEST};
pub use outcome::{Denial, DoneOutcome, Outcome};

/// The largest frame in bytes: 16 MiB, far above any command, and above any state that is worth to be sent.
pub const FRAME_BYTES_MAX: usize = 16 << 20;

/// The bytes of a frame before its payload: length, kind, id.
pub(super) const HEAD_BYTES: usize = LENGTH_BYTES + 1 + 8;

const LENGTH_BYTES: usize = 4;

/// The version byte of a batch.
pub(super) const BATCH_VERSION: u8 = 1;

const HELLO: u8 = 1;
const UNWELCOME: u8 = 2;
const CALL: u8 = 3;
const ANSWER: u8 = 4;
const CANCEL: u8 = 5;
const PING: u8 = 6;
const PONG: u8 = 7;

/// One frame that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The first frame of each side.
    Hello(Box<Hello>),
    /// The last frame of a connection that the other side does not want.
    Unwelcome(Unwelcome),
    /// Something is asked.
    Call {
        /// The number of the call on its connection.
        id: u64,
        /// What is asked, and how long the answer may take.
        call: Box<Call>,
    },
    /// What became of a call.
    Answer {
        /// The number of the call.
        id: u64,
        /// What became of it.
        outcome: Outcome,
    },
    /// Nobody waits for the answer of a call any more. It is answered all the same, with what is known by then.
    Cancel {
        /// The number of the call.
        id: u64,
    },
    /// Asks for a sign of life.
    Ping {
        /// Comes back in the answer.
        id: u64,
    },
    /// Gives it.
    Pong {
        /// The number of the ping.
        id: u64,
    },
}

/// Bytes that are no frame. The connection that they came from is closed, except where one call alone is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The batch is of a version that this release does not read; the two should not have welcomed each other.
    #[error("frames of version {found} are not understood; {BATCH_VERSION} is")]
    UnknownVersion {
        /// The version.
        found: u8,
    },
    /// The frame is of a kind that its version does not have.
    #[error("a frame of kind {found} is not known")]
    UnknownKind {
        /// The kind.
        found: u8,
    },
    /// The batch ends within a frame.
    #[error("a frame is cut off")]
    CutOff,
    /// The frame is larger than allowed.
    #[error("a frame of {bytes} bytes is over the limit of {FRAME_BYTES_MAX}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The payload is not what the kind says.
    #[error("the payload of a frame of kind {kind} does not decode: {reason}")]
    Payload {
        /// The kind.
        kind: u8,
        /// The call that it belongs to; 0 for none.
        id: u64,
        /// The decoder's words.
        reason: String,
    },
    /// The value has no form on the wire.
    #[error("a frame cannot be encoded: {reason}")]
    Unencodable {
        /// The encoder's words.
        reason: String,
    },
}

impl FrameError {
    /// Returns the call that alone is at fault, if there is one: the frames after it can be read.
    pub(crate) fn faulty_call(&self) -> Option<u64> {
        match self {
            Self::Payload { kind: CALL, id, .. } => Some(*id),
            Self::Payload { .. }
            | Self::UnknownVersion { .. }
            | Self::UnknownKind { .. }
            | Self::CutOff
            | Self::TooLarge { .. }
            | Self::Unencodable { .. } => None,
        }
    }
}

type Standard = Configuration<LittleEndian, Varint, Limit<FRAME_BYTES_MAX>>;

fn standard() -> Standard {
    config::standard().with_limit::<FRAME_BYTES_MAX>()
}

/// Writes a call. The time that is left comes from [`Call::within`], and is written anew when the batch is taken.
///
/// # Errors
/// [`FrameError::TooLarge`] or [`FrameError::Unencodable`]; nothing is written then.
pub fn put_call(batch: &mut BytesMut, id: u64, call: &Call) -> Result<usize, FrameError> {
    put(batch, CALL, id, |batch| {
        batch.put_u32_le(micros(call.within));
        put_bincode(batch, call)
    })
}

/// Writes an answer.
///
/// # Errors
/// [`FrameError::TooLarge`] or [`FrameError::Unencodable`]; nothing is written then.
pub fn put_answer(batch: &mut BytesMut, id: u64, outcome: &Outcome) -> Result<usize, FrameError> {
    put(batch, ANSWER, id, |batch| put_bincode(batch, outcome))
}

/// Writes what a node says first.
///
/// # Errors
/// [`FrameError::TooLarge`]; nothing is written then.
pub fn put_hello(batch: &mut BytesMut, hello: &Hello) -> Result<usize, FrameError> {
    put(batch, HELLO, 0, |batch| put_json(batch, hello))
}

/// Writes what a node says last to one that it does not want.
///
/// # Errors
/// [`FrameError::TooLarge`]; nothing is written then.
pub fn put_unwelcome(batch: &mut BytesMut, why: &Unwelcome) -> Result<usize, FrameError> {
    put(batch, UNWELCOME, 0, |batch| put_json(batch, why))
}

/// Says that nobody waits for the answer of a call any more.
pub fn put_cancel(batch: &mut BytesMut, id: u64) {
    put_bare(batch, CANCEL, id);
}

/// Asks for a sign of life.
pub fn put_ping(batch: &mut BytesMut, id: u64) {
    put_bare(batch, PING, id);
}

/// Gives the sign of life that was asked for.
pub fn put_pong(batch: &mut BytesMut, id: u64) {
    put_bare(batch, PONG, id);
}

fn put_bare(batch: &mut BytesMut, kind: u8, id: u64) {
    batch.put_u32_le((HEAD_BYTES - LENGTH_BYTES) as u32);
    batch.put_u8(kind);
    batch.put_u64_le(id);
}

/// Writes anew how much time is left for the call whose frame begins there.
///
/// # Panics
/// When the bytes are too short to be the frame of a call.
pub fn set_time_left(frame: &mut [u8], left: Duration) {
    frame[HEAD_BYTES..HEAD_BYTES + 4].copy_from_slice(&micros(left).to_le_bytes());
}

fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}

/// Writes a frame and then its length; what failed half-way is taken back.
fn put(
    batch: &mut BytesMut,
    kind: u8,
    id: u64,
    payload: impl FnOnce(&mut BytesMut) -> Result<(), FrameError>,
) -> Result<usize, FrameError> {
    let start = batch.len();
    put_bare(batch, kind, id);
    let written = payload(batch).and_then(|()| {
        let bytes = batch.len() - start - LENGTH_BYTES;
        if bytes > FRAME_BYTES_MAX { Err(FrameError::TooLarge { bytes }) } else { Ok(bytes) }
    });
    match written {
        Ok(bytes) => {
            batch[start..start + LENGTH_BYTES].copy_from_slice(&(bytes as u32).to_le_bytes());
            Ok(LENGTH_BYTES + bytes)
        }
        Err(error) => {
            batch.truncate(start);
            Err(error)
        }
    }
}

fn put_bincode(batch: &mut BytesMut, value: &impl Serialize) -> Result<(), FrameError> {
    ::bincode::serde::encode_into_writer(value, Appender(batch), config::standard())
        .map_err(|error| FrameError::Unencodable { reason: error.to_string() })
}

fn put_json(batch: &mut BytesMut, value: &impl Serialize) -> Result<(), FrameError> {
    serde_json::to_writer(batch.writer(), value)
        .map_err(|error| FrameError::Unencodable { reason: error.to_string() })
}

struct Appender<'a>(&'a mut BytesMut);

impl ::bincode::enc::write::Writer for Appender<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), ::bincode::error::EncodeError> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

/// The frames of a batch, read one after the other. After an error that is not about one call alone it ends.
#[derive(Debug)]
pub struct Frames {
    rest: Bytes,
    broken: bool,
}

impl Frames {
    /// Begins to read a batch, with its version.
    ///
    /// # Errors
    /// [`FrameError::UnknownVersion`] or [`FrameError::CutOff`].
    pub fn of(mut batch: Bytes) -> Result<Self, FrameError> {
        match batch.try_get_u8() {
            Ok(BATCH_VERSION) => Ok(Self { rest: batch, broken: false }),
            Ok(found) => Err(FrameError::UnknownVersion { found }),
            Err(_) => Err(FrameError::CutOff),
        }
    }

    fn read(&mut self) -> Result<Frame, FrameError> {
        let length = self.rest.try_get_u32_le().map_err(|_| FrameError::CutOff)? as usize;
        if length > FRAME_BYTES_MAX {
            return Err(FrameError::TooLarge { bytes: length });
        }
        if length < HEAD_BYTES - LENGTH_BYTES || length > self.rest.len() {
            return Err(FrameError::CutOff);
        }
        let mut frame = self.rest.split_to(length);
        let (kind, id) = (frame.get_u8(), frame.get_u64_le());
        read_payload(kind, id, &frame)
    }
}

impl Iterator for Frames {
    type Item = Result<Frame, FrameError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.broken || self.rest.is_empty() {
            return None;
        }
        let frame = self.read();
        self.broken = frame.as_ref().is_err_and(|error| error.faulty_call().is_none());
        Some(frame)
    }
}

fn read_payload(kind: u8, id: u64, payload: &[u8]) -> Result<Frame, FrameError> {
    let malformed = |reason: String| FrameError::Payload { kind, id, reason };
    Ok(match kind {
        HELLO => Frame::Hello(read_json(payload).map_err(malformed)?),
        UNWELCOME => Frame::Unwelcome(read_json(payload).map_err(malformed)?),
        CALL => {
            let (left, body) =
                payload.split_first_chunk().ok_or_else(|| malformed("it has no time".to_owned()))?;
            let mut call: Box<Call> = read_bincode(body).map_err(malformed)?;
            call.within = Duration::from_micros(u32::from_le_bytes(*left).into());
            Frame::Call { id, call }
        }
        ANSWER => Frame::Answer { id, outcome: read_bincode(payload).map_err(malformed)? },
        CANCEL => Frame::Cancel { id },
        PING => Frame::Ping { id },
        PONG => Frame::Pong { id },
        found => return Err(FrameError::UnknownKind { found }),
    })
}

fn read_json<T: DeserializeOwned>(payload: &[u8]) -> Result<T, String> {
    serde_json::from_slice(payload).map_err(|error| error.to_string())
}

fn read_bincode<T: DeserializeOwned>(payload: &[u8]) -> Result<T, String> {
    let (value, read) =
        ::bincode::serde::decode_from_slice(payload, standard()).map_err(|error| error.to_string())?;
    match payload.len() - read {
        0 => Ok(value),
        left => Err(format!("{left} bytes are left over")),
    }
}
