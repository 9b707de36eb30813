-- Old events go into an archive and come back from it; a log from a backup comes into an empty database; a note is taken
-- of each backup.

-- Where old events lie. Of each stream it holds the second event and those after it, up to some version, and `events` holds
-- the first one and the rest, always with the last: so a stream that exists cannot begin again, and who finds a version
-- missing there looks here as well. The events of a shard lie in both, each in one of them.
CREATE TABLE orchestrix.events_archive (
    seq            int8        NOT NULL,
    version        int8        NOT NULL,
    epoch          int8        NOT NULL,
    recorded_at    timestamptz NOT NULL,
    slice          int8        NOT NULL,
    shard          int4        NOT NULL,
    schema_version int4        NOT NULL,
    codec          int2        NOT NULL,
    stream         uuid        NOT NULL,
    command_id     uuid        NOT NULL,
    aggregate_type text        COLLATE "C" NOT NULL,
    aggregate_id   text        COLLATE "C" NOT NULL,
    event_type     text        COLLATE "C" NOT NULL,
    headers        bytea,
    receipt        bytea,
    payload        bytea       NOT NULL,
    PRIMARY KEY (shard, seq)
);
CREATE UNIQUE INDEX events_archive_by_stream ON orchestrix.events_archive (stream, version, shard);
CREATE INDEX events_archive_by_slice ON orchestrix.events_archive (slice);

-- What was moved together: who did it and when, and what it must add up to for as long as it is there.
CREATE TABLE orchestrix.archive_slices (
    slice       int8        PRIMARY KEY,
    shard       int4        NOT NULL,
    events      int8        NOT NULL,
    first_seq   int8        NOT NULL,
    last_seq    int8        NOT NULL,
    digest      bytea       NOT NULL,
    older_than  timestamptz NOT NULL,
    archived_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    archived_by text        NOT NULL DEFAULT session_user,
    restored_at timestamptz,
    restored_by text
);
CREATE INDEX archive_slices_by_shard ON orchestrix.archive_slices (shard, slice) WHERE restored_at IS NULL;
CREATE SEQUENCE orchestrix.slices;

-- Adds up what the archive holds of a slice: count, ends, and a digest over every column of every event in order.
CREATE FUNCTION orchestrix.archived(p_slice int8)
RETURNS TABLE (events int8, first_seq int8, last_seq int8, digest bytea)
LANGUAGE sql STABLE AS $$
    SELECT count(*), min(e.seq), max(e.seq),
           sha256(coalesce(string_agg(sha256(record_send(ROW(e.seq, e.version, e.epoch, e.recorded_at, e.shard,
               e.schema_version, e.codec, e.stream, e.command_id, e.aggregate_type, e.aggregate_id, e.event_type,
               e.headers, e.receipt, e.payload))), ''::bytea ORDER BY e.seq), ''::bytea))
      FROM orchestrix.events_archive AS e WHERE e.slice = p_slice
$$;

-- Moves events of a shard into the archive: those of the streams given that are in their snapshots, older than the time
-- given, seen by every consumer, and neither the first nor the last of their streams; of each stream the oldest. The caller has verified
-- the snapshots, and says which by their digests; one that has changed since does not count.
--
-- It runs with the rights of its owner: whoever may call it can remove an event in this way only. The lock on the shard
-- lets a claim wait for the end of a slice, and the other one keeps two archivers apart.
CREATE FUNCTION orchestrix.archive_slice(
    p_shard int4, p_older_than timestamptz, p_events_max int4, p_stream uuid[], p_version int8[], p_digest bytea[]
) RETURNS TABLE (slice int8, events int8)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_slice int8;
    v_seen  int8;
    v_moved int8;
