//! The writer lanes: sessions for appends alone, so that no append waits behind reads.
//!
//! Each lane has a number, which names its row of the fence, and one append at a time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::NoSession;
use super::session::{Session, Target};

/// The most lanes: as many rows of the fence are made for each run of a node.
pub(super) const LANES_MAX: i16 = 8;

/// All lanes of a store.
#[derive(Debug)]
pub(super) struct Lanes {
    target: Arc<Target>,
    count: u32,
    recycle: Option<Duration>,
    free: Mutex<Vec<Slot>>,
    permits: Arc<Semaphore>,
}

#[derive(Debug)]
struct Slot {
    number: i16,
    session: Option<Session>,
}

/// A lane in use; it is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Lane {
    slot: Option<Slot>,
    lanes: Arc<Lanes>,
    _permit: OwnedSemaphorePermit,
}

impl Lanes {
    /// Makes so many lanes; they connect when they are first used.
    pub(super) fn new(target: Arc<Target>, count: usize, recycle: Option<Duration>) -> Arc<Self> {
        let slot = |number| Slot { number, session: None };
        Arc::new(Self {
            target,
            count: count as u32,
            recycle,
            free: Mutex::new((0..count as i16).rev().map(slot).collect()),
            permits: Arc::new(Semaphore::new(count)),
        })
    }

    /// Takes a lane, or waits for one; whoever came first gets the next.
    pub(super) async fn take(self: &Arc<Self>) -> Result<Lane, NoSession> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| NoSession::Closed)?;
        let slot = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Ok(Lane { slot, lanes: Arc::clone(self), _permit: permit })
    }

    /// Refuses every later append; waits for those under way.
    pub(super) async fn close(&self) {
        // Whoever waits first is served first, so this comes to its turn; a second close finds the lanes closed.
        let everything = self.permits.acquire_many(self.count).await;
        self.permits.close();
        drop(everything);
        let slots = std::mem::take(&mut *self.free.lock().unwrap_or_else(PoisonError::into_inner));
        for session in slots.into_iter().filter_map(|slot| slot.session) {
            session.close().await;
        }
    }
}

impl Lane {
    /// Returns the lane's number.
    pub(super) fn number(&self) -> i16 {
        self.slot.as_ref().map_or(0, |slot| slot.number)
    }

    /// Returns the lane's session, a new one where the old one is broken or too old.
    pub(super) async fn session(&mut self) -> Result<&mut Session, NoSession> {
        let slot = self.slot.as_mut().ok_or(NoSession::Closed)?;
        let recycle = self.lanes.recycle;
        let is_fit = match &mut slot.session {
            Some(session) if recycle.is_none_or(|recycle| session.opened.elapsed() < recycle) => {
                session.is_sound() && session.is_alive().await
            }
            _ => false,
        };
        if !is_fit {
            slot.session = None;
            let session = Session::open(&self.lanes.target).await?;
            session.check(false)?;
            slot.session = Some(session);
        }
        slot.session.as_mut().ok_or(NoSession::Closed)
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        if let Some(mut slot) = self.slot.take() {
            slot.session = slot.session.filter(Session::is_sound);
            self.lanes.free.lock().unwrap_or_else(PoisonError::into_inner).push(slot);
        }
    }
}
