//! Describes a node and starts it.

use std::any::{TypeId, type_name};
use std::collections::HashMap;
use std::sync::Arc;

use orchestrix_core::store::{BoxFuture, Source};
use orchestrix_core::{Aggregate, Clock, EventStore, Incarnation, SystemClock};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::remote::{RemoteType, RemoteTypes};
use super::running::{Running, Tasks};
use super::{Node, Past, Replica};
use crate::aggregate::{self, Arbiter, InFlight, Inbox, Residents, Shared, Snapshotter, Wake};
use crate::cluster::{self, BootTime, ClusterOptions, Confirms, Held, Keeper, Lease, Shards, Standing};
use crate::error::StartError;
use crate::settings::Settings;
use crate::store::{Memory, PostgresOptions, SqliteOptions};
use crate::telemetry::{HookSet, Hooks, Metrics, Telemetry, TypeTelemetry};
use crate::writer::{Append, Lane, Limits, Ownership, TellArbiters};

/// Something that opens as an event store when the node starts.
pub trait IntoStore: Send + 'static {
    /// Opens the store.
    ///
    /// # Errors
    /// The store's own error; the node does not start.
    fn open(self: Box<Self>) -> BoxFuture<'static, Result<Arc<dyn EventStore>, Source>>;
}

impl IntoStore for Arc<dyn EventStore> {
    fn open(self: Box<Self>) -> BoxFuture<'static, Result<Arc<dyn EventStore>, Source>> {
        Box::pin(async move { Ok(*self) })
    }
}

impl IntoStore for Memory {
    fn open(self: Box<Self>) -> BoxFuture<'static, Result<Arc<dyn EventStore>, Source>> {
        Box::pin(async move { Ok(Arc::new(*self) as Arc<dyn EventStore>) })
    }
}

impl IntoStore for SqliteOptions {
    fn open(self: Box<Self>) -> BoxFuture<'static, Result<Arc<dyn EventStore>, Source>> {
        Box::pin(async move { Ok(Arc::new(self.connect().await?) as Arc<dyn EventStore>) })
    }
}

impl IntoStore for PostgresOptions {
    fn open(self: Box<Self>) -> BoxFuture<'static, Result<Arc<dyn EventStore>, Source>> {
        Box::pin(async move { Ok(Arc::new(self.connect().await?) as Arc<dyn EventStore>) })
    }
}

/// Where everything starts: [`Orchestrix::builder`].
#[derive(Clone, Copy, Debug)]
pub struct Orchestrix;

impl Orchestrix {
    /// Begins to describe a node.
    pub fn builder() -> Builder {
        Builder {
            store: None,
            kinds: Vec::new(),
            settings: Settings::default(),
            clock: Arc::new(SystemClock),
            hooks: Vec::new(),
            metrics: true,
            replica: None,
            cluster: None,
        }
    }
}

/// One registered kind of aggregate.
struct Kind {
    type_id: TypeId,
    name: &'static str,
    rust_name: &'static str,
    make_table: fn(Arc<TypeTelemetry>) -> Box<dyn std::any::Any>,
    wake: Wake,
    remote: fn() -> Result<RemoteType, StartError>,
}

/// Describes a node before it starts.
pub struct Builder {
    store: Option<Box<dyn IntoStore>>,
    kinds: Vec<Kind>,
    settings: Settings,
    clock: Arc<dyn Clock>,
    hooks: Vec<Arc<dyn Hooks>>,
    metrics: bool,
    replica: Option<Replica>,
    cluster: Option<ClusterOptions>,
}

impl Builder {
    /// Sets where events are kept: `Memory::new()`, `Sqlite::open(path)`, `Postgres::open(url)?`, or any `Arc<dyn EventStore>`.
    #[must_use]
    pub fn store(mut self, store: impl IntoStore) -> Self {
        self.store = Some(Box::new(store));
        self
    }

    /// Registers a kind of aggregate. One registration is enough for commands, reads, replay and tools.
    #[must_use]
    pub fn aggregate<A: Aggregate>(mut self) -> Self {
        self.kinds.push(Kind {
            type_id: TypeId::of::<A>(),
            name: A::TYPE.as_str(),
            rust_name: type_name::<A>(),
            make_table: aggregate::Table::<A>::boxed,
            wake: aggregate::wake::<A>,
            remote: RemoteType::of::<A>,
        });
        self
    }

    /// Replaces the default settings.
    #[must_use]
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Replaces the system's clock, for tests.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Adds observability hooks; may be called several times.
    #[must_use]
    pub fn hooks(mut self, hooks: impl Hooks) -> Self {
        self.hooks.push(Arc::new(hooks));
        self
    }

