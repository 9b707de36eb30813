//! A result in one form for all measurements, and the three ways to hand it out: a table, JSON, a page with charts.

mod chart;
mod html;
mod table;

use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::check::Check;
use crate::histogram::Percentiles;

pub(crate) use table::{count, mib, millis, per_second, ratio};

/// The result of one measurement.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    /// What was measured, in a few words.
    pub(crate) title: String,
    /// What to read first: groups of named values.
    pub(crate) sections: Vec<Section>,
    /// What to look at.
    pub(crate) charts: Vec<Chart>,
    /// What programs read.
    pub(crate) json: Map<String, Value>,
    /// What the check found, where there was something to check.
    pub(crate) check: Option<Check>,
    /// What a reader must know before trusting the figures.
    pub(crate) warnings: Vec<String>,
}

/// Values that belong together.
#[derive(Clone, Debug)]
pub(crate) struct Section {
    /// What they are about.
    pub(crate) title: String,
    /// The values, in reading order.
    pub(crate) rows: Vec<Row>,
}

/// One value.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// What it is.
    pub(crate) name: String,
    /// The value with its unit.
    pub(crate) value: String,
    /// What it means, in a few words; may be empty.
    pub(crate) note: String,
}

/// Something to draw.
#[derive(Clone, Debug)]
pub(crate) enum Chart {
    /// Curves over a common axis.
    Lines {
        /// What is drawn.
        title: String,
        /// What the horizontal axis tells, with its unit.
        across: String,
        /// The curves, each with its name and its points.
        curves: Vec<(String, Vec<(f64, f64)>)>,
    },
    /// Values side by side.
    Bars {
        /// What is drawn, with its unit.
        title: String,
        /// The values, each with its name.
        bars: Vec<(String, f64)>,
    },
}

impl Section {
    /// Begins a section.
    pub(crate) fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), rows: Vec::new() }
    }

    /// Adds a value.
    pub(crate) fn row(self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.noted(name, value, "")
    }

    /// Adds a value and what it means.
    pub(crate) fn noted(
        mut self,
        name: impl Into<String>,
        value: impl Into<String>,
        note: impl Into<String>,
    ) -> Self {
        self.rows.push(Row { name: name.into(), value: value.into(), note: note.into() });
        self
    }

    /// Adds the usual percentiles.
    pub(crate) fn percentiles(self, of: &Percentiles) -> Self {
        let values =
            [("p50", of.p50), ("p90", of.p90), ("p99", of.p99), ("p99.9", of.p999), ("longest", of.max)];
        values.into_iter().fold(self, |section, (name, micros)| section.row(name, millis(micros)))
    }
}

impl Report {
    /// Begins a report.
    pub(crate) fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), ..Self::default() }
    }

    /// Adds a section.
    pub(crate) fn section(mut self, section: Section) -> Self {
        self.sections.push(section);
        self
    }

    /// Adds a chart.
    pub(crate) fn chart(mut self, chart: Chart) -> Self {
        self.charts.push(chart);
        self
    }

    /// Adds a key to the JSON.
    ///
    /// # Panics
    /// When the value has no JSON form, which none of our own types can cause.
    pub(crate) fn key(mut self, name: &str, value: impl Serialize) -> Self {
        let value = serde_json::to_value(value).expect("our own values have a JSON form");
        self.json.insert(name.to_owned(), value);
        self
    }

    /// Adds what the check found.
    pub(crate) fn checked(mut self, check: Check) -> Self {
        self.check = Some(check);
        let section = Section::new("Check: the log, replayed")
            .noted("acknowledged", count(check.acknowledged), "commands that were answered as done")
            .noted("lost", count(check.lost), "acknowledged and not in the log where promised")
            .noted("duplicated", count(check.duplicated), "in the log more than once")
            .noted("holes", count(check.holes), "versions or seqs missing")
            .noted(
                "fallen epochs",
                count(check.fallen_epochs),
                "events of an earlier owner after a later one's",
            )
            .noted("wrong replies", count(check.wrong_replies), "answers that do not fit the state")
            .noted("result", if check.passed() { "passed" } else { "FAILED" }, "");
        self.section(section).key("check", check)
    }

    /// Tells whether the check passed, or there was nothing to check.
    pub(crate) fn passed(&self) -> bool {
        self.check.is_none_or(|check| check.passed())
    }

    /// Returns the table for a terminal.
    pub(crate) fn table(&self) -> String {
        table::render(self)
    }

    /// Writes the JSON to a file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn write_json(&self, file: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(&self.json).expect("a JSON value has a text form");
        std::fs::write(file, text + "\n").with_context(|| format!("{} could not be written", file.display()))
    }

    /// Writes the page to a file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn write_html(&self, file: &Path) -> anyhow::Result<()> {
        std::fs::write(file, html::render(self))
            .with_context(|| format!("{} could not be written", file.display()))
    }
}
