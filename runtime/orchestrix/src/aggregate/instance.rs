//! A state with its life, its gate and its memory: what the actor carries, without the actor.

mod answers;
mod upkeep;

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use orchestrix_core::store::{Commit, QuarantineRecord, Receipt};
use orchestrix_core::{
    Aggregate, CommandId, Context, Epoch, Metadata, ShardId, StreamId, Timestamp, Version,
};

use super::dedup::{Memory, Verdict};
use super::directory::{Local, Slot};
use super::draft::Draft;
use super::gate::{Gate, Withheld};
use super::job::{Job, Ran};
use super::lifecycle::{Admission, Lifecycle, Next};
use super::recovery::{Recovered, Unrecovered, panic_words};
use super::remembered::{Remembered, Reply};
use crate::telemetry::TypeTelemetry;
use crate::writer::{Append, Fate, Loss, Pending, Settlement};
use upkeep::Progress;

/// Where a resident aggregate is on its arbiter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) slot: Slot,
    pub(crate) type_index: usize,
    pub(crate) shard: ShardId,
    /// The term of the shard in which it was loaded; in a later one it does not speak.
    pub(crate) term: Epoch,
}

/// One resident aggregate.
pub(crate) struct Instance<A: Aggregate> {
    stream: StreamId,
    place: Place,
    /// Jobs that arrived and were not yet answered.
    depth: u32,
    /// When the residency was last told that it is in use.
    touched: Instant,
    state: A,
    life: Lifecycle,
    gate: Gate,
    memory: Memory,
    parked: VecDeque<Box<dyn Job<A>>>,
    /// The job that made the code panic, to be run once more after the reload, and refused after that.
    suspect: Option<Box<dyn Job<A>>>,
    /// Set from a panic until the suspect has run again without one.
    is_suspicious: bool,
    quarantine: Option<Box<QuarantineRecord>>,
    progress: Progress,
    weight: usize,
    unweighed: usize,
    leaving: bool,
    local: Rc<Local>,
    telemetry: Arc<TypeTelemetry>,
}

impl<A: Aggregate> Instance<A> {
    pub(crate) fn new(
        stream: StreamId,
        place: Place,
        local: Rc<Local>,
        telemetry: Arc<TypeTelemetry>,
        now: Instant,
    ) -> Self {
        Self {
            stream,
            place,
            depth: 0,
            touched: now,
            state: A::default(),
            life: Lifecycle::new(),
            gate: Gate::default(),
            memory: Memory::default(),
            parked: VecDeque::new(),
            suspect: None,
            is_suspicious: false,
            quarantine: None,
            progress: Progress::default(),
            weight: 0,
            unweighed: 0,
            leaving: false,
            local,
            telemetry,
        }
    }

    pub(crate) fn stream(&self) -> &StreamId {
        &self.stream
    }

    pub(crate) fn place(&self) -> Place {
        self.place
    }

    pub(crate) fn slot(&self) -> Slot {
        self.place.slot
    }

    /// Returns how many jobs arrived and were not yet answered.
    pub(crate) fn depth(&self) -> u32 {
        self.depth
    }

    /// Takes note of a job that arrives; `true` when the residency was not told of a use for this long.
    pub(crate) fn arrived(&mut self, now: Instant, touch_pause: Duration) -> bool {
        self.depth += 1;
        let is_due = now.saturating_duration_since(self.touched) >= touch_pause;
        if is_due {
            self.touched = now;
        }
        is_due
    }

    /// Takes note of answered jobs.
    pub(crate) fn answered(&mut self, jobs: u32) {
        debug_assert!(jobs <= self.depth, "no job is answered twice");
        self.depth = self.depth.saturating_sub(jobs);
    }

    pub(crate) fn local(&self) -> &Rc<Local> {
        &self.local
    }

    pub(crate) fn telemetry(&self) -> &Arc<TypeTelemetry> {
        &self.telemetry
    }

    /// Returns the quarantine that is still to be stored, once.
    pub(crate) fn take_quarantine(&mut self) -> Option<Box<QuarantineRecord>> {
        self.quarantine.take()
    }

