//! How a database is opened: the settings that people choose, and the steps of a start.

use std::str::FromStr as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use orchestrix_core::ShardCount;
use sqlx::postgres::PgConnectOptions;
use uuid::Uuid;

use super::Postgres;
use super::append::shard_number;
use super::arguments::Args;
use super::error::NoSession;
use super::lanes::LANES_MAX;
use super::migrations;
use super::open_error::PostgresOpenError;
use super::pool::PoolLimits;
use super::rows::{get, maybe};
use super::session::{SERVER_MIN, Server, Session, Target};
use super::statements::{CREATE_LOG, META};
use crate::store::MigrationStatus;

/// The most sessions of a pool, those of a rush included.
const SESSIONS_MAX: usize = 1_024;

/// The first and the longest pause between two attempts to connect at a start.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Where a database lies and how to open it. Made by [`Postgres::open`].
///
/// ```no_run
/// use orchestrix::store::Postgres;
/// # async fn open() -> Result<(), orchestrix::store::PostgresOpenError> {
/// let store = Postgres::open("postgres://bank@localhost/bank")?.pool_size(8).connect().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is a setting of its own that people turn on or off")]
pub struct PostgresOptions {
    connect: PgConnectOptions,
    place: String,
    shards: Option<ShardCount>,
    auto_migrate: bool,
    read_only: bool,
    timeout: Duration,
    wait: Duration,
    pool_size: usize,
    pool_overflow: usize,
    pool_timeout: Option<Duration>,
    pool_recycle: Option<Duration>,
    lanes: usize,
    slow_query: Option<Duration>,
    behind_pooler: bool,
    allow_unsafe_durability: bool,
}

impl PostgresOptions {
    pub(super) fn new(url: &str) -> Result<Self, PostgresOpenError> {
        let parsed = PgConnectOptions::from_str(url);
        let connect = parsed.map_err(|error| PostgresOpenError::Url { reason: error.to_string() })?;
        let host = connect.get_socket().map_or_else(
            || format!("{}:{}", connect.get_host(), connect.get_port()),
            |socket| socket.display().to_string(),
        );
        let user = connect.get_username();
        let place = format!("{host}/{} as {user}", connect.get_database().unwrap_or(user));
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        Ok(Self {
            connect,
            place,
            shards: None,
            auto_migrate: true,
            read_only: false,
            timeout: Duration::from_secs(30),
            wait: Duration::ZERO,
            pool_size: 2 * cores + 1,
            pool_overflow: 0,
            pool_timeout: None,
            pool_recycle: None,
            lanes: 2,
            slow_query: None,
            behind_pooler: false,
            allow_unsafe_durability: false,
        })
    }

    /// Sets how many shards a new database gets; 256 unless told otherwise.
    ///
    /// An existing database keeps its number: asking for another one is an error when it is opened.
    pub fn shards(mut self, count: ShardCount) -> Self {
        self.shards = Some(count);
        self
    }

    /// Sets whether pending migrations are applied when the database is opened; on unless told otherwise. When off,
    /// a database that needs one is refused with [`PostgresOpenError::Pending`].
    pub fn auto_migrate(mut self, on: bool) -> Self {
        self.auto_migrate = on;
        self
    }

