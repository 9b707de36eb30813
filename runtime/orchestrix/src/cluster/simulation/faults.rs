//! What goes wrong, and what callers do meanwhile.

use orchestrix_core::ShardId;

use super::client::{Ask, Kind, Operation, Told, Word};
use super::facts::Fact;
use super::judge::Violation;
use super::network::Place;
use super::world::{Event, LEASE, World};
use crate::cluster::member::Input;

/// How long a caller waits for an answer.
const PATIENCE: u64 = 800_000;

impl World {
    pub(super) fn on_fault(&mut self) -> Result<(), Violation> {
        if self.is_calm() {
            return Ok(());
        }
        // Most faults wait until they hit an append on its way.
        let busy: Vec<_> =
            self.nodes.iter().filter(|node| node.has_append_in_flight()).map(|node| node.id).collect();
        if busy.is_empty() && self.chance.happens(990) {
            self.at(self.now + 1_000, Event::Fault);
            return Ok(());
        }
        let pause = self.chance.between(200_000, 1_600_000);
        self.at(self.now + pause, Event::Fault);
        let any = self.chance.below(self.nodes.len() as u64) as usize;
        let node = if busy.is_empty() { any } else { self.chance.one(&busy) };
        let is_storing = !self.database.in_flight.is_empty() && self.chance.happens(300);
        match if is_storing { 6 } else { self.chance.below(10) } {
            0 | 1 => self.pause(node),
            2 | 3 => return self.crash(node),
            4 | 5 => self.part(node),
            6 => self.crash_database(),
            7 => self.slow_commits = self.chance.between(1, 3),
            8 => return self.drain(node),
            _ => return self.tell_of_lost_peers(node),
        }
        Ok(())
    }

    /// When something ends that begins now: before everything is well again at the latest.
    fn until(&mut self, least: u64, most: u64) -> u64 {
        let takes = self.chance.between(least, most);
        (self.now + takes).min(self.network.calm_from)
    }

    fn pause(&mut self, node: usize) {
        if self.nodes[node].is_paused || self.nodes[node].is_crashed {
            return;
        }
        if self.nodes[node].has_append_in_flight() {
            self.facts.count(Fact::PausedInFlight);
        }
        self.nodes[node].is_paused = true;
        let until = self.until(LEASE / 20, 3 * LEASE);
        self.at(until, Event::Resume { node });
    }

    pub(super) fn on_resume(&mut self, node: usize) -> Result<(), Violation> {
        self.nodes[node].is_paused = false;
        self.nodes[node].wakes_at = None;
        if self.nodes[node].is_crashed {
            return Ok(());
        }
        self.with(node, |node, given| node.hear(Input::Tick, given))
    }

    fn crash(&mut self, node: usize) -> Result<(), Violation> {
        if self.nodes[node].is_paused || self.nodes[node].is_crashed {
            return Ok(());
        }
        if self.nodes[node].has_append_in_flight() {
            self.facts.count(Fact::CrashedInFlight);
        }
        self.stop(node);
        let run = self.nodes[node].run();
        for other in 0..self.nodes.len() {
            if other == node || self.nodes[other].is_crashed || self.nodes[other].is_paused {
                continue;
            }
            if self.chance.happens(300) {
                self.with(other, |node, given| node.hear(Input::PeerLost(run), given))?;
            }
            // Both are on one machine, so that one can prove that the other is gone.
            if self.chance.happens(200) {
                self.nodes[other].gone.insert(run);
                self.with(other, |node, given| node.hear(Input::Gone(run), given))?;
            }
        }
        Ok(())
    }

    /// Ends a process; the next one starts some time later.
    pub(super) fn stop(&mut self, node: usize) {
        self.nodes[node].is_crashed = true;
        self.nodes[node].actors.clear();
        let until = self.until(LEASE / 20, 2 * LEASE);
        self.at(until, Event::Restart { node });
    }

    /// Cuts a node off from the database or from another node, one way or both.
    fn part(&mut self, node: usize) {
        let here = Place::Node(node);
        let other = self.chance.below(self.nodes.len() as u64) as usize;
        let there =
            if other == node || self.chance.happens(500) { Place::Database } else { Place::Node(other) };
        let until = self.until(LEASE / 20, 2 * LEASE);
        if there == Place::Database && self.nodes[node].has_append_in_flight() {
            self.facts.count(Fact::PartedInFlight);
        }
        let ways = self.chance.below(3);
        if ways != 0 {
            self.network.cut(here, there, until);
        }
        if ways != 1 {
            self.network.cut(there, here, until);
        }
    }

