//! What a domain imports: `use orchestrix_core::prelude::*;`.

pub use crate::{
    Accepted, Aggregate, AggregateId, AggregateType, Command, CommandId, CommandList, Context, Decision,
    Emission, Event, Handle, Metadata, Never, SnapshotPolicy, Timestamp, Upcast, Version, aggregate_id,
    aggregate_type, emit, emit_all, nothing,
};
pub use serde::{Deserialize, Serialize};
