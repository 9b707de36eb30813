//! `loadtest limit`: what this machine could do with the same rows, without the runtime.

use serde_json::json;

use crate::cli::{Common, LimitArgs, StoreKind};
use crate::driver::Load;
use crate::histogram::median;
use crate::limit::{
    Shape,
    asks::{self, Books},
};
use crate::measure::with_settings;
use crate::report::{Chart, Report, Section, per_second};

/// Measures the limit of a store for each way to append, interleaved, and reports the best median.
///
/// # Errors
/// When the database cannot be made or written.
pub(super) async fn limit(common: &Common, args: &LimitArgs) -> anyhow::Result<Report> {
    let load = args.load.load(common);
    let rounds = args.rounds.rounds;
    let measured = match common.store {
        StoreKind::Memory => of_asks(&load, rounds).await?,
        StoreKind::Sqlite | StoreKind::Postgres => of_shapes(common, &load, rounds).await?,
    };
    let best = measured.iter().map(|(_, rate)| *rate).fold(0.0, f64::max);
    let section = Section::new("Events per second, medians").row("best", per_second(best));
    let section =
        measured.iter().fold(section, |section, (name, rate)| section.row(name.clone(), per_second(*rate)));
    let report = Report::new(format!("loadtest limit of {}", common.store.name()))
        .section(section)
        .chart(Chart::Bars { title: "Events per second, medians".into(), bars: measured })
        .key("store", common.store)
        .key("limit", json!({ "events_per_s": best }));
    Ok(with_settings(report, common, &load, rounds))
}

async fn of_asks(load: &Load, rounds: u8) -> anyhow::Result<Vec<(String, f64)>> {
    let (mut kept, mut counted) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        kept.push(asks::measure(load, Books::Kept).await?);
        counted.push(asks::measure(load, Books::Counted).await?);
    }
    let named = |name: &str, rates| (name.to_owned(), median(rates).unwrap_or_default());
    Ok(vec![named("bare asks", kept), named("bare asks without books", counted)])
}

async fn of_shapes(common: &Common, load: &Load, rounds: u8) -> anyhow::Result<Vec<(String, f64)>> {
    let mut rates: Vec<(Shape, Vec<f64>)> =
        Shape::all(common.store).into_iter().map(|shape| (shape, Vec::new())).collect();
    for _ in 0..rounds {
        for (shape, rates) in &mut rates {
            rates.push(shape.measure(common, load).await?);
        }
    }
    Ok(rates
        .into_iter()
        .map(|(shape, rates)| (shape.to_string(), median(rates).unwrap_or_default()))
        .collect())
}
