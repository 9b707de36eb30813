//! What the server says about itself, for people who check it: settings, rights, owners, connections, dead rows, backups.

use orchestrix_core::store::{ReadError, WriteError};
use orchestrix_core::{Incarnation, Timestamp};
use serde::Serialize;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::append::number;
use super::arguments::Args;
use super::error::Failed;
use super::moment::Moment;
use super::rows::{get, maybe};
use super::statements::{Statement, statement};
use super::{Inner, Postgres};

/// `synchronous_commit` is what the server gives to sessions that do not set it, as those of other programs.
const FACTS: Statement = statement(
    "report",
    "SELECT current_setting('server_version'), current_setting('fsync'), current_setting('full_page_writes'), \
     current_setting('synchronous_commit'), current_setting('synchronous_standby_names'), current_setting('autovacuum'), \
     current_setting('data_checksums'), current_setting('archive_mode'), clock_timestamp(), \
     (SELECT count(*) FROM pg_stat_activity AS a WHERE a.backend_type = 'client backend'), \
     current_setting('max_connections')::int8 - current_setting('superuser_reserved_connections')::int8, \
     coalesce((SELECT s.ssl FROM pg_stat_ssl AS s WHERE s.pid = pg_backend_pid()), false), \
     inet_server_addr() IS NULL OR inet_server_addr() = inet_client_addr(), current_user::text, \
     (SELECT r.rolsuper FROM pg_roles AS r WHERE r.rolname = current_user), \
     has_table_privilege('orchestrix.events', 'UPDATE') OR has_table_privilege('orchestrix.events', 'DELETE'), \
     (SELECT count(*) FROM pg_roles AS r WHERE r.rolname LIKE 'orchestrix\\_%'), \
     (SELECT max(b.ended_at) FROM orchestrix.backups AS b), (SELECT m.importing FROM orchestrix.meta AS m), \
     (SELECT count(*) FROM orchestrix.shards AS s WHERE s.incarnation IS NULL), \
     (SELECT count(*) FROM pg_stat_replication AS r), \
     (SELECT count(*) FROM pg_stat_replication AS r WHERE r.sync_state IN ('sync', 'quorum'))",
);

const HOLDERS: Statement = statement(
    "report_holders",
    "SELECT s.incarnation, n.name, count(*), coalesce(ceil(extract(epoch FROM n.lease_until - clock_timestamp()))::int8, 0), \
     coalesce(n.deposed, false) FROM orchestrix.shards AS s LEFT JOIN orchestrix.nodes AS n ON n.incarnation = s.incarnation \
     WHERE s.incarnation IS NOT NULL GROUP BY s.incarnation, n.name, n.lease_until, n.deposed ORDER BY n.name",
);

const TABLES: Statement = statement(
    "report_tables",
    "SELECT t.relname::text, t.n_live_tup, t.n_dead_tup, pg_table_size(t.relid) FROM pg_stat_user_tables AS t \
     WHERE t.schemaname = 'orchestrix' ORDER BY t.relname",
);

const NOTE_BACKUP: Statement =
    statement("note_backup", "SELECT true FROM (SELECT orchestrix.note_backup($1, $2, $3, $4)) AS n");

/// What the server says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(crate) struct ServerReport {
    pub(crate) version: String,
    pub(crate) fsync: String,
    pub(crate) full_page_writes: String,
    pub(crate) synchronous_commit: String,
    pub(crate) synchronous_standby_names: String,
    pub(crate) autovacuum: String,
    pub(crate) data_checksums: String,
    pub(crate) archive_mode: String,
    /// The server's clock when it was asked.
    pub(crate) clock: Timestamp,
    pub(crate) connections: i64,
    pub(crate) connections_max: i64,
    pub(crate) is_encrypted: bool,
    /// Whether the connection does not leave the machine.
    pub(crate) is_local: bool,
    pub(crate) user: String,
    pub(crate) is_superuser: bool,
    pub(crate) may_change_events: bool,
    pub(crate) roles: i64,
    pub(crate) last_backup: Option<Timestamp>,
    pub(crate) importing: Option<String>,
    pub(crate) shards_free: i64,
    pub(crate) standbys: i64,
    pub(crate) standbys_synchronous: i64,
    pub(crate) holders: Vec<Holder>,
    pub(crate) tables: Vec<Table>,
}

