//! The world of one seed: a queue of events in the order of time, and what each of them does.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use orchestrix_core::{Incarnation, ShardId};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::client::{Ask, Client, Word};
use super::database::{Asked, Database, Outcome, Reply, Request};
use super::facts::{Fact, Facts};
use super::judge::{Call, Violation, judge};
use super::mutant::Mutant;
use super::network::{Arrivals, Network, Place};
use super::node::{DriftingClock, Given, Message, Node, Out, Setup};
use crate::cluster::chance::Chance;
use crate::cluster::member::Input;
use crate::cluster::placement::Limits;

/// A second in the world's time, which is counted in microseconds.
const SECOND: u64 = 1_000_000;
pub(super) const LEASE: u64 = 3 * SECOND;

/// How long there are faults.
const FAULTS: u64 = 14 * SECOND;

/// When every shard has to answer again: a lease, by the slowest clock that is allowed, and two seconds.
const RECOVERED: u64 = FAULTS + LEASE * 10 / 9 + 2 * SECOND;

/// When targets have to be at rest, and every caller has been told.
const END: u64 = RECOVERED + 3 * SECOND;

/// How long it takes at most until nobody of a deposed run is left in memory: appends and loads under way come to their end.
const LEAVING_MAX: u64 = SECOND / 2;

/// How long a node waits for the database.
const CALL_MAX: Duration = Duration::from_millis(750);

#[derive(Debug)]
pub(super) enum Event {
    /// A request reaches the database.
    Request(Asked),
    /// Its reply reaches the node.
    Reply {
        node: usize,
        process: u32,
        call: u64,
        reply: Option<Reply>,
    },
    Commit(u64),
    Wake {
        node: usize,
        process: u32,
    },
    Peer {
        run: Incarnation,
        message: Message,
    },
    Ask {
        node: usize,
        ask: Ask,
    },
    Word {
        client: usize,
        attempt: u64,
        word: Word,
    },
    /// A caller begins something, or tries again.
    Think {
        client: usize,
    },
    /// A caller does not wait any longer.
    Impatience {
        client: usize,
        attempt: u64,
    },
    Fault,
    Resume {
        node: usize,
    },
    Restart {
        node: usize,
    },
    /// Nobody of a deposed run is left in memory.
    Empty {
        node: usize,
        process: u32,
    },
    DatabaseBack,
    Recovered,
}

/// What a run of the simulator ends with.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) violation: Option<Violation>,
    pub(super) trace: u64,
    pub(super) facts: Facts,
    pub(super) lines: String,
}

pub(super) struct World {
    pub(super) now: u64,
    /// How many events there were: an order of all that happened.
    pub(super) step: u64,
    queue: BTreeMap<(u64, u64), Event>,
    queued: u64,
    pub(super) chance: Chance,
    pub(super) network: Network,
    pub(super) database: Database,
    pub(super) nodes: Vec<Node>,
    pub(super) homes: BTreeMap<Incarnation, usize>,
    pub(super) clients: Vec<Client>,
    pub(super) calls: Vec<Call>,
    pub(super) facts: Facts,
    pub(super) last_id: u64,
    /// So long the next transactions take.
    pub(super) slow_commits: u64,
    /// So many of the next appends reach the database just after their nodes have given them up.
    pub(super) late_appends: u64,
    setups: Vec<Setup>,
    violation: Option<Violation>,
    trace: u64,
    lines: Option<String>,
}

/// Runs a seed to its end, or to the first promise that is broken.
pub(super) fn run(seed: u64, mutant: Option<Mutant>, prints: bool) -> Verdict {
    let mut world = World::new(seed, mutant, prints);
    while let Some((at, event)) = world.next() {
        world.now = at;
        world.step += 1;
        world.note(&event);
        if let Err(violation) = world.on(event).and_then(|()| world.check()) {
            world.violation = Some(violation);
            break;
        }
    }
    world.end()
}

