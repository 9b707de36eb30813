//! What one run of a node does next about its lease and its shards. A decision file: inputs come with the time, and
//! effects go out; a keeper carries them out.
//!
//! | file | what |
//! |---|---|
//! | `words` | inputs, effects, and why ownership changes |
//! | `view` | takes in a view: what this run has against what it should have, and the plan |
//! | `moves` | the calls that move shards, one of a kind at a time |
//! | `book` | the shards that this run has, and the step for each when a view comes |
//! | `health` | who lives, as far as one observer may say |
//!
//! The database is the truth, and each view is compared with what this run has, whatever messages were lost before:
//! a shard of its own that should be elsewhere is sealed, released and claimed there; one that should be here and that
//! nobody serves is claimed; one that is here by the database and not in memory is claimed anew, so that its epoch rises
//! over whatever is still under way. Hints make this run look sooner, and decide nothing.
//!
//! Bounds: one call of each kind is under way; what is kept is one entry for each shard and each member of the view.

mod book;
mod health;
mod moves;
#[cfg(test)]
mod tests;
mod view;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use orchestrix_core::store::{ClusterView, Renewed};
use orchestrix_core::{Epoch, Incarnation, ShardId};

use super::boottime::BootTime;
use super::lease::{Lease, Renewal};
use super::placement::Limits;
use book::Book;
use health::Observer;
pub(crate) use words::{Answer, Effect, Input, Loss, Why};

/// How many looks fall into a lease while something is on its way or nobody knows who lives.
const LOOKS: u32 = 12;

/// How many looks fall into a lease at most, however many hints come.
const HINTED_LOOKS: u32 = 120;

/// Where a run is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Joining,
    /// It has a lease, or had one and waits for the database.
    Serving,
    /// Somebody took over, and nobody may stay in memory.
    Fencing,
    Leaving,
    Left,
}

/// A kind of call of which nothing is kept but that it is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Plain {
    Join,
    Renew,
    Look,
    Leave,
}

/// The calls of the store that are under way.
#[derive(Clone, Debug, Default)]
struct UnderWay {
    plain: BTreeSet<Plain>,
    /// Those whom a plan concerns.
    plan: Option<BTreeSet<Incarnation>>,
    /// Nothing is decided about these before the answer: it may open them.
    claim: BTreeSet<ShardId>,
    release: Vec<(ShardId, Epoch)>,
}

/// The last view, and when it was asked for.
#[derive(Clone, Debug)]
struct Seen {
    view: ClusterView,
    sent: BootTime,
}

/// One run's membership in the cluster of its store, and those of the runs that succeed it on this node.
#[derive(Debug)]
pub(crate) struct Membership {
    me: Incarnation,
    former: Option<Incarnation>,
    phase: Phase,
    draining: bool,
    limits: Limits,
    lease: Lease,
    observer: Observer,
    seen: Option<Seen>,
    book: Book,
    wanted: BTreeMap<ShardId, Why>,
    under_way: UnderWay,
    /// Views that were asked for before do not know of the last claim or release.
    not_before: BootTime,
    join_at: BootTime,
    renew_at: BootTime,
    look_at: Option<BootTime>,
    looked: BootTime,
    /// A connection broke: until then this run looks often.
    watchful_until: BootTime,
    effects: Vec<Effect>,
}

impl Membership {
    /// Makes the membership of a run that has not joined yet.
    pub(crate) fn new(me: Incarnation, lease: Duration, limits: Limits, now: BootTime) -> Self {
        Self {
            me,
            former: None,
            phase: Phase::Joining,
            draining: false,
            limits,
            lease: Lease::new(lease),
            observer: Observer::new(lease),
            seen: None,
            book: Book::default(),
            wanted: BTreeMap::new(),
            under_way: UnderWay::default(),
            not_before: now,
            join_at: now,
            renew_at: now,
            look_at: None,
            looked: now,
            watchful_until: now,
            effects: Vec::new(),
        }
    }

    /// The run that speaks for this node now.
    pub(crate) fn run(&self) -> Incarnation {
        self.me
    }

    /// Whether it has left for good.
    pub(crate) fn has_left(&self) -> bool {
        self.phase == Phase::Left
    }

    /// The last view.
    pub(crate) fn view(&self) -> Option<&ClusterView> {
        self.seen.as_ref().map(|seen| &seen.view)
    }

    /// When the next [`Input::Tick`] is due, if nothing happens before.
    pub(crate) fn wake(&self) -> Option<BootTime> {
        let idle = |kind| !self.under_way.plain.contains(&kind);
        match self.phase {
            Phase::Joining => Some(self.join_at).filter(|_| idle(Plain::Join)),
            Phase::Serving => {
                let renew = Some(self.renew_at).filter(|_| idle(Plain::Renew));
                let look = self.look_at.filter(|_| idle(Plain::Look));
                [renew, look].into_iter().flatten().min()
            }
            Phase::Leaving => Some(self.renew_at).filter(|_| idle(Plain::Leave)),
            Phase::Fencing | Phase::Left => None,
        }
    }