    /// Says whether the node records metrics at the process's recorder. Default: yes.
    #[must_use]
    pub fn metrics(mut self, enabled: bool) -> Self {
        self.metrics = enabled;
        self
    }

    /// Reads the past (histories, states at a version or a time) from a replica of the store as far as that has it.
    #[must_use]
    pub fn replica(mut self, replica: Replica) -> Self {
        self.replica = Some(replica);
        self
    }

    /// Takes part in the cluster of the store: nodes that share it divide its shards, and each takes work for all of them.
    ///
    /// The store must be one that several processes can share. Without this a node owns every shard, and a second one
    /// is refused.
    #[must_use]
    pub fn cluster(mut self, options: ClusterOptions) -> Self {
        self.cluster = Some(options);
        self
    }

    /// Opens the store, claims its shards and starts the arbiters. Must be called inside a tokio runtime, which then
    /// carries the writer; the actors have threads of their own.
    ///
    /// # Errors
    /// [`StartError`]: a setting out of its range, two types of one name, a store that does not open, shards that
    /// somebody else holds. Nothing is left running.
    ///
    /// # Cancel safety
    /// A dropped call may leave the shards claimed; the next start claims them again.
    pub async fn start(self) -> Result<Node, StartError> {
        self.settings.validate()?;
        check_names(&self.kinds)?;
        let remote = remote_types(&self.kinds)?;
        let store = self.store.ok_or(StartError::NoStore)?.open().await.map_err(StartError::Open)?;
        let shards = store.info().shard_count;
        let ownership = Arc::new(Ownership::new(Incarnation::fresh(), shards.get() as usize));
        let held = match &self.cluster {
            None => cluster::hold(&*store, ownership.owner(), &self.settings).await?,
            Some(_) if store.info().leases => Held::nothing(self.settings.lease),
            Some(_) => return Err(StartError::NotShared { store: store.info().name }),
        };
        for claim in held.claims {
            ownership.open(claim);
        }
        let metrics = Arc::new(if self.metrics { Metrics::new() } else { Metrics::disabled() });
        let hooks = Arc::new(HookSet::new(self.hooks, &metrics));
        let names: Vec<_> = self.kinds.iter().map(|kind| kind.name).collect();
        let telemetry = Arc::new(Telemetry::new(metrics, hooks, &names));
        let (settings, clock, lease) = (self.settings, self.clock, held.lease);
        let past = Past::new(Arc::clone(&store), self.replica, telemetry.metrics.for_replica());
        let is_member = self.cluster.is_some();
        let parts = Parts { settings, clock, store, past, ownership, telemetry, lease, remote, is_member };
        let node = parts.assemble(&self.kinds)?;
        match self.cluster {
            None => Ok(node),
            Some(options) => super::join(node, options).await,
        }
    }
}

fn check_names(kinds: &[Kind]) -> Result<(), StartError> {
    for (place, kind) in kinds.iter().enumerate() {
        if let Some(first) = kinds[..place].iter().find(|other| other.name == kind.name) {
            let (name, first, second) = (kind.name, first.rust_name, kind.rust_name);
            return Err(StartError::DuplicateType { name, first, second });
        }
    }
    Ok(())
}

/// Reads what each type does for other nodes.
fn remote_types(kinds: &[Kind]) -> Result<RemoteTypes, StartError> {
    let mut types = RemoteTypes::default();
    for kind in kinds {
        types.add(kind.name, (kind.remote)()?);
    }
    Ok(types)
}

/// What is there before the threads and tasks of a node.
struct Parts {
    settings: Settings,
    clock: Arc<dyn Clock>,
    store: Arc<dyn EventStore>,
    past: Past,
    ownership: Arc<Ownership>,
    telemetry: Arc<Telemetry>,
    lease: Option<Lease>,
    remote: RemoteTypes,
    is_member: bool,
}

