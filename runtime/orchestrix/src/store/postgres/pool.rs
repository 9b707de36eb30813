//! The pool of sessions for everything but appends: a fixed number that are kept, and some more in a rush.
//!
//! `size` sessions are kept, up to `overflow` more are opened when all are in use and closed when they come back.
//! A session older than `recycle` is replaced. Who finds none waits in line, for `timeout` at most. A session that met
//! anything but a clean error of its statement never comes back.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use sqlx::postgres::PgRow;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::arguments::Args;
use super::error::{Failed, NoSession};
use super::rows::Malformed;
use super::session::{Session, Target};
use super::statements::Statement;

/// How the pool is bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PoolLimits {
    /// Sessions that are kept.
    pub(super) size: usize,
    /// Sessions that may be open besides.
    pub(super) overflow: usize,
    /// How long a caller waits for one.
    pub(super) timeout: Duration,
    /// How old a session gets; `None` is as old as it likes.
    pub(super) recycle: Option<Duration>,
}

/// How the pool stands at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PoolStatus {
    /// Open connections.
    pub size: usize,
    /// Of them, those that nobody uses.
    pub idle: usize,
    /// Of them, those in use.
    pub in_use: usize,
    /// Callers that wait for a connection.
    pub waiters: usize,
}

/// Sessions that are shared.
#[derive(Debug)]
pub(super) struct Pool {
    target: Arc<Target>,
    limits: PoolLimits,
    read_only: bool,
    permits: Arc<Semaphore>,
    idle: Mutex<VecDeque<Session>>,
    open: AtomicUsize,
    waiters: AtomicUsize,
    closed: AtomicBool,
}

/// A session in use; it goes back when this is dropped.
#[derive(Debug)]
pub(super) struct Lease {
    /// Taken out when it goes back.
    session: Option<Session>,
    /// Whether it was opened for this use.
    is_fresh: bool,
    pool: Arc<Pool>,
    _permit: OwnedSemaphorePermit,
}

impl Pool {
    /// Makes a pool around a first session, which is idle.
    pub(super) fn new(target: Arc<Target>, limits: PoolLimits, read_only: bool, first: Session) -> Arc<Self> {
        Arc::new(Self {
            target,
            limits,
            read_only,
            permits: Arc::new(Semaphore::new(limits.size + limits.overflow)),
            idle: Mutex::new(VecDeque::from([first])),
            open: AtomicUsize::new(1),
            waiters: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
        })
    }

    /// Returns how it stands.
    pub(super) fn status(&self) -> PoolStatus {
        let idle = self.idle().len();
        let size = self.open.load(Ordering::Acquire);
        PoolStatus {
            size,
            idle,
            in_use: size.saturating_sub(idle),
            waiters: self.waiters.load(Ordering::Acquire),
        }
    }

    /// Runs one statement, which must be one that may be repeated: where an idle session turns out to be gone, it is.
    pub(super) async fn run(
        self: &Arc<Self>,
        statement: Statement,
        arguments: Args,
    ) -> Result<Vec<PgRow>, Failed> {
        let mut lease = self.lease().await?;
        let is_fresh = lease.is_fresh;
        match lease.session().run(statement, arguments.clone()).await {
            Err(failed) if !is_fresh && failed.is_lost_session() => {}
            answered => return answered,
        }
        // Where one is gone the others are too, most likely: the server was away in between.
        drop(lease);
        self.clear();
        self.run_once(statement, arguments).await
    }

    /// Runs one statement, once.
    pub(super) async fn run_once(
        self: &Arc<Self>,
        statement: Statement,
        arguments: Args,
    ) -> Result<Vec<PgRow>, Failed> {
        self.lease().await?.session().run(statement, arguments).await
    }

    /// Runs one statement that may be repeated and answers with one row.
    pub(super) async fn run_one(
        self: &Arc<Self>,
        statement: Statement,
        arguments: Args,
    ) -> Result<PgRow, Failed> {
        let rows = self.run(statement, arguments).await?;
        let row = rows.into_iter().next();
        row.ok_or_else(|| Malformed(format!("{} answered without a row", statement.name)).into())
    }

    /// Takes a session, opens one, or waits for one.
    pub(super) async fn lease(self: &Arc<Self>) -> Result<Lease, NoSession> {
        let permit = self.permit().await?;
        let mut lease = Lease { session: None, is_fresh: true, pool: Arc::clone(self), _permit: permit };
        while let Some(mut session) = self.take_idle() {
            if self.is_young(&session) && session.is_alive().await {
                lease.session = Some(session);
                lease.is_fresh = false;
                return Ok(lease);
            }
            self.retire(session);
        }
        let session = Session::open(&self.target).await?;
        session.check(self.read_only)?;
        self.open.fetch_add(1, Ordering::AcqRel);
        lease.session = Some(session);
        Ok(lease)
    }

    async fn permit(&self) -> Result<OwnedSemaphorePermit, NoSession> {
        if self.closed.load(Ordering::Acquire) {
            return Err(NoSession::Closed);
        }
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            return Ok(permit);
        }
        let _waiting = Waiting::of(&self.waiters);
        let acquired = Arc::clone(&self.permits).acquire_owned();
        match tokio::time::timeout(self.limits.timeout, acquired).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) => Err(NoSession::Closed),
            Err(_) => {
                let PoolStatus { in_use, waiters, .. } = self.status();
                Err(NoSession::Busy { limit: self.limits.timeout, in_use, waiting: waiters })
            }
        }
    }

    /// The one that was used last comes first, so that those of a rush grow old and go.
    fn take_idle(&self) -> Option<Session> {
        self.idle().pop_back()
    }

    fn is_young(&self, session: &Session) -> bool {
        self.limits.recycle.is_none_or(|recycle| session.opened.elapsed() < recycle)
    }

    fn put_back(&self, session: Session) {
        let keep = session.is_sound() && self.is_young(&session) && !self.closed.load(Ordering::Acquire);
        if keep {
            let mut idle = self.idle();
            if self.open.load(Ordering::Acquire) <= self.limits.size {
                idle.push_back(session);
                return;
            }
        }
        self.retire(session);
    }

    /// Lets go of a session: in good order, or by dropping it when it is broken.
    fn retire(&self, session: Session) {
        self.open.fetch_sub(1, Ordering::AcqRel);
        if session.is_sound()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            drop(runtime.spawn(session.close()));
        }
    }

    /// Lets go of everything idle.
    fn clear(&self) {
        let idle = std::mem::take(&mut *self.idle());
        for session in idle {
            self.retire(session);
        }
    }

    /// Refuses every later caller and closes what is idle; what is in use is closed when it comes back.
    pub(super) async fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.permits.close();
        let idle = std::mem::take(&mut *self.idle());
        for session in idle {
            self.open.fetch_sub(1, Ordering::AcqRel);
            session.close().await;
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, VecDeque<Session>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease {
    /// Returns the session.
    pub(super) fn session(&mut self) -> &mut Session {
        self.session.as_mut().expect("a lease has its session until it is dropped")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            self.pool.put_back(session);
        }
    }
}

/// Counts a caller as waiting for as long as it lives.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn of(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
