//! A long answer is read in pages, so that no single value of SQLite grows without a bound.

use orchestrix_core::store::RecordedEvent;

use super::error::{code, primary_code};
use super::read::Failed;

/// The most events in one page: a megabyte or so of usual events.
pub(super) const EVENTS_MAX: usize = 4_096;

/// The answer so far, and how much to ask for next.
pub(super) struct Pages {
    events: Vec<RecordedEvent>,
    limit: usize,
    size: usize,
    is_complete: bool,
}

impl Pages {
    pub(super) fn new(limit: usize) -> Self {
        Self { events: Vec::new(), limit, size: EVENTS_MAX, is_complete: limit == 0 }
    }

    /// Returns how many events the next page shall have; `None` when there is none left to read.
    pub(super) fn wanted(&self) -> Option<usize> {
        (!self.is_complete).then(|| self.size.min(self.limit - self.events.len()))
    }

    /// Returns the last event so far, after which the next page begins.
    pub(super) fn last(&self) -> Option<&RecordedEvent> {
        self.events.last()
    }

    /// Adds a page. One that was too large for a value of SQLite (10^9 bytes) is asked for again in half.
    pub(super) fn add(
        &mut self,
        wanted: usize,
        page: Result<Vec<RecordedEvent>, Failed>,
    ) -> Result<(), Failed> {
        match page {
            Ok(page) => {
                self.is_complete = page.len() < wanted || self.events.len() + page.len() == self.limit;
                self.events.extend(page);
                Ok(())
            }
            Err(Failed::Driver(error)) if wanted > 1 && primary_code(&error) == Some(code::TOOBIG) => {
                self.size = wanted / 2;
                Ok(())
            }
            Err(failed) => Err(failed),
        }
    }

    pub(super) fn into_events(self) -> Vec<RecordedEvent> {
        self.events
    }
}

#[cfg(test)]
mod tests {
    use orchestrix_core::{Codec, CommandId, Epoch, Seq, ShardId, StreamId, Timestamp, Version};

    use super::*;

    fn events(count: usize) -> Vec<RecordedEvent> {
        let event = RecordedEvent {
            stream: StreamId::new("note", "a"),
            version: Version::new(1),
            shard: ShardId::new(0),
            seq: Seq::new(1),
            epoch: Epoch::new(1),
            event_type: "noted".into(),
            schema_version: 1,
            codec: Codec::Json,
            command_id: CommandId::fresh(),
            recorded_at: Timestamp::from_micros(0),
            headers: None,
            receipt: None,
            payload: Vec::new(),
        };
        vec![event; count]
    }

    /// Reads a log of so many events and returns the sizes of the pages that were asked for.
    fn read(stored: usize, limit: usize) -> (usize, Vec<usize>) {
        let (mut pages, mut asked, mut read) = (Pages::new(limit), Vec::new(), 0);
        while let Some(wanted) = pages.wanted() {
            asked.push(wanted);
            let page = events(wanted.min(stored - read));
            read += page.len();
            pages.add(wanted, Ok(page)).expect("no page failed");
        }
        (pages.into_events().len(), asked)
    }

    #[test]
    fn pages_end_at_the_limit_or_at_the_end_of_the_log() {
        assert_eq!(read(10, 0), (0, vec![]));
        assert_eq!(read(10, 3), (3, vec![3]));
        assert_eq!(read(10, 10), (10, vec![10]));
        assert_eq!(read(10, usize::MAX), (10, vec![EVENTS_MAX]));
        assert_eq!(read(5_000, 4_500), (4_500, vec![EVENTS_MAX, 404]));
        assert_eq!(read(EVENTS_MAX, usize::MAX), (EVENTS_MAX, vec![EVENTS_MAX, EVENTS_MAX]));
    }
}