impl Parts {
    fn assemble(self, kinds: &[Kind]) -> Result<Node, StartError> {
        let settings = &self.settings;
        // Room for all work in flight, and for what the lanes tell about it.
        let inbox_max = settings.commands_in_flight_max + 1_024;
        let (inboxes, receivers): (Vec<_>, Vec<_>) =
            (0..settings.arbiters).map(|_| mpsc::channel(inbox_max)).unzip();
        let mut tasks = Tasks::default();
        let (lanes, mut queues) = self.lanes();
        let (snapshots, queue) = mpsc::channel(aggregate::SNAPSHOTS_WAITING_MAX);
        let (store, ownership, telemetry) =
            (Arc::clone(&self.store), Arc::clone(&self.ownership), Arc::clone(&self.telemetry));
        let (stop, stopped) = oneshot::channel();
        let (confirms, confirmer) = Confirms::new(Arc::clone(&store), Arc::clone(&ownership));
        tokio::spawn(confirmer.run());
        let snapshotter = Snapshotter { queue, store, ownership, telemetry };
        tasks.snapshotter = Some((stop, tokio::spawn(snapshotter.run(stopped))));
        let (standing, lease) = (self.standing(), self.lease.filter(|_| !self.is_member));
        let shared = Arc::new(Shared {
            shards: self.store.info().shard_count,
            residents: Residents::new(
                settings.residency_bytes_max,
                settings.residency_idle_max,
                settings.arbiters,
            ),
            loads: Arc::new(Semaphore::new(settings.loads_in_flight_max)),
            in_flight: InFlight::new(settings.commands_in_flight_max),
            settings: self.settings,
            store: self.store,
            past: self.past,
            clock: self.clock,
            ownership: self.ownership,
            lanes,
            snapshots,
            telemetry: self.telemetry,
            standing,
            confirms,
            kinds: kinds.iter().map(|kind| (kind.name, kind.wake)).collect(),
        });
        if queues.len() < inboxes.len() {
            for lane in queues.drain(..) {
                let arbiters = inboxes.iter().map(mpsc::Sender::downgrade).collect();
                let lane = tokio::spawn(lane.telling(TellArbiters(arbiters)).run());
                tasks.lanes.push(lane.abort_handle());
                tokio::spawn(aggregate::watch_lane(Arc::clone(&shared), lane));
            }
        }
        start_arbiters(&shared, kinds, receivers, queues, &mut tasks)?;
        if let Some(lease) = lease {
            let (keeper, stop) = Keeper::new(&shared, Shards::new(&shared, &inboxes), lease);
            tasks.keeper = Some((stop, tokio::spawn(keeper.run())));
        }
        let types: HashMap<_, _> =
            kinds.iter().enumerate().map(|(place, kind)| (kind.type_id, place)).collect();
        Ok(Node { running: Running::start(shared, inboxes, types, self.remote, tasks) })
    }

    /// A member of a cluster says nothing before it has joined.
    fn standing(&self) -> Standing {
        let until = self.lease.and_then(|lease| lease.until());
        Standing::new(until.or_else(|| self.is_member.then(|| BootTime::from_nanos(0))))
    }

    /// Makes the lanes: one for each arbiter if the store carries so many, else as many as it carries.
    fn lanes(&self) -> (Vec<mpsc::Sender<Append>>, Vec<Lane<()>>) {
        let info = self.store.info();
        let limits = Limits {
            events_max: self.settings.batch_events_max.min(info.batch_events_max),
            bytes_max: self.settings.batch_bytes_max,
        };
        let make = |_| {
            let (sender, queue) = mpsc::channel(self.settings.commands_in_flight_max);
            let lane = Lane {
                queue,
                store: Arc::clone(&self.store),
                ownership: Arc::clone(&self.ownership),
                limits,
                telemetry: Arc::clone(&self.telemetry),
                tell: (),
            };
            (sender, lane)
        };
        (0..info.lanes.clamp(1, self.settings.arbiters)).map(make).unzip()
    }
}

fn start_arbiters(
    shared: &Arc<Shared>,
    kinds: &[Kind],
    receivers: Vec<mpsc::Receiver<Inbox>>,
    lanes: Vec<Lane<()>>,
    tasks: &mut Tasks,
) -> Result<(), StartError> {
    let makers: Vec<_> = kinds.iter().map(|kind| kind.make_table).collect();
    let telemetry = Arc::clone(&shared.telemetry);
    let make_tables: aggregate::MakeTables = Arc::new(move || {
        makers.iter().enumerate().map(|(place, make)| make(Arc::clone(telemetry.of(place)))).collect()
    });
    let mut lanes = lanes.into_iter();
    for (index, inbox) in (0..).zip(receivers) {
        let (shared, make_tables) = (Arc::clone(shared), Arc::clone(&make_tables));
        let arbiter = Arbiter { index, shared, make_tables, inbox, lane: lanes.next() };
        tasks.arbiters.push(arbiter.start().map_err(|error| StartError::Thread(error.to_string()))?);
    }
    Ok(())
}