BEGIN
    IF NOT p_events_max BETWEEN 1 AND 100000 THEN
        RAISE EXCEPTION 'a slice has 1 to 100000 events, not %', p_events_max;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('orchestrix.archive', p_shard));
    PERFORM 1 FROM orchestrix.shards AS s WHERE s.shard = p_shard FOR SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no shard %', p_shard;
    END IF;
    -- A consumer that has a checkpoint elsewhere and none in this shard has seen nothing of it.
    SELECT min(coalesce(c.seq, 0)) INTO v_seen
      FROM (SELECT DISTINCT k.consumer FROM orchestrix.checkpoints AS k) AS k
      LEFT JOIN orchestrix.checkpoints AS c ON c.consumer = k.consumer AND c.shard = p_shard;
    v_slice := nextval('orchestrix.slices');
    WITH covered AS MATERIALIZED (
        SELECT s.stream, least(s.version, l.version - 1) AS upto
          FROM unnest(p_stream, p_version, p_digest) AS g(stream, version, digest)
          JOIN orchestrix.snapshots AS s ON s.stream = g.stream AND s.version = g.version AND sha256(s.bytes) = g.digest
         CROSS JOIN LATERAL (SELECT e.version FROM orchestrix.events AS e
                              WHERE e.shard = p_shard AND e.stream = s.stream ORDER BY e.version DESC LIMIT 1) AS l
    ), bounded AS MATERIALIZED (
        SELECT c.stream, coalesce((SELECT min(e.version) - 1 FROM orchestrix.events AS e
                                    WHERE e.shard = p_shard AND e.stream = c.stream AND e.version BETWEEN 2 AND c.upto
                                      AND (e.recorded_at >= p_older_than OR e.seq > v_seen)), c.upto) AS upto
          FROM covered AS c
    ), chosen AS MATERIALIZED (
        SELECT e.seq FROM bounded AS b
         CROSS JOIN LATERAL (SELECT e.seq, e.version FROM orchestrix.events AS e
                              WHERE e.shard = p_shard AND e.stream = b.stream AND e.version BETWEEN 2 AND b.upto
                              ORDER BY e.version LIMIT p_events_max) AS e
         ORDER BY b.stream, e.version LIMIT p_events_max
    ), moved AS (
        DELETE FROM orchestrix.events AS e USING chosen AS c WHERE e.shard = p_shard AND e.seq = c.seq RETURNING e.*
    )
    INSERT INTO orchestrix.events_archive (seq, version, epoch, recorded_at, slice, shard, schema_version, codec, stream,
                                           command_id, aggregate_type, aggregate_id, event_type, headers, receipt, payload)
    SELECT m.seq, m.version, m.epoch, m.recorded_at, v_slice, m.shard, m.schema_version, m.codec, m.stream, m.command_id,
           m.aggregate_type, m.aggregate_id, m.event_type, m.headers, m.receipt, m.payload FROM moved AS m;
    GET DIAGNOSTICS v_moved = ROW_COUNT;
    IF v_moved = 0 THEN
        RETURN;
    END IF;
    INSERT INTO orchestrix.archive_slices (slice, shard, events, first_seq, last_seq, digest, older_than)
    SELECT v_slice, p_shard, a.events, a.first_seq, a.last_seq, a.digest, p_older_than
      FROM orchestrix.archived(v_slice) AS a;
    RETURN QUERY SELECT v_slice, v_moved;
END $$;

-- Moves a slice back, after it has compared it with what it must add up to. The newest of a shard comes first, so that
-- `events` always holds the rest of each stream without a hole. Answers how many events came back.
CREATE FUNCTION orchestrix.restore_slice(p_slice int8) RETURNS int8
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_shard int4;
    v_moved int8;