    /// Takes something in and returns what is to be done, in order.
    pub(crate) fn on(&mut self, input: Input, now: BootTime) -> Vec<Effect> {
        match input {
            Input::Tick => {}
            Input::Answer { run, .. } if run != self.me => {}
            // What a deposed run had under way opens nothing and moves nothing: everybody is leaving memory.
            Input::Answer { .. } if self.phase == Phase::Fencing => {}
            Input::Answer { sent, answer, .. } => self.on_answer(sent, answer, now),
            Input::Sealed(shards) => self.book.on_sealed(&shards),
            Input::Fenced { next } => self.become_next(next, now),
            Input::Lost { shard, epoch, loss } => self.on_lost(shard, epoch, loss, now),
            Input::Look => self.look_by(now),
            Input::PeerLost(run) => self.on_peer_lost(run, now),
            Input::Gone(run) => {
                self.observer.on_gone(run);
                self.look_by(now);
            }
            Input::Drain => {
                self.draining = true;
                self.renew_at = now;
            }
        }
        self.go_on(now);
        std::mem::take(&mut self.effects)
    }

    fn on_answer(&mut self, sent: BootTime, answer: Answer, now: BootTime) {
        match answer {
            Answer::Joined(joined) => self.on_joined(sent, joined, now),
            Answer::Renewed(renewed) => self.on_renewed(sent, renewed, now),
            Answer::View(view) => self.on_view(sent, view, now),
            Answer::Targets(outcome) => self.on_targets(outcome, now),
            Answer::Claimed(claims) => self.on_claimed(claims, now),
            Answer::Released(released) => self.on_released(released, now),
            Answer::Left(left) => {
                self.under_way.plain.remove(&Plain::Leave);
                self.renew_at = now.plus(self.soon());
                if left {
                    self.phase = Phase::Left;
                }
            }
        }
    }

    fn on_joined(&mut self, sent: BootTime, joined: bool, now: BootTime) {
        self.under_way.plain.remove(&Plain::Join);
        if !joined {
            self.join_at = now.plus(self.soon());
            return;
        }
        self.observer.on_answer(now);
        self.phase = Phase::Serving;
        self.not_before = now;
        self.extend(sent, Renewal::Extended, now);
        self.look_by(now);
    }

    fn on_renewed(&mut self, sent: BootTime, renewed: Option<Renewed>, now: BootTime) {
        self.under_way.plain.remove(&Plain::Renew);
        let Some(Renewed { holds, view }) = renewed else {
            return self.extend(sent, Renewal::NoAnswer, now);
        };
        self.observer.on_answer(now);
        if !holds {
            return self.become_deposed(now);
        }
        self.extend(sent, Renewal::Extended, now);
        if self.view().is_none_or(|seen| seen.version != view) {
            self.look_by(now);
        }
    }

    fn extend(&mut self, sent: BootTime, renewal: Renewal, now: BootTime) {
        if let Some(pause) = self.lease.on_renewal(sent, renewal) {
            let from = if renewal == Renewal::Extended { sent } else { now };
            self.renew_at = from.plus(pause).max(now);
        }
        if let Some(until) = self.lease.until().filter(|_| renewal == Renewal::Extended) {
            self.effects.push(Effect::Extend(until));
        }
    }

    /// What is in memory may be old, so everybody leaves it, and this node goes on as another run.
    fn become_deposed(&mut self, now: BootTime) {
        self.lease.on_renewal(now, Renewal::Deposed);
        self.phase = Phase::Fencing;
        self.book = Book::default();
        self.wanted.clear();
        self.seen = None;
        self.effects.push(Effect::FenceAll(Why::Deposed));
    }

    fn become_next(&mut self, next: Incarnation, now: BootTime) {
        if self.phase != Phase::Fencing {
            return;
        }
        self.under_way = UnderWay::default();
        (self.join_at, self.renew_at) = (now, now);
        if self.draining {
            self.phase = Phase::Leaving;
            return;
        }
        self.former = Some(std::mem::replace(&mut self.me, next));
        self.lease = Lease::new(self.lease.length());
        self.phase = Phase::Joining;
    }

    fn on_lost(&mut self, shard: ShardId, epoch: Epoch, loss: Loss, now: BootTime) {
        if self.book.remove(shard, epoch) {
            let why = match loss {
                Loss::Fenced => Why::AppendFenced,
                Loss::InDoubt => Why::AppendInDoubt,
            };
            self.effects.push(Effect::Fence(vec![(shard, why)]));
            self.look_by(now);
        }
    }

    /// A run that is gone for good says nothing more, and its lease ends soon.
    fn on_peer_lost(&mut self, run: Incarnation, now: BootTime) {
        if self.view().is_some_and(|view| view.member(run).is_some()) {
            self.watchful_until = now.plus(self.lease.length());
            self.look_by(now);
        }
    }

    fn holds(&self, now: BootTime) -> bool {
        self.lease.until().is_some_and(|until| now < until)
    }

    /// The pause between two attempts or two looks while something is not as it should be.
    fn soon(&self) -> Duration {
        self.lease.length() / LOOKS
    }

    fn look_by(&mut self, at: BootTime) {
        let at = at.max(self.looked.plus(self.lease.length() / HINTED_LOOKS));
        self.look_at = Some(self.look_at.map_or(at, |before| before.min(at)));
    }
}
