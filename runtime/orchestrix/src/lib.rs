//! A runtime in which every aggregate is an actor that makes its events durable before it replies.

mod aggregate;
pub mod bus;
pub mod cli;
pub mod config;
pub mod error;
pub mod node;
pub mod settings;
pub mod store;
pub mod telemetry;
mod writer;

pub use error::{HistoryError, NotAttempted, SaveError, SendError, StartError, Unknown};
pub use node::{
    AggregateRef, Builder, Consistency, Done, HistoryEvent, IntoStore, Node, NodeStatus, Orchestrix,
    PastState, Receipt, Reply, Residency, Saving, Sending,
};
pub use orchestrix_core as core;
pub use settings::Settings;
