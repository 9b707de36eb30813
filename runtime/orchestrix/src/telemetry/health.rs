//! Health of a node, as its three questions: is it healthy (the store answers), is it alive, is it ready for work?
//!
//! The store is really asked, with a time limit: a check that cannot fail would be worse than none.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use orchestrix_core::store::ReadError;
use orchestrix_core::{EventStore, Incarnation, Timestamp};
use serde::Serialize;

use super::metrics::STORE_UP;
use crate::node::{ClusterInfo, Node, NodeStatus};

/// How long the store may take to answer unless told otherwise.
pub const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// What `GET /health` answers. `healthy` means 200, otherwise 503.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Health {
    /// `healthy` or `unhealthy`.
    pub status: &'static str,
    /// `connected` or `disconnected`: whether the store answered in time.
    pub event_store: &'static str,
    /// When it was asked.
    pub timestamp: Timestamp,
    /// What is wrong, when something is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The node: `running`, `draining`, `suspended`, `fenced` or `stopped`.
    pub node: &'static str,
    /// How the node stands in its cluster, when it is in one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterHealth>,
    /// Which store it is.
    pub store: StoreHealth,
    /// What is in memory.
    pub resident: ResidentHealth,
}

/// A node as a member of its cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClusterHealth {
    /// What people call the node; absent when it has the name of its host and process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The run of the node: another one after each start, and after it lost its lease to somebody.
    pub incarnation: Incarnation,
    /// Where it listens for other nodes.
    pub address: SocketAddr,
    /// Shards that it takes work for itself; work for the others goes on to their owners.
    pub shards_owned: usize,
}

impl ClusterHealth {
    fn of(node: &Node) -> Option<Self> {
        let ClusterInfo { incarnation, address, shards_owned } = node.cluster()?;
        Some(Self { name: node.settings().node_name.clone(), incarnation, address, shards_owned })
    }
}

/// The store, in detail.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StoreHealth {
    /// The name as in `EVENT_STORE_TYPE`.
    pub name: &'static str,
    /// Whether events survive a power cut.
    pub durable: bool,
    /// How many shards its log has.
    pub shards: u32,
    /// How long it took to answer, in microseconds; absent when it did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ping_us: Option<u64>,
}

/// What is in memory.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ResidentHealth {
    /// Aggregates.
    pub aggregates: u64,
    /// Their weight in bytes.
    pub bytes: u64,
    /// Commands and reads accepted and not yet answered.
    pub in_flight: u64,
}

impl Health {
    /// Tells whether the answer is 200.
    pub fn is_healthy(&self) -> bool {
        self.status == "healthy"
    }
}

/// Asks a node and its store how they are; the store has `limit` to answer.
///
/// # Cancel safety
/// It may be dropped at any time; nothing is changed by it.
pub async fn check(node: &Node, limit: Duration) -> Health {
    let status = node.status();
    let residency = node.residency();
    let ping = ask(node, limit).await;
    let resident = ResidentHealth {
        aggregates: residency.aggregates,
        bytes: residency.bytes,
        in_flight: residency.in_flight,
    };
    let health = judge(status, node.store().as_ref(), ping, resident, node.clock().now());
    Health { cluster: ClusterHealth::of(node), ..health }
}

/// Tells whether the process does its work at all: `false` only when the node has stopped for good and a restart helps.
pub fn live(node: &Node) -> bool {
    !matches!(node.status(), NodeStatus::Fenced | NodeStatus::Stopped)
}

/// Tells whether the node should get work now: it runs, and its store answers within `limit`.
///
/// # Cancel safety
/// It may be dropped at any time; nothing is changed by it.
pub async fn ready(node: &Node, limit: Duration) -> bool {
    node.status() == NodeStatus::Running && ask(node, limit).await.is_ok()
}

/// Asks the node's store, and keeps the gauge of its state.
async fn ask(node: &Node, limit: Duration) -> Result<Duration, String> {
    let ping = ping(node.store().as_ref(), limit).await;
    metrics::gauge!(STORE_UP).set(if ping.is_ok() { 1.0 } else { 0.0 });
    ping
}

/// Asks a store for a sign of life, and how long it took.
///
/// # Errors
/// What the store said, or that it said nothing within the limit.
pub(crate) async fn ping(store: &dyn EventStore, limit: Duration) -> Result<Duration, String> {
    within(store.ping(), limit).await
}

async fn within(
    ping: impl Future<Output = Result<(), ReadError>>,
    limit: Duration,
) -> Result<Duration, String> {
    let began = Instant::now();
    match tokio::time::timeout(limit, ping).await {
        Ok(Ok(())) => Ok(began.elapsed()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("the store did not answer within {} ms", limit.as_millis())),
    }
}

