//! Carries transfers out: withdraws here, deposits there, and records what became of it.
//!
//! A transfer is two commands to two aggregates, and no transaction spans them. What holds it together is the
//! transfer's own stream and command ids that follow from it (see `order`): whoever drives a transfer, and however
//! often it is begun again, each step takes effect once. So a transfer that is pending may always be driven:
//! after it was requested, when somebody looks at it, and when the bank starts.
//!
//! One driver works on a transfer at a time in this process. Beside it the drivers of other nodes may work on the same one,
//! for instance after their start; that costs double commands, which take effect once.

mod carry;
pub(crate) mod order;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use domain_example::transfer::{Transfer, TransferId};
use orchestrix::{Node, NotAttempted};
use orchestrix_core::store::{Direction, ReadError, StreamRange};
use orchestrix_core::{Aggregate, AggregateId, StreamId, Version};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Transfers requested and not yet ended that the driver holds, working on them or waiting to. At some hundred bytes
/// each that is a megabyte, and at 500 transfers a second eight seconds of work. Over it `POST /transfers` answers 429.
const PLACES: usize = 4_096;

/// Transfers worked on at once. Each has one command under way, so this is the driver's share of the node.
const AT_ONCE: usize = 64;

/// Transfers that a start looks at in search of pending ones: a bound on the time that it takes, about a minute.
/// What lies beyond is driven when somebody asks for it.
const LOOKED_AT_MAX: usize = 1_000_000;

/// Transfers listed in one query at the start.
const PAGE_STREAMS: usize = 512;

/// When a caller that found no place may try again.
const RETRY_AFTER: std::time::Duration = std::time::Duration::from_secs(1);

/// Drives transfers. Cheap to clone; every clone is the same driver.
#[derive(Clone)]
pub(crate) struct Driver {
    inner: Arc<Inner>,
}

struct Inner {
    node: Node,
    places: Arc<Semaphore>,
    under_way: Mutex<HashSet<TransferId>>,
    at_once: Semaphore,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// A place at the driver for one transfer; dropped, it is free again.
pub(crate) struct Place {
    driver: Driver,
    id: TransferId,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.driver.under_way().remove(&self.id);
    }
}

impl Driver {
    /// Makes a driver that works until `stop` is cancelled.
    pub(crate) fn new(node: Node, stop: CancellationToken) -> Self {
        let inner = Inner {
            node,
            places: Arc::new(Semaphore::new(PLACES)),
            under_way: Mutex::default(),
            at_once: Semaphore::new(AT_ONCE),
            tasks: TaskTracker::new(),
            stop,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Keeps a place for a transfer; `None` when it is being driven already.
    ///
    /// # Errors
    /// [`NotAttempted::Overloaded`] when every place is taken, [`NotAttempted::ShuttingDown`] when the bank stops.
    pub(crate) fn reserve(&self, id: &TransferId) -> Result<Option<Place>, NotAttempted> {
        if self.inner.stop.is_cancelled() {
            return Err(NotAttempted::ShuttingDown);
        }
        let permit = Arc::clone(&self.inner.places).try_acquire_owned();
        let permit = permit.map_err(|_| NotAttempted::Overloaded {
            what: "the list of transfers under way".into(),
            limit: PLACES,
            retry_after: RETRY_AFTER,
        })?;
        Ok(self.occupy(id, permit))
    }

    /// Drives the transfer of a place in the background.
    pub(crate) fn drive(&self, place: Place) {
        let driver = self.clone();
        self.inner.tasks.spawn(async move {
            let Ok(_turn) = driver.inner.at_once.acquire().await else { return };
            driver.carry_out(&place.id).await;
        });
    }

    /// Looks for transfers that an earlier run left pending and drives them, in the background.
    pub(crate) fn resume(&self) {
        let driver = self.clone();
        self.inner.tasks.spawn(async move {
            let stop = driver.inner.stop.clone();
            let found = tokio::select! {
                found = driver.find_pending() => found,
                () = stop.cancelled() => return,
            };
            match found {
                Ok(0) => {}
                Ok(found) => tracing::info!(found, "resumed the transfers that were pending"),
                Err(error) => {
                    tracing::warn!(%error, "could not look for pending transfers; a GET resumes each");
                }
            }
        });
    }

    /// Waits for what is under way. Call it after `stop` is cancelled: a step that was begun is finished, no other one
    /// begins.
    ///
    /// # Cancel safety
    /// Dropping it ends the wait, not the work.
    pub(crate) async fn finish(&self) {
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }

    /// Pages through the transfers and drives those that have not ended. Returns how many there were.
    async fn find_pending(&self) -> Result<usize, ReadError> {
        let store = self.inner.node.store();
        let (mut after, mut seen, mut found): (Option<StreamId>, _, _) = (None, 0, 0);
        while seen < LOOKED_AT_MAX {
            let from = after.as_ref().map(|stream| &*stream.id);
            let page = store.list_streams(Transfer::TYPE.as_str(), from, PAGE_STREAMS).await?;
            for (stream, version) in &page {
                found += usize::from(self.resume_if_pending(stream, *version).await?);
            }
            seen += page.len();
            match page.into_iter().next_back() {
                Some((last, _)) => after = Some(last),
                None => return Ok(found),
            }
        }
        tracing::warn!(
            limit = LOOKED_AT_MAX,
            "there are more transfers than a start looks at; a GET resumes the others"
        );
        Ok(found)
    }

    async fn resume_if_pending(&self, stream: &StreamId, version: Version) -> Result<bool, ReadError> {
        let Ok(id) = TransferId::from_key(&stream.id) else { return Ok(false) };
        // A transfer with one event is only requested; with more, its last event tells.
        if version > Version::new(1) && !self.is_returning(stream).await? {
            return Ok(false);
        }
        let permit = Arc::clone(&self.inner.places).acquire_owned().await.expect("it is never closed");
        let place = self.occupy(&id, permit);
        Ok(place.map(|place| self.drive(place)).is_some())
    }

    async fn is_returning(&self, stream: &StreamId) -> Result<bool, ReadError> {
        let last = StreamRange { direction: Direction::Backwards, ..StreamRange::from(Version::new(1), 1) };
        let events = self.inner.node.store().read_stream(stream, last).await?;
        Ok(events.first().is_some_and(|event| event.event_type == order::RETURNING))
    }

    fn occupy(&self, id: &TransferId, permit: OwnedSemaphorePermit) -> Option<Place> {
        let is_new = self.under_way().insert(id.clone());
        is_new.then(|| Place { driver: self.clone(), id: id.clone(), _permit: permit })
    }

    fn under_way(&self) -> std::sync::MutexGuard<'_, HashSet<TransferId>> {
        // A set is whole after every call, also after one that panicked.
        self.inner.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
