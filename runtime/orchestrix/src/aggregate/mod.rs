//! Aggregates as actors: activation, decisions that run ahead, answers that wait, passivation.
//!
//! | file | what |
//! |---|---|
//! | `lifecycle` ◇ | what a resident aggregate does next |
//! | `gate` ◇ | answers that wait for what they saw to be durable |
//! | `dedup` ◇ | one effect per command id |
//! | `remembered` ◇ | the commands that one aggregate remembers |
//! | `draft` | what a command decided, in its stored form |
//! | `instance` | a state with its life, its gate and its memory: what the actor carries |
//! | `job` | a command or a save on its way to an instance and its answer on the way back |
//! | `look` | a read on its way; local ones look whoever owns the shard |
//! | `call` | one piece of work between its caller and whoever answers it |
//! | `recovery` | from snapshot and events to a state |
//! | `actor` | the actix shell around an instance |
//! | `directory` | who is resident on one arbiter; hands work to actors; sends them out of memory |
//! | `census` | how many of each shard are resident, and who waits for none to be |
//! | `arbiter` | the threads that carry actors |
//! | `residency` | who stays in memory |
//! | `snapshotter` | saves snapshots off the command path |
//!
//! A shard's aggregates live on one arbiter, so one aggregate has at most one actor on a node: the directory of that
//! arbiter is the only place that starts and ends them, and it runs on the same thread as they do.

mod actor;
mod arbiter;
mod call;
mod census;
mod dedup;
mod directory;
mod draft;
mod gate;
mod instance;
mod job;
mod lifecycle;
mod look;
mod recovery;
mod remembered;
mod residency;
mod shared;
mod snapshotter;

pub(crate) use arbiter::{Arbiter, Inbox, MakeTables, watch_lane};
pub(crate) use call::{Unanswered, Waiting, open as open_call};
pub(crate) use dedup::{Memory, Window};
#[cfg(feature = "cluster")]
pub(crate) use directory::warm::WARM_MAX;
pub(crate) use directory::{Slot, Table, find};
pub(crate) use job::{
    CommandAnswer, CommandJob, Deliver, Envelope, Route, SaveJob, Typed, events_fingerprint,
};
pub(crate) use look::{ReadJob, wake};
pub(crate) use recovery::{FoldError, fold, guarded, panic_words, remember};
pub(crate) use residency::Residents;
pub(crate) use shared::{InFlight, RETRY_AFTER, Shared, Wake};
pub(crate) use snapshotter::{
    QUEUE_MAX as SNAPSHOTS_WAITING_MAX, Snapshotter, ToSave, check as check_snapshot, open as open_snapshot,
    take as take_snapshot,
};
