//! The texts that the store sends. Every one is complete: no text is put together from values.

/// A statement and the name under which the slow-query log knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Statement {
    pub(super) name: &'static str,
    pub(super) text: &'static str,
}

/// Names a text.
pub(super) const fn statement(name: &'static str, text: &'static str) -> Statement {
    Statement { name, text }
}

/// The columns of an event, in the order in which `rows::event` reads them.
macro_rules! event {
    () => {
        "e.seq, e.version, e.epoch, e.recorded_at, e.schema_version, e.codec, e.command_id, e.event_type, e.headers, \
         e.receipt, e.payload"
    };
}
pub(super) use event;

/// A page of a stream. Bound are shard, key, type, id, first and last version, last time, limit.
macro_rules! range {
    ($order:literal) => {
        concat!(
            "SELECT ",
            event!(),
            " FROM orchestrix.events AS e WHERE e.shard = $1 AND e.stream = $2 AND e.aggregate_type = $3 \
             AND e.aggregate_id = $4 AND e.version >= $5 AND e.version <= $6 AND e.recorded_at <= $7 \
             ORDER BY e.version ",
            $order,
            " LIMIT $8"
        )
    };
}

/// What an activation needs of the stream `u` besides its events.
macro_rules! loaded {
    () => {
        "s.version, s.taken_at, s.bytes, q.reason, q.command_id, q.since, \
         (SELECT e.version FROM orchestrix.events AS e WHERE e.shard = u.shard AND e.stream = u.stream \
          AND e.aggregate_type = u.aggregate_type AND e.aggregate_id = u.aggregate_id \
          ORDER BY e.version DESC LIMIT 1), "
    };
}

/// The events after the snapshot, as one array for each column.
macro_rules! tail {
    ($events_max:literal) => {
        concat!(
            "LEFT JOIN orchestrix.snapshots AS s ON s.stream = u.stream AND s.aggregate_type = u.aggregate_type \
             AND s.aggregate_id = u.aggregate_id \
             LEFT JOIN orchestrix.quarantine AS q ON q.aggregate_type = u.aggregate_type \
             AND q.aggregate_id = u.aggregate_id \
             CROSS JOIN LATERAL (SELECT array_agg(e.seq) AS seq, array_agg(e.version) AS version, \
             array_agg(e.epoch) AS epoch, array_agg(e.recorded_at) AS recorded_at, \
             array_agg(e.schema_version) AS schema_version, array_agg(e.codec) AS codec, \
             array_agg(e.command_id) AS command_id, array_agg(e.event_type) AS event_type, \
             array_agg(e.headers) AS headers, array_agg(e.receipt) AS receipt, array_agg(e.payload) AS payload \
             FROM (SELECT ",
            event!(),
            " FROM orchestrix.events AS e WHERE e.shard = u.shard AND e.stream = u.stream \
             AND e.aggregate_type = u.aggregate_type AND e.aggregate_id = u.aggregate_id \
             AND e.version > coalesce(s.version, 0) ORDER BY e.version LIMIT ",
            $events_max,
            ") AS e) AS e"
        )
    };
}

pub(super) const APPEND: Statement = statement(
    "append",
    "SELECT orchestrix.append($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, \
     $20, $21, $22, $23)",
);

/// What a run owns and under which generation, on which server.
pub(super) const OWNERSHIP: Statement = statement(
    "ownership",
    "SELECT s.shard, s.epoch, f.generation, pg_postmaster_start_time() FROM orchestrix.fences AS f \
     LEFT JOIN orchestrix.shards AS s ON s.incarnation = f.incarnation WHERE f.incarnation = $1 AND f.lane = 0",
);

/// The last seq of each shard asked for.
pub(super) const HEADS: Statement = statement(
    "heads",
    "SELECT u.shard, coalesce((SELECT e.seq FROM orchestrix.events AS e WHERE e.shard = u.shard \
     ORDER BY e.seq DESC LIMIT 1), 0) FROM unnest($1::int4[]) AS u(shard)",
);

/// The last version of each stream asked for, and whose it is.
pub(super) const VERSIONS: Statement = statement(
    "versions",
    "SELECT u.place::int4, e.version, e.aggregate_type, e.aggregate_id \
     FROM unnest($1::int4[], $2::uuid[]) WITH ORDINALITY AS u(shard, stream, place) \
     CROSS JOIN LATERAL (SELECT e.version, e.aggregate_type, e.aggregate_id FROM orchestrix.events AS e \
     WHERE e.shard = u.shard AND e.stream = u.stream ORDER BY e.version DESC LIMIT 1) AS e",
);

pub(super) const CLAIM: Statement = statement(
    "claim",
    "SELECT c.shard, c.epoch, c.head, c.generation, c.server, c.holder \
     FROM orchestrix.claim_in($1, $2, $3, $4, $5) AS c",
);

pub(super) const NODE: Statement = statement(
    "node",
    "SELECT n.name, n.host, n.boot_id, n.pid_namespace, n.pid, n.pid_started FROM orchestrix.nodes AS n \
     WHERE n.incarnation = $1",
);