BEGIN
    SELECT s.shard INTO v_shard FROM orchestrix.archive_slices AS s WHERE s.slice = p_slice;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no slice % in the archive', p_slice;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('orchestrix.archive', v_shard));
    PERFORM 1 FROM orchestrix.shards AS s WHERE s.shard = v_shard FOR SHARE;
    PERFORM 1 FROM orchestrix.archive_slices AS s WHERE s.slice = p_slice AND s.restored_at IS NULL;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    IF EXISTS (SELECT 1 FROM orchestrix.archive_slices AS s
                WHERE s.shard = v_shard AND s.slice > p_slice AND s.restored_at IS NULL) THEN
        RAISE EXCEPTION 'shard % has newer slices than % in the archive; they come back first', v_shard, p_slice;
    END IF;
    IF NOT EXISTS (SELECT 1 FROM orchestrix.archive_slices AS s CROSS JOIN LATERAL orchestrix.archived(s.slice) AS a
                    WHERE s.slice = p_slice AND a.events = s.events AND a.first_seq = s.first_seq
                      AND a.last_seq = s.last_seq AND a.digest = s.digest) THEN
        RAISE EXCEPTION 'slice % of the archive is not what was put there', p_slice;
    END IF;
    WITH moved AS (DELETE FROM orchestrix.events_archive AS a WHERE a.slice = p_slice RETURNING a.*)
    INSERT INTO orchestrix.events (seq, version, epoch, recorded_at, shard, schema_version, codec, stream, command_id,
                                   aggregate_type, aggregate_id, event_type, headers, receipt, payload)
    SELECT m.seq, m.version, m.epoch, m.recorded_at, m.shard, m.schema_version, m.codec, m.stream, m.command_id,
           m.aggregate_type, m.aggregate_id, m.event_type, m.headers, m.receipt, m.payload FROM moved AS m;
    GET DIAGNOSTICS v_moved = ROW_COUNT;
    UPDATE orchestrix.archive_slices AS s SET restored_at = clock_timestamp(), restored_by = session_user
     WHERE s.slice = p_slice;
    RETURN v_moved;
END $$;

-- The backups that were completed, as far as somebody took a note of them.
CREATE TABLE orchestrix.backups (
    backup     uuid        PRIMARY KEY,
    started_at timestamptz NOT NULL,
    ended_at   timestamptz NOT NULL,
    events     int8        NOT NULL,
    noted_by   text        NOT NULL DEFAULT session_user
);

CREATE FUNCTION orchestrix.note_backup(p_backup uuid, p_started_at timestamptz, p_ended_at timestamptz, p_events int8)
RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO orchestrix.backups (backup, started_at, ended_at, events)
    VALUES (p_backup, p_started_at, p_ended_at, p_events) ON CONFLICT (backup) DO NOTHING
$$;

-- The name of the import under way. While there is one, nobody can take a shard, so nothing else is stored and nobody
-- serves a part of a log.
ALTER TABLE orchestrix.meta ADD COLUMN importing text;

-- A claim of a node that knows the database by its name: a node of another life is refused, and so is everybody while a
-- log is coming in. The shards are locked before that is looked at, as by those who change it.
CREATE FUNCTION orchestrix.claim_in(p_cluster uuid, p_owner uuid, p_shards int4[], p_dead uuid[], p_lanes int2)
RETURNS TABLE (shard int4, epoch int8, head int8, generation int8, server timestamptz, holder uuid)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_cluster   uuid;
    v_importing text;
BEGIN
    PERFORM 1 FROM orchestrix.shards AS s WHERE s.shard = ANY (p_shards) ORDER BY s.shard FOR NO KEY UPDATE;
    SELECT m.cluster, m.importing INTO v_cluster, v_importing FROM orchestrix.meta AS m;
    IF v_importing IS NOT NULL THEN
        RAISE EXCEPTION 'the database is being restored (%); it can be used when that is finished', v_importing;
    END IF;
    IF v_cluster IS DISTINCT FROM p_cluster THEN
        RAISE EXCEPTION 'the database has another life (%) than the one that this node was started on (%); restart the node',
            v_cluster, p_cluster;
    END IF;
    RETURN QUERY SELECT * FROM orchestrix.claim(p_owner, p_shards, p_dead, p_lanes);
END $$;

-- Begins an import or takes it up again. Answers 0 begun, 1 another one is under way, 2 the log is not empty; with what
-- was found.
CREATE FUNCTION orchestrix.import_begin(p_name text) RETURNS TABLE (state int4, found text)
LANGUAGE plpgsql AS $$
DECLARE
    v_importing text;
    v_found     text;
