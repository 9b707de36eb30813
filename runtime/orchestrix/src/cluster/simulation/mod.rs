//! A simulator that drives the decision files of this module through everything that goes wrong, by seeds.
//!
//! | file | what |
//! |---|---|
//! | `world` | the events of one seed in the order of time, and what is checked after each |
//! | `faults` | pauses, crashes, cuts, restarts, drains; and what callers do |
//! | `network` | messages that are lost, late, doubled, out of order |
//! | `database` | rows, locks, transactions and leases |
//! | `node` | carries out what [`Membership`](super::member::Membership) wants; forwards by [`Routes`](super::routes::Routes) |
//! | `actor` | an aggregate that runs ahead behind an output gate |
//! | `client` | callers with unique ids |
//! | `judge` | what must hold |
//! | `mutant` | what can be broken on purpose |
//! | `facts` | what was hit |
//!
//! `SIM_SEEDS` says how many seeds are run, `SIM_FROM` with which one they begin, and `SIM_SEED` runs one seed and prints
//! what happened; with `SIM_MUTANT` a mutant does.

mod actor;
mod client;
mod database;
mod facts;
mod faults;
mod judge;
mod mutant;
mod network;
mod node;
mod world;

use facts::{Fact, Facts};
use mutant::Mutant;

/// How many seeds are run with every change.
const SEEDS: u64 = 200;

/// What has to be met at least, in a hundred seeds: faults that hit work on its way, and what they lead to.
const FLOORS: [(Fact, u64); 20] = [
    (Fact::Done, 5_000),
    (Fact::Seen, 4_000),
    (Fact::Repeated, 700),
    (Fact::PausedInFlight, 30),
    (Fact::CrashedInFlight, 30),
    (Fact::PartedInFlight, 30),
    (Fact::DatabaseInFlight, 15),
    (Fact::InDoubt, 80),
    (Fact::Fenced, 15),
    (Fact::Zombie, 6),
    (Fact::Waited, 30),
    (Fact::Withheld, 100),
    (Fact::Deposed, 20),
    (Fact::TakenOver, 150),
    (Fact::HandedOver, 200),
    (Fact::LateClaim, 7),
    (Fact::Lost, 500),
    (Fact::Doubled, 200),
    (Fact::Late, 250),
    (Fact::Drained, 25),
];

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// The seeds to run.
fn seeds() -> std::ops::Range<u64> {
    let from = number("SIM_FROM").unwrap_or(0);
    from..from + number("SIM_SEEDS").unwrap_or(SEEDS)
}

#[test]
fn every_seed_keeps_the_promises_and_gives_the_same_trace_twice() {
    if let Some(seed) = number("SIM_SEED") {
        let mutant = std::env::var("SIM_MUTANT").ok();
        let mutant =
            mutant.and_then(|name| Mutant::ALL.into_iter().find(|mutant| format!("{mutant:?}") == name));
        let outcome = world::run(seed, mutant, true);
        println!("{}", outcome.lines);
        assert_eq!(outcome.violation, None, "seed {seed}");
        return;
    }
    let mut facts = Facts::default();
    for seed in seeds() {
        let outcome = world::run(seed, None, false);
        assert_eq!(outcome.violation, None, "SIM_SEED={seed} prints what happened");
        assert_eq!(world::run(seed, None, false), outcome, "seed {seed} happened otherwise the second time");
        facts.add(&outcome.facts);
    }
    println!("{facts:#?}");
    let seeds = seeds().end - seeds().start;
    for (fact, per_hundred_seeds) in FLOORS {
        let floor = seeds * per_hundred_seeds / 100;
        assert!(facts.of(fact) >= floor, "{fact:?} was met {} times, and {floor} are needed", facts.of(fact));
    }
}

#[test]
fn every_mutant_is_caught() {
    println!("| mutant | first seed | what was broken |\n|---|---|---|");
    for mutant in Mutant::ALL {
        let caught =
            (0..SEEDS).find_map(|seed| Some((seed, world::run(seed, Some(mutant), false).violation?)));
        let (seed, violation) = caught.unwrap_or_else(|| panic!("{mutant:?} was not caught"));
        println!("| {mutant:?} | {seed} | {violation:?} |");
    }
}
