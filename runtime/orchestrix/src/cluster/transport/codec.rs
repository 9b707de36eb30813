//! A codec for tonic whose messages are batches of frames: bytes that are made and read by `wire`.

use bytes::{Buf, BufMut, Bytes};
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use super::outbox::BATCH_BYTES_MAX;
use crate::cluster::wire::{BATCH_VERSION, FRAME_BYTES_MAX};

/// The largest message that is read: a batch, or one frame that is over its limit by itself, with the version.
pub(super) const MESSAGE_BYTES_MAX: usize = FRAME_BYTES_MAX + BATCH_BYTES_MAX + 1_024;

/// The service and its one method, as HTTP/2 names them.
pub(super) const PATH: &str = "/orchestrix.Node/Lane";

/// Turns batches into messages and back.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Batches;

impl Codec for Batches {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Batches {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, frames: Bytes, message: &mut EncodeBuf<'_>) -> Result<(), Status> {
        message.reserve(frames.len() + 1);
        message.put_u8(BATCH_VERSION);
        message.put(frames);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        buffers()
    }
}

impl Decoder for Batches {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(message.copy_to_bytes(message.remaining())))
    }

    fn buffer_settings(&self) -> BufferSettings {
        buffers()
    }
}

/// Room for a batch, so that it is written in one piece.
fn buffers() -> BufferSettings {
    BufferSettings::new(64 << 10, BATCH_BYTES_MAX)
}
