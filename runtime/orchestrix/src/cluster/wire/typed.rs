//! Values of an application and their forms on the wire: each pair of functions is one way and its way back.
//!
//! The caller's node encodes a command and decodes what became of it; the owner's node does the other halves. What
//! cannot be encoded before anything was done is *not attempted*; what cannot be read of something that was done is
//! *unknown*, since a retry with the same id gets it again.

use orchestrix_core::codec::{bincode, json};
use orchestrix_core::{
    Aggregate, Codec, Command, CommandId, DecodeError, Decoded, Epoch, Event, Metadata, Name, RawEvent,
    ShardId, StreamId, Version, snapshot,
};

use super::{CommandTask, DoneOutcome, EventBody, Outcome, SaveTask};
use crate::aggregate::guarded;
use crate::error::{NotAttempted, SaveError, SendError, Unknown};
use crate::node::Done;

/// What became of a command, as its caller hears it.
pub type CommandAnswer<C> = Result<Done<<C as Command>::Reply>, SendError<<C as Command>::Refusal>>;

/// What the caller of a command or a save knows about it, and its answer does not carry.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The aggregate.
    pub stream: StreamId,
    /// Its shard.
    pub shard: ShardId,
    /// The identity of the command.
    pub command_id: CommandId,
}

/// Encodes a command.
///
/// # Errors
/// [`NotAttempted::Unencodable`].
pub fn command_task<C: Command>(
    command: &C,
    command_id: CommandId,
    fresh: bool,
    metadata: Metadata,
) -> Result<CommandTask, NotAttempted> {
    let body = bincode::encode(C::NAME, command)?;
    Ok(CommandTask { name: Name::Borrowed(C::NAME), command_id, fresh, body, metadata })
}

/// Decodes a command.
///
/// # Errors
/// [`NotAttempted::Unencodable`]: the other node has another shape of it.
pub fn command<C: Command>(task: &CommandTask) -> Result<C, NotAttempted> {
    read(C::NAME, || bincode::decode(C::NAME, &task.body))
}

/// Encodes what became of a command.
pub fn command_outcome<C: Command>(answer: CommandAnswer<C>) -> Outcome {
    match answer {
        Ok(done) => match guarded(|| json::encode(C::NAME, &done.reply)) {
            Ok(Ok(body)) => Outcome::Done(DoneOutcome {
                body,
                version: done.version,
                epoch: done.epoch,
                duplicate: done.duplicate,
            }),
            Ok(Err(error)) => Outcome::unknown(error.to_string()),
            Err(words) => Outcome::unknown(&*words),
        },
        Err(SendError::Refused(refusal)) => match guarded(|| bincode::encode(C::NAME, &refusal)) {
            Ok(Ok(body)) => Outcome::Refused { body },
            Ok(Err(error)) => Outcome::not_attempted(error.into()),
            Err(words) => Outcome::not_attempted(NotAttempted::Unencodable { reason: words }),
        },
        Err(SendError::NotAttempted(why)) => Outcome::not_attempted(why),
        Err(SendError::Unknown(unknown)) => Outcome::unknown(&*unknown.reason),
    }
}

/// Decodes what became of a command.
///
/// # Errors
/// [`SendError`], the same as at the owner's node.
pub fn command_answer<C: Command>(asked: &Asked, outcome: Outcome) -> CommandAnswer<C> {
    match outcome {
        Outcome::Done(done) => match read(C::NAME, || json::decode(C::NAME, &done.body)) {
            Ok(reply) => Ok(asked.done(reply, &done)),
            Err(why) => Err(asked.unknown(why.to_string()).into()),
        },
        Outcome::Refused { body } => match read(C::NAME, || bincode::decode(C::NAME, &body)) {
            Ok(refusal) => Err(SendError::Refused(refusal)),
            // It was refused, whatever the reason was: nothing was stored.
            Err(why) => Err(why.into()),
        },
        Outcome::NotAttempted(why) => Err(NotAttempted::from(why).into()),
        Outcome::Unknown { reason } => Err(asked.unknown(reason).into()),
        Outcome::Moved { address, .. } => Err(moved(&address).into()),
        Outcome::Conflict { .. } => Err(asked.unknown("the other node answered something else").into()),
    }
}

/// Encodes a save.
///
/// # Errors
/// [`NotAttempted::Unencodable`].
pub fn save_task<E: Event>(
    expected: Version,
    events: &[E],
    command_id: CommandId,
    fresh: bool,
    metadata: Metadata,
) -> Result<SaveTask, NotAttempted> {
    let events = events.iter().map(event_body).collect::<Result<_, _>>()?;
    Ok(SaveTask { expected, command_id, fresh, events, metadata })
}

fn event_body<E: Event>(event: &E) -> Result<EventBody, NotAttempted> {
    let stored = event.encode()?;
    Ok(EventBody {
        event_type: event.event_type().into(),
        schema_version: event.schema_version(),
        codec: stored.codec,
        payload: stored.bytes,
    })
}

