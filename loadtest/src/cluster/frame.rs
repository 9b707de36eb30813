//! What a client asks a node and what it hears: a length of four bytes, little-endian, and a body in bincode.
//!
//! The load test speaks it with itself only, so it has no versions.

use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, ensure};
use bincode::config::{self, Configuration, Limit, LittleEndian, Varint};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt as _;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::Notify;

/// The largest body: the list of all shards that a log may have takes 12 KiB.
const BODY_BYTES_MAX: usize = 64 << 10;

/// Bytes of the length before a body.
const LENGTH_BYTES: usize = 4;

/// Bytes that one read takes at most.
pub(super) const READ_BYTES: usize = 64 << 10;

/// Asks of one connection under way at most: more than all callers of a usual run together.
pub(super) const IN_FLIGHT_MAX: usize = 65_536;

/// One ask of a client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Request {
    /// Comes back with the answer.
    pub(super) ticket: u64,
    /// What is asked.
    pub(super) ask: Ask,
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Ask {
    /// Adds to a counter.
    Add {
        /// The command's id.
        command: [u8; 16],
        /// The counter's number.
        aggregate: u32,
        /// How much.
        amount: u64,
    },
    /// Reads a counter strongly.
    Read {
        /// The counter's number.
        aggregate: u32,
    },
    /// Asks which shards are open at the node.
    Owned,
}

/// What a node tells a client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Told {
    /// The answer to an ask.
    Answer(u64, Answer),
    /// The node is about to stop and wants no new asks: what a load balancer learns from `/ready`.
    Leaving,
}

/// The answer to one ask.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Answer {
    /// The command is done.
    Added {
        /// The counter after it.
        count: u64,
        /// The version of its event.
        version: u64,
        /// Whether it was done before.
        duplicate: bool,
    },
    /// The counter at a strong read.
    Read {
        /// Commands that it took so far.
        count: u64,
    },
    /// The shards that are open here.
    Owned(Vec<u32>),
    /// It was certainly not attempted.
    NotAttempted {
        /// The kind of the reason.
        kind: Kind,
        /// The runtime's words.
        reason: String,
    },
    /// Nobody knows what became of it.
    Unknown(String),
}

/// What a client makes of a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Kind {
    /// A bound was hit: try again later.
    Overloaded,
    /// Try again, perhaps elsewhere.
    Passing,
    /// It will not get better.
    Final,
}

fn settings() -> Configuration<LittleEndian, Varint, Limit<BODY_BYTES_MAX>> {
    config::standard().with_limit::<BODY_BYTES_MAX>()
}

/// Appends a frame.
fn put(bytes: &mut Vec<u8>, value: &impl Serialize) {
    let begin = bytes.len();
    bytes.extend_from_slice(&[0; LENGTH_BYTES]);
    bincode::serde::encode_into_std_write(value, bytes, settings())
        .expect("our own frames have a stored form");
    let length = (bytes.len() - begin - LENGTH_BYTES) as u32;
    bytes[begin..begin + LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
}

/// Bytes that came, and the frames among them.
#[derive(Debug, Default)]
pub(super) struct Frames {
    bytes: Vec<u8>,
    taken: usize,
}

impl Frames {
    /// Adds what was read. Call it when [`next`](Self::next) has nothing more.
    pub(super) fn fill(&mut self, read: &[u8]) {
        self.bytes.drain(..self.taken);
        self.taken = 0;
        self.bytes.extend_from_slice(read);
    }

    /// Takes the next whole frame; `None` until more was read.
    ///
    /// # Errors
    /// When the bytes are no frame; the connection is of no use then.
    pub(super) fn next<T: DeserializeOwned>(&mut self) -> anyhow::Result<Option<T>> {
        let rest = &self.bytes[self.taken..];
        let Some((length, rest)) = rest.split_first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let length = u32::from_le_bytes(*length) as usize;
        ensure!(length <= BODY_BYTES_MAX, "a frame of {length} bytes");
        let Some(body) = rest.get(..length) else { return Ok(None) };
        let (value, used) = bincode::serde::decode_from_slice(body, settings()).context("a broken frame")?;
        ensure!(used == length, "a frame with {} bytes too many", length - used);
        self.taken += LENGTH_BYTES + length;
        Ok(Some(value))
    }
}

/// Frames that wait to be written: they gather while the last ones are on their way. Whoever puts one in holds one of the
/// [`IN_FLIGHT_MAX`] places of the connection, which bounds it.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: Mutex<Vec<u8>>,
    filled: Notify,
}

impl Outbox {
    /// Puts a frame in.
    pub(super) fn put(&self, value: &impl Serialize) {
        put(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner), value);
        self.filled.notify_one();
    }

    /// Writes what is put in, until the connection ends.
    pub(super) async fn write_to(&self, mut socket: OwnedWriteHalf) {
        let mut batch = Vec::new();
        loop {
            self.filled.notified().await;
            std::mem::swap(&mut batch, &mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
            if socket.write_all(&batch).await.is_err() {
                return;
            }
            batch.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(ticket: u64) -> Request {
        Request { ticket, ask: Ask::Add { command: [7; 16], aggregate: 3, amount: 9 } }
    }

    #[test]
    fn frames_come_whole_however_the_bytes_arrive() {
        let mut bytes = Vec::new();
        (0..3).for_each(|ticket| put(&mut bytes, &request(ticket)));
        let (mut frames, mut seen) = (Frames::default(), Vec::new());
        for byte in bytes {
            frames.fill(&[byte]);
            seen.extend(frames.next::<Request>().expect("a frame"));
        }
        assert_eq!(seen, [request(0), request(1), request(2)]);
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let mut frames = Frames::default();
        frames.fill(&u32::MAX.to_le_bytes());
        assert!(frames.next::<Request>().is_err(), "its length is beyond the bound");
        let mut frames = Frames::default();
        frames.fill(&[2, 0, 0, 0, 1, 250]);
        assert!(frames.next::<Request>().is_err(), "its body is none");
    }
}
