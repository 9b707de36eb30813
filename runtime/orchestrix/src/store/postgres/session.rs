//! One session with the server: how it is opened, what is checked before it is used, how a statement is run in it.
//!
//! A statement is given up when the server does not answer in time; its session is then dropped and never used again.
//! That is the one way in which work on a session is cut off: a caller who goes away does not cut anything.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use orchestrix_core::Incarnation;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgRow};
use sqlx::{ConnectOptions as _, Connection as _};

use super::arguments::Args;
use super::error::{Failed, NoSession, is_sound, may_pass};
use super::rows::{Malformed, get};
use super::statements::{NAME_SESSION, SESSION, Statement};

/// The first release of PostgreSQL that the store runs on, as `server_version_num` counts.
pub(super) const SERVER_MIN: i32 = 140_000;

/// What a session is called before it is known whose it is.
const UNNAMED: &str = "orchestrix";

/// The longest name of a session; the server cuts what is longer.
const NAME_BYTES_MAX: usize = 63;

/// A session that nobody has used for so long is asked for a sign of life first: its server may be another one by now.
const TRUSTED: Duration = Duration::from_secs(1);

/// How much longer than the server's own limit the store waits for an answer.
const GRACE: Duration = Duration::from_secs(5);

/// Where sessions go and how they are set.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) connect: PgConnectOptions,
    /// Host, database and user, for messages; never a password.
    pub(super) place: String,
    /// How long a statement may run.
    pub(super) timeout: Duration,
    /// How long it takes to connect at most.
    pub(super) connect_timeout: Duration,
    /// What is slower than this is logged.
    pub(super) slow: Option<Duration>,
    /// Whether sessions are shared by a pooler, so that what is set for one does not last.
    pub(super) behind_pooler: bool,
    pub(super) allow_unsafe_durability: bool,
    name: Mutex<String>,
    name_changes: AtomicU64,
}

impl Target {
    pub(super) fn new(connect: PgConnectOptions, place: String, timeout: Duration) -> Self {
        let name = Mutex::new(UNNAMED.to_owned());
        Self {
            connect,
            place,
            timeout,
            connect_timeout: timeout,
            slow: None,
            behind_pooler: false,
            allow_unsafe_durability: false,
            name,
            name_changes: AtomicU64::new(0),
        }
    }

    /// Gives every session a name that tells which run uses it, unless a node has given its own already.
    pub(super) fn name_run(&self, run: Incarnation) {
        let is_unnamed = *self.name.lock().unwrap_or_else(PoisonError::into_inner) == UNNAMED;
        if is_unnamed {
            self.rename(&format!("{UNNAMED} {run}"));
        }
    }

    /// Gives every session a name that tells whose it is.
    pub(super) fn rename(&self, name: &str) {
        let name: String =
            name.chars().filter(|letter| (' '..='~').contains(letter)).take(NAME_BYTES_MAX).collect();
        let mut own = self.name.lock().unwrap_or_else(PoisonError::into_inner);
        if *own != name {
            *own = name;
            self.name_changes.fetch_add(1, Ordering::Release);
        }
    }

    fn name(&self) -> (String, u64) {
        let own = self.name.lock().unwrap_or_else(PoisonError::into_inner);
        (own.clone(), self.name_changes.load(Ordering::Acquire))
    }

    /// Returns what every session is set to. A role or a database may have other defaults; these go before them.
    fn options(&self) -> PgConnectOptions {
        let options = self.connect.clone().disable_statement_logging();
        if self.behind_pooler {
            // A pooler passes on few parameters of a session, and none of these.
            return options.application_name(&self.name().0);
        }
        let millis = |share: u128| (self.timeout.as_millis() * share / 4).max(1).to_string();
        let mut settings = vec![
            ("statement_timeout", millis(4)),
            // Before the statement's own limit: the server says then for certain that nothing was done.
            ("lock_timeout", millis(3)),
            ("idle_in_transaction_session_timeout", "10000".to_owned()),
            ("tcp_user_timeout", "15000".to_owned()),
            ("tcp_keepalives_idle", "15".to_owned()),
            ("default_transaction_isolation", "read committed".to_owned()),
            // Every statement but a few for people is a search in an index, and must stay one when tables are new.
            ("enable_seqscan", "off".to_owned()),
            ("enable_bitmapscan", "off".to_owned()),
            ("enable_hashjoin", "off".to_owned()),
            ("enable_mergejoin", "off".to_owned()),
            ("plan_cache_mode", "force_generic_plan".to_owned()),
            ("jit", "off".to_owned()),
            // What the driver would log as news: that a schema exists already, and the like.
            ("client_min_messages", "warning".to_owned()),
            ("max_parallel_workers_per_gather", "0".to_owned()),
        ];
        if !self.allow_unsafe_durability {
            settings.push(("synchronous_commit", "on".to_owned()));
        }
        options.options(settings).application_name(&self.name().0)
    }
}

/// What a server is and whether what it says is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Server {
    pub(super) version: i32,
    pub(super) is_standby: bool,
    /// The settings that a power cut would lose commits by, with their values.
    pub(super) unsafe_settings: Vec<(&'static str, String)>,
}

/// One session.
#[derive(Debug)]
pub(super) struct Session {
    connection: PgConnection,
    target: Arc<Target>,
    pub(super) opened: Instant,
    pub(super) server: Server,
    /// Whether nothing happened after which it must not be used again.
    sound: bool,
    named: u64,
    used: Instant,
}

