//! A model of the database: rows, locks and transactions, as far as ownership and appends need them.
//!
//! An append compares epoch and run when it arrives, and holds the shard until it commits, some time later. A claim or a
//! release of that shard waits for it. Leases are counted by the database's own clock, which is that of the world.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use orchestrix_core::store::{
    Claim, ClusterView, Member, NodeRecord, PlanOutcome, Renewed, ShardOwner, Target,
};
use orchestrix_core::{Epoch, Incarnation, Seq, ShardId};

use super::facts::{Fact, Facts};
use super::judge::Violation;
use super::mutant::Mutant;

/// Something asked of the database.
#[derive(Clone, Debug)]
pub(super) enum Request {
    Join {
        former: Option<Incarnation>,
    },
    Renew {
        draining: bool,
    },
    View,
    SetTargets {
        view: u64,
        targets: Vec<Target>,
    },
    /// With the runs that the caller knows to be gone.
    Claim {
        shards: Vec<ShardId>,
        gone: BTreeSet<Incarnation>,
    },
    Release {
        shards: Vec<(ShardId, Epoch)>,
    },
    Leave,
    Append {
        shard: ShardId,
        epoch: Epoch,
        expected: usize,
        ids: Vec<u64>,
    },
    Load {
        shard: ShardId,
    },
}

/// What the database says.
#[derive(Clone, Debug)]
pub(super) enum Reply {
    Joined,
    Renewed(Renewed),
    View(ClusterView),
    Targets(PlanOutcome),
    /// `None` when somebody holds one of them.
    Claimed(Option<Vec<Claim>>),
    Released(Vec<bool>),
    Left,
    Committed,
    Fenced,
    Loaded(Vec<u64>),
    /// It is not there: certainly nothing was done.
    Down,
}

/// Who asked, and which call the reply belongs to.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) node: usize,
    pub(super) process: u32,
    pub(super) run: Incarnation,
    pub(super) call: u64,
    pub(super) request: Request,
    /// The second arrival of one message: nobody hears of it.
    pub(super) is_copy: bool,
}

/// What is to be done about a request.
pub(super) enum Outcome {
    Reply(Reply),
    /// An append has begun, and commits when its number is called.
    Begun(u64),
    Waits,
}

#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) owner: Option<Incarnation>,
    pub(super) epoch: Epoch,
    pub(super) target: Option<Incarnation>,
    pub(super) log: Vec<u64>,
}

#[derive(Clone, Debug)]
struct NodeRow {
    until: u64,
    draining: bool,
    deposed: bool,
}

pub(super) struct Database {
    pub(super) rows: Vec<Row>,
    pub(super) is_up: bool,
    pub(super) in_flight: BTreeMap<u64, Asked>,
    pub(super) waiting: Vec<Asked>,
    nodes: BTreeMap<Incarnation, NodeRow>,
    version: u64,
    transactions: u64,
    lease: u64,
    mutant: Option<Mutant>,
}

impl Database {
    pub(super) fn new(shards: usize, lease: u64, mutant: Option<Mutant>) -> Self {
        let row = Row { owner: None, epoch: Epoch::ZERO, target: None, log: Vec::new() };
        Self {
            rows: vec![row; shards],
            is_up: true,
            in_flight: BTreeMap::new(),
            waiting: Vec::new(),
            nodes: BTreeMap::new(),
            version: 1,
            transactions: 0,
            lease,
            mutant,
        }
    }

    pub(super) fn row(&self, shard: ShardId) -> &Row {
        &self.rows[shard.get() as usize]
    }

