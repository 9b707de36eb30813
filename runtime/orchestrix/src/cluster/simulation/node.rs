//! A model of a node: it carries out what its membership wants, and stands in for the runtime beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use orchestrix_core::{Epoch, Incarnation, ShardId};

use super::actor::{Actor, Said};
use super::client::{Ask, Word};
use super::database::{Reply, Request};
use super::facts::{Fact, Facts};
use super::mutant::Mutant;
use crate::cluster::boottime::BootTime;
use crate::cluster::member::{Answer, Effect, Input, Loss, Membership};
use crate::cluster::placement::Limits;
use crate::cluster::routes::{Moved, Route, Routes};

/// A clock that drifts: so many millionths of a second pass in a second of the world.
#[derive(Clone, Copy, Debug)]
pub(super) struct DriftingClock {
    pub(super) offset: u64,
    pub(super) rate: u64,
}

impl DriftingClock {
    pub(super) fn read(self, world: u64) -> BootTime {
        BootTime::from_nanos((self.offset + world * self.rate / 1_000_000) * 1_000)
    }

    /// Returns when in the world the clock will have reached a moment.
    pub(super) fn world(self, moment: BootTime) -> u64 {
        let micros = (moment.as_nanos().div_ceil(1_000)).saturating_sub(self.offset);
        (micros * 1_000_000).div_ceil(self.rate)
    }
}

/// What one node says to another.
#[derive(Clone, Debug)]
pub(super) enum Message {
    Look,
    Forward { ask: Ask, from: Incarnation },
    Moved(Moved),
}

/// What a node does to the world.
#[derive(Debug)]
pub(super) enum Out {
    Request {
        call: u64,
        request: Request,
    },
    Peer {
        to: Incarnation,
        message: Message,
    },
    Say {
        said: Said,
        run: Incarnation,
    },
    /// Everybody leaves memory, which takes some time.
    LeaveMemory,
}

/// A call of the database that has no answer yet.
#[derive(Clone, Debug)]
struct Call {
    run: Incarnation,
    sent: BootTime,
    kind: CallKind,
}

#[derive(Clone, Copy, Debug)]
enum CallKind {
    Join,
    Renew,
    Look,
    Plan,
    Claim,
    Release,
    Leave,
    Append(ShardId, Epoch),
    Load(ShardId, Epoch),
}

pub(super) struct Node {
    pub(super) id: usize,
    pub(super) clock: DriftingClock,
    pub(super) membership: Membership,
    pub(super) is_paused: bool,
    pub(super) is_crashed: bool,
    /// Which process of this node: answers to a former one reach nobody.
    pub(super) process: u32,
    pub(super) actors: BTreeMap<ShardId, Actor>,
    /// Until when the lease is believed in.
    pub(super) until: BootTime,
    /// Runs that are certainly gone.
    pub(super) gone: BTreeSet<Incarnation>,
    pub(super) wakes_at: Option<u64>,
    routes: Routes,
    calls: BTreeMap<u64, Call>,
    last_call: u64,
    runs: u64,
    lease: Duration,
    mutant: Option<Mutant>,
}

pub(super) struct Setup {
    pub(super) id: usize,
    pub(super) clock: DriftingClock,
    pub(super) lease: Duration,
    pub(super) limits: Limits,
    pub(super) mutant: Option<Mutant>,
}

/// What the world lends to a node while it does something.
pub(super) struct Given<'a> {
    pub(super) now: BootTime,
    pub(super) out: &'a mut Vec<Out>,
    pub(super) facts: &'a mut Facts,
}

impl Node {
    pub(super) fn new(setup: &Setup, process: u32, now: u64) -> Self {
        let me = run_of(setup.id, process, 0);
        let at = setup.clock.read(now);
        Self {
            id: setup.id,
            clock: setup.clock,
            membership: Membership::new(me, setup.lease, setup.limits, at),
            is_paused: false,
            is_crashed: false,
            process,
            actors: BTreeMap::new(),
            until: BootTime::from_nanos(0),
            gone: BTreeSet::new(),
            wakes_at: None,
            routes: Routes::new(me),
            calls: BTreeMap::new(),
            last_call: 0,
            runs: 0,
            lease: setup.lease,
            mutant: setup.mutant,
        }
    }

    pub(super) fn run(&self) -> Incarnation {
        self.membership.run()
    }

    pub(super) fn has_append_in_flight(&self) -> bool {
        self.actors.values().any(Actor::has_append_in_flight)
    }

    /// Tells whether a process of this node still waits for the answer to a call.
    pub(super) fn waits_for(&self, process: u32, call: u64) -> bool {
        self.process == process && self.calls.contains_key(&call)
    }

    /// Tells whether this node would speak for a shard now.
    pub(super) fn may_speak(&self, shard: ShardId, now: BootTime) -> bool {
        !self.is_crashed && now < self.until && self.actors.contains_key(&shard)
    }