    /// Takes note that it has left memory.
    pub(crate) fn on_gone(&self) {
        self.telemetry.passivated();
    }

    /// Returns when the residency was last told that it is in use.
    pub(crate) fn touched(&self) -> Instant {
        self.touched
    }

    /// Tells whether it has a state and decides on it.
    pub(crate) fn is_running(&self) -> bool {
        self.life.is_running()
    }

    pub(crate) fn state(&self) -> &A {
        &self.state
    }

    pub(crate) fn head(&self) -> Version {
        self.life.head()
    }

    /// Opens the span of a command; it costs nothing unless somebody listens at this level.
    pub(crate) fn span(&self, command: &'static str, command_id: CommandId) -> tracing::Span {
        tracing::debug_span!(
            "command",
            aggregate = %self.stream.aggregate_type,
            id = %self.stream.id,
            command,
            %command_id,
            epoch = self.epoch().get(),
        )
    }

    /// Returns the time by the node's clock.
    pub(crate) fn now(&self) -> Timestamp {
        self.local.shared.clock.now()
    }

    /// Says what is remembered of a command.
    pub(crate) fn remembered(
        &mut self,
        id: CommandId,
        fingerprint: u64,
        fresh: bool,
        now: Timestamp,
    ) -> Verdict<'_> {
        if fresh {
            return Verdict::New;
        }
        self.memory.check(id, fingerprint, now, self.local.shared.window())
    }

    /// Makes what a handler may know.
    pub(crate) fn context(&self, command_id: CommandId, metadata: Metadata, now: Timestamp) -> Context {
        Context { command_id, stream: self.stream.clone(), version: self.life.head(), now, metadata }
    }

    /// Work arrives.
    pub(crate) fn on_job(&mut self, job: Box<dyn Job<A>>) -> Next {
        match self.life.on_work() {
            Admission::Decide => self.run(job),
            Admission::Park => {
                self.parked.push_back(job);
                Next::Stay
            }
            Admission::Refuse(ending) => {
                job.refuse(self.told_of(&ending));
                self.answered(1);
                Next::End
            }
        }
    }

    fn run(&mut self, job: Box<dyn Job<A>>) -> Next {
        match job.run(self) {
            Ran::Answered => self.answered(1),
            Ran::Held => {}
            Ran::Appended if self.life.is_running() => {}
            Ran::Appended => return Next::End,
            Ran::Panicked(job, words) => return self.on_panic(job, &words),
        }
        Next::Stay
    }

    /// User code panicked in a job: once is bad luck and is tried again on a rebuilt state; twice is poison.
    fn on_panic(&mut self, job: Box<dyn Job<A>>, words: &str) -> Next {
        let command_id = job.command_id();
        self.telemetry.aggregate_error(&self.stream, "panicked", words, command_id);
        self.suspect = Some(job);
        if !self.is_suspicious {
            self.is_suspicious = true;
            return self.life.on_panic();
        }
        self.telemetry.quarantined();
        let reason: Arc<str> = format!("the code panicked twice on the same command: {words}").into();
        self.quarantine = Some(Box::new(QuarantineRecord {
            stream: self.stream.clone(),
            reason: reason.to_string(),
            command_id,
            since: self.local.shared.clock.now(),
        }));
        self.life.on_poisoned(reason)
    }

    /// The node lost the shard: the state may be old.
    pub(crate) fn on_fenced(&mut self) -> Next {
        self.life.on_fenced()
    }

    /// Something panicked where no guard of user code stands: the runtime itself, or a `Drop` of the user's. Nothing
    /// here can be trusted any more, and loading again might end in the same place.
    pub(crate) fn on_broken(&mut self, words: Arc<str>) -> Next {
        self.telemetry.aggregate_error(&self.stream, "panicked", &words, None);
        self.life.on_poisoned(words)
    }

    /// Applies what a command decided. After an error the state is worthless.
    pub(crate) fn apply(&mut self, draft: &Draft<A::Event>) -> Result<(), Arc<str>> {
        let state = &mut self.state;
        catch_unwind(AssertUnwindSafe(|| draft.events.iter().for_each(|event| state.apply(event))))
            .map_err(|panic| panic_words(&*panic))
    }

    /// Queues the commit of what was just applied and remembers its command.
    pub(crate) fn append(&mut self, draft: Draft<A::Event>, pending: Box<dyn Pending>) {
        let (events, expected) = (draft.stored.len() as u64, self.life.head());
        self.grow(events, draft.payload_bytes());
        self.life.on_appended(events);
        let command = Remembered {
            id: draft.command_id,
            fingerprint: draft.fingerprint,
            version: self.life.head(),
            at: draft.at,
            reply: Reply::from_slice(Receipt::reply_bytes(&draft.receipt)),
        };
        self.memory.remember(command, self.local.shared.window());
        let commit = Commit {
            stream: self.stream.clone(),
            shard: self.place.shard,
            epoch: Epoch::ZERO,
            expected,
            command_id: draft.command_id,
            recorded_at: draft.at,
            headers: draft.headers,
            receipt: Some(draft.receipt),
            events: draft.stored,
        };
        let append = Append { commit, slot: self.place.slot, pending };
        if let Err(error) = self.local.shared.lane(self.place.shard).try_send(append) {
            // The queue has room for everything in flight, so it can only be closed.
            let append = error.into_inner();
            let why: Arc<str> = "the writer has stopped".into();
            append.pending.settle(&Fate::Lost(Loss::Unavailable(Arc::clone(&why))));
            self.answered(1);
            self.life.on_not_queued(why);
        }
    }

    /// The lane answered commits.
    pub(crate) fn on_settled(&mut self, settlement: &Settlement) -> Next {
        let next = self.life.on_settled(settlement);
        let durable = self.life.durable();
        let released = self.release(durable);
        self.answered(settlement.answered + released);
        if let Some(loss) = &settlement.loss {
            let lost = Withheld::Lost(loss.to_not_attempted(self.place.shard));
            let failed = self.gate.fail(&lost);
            self.answered(failed);
            self.local.on_loss(loss, &self.stream, self.place);
        } else {
            self.after_durable();
        }
        next
    }

    /// The state was rebuilt, or could not be.
    pub(crate) fn on_recovered(&mut self, recovered: Result<Recovered<A>, Unrecovered>) -> Next {
        match recovered {
            Ok(recovered) => {
                if self.life.on_recovered(recovered.version) == Next::End {
                    return Next::End;
                }
                self.progress = Progress::since(&recovered);
                self.state = recovered.state;
                self.memory = recovered.memory;
                self.weigh();
                self.resume()
            }
            Err(unrecovered) => {
                self.quarantine = unrecovered.quarantine;
                self.life.on_recovery_failed(unrecovered.ending)
            }
        }
    }

    /// Runs what waited, the suspect first. It stops where something makes the state worthless again.
    fn resume(&mut self) -> Next {
        if let Some(job) = self.suspect.take() {
            let next = self.run(job);
            if next != Next::Stay || !self.life.is_running() {
                return next;
            }
            self.is_suspicious = false;
        }
        while self.life.is_running()
            && let Some(job) = self.parked.pop_front()
        {
            let next = self.run(job);
            if next != Next::Stay {
                return next;
            }
        }
        Next::Stay
    }

    /// It should leave memory; it goes as soon as it has nothing to do.
    pub(crate) fn on_passivate(&mut self) -> Next {
        self.leaving = true;
        self.leave_if_idle()
    }

    /// Tells whether it was told to go and has nothing left to do.
    pub(crate) fn wants_to_leave(&self) -> bool {
        self.leaving && self.depth == 0
    }

    /// Goes if it was told to and has nothing left to do.
    pub(crate) fn leave_if_idle(&mut self) -> Next {
        if !self.wants_to_leave() {
            return Next::Stay;
        }
        let next = self.life.on_passivate(true);
        if next == Next::End {
            self.snapshot_before_leaving();
        }
        next
    }
}