    fn row_mut(&mut self, shard: ShardId) -> &mut Row {
        &mut self.rows[shard.get() as usize]
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// Carries a request out, or begins it, or lets it wait.
    pub(super) fn ask(&mut self, asked: &Asked, now: u64, facts: &mut Facts) -> Outcome {
        if self.is_blocked(&asked.request) {
            facts.count(Fact::Waited);
            self.waiting.push(asked.clone());
            return Outcome::Waits;
        }
        let run = asked.run;
        Outcome::Reply(match &asked.request {
            Request::Join { former } => self.join(run, *former, now),
            Request::Renew { draining } => self.renew(run, *draining, now),
            Request::View => Reply::View(self.view(now)),
            Request::SetTargets { view, targets } => self.set_targets(run, *view, targets, now),
            Request::Claim { shards, gone } => self.claim(run, shards, gone, now, facts),
            Request::Release { shards } => self.release(run, shards),
            Request::Leave => {
                self.version += u64::from(self.nodes.remove(&run).is_some());
                Reply::Left
            }
            Request::Append { shard, epoch, expected, .. } => {
                if self.is_fenced(run, *shard, *epoch, *expected) {
                    facts.count(Fact::Fenced);
                    if self.row(*shard).owner != Some(run) {
                        facts.count(Fact::Zombie);
                    }
                    Reply::Fenced
                } else {
                    self.transactions += 1;
                    self.in_flight.insert(self.transactions, asked.clone());
                    return Outcome::Begun(self.transactions);
                }
            }
            Request::Load { shard } => Reply::Loaded(self.row(*shard).log.clone()),
        })
    }

    /// Tells whether a request needs a shard that an append holds.
    fn is_blocked(&self, request: &Request) -> bool {
        let held = |shard: ShardId| {
            self.in_flight
                .values()
                .any(|asked| matches!(asked.request, Request::Append { shard: other, .. } if other == shard))
        };
        let waits = self.mutant != Some(Mutant::KeyShare);
        match request {
            Request::Claim { shards, .. } => waits && shards.iter().any(|shard| held(*shard)),
            Request::Release { shards } => waits && shards.iter().any(|(shard, _)| held(*shard)),
            // The next version of the stream is taken by the one that is in flight.
            Request::Append { shard, .. } => held(*shard),
            Request::Join { .. }
            | Request::Renew { .. }
            | Request::View
            | Request::SetTargets { .. }
            | Request::Leave
            | Request::Load { .. } => false,
        }
    }

    fn is_fenced(&self, run: Incarnation, shard: ShardId, epoch: Epoch, expected: usize) -> bool {
        let row = self.row(shard);
        let is_owner = match self.mutant {
            Some(Mutant::NoFence) => true,
            Some(Mutant::NoIncarnation) => row.epoch == epoch,
            _ => row.epoch == epoch && row.owner == Some(run),
        };
        !is_owner || row.log.len() != expected
    }

    /// Ends an append.
    ///
    /// # Errors
    /// What the commit breaks.
    pub(super) fn commit(&mut self, transaction: u64) -> Result<Option<Asked>, Violation> {
        let Some(asked) = self.in_flight.remove(&transaction) else { return Ok(None) };
        let Request::Append { shard, epoch, expected, ids } = &asked.request else { return Ok(None) };
        let (shard, epoch) = (*shard, *epoch);
        let row = self.row_mut(shard);
        if row.epoch > epoch {
            return Err(Violation::LateEpoch { shard, epoch, now: row.epoch });
        }
        if row.owner != Some(asked.run) {
            return Err(Violation::NotTheOwner { shard, epoch });
        }
        if row.log.len() != *expected {
            return Err(Violation::NotDense { shard });
        }
        if let Some(id) = ids.iter().find(|id| row.log.contains(id)) {
            return Err(Violation::StoredTwice { shard, id: *id });
        }
        row.log.extend(ids);
        Ok(Some(asked))
    }

    /// Crashes: what waits is gone, and of what is in flight nobody hears any more. Returns what is to be committed all
    /// the same, since its record had reached the disk.
    pub(super) fn crash(&mut self) -> Vec<u64> {
        self.is_up = false;
        self.waiting.clear();
        self.in_flight.keys().copied().filter(|transaction| transaction % 2 == 0).collect()
    }

    fn join(&mut self, run: Incarnation, former: Option<Incarnation>, now: u64) -> Reply {
        if let Some(former) = former {
            self.nodes.remove(&former);
        }
        let until = now + self.lease;
        let row = self.nodes.entry(run).or_insert(NodeRow { until, draining: false, deposed: false });
        row.until = until;
        self.version += 1;
        Reply::Joined
    }

    fn renew(&mut self, run: Incarnation, draining: bool, now: u64) -> Reply {
        let until = now + self.lease;
        let mut holds = false;
        if let Some(row) = self.nodes.get_mut(&run).filter(|row| !row.deposed) {
            row.until = until;
            self.version += u64::from(draining && !row.draining);
            row.draining |= draining;
            holds = true;
        }
        Reply::Renewed(Renewed { holds, view: self.version })
    }

    fn view(&self, now: u64) -> ClusterView {
        let member = |(run, row): (&Incarnation, &NodeRow)| Member {
            node: record(*run),
            lease_left: Duration::from_micros(row.until.saturating_sub(now)),
            draining: row.draining,
            deposed: row.deposed,
            load: 0,
        };
        let shards = (0..).map(ShardId::new).zip(&self.rows);
        let shards = shards.map(|(shard, row)| {
            let Row { owner, epoch, target, .. } = *row;
            ShardOwner { shard, owner, epoch, target }
        });
        let members = self.nodes.iter().map(member).collect();
        ClusterView { version: self.version, members, shards: shards.collect() }
    }

    fn holds(&self, run: Incarnation, now: u64) -> bool {
        self.nodes.get(&run).is_some_and(|row| !row.deposed && row.until > now)
    }

    fn set_targets(&mut self, planner: Incarnation, view: u64, targets: &[Target], now: u64) -> Reply {
        // As if another planner had the lock.
        if (now + view).is_multiple_of(17) {
            return Reply::Targets(PlanOutcome::Busy);
        }
        if view != self.version || !self.holds(planner, now) {
            return Reply::Targets(PlanOutcome::Stale);
        }
        for target in targets {
            let row = self.row_mut(target.shard);
            if (row.owner, row.epoch) == (target.owner, target.epoch) {
                row.target = Some(target.target);
            }
        }
        self.version += 1;
        Reply::Targets(PlanOutcome::Set { view: self.version })
    }

    fn claim(
        &mut self,
        run: Incarnation,
        shards: &[ShardId],
        gone: &BTreeSet<Incarnation>,
        now: u64,
        facts: &mut Facts,
    ) -> Reply {
        let others =
            |database: &Self, shard: ShardId| database.row(shard).owner.filter(|owner| *owner != run);
        let is_held = |owner: Incarnation| !gone.contains(&owner) && self.holds(owner, now);
        if shards.iter().filter_map(|shard| others(self, *shard)).any(is_held) {
            return Reply::Claimed(None);
        }
        let mut claims = Vec::new();
        for shard in shards {
            if let Some(owner) = others(self, *shard) {
                facts.count(Fact::TakenOver);
                if let Some(row) = self.nodes.get_mut(&owner) {
                    row.deposed = true;
                }
            }
            let row = self.row_mut(*shard);
            (row.owner, row.epoch, row.target) = (Some(run), row.epoch.next(), None);
            claims.push(Claim { shard: *shard, epoch: row.epoch, head: Seq::new(row.log.len() as u64) });
        }
        self.version += 1;
        Reply::Claimed(Some(claims))
    }

    fn release(&mut self, run: Incarnation, shards: &[(ShardId, Epoch)]) -> Reply {
        let any_owner = self.mutant == Some(Mutant::NoIncarnation);
        let released: Vec<_> = shards
            .iter()
            .map(|(shard, epoch)| {
                let row = self.row_mut(*shard);
                let is_own = (any_owner || row.owner == Some(run)) && row.epoch == *epoch;
                row.owner = row.owner.filter(|_| !is_own);
                is_own
            })
            .collect();
        self.version += u64::from(released.contains(&true));
        Reply::Released(released)
    }
}

fn record(run: Incarnation) -> NodeRecord {
    NodeRecord {
        incarnation: run,
        name: String::new(),
        host: String::new(),
        boot_id: String::new(),
        pid_namespace: String::new(),
        pid: 0,
        pid_started: 0,
        application_version: String::new(),
        address: Some(String::new()),
    }
}
