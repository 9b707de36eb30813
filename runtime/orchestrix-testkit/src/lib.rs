//! What tests of aggregates and of stores are written with.
//!
//! | you test | you use |
//! |---|---|
//! | an aggregate's decisions | [`given`](given()) / when / then |
//! | something that reads the time | [`TestClock`], which moves when told |
//! | what happens when the store misbehaves | [`Faulty`], steered through a [`FaultControl`] |
//! | against PostgreSQL | [`postgres`], a throw-away server (feature `postgres-server`) |
//! | lost and late messages between a node and PostgreSQL | [`proxy`] (feature `postgres-server`) |
//! | a store of your own | [`store_conformance!`], one test per obligation of [`EventStore`](orchestrix_core::EventStore) |
//!
//! Nothing here waits for real time unless a test asks for it, and whatever is random starts from a seed.

mod clock;
pub mod faulty;
pub mod given;
#[cfg(feature = "postgres-server")]
pub mod postgres;
#[cfg(feature = "postgres-server")]
pub mod proxy;
pub mod suite;

pub use clock::TestClock;
pub use faulty::{AppendCounts, Fault, FaultControl, FaultCounts, Faulty, Operation};
pub use given::given;
pub use suite::StoreFactory;
