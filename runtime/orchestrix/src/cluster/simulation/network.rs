//! Messages: they take time, and while there are faults they get lost, come twice, seconds late, or not at all where a
//! link is cut. Each has a delay of its own, so they overtake one another.

use std::collections::BTreeMap;

use super::facts::{Fact, Facts};
use crate::cluster::chance::Chance;

/// An end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    Node(usize),
    Database,
    Clients,
}

pub(super) struct Network {
    /// Until when nothing gets from one place to another.
    cuts: BTreeMap<(Place, Place), u64>,
    /// From then on everything arrives, and nothing is late any more.
    pub(super) calm_from: u64,
}

/// When the arrivals of one message are.
pub(super) struct Arrivals {
    pub(super) first: Option<u64>,
    pub(super) copy: Option<u64>,
}

impl Network {
    pub(super) fn new(calm_from: u64) -> Self {
        Self { cuts: BTreeMap::new(), calm_from }
    }

    pub(super) fn cut(&mut self, from: Place, to: Place, until: u64) {
        self.cuts.insert((from, to), until.min(self.calm_from));
    }

    fn is_cut(&self, from: Place, to: Place, now: u64) -> bool {
        self.cuts.get(&(from, to)).is_some_and(|until| now < *until)
    }

    pub(super) fn send(
        &self,
        (from, to): (Place, Place),
        now: u64,
        chance: &mut Chance,
        facts: &mut Facts,
    ) -> Arrivals {
        let usual = now
            + if chance.happens(20) { chance.between(5_000, 100_000) } else { chance.between(200, 4_000) };
        if now >= self.calm_from {
            return Arrivals { first: Some(now + chance.between(200, 4_000)), copy: None };
        }
        if self.is_cut(from, to, now) || chance.happens(8) {
            facts.count(Fact::Lost);
            return Arrivals { first: None, copy: None };
        }
        let first = if chance.happens(12) {
            facts.count(Fact::Late);
            now + chance.between(300_000, 3_000_000)
        } else {
            usual
        };
        let first = first.min(self.calm_from.max(now + 200));
        let copy =
            chance.happens(10).then(|| (first + chance.between(100, 2_000_000)).min(self.calm_from + 1));
        if copy.is_some() {
            facts.count(Fact::Doubled);
        }
        Arrivals { first: Some(first), copy: copy.filter(|copy| *copy > first) }
    }
}