    fn crash_database(&mut self) {
        if !self.database.is_up {
            return;
        }
        if !self.database.in_flight.is_empty() {
            self.facts.count(Fact::DatabaseInFlight);
        }
        let survives = self.database.crash();
        for transaction in std::mem::take(&mut self.database.in_flight) {
            // What had reached the disk is there after the restart; nobody hears of it.
            if survives.contains(&transaction.0) {
                let mut asked = transaction.1;
                asked.is_copy = true;
                self.database.in_flight.insert(transaction.0, asked);
            }
        }
        let until = self.until(LEASE / 20, LEASE * 3 / 2);
        self.at(until, Event::DatabaseBack);
    }

    fn drain(&mut self, node: usize) -> Result<(), Violation> {
        if self.nodes[node].is_paused || self.nodes[node].is_crashed {
            return Ok(());
        }
        // Some of what it still has to store hangs.
        self.late_appends = self.chance.between(0, 4);
        self.with(node, |node, given| node.hear(Input::Drain, given))
    }

    /// A connection breaks although both ends live.
    fn tell_of_lost_peers(&mut self, node: usize) -> Result<(), Violation> {
        let other = self.nodes[self.chance.below(self.nodes.len() as u64) as usize].run();
        if self.nodes[node].is_paused || self.nodes[node].is_crashed {
            return Ok(());
        }
        self.with(node, |node, given| node.hear(Input::PeerLost(other), given))
    }

    /// A caller begins something new, repeats something that is done, or tries again.
    pub(super) fn on_think(&mut self, client: usize) {
        let is_over = self.now >= self.network.calm_from + LEASE * 2;
        if self.clients[client].operation.is_none() {
            if is_over {
                return;
            }
            self.clients[client].operation = Some(self.next_operation(client));
        }
        let Some(mut operation) = self.clients[client].operation else { return };
        if operation.kind == Kind::Look {
            // A read that was not answered has no effect: this is another one.
            operation.invoked = self.step;
            self.clients[client].operation = Some(operation);
        }
        let attempt = self.clients[client].attempt + 1;
        self.clients[client].attempt = attempt;
        let Operation { shard, kind, id, .. } = operation;
        let node = self.chance.below(self.nodes.len() as u64) as usize;
        let link = (Place::Clients, Place::Node(node));
        let arrivals = self.network.send(link, self.now, &mut self.chance, &mut self.facts);
        let ask = Ask { client, attempt, shard, kind, id, hops: 0 };
        for at in [arrivals.first, arrivals.copy].into_iter().flatten() {
            self.at(at, Event::Ask { node, ask });
        }
        self.at(self.now + PATIENCE, Event::Impatience { client, attempt });
    }

    fn next_operation(&mut self, client: usize) -> Operation {
        let invoked = self.step;
        if let Some(done) = self.clients[client].done.filter(|_| self.chance.happens(80)) {
            return Operation { invoked, is_repeat: true, ..done };
        }
        // Half of everything goes to one shard, so that callers meet there.
        let shards = self.database.rows.len() as u64;
        let shard = ShardId::new(if self.chance.happens(500) { 0 } else { self.chance.below(shards) as u32 });
        let kind = if self.chance.happens(550) { Kind::Write } else { Kind::Look };
        self.last_id += 1;
        Operation { shard, kind, id: self.last_id, invoked, is_repeat: false }
    }

    pub(super) fn on_word(&mut self, client: usize, attempt: u64, word: Word) {
        let pause = match self.clients[client].on_word(attempt, word, self.step) {
            Told::Nothing => return,
            Told::Again => self.chance.between(20_000, 200_000),
            Told::Call(call) => {
                self.facts.count(match word {
                    Word::Done { is_repeat: true, .. } => Fact::Repeated,
                    Word::Done { .. } => Fact::Done,
                    Word::Saw(_) | Word::NotAttempted | Word::Unknown => Fact::Seen,
                });
                self.calls.push(call);
                self.chance.between(10_000, 150_000)
            }
        };
        self.at(self.now + pause, Event::Think { client });
    }
}
