//! What one node asks of another: work for an aggregate, or a notice about the cluster.

use std::time::Duration;

use orchestrix_core::{Codec, CommandId, Epoch, Incarnation, Metadata, Name, ShardId, StreamId, Version};
use serde::{Deserialize, Serialize};

use crate::node::Consistency;

/// Something that a node asks of another one. It is answered exactly once, by an [`Outcome`](super::Outcome).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// How long the answer may take, from now. It travels as the time that is left when the frame is written, so that
    /// no clock of one node is compared with one of another. At most 71 minutes; more is cut to that.
    #[serde(skip)]
    pub within: Duration,
    /// How often the call was sent on already. Whoever sends on bounds it.
    pub hops: u8,
    /// What is asked.
    pub request: Request,
}

/// What a [`Call`] is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Work for an aggregate.
    Work(Work),
    /// Something that the other node should know. It is a hint: nothing rests on its arrival.
    Notice(Notice),
}

/// Work for one aggregate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// The shard of the aggregate.
    pub shard: ShardId,
    /// The epoch under which the sender believes the receiver to own the shard, if it believes anything.
    pub epoch: Option<Epoch>,
    /// The aggregate.
    pub stream: StreamId,
    /// What it should do.
    pub task: Task,
}

/// What an aggregate is asked to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Task {
    /// Decide about a command.
    Command(CommandTask),
    /// Tell its state. The view of a read is code of the caller, so the state travels, and the view runs there.
    Read(ReadTask),
    /// Store events that were decided elsewhere.
    Save(SaveTask),
}

/// A command in the form that carries it between nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandTask {
    /// The command's name.
    pub name: Name,
    /// The command's identity.
    pub command_id: CommandId,
    /// The runtime made the id for this very call, so that nobody can have sent it before.
    pub fresh: bool,
    /// The command in bincode.
    pub body: Vec<u8>,
    /// What the caller sent along, with its trace context.
    pub metadata: Metadata,
}

/// A look at a state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadTask {
    /// How sure the owner must be that it is still the owner.
    pub consistency: Consistency,
    /// The version that the state must have reached; 0 for any.
    pub min_version: Version,
    /// The fingerprint of the state at the caller: a state of another shape is not sent, since it would not decode.
    pub fingerprint: u64,
}

/// Events that were decided elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SaveTask {
    /// The version that the aggregate must have.
    pub expected: Version,
    /// The identity under which they are saved.
    pub command_id: CommandId,
    /// The runtime made the id for this very call.
    pub fresh: bool,
    /// The events in their stored form.
    pub events: Vec<EventBody>,
    /// What the caller sent along.
    pub metadata: Metadata,
}

/// An event in its stored form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventBody {
    /// Its type.
    pub event_type: Name,
    /// The version of its schema.
    pub schema_version: u16,
    /// The form of the payload.
    pub codec: Codec,
    /// Its bytes.
    pub payload: Vec<u8>,
}

/// Something that another node should know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Notice {
    /// The sender is about to stop, and takes no new work.
    Leaving,
    /// Shards belong to somebody else now.
    Moved {
        /// The new owner.
        owner: Incarnation,
        /// Where it is reached.
        address: Box<str>,
        /// The shards, each with its new epoch.
        shards: Vec<(ShardId, Epoch)>,
    },
    /// The sender gave shards up, each at an epoch; the receiver is to claim them.
    Released {
        /// The shards, each with the epoch at which it was given up.
        shards: Vec<(ShardId, Epoch)>,
    },
    /// Aggregates of shards that are about to move and are in use now, the busiest first.
    Warm {
        /// The aggregates.
        streams: Vec<StreamId>,
    },
}

impl Call {
    /// Returns the shard that the call is about; notices are about none.
    pub fn shard(&self) -> Option<ShardId> {
        match &self.request {
            Request::Work(work) => Some(work.shard),
            Request::Notice(_) => None,
        }
    }

    /// Returns the aggregate type and the command that the receiver has to know, as far as there are any.
    pub fn needs(&self) -> Option<(&str, Option<&str>)> {
        let Request::Work(work) = &self.request else { return None };
        let command = match &work.task {
            Task::Command(command) => Some(&*command.name),
            Task::Read(_) | Task::Save(_) => None,
        };
        Some((&work.stream.aggregate_type, command))
    }
}
