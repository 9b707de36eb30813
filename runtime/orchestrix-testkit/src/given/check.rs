//! What every event, command, answer, snapshot and decision must keep. Each check says what is wrong and what to do.

use std::fmt::Debug;

use orchestrix_core::codec::{bincode, json};
use orchestrix_core::{
    Accepted, Aggregate, Command, CommandList, Context, Decision, Decoded, Event, EventSchema, Handle,
    Payload, RawEvent, snapshot, stream,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::same::{difference, same, same_bytes, show};

/// Stores an event and reads it back.
pub(super) fn event_survives<E: Event + PartialEq + Debug>(event: &E) -> Result<E, String> {
    check_schema(event)?;
    let stored = event.encode().map_err(|error| format!("{event:?} cannot be stored: {error}"))?;
    let raw = RawEvent {
        event_type: event.event_type(),
        schema_version: event.schema_version(),
        codec: stored.codec,
        payload: &stored.bytes,
    };
    let decoded =
        E::decode(raw).map_err(|error| format!("{event:?} is stored and cannot be read back: {error}"))?;
    let found = only(decoded).map_err(|count| {
        format!("{event:?} is stored in its current schema and reads back as {count} events instead of one")
    })?;
    if found != *event {
        return Err(format!(
            "an event does not survive its stored form; look for `serde(skip)` and lossy fields\n\
             expected: {event:#?}\n  actual: {found:#?}"
        ));
    }
    match found.encode() {
        Ok(again) if same_payload(&stored, &again) => Ok(found),
        _ => Err(format!("{event:?} is stored differently after it was read back")),
    }
}

fn check_schema<E: Event + Debug>(event: &E) -> Result<(), String> {
    let (name, version) = (event.event_type(), event.schema_version());
    if !stream::is_name(name) {
        return Err(format!("{name:?} cannot name an event: use a-z, 0-9, '-', '_', '.', a letter first"));
    }
    let is_written = |schema: &&EventSchema| {
        schema.current && schema.event_type == name && schema.schema_version == version
    };
    match E::SCHEMAS.iter().find(is_written) {
        Some(_) => Ok(()),
        None => Err(format!(
            "{event:?} is written as {name:?} version {version}, which is not current in SCHEMAS"
        )),
    }
}

fn only<E>(decoded: Decoded<E>) -> Result<E, usize> {
    match decoded {
        Decoded::One(event) => Ok(event),
        Decoded::Many(mut events) => match events.len() {
            1 => Ok(events.remove(0)),
            count => Err(count),
        },
    }
}

fn same_payload(one: &Payload, other: &Payload) -> bool {
    one.codec == other.codec && same_bytes(&one.bytes, &other.bytes)
}

/// Sends a command through the form that carries it between nodes.
pub(super) fn command_survives<C: Command>(command: &C) -> Result<C, String> {
    if !stream::is_name(C::NAME) {
        return Err(format!(
            "{:?} cannot name a command: use a-z, 0-9, '-', '_', '.', a letter first",
            C::NAME
        ));
    }
    through_bincode(&format!("the command {}", C::NAME), command)
}

/// Checks that an aggregate that lists commands for other nodes lists this one.
pub(super) fn command_is_listed<A: Handle<C>, C: Command>() -> Result<(), String> {
    let mut listed = Names(Vec::new());
    A::commands(&mut listed);
    if listed.0.is_empty() || listed.0.contains(&C::NAME) {
        return Ok(());
    }
    Err(format!(
        "the command {} of {} is not listed, so no other node can send it; add `list.add::<{}>()` to `commands`",
        C::NAME,
        A::TYPE,
        std::any::type_name::<C>().rsplit("::").next().unwrap_or_default(),
    ))
}

/// The names of the commands that an aggregate lists.
struct Names(Vec<&'static str>);

impl<A: Aggregate> CommandList<A> for Names {
    fn add<C: Command>(&mut self) -> &mut Self
    where
        A: Handle<C>,
    {
        self.0.push(C::NAME);
        self
    }
}

/// Sends a value through bincode.
fn through_bincode<T: Serialize + DeserializeOwned>(what: &str, value: &T) -> Result<T, String> {
    let hint =
        "look for `skip_serializing_if`, `flatten`, `untagged` and `tag`, which bincode cannot read back";
    let bytes = bincode::encode(what.to_owned(), value).map_err(|error| error.to_string())?;
    let found: T = bincode::decode(what, &bytes).map_err(|error| format!("{error}; {hint}"))?;
    let again = bincode::encode(what.to_owned(), &found).map_err(|error| error.to_string())?;
    if same_bytes(&bytes, &again) && same(value, &found) {
        return Ok(found);
    }
    Err(format!("{what} does not survive its codec\n{}", difference(value, &found)))
}

/// Events and a reply, or no events and a refusal.
pub(super) type Answered<A, C> =
    (Vec<<A as Aggregate>::Event>, Result<<C as Command>::Reply, <C as Command>::Refusal>);

/// Decides about a command three times, which must come to the same, and checks that the answer survives its codec.
///
/// `again` is the same command as it arrives from another node.
pub(super) fn decide<A: Handle<C>, C: Command>(
    state: &A,
    command: &C,
    again: &C,
    context: &Context,
) -> Result<Answered<A, C>, String>
where
    A::Event: PartialEq + Debug,
{
    let decided = answered::<A, C>(state.handle(command, context));
    let second = answered::<A, C>(state.handle(again, context));
    same_decision::<A, C>(&decided, &second, "asked again on the same state")?;
    let restored = answered::<A, C>(through_snapshot(state)?.handle(again, context));
    same_decision::<A, C>(&decided, &restored, "asked on the state that its snapshot gives back")?;
    match &decided.1 {
        Ok(reply) => reply_survives(C::NAME, reply)?,
        Err(refusal) => drop(through_bincode(&format!("a refusal of {}", C::NAME), refusal)?),
    }
    Ok(decided)
}

fn answered<A: Handle<C>, C: Command>(decision: Decision<A, C>) -> Answered<A, C> {
    match decision.map(Accepted::into_parts) {
        Ok((events, reply)) => (events, Ok(reply)),
        Err(refusal) => (Vec::new(), Err(refusal)),
    }
}

fn same_decision<A: Handle<C>, C: Command>(
    first: &Answered<A, C>,
    second: &Answered<A, C>,
    when: &str,
) -> Result<(), String>
where
    A::Event: PartialEq + Debug,
{
    let is_same_answer = match (&first.1, &second.1) {
        (Ok(first), Ok(second)) => same(first, second),
        (Err(first), Err(second)) => same(first, second),
        _ => false,
    };
    if is_same_answer && first.0 == second.0 {
        return Ok(());
    }
    Err(format!(
        "the handler of {} decides differently when {when}: it may depend on nothing but state, command and context, \
         and on no part of the state that a snapshot does not carry\n first: {}\nsecond: {}",
        C::NAME,
        show_answered::<A, C>(first),
        show_answered::<A, C>(second)
    ))
}

fn show_answered<A: Handle<C>, C: Command>((events, answer): &Answered<A, C>) -> String
where
    A::Event: Debug,
{
    match answer {
        Ok(reply) => format!("events {events:#?}, reply {}", show(reply)),
        Err(refusal) => format!("refused: {refusal:?}"),
    }
}

fn reply_survives<R: Serialize + DeserializeOwned>(command: &str, reply: &R) -> Result<(), String> {
    let what = format!("the reply to {command}");
    let bytes = json::encode(what.clone(), reply).map_err(|error| error.to_string())?;
    let found: R = json::decode(&what, &bytes).map_err(|error| error.to_string())?;
    if json::encode(what.clone(), &found).is_ok_and(|again| same_bytes(&bytes, &again)) {
        return Ok(());
    }
    Err(format!("{what} does not survive its stored form\n{}", difference(reply, &found)))
}

/// Takes a snapshot of a state, in its stored form, and gives back what it holds.
pub(super) fn through_snapshot<A: Aggregate>(state: &A) -> Result<A, String> {
    let what = format!("the snapshot of {}", A::TYPE);
    let body = bincode::encode(what.clone(), state).map_err(|error| error.to_string())?;
    let stored = snapshot::seal(snapshot::schema_fingerprint::<A>(), &body);
    let opened = snapshot::open(snapshot::schema_fingerprint::<A>(), &stored).map_err(|defect| {
        format!("{what} is useless: {defect}; its default value must serialize the same each time")
    })?;
    let restored: A = bincode::decode(&what, opened).map_err(|error| {
        format!("{error}; look for `skip_serializing_if`, `flatten`, `untagged` and `tag`")
    })?;
    if same(state, &restored) {
        return Ok(restored);
    }
    Err(format!("a state does not survive its snapshot\n{}", difference(state, &restored)))
}