/// Bound last is for how long the row of a run stays that owns nothing and whose lease has ended.
pub(super) const JOIN: Statement = statement(
    "join",
    "WITH gone AS (DELETE FROM orchestrix.nodes AS o WHERE o.incarnation IN ( \
     SELECT d.incarnation FROM orchestrix.nodes AS d WHERE d.incarnation <> $1 \
     AND d.lease_until < clock_timestamp() - $11 * interval '1 microsecond' \
     AND NOT EXISTS (SELECT 1 FROM orchestrix.shards AS s WHERE s.incarnation = d.incarnation) \
     FOR UPDATE OF d SKIP LOCKED)) \
     INSERT INTO orchestrix.nodes (incarnation, name, host, boot_id, pid_namespace, pid, pid_started, \
     application_version, address, lease_until) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, clock_timestamp() + $10 * interval '1 microsecond') \
     ON CONFLICT (incarnation) DO UPDATE SET name = excluded.name, address = excluded.address, \
     lease_until = CASE WHEN nodes.deposed THEN nodes.lease_until ELSE excluded.lease_until END",
);

/// The version is of the moment before: what this very renewal changes is seen by the next one.
pub(super) const RENEW: Statement = statement(
    "renew",
    "WITH renewed AS (UPDATE orchestrix.nodes AS n \
     SET lease_until = clock_timestamp() + $2 * interval '1 microsecond', load = $3, draining = n.draining OR $4 \
     WHERE n.incarnation = $1 AND NOT n.deposed RETURNING true) \
     SELECT EXISTS (SELECT 1 FROM renewed), v.version FROM orchestrix.cluster_view AS v",
);

pub(super) const LEAVE: Statement =
    statement("leave", "DELETE FROM orchestrix.nodes AS n WHERE n.incarnation = $1");

/// A second mark changes nothing that others see, and so not the version.
pub(super) const DRAIN: Statement = statement(
    "drain",
    "UPDATE orchestrix.nodes AS n SET draining = true WHERE n.incarnation = $1 RETURNING true",
);

/// The version and all shards in one row, and then a row for each member: one statement sees one moment.
pub(super) const VIEW: Statement = statement(
    "view",
    "SELECT v.version, s.shards, s.owners, s.epochs, s.targets, NULL::uuid AS incarnation, NULL::text, NULL::text, \
     NULL::text, NULL::text, NULL::int8, NULL::int8, NULL::text, NULL::text, NULL::int8, NULL::bool, NULL::bool, \
     NULL::int8 FROM orchestrix.cluster_view AS v CROSS JOIN (SELECT array_agg(s.shard ORDER BY s.shard) AS shards, \
     array_agg(s.incarnation ORDER BY s.shard) AS owners, array_agg(s.epoch ORDER BY s.shard) AS epochs, \
     array_agg(s.target ORDER BY s.shard) AS targets FROM orchestrix.shards AS s) AS s \
     UNION ALL SELECT NULL, NULL, NULL, NULL, NULL, n.incarnation, n.name, n.host, n.boot_id, n.pid_namespace, n.pid, \
     n.pid_started, n.application_version, n.address, \
     greatest(ceil(extract(epoch FROM n.lease_until - clock_timestamp()) * 1000000)::int8, 0), \
     n.draining, n.deposed, n.load FROM orchestrix.nodes AS n ORDER BY incarnation NULLS FIRST",
);

pub(super) const SET_TARGETS: Statement = statement(
    "set_targets",
    "SELECT t.state, t.version FROM orchestrix.set_targets($1, $2, $3, $4, $5, $6) AS t",
);

pub(super) const RELEASE_SHARDS: Statement =
    statement("release_shards", "SELECT r FROM orchestrix.release_shards($1, $2, $3) AS r");

pub(super) const CONFIRM: Statement = statement(
    "confirm",
    "SELECT s.shard, s.epoch FROM orchestrix.shards AS s WHERE s.shard = ANY ($2) AND s.incarnation = $1",
);

pub(super) const LOAD: Statement = statement(
    "load",
    concat!(
        "SELECT ",
        loaded!(),
        "e.* FROM (SELECT $1::int4 AS shard, $2::uuid AS stream, $3::text AS aggregate_type, $4::text AS aggregate_id) \
         AS u ",
        tail!("$5")
    ),
);

pub(super) const LOAD_MANY: Statement = statement(
    "load_many",
    concat!(
        "SELECT ",
        loaded!(),
        "e.*, u.place::int4 FROM unnest($1::int4[], $2::uuid[], $3::text[], $4::text[]) WITH ORDINALITY \
         AS u(shard, stream, aggregate_type, aggregate_id, place) ",
        tail!("$5")
    ),
);

pub(super) const FORWARDS: Statement = statement("read_stream", range!("ASC"));
pub(super) const BACKWARDS: Statement = statement("read_stream_backwards", range!("DESC"));

