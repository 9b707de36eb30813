//! `loadtest overload`: several times the load that the node can take, in an open loop.
//!
//! First the capacity is measured in a closed loop, then a multiple of it is offered. What should be seen: the work that
//! is accepted is done at nearly the same rate, the excess is turned away quickly, the memory stays bounded.

use orchestrix::Settings;
use serde_json::json;

use crate::check::Check;
use crate::cli::{Common, OverloadArgs};
use crate::database::Database;
use crate::driver::Load;
use crate::measure::{Measured, drive_and_check, with_settings};
use crate::report::{Chart, Report, Section, count, mib, millis, per_second, ratio};

/// Measures capacity and overload on one node and reports goodput, refusals and memory.
///
/// # Errors
/// When the node does not start, the first commands fail, or the log cannot be read.
pub(super) async fn overload(common: &Common, args: &OverloadArgs) -> anyhow::Result<Report> {
    let load = args.load.load(common);
    let settings = Settings::default();
    // Far more than the node accepts, so that the node's bound is hit and not the driver's.
    let under_way_max = settings.commands_in_flight_max * 2;
    let database = Database::temporary(common)?;
    let node = database.start_node(settings).await?;
    let capacity = drive_and_check(&node, &load, "capacity").await?;
    let rate = capacity.commands_per_s * args.factor;
    let over = Load { rate: Some(rate), callers: under_way_max, cold: true, ..load };
    let overloaded = drive_and_check(&node, &over, "overload").await?;
    node.shutdown().await;
    let report = report(common, args, &capacity, &overloaded);
    Ok(with_settings(report, common, &over, 1))
}

fn report(common: &Common, args: &OverloadArgs, capacity: &Measured, over: &Measured) -> Report {
    let goodput = over.commands_per_s / capacity.commands_per_s;
    let bound = args.bound_mib << 20;
    let own = over.memory.rss_bytes.saturating_sub(over.driver_bytes);
    let refusal = over.refusal.percentiles();
    let section = Section::new(format!("At {} times the capacity", args.factor))
        .noted("capacity", per_second(capacity.commands_per_s), "closed loop, before")
        .noted("offered", per_second(capacity.commands_per_s * args.factor), "open loop")
        .noted("goodput", per_second(over.commands_per_s), "commands done")
        .noted("goodput to capacity", ratio(goodput), "1 is a node that loses nothing by turning work away")
        .noted("turned away", count(over.outcomes.overloaded), "told at once, nothing stored")
        .noted("  p50, from sending", millis(refusal.p50), "")
        .noted("  p99, from sending", millis(refusal.p99), "")
        .noted("accepted, p99", millis(over.latency.quantile_us(0.99)), "from due to done")
        .noted(
            "failed, unknown",
            format!("{}, {}", over.outcomes.failed, over.outcomes.unknown),
            "should be none",
        )
        .noted("memory before", mib(capacity.memory.rss_bytes), "peak of the process at its capacity")
        .noted(
            "memory at its peak",
            mib(over.memory.rss_bytes),
            format!("{} of it the load's own", mib(over.driver_bytes)),
        )
        .noted("bound", mib(bound), if own <= bound { "kept" } else { "BROKEN" });
    let mut check = Check::default();
    check.add(capacity.check);
    check.add(over.check);
    let report = Report::new(format!("loadtest overload on {}", common.store.name())).section(section).chart(
        Chart::Lines {
            title: "Commands done per second".into(),
            across: "seconds".into(),
            curves: vec![
                ("at capacity".into(), capacity.trace.rates(120)),
                ("overloaded".into(), over.trace.rates(120)),
            ],
        },
    );
    let load = Load { rate: Some(0.0), ..args.load.load(common) };
    over.report(report, common, &load).checked(check).key("ratio", json!({ "to_capacity": goodput })).key(
        "overload",
        json!({
            "capacity_commands_per_s": capacity.commands_per_s, "factor": args.factor,
            "refusal_us": refusal, "rss_bound_bytes": bound, "rss_within_bound": own <= bound,
            "driver_bytes": over.driver_bytes,
        }),
    )
}
