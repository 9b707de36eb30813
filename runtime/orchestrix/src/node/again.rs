//! Work in the form that reaches every node: what is sent where the shard is, when it is not here.

use std::sync::Arc;
use std::time::Instant;

use orchestrix_core::store::BoxFuture;
use orchestrix_core::{Aggregate, Command, CommandId, Epoch, ShardId, Version};

use super::address::AggregateRef;
use super::reading::Seen;
use super::router::Router;
use super::{Done, guarded_view};
use crate::aggregate::{CommandAnswer, InFlight};
use crate::cluster::wire::typed::{self, Asked};
use crate::cluster::wire::{Outcome, Work};
use crate::error::{NotAttempted, SaveError};

/// Work that may be sent on.
pub(super) struct Again {
    pub(super) router: Arc<Router>,
    pub(super) in_flight: Arc<InFlight>,
    pub(super) work: Work,
    pub(super) deadline: Instant,
}

impl Again {
    /// Takes it to the owner, under the bound of the node that it came to first.
    async fn carry(self) -> Result<(Work, Outcome), NotAttempted> {
        let _place = self.in_flight.enter()?;
        let outcome = self.router.carry(self.work.clone(), self.deadline).await;
        Ok((self.work, outcome))
    }

    /// Takes a command there.
    pub(super) fn command<C: Command>(self, command_id: CommandId) -> BoxFuture<'static, CommandAnswer<C>> {
        Box::pin(async move {
            let (work, outcome) = self.carry().await?;
            typed::command_answer::<C>(&asked(work, command_id), outcome)
        })
    }

    /// Takes a save there.
    pub(super) async fn save(self, command_id: CommandId) -> Result<Done<()>, SaveError> {
        let (work, outcome) = self.carry().await?;
        typed::save_answer(&asked(work, command_id), outcome)
    }

    /// Fetches the state of an aggregate, and looks at it here.
    pub(super) async fn read<A: Aggregate, R>(
        self,
        of: AggregateRef<A>,
        fingerprint: u64,
        view: impl FnOnce(&A) -> R,
    ) -> Result<Seen<R>, NotAttempted> {
        let shard = self.work.shard;
        let (_, outcome) = self.carry().await?;
        let typed::Seen { state, version, epoch } = typed::state_answer::<A>(fingerprint, outcome)?;
        let state = match state {
            Some(state) => state,
            None => replayed(&of, version).await?,
        };
        Ok(Seen { value: guarded_view(&state, view)?, version, shard, epoch })
    }
}

/// Tells whether work that this node did not do may be done by another one.
pub(super) fn may_be_elsewhere(why: &NotAttempted) -> bool {
    matches!(why, NotAttempted::NotOwner { .. } | NotAttempted::Unavailable { .. })
}

/// Makes the state from its events up to a version that the owner has answered for, where that node has another shape of it.
async fn replayed<A: Aggregate>(of: &AggregateRef<A>, version: Version) -> Result<A, NotAttempted> {
    if version == Version::ZERO {
        return Ok(A::default());
    }
    let past = of.load_at_version(version).await;
    past.map(|past| past.state).map_err(|error| NotAttempted::unavailable(error.to_string()))
}

fn asked(work: Work, command_id: CommandId) -> Asked {
    Asked { stream: work.stream, shard: work.shard, command_id }
}

/// Where work goes, without what it is.
pub(super) fn work_for<A: Aggregate>(
    id: &Arc<str>,
    shard: ShardId,
    task: crate::cluster::wire::Task,
) -> Work {
    let stream = orchestrix_core::StreamId::new(A::TYPE.as_str(), Arc::clone(id));
    Work { shard, epoch: None::<Epoch>, stream, task }
}
