//! `loadtest compare`: the runtime between the least and the most that this machine could do, in one go.
//!
//! Each round measures every part once, in an order that rotates, each on a fresh database. A machine that gets slower
//! in the meantime slows all parts alike, so the ratios stay true when the figures do not.

use serde::Serialize;

use crate::check::Check;
use crate::cli::{Common, CompareArgs, StoreKind};
use crate::database::Database;
use crate::driver::Load;
use crate::histogram::median;
use crate::limit::asks::{self, Books};
use crate::limit::{self, Shape};
use crate::measure::{Measured, measure, with_settings};
use crate::naive;
use crate::report::{Chart, Report, Section, per_second, ratio};

/// What is measured once a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Limit,
    /// The limit in memory, with callers that only count.
    WithoutBooks,
    Naive,
    Run,
}

/// What the rounds gave.
#[derive(Debug, Default)]
struct Rounds {
    limit: Vec<f64>,
    without_books: Vec<f64>,
    naive: Vec<f64>,
    runs: Vec<Measured>,
}

/// One round as it stands in the JSON.
#[derive(Debug, Serialize)]
#[allow(clippy::struct_field_names, reason = "the keys carry their units")]
struct Round {
    limit_events_per_s: f64,
    naive_commands_per_s: Option<f64>,
    commands_per_s: f64,
}

/// The ratios of the medians.
#[derive(Clone, Copy, Debug, Serialize)]
struct Ratio {
    to_limit: f64,
    to_naive: Option<f64>,
}

/// Measures limit, naive and runtime, interleaved, and reports the medians and their ratios.
///
/// # Errors
/// When a part cannot be run.
pub(super) async fn compare(common: &Common, args: &CompareArgs) -> anyhow::Result<Report> {
    let load = args.load.load(common);
    let shape = limit::best_shape(common, &load).await?;
    let mut rounds = Rounds::default();
    for round in 0..args.rounds.rounds {
        for part in order(common.store, round) {
            rounds.measure(common, &load, part, shape).await?;
        }
    }
    Ok(with_settings(rounds.report(common, &load, shape), common, &load, args.rounds.rounds))
}

/// Returns the parts of a round; each round begins with another one.
fn order(store: StoreKind, round: u8) -> Vec<Part> {
    let mut parts = match store {
        StoreKind::Memory => vec![Part::Limit, Part::WithoutBooks, Part::Run],
        StoreKind::Sqlite | StoreKind::Postgres => vec![Part::Limit, Part::Naive, Part::Run],
    };
    let first = usize::from(round) % parts.len();
    parts.rotate_left(first);
    parts
}

impl Rounds {
    async fn measure(
        &mut self,
        common: &Common,
        load: &Load,
        part: Part,
        shape: Option<Shape>,
    ) -> anyhow::Result<()> {
        match (part, shape) {
            (Part::Limit, None) => self.limit.push(asks::measure(load, Books::Kept).await?),
            (Part::WithoutBooks, _) => self.without_books.push(asks::measure(load, Books::Counted).await?),
            (Part::Limit, Some(shape)) => self.limit.push(shape.measure(common, load).await?),
            (Part::Naive, _) => self.naive.push(naive::measure(common, load).await?),
            (Part::Run, _) => {
                let database = Database::temporary(common)?;
                self.runs.push(measure(&database, load, "runtime").await?);
            }
        }
        Ok(())
    }

    /// Returns the run whose throughput is the median one: its latencies belong to the figure that is reported.
    fn middle_run(&self) -> &Measured {
        let middle = median(self.runs.iter().map(|run| run.commands_per_s));
        let found = self.runs.iter().find(|run| Some(run.commands_per_s) == middle);
        found.expect("there is at least one round, and the median is one of its values")
    }

    fn check(&self) -> Check {
        let mut check = Check::default();
        self.runs.iter().for_each(|run| check.add(run.check));
        check
    }

    fn rounds(&self) -> Vec<Round> {
        let round = |(at, run): (usize, &Measured)| Round {
            limit_events_per_s: self.limit[at],
            naive_commands_per_s: self.naive.get(at).copied(),
            commands_per_s: run.commands_per_s,
        };
        self.runs.iter().enumerate().map(round).collect()
    }