impl World {
    fn new(seed: u64, mutant: Option<Mutant>, prints: bool) -> Self {
        let mut chance = Chance::new(seed);
        let (nodes, shards) = (chance.between(2, 4) as usize, chance.between(2, 7) as usize);
        let limits = Limits { wave_max: chance.between(1, 4) as usize, tolerance_percent: 5 };
        let setups: Vec<_> = (0..nodes)
            .map(|id| {
                // The margin of a lease allows for a tenth; some clocks go that wrong.
                let rate = [905_000, 940_000, 1_000_000, 1_000_100, 1_095_000];
                let clock = DriftingClock { offset: chance.below(1_000 * SECOND), rate: chance.one(&rate) };
                Setup { id, clock, lease: Duration::from_micros(LEASE), limits, mutant }
            })
            .collect();
        let mut world = Self {
            now: 0,
            step: 0,
            queue: BTreeMap::new(),
            queued: 0,
            network: Network::new(FAULTS),
            database: Database::new(shards, LEASE, mutant),
            nodes: setups.iter().map(|setup| Node::new(setup, 0, 0)).collect(),
            homes: BTreeMap::new(),
            clients: (0..3).map(|_| Client::default()).collect(),
            calls: Vec::new(),
            facts: Facts::default(),
            last_id: 0,
            slow_commits: 0,
            late_appends: 0,
            setups,
            violation: None,
            trace: seed,
            lines: prints.then(String::new),
            chance,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        for node in 0..self.nodes.len() {
            let at = self.chance.below(SECOND);
            self.at(at, Event::Wake { node, process: 0 });
        }
        for client in 0..self.clients.len() {
            let at = SECOND + self.chance.below(SECOND);
            self.at(at, Event::Think { client });
        }
        self.at(2 * SECOND, Event::Fault);
        self.at(RECOVERED, Event::Recovered);
    }

    pub(super) fn at(&mut self, time: u64, event: Event) {
        self.queued += 1;
        self.queue.insert((time.max(self.now), self.queued), event);
    }

    fn next(&mut self) -> Option<(u64, Event)> {
        let ((at, _), event) = self.queue.pop_first()?;
        (at < END).then_some((at, event))
    }

    pub(super) fn is_calm(&self) -> bool {
        self.now >= FAULTS
    }

    /// Mixes what happens into the trace, and writes it down where somebody reads it.
    fn note(&mut self, event: &Event) {
        let kind = match event {
            Event::Request(asked) => 16 + asked.node as u64,
            Event::Reply { node, .. } => 32 + *node as u64,
            Event::Wake { node, .. } => 48 + *node as u64,
            Event::Ask { node, .. } => 64 + *node as u64,
            Event::Word { client, .. } => 80 + *client as u64,
            Event::Commit(transaction) => 1_000 + transaction,
            Event::Peer { .. } => 1,
            Event::Think { .. } => 2,
            Event::Impatience { .. } => 3,
            Event::Fault => 4,
            Event::Resume { .. } => 5,
            Event::Restart { .. } => 6,
            Event::DatabaseBack => 7,
            Event::Recovered => 8,
            Event::Empty { node, .. } => 96 + *node as u64,
        };
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.now.to_le_bytes());
        bytes[8..].copy_from_slice(&kind.to_le_bytes());
        self.trace = xxh3_64_with_seed(&bytes, self.trace);
        self.tell(|| format!("{event:?}"));
    }

