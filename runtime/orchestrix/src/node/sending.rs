//! A command on its way: to the aggregate if it is here, to the node that owns it if not.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll, ready};
use std::time::{Duration, Instant};

use orchestrix_core::codec::bincode;
use orchestrix_core::store::BoxFuture;
use orchestrix_core::{Aggregate, Command, CommandId, Handle, Metadata};

use super::Done;
use super::address::{AggregateRef, Call, NoAnswer, Submitted};
use super::again::{Again, may_be_elsewhere};
use super::running::Running;
use crate::aggregate::{CommandAnswer, CommandJob};
use crate::cluster::wire::{Task, typed};
use crate::error::{NotAttempted, SendError, Unknown};
use crate::telemetry::CommandOutcome;

/// A command on its way: set what it needs, then `.await` it.
pub struct Sending<A: Aggregate, C: Command> {
    to: AggregateRef<A>,
    command: C,
    pub(super) call: Call,
}

impl<A: Handle<C>, C: Command> Sending<A, C> {
    pub(super) fn new(to: AggregateRef<A>, command: C) -> Self {
        Self { to, command, call: Call::default() }
    }

    /// Sets the command's id, so that a retry with the same id has no second effect. Without one a fresh one is made.
    #[must_use]
    pub fn id(mut self, id: CommandId) -> Self {
        self.call.id = Some(id);
        self
    }

    /// Sets how long the answer may take. Default: the node's `command_timeout`.
    #[must_use]
    pub fn within(mut self, limit: Duration) -> Self {
        self.call.within = Some(limit);
        self
    }

    /// Sets what travels with the command and is stored with its events.
    #[must_use]
    pub fn metadata(mut self, metadata: Metadata) -> Self {
        self.call.metadata = metadata;
        self
    }

    /// Sends it and returns the reply with version, epoch and id.
    ///
    /// # Errors
    /// [`SendError`]: refused by the aggregate, not attempted, or unknown.
    ///
    /// # Cancel safety
    /// A dropped future takes the command back if the aggregate has not looked at it; otherwise it is carried out.
    /// In doubt, send it again with the same id.
    pub fn receipt(self) -> Receipt<C> {
        let started = Instant::now();
        let Self { to, command, call } = self;
        let command_id = call.id.unwrap_or_else(CommandId::fresh);
        let deadline = started + call.within.unwrap_or(to.running.shared.settings.command_timeout);
        let task = || typed::command_task(&command, command_id, call.is_fresh(), call.metadata.clone());
        let again = to.again(call.is_sent_on, deadline, || task().map(Task::Command));
        let (way, again) = match again.transpose() {
            Err(why) => (Way::Here(Err(why)), None),
            Ok(Some(again)) if !to.is_here() => (Way::There(again.command::<C>(command_id)), None),
            Ok(again) => (Way::Here(to.send_here(command, command_id, call, deadline)), again),
        };
        let type_index = to.type_index();
        Receipt { way, again, command_id, running: to.running, type_index, started }
    }
}

impl<A: Aggregate> AggregateRef<A> {
    fn send_here<C: Command>(
        &self,
        command: C,
        command_id: CommandId,
        call: Call,
        deadline: Instant,
    ) -> Submitted<CommandAnswer<C>>
    where
        A: Handle<C>,
    {
        let fingerprint = bincode::fingerprint(C::NAME, &command)?;
        let (fresh, metadata) = (call.is_fresh(), call.metadata);
        self.submit(deadline, |envelope| CommandJob {
            envelope,
            command,
            command_id,
            fresh,
            fingerprint,
            metadata,
            promised: None,
        })
    }
}

/// Which way a command went.
enum Way<C: Command> {
    Here(Submitted<CommandAnswer<C>>),
    There(BoxFuture<'static, CommandAnswer<C>>),
    Over,
}

/// A command under way: its reply with version, epoch and id. See [`Sending::receipt`].
#[must_use = "await it to hear what became of the command"]
pub struct Receipt<C: Command> {
    way: Way<C>,
    /// What is sent on if the shard turns out to be elsewhere.
    again: Option<Again>,
    command_id: CommandId,
    running: Arc<Running>,
    type_index: Option<usize>,
    started: Instant,
}

impl<C: Command> Future for Receipt<C> {
    type Output = CommandAnswer<C>;

    fn poll(mut self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<Self::Output> {
        loop {
            let result = match &mut self.way {
                Way::Here(Ok(sent)) => {
                    let answer = ready!(sent.poll_answer(context));
                    self.said(answer)
                }
                Way::Here(Err(why)) => Err(why.clone().into()),
                Way::There(carried) => ready!(carried.as_mut().poll(context)),
                Way::Over => panic!("a future is not polled after its end"),
            };
            self.way = Way::Over;
            match (&result, self.again.take()) {
                (Err(SendError::NotAttempted(why)), Some(again)) if may_be_elsewhere(why) => {
                    self.way = Way::There(again.command::<C>(self.command_id));
                }
                _ => {
                    self.count(&result);
                    return Poll::Ready(result);
                }
            }
        }
    }
}

impl<C: Command> Receipt<C> {
    fn said(&self, answer: Result<CommandAnswer<C>, NoAnswer>) -> CommandAnswer<C> {
        match answer {
            Ok(answer) => answer,
            Err(NoAnswer::NotAttempted(why)) => Err(why.into()),
            Err(NoAnswer::Unknown(reason)) => {
                Err(Unknown { command_id: self.command_id, reason: reason.into() }.into())
            }
        }
    }

    fn count(&self, result: &CommandAnswer<C>) {
        let telemetry = &self.running.shared.telemetry;
        if let Some(type_index) = self.type_index {
            telemetry.of(type_index).metrics.command(outcome(result), self.started.elapsed());
        }
        if let Err(SendError::NotAttempted(why)) = result {
            telemetry.error(why.kind());
        }
    }
}

/// A command under way: its reply. Made by `.await` on a [`Sending`].
#[must_use = "await it to hear what became of the command"]
pub struct Reply<C: Command>(Receipt<C>);

impl<C: Command> Future for Reply<C> {
    type Output = Result<C::Reply, SendError<C::Refusal>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|result| result.map(|done| done.reply))
    }
}

fn outcome<R, F>(result: &Result<Done<R>, SendError<F>>) -> CommandOutcome {
    match result {
        Ok(done) if done.duplicate => CommandOutcome::Duplicate,
        Ok(_) => CommandOutcome::Done,
        Err(SendError::Refused(_)) => CommandOutcome::Refused,
        Err(SendError::Unknown(_)) => CommandOutcome::Unknown,
        Err(SendError::NotAttempted(NotAttempted::Overloaded { .. })) => CommandOutcome::Overloaded,
        Err(SendError::NotAttempted(_)) => CommandOutcome::Failed,
    }
}

impl<A: Handle<C>, C: Command> IntoFuture for Sending<A, C> {
    type Output = Result<C::Reply, SendError<C::Refusal>>;
    type IntoFuture = Reply<C>;

    fn into_future(self) -> Self::IntoFuture {
        Reply(self.receipt())
    }
}
