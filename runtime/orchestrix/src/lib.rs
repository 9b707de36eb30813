//! A runtime in which every aggregate is an actor that makes its events durable before it replies.
//!
//! A service describes a node, starts it, and talks to aggregates by their ids. The node runs inside a plain
//! `#[tokio::main]`, beside whatever else runs there.
//!
//! ```
//! use orchestrix::{Consistency, Orchestrix, store::Memory};
//! use orchestrix_core::prelude::*;
//! # aggregate_id!(pub struct CounterId, "counter id");
//! # #[derive(Event)]
//! # pub enum CounterEvent {
//! #     #[event("counter.added")]
//! #     Added { amount: u64 },
//! # }
//! # #[derive(Default, Serialize, Deserialize)]
//! # pub struct Counter { total: u64 }
//! # impl Aggregate for Counter {
//! #     const TYPE: AggregateType = aggregate_type!("counter");
//! #     type Id = CounterId;
//! #     type Event = CounterEvent;
//! #     fn apply(&mut self, event: &CounterEvent) {
//! #         match event { CounterEvent::Added { amount } => self.total += amount }
//! #     }
//! # }
//! # #[derive(Command, Serialize, Deserialize)]
//! # #[command("counter.add", reply = u64)]
//! # pub struct Add { amount: u64 }
//! # impl Handle<Add> for Counter {
//! #     fn handle(&self, command: &Add, _: &Context) -> Decision<Self, Add> {
//! #         emit(CounterEvent::Added { amount: command.amount }).reply(self.total + command.amount)
//! #     }
//! # }
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let node = Orchestrix::builder().store(Memory::new()).aggregate::<Counter>().start().await?;
//! let counter = node.of::<Counter>(CounterId::from_key("visitors")?);
//! assert_eq!(counter.send(Add { amount: 3 }).await?, 3);
//! assert_eq!(counter.read(Consistency::Leased, |counter| counter.total).await?, 3);
//! node.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! # What it promises
//!
//! * A command that was answered is durable, as far as the store is.
//! * A refusal, a read and a *not attempted* rest on nothing that may still vanish, and never take effect later.
//! * A command id has one effect and one reply, inside the memory of its aggregate.
//! * An aggregate that fails takes no other one with it, and every queue has a bound.
//!
//! # Reading order
//!
//! | module | what |
//! |---|---|
//! | [`orchestrix_core`] | the words and the port of a store: aggregate, command, event, `EventStore` |
//! | [`node`] | describes, starts and stops a node; addresses of aggregates: send, read, save, history |
//! | [`error`] | what a caller may hear: refused, not attempted, unknown |
//! | [`settings`] | a node's settings, each with its range and default |
//! | `aggregate` | aggregates as actors: activation, decisions that run ahead, the output gate, passivation |
//! | `cluster` | holding the shards under a lease, when others may share the store |
//! | `writer` | commits of many aggregates in one append, and what became of each |
//! | [`store`] | the stores: in memory, and embedded in one SQLite file |
//! | [`ops`] | backups of a log and their way back |
//! | [`telemetry`], [`bus`] | metrics, hooks, logs, health; stored events as CloudEvents |
//! | [`config`], [`cli`] | settings from the environment; the command line that an application can offer |
//!
//! `docs/ARCHITECTURE.md` has the map with its invariants, `docs/guide/embedding.md` all that a service needs.

mod aggregate;
pub mod bus;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod error;
mod hash;
pub mod node;
pub mod ops;
pub mod settings;
pub mod store;
pub mod telemetry;
mod writer;

pub use cluster::{ClusterOptions, TlsFiles};
pub use error::{HistoryError, NotAttempted, SaveError, SendError, StartError, Unknown};
pub use node::{
    AggregateRef, Builder, ClusterInfo, Consistency, Done, HistoryEvent, IntoStore, Node, NodeStatus,
    Orchestrix, PastState, Reading, Receipt, Replica, Reply, Residency, Saving, Seen, Sending, ShardState,
    Shards,
};
pub use orchestrix_core as core;
pub use settings::Settings;