impl Session {
    /// Connects and looks at the server.
    pub(super) async fn open(target: &Arc<Target>) -> Result<Self, NoSession> {
        let place = || target.place.clone();
        let options = target.options();
        let connecting =
            tokio::time::timeout(target.connect_timeout, PgConnection::connect_with(&options)).await;
        let connection = connecting
            .map_err(|_| NoSession::TimedOut { place: place(), limit: target.connect_timeout })?
            .map_err(|source| NoSession::Connect { place: place(), source })?;
        let server = Server { version: 0, is_standby: false, unsafe_settings: Vec::new() };
        let named = target.name_changes.load(Ordering::Acquire);
        let (target, opened) = (Arc::clone(target), Instant::now());
        let place = target.place.clone();
        let mut session = Self { connection, target, opened, server, sound: true, named, used: opened };
        session.server = session.look_at_server().await.map_err(|failed| match failed {
            Failed::Driver { source, .. } => NoSession::Connect { place, source },
            other => NoSession::Unfit { place, reason: other.to_string() },
        })?;
        Ok(session)
    }

    async fn look_at_server(&mut self) -> Result<Server, Failed> {
        let row = self.run_one(SESSION, Args::default()).await?;
        let text = |at| get::<&str>(&row, at).map(str::to_owned);
        let mut unsafe_settings = Vec::new();
        for (at, name) in [(1, "synchronous_commit"), (2, "fsync"), (3, "full_page_writes")] {
            let value = text(at)?;
            if value == "off" {
                unsafe_settings.push((name, value));
            }
        }
        Ok(Server { version: get(&row, 0)?, is_standby: get(&row, 4)?, unsafe_settings })
    }

    /// Checks what must hold before a session of a running store is used: a primary, with durable commits.
    pub(super) fn check(&self, read_only: bool) -> Result<(), NoSession> {
        let unfit = |reason: String| NoSession::Unfit { place: self.target.place.clone(), reason };
        if read_only {
            return Ok(());
        }
        if self.server.is_standby {
            return Err(unfit("it is a standby, which takes no writes".to_owned()));
        }
        match self.server.unsafe_settings.first() {
            Some((name, value)) if !self.target.allow_unsafe_durability => {
                Err(unfit(format!("{name} is {value}, so a power cut would lose commits")))
            }
            _ => Ok(()),
        }
    }

    /// Tells whether the session may be used again.
    pub(super) fn is_sound(&self) -> bool {
        self.sound
    }

    /// Tells whether the server still answers, by asking it where it was not heard of lately.
    pub(super) async fn is_alive(&mut self) -> bool {
        if self.used.elapsed() < TRUSTED {
            return true;
        }
        self.sound = false;
        let answered = tokio::time::timeout(GRACE, self.connection.ping()).await;
        self.sound = matches!(answered, Ok(Ok(())));
        self.sound
    }

    /// Runs a statement and returns its rows.
    pub(super) async fn run(&mut self, statement: Statement, arguments: Args) -> Result<Vec<PgRow>, Failed> {
        let is_misnamed = self.named != self.target.name_changes.load(Ordering::Acquire);
        if is_misnamed && !self.target.behind_pooler {
            self.take_name().await?;
        }
        self.run_as_named(statement, arguments).await
    }

    async fn take_name(&mut self) -> Result<(), Failed> {
        let (name, change) = self.target.name();
        self.named = change;
        self.run_as_named(NAME_SESSION, Args::default().add(&*name)).await.map(|_| ())
    }

    async fn run_as_named(&mut self, statement: Statement, arguments: Args) -> Result<Vec<PgRow>, Failed> {
        let limit = self.target.timeout + GRACE;
        let query = sqlx::query_with(statement.text, arguments.into_inner());
        let began = Instant::now();
        // Until it is known to have ended well, the session counts as broken: also when this future is dropped.
        let was_sound = std::mem::replace(&mut self.sound, false);
        let answer = tokio::time::timeout(limit, query.fetch_all(&mut self.connection)).await;
        let took = began.elapsed();
        self.used = Instant::now();
        let rows = match answer {
            Err(_) => return Err(Failed::TimedOut { statement: statement.name, limit }),
            Ok(Err(source)) => {
                self.sound = was_sound && is_sound(&source);
                return Err(Failed::Driver { statement: statement.name, source });
            }
            Ok(Ok(rows)) => rows,
        };
        self.sound = was_sound;
        if self.target.slow.is_some_and(|slow| took >= slow) {
            let duration_ms = took.as_secs_f64() * 1_000.0;
            tracing::warn!(statement = statement.name, duration_ms, rows = rows.len(), "slow query");
        }
        Ok(rows)
    }

    /// Runs a statement that answers with one row.
    pub(super) async fn run_one(&mut self, statement: Statement, arguments: Args) -> Result<PgRow, Failed> {
        let rows = self.run(statement, arguments).await?;
        let row = rows.into_iter().next();
        row.ok_or_else(|| Malformed(format!("{} answered without a row", statement.name)).into())
    }

    /// Returns the connection for work that is not a statement of the store: migrations.
    pub(super) fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    /// Ends the session in good order.
    pub(super) async fn close(self) {
        // A session that cannot say good-bye is gone already.
        let _ = tokio::time::timeout(GRACE, self.connection.close()).await;
    }
}

impl NoSession {
    /// Tells whether it may go better soon.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Connect { source, .. } => may_pass(source),
            Self::TimedOut { .. } => true,
            Self::Closed | Self::Busy { .. } | Self::Unfit { .. } => false,
        }
    }
}