/// A run of a node that has shards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Holder {
    pub(crate) run: Incarnation,
    /// `None` when it has left or never joined.
    pub(crate) name: Option<String>,
    pub(crate) shards: i64,
    /// How long its lease still lasts; below zero when it is over.
    pub(crate) lease_s: i64,
    pub(crate) deposed: bool,
}

/// A table and its dead rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Table {
    pub(crate) name: String,
    pub(crate) live: i64,
    pub(crate) dead: i64,
    pub(crate) bytes: i64,
}

impl Postgres {
    /// Asks the server about itself.
    pub(crate) async fn report(&self) -> Result<ServerReport, ReadError> {
        self.carry(|inner| async move { Ok(inner.report().await?) }).await
    }

    /// Has the database remember a backup that is complete: its name, when it was taken, and how many events it has.
    ///
    /// # Errors
    /// [`WriteError`] when the server does not answer or does not allow it. The backup is as good without.
    ///
    /// # Cancel safety
    /// May be dropped at any point; it may be repeated.
    pub async fn note_backup(
        &self,
        backup: Uuid,
        (started_at, ended_at): (Timestamp, Timestamp),
        events: u64,
    ) -> Result<(), WriteError> {
        let arguments = Args::default().add(backup).add(started_at).add(ended_at).add(number(events));
        let noted = self.change(move |inner| async move {
            inner.pool.run(NOTE_BACKUP, arguments).await.map(|_| ()).map_err(WriteError::from)
        });
        noted.await
    }
}

impl Inner {
    async fn report(&self) -> Result<ServerReport, Failed> {
        let row = self.pool.run_one(FACTS, Args::default()).await?;
        let text = |at| get::<&str>(&row, at).map(str::to_owned);
        let holders = self.pool.run(HOLDERS, Args::default()).await?;
        let tables = self.pool.run(TABLES, Args::default()).await?;
        Ok(ServerReport {
            version: text(0)?,
            fsync: text(1)?,
            full_page_writes: text(2)?,
            synchronous_commit: text(3)?,
            synchronous_standby_names: text(4)?,
            autovacuum: text(5)?,
            data_checksums: text(6)?,
            archive_mode: text(7)?,
            clock: get(&row, 8)?,
            connections: get(&row, 9)?,
            connections_max: get(&row, 10)?,
            is_encrypted: get(&row, 11)?,
            is_local: get(&row, 12)?,
            user: text(13)?,
            is_superuser: get(&row, 14)?,
            may_change_events: get(&row, 15)?,
            roles: get(&row, 16)?,
            last_backup: maybe::<Moment>(&row, 17)?.map(Moment::timestamp),
            importing: maybe::<&str>(&row, 18)?.map(str::to_owned),
            shards_free: get(&row, 19)?,
            standbys: get(&row, 20)?,
            standbys_synchronous: get(&row, 21)?,
            holders: holders.iter().map(holder).collect::<Result<_, _>>()?,
            tables: tables.iter().map(table).collect::<Result<_, _>>()?,
        })
    }
}

fn holder(row: &PgRow) -> Result<Holder, Failed> {
    let name = maybe::<&str>(row, 1)?.map(str::to_owned);
    Ok(Holder { run: get(row, 0)?, name, shards: get(row, 2)?, lease_s: get(row, 3)?, deposed: get(row, 4)? })
}

fn table(row: &PgRow) -> Result<Table, Failed> {
    Ok(Table {
        name: get::<&str>(row, 0)?.to_owned(),
        live: get(row, 1)?,
        dead: get(row, 2)?,
        bytes: get(row, 3)?,
    })
}
