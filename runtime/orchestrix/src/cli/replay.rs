//! Rebuilds a state from its events alone, page by page, without a node.

use orchestrix_core::store::{Direction, StreamRange};
use orchestrix_core::{Aggregate, EventStore, StreamId, Timestamp, Version};

use crate::aggregate::{Memory, Window, fold, remember};
use crate::error::HistoryError;
use crate::node::history_error;

/// Events read in one go.
const PAGE: usize = 1_000;

/// How far to go.
#[derive(Clone, Copy, Debug)]
pub(super) enum Until {
    /// To the end.
    Now,
    /// To a version, which must exist.
    Version(Version),
    /// To the last event at or before a time.
    Time(Timestamp),
}

/// A state that was rebuilt.
pub(super) struct Replayed<A> {
    pub(super) state: A,
    pub(super) version: Version,
    pub(super) memory: Memory,
}

/// Rebuilds a state, and its memory of commands when a window is given.
pub(super) async fn replay<A: Aggregate>(
    store: &dyn EventStore,
    stream: &StreamId,
    until: Until,
    window: Option<Window>,
) -> Result<Replayed<A>, HistoryError> {
    let mut now = Replayed { state: A::default(), version: Version::ZERO, memory: Memory::default() };
    loop {
        let events = store.read_stream(stream, range(now.version, until)).await?;
        let is_last = events.len() < PAGE;
        fold(&mut now.state, &mut now.version, &events).map_err(|error| history_error(stream, error))?;
        if let Some(window) = window {
            for event in events {
                remember(&mut now.memory, event, window);
            }
        }
        if is_last {
            break;
        }
    }
    match until {
        Until::Version(wanted) if wanted > now.version => {
            Err(HistoryError::FutureVersion { stream: stream.clone(), wanted, actual: now.version })
        }
        _ => Ok(now),
    }
}

fn range(version: Version, until: Until) -> StreamRange {
    let (to, time) = match until {
        Until::Now => (None, None),
        Until::Version(version) => (Some(version), None),
        Until::Time(time) => (None, Some(time)),
    };
    StreamRange { from: version.next(), to, until: time, direction: Direction::Forwards, limit: PAGE }
}
