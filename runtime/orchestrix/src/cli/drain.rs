//! `drain`: asks a node to give its shards away, and waits until it has.

use std::time::Duration;

use orchestrix_core::Incarnation;
use orchestrix_core::store::{ClusterView, EventStore, Member};
use serde_json::json;
use tokio::time::Instant;

use super::cluster::{owned, read};
use super::context::Context;
use super::error::CliError;
use super::progress::bar;

/// How often the view is read while shards move.
const POLL: Duration = Duration::from_millis(250);

/// Which node, and how long to wait.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  {bin} drain ada\n  {bin} drain ada --wait 30s\n  {bin} drain ada --wait 0s && echo asked"
)]
pub(super) struct Args {
    /// The name of the node, or its run as `cluster` shows it.
    node: String,
    /// How long to wait until it owns nothing: a number with s, m, h or d; 0s asks and does not wait.
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = super::archive::age)]
    wait: Duration,
}

/// Marks the node, and waits; exit code 1 when it still owns shards in the end.
pub(super) async fn run(args: &Args, context: &mut Context) -> Result<(), CliError> {
    let store = context.change().await?;
    let drained = drain(&*store, args, context).await;
    store.close().await;
    drained
}

async fn drain(store: &dyn EventStore, args: &Args, context: &mut Context) -> Result<(), CliError> {
    let view = read(store).await?;
    let member = find(&view, &args.node)?;
    let (run, name, before) = (member.incarnation(), &member.node.name, owned(&view, member.incarnation()));
    if !store.drain(run).await? {
        return Err(CliError::Found(format!("{name} (run {run}) has left meanwhile")));
    }
    let left = wait(store, run, before, args.wait, context).await?;
    let answer = json!({ "node": name, "incarnation": run, "shards_before": before, "shards_left": left });
    if left == 0 || args.wait.is_zero() {
        let text = match left {
            0 => format!("{name} owns nothing any more; it can be stopped"),
            _ => format!("{name} is asked to give its {left} shards away"),
        };
        return context.out.answer(&answer, || text);
    }
    let others = view.members.iter().filter(|other| other.incarnation() != run);
    let takers = others.filter(|other| other.is_alive() && !other.draining).count();
    let why = if takers == 0 { "; no other node is there to take them" } else { "" };
    Err(CliError::Found(format!(
        "{name} still owns {left} of {before} shards after {:?}{why}; it goes on draining",
        args.wait
    )))
}

/// Finds the one living node of this name, or the run.
fn find<'a>(view: &'a ClusterView, node: &str) -> Result<&'a Member, CliError> {
    let named = view.members.iter().filter(|member| {
        member.node.name == node || member.incarnation().to_string().eq_ignore_ascii_case(node)
    });
    let (alive, ended): (Vec<_>, Vec<_>) = named.partition(|member| member.is_alive());
    match (&alive[..], &ended[..]) {
        ([one], _) => Ok(one),
        ([], []) => {
            let known: Vec<_> = view.members.iter().map(|member| member.node.name.as_str()).collect();
            Err(CliError::Found(format!("there is no node {node}; there are: {}", known.join(", "))))
        }
        ([], [..]) => Err(CliError::Found(format!(
            "the lease of {node} has ended: it gives nothing away, and others take its shards over"
        ))),
        ([..], _) => {
            let runs: Vec<_> = alive.iter().map(|member| member.incarnation().to_string()).collect();
            Err(CliError::Usage(format!(
                "{} nodes are called {node}; name a run: {}",
                runs.len(),
                runs.join(", ")
            )))
        }
    }
}

/// Waits until the run owns nothing or the time is over; returns how many shards it owns then.
async fn wait(
    store: &dyn EventStore,
    run: Incarnation,
    before: usize,
    limit: Duration,
    context: &Context,
) -> Result<usize, CliError> {
    let bar = bar(&context.out, before as u64, "shards");
    let began = Instant::now();
    let mut left = before;
    while left > 0 && began.elapsed() < limit {
        tokio::time::sleep(POLL.min(limit)).await;
        left = owned(&store.view().await?, run);
        bar.set_position(before.saturating_sub(left) as u64);
    }
    bar.finish_and_clear();
    Ok(left)
}

#[cfg(test)]
mod tests {
    use orchestrix_core::store::NodeRecord;

    use super::*;

    fn member(name: &str, lease_left: Duration) -> Member {
        let node = NodeRecord {
            incarnation: Incarnation::fresh(),
            name: name.to_owned(),
            host: String::new(),
            boot_id: String::new(),
            pid_namespace: String::new(),
            pid: 1,
            pid_started: 0,
            application_version: "1".to_owned(),
            address: None,
        };
        Member { node, lease_left, draining: false, deposed: false, load: 0 }
    }

    /// A node that was started again has a former run under the same name.
    #[test]
    fn a_name_stands_for_the_run_that_lives_and_a_run_for_itself() {
        let second = Duration::from_secs(1);
        let members = vec![member("ada", Duration::ZERO), member("ada", second), member("bob", second)];
        let view = ClusterView { version: 1, members, shards: Vec::new() };
        assert_eq!(find(&view, "ada").expect("one lives").incarnation(), view.members[1].incarnation());
        let run = view.members[2].incarnation();
        assert_eq!(find(&view, &run.to_string()).expect("it lives").node.name, "bob");
        let ended = view.members[0].incarnation().to_string();
        assert!(find(&view, &ended).expect_err("it has ended").to_string().contains("has ended"));
        let unknown = find(&view, "eve").expect_err("nobody");
        assert!(unknown.exit_code() == 1 && unknown.to_string().contains("ada, ada, bob"), "{unknown}");
    }

    #[test]
    fn a_name_of_two_living_nodes_is_wrong_use() {
        let members = vec![member("ada", Duration::from_secs(1)), member("ada", Duration::from_secs(1))];
        let view = ClusterView { version: 1, members, shards: Vec::new() };
        let error = find(&view, "ada").expect_err("which one?");
        assert!(
            error.exit_code() == 2 && error.to_string().contains(&view.members[1].incarnation().to_string())
        );
    }
}
