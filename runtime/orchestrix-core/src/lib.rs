//! The words and the ports of Orchestrix: what an application's domain depends on, and nothing more.
//!
//! No I/O, no async runtime. An aggregate written against this crate runs in a test, in the runtime and in a
//! command line tool alike. Read in this order:
//!
//! 1. [`aggregate`]: the [`Aggregate`], its [`Handle`]rs and their [`Decision`]s;
//! 2. [`command`] and [`event`]: what goes in and what comes out, with names that outlive Rust paths;
//! 3. [`stream`], [`version`], [`shard`]: how the log names its places;
//! 4. [`codec`], [`snapshot`], [`metadata`]: how values become bytes;
//! 5. [`store`]: the port that every event store fills, with its obligations.

// The derives name this crate by its own name, also here.
extern crate self as orchestrix_core;

pub mod aggregate;
pub mod checkpoint;
pub mod clock;
pub mod codec;
pub mod command;
pub mod event;
pub mod metadata;
pub mod prelude;
pub mod shard;
pub mod snapshot;
pub mod store;
pub mod stream;
pub mod version;

pub use aggregate::{
    Accepted, Aggregate, CommandList, Context, Decision, Emission, Handle, emit, emit_all, nothing,
};
pub use checkpoint::Checkpoint;
pub use clock::{Clock, SystemClock, Timestamp};
pub use codec::{Codec, DecodeError, EncodeError};
pub use command::{Command, CommandId, Never};
pub use event::{Decoded, Event, EventSchema, Payload, RawEvent, Upcast};
pub use metadata::Metadata;
pub use orchestrix_macros::{Command, Event};
pub use shard::{ShardCount, ShardId};
pub use snapshot::{SnapshotDefect, SnapshotPolicy};
pub use store::EventStore;
pub use stream::{AggregateId, AggregateType, InvalidId, Name, StreamId, check_key};
pub use version::{Epoch, Incarnation, Seq, Version};

/// What the derives need from elsewhere; not for use by hand.
#[doc(hidden)]
pub mod private {
    pub use crate::event::unknown;
    pub use serde;
}