/// Decodes the events of a save. Those of an older schema become today's.
///
/// # Errors
/// [`NotAttempted::Unencodable`]: this node does not know one of them.
pub fn events<E: Event>(task: &SaveTask) -> Result<Vec<E>, NotAttempted> {
    let mut events = Vec::with_capacity(task.events.len());
    for EventBody { event_type, schema_version, codec, payload } in &task.events {
        let (schema_version, codec): (u16, Codec) = (*schema_version, *codec);
        match read(event_type, || E::decode(RawEvent { event_type, schema_version, codec, payload }))? {
            Decoded::One(event) => events.push(event),
            Decoded::Many(many) => events.extend(many),
        }
    }
    Ok(events)
}

/// Encodes what became of a save.
pub fn save_outcome(answer: Result<Done<()>, SaveError>) -> Outcome {
    match answer {
        Ok(Done { version, epoch, duplicate, .. }) => {
            Outcome::Done(DoneOutcome { body: Vec::new(), version, epoch, duplicate })
        }
        Err(SaveError::Conflict { expected, actual, .. }) => Outcome::Conflict { expected, actual },
        Err(SaveError::NotAttempted(why)) => Outcome::not_attempted(why),
        Err(SaveError::Unknown(unknown)) => Outcome::unknown(&*unknown.reason),
    }
}

/// Decodes what became of a save.
///
/// # Errors
/// [`SaveError`], the same as at the owner's node.
pub fn save_answer(asked: &Asked, outcome: Outcome) -> Result<Done<()>, SaveError> {
    match outcome {
        Outcome::Done(done) => Ok(asked.done((), &done)),
        Outcome::Conflict { expected, actual } => {
            Err(SaveError::Conflict { stream: asked.stream.clone(), expected, actual })
        }
        Outcome::NotAttempted(why) => Err(NotAttempted::from(why).into()),
        Outcome::Unknown { reason } => Err(asked.unknown(reason).into()),
        Outcome::Moved { address, .. } => Err(moved(&address).into()),
        Outcome::Refused { .. } => Err(asked.unknown("the other node answered something else").into()),
    }
}

/// Encodes a state; nothing, if the caller's state has another shape.
///
/// # Errors
/// [`NotAttempted::Unencodable`].
pub fn state_body<A: Aggregate>(state: &A, ours: u64, theirs: u64) -> Result<Vec<u8>, NotAttempted> {
    if ours != theirs {
        return Ok(Vec::new());
    }
    let body = bincode::encode(A::TYPE.as_str(), state)?;
    Ok(snapshot::seal(ours, &body))
}

/// A state that came from its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen<A> {
    /// The state; `None` when the two nodes have different shapes of it. It is then to be made from the events up to
    /// the version, which the owner has answered for.
    pub state: Option<A>,
    /// Its version.
    pub version: Version,
    /// The epoch under which it was read.
    pub epoch: Epoch,
}

/// Decodes a state; `fingerprint` is that of the type here.
///
/// # Errors
/// [`NotAttempted`]; in doubt the read has simply not happened.
pub fn state_answer<A: Aggregate>(fingerprint: u64, outcome: Outcome) -> Result<Seen<A>, NotAttempted> {
    match outcome {
        Outcome::Done(DoneOutcome { body, version, epoch, .. }) => {
            let state = if body.is_empty() { None } else { Some(read_state(fingerprint, &body)?) };
            Ok(Seen { state, version, epoch })
        }
        Outcome::NotAttempted(why) => Err(why.into()),
        Outcome::Unknown { reason } => Err(NotAttempted::unavailable(&*reason)),
        Outcome::Moved { address, .. } => Err(moved(&address)),
        Outcome::Refused { .. } | Outcome::Conflict { .. } => {
            Err(NotAttempted::unavailable("the other node answered something else"))
        }
    }
}

fn read_state<A: Aggregate>(fingerprint: u64, body: &[u8]) -> Result<A, NotAttempted> {
    let state = snapshot::open(fingerprint, body).map_err(|defect| {
        NotAttempted::unavailable(format!("the state of another node is of no use: {defect}"))
    })?;
    read(A::TYPE.as_str(), || bincode::decode(A::TYPE.as_str(), state))
}

/// Runs a decoder of the application. One that panics is one that fails.
fn read<T>(what: &str, decode: impl FnOnce() -> Result<T, DecodeError>) -> Result<T, NotAttempted> {
    let reason = match guarded(decode) {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(error)) => error.to_string(),
        Err(words) => format!("the decoder of {what} panicked: {words}"),
    };
    Err(NotAttempted::Unencodable { reason: reason.into() })
}

fn moved(address: &str) -> NotAttempted {
    NotAttempted::unavailable(format!("the shard has moved to the node at {address}"))
}

impl Asked {
    fn done<R>(&self, reply: R, done: &DoneOutcome) -> Done<R> {
        let DoneOutcome { version, epoch, duplicate, .. } = *done;
        Done { reply, version, shard: self.shard, epoch, command_id: self.command_id, duplicate }
    }

    fn unknown(&self, reason: impl AsRef<str>) -> Unknown {
        Unknown { command_id: self.command_id, reason: reason.as_ref().into() }
    }
}