    /// Opens the database to look at it: claims nothing, changes nothing, and answers every write with `Unavailable`.
    /// A standby will do.
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// Sets how long a statement may run, 30 s unless told otherwise; locks are waited for three quarters of that.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = limit;
        self
    }

    /// Sets how long [`connect`](Self::connect) tries to reach a server that does not answer yet; not at all unless
    /// told otherwise.
    pub fn wait(mut self, limit: Duration) -> Self {
        self.wait = limit;
        self
    }

    /// Sets how many connections are kept for everything but appends, 1 to 1,024; twice the cores and one unless told
    /// otherwise.
    pub fn pool_size(mut self, connections: usize) -> Self {
        self.pool_size = connections;
        self
    }

    /// Sets how many more connections may be open in a rush; none unless told otherwise. They are closed when they are
    /// not needed any more.
    pub fn pool_overflow(mut self, connections: usize) -> Self {
        self.pool_overflow = connections;
        self
    }

    /// Sets how long a caller waits for a free connection; as long as [`timeout`](Self::timeout) unless told otherwise.
    pub fn pool_timeout(mut self, limit: Duration) -> Self {
        self.pool_timeout = Some(limit);
        self
    }

    /// Sets how old a connection gets before it is replaced; without a limit unless told otherwise.
    pub fn pool_recycle(mut self, age: Duration) -> Self {
        self.pool_recycle = Some(age);
        self
    }

    /// Sets how many appends are under way at once, each on a connection of its own, 1 to 8; two unless told otherwise.
    pub fn lanes(mut self, count: usize) -> Self {
        self.lanes = count;
        self
    }

    /// Logs every statement that takes this long or longer; none unless told otherwise.
    pub fn slow_query(mut self, limit: Duration) -> Self {
        self.slow_query = Some(limit);
        self
    }

    /// Sets whether a pooler that shares sessions stands before the server, such as PgBouncer in transaction mode; off
    /// unless told otherwise. Nothing is then set for a session, since it would not last: limits and plans are the
    /// server's own. That commits are durable is seen to with each append. The pooler must keep prepared statements,
    /// as PgBouncer does from 1.21 on with `max_prepared_statements` above 0.
    pub fn behind_pooler(mut self, on: bool) -> Self {
        self.behind_pooler = on;
        self
    }

    /// Opens a database whose server may lose commits in a power cut, which is refused otherwise, and warns about it
    /// again and again. For trials.
    pub fn allow_unsafe_durability(mut self, on: bool) -> Self {
        self.allow_unsafe_durability = on;
        self
    }

    /// Returns host, database and user, for messages.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Opens the database; makes its tables when there are none. The calling runtime carries the connections.
    ///
    /// # Errors
    /// [`PostgresOpenError`] by cause; nothing of the log was changed.
    ///
    /// # Cancel safety
    /// May be dropped at any point; migrations that were applied stay applied.
    pub async fn connect(self) -> Result<Postgres, PostgresOpenError> {
        let mut session = self.first_session().await?;
        self.check_fit(&session.server)?;
        let pending = self.pending(&mut session).await?;
        match pending.first() {
            None => {}
            Some(_) if self.auto_migrate && !self.read_only => {
                migrations::apply(&self.place, session.connection()).await?;
            }
            Some(first) => {
                let (place, first) = (self.place.clone(), first.description.clone());
                return Err(PostgresOpenError::Pending { place, pending: pending.len(), first });
            }
        }
        let log = self.log(&mut session).await?;
        let target = self.target();
        // The session of the start may run as long as a migration takes; those that serve have their limits.
        session.close().await;
        let timeout = self.pool_timeout.unwrap_or(self.timeout);
        let limits = PoolLimits {
            size: self.pool_size,
            overflow: self.pool_overflow,
            timeout,
            recycle: self.pool_recycle,
        };
        let first = Session::open(&target).await.map_err(|error| self.no_session(error, Duration::ZERO))?;
        let unsafe_settings = first.server.unsafe_settings.clone();
        let store = Postgres::assemble(target, limits, self.lanes, self.read_only, first, log);
        if !unsafe_settings.is_empty() && !self.read_only {
            store.warn_about(&unsafe_settings);
        }
        Ok(store)
    }

    /// Lists every migration that this program knows, and whether the database has it.
    ///
    /// # Errors
    /// [`PostgresOpenError`] when the server cannot be reached, or was migrated by a newer program or with other texts.
    ///
    /// # Cancel safety
    /// May be dropped at any point; nothing is changed.
    pub async fn migration_status(&self) -> Result<Vec<MigrationStatus>, PostgresOpenError> {
        let mut session = self.first_session().await?;
        migrations::status(&self.place, session.connection()).await
    }

    /// Applies pending migrations and returns those that were pending. Two at once are safe: one waits for the other.
    ///
    /// # Errors
    /// As for [`connect`](Self::connect).
    ///
    /// # Cancel safety
    /// May be dropped at any point; each migration is applied or not.
    pub async fn migrate(&self) -> Result<Vec<MigrationStatus>, PostgresOpenError> {
        let mut session = self.first_session().await?;
        self.check_fit(&session.server)?;
        let pending = self.pending(&mut session).await?;
        if !pending.is_empty() {
            migrations::apply(&self.place, session.connection()).await?;
        }
        self.log(&mut session).await?;
        Ok(pending)
    }

    /// Applies pending migrations in one transaction, rolls it back, and returns those that are pending: tells
    /// whether they would work on this very data.
    ///
    /// # Errors
    /// As for [`migrate`](Self::migrate).
    ///
    /// # Cancel safety
    /// May be dropped at any point; nothing is changed.
    pub async fn migrate_dry_run(&self) -> Result<Vec<MigrationStatus>, PostgresOpenError> {
        let mut session = self.first_session().await?;
        self.check_fit(&session.server)?;
        let pending = self.pending(&mut session).await?;
        migrations::rehearse(&self.place, session.connection(), &pending).await?;
        Ok(pending)
    }

    async fn pending(&self, session: &mut Session) -> Result<Vec<MigrationStatus>, PostgresOpenError> {
        let status = migrations::status(&self.place, session.connection()).await?;
        Ok(status.into_iter().filter(|step| !step.applied).collect())
    }

    fn target(&self) -> Arc<Target> {
        let mut target = Target::new(self.connect.clone(), self.place.clone(), self.timeout);
        target.slow = self.slow_query;
        target.behind_pooler = self.behind_pooler;
        target.allow_unsafe_durability = self.allow_unsafe_durability;
        Arc::new(target)
    }

    fn no_session(&self, error: NoSession, waited: Duration) -> PostgresOpenError {
        PostgresOpenError::from_no_session(&self.place, error, waited)
    }

    /// Connects, and keeps trying for as long as it may help.
    async fn first_session(&self) -> Result<Session, PostgresOpenError> {
        self.check_ranges()?;
        let target = self.patient_target();
        let began = Instant::now();
        let mut pause = PAUSE_MIN;
        loop {
            let error = match Session::open(&target).await {
                Ok(session) => return Ok(session),
                Err(error) => error,
            };
            let waited = began.elapsed();
            if !error.may_pass() || waited + pause > self.wait {
                return Err(self.no_session(error, waited));
            }
            tracing::warn!(%error, place = %self.place, ?waited, "the database does not answer yet; trying again");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Returns where the first session goes: migrations may take longer than a statement of the store.
    fn patient_target(&self) -> Arc<Target> {
        let patient = Duration::from_hours(24).max(self.timeout);
        let mut target = Target::new(self.connect.clone(), self.place.clone(), patient);
        target.connect_timeout = self.timeout;
        target.behind_pooler = self.behind_pooler;
        target.allow_unsafe_durability = self.allow_unsafe_durability;
        Arc::new(target)
    }

    fn check_ranges(&self) -> Result<(), PostgresOpenError> {
        let refuse =
            |option, value: String, allowed| Err(PostgresOpenError::Option { option, value, allowed });
        if !(1..=SESSIONS_MAX).contains(&self.pool_size) {
            return refuse("pool_size", self.pool_size.to_string(), "1 to 1024 connections");
        }
        if self.pool_overflow > SESSIONS_MAX {
            return refuse("pool_overflow", self.pool_overflow.to_string(), "0 to 1024 connections");
        }
        if !(1..=LANES_MAX as usize).contains(&self.lanes) {
            return refuse("lanes", self.lanes.to_string(), "1 to 8 appends at once");
        }
        if !(Duration::from_millis(1)..=Duration::from_hours(24)).contains(&self.timeout) {
            return refuse("timeout", format!("{:?}", self.timeout), "1 ms to 24 h");
        }
        Ok(())
    }

    /// Refuses a server on which the store would not keep its promises.
    fn check_fit(&self, server: &Server) -> Result<(), PostgresOpenError> {
        let place = self.place.clone();
        if server.version < SERVER_MIN {
            let found = format!("{}.{}", server.version / 10_000, server.version % 10_000);
            return Err(PostgresOpenError::ServerTooOld { place, found });
        }
        if self.read_only {
            return Ok(());
        }
        if server.is_standby {
            return Err(PostgresOpenError::Standby { place });
        }
        match server.unsafe_settings.first() {
            Some((setting, found)) if !self.allow_unsafe_durability => {
                Err(PostgresOpenError::NotDurable { place, setting, found: found.clone() })
            }
            _ => Ok(()),
        }
    }

    /// Makes the log's own row where there is none, reads it, and compares the number of shards with what was asked for.
    async fn log(&self, session: &mut Session) -> Result<Log, PostgresOpenError> {
        let failed = |failed| PostgresOpenError::from_failed(&self.place, failed);
        let count = self.shards.unwrap_or_default();
        let mut found = session.run(META, Args::default()).await.map_err(failed)?;
        if found.is_empty() && !self.read_only {
            let seed = Uuid::new_v4().as_u64_pair().0.cast_signed();
            let made = Args::default().add(shard_number_of(count)).add(seed);
            session.run(CREATE_LOG, made).await.map_err(failed)?;
            found = session.run(META, Args::default()).await.map_err(failed)?;
        }
        let corrupt = |reason: String| PostgresOpenError::Corrupt { place: self.place.clone(), reason };
        let row = found.first().ok_or_else(|| corrupt("the table `orchestrix.meta` is empty".to_owned()))?;
        let malformed = |malformed: super::rows::Malformed| corrupt(malformed.to_string());
        let (stored, rows) = (get::<i32>(row, 0).map_err(malformed)?, get::<i64>(row, 1).map_err(malformed)?);
        let count =
            u32::try_from(stored).ok().and_then(ShardCount::new).filter(|_| i64::from(stored) == rows);
        let shard_count = count.ok_or_else(|| corrupt(format!("it says {stored} shards and has {rows}")))?;
        let log = Log {
            shard_count,
            stream_seed: get::<i64>(row, 2).map_err(malformed)?.cast_unsigned(),
            cluster: maybe(row, 3).map_err(malformed)?.unwrap_or_default(),
        };
        match self.shards {
            Some(wanted) if wanted != shard_count => Err(PostgresOpenError::ShardCount {
                place: self.place.clone(),
                stored: shard_count.get(),
                wanted: wanted.get(),
            }),
            _ => Ok(log),
        }
    }
}

/// What the log says about itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Log {
    pub(super) shard_count: ShardCount,
    pub(super) stream_seed: u64,
    /// This life of the database.
    pub(super) cluster: Uuid,
}