    pub(super) fn hear(&mut self, input: Input, given: &mut Given<'_>) {
        for effect in self.membership.on(input, given.now) {
            self.carry_out(effect, given);
        }
    }

    fn carry_out(&mut self, effect: Effect, given: &mut Given<'_>) {
        match effect {
            Effect::Join { former } => self.call(CallKind::Join, Request::Join { former }, given),
            Effect::Renew { draining } => self.call(CallKind::Renew, Request::Renew { draining }, given),
            Effect::Look => self.call(CallKind::Look, Request::View, given),
            Effect::SetTargets { view, moves } => {
                let targets = moves.into_iter().map(|(target, _)| target).collect();
                self.call(CallKind::Plan, Request::SetTargets { view, targets }, given);
            }
            Effect::Claim(shards) => {
                let shards = shards.into_iter().map(|(shard, _)| shard).collect();
                let gone = self.gone.clone();
                self.call(CallKind::Claim, Request::Claim { shards, gone }, given);
            }
            Effect::Release(shards) => self.call(CallKind::Release, Request::Release { shards }, given),
            Effect::Leave => self.call(CallKind::Leave, Request::Leave, given),
            Effect::Open(claims) => {
                for claim in claims {
                    let (shard, epoch) = (claim.shard, claim.epoch);
                    self.end(shard, given);
                    self.actors.insert(shard, Actor::new(epoch));
                    self.call(CallKind::Load(shard, epoch), Request::Load { shard }, given);
                }
            }
            Effect::Seal(shards) => {
                for (shard, _, _) in shards {
                    if let Some(actor) = self.actors.get_mut(&shard) {
                        actor.sealing = true;
                    }
                }
                self.look_for_sealed(given);
            }
            Effect::Fence(shards) => {
                for (shard, _) in shards {
                    self.end(shard, given);
                }
            }
            Effect::FenceAll(_) => self.fence_all(given),
            Effect::Extend(until) => self.extend(until),
            Effect::Publish => {
                if let Some(view) = self.membership.view() {
                    self.routes.on_view(view);
                }
            }
            Effect::Hint(runs) => {
                given.out.extend(runs.into_iter().map(|to| Out::Peer { to, message: Message::Look }));
            }
        }
    }

    fn extend(&mut self, until: BootTime) {
        let margin = if self.mutant == Some(Mutant::NoMargin) { self.lease / 10 } else { Duration::ZERO };
        self.until = self.until.max(until.plus(margin));
    }

    fn fence_all(&mut self, given: &mut Given<'_>) {
        given.facts.count(Fact::Deposed);
        let shards: Vec<_> = self.actors.keys().copied().collect();
        for shard in shards {
            self.end(shard, given);
        }
        self.until = BootTime::from_nanos(0);
        given.out.push(Out::LeaveMemory);
    }

    /// Nobody is left in memory.
    pub(super) fn on_empty(&mut self, given: &mut Given<'_>) {
        self.runs += 1;
        let next = run_of(self.id, self.process, self.runs);
        self.hear(Input::Fenced { next }, given);
        self.routes.become_run(self.run());
    }

    fn end(&mut self, shard: ShardId, given: &mut Given<'_>) {
        if let Some(actor) = self.actors.remove(&shard) {
            self.say(shard, actor.end(), given);
        }
    }

    fn look_for_sealed(&mut self, given: &mut Given<'_>) {
        let is_sealed = |actor: &Actor| actor.sealing && actor.has_finished();
        let sealed: Vec<_> = self
            .actors
            .iter()
            .filter(|(_, actor)| is_sealed(actor))
            .map(|(shard, actor)| (*shard, actor.epoch))
            .collect();
        for (shard, _) in &sealed {
            self.end(*shard, given);
        }
        if !sealed.is_empty() {
            self.hear(Input::Sealed(sealed), given);
        }
    }

    fn call(&mut self, kind: CallKind, request: Request, given: &mut Given<'_>) {
        self.last_call += 1;
        self.calls.insert(self.last_call, Call { run: self.run(), sent: given.now, kind });
        given.out.push(Out::Request { call: self.last_call, request });
    }

    /// A command or a read has come, from a caller or from another node.
    pub(super) fn on_ask(&mut self, ask: Ask, from: Option<Incarnation>, given: &mut Given<'_>) {
        let (shard, mutant) = (ask.shard, self.mutant);
        if let Some(actor) = self.actors.get_mut(&shard).filter(|actor| !actor.sealing) {
            let said = actor.on_ask(ask, mutant);
            self.say(shard, said, given);
            return self.append(shard, given);
        }
        if let (Some(to), Some(moved)) = (from, self.routes.moved(shard)) {
            given.out.push(Out::Peer { to, message: Message::Moved(moved) });
        }
        match self.routes.route(shard, ask.hops) {
            Route::Peer { run, .. } => {
                given.facts.count(Fact::Forwarded);
                let ask = Ask { hops: ask.hops + 1, ..ask };
                given.out.push(Out::Peer { to: run, message: Message::Forward { ask, from: self.run() } });
            }
            Route::Own | Route::Unknown => {
                self.say(shard, vec![Said { ask, word: Word::NotAttempted, is_belief: false }], given);
            }
        }
    }

