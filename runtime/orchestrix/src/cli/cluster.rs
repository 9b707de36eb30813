//! `cluster`: which nodes share the store, and who owns which shards.

use std::collections::BTreeMap;

use orchestrix_core::Incarnation;
use orchestrix_core::store::{ClusterView, EventStore, Member, ShardOwner};
use serde::Serialize;
use serde_json::json;

use super::context::Context;
use super::error::CliError;
use super::output::table;

/// A node, as it is printed.
#[derive(Debug, Serialize)]
struct Node<'a> {
    name: &'a str,
    incarnation: Incarnation,
    address: Option<&'a str>,
    application_version: &'a str,
    /// `alive`, `ended`, or `deposed`.
    state: &'static str,
    lease_left_ms: u128,
    draining: bool,
    load: u64,
    shards: usize,
}

/// Prints nodes and shards.
pub(super) async fn run(context: &mut Context) -> Result<(), CliError> {
    let store = context.look().await?;
    let view = read(&*store).await?;
    store.close().await;
    let nodes: Vec<Node<'_>> = view.members.iter().map(|member| node(member, &view)).collect();
    let moves = view.shards.iter().filter(|own| own.target.is_some()).count();
    let free = view.shards.iter().filter(|own| own.owner.is_none()).count();
    let answer = json!({
        "version": view.version, "nodes": nodes, "shards": view.shards, "moves": moves, "shards_without_owner": free,
    });
    context.out.answer(&answer, || {
        let summary = format!("{} shards, {moves} on the move, {free} without an owner", view.shards.len());
        format!("{}\n{}\n{summary}", nodes_text(&nodes), shards_text(&view))
    })
}

/// Reads the view of a store that nodes share.
pub(super) async fn read(store: &dyn EventStore) -> Result<ClusterView, CliError> {
    let info = store.info();
    if !info.leases {
        return Err(CliError::Usage(format!(
            "one process at a time opens the store {}, so there is no cluster; nodes share a PostgreSQL database",
            info.name
        )));
    }
    Ok(store.view().await?)
}

/// Counts the shards that a run owns.
pub(super) fn owned(view: &ClusterView, run: Incarnation) -> usize {
    view.shards.iter().filter(|own| own.owner == Some(run)).count()
}

fn node<'a>(member: &'a Member, view: &ClusterView) -> Node<'a> {
    let Member { node, lease_left, draining, deposed, load } = member;
    Node {
        name: &node.name,
        incarnation: node.incarnation,
        address: node.address.as_deref(),
        application_version: &node.application_version,
        state: match (*deposed, member.is_alive()) {
            (true, _) => "deposed",
            (false, true) => "alive",
            (false, false) => "ended",
        },
        lease_left_ms: lease_left.as_millis(),
        draining: *draining,
        load: *load,
        shards: owned(view, node.incarnation),
    }
}

fn nodes_text(nodes: &[Node<'_>]) -> String {
    let head = ["node", "run", "address", "version", "state", "lease", "load", "shards"].map(str::to_owned);
    let row = |node: &Node<'_>| {
        let drains = if node.draining { ", draining" } else { "" };
        [
            node.name.to_owned(),
            node.incarnation.to_string(),
            node.address.unwrap_or("-").to_owned(),
            node.application_version.to_owned(),
            format!("{}{drains}", node.state),
            format!("{:.1} s", node.lease_left_ms as f64 / 1_000.0),
            node.load.to_string(),
            node.shards.to_string(),
        ]
    };
    table(&std::iter::once(head).chain(nodes.iter().map(row)).collect::<Vec<_>>())
}

/// Lays out the shards, those that go the same way in one line.
fn shards_text(view: &ClusterView) -> String {
    let mut ways: BTreeMap<_, Vec<&ShardOwner>> = BTreeMap::new();
    for own in &view.shards {
        ways.entry((own.owner, own.target)).or_default().push(own);
    }
    let name = |run: Option<Incarnation>| match run {
        None => "-".to_owned(),
        Some(run) => view.member(run).map_or_else(|| format!("run {run}"), |member| member.node.name.clone()),
    };
    let head = ["owner", "goes to", "epochs", "shards"].map(str::to_owned);
    let row =
        |((owner, target), shards): (&(Option<Incarnation>, Option<Incarnation>), &Vec<&ShardOwner>)| {
            let epochs = shards.iter().map(|own| own.epoch.get());
            let (low, high) = (epochs.clone().min().unwrap_or(0), epochs.max().unwrap_or(0));
            let epochs = if low == high { low.to_string() } else { format!("{low}-{high}") };
            let numbers: Vec<u32> = shards.iter().map(|own| own.shard.get()).collect();
            [name(*owner), name(*target), epochs, ranges(&numbers)]
        };
    table(&std::iter::once(head).chain(ways.iter().map(row)).collect::<Vec<_>>())
}

/// Writes ascending numbers as ranges: `0-3,7`.
fn ranges(numbers: &[u32]) -> String {
    let runs = numbers.chunk_by(|one, next| one + 1 == *next);
    let text = runs.map(|run| match run {
        [first, .., last] => format!("{first}-{last}"),
        one => one.iter().map(u32::to_string).collect(),
    });
    text.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_a_row_are_one_range() {
        assert_eq!(ranges(&[]), "");
        assert_eq!(ranges(&[0, 1, 2, 5, 7, 8]), "0-2,5,7-8");
    }
}
