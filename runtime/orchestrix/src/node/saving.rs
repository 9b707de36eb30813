//! Events that were decided elsewhere, on their way to their aggregate.

use std::time::{Duration, Instant};

use orchestrix_core::store::BoxFuture;
use orchestrix_core::{Aggregate, CommandId, Metadata, Version};

use super::Done;
use super::address::{AggregateRef, Call, NoAnswer};
use super::again::may_be_elsewhere;
use crate::aggregate::{SaveJob, events_fingerprint};
use crate::cluster::wire::{Task, typed};
use crate::error::{NotAttempted, SaveError, Unknown};

/// Events on their way: set what they need, then `.await`.
pub struct Saving<A: Aggregate> {
    to: AggregateRef<A>,
    expected: Version,
    events: Vec<A::Event>,
    pub(super) call: Call,
}

impl<A: Aggregate> Saving<A> {
    pub(super) fn new(to: AggregateRef<A>, expected: Version, events: Vec<A::Event>) -> Self {
        Self { to, expected, events, call: Call::default() }
    }

    /// Sets the command id under which the events are saved, so that a retry has no second effect.
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

    /// Sets what is stored with the events.
    #[must_use]
    pub fn metadata(mut self, metadata: Metadata) -> Self {
        self.call.metadata = metadata;
        self
    }

    async fn answer(self) -> Result<Done<()>, SaveError> {
        let Self { to, expected, events, call } = self;
        let command_id = call.id.unwrap_or_else(CommandId::fresh);
        if events.is_empty() {
            return Err(NotAttempted::Unencodable {
                reason: "no events were given; give at least one".into(),
            }
            .into());
        }
        let deadline = Instant::now() + call.within.unwrap_or(to.running.shared.settings.command_timeout);
        let again = {
            let task =
                || typed::save_task(expected, &events, command_id, call.is_fresh(), call.metadata.clone());
            to.again(call.is_sent_on, deadline, || task().map(Task::Save)).transpose()?
        };
        if !to.is_here()
            && let Some(again) = again
        {
            return again.save(command_id).await;
        }
        match (to.save_here(expected, events, command_id, call, deadline).await, again) {
            (Err(SaveError::NotAttempted(why)), Some(again)) if may_be_elsewhere(&why) => {
                again.save(command_id).await
            }
            (answer, _) => answer,
        }
    }
}

impl<A: Aggregate> AggregateRef<A> {
    async fn save_here(
        &self,
        expected: Version,
        events: Vec<A::Event>,
        command_id: CommandId,
        call: Call,
        deadline: Instant,
    ) -> Result<Done<()>, SaveError> {
        let fingerprint = events_fingerprint(&events).map_err(NotAttempted::from)?;
        let (fresh, metadata) = (call.is_fresh(), call.metadata);
        let make =
            |envelope| SaveJob { envelope, expected, events, command_id, fresh, fingerprint, metadata };
        match self.submit(deadline, make)?.answer().await {
            Ok(answer) => answer,
            Err(NoAnswer::NotAttempted(why)) => Err(why.into()),
            Err(NoAnswer::Unknown(reason)) => Err(Unknown { command_id, reason: reason.into() }.into()),
        }
    }
}

impl<A: Aggregate> IntoFuture for Saving<A> {
    type Output = Result<Done<()>, SaveError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.answer())
    }
}