    pub(super) fn on_message(&mut self, message: Message, given: &mut Given<'_>) {
        match message {
            Message::Look => self.hear(Input::Look, given),
            Message::Forward { ask, from } => self.on_ask(ask, Some(from), given),
            Message::Moved(moved) => drop(self.routes.on_moved(moved)),
        }
    }

    fn append(&mut self, shard: ShardId, given: &mut Given<'_>) {
        let Some(actor) = self.actors.get_mut(&shard) else { return };
        let epoch = actor.epoch;
        if let Some((expected, ids)) = actor.next_append() {
            let request = Request::Append { shard, epoch, expected, ids };
            self.call(CallKind::Append(shard, epoch), request, given);
        }
    }

    /// Says what was decided; what rests on belief only while this node may speak.
    fn say(&mut self, shard: ShardId, said: Vec<Said>, given: &mut Given<'_>) {
        let unchecked = self.mutant == Some(Mutant::NoCheck);
        for mut said in said {
            if said.is_belief && !unchecked && !self.may_speak(shard, given.now) {
                given.facts.count(Fact::Withheld);
                said = Said { word: Word::NotAttempted, is_belief: false, ..said };
            }
            given.out.push(Out::Say { said, run: self.run() });
        }
    }

    /// A call has an answer, or has taken too long.
    pub(super) fn on_reply(&mut self, call: u64, reply: Option<Reply>, given: &mut Given<'_>) {
        let Some(Call { run, sent, kind }) = self.calls.remove(&call) else { return };
        let answer = match (kind, reply) {
            (CallKind::Append(shard, epoch), reply) => return self.on_append(shard, epoch, reply, given),
            (CallKind::Load(shard, epoch), reply) => return self.on_load(shard, epoch, reply, given),
            (CallKind::Join, reply) => Answer::Joined(matches!(reply, Some(Reply::Joined))),
            (CallKind::Leave, reply) => Answer::Left(matches!(reply, Some(Reply::Left))),
            (CallKind::Renew, Some(Reply::Renewed(renewed))) => Answer::Renewed(Some(renewed)),
            (CallKind::Renew, _) => Answer::Renewed(None),
            (CallKind::Look, Some(Reply::View(view))) => Answer::View(Some(view)),
            (CallKind::Look, _) => Answer::View(None),
            (CallKind::Plan, Some(Reply::Targets(outcome))) => Answer::Targets(Some(outcome)),
            (CallKind::Plan, _) => Answer::Targets(None),
            (CallKind::Claim, Some(Reply::Claimed(claims))) => Answer::Claimed(claims),
            (CallKind::Claim, _) => Answer::Claimed(None),
            (CallKind::Release, Some(Reply::Released(released))) => {
                for _ in released.iter().filter(|released| **released) {
                    given.facts.count(Fact::HandedOver);
                }
                Answer::Released(Some(released))
            }
            (CallKind::Release, _) => Answer::Released(None),
        };
        self.hear(Input::Answer { run, sent, answer }, given);
    }

    fn on_append(&mut self, shard: ShardId, epoch: Epoch, reply: Option<Reply>, given: &mut Given<'_>) {
        let Some(actor) = self.actors.get_mut(&shard).filter(|actor| actor.epoch == epoch) else { return };
        let loss = match reply {
            Some(Reply::Committed) => {
                let said = actor.on_committed();
                self.say(shard, said, given);
                self.append(shard, given);
                return self.look_for_sealed(given);
            }
            Some(Reply::Fenced | Reply::Down) => {
                actor.on_refused();
                Loss::Fenced
            }
            _ => {
                given.facts.count(Fact::InDoubt);
                Loss::InDoubt
            }
        };
        self.hear(Input::Lost { shard, epoch, loss }, given);
    }

    fn on_load(&mut self, shard: ShardId, epoch: Epoch, reply: Option<Reply>, given: &mut Given<'_>) {
        let Some(actor) = self.actors.get_mut(&shard).filter(|actor| actor.epoch == epoch) else { return };
        if let Some(Reply::Loaded(log)) = reply {
            let said = actor.on_loaded(log, self.mutant);
            self.say(shard, said, given);
            self.append(shard, given);
            self.look_for_sealed(given);
        } else {
            self.call(CallKind::Load(shard, epoch), Request::Load { shard }, given);
        }
    }
}

/// The incarnation of one run of one process of a node: the same in every run of a seed, and in no order.
pub(super) fn run_of(node: usize, process: u32, run: u64) -> Incarnation {
    let number = (node as u128) << 96 | u128::from(process) << 64 | u128::from(run);
    let spread = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    Incarnation::from_uuid(uuid::Uuid::from_u128(spread))
}