fn judge(
    status: NodeStatus,
    store: &dyn EventStore,
    ping: Result<Duration, String>,
    resident: ResidentHealth,
    timestamp: Timestamp,
) -> Health {
    let healthy = ping.is_ok() && matches!(status, NodeStatus::Running | NodeStatus::Draining);
    let info = store.info();
    Health {
        status: if healthy { "healthy" } else { "unhealthy" },
        event_store: if ping.is_ok() { "connected" } else { "disconnected" },
        timestamp,
        error: error(status, ping.as_ref().err()),
        node: word(status),
        cluster: None,
        store: StoreHealth {
            name: info.name,
            durable: info.durable,
            shards: info.shard_count.get(),
            ping_us: ping.ok().map(|took| took.as_micros() as u64),
        },
        resident,
    }
}

fn error(status: NodeStatus, store: Option<&String>) -> Option<String> {
    match status {
        NodeStatus::Fenced => {
            Some("another process has taken over the store; restart this one to take it back".to_owned())
        }
        NodeStatus::Stopped => Some("the node has stopped".to_owned()),
        NodeStatus::Suspended => Some(store.cloned().unwrap_or_else(|| {
            "this node does not hold its shards; it takes them back by itself when they are free".to_owned()
        })),
        NodeStatus::Running | NodeStatus::Draining => store.cloned(),
    }
}

fn word(status: NodeStatus) -> &'static str {
    match status {
        NodeStatus::Running => "running",
        NodeStatus::Draining => "draining",
        NodeStatus::Suspended => "suspended",
        NodeStatus::Fenced => "fenced",
        NodeStatus::Stopped => "stopped",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use orchestrix_testkit::Faulty;

    use super::*;
    use crate::Orchestrix;
    use crate::store::Memory;

    const IDLE: ResidentHealth = ResidentHealth { aggregates: 0, bytes: 0, in_flight: 0 };

    fn health(status: NodeStatus, ping: Result<Duration, String>) -> Health {
        judge(status, &Memory::new(), ping, IDLE, Timestamp::from_micros(0))
    }

    #[test]
    fn a_running_node_whose_store_answers_is_healthy() {
        let answer = health(NodeStatus::Running, Ok(Duration::from_micros(70)));
        assert!(answer.is_healthy());
        let json = serde_json::to_value(&answer).expect("JSON");
        assert_eq!(json["status"], "healthy");
        assert_eq!(json["event_store"], "connected");
        assert_eq!(json["timestamp"], "1970-01-01T00:00:00.000000Z");
        assert_eq!(json["store"]["ping_us"], 70);
        assert_eq!(json.get("error"), None);
    }

    #[test]
    fn a_silent_store_makes_it_unhealthy_and_says_why() {
        let answer = health(NodeStatus::Running, Err("no answer".to_owned()));
        assert!(!answer.is_healthy());
        assert_eq!((answer.event_store, answer.error.as_deref()), ("disconnected", Some("no answer")));
    }

    #[test]
    fn a_fenced_node_is_unhealthy_although_the_store_answers() {
        let answer = health(NodeStatus::Fenced, Ok(Duration::ZERO));
        assert!(!answer.is_healthy());
        assert!(answer.error.expect("a reason").contains("another process"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_never_answers_does_not_hold_the_answer_up() {
        let silent = within(std::future::pending(), PING_TIMEOUT).await;
        assert_eq!(silent, Err("the store did not answer within 2000 ms".to_owned()));
    }

    #[tokio::test]
    async fn a_node_is_ready_while_its_store_answers_and_alive_until_it_stops() {
        let (store, control) = Faulty::new(Arc::new(Memory::new()));
        let store: Arc<dyn EventStore> = store;
        let node = Orchestrix::builder().store(store).start().await.expect("the node starts");
        assert!(check(&node, PING_TIMEOUT).await.is_healthy() && ready(&node, PING_TIMEOUT).await);
        control.take_down();
        let down = check(&node, PING_TIMEOUT).await;
        assert_eq!((down.status, down.event_store, down.node), ("unhealthy", "disconnected", "running"));
        assert!(down.error.is_some() && !ready(&node, PING_TIMEOUT).await && live(&node));
        control.heal();
        assert!(ready(&node, PING_TIMEOUT).await);
        node.shutdown().await;
        assert!(!live(&node) && !ready(&node, PING_TIMEOUT).await);
    }

    #[tokio::test]
    async fn the_store_is_really_asked() {
        let store = Memory::new();
        assert!(ping(&store, PING_TIMEOUT).await.is_ok());
        store.close().await;
        assert!(ping(&store, PING_TIMEOUT).await.is_err(), "a closed store does not answer");
    }
}