fn shard_number_of(count: ShardCount) -> i32 {
    shard_number(orchestrix_core::ShardId::new(count.get()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> PostgresOptions {
        PostgresOptions::new("postgres://ada:secret@db.example:5433/bank").expect("a URL")
    }

    fn server(version: i32) -> Server {
        Server { version, is_standby: false, unsafe_settings: Vec::new() }
    }

    #[test]
    fn a_place_is_named_without_its_password() {
        assert_eq!(options().place(), "db.example:5433/bank as ada");
        let error =
            PostgresOptions::new("postgres://ada:secret@db/bank?sslmode=maybe").expect_err("no such mode");
        assert!(
            error.to_string().contains("is not understood") && !error.to_string().contains("secret"),
            "{error}"
        );
    }

    #[test]
    fn a_server_that_is_too_old_is_refused_by_its_number() {
        let error = options().check_fit(&server(130_012)).expect_err("13 is too old");
        assert!(error.to_string().contains("is PostgreSQL 13.12; this store needs PostgreSQL 14"), "{error}");
        options().check_fit(&server(140_000)).expect("14 will do");
    }

    #[test]
    fn a_standby_is_good_for_reading_only() {
        let standby = Server { is_standby: true, ..server(150_000) };
        let error = options().check_fit(&standby).expect_err("it takes no writes");
        assert!(matches!(error, PostgresOpenError::Standby { .. }), "{error}");
        options().read_only().check_fit(&standby).expect("it can be read");
    }

    #[test]
    fn settings_that_lose_commits_are_refused_unless_told_otherwise() {
        let unsafe_settings = vec![("fsync", "off".to_owned())];
        let weak = Server { unsafe_settings, ..server(150_000) };
        let error = options().check_fit(&weak).expect_err("a power cut loses commits");
        assert!(error.to_string().contains("fsync is off"), "{error}");
        options().allow_unsafe_durability(true).check_fit(&weak).expect("it was allowed");
        options().read_only().check_fit(&weak).expect("nothing is written");
    }

    #[tokio::test]
    async fn a_number_out_of_its_range_is_refused_with_the_range() {
        for (wrong, option) in [
            (options().pool_size(0), "pool_size"),
            (options().pool_overflow(2_000), "pool_overflow"),
            (options().lanes(9), "lanes"),
            (options().timeout(Duration::ZERO), "timeout"),
        ] {
            let error = wrong.connect().await.expect_err("it is out of range");
            assert!(error.to_string().starts_with(option), "{error}");
        }
    }
}