    /// Adds what bare asks are worth when their callers write nothing down.
    fn bare(&self, run: &Measured, section: Section) -> Section {
        let Some(bare) = median(self.without_books.iter().copied()) else { return section };
        let to_bare = run.commands_per_s / bare;
        section
            .noted("without books", per_second(bare), "the same asks by callers that only count them")
            .noted(
                "runtime to that",
                ratio(to_bare),
                "what the callers of a run write down counts against it",
            )
    }

    fn report(&self, common: &Common, load: &Load, shape: Option<Shape>) -> Report {
        let run = self.middle_run();
        let limit = median(self.limit.iter().copied()).unwrap_or_default();
        let naive = median(self.naive.iter().copied());
        let ratios = Ratio {
            to_limit: run.commands_per_s / limit,
            to_naive: naive.map(|naive| run.commands_per_s / naive),
        };
        let report = Report::new(format!("loadtest compare on {}", common.store.name()))
            .section(self.bare(run, medians(run, limit, naive, shape, ratios)));
        let report = self
            .rounds()
            .iter()
            .enumerate()
            .fold(report, |report, (number, round)| report.section(round_section(number, round)));
        let report = run.report(report, common, load).checked(self.check());
        let report = run.charts().into_iter().fold(report.chart(bars(run, limit, naive)), Report::chart);
        report
            .key("limit", limit_json(limit, shape, median(self.without_books.iter().copied())))
            .key("naive", naive.map(|naive| serde_json::json!({ "commands_per_s": naive })))
            .key("ratio", ratios)
            .key("rounds", self.rounds())
    }
}

fn limit_json(limit: f64, shape: Option<Shape>, without_books: Option<f64>) -> serde_json::Value {
    serde_json::json!({
        "events_per_s": limit,
        "batch_events": shape.map(Shape::batch),
        "without_books_per_s": without_books,
        "shape": shape.map(|shape| shape.to_string()),
    })
}

fn medians(run: &Measured, limit: f64, naive: Option<f64>, shape: Option<Shape>, ratios: Ratio) -> Section {
    let what = shape.map_or_else(
        || "bare asks to bare actors by callers that keep the same books".to_owned(),
        |shape| format!("raw appends, {shape}, nothing else"),
    );
    let section = Section::new("Medians")
        .noted("runtime", per_second(run.commands_per_s), "commands through the node")
        .noted("limit", per_second(limit), what)
        .noted("runtime to limit", ratio(ratios.to_limit), "1 would be a runtime that costs nothing");
    match (naive, ratios.to_naive) {
        (Some(naive), Some(to_naive)) => section
            .noted("one transaction per command", per_second(naive), "an insert and its commit for each")
            .noted("runtime to that", ratio(to_naive), "what group commit is worth"),
        _ => section,
    }
}

fn round_section(number: usize, round: &Round) -> Section {
    let section = Section::new(format!("Round {}", number + 1))
        .row("limit", per_second(round.limit_events_per_s))
        .row("runtime", per_second(round.commands_per_s));
    match round.naive_commands_per_s {
        Some(naive) => section.row("one transaction per command", per_second(naive)),
        None => section,
    }
}

fn bars(run: &Measured, limit: f64, naive: Option<f64>) -> Chart {
    let mut bars = vec![("limit".to_owned(), limit), ("runtime".to_owned(), run.commands_per_s)];
    bars.extend(naive.map(|naive| ("one transaction per command".to_owned(), naive)));
    Chart::Bars { title: "Commands or events per second, medians".into(), bars }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_round_begins_with_another_part_and_has_all() {
        let firsts: Vec<Part> = (0..3).map(|round| order(StoreKind::Sqlite, round)[0]).collect();
        assert_eq!(firsts, [Part::Limit, Part::Naive, Part::Run]);
        for round in 0..7 {
            assert_eq!(order(StoreKind::Postgres, round).len(), 3);
            assert_eq!(order(StoreKind::Memory, round).len(), 3);
        }
    }
}