pub(super) const SHARD: Statement = statement(
    "read_shard",
    concat!(
        "SELECT ",
        event!(),
        ", e.aggregate_type, e.aggregate_id FROM orchestrix.events AS e WHERE e.shard = $1 AND e.seq > $2 \
         ORDER BY e.seq LIMIT $3"
    ),
);

pub(super) const STREAMS: Statement = statement(
    "list_streams",
    "SELECT l.aggregate_type, l.aggregate_id, (SELECT e.version FROM orchestrix.events AS e \
     WHERE e.shard = l.shard AND e.stream = l.stream ORDER BY e.version DESC LIMIT 1) \
     FROM (SELECT f.shard, f.stream, f.aggregate_type, f.aggregate_id FROM orchestrix.events AS f \
     WHERE f.version = 1 AND f.aggregate_type = $1 AND f.aggregate_id > $2 \
     ORDER BY f.aggregate_id LIMIT $3) AS l ORDER BY l.aggregate_id",
);

pub(super) const CHECKPOINT: Statement =
    statement("checkpoint", "SELECT c.shard, c.seq FROM orchestrix.checkpoints AS c WHERE c.consumer = $1");

pub(super) const SAVE_CHECKPOINT: Statement =
    statement("save_checkpoint", "SELECT orchestrix.save_checkpoint($1, $2, $3, $4, $5)");

pub(super) const SAVE_SNAPSHOTS: Statement =
    statement("save_snapshots", "SELECT orchestrix.save_snapshots($1, $2, $3, $4, $5, $6, $7, $8, $9)");

pub(super) const DELETE_SNAPSHOT: Statement = statement(
    "delete_snapshot",
    "DELETE FROM orchestrix.snapshots AS s WHERE s.stream = $1 AND s.aggregate_type = $2 AND s.aggregate_id = $3",
);

pub(super) const QUARANTINE: Statement = statement(
    "quarantine",
    "INSERT INTO orchestrix.quarantine (aggregate_type, aggregate_id, reason, command_id, since) \
     VALUES ($1, $2, $3, $4, $5) ON CONFLICT (aggregate_type, aggregate_id) DO UPDATE \
     SET reason = excluded.reason, command_id = excluded.command_id, since = excluded.since",
);

pub(super) const RELEASE: Statement = statement(
    "release",
    "DELETE FROM orchestrix.quarantine AS q WHERE q.aggregate_type = $1 AND q.aggregate_id = $2 RETURNING true",
);

pub(super) const QUARANTINED: Statement = statement(
    "quarantined",
    "SELECT q.aggregate_type, q.aggregate_id, q.reason, q.command_id, q.since FROM orchestrix.quarantine AS q \
     ORDER BY q.since, q.aggregate_type, q.aggregate_id LIMIT $1",
);

/// Writes durably without changing anything that is read.
pub(super) const PING: Statement =
    statement("ping", "UPDATE orchestrix.meta SET pinged_at = clock_timestamp() RETURNING true");

pub(super) const LOOK: Statement = statement("look", "SELECT m.one FROM orchestrix.meta AS m");

/// Seqs are dense, so the heads tell how many events there are without counting them.
pub(super) const STATS: Statement = statement(
    "stats",
    "SELECT coalesce((SELECT sum(h.head)::int8 FROM (SELECT (SELECT e.seq FROM orchestrix.events AS e \
     WHERE e.shard = s.shard ORDER BY e.seq DESC LIMIT 1) AS head FROM orchestrix.shards AS s) AS h), 0), \
     (SELECT count(*) FROM orchestrix.events AS f WHERE f.version = 1), \
     (SELECT count(*) FROM orchestrix.snapshots), (SELECT count(*) FROM orchestrix.quarantine), \
     (SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::int8 FROM pg_class AS c \
     WHERE c.relnamespace = 'orchestrix'::regnamespace AND c.relkind IN ('r', 'm'))",
);

/// What a session must know about the server before it is used.
pub(super) const SESSION: Statement = statement(
    "session",
    "SELECT current_setting('server_version_num')::int4, current_setting('synchronous_commit'), \
     current_setting('fsync'), current_setting('full_page_writes'), pg_is_in_recovery()",
);

/// Makes the session known by another name.
pub(super) const NAME_SESSION: Statement =
    statement("name_session", "SELECT set_config('application_name', $1, false)");

/// The log's own row, once it was made.
pub(super) const META: Statement = statement(
    "meta",
    "SELECT m.shard_count, (SELECT count(*) FROM orchestrix.shards), m.stream_seed, m.cluster FROM orchestrix.meta AS m",
);

/// Makes the log's own row and the rows of its shards where they are missing. Bound are the number of shards and the
/// seed of the streams' keys.
pub(super) const CREATE_LOG: Statement = statement(
    "create_log",
    "WITH made AS (INSERT INTO orchestrix.meta (shard_count, stream_seed) VALUES ($1, $2) ON CONFLICT DO NOTHING \
     RETURNING shard_count) INSERT INTO orchestrix.shards (shard) \
     SELECT n FROM made, generate_series(0, made.shard_count - 1) AS n",
);