    pub(super) fn tell(&mut self, line: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            let millis = self.now / 1_000;
            // Writing to a text cannot fail.
            let _ = writeln!(lines, "{millis:>6} ms {}", line());
        }
    }

    fn on(&mut self, event: Event) -> Result<(), Violation> {
        match event {
            Event::Request(asked) => self.on_request(&asked),
            Event::Commit(transaction) => return self.on_commit(transaction),
            Event::Reply { node, process, call, reply } => {
                let state = &self.nodes[node];
                if state.process == process && state.is_paused {
                    self.put_off(node, Event::Reply { node, process, call, reply });
                } else if state.process == process && !state.is_crashed {
                    return self.with(node, |node, given| node.on_reply(call, reply, given));
                }
            }
            Event::Wake { node, process } => {
                if self.nodes[node].process == process && !self.nodes[node].is_paused {
                    self.nodes[node].wakes_at = None;
                    return self.with(node, |node, given| node.hear(Input::Tick, given));
                }
            }
            Event::Peer { run, message } => return self.on_peer(run, message),
            Event::Ask { node, ask } => {
                if self.nodes[node].is_paused {
                    self.put_off(node, Event::Ask { node, ask });
                } else if !self.nodes[node].is_crashed {
                    return self.with(node, |node, given| node.on_ask(ask, None, given));
                }
            }
            Event::Word { client, attempt, word } => self.on_word(client, attempt, word),
            Event::Impatience { client, attempt } => self.on_word(client, attempt, Word::Unknown),
            Event::Think { client } => self.on_think(client),
            Event::Fault => return self.on_fault(),
            Event::Resume { node } => return self.on_resume(node),
            Event::Restart { node } => self.on_restart(node),
            Event::Empty { node, process } => {
                let state = &self.nodes[node];
                if state.process == process && state.is_paused {
                    self.put_off(node, Event::Empty { node, process });
                } else if state.process == process && !state.is_crashed {
                    return self.with(node, Node::on_empty);
                }
            }
            Event::DatabaseBack => self.database.is_up = true,
            Event::Recovered => return self.check_recovered(),
        }
        Ok(())
    }

    /// A paused node finds what has come meanwhile when it wakes up, soon after and in some order.
    fn put_off(&mut self, node: usize, event: Event) {
        let resumes = |event: &Event| matches!(event, Event::Resume { node: other } if *other == node);
        let wakes = self.queue.iter().find(|(_, event)| resumes(event)).map_or(self.now, |((at, _), _)| *at);
        let at = wakes + self.chance.between(1, 2_000);
        self.at(at, event);
    }

    /// Lets a node do something, and carries out what comes of it.
    pub(super) fn with(
        &mut self,
        node: usize,
        does: impl FnOnce(&mut Node, &mut Given<'_>),
    ) -> Result<(), Violation> {
        let mut out = Vec::new();
        let state = &mut self.nodes[node];
        let now = state.clock.read(self.now);
        does(state, &mut Given { now, out: &mut out, facts: &mut self.facts });
        self.homes.insert(state.run(), node);
        for effect in out {
            self.carry_out(node, effect)?;
        }
        self.set_alarm(node);
        if self.nodes[node].membership.has_left() && !self.nodes[node].is_crashed {
            self.facts.count(Fact::Drained);
            self.stop(node);
        }
        Ok(())
    }

    fn set_alarm(&mut self, node: usize) {
        let state = &mut self.nodes[node];
        let Some(wake) = state.membership.wake() else { return };
        let (at, process) = (state.clock.world(wake).max(self.now + 1), state.process);
        if state.wakes_at.is_none_or(|before| at < before) {
            state.wakes_at = Some(at);
            self.at(at, Event::Wake { node, process });
        }
    }

    fn carry_out(&mut self, node: usize, out: Out) -> Result<(), Violation> {
        let from = Place::Node(node);
        match out {
            Out::Request { call, request } => self.request(node, call, request),
            Out::LeaveMemory => {
                let at = self.now + self.chance.between(1, LEAVING_MAX);
                self.at(at, Event::Empty { node, process: self.nodes[node].process });
            }
            Out::Peer { to, message } => {
                let Some(home) = self.homes.get(&to).copied() else { return Ok(()) };
                let arrivals =
                    self.network.send((from, Place::Node(home)), self.now, &mut self.chance, &mut self.facts);
                for at in [arrivals.first, arrivals.copy].into_iter().flatten() {
                    self.at(at, Event::Peer { run: to, message: message.clone() });
                }
            }
            Out::Say { said, run } => {
                let shard = said.ask.shard;
                if said.is_belief && self.database.row(shard).owner != Some(run) {
                    return Err(Violation::SpokeForAnother { shard, run });
                }
                let (client, attempt, word) = (said.ask.client, said.ask.attempt, said.word);
                let arrivals =
                    self.network.send((from, Place::Clients), self.now, &mut self.chance, &mut self.facts);
                for at in [arrivals.first, arrivals.copy].into_iter().flatten() {
                    self.at(at, Event::Word { client, attempt, word });
                }
            }
        }
        Ok(())
    }

    fn request(&mut self, node: usize, call: u64, request: Request) {
        let state = &self.nodes[node];
        let (process, run) = (state.process, state.run());
        let limit = state.clock.world(state.clock.read(self.now).plus(CALL_MAX));
        let asked = Asked { node, process, run, call, request, is_copy: false };
        let link = (Place::Node(node), Place::Database);
        let mut arrivals = self.network.send(link, self.now, &mut self.chance, &mut self.facts);
        if self.late_appends > 0 && !self.is_calm() && matches!(asked.request, Request::Append { .. }) {
            self.late_appends -= 1;
            let at = (self.now + self.chance.between(800_000, 1_300_000)).min(FAULTS);
            arrivals = Arrivals { first: Some(at), copy: None };
        }
        if let Some(at) = arrivals.copy {
            self.at(at, Event::Request(Asked { is_copy: true, ..asked.clone() }));
        }
        if let Some(at) = arrivals.first {
            self.at(at, Event::Request(asked));
        }
        self.at(limit, Event::Reply { node, process, call, reply: None });
    }

    fn on_request(&mut self, asked: &Asked) {
        if !self.database.is_up {
            return self.reply(asked, Reply::Down);
        }
        let epochs = self.database.version();
        match self.database.ask(asked, self.now, &mut self.facts) {
            Outcome::Waits => {}
            Outcome::Reply(reply) => {
                let is_claim = matches!(reply, Reply::Claimed(Some(_))) && epochs != self.database.version();
                if is_claim && (asked.is_copy || !self.nodes[asked.node].waits_for(asked.process, asked.call))
                {
                    self.facts.count(Fact::LateClaim);
                }
                self.reply(asked, reply);
            }
            Outcome::Begun(transaction) => {
                let takes = if self.slow_commits > 0 && !self.is_calm() {
                    self.slow_commits -= 1;
                    self.chance.between(200_000, 2 * SECOND)
                } else {
                    self.chance.between(300, 6_000)
                };
                let at = (self.now + takes).min(FAULTS.max(self.now + 300));
                self.at(at, Event::Commit(transaction));
            }
        }
    }

    fn reply(&mut self, asked: &Asked, reply: Reply) {
        if asked.is_copy {
            return;
        }
        let link = (Place::Database, Place::Node(asked.node));
        let arrivals = self.network.send(link, self.now, &mut self.chance, &mut self.facts);
        let (node, process, call) = (asked.node, asked.process, asked.call);
        if let Some(at) = arrivals.first {
            self.at(at, Event::Reply { node, process, call, reply: Some(reply) });
        }
    }

    fn on_commit(&mut self, transaction: u64) -> Result<(), Violation> {
        if let Some(asked) = self.database.commit(transaction)? {
            self.reply(&asked, Reply::Committed);
        }
        for asked in std::mem::take(&mut self.database.waiting) {
            self.on_request(&asked);
        }
        Ok(())
    }

    fn on_peer(&mut self, run: Incarnation, message: Message) -> Result<(), Violation> {
        let Some(node) = self.homes.get(&run).copied() else { return Ok(()) };
        let state = &self.nodes[node];
        if state.is_paused {
            self.put_off(node, Event::Peer { run, message });
            return Ok(());
        }
        if state.is_crashed || state.run() != run {
            return Ok(());
        }
        self.with(node, |node, given| node.on_message(message, given))
    }

    /// Starts a node's next process.
    pub(super) fn on_restart(&mut self, node: usize) {
        if !self.nodes[node].is_crashed {
            return;
        }
        let (former, process) = (self.nodes[node].run(), self.nodes[node].process + 1);
        let mut next = Node::new(&self.setups[node], process, self.now);
        next.gone.clone_from(&self.nodes[node].gone);
        next.gone.insert(former);
        self.nodes[node] = next;
        let _ = self.with(node, |node, given| node.hear(Input::Gone(former), given));
    }

    /// At most one node would speak for a shard.
    fn check(&self) -> Result<(), Violation> {
        for shard in (0..self.database.rows.len() as u32).map(ShardId::new) {
            let speaks = |node: &&Node| node.may_speak(shard, node.clock.read(self.now));
            if self.nodes.iter().filter(speaks).count() > 1 {
                return Err(Violation::TwoSpeakers { shard });
            }
        }
        Ok(())
    }

    /// Every shard is open, in memory, at its owner.
    fn check_recovered(&self) -> Result<(), Violation> {
        for shard in (0..self.database.rows.len() as u32).map(ShardId::new) {
            let row = self.database.row(shard);
            let answers = |node: &Node| {
                let actor = node
                    .actors
                    .get(&shard)
                    .is_some_and(|actor| actor.is_loaded() && actor.epoch == row.epoch);
                actor && row.owner == Some(node.run()) && node.may_speak(shard, node.clock.read(self.now))
            };
            if !self.nodes.iter().any(answers) {
                return Err(Violation::Silent { shard });
            }
        }
        Ok(())
    }

    fn check_settled(&self) -> Result<(), Violation> {
        let rows = &self.database.rows;
        let runs: Vec<_> = self.nodes.iter().filter(|node| !node.is_crashed).map(Node::run).collect();
        let (floor, ceiling) = (rows.len() / runs.len(), rows.len().div_ceil(runs.len()));
        let owned = |run: &Incarnation| rows.iter().filter(|row| row.owner == Some(*run)).count();
        let is_settled = rows.iter().all(|row| row.target.is_none() || row.target == row.owner);
        if is_settled && runs.iter().all(|run| (floor..=ceiling).contains(&owned(run))) {
            return Ok(());
        }
        Err(Violation::Unsettled)
    }

    fn end(mut self) -> Verdict {
        let unheard = self.clients.iter().position(|client| client.operation.is_some());
        let logs: Vec<_> = self.database.rows.iter().map(|row| row.log.as_slice()).collect();
        let verdict = judge(&self.calls, &logs)
            .and_then(|()| self.check_settled())
            .and_then(|()| unheard.map_or(Ok(()), |client| Err(Violation::NeverTold { client })));
        let violation = self.violation.take().or(verdict.err());
        let counted = xxh3_64_with_seed(format!("{:?}{:?}", self.facts, violation).as_bytes(), self.trace);
        Verdict { violation, trace: counted, facts: self.facts, lines: self.lines.unwrap_or_default() }
    }
}
