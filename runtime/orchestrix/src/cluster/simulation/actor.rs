//! A model of one shard's aggregate in memory: it runs ahead of the store, and its answers wait at a gate.

use orchestrix_core::Epoch;

use super::client::{Ask, Kind, Word};
use super::mutant::Mutant;

/// How many asks may wait for a load.
const PARKED_MAX: usize = 16;

/// An answer and who gets it.
#[derive(Clone, Debug)]
pub(super) struct Said {
    pub(super) ask: Ask,
    pub(super) word: Word,
    /// It rests on what the node believes, and not on events that the store has just taken.
    pub(super) is_belief: bool,
}

#[derive(Clone, Debug)]
struct Gated {
    ask: Ask,
    word: Word,
    is_belief: bool,
    /// It leaves when the stream is durable up to here.
    version: usize,
}

pub(super) struct Actor {
    pub(super) epoch: Epoch,
    pub(super) sealing: bool,
    is_loaded: bool,
    parked: Vec<Ask>,
    /// The ids of the stream, those included that are not durable yet.
    log: Vec<u64>,
    durable: usize,
    /// Up to which version an append is under way.
    in_flight: Option<usize>,
    gate: Vec<Gated>,
}

impl Actor {
    pub(super) fn new(epoch: Epoch) -> Self {
        Self {
            epoch,
            sealing: false,
            is_loaded: false,
            parked: Vec::new(),
            log: Vec::new(),
            durable: 0,
            in_flight: None,
            gate: Vec::new(),
        }
    }

    pub(super) fn is_loaded(&self) -> bool {
        self.is_loaded
    }

    pub(super) fn has_append_in_flight(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Takes in the log; what waited is decided now.
    pub(super) fn on_loaded(&mut self, log: Vec<u64>, mutant: Option<Mutant>) -> Vec<Said> {
        self.durable = log.len();
        self.log = log;
        self.is_loaded = true;
        std::mem::take(&mut self.parked).into_iter().flat_map(|ask| self.on_ask(ask, mutant)).collect()
    }

    /// Decides an ask, and returns what can be said at once.
    pub(super) fn on_ask(&mut self, ask: Ask, mutant: Option<Mutant>) -> Vec<Said> {
        if !self.is_loaded {
            if self.parked.len() < PARKED_MAX {
                self.parked.push(ask);
                return Vec::new();
            }
            return vec![Said { ask, word: Word::NotAttempted, is_belief: false }];
        }
        let is_known = |id| self.log.iter().position(|known| *known == id).map(|index| index + 1);
        let known = is_known(ask.id).filter(|_| mutant != Some(Mutant::NoDedup));
        let (word, is_belief, version) = match (ask.kind, known) {
            (Kind::Look, _) => (Word::Saw(self.log.len()), true, self.log.len()),
            (Kind::Write, Some(version)) => (Word::Done { version, is_repeat: true }, true, version),
            (Kind::Write, None) => {
                self.log.push(ask.id);
                (Word::Done { version: self.log.len(), is_repeat: false }, false, self.log.len())
            }
        };
        if is_belief && (version <= self.durable || mutant == Some(Mutant::NoGate)) {
            return vec![Said { ask, word, is_belief }];
        }
        self.gate.push(Gated { ask, word, is_belief, version });
        Vec::new()
    }

    /// Takes what is to be appended next, with the version that it builds on.
    pub(super) fn next_append(&mut self) -> Option<(usize, Vec<u64>)> {
        if !self.is_loaded || self.in_flight.is_some() || self.durable == self.log.len() {
            return None;
        }
        self.in_flight = Some(self.log.len());
        Some((self.durable, self.log[self.durable..].to_vec()))
    }

    /// The append under way is durable: the gate opens as far.
    pub(super) fn on_committed(&mut self) -> Vec<Said> {
        if let Some(version) = self.in_flight.take() {
            self.durable = version;
        }
        let (open, shut) =
            std::mem::take(&mut self.gate).into_iter().partition(|gated| gated.version <= self.durable);
        self.gate = shut;
        let open: Vec<Gated> = open;
        open.into_iter().map(|Gated { ask, word, is_belief, .. }| Said { ask, word, is_belief }).collect()
    }

    /// The append under way is certainly not stored.
    pub(super) fn on_refused(&mut self) {
        self.in_flight = None;
    }

    pub(super) fn has_finished(&self) -> bool {
        self.durable == self.log.len() && self.gate.is_empty()
    }

    /// Ends: what is in flight is unknown, and everything else was not attempted.
    pub(super) fn end(self) -> Vec<Said> {
        let in_flight = self.in_flight.unwrap_or(0);
        let gated = self.gate.into_iter().map(|gated| {
            let is_sent = !gated.is_belief && gated.version <= in_flight;
            (gated.ask, if is_sent { Word::Unknown } else { Word::NotAttempted })
        });
        let parked = self.parked.into_iter().map(|ask| (ask, Word::NotAttempted));
        gated.chain(parked).map(|(ask, word)| Said { ask, word, is_belief: false }).collect()
    }
}
