//! Work that came from another node: decoded, done like any other, and its answer encoded.

use std::any::type_name;
use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use orchestrix_core::snapshot::schema_fingerprint;
use orchestrix_core::store::BoxFuture;
use orchestrix_core::{Aggregate, Command, CommandList, Handle};

use super::address::{AggregateRef, Call};
use super::{Node, Seen, running::Running};
use crate::cluster::wire::{
    CommandTask, DoneOutcome, Outcome, ReadTask, Registry, SaveTask, Task, TypeEntry, Work, typed,
};
use crate::error::{NotAttempted, StartError};
use crate::hash::IdHash;

type Answer = BoxFuture<'static, Outcome>;

/// One aggregate as work from another node reaches it, with how long the answer may take.
struct To {
    running: Arc<Running>,
    id: Arc<str>,
    within: Duration,
}

/// What one type does for other nodes.
pub(crate) struct RemoteType {
    /// The fingerprint of its state, which takes some time to make.
    fingerprint: u64,
    commands: HashMap<&'static str, RemoteCommand, IdHash>,
    read: fn(To, u64, ReadTask) -> Answer,
    save: fn(To, SaveTask) -> Answer,
}

struct RemoteCommand {
    rust_name: &'static str,
    run: fn(To, CommandTask) -> Answer,
}

/// All types of a node, by their names.
#[derive(Default)]
pub(crate) struct RemoteTypes(HashMap<&'static str, RemoteType, IdHash>);

impl RemoteTypes {
    pub(crate) fn add(&mut self, name: &'static str, of: RemoteType) {
        self.0.insert(name, of);
    }

    /// Returns the fingerprint of a type's state; 0, which no state has, for a type that is not registered.
    pub(super) fn fingerprint(&self, name: &str) -> u64 {
        self.0.get(name).map_or(0, |of| of.fingerprint)
    }

    fn registry(&self) -> Registry {
        let mut registry = Registry::default();
        for (name, of) in &self.0 {
            let commands = of.commands.keys().map(|name| (*name).into()).collect();
            registry.add(*name, TypeEntry { state: of.fingerprint, commands });
        }
        registry
    }
}

impl RemoteType {
    /// Reads a type's own list of commands.
    ///
    /// # Errors
    /// [`StartError::DuplicateCommand`].
    pub(crate) fn of<A: Aggregate>() -> Result<Self, StartError> {
        let mut listed = Listed::<A> { commands: HashMap::default(), twice: None, aggregate: PhantomData };
        A::commands(&mut listed);
        match listed.twice {
            Some(twice) => Err(twice),
            None => Ok(Self {
                fingerprint: schema_fingerprint::<A>(),
                commands: listed.commands,
                read: read::<A>,
                save: save::<A>,
            }),
        }
    }
}

/// The list of one type while it is read.
struct Listed<A> {
    commands: HashMap<&'static str, RemoteCommand, IdHash>,
    /// The first name that came twice.
    twice: Option<StartError>,
    aggregate: PhantomData<fn() -> A>,
}

impl<A: Aggregate> CommandList<A> for Listed<A> {
    fn add<C: Command>(&mut self) -> &mut Self
    where
        A: Handle<C>,
    {
        let rust_name = type_name::<C>();
        let listed = RemoteCommand { rust_name, run: command::<A, C> };
        if let Some(first) = self.commands.insert(C::NAME, listed)
            && self.twice.is_none()
        {
            self.twice = Some(StartError::DuplicateCommand {
                aggregate_type: A::TYPE.as_str(),
                name: C::NAME,
                first: first.rust_name,
                second: rust_name,
            });
        }
        self
    }
}

impl Node {
    /// Returns the types and commands that this node does for others, as it tells them.
    pub fn registry(&self) -> Registry {
        self.running.remote.registry()
    }

    /// Does work that another node sent, like its own, and answers in the form that goes back. `within` is how long
    /// that may take.
    ///
    /// Commands are queued before this returns, so those that come in order are handled in order.
    ///
    /// # Cancel safety
    /// A dropped answer takes the work back if the aggregate has not looked at it; otherwise it is carried out.
    pub fn answer(&self, within: Duration, work: Work) -> BoxFuture<'static, Outcome> {
        let Work { stream, task, .. } = work;
        let Some(of) = self.running.remote.0.get(&*stream.aggregate_type) else {
            let aggregate_type = stream.aggregate_type;
            return refused(NotAttempted::NotRegistered { aggregate_type });
        };
        let to = To { running: Arc::clone(&self.running), id: stream.id, within };
        match task {
            Task::Command(task) => match of.commands.get(&*task.name) {
                Some(command) => (command.run)(to, task),
                None => refused(NotAttempted::UnknownCommand {
                    aggregate_type: stream.aggregate_type,
                    command: task.name,
                    node: self.running.shared.settings.node_name.as_deref().unwrap_or("(unnamed)").into(),
                }),
            },
            Task::Read(task) => (of.read)(to, of.fingerprint, task),
            Task::Save(task) => (of.save)(to, task),
        }
    }
}

fn refused(why: NotAttempted) -> Answer {
    Box::pin(std::future::ready(Outcome::not_attempted(why)))
}

fn command<A: Handle<C>, C: Command>(to: To, task: CommandTask) -> Answer {
    let command: C = match typed::command(&task) {
        Ok(command) => command,
        Err(why) => return refused(why),
    };
    let mut sending = AggregateRef::<A>::new(to.running, to.id).send(command);
    sending.call = Call::sent_on(task.command_id, task.fresh, to.within, task.metadata);
    let receipt = sending.receipt();
    Box::pin(async move { typed::command_outcome::<C>(receipt.await) })
}

/// The state is encoded on the aggregate's own thread, so that it need not be copied.
fn read<A: Aggregate>(to: To, fingerprint: u64, task: ReadTask) -> Answer {
    let address = AggregateRef::<A>::new(to.running, to.id);
    let reading = address
        .reading(move |state| typed::state_body(state, fingerprint, task.fingerprint))
        .consistency(task.consistency)
        .min_version(task.min_version)
        .within(to.within)
        .sent_on()
        .start();
    Box::pin(async move {
        match reading.finish().await {
            Ok(Seen { value: Ok(body), version, epoch, .. }) => {
                Outcome::Done(DoneOutcome { body, version, epoch, duplicate: false })
            }
            Ok(Seen { value: Err(why), .. }) | Err(why) => Outcome::not_attempted(why),
        }
    })
}

fn save<A: Aggregate>(to: To, task: SaveTask) -> Answer {
    let events = match typed::events(&task) {
        Ok(events) => events,
        Err(why) => return refused(why),
    };
    let mut saving = AggregateRef::<A>::new(to.running, to.id).save(task.expected, events);
    saving.call = Call::sent_on(task.command_id, task.fresh, to.within, task.metadata);
    Box::pin(async move { typed::save_outcome(saving.await) })
}