BEGIN
    PERFORM 1 FROM orchestrix.shards AS s ORDER BY s.shard FOR NO KEY UPDATE;
    SELECT m.importing INTO v_importing FROM orchestrix.meta AS m FOR UPDATE;
    IF v_importing IS NOT NULL THEN
        RETURN QUERY SELECT CASE WHEN v_importing = p_name THEN 0 ELSE 1 END, v_importing;
        RETURN;
    END IF;
    v_found := CASE
        WHEN EXISTS (SELECT 1 FROM orchestrix.events) THEN 'it has events'
        WHEN EXISTS (SELECT 1 FROM orchestrix.events_archive) THEN 'it has an archive'
        WHEN EXISTS (SELECT 1 FROM orchestrix.shards AS s WHERE s.incarnation IS NOT NULL) THEN
            'a node has taken its shards'
        WHEN EXISTS (SELECT 1 FROM orchestrix.snapshots) OR EXISTS (SELECT 1 FROM orchestrix.checkpoints)
             OR EXISTS (SELECT 1 FROM orchestrix.quarantine) THEN 'it has snapshots, checkpoints or quarantines' END;
    IF v_found IS NOT NULL THEN
        RETURN QUERY SELECT 2, v_found;
        RETURN;
    END IF;
    UPDATE orchestrix.meta AS m SET importing = p_name;
    RETURN QUERY SELECT 0, p_name;
END $$;

-- Stores events of an import, or nothing of them. Answers 0 stored, 1 no import is under way, 2 a shard does not end
-- where they begin, 3 the version before is missing; with the place in the arrays and what was found. A version or a seq
-- that exists already is a unique violation.
CREATE FUNCTION orchestrix.import_events(
    p_head_shard int4[], p_head_seq int8[], p_before_stream uuid[], p_before_version int8[], p_before_shard int4[],
    p_seq int8[], p_version int8[], p_epoch int8[], p_recorded_at timestamptz[], p_shard int4[],
    p_schema_version int4[], p_codec int2[], p_stream uuid[], p_command_id uuid[], p_aggregate_type text[],
    p_aggregate_id text[], p_event_type text[], p_headers bytea[], p_receipt bytea[], p_payload bytea[]
) RETURNS TABLE (state int4, place int4, found int8) LANGUAGE plpgsql AS $$
BEGIN
    -- Steps for different shards go side by side; the end of the import waits for all of them.
    PERFORM 1 FROM orchestrix.meta AS m WHERE m.importing IS NOT NULL FOR KEY SHARE;
    IF NOT FOUND THEN
        RETURN QUERY SELECT 1, 0, 0::int8;
        RETURN;
    END IF;
    RETURN QUERY
        SELECT 2, h.place::int4, h.found FROM (
            SELECT w.place, w.seq, coalesce((SELECT e.seq FROM orchestrix.events AS e WHERE e.shard = w.shard
                                              ORDER BY e.seq DESC LIMIT 1), 0) AS found
              FROM unnest(p_head_shard, p_head_seq) WITH ORDINALITY AS w(shard, seq, place)) AS h
         WHERE h.found <> h.seq LIMIT 1;
    IF FOUND THEN
        RETURN;
    END IF;
    RETURN QUERY
        SELECT 3, w.place::int4, 0::int8
          FROM unnest(p_before_stream, p_before_version, p_before_shard) WITH ORDINALITY AS w(stream, version, shard, place)
         WHERE NOT EXISTS (SELECT 1 FROM orchestrix.events AS e
                            WHERE e.shard = w.shard AND e.stream = w.stream AND e.version = w.version) LIMIT 1;
    IF FOUND THEN
        RETURN;
    END IF;
    INSERT INTO orchestrix.events (seq, version, epoch, recorded_at, shard, schema_version, codec, stream, command_id,
                                   aggregate_type, aggregate_id, event_type, headers, receipt, payload)
    SELECT unnest(p_seq), unnest(p_version), unnest(p_epoch), unnest(p_recorded_at), unnest(p_shard),
           unnest(p_schema_version), unnest(p_codec), unnest(p_stream), unnest(p_command_id), unnest(p_aggregate_type),
           unnest(p_aggregate_id), unnest(p_event_type), unnest(p_headers), unnest(p_receipt), unnest(p_payload);
    RETURN QUERY SELECT 0, 0, 0::int8;
END $$;

