//! `loadtest cluster --compare`: what dividing the work costs and brings, on one machine.
//!
//! * one node against all of them: the same callers, the same server, the same cores;
//! * the right node against the wrong one: what one more hop costs.
//!
//! Each round measures every part once, in an order that rotates, each on a fresh database with fresh processes.

use std::time::Duration;

use serde_json::json;

use super::cluster::with_plan;
use crate::check::Check;
use crate::cli::{ClusterArgs, Common};
use crate::cluster::{self, Plan, Run, Way};
use crate::database::Database;
use crate::histogram::median;
use crate::report::{Chart, Report, Section, per_second, ratio};

/// What is measured once a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// One node, which has all shards.
    One,
    /// All nodes, commands to any of them.
    Many,
    /// All nodes, commands to the owner.
    Right,
    /// All nodes, commands to any other than the owner.
    Wrong,
}

const PARTS: [Part; 4] = [Part::One, Part::Many, Part::Right, Part::Wrong];

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::One => "one node",
            Self::Many => "all nodes",
            Self::Right => "the right node",
            Self::Wrong => "the wrong node",
        }
    }

    /// Returns the part's variant of a plan.
    fn plan(self, plan: Plan) -> Plan {
        let plan = Plan { idle: Duration::ZERO, ..plan };
        match self {
            Self::One => Plan { nodes: 1, way: Way::Any, ..plan },
            Self::Many => Plan { way: Way::Any, ..plan },
            Self::Right => Plan { way: Way::Owner, ..plan },
            Self::Wrong => Plan { way: Way::Wrong, ..plan },
        }
    }
}

/// Returns the parts of a round; each round begins with another one.
fn order(round: u8) -> [Part; 4] {
    let mut parts = PARTS;
    parts.rotate_left(usize::from(round) % PARTS.len());
    parts
}

/// Measures all parts, interleaved, and reports the medians and their ratios.
///
/// # Errors
/// When a part cannot be run.
pub(super) async fn compare(common: &Common, args: &ClusterArgs) -> anyhow::Result<Report> {
    let (plan, mut runs) = (args.plan(), Vec::new());
    for round in 0..args.rounds.rounds {
        for part in order(round) {
            let database = Database::temporary(common)?;
            runs.push((part, cluster::run(common, &database, &part.plan(plan), part.name()).await?));
        }
    }
    Ok(with_plan(report(common, &plan, &runs), common, &plan, args.rounds.rounds))
}

fn report(common: &Common, plan: &Plan, runs: &[(Part, Run)]) -> Report {
    let rate = |wanted: Part| {
        let rates = runs.iter().filter(|(part, _)| *part == wanted).map(|(_, run)| run.commands_per_s);
        median(rates).unwrap_or_default()
    };
    let [one, many, right, wrong] = PARTS.map(rate);
    let mut check = Check::default();
    for (_, run) in runs {
        check.add(run.check);
    }
    let failed: u64 = runs.iter().map(|(_, run)| run.book.failed_commands).sum();
    let section = Section::new("Medians")
        .noted("one node", per_second(one), "all shards in one process")
        .noted("all nodes", per_second(many), format!("{} processes, commands to any", plan.nodes))
        .noted("all to one", ratio(many / one), "the same callers, server and cores")
        .noted("the right node", per_second(right), "commands to the owner of the shard")
        .noted("the wrong node", per_second(wrong), "commands to any other node")
        .noted("wrong to right", ratio(wrong / right), "what the hop costs")
        .noted("failed commands", failed.to_string(), "an error that a client heard; see --help");
    let bars = PARTS.map(|part| (part.name().to_owned(), rate(part))).to_vec();
    Report::new(format!("loadtest cluster --compare on {}", common.store.name()))
        .section(section)
        .checked(check)
        .chart(Chart::Bars { title: "Commands per second, medians".into(), bars })
        .key("store", common.store)
        .key("commands_per_s", json!({ "one": one, "all": many, "right": right, "wrong": wrong }))
        .key("ratio", json!({ "all_to_one": many / one, "wrong_to_right": wrong / right }))
        .key("failed_commands", failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_round_begins_with_another_part_and_has_all() {
        for round in 0..8 {
            let parts = order(round);
            assert_eq!(parts[0], PARTS[usize::from(round) % 4]);
            assert!(PARTS.iter().all(|part| parts.contains(part)));
        }
    }
}
