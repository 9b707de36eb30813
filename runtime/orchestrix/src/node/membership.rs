//! How a node joins its cluster: connections first, so that it is reached as soon as others know of it, then the lease.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::Node;
use super::router::{Desk, Router};
use crate::cluster::transport::{CALLS_MAX, Transport, TransportOptions};
use crate::cluster::{Carrier, ClusterOptions, Crew, INPUTS_MAX, Neighbours, Strings};
use crate::error::StartError;

/// How often a start looks whether it has joined.
const LOOK_PAUSE: Duration = Duration::from_millis(2);

/// Joins the cluster of the node's store, or stops the node.
///
/// # Errors
/// [`StartError::Join`]. Nothing is left running.
pub(super) async fn join(node: Node, options: ClusterOptions) -> Result<Node, StartError> {
    match enter(&node, options).await {
        Ok(()) => Ok(node),
        Err(reason) => {
            node.shutdown().await;
            Err(StartError::Join { reason })
        }
    }
}

async fn enter(node: &Node, options: ClusterOptions) -> Result<(), String> {
    let running = &node.running;
    let shared = &running.shared;
    let (sender, inputs) = mpsc::channel(INPUTS_MAX);
    let (me, shards) = (shared.ownership.owner(), running.shards());
    let metrics = Arc::new(shared.telemetry.metrics.for_cluster());
    let router = Router::new(me, shards.clone(), sender.clone(), shared.settings.lease, Arc::clone(&metrics));
    let advertised = options.advertise.clone();
    let desk = Arc::new(Desk(Arc::downgrade(&router)));
    let transport =
        Transport::bind(describe(node, options), desk).await.map_err(|error| error.to_string())?;
    let address = advertised.unwrap_or_else(|| transport.address().to_string());
    router.connect(running, transport);
    let neighbours: Arc<dyn Neighbours> = Arc::clone(&router) as _;
    let crew = Crew {
        shared: Arc::clone(shared),
        shards,
        neighbours,
        address: address.clone(),
        sender,
        inputs,
        metrics,
    };
    let (carrier, Strings { stop, left }) = Carrier::new(crew);
    running.enter_cluster(Arc::clone(&router), left, (stop, tokio::spawn(carrier.run())));
    has_joined(node, &router).await?;
    tracing::info!(%address, run = %me, "this node has joined the cluster of its store");
    Ok(())
}

/// Describes the node's connections to others.
fn describe(node: &Node, options: ClusterOptions) -> TransportOptions {
    let shared = &node.running.shared;
    let info = shared.store.info();
    TransportOptions {
        listen: options.listen,
        tls: options.tls,
        plaintext_allowed: options.plaintext_allowed,
        cluster: format!("{} of {} shards", info.name, info.shard_count.get()).into(),
        incarnation: shared.ownership.owner(),
        node: shared.settings.node_name.as_deref().unwrap_or("(unnamed)").into(),
        application_version: shared.settings.application_version.as_str().into(),
        registry: node.registry(),
        calls_max: CALLS_MAX,
    }
}

/// Waits until the node has a lease and has seen the others, as long as the settings allow.
async fn has_joined(node: &Node, router: &Router) -> Result<(), String> {
    let settings = &node.running.shared.settings;
    let give_up = Instant::now() + settings.claim_wait_max + settings.lease;
    while node.running.shared.standing.check().is_err() || !router.has_view() {
        if Instant::now() >= give_up {
            return Err("the store did not take it up in time".to_owned());
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
    Ok(())
}