-- Ends an import: each shard gets the highest epoch of its events, so that the next owner gets a higher one, and the
-- database another name, so that nodes of the life that the events come from are told apart. Answers the name, or NULL
-- when no import was under way.
CREATE FUNCTION orchestrix.import_finish() RETURNS uuid LANGUAGE plpgsql AS $$
DECLARE
    v_cluster uuid;
BEGIN
    PERFORM 1 FROM orchestrix.shards AS s ORDER BY s.shard FOR NO KEY UPDATE;
    PERFORM 1 FROM orchestrix.meta AS m WHERE m.importing IS NOT NULL FOR UPDATE;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    UPDATE orchestrix.shards AS s SET epoch = greatest(s.epoch, coalesce(
        (SELECT e.epoch FROM orchestrix.events AS e WHERE e.shard = s.shard ORDER BY e.seq DESC LIMIT 1), 0));
    UPDATE orchestrix.meta AS m SET importing = NULL, cluster = gen_random_uuid() RETURNING m.cluster INTO v_cluster;
    RETURN v_cluster;
END $$;

-- The rights. Who takes events away does so by the functions alone.
REVOKE ALL ON FUNCTION orchestrix.archived, orchestrix.archive_slice, orchestrix.restore_slice, orchestrix.note_backup,
    orchestrix.claim_in, orchestrix.import_begin, orchestrix.import_events, orchestrix.import_finish FROM PUBLIC;

DO $$
DECLARE
    v_name text;
BEGIN
    IF EXISTS (SELECT 1 FROM unnest(ARRAY['owner', 'migrator', 'writer', 'reader', 'projector', 'archiver']) AS wanted
                WHERE NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'orchestrix_' || wanted)) THEN
        RAISE WARNING 'roles of the schema are missing; everything belongs to % alone. See docs/operations/postgres.md for '
            'how to make them later', current_user;
        RETURN;
    END IF;
    GRANT SELECT ON orchestrix.events_archive, orchestrix.archive_slices, orchestrix.backups TO orchestrix_migrator,
        orchestrix_writer, orchestrix_reader, orchestrix_projector, orchestrix_archiver;
    GRANT ALL ON orchestrix.events_archive, orchestrix.archive_slices, orchestrix.backups TO orchestrix_owner,
        orchestrix_migrator;
    GRANT ALL ON SEQUENCE orchestrix.slices TO orchestrix_owner, orchestrix_migrator;
    REVOKE DELETE ON orchestrix.events FROM orchestrix_archiver;
    GRANT EXECUTE ON FUNCTION orchestrix.archived, orchestrix.archive_slice, orchestrix.restore_slice,
        orchestrix.note_backup TO orchestrix_owner, orchestrix_migrator, orchestrix_archiver;
    GRANT EXECUTE ON FUNCTION orchestrix.archived TO orchestrix_reader;
    GRANT EXECUTE ON FUNCTION orchestrix.claim_in TO orchestrix_owner, orchestrix_migrator, orchestrix_writer;
    GRANT EXECUTE ON FUNCTION orchestrix.import_begin, orchestrix.import_events, orchestrix.import_finish
        TO orchestrix_owner, orchestrix_migrator;
    BEGIN
        FOREACH v_name IN ARRAY ARRAY['events_archive', 'archive_slices', 'backups'] LOOP
            EXECUTE format('ALTER TABLE orchestrix.%I OWNER TO orchestrix_owner', v_name);
        END LOOP;
        ALTER SEQUENCE orchestrix.slices OWNER TO orchestrix_owner;
        FOR v_name IN SELECT p.oid::regprocedure::text FROM pg_proc AS p
             WHERE p.pronamespace = 'orchestrix'::regnamespace AND p.proname IN ('archived', 'archive_slice',
                   'restore_slice', 'note_backup', 'claim_in', 'import_begin', 'import_events', 'import_finish') LOOP
            EXECUTE format('ALTER FUNCTION %s OWNER TO orchestrix_owner', v_name);
        END LOOP;
    EXCEPTION WHEN insufficient_privilege THEN
        RAISE WARNING 'what is new in the schema stays with %, since % may not give it to orchestrix_owner',
            current_user, current_user;
    END;
END $$;
