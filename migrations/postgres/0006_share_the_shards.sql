-- Nodes share the shards: what each of them sees of the others, where shards should go, and how they are given back.
--
-- Whoever changes owners locks in this order, so that no two can wait for each other: rows of `shards` in the order of
-- the shards, rows of `nodes`, rows of `fences`, and last the row of `cluster_view`.

-- The run that should own the shard; NULL when it may stay where it is.
ALTER TABLE orchestrix.shards ADD COLUMN target uuid;

-- A run that is draining gives its shards away and takes no others. `load` is what it says of itself with each renewal.
ALTER TABLE orchestrix.nodes ADD COLUMN draining bool NOT NULL DEFAULT false;
ALTER TABLE orchestrix.nodes ADD COLUMN load int8 NOT NULL DEFAULT 0;

-- One row: a number that another view of nodes and shards never has. A sequence would not do: its next number is seen
-- before what it stands for is committed, and whoever read the view in between would not look again. `changed_by` is the
-- transaction that changed it last. The number grows, and keeps up with the clock in microseconds: a standby that is
-- promoted without the last changes would else count on to numbers that other views had.
CREATE TABLE orchestrix.cluster_view (
    one        boolean PRIMARY KEY DEFAULT true CHECK (one),
    version    int8    NOT NULL DEFAULT 1,
    changed_by xid8    NOT NULL DEFAULT '0'
) WITH (fillfactor = 20);
INSERT INTO orchestrix.cluster_view DEFAULT VALUES;

-- Changes the version, once for each transaction. The triggers below wait for the end of the transaction, so that
-- transactions stand in line for this row while they commit and not while they work.
CREATE FUNCTION orchestrix.change_view() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE orchestrix.cluster_view AS v
       SET version = greatest(v.version + 1, (extract(epoch FROM clock_timestamp()) * 1000000)::int8),
           changed_by = pg_current_xact_id()
     WHERE v.changed_by <> pg_current_xact_id();
    RETURN NULL;
END $$;

CREATE CONSTRAINT TRIGGER shards_seen AFTER UPDATE ON orchestrix.shards DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (OLD.incarnation IS DISTINCT FROM NEW.incarnation OR OLD.epoch <> NEW.epoch
                       OR OLD.target IS DISTINCT FROM NEW.target)
    EXECUTE FUNCTION orchestrix.change_view();
CREATE CONSTRAINT TRIGGER nodes_come_and_go AFTER INSERT OR DELETE ON orchestrix.nodes DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION orchestrix.change_view();
-- A renewal changes the lease and the load, of which nobody is told.
CREATE CONSTRAINT TRIGGER nodes_seen AFTER UPDATE ON orchestrix.nodes DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN ((OLD.incarnation, OLD.name, OLD.address, OLD.application_version, OLD.draining, OLD.deposed)
                       IS DISTINCT FROM
                       (NEW.incarnation, NEW.name, NEW.address, NEW.application_version, NEW.draining, NEW.deposed))
    EXECUTE FUNCTION orchestrix.change_view();

-- As before, but a shard that only gets a target raises no fence. Rows are compared as sets: one after the other would
-- take a square of time where many shards change.
CREATE FUNCTION orchestrix.raise_fences_of(p_owners uuid[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_generation int8;
BEGIN
    PERFORM 1 FROM orchestrix.fences AS f WHERE f.incarnation = ANY (p_owners)
     ORDER BY f.incarnation, f.lane FOR NO KEY UPDATE;
    v_generation := nextval('orchestrix.generations');
    UPDATE orchestrix.fences AS f SET generation = v_generation WHERE f.incarnation = ANY (p_owners);
END $$;

CREATE OR REPLACE FUNCTION orchestrix.raise_fences() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    v_owners uuid[];
BEGIN
    SELECT array_agg(DISTINCT c.incarnation) INTO v_owners FROM (
        SELECT b.shard, b.epoch, b.incarnation FROM before AS b
        EXCEPT SELECT a.shard, a.epoch, a.incarnation FROM after AS a) AS c
     WHERE c.incarnation IS NOT NULL;
    IF v_owners IS NOT NULL THEN
        PERFORM orchestrix.raise_fences_of(v_owners);
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION orchestrix.raise_fences_of_deleted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM orchestrix.raise_fences_of(ARRAY(SELECT DISTINCT b.incarnation FROM before AS b
                                              WHERE b.incarnation IS NOT NULL));
    RETURN NULL;
END $$;

DROP TRIGGER shards_updated ON orchestrix.shards;
DROP TRIGGER shards_deleted ON orchestrix.shards;
CREATE TRIGGER shards_updated AFTER UPDATE ON orchestrix.shards
    REFERENCING OLD TABLE AS before NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION orchestrix.raise_fences();
CREATE TRIGGER shards_deleted AFTER DELETE ON orchestrix.shards
    REFERENCING OLD TABLE AS before FOR EACH STATEMENT EXECUTE FUNCTION orchestrix.raise_fences_of_deleted();

-- Ends what runs that were succeeded began while they held their leases and have not finished: the store names each
-- session after its run. What comes later is fenced and does no harm. Who may not end a session leaves it.
CREATE FUNCTION orchestrix.end_sessions(p_runs uuid[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_pid int4;
BEGIN
    FOR v_pid IN SELECT a.pid FROM orchestrix.nodes AS n JOIN pg_stat_activity AS a
            ON a.application_name = 'orchestrix ' || n.incarnation
            OR starts_with(a.application_name, 'orchestrix ' || n.incarnation || ' ')
         WHERE n.incarnation = ANY (p_runs) AND n.deposed AND a.datname = current_database()
           AND a.pid <> pg_backend_pid() AND a.state <> 'idle' AND a.xact_start < n.lease_until LOOP
        BEGIN
            PERFORM pg_terminate_backend(v_pid);
        EXCEPTION WHEN insufficient_privilege THEN
            NULL;
        END;
    END LOOP;
END $$;

-- Takes shards over, as before. New: what is taken has no target any more; the fences of the new owner are held, so that
-- nobody clears them away before it owns something; and sessions of a run that was succeeded are ended.
CREATE OR REPLACE FUNCTION orchestrix.claim(p_owner uuid, p_shards int4[], p_dead uuid[], p_lanes int2)
RETURNS TABLE (shard int4, epoch int8, head int8, generation int8, server timestamptz, holder uuid)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_made    int8;
    v_held    int8;
    v_deposed uuid[];
    v_unused  uuid[];
BEGIN
    -- In the order of the shards: two claims cannot wait for each other.
    PERFORM 1 FROM orchestrix.shards AS s WHERE s.shard = ANY (p_shards) ORDER BY s.shard FOR NO KEY UPDATE;
    -- The rows of the holders are locked, so that a renewal comes either before the look at the lease or after the claim.
    PERFORM 1 FROM orchestrix.nodes AS n
     WHERE n.incarnation IN (SELECT s.incarnation FROM orchestrix.shards AS s WHERE s.shard = ANY (p_shards))
       AND n.incarnation <> p_owner ORDER BY n.incarnation FOR NO KEY UPDATE;
    RETURN QUERY
        SELECT s.shard, s.epoch, NULL::int8, NULL::int8, NULL::timestamptz, n.incarnation
          FROM orchestrix.shards AS s JOIN orchestrix.nodes AS n ON n.incarnation = s.incarnation
         WHERE s.shard = ANY (p_shards) AND n.incarnation <> p_owner AND NOT n.deposed
           AND n.lease_until > clock_timestamp() AND NOT (n.incarnation = ANY (p_dead))
         ORDER BY s.shard LIMIT 1;
    IF FOUND THEN
        RETURN;
    END IF;
    WITH deposed AS (
        UPDATE orchestrix.nodes AS n SET deposed = true
         WHERE n.incarnation IN (SELECT s.incarnation FROM orchestrix.shards AS s WHERE s.shard = ANY (p_shards))
           AND n.incarnation <> p_owner AND NOT n.deposed RETURNING n.incarnation)
    SELECT array_agg(d.incarnation) INTO v_deposed FROM deposed AS d;
    LOOP
        INSERT INTO orchestrix.fences (incarnation, lane, generation)
        SELECT p_owner, lane, 0 FROM generate_series(0, p_lanes - 1) AS lane ON CONFLICT DO NOTHING;
        GET DIAGNOSTICS v_made = ROW_COUNT;
        PERFORM 1 FROM orchestrix.fences AS f WHERE f.incarnation = p_owner ORDER BY f.lane FOR KEY SHARE;
        GET DIAGNOSTICS v_held = ROW_COUNT;
        EXIT WHEN v_held >= p_lanes;
    END LOOP;
    IF v_made > 0 THEN
        -- Drawn now that the rows are there, so that it is above every generation that the run had before.
        UPDATE orchestrix.fences AS f SET generation = n.generation
          FROM (SELECT nextval('orchestrix.generations') AS generation) AS n WHERE f.incarnation = p_owner;
    END IF;
    -- The trigger raises the fences of the former owners, and by that waits for their appends in flight.
    UPDATE orchestrix.shards AS s SET epoch = s.epoch + 1, incarnation = p_owner, target = NULL
     WHERE s.shard = ANY (p_shards);
    -- A statement of its own, so that it sees what those appends stored.
    RETURN QUERY
        SELECT s.shard, s.epoch,
               CASE WHEN s.shard = ANY (p_shards) THEN coalesce(
                   (SELECT e.seq FROM orchestrix.events AS e WHERE e.shard = s.shard ORDER BY e.seq DESC LIMIT 1), 0) END,
               f.generation, pg_postmaster_start_time(), NULL::uuid
          FROM orchestrix.fences AS f JOIN orchestrix.shards AS s ON s.incarnation = f.incarnation
         WHERE f.incarnation = p_owner AND f.lane = 0;
    -- Fences of runs that own nothing are of no use; those that are in use are left for the next claim. Whether a run owns
    -- nothing is looked at once more when all of its rows are locked: it may have claimed in between.
    SELECT array_agg(u.incarnation) INTO v_unused FROM (
        SELECT l.incarnation FROM (
            SELECT o.incarnation FROM orchestrix.fences AS o
             WHERE o.incarnation <> p_owner
               AND NOT EXISTS (SELECT 1 FROM orchestrix.shards AS s WHERE s.incarnation = o.incarnation)
             ORDER BY o.incarnation, o.lane FOR UPDATE SKIP LOCKED) AS l
         GROUP BY l.incarnation
        HAVING count(*) = (SELECT count(*) FROM orchestrix.fences AS a WHERE a.incarnation = l.incarnation)) AS u;
    DELETE FROM orchestrix.fences AS f WHERE f.incarnation = ANY (v_unused)
       AND NOT EXISTS (SELECT 1 FROM orchestrix.shards AS s WHERE s.incarnation = f.incarnation);
    IF v_deposed IS NOT NULL THEN
        PERFORM orchestrix.end_sessions(v_deposed);
    END IF;
END $$;

-- Takes from a run those of the shards that it owns at these epochs, and answers which. The trigger waits for its appends
-- in flight; those that come later find another generation.
CREATE FUNCTION orchestrix.release_shards(p_owner uuid, p_shards int4[], p_epochs int8[]) RETURNS SETOF int4
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM orchestrix.shards AS s WHERE s.shard = ANY (p_shards) ORDER BY s.shard FOR NO KEY UPDATE;
    RETURN QUERY
        UPDATE orchestrix.shards AS s SET incarnation = NULL FROM unnest(p_shards, p_epochs) AS w(shard, epoch)
         WHERE s.shard = w.shard AND s.epoch = w.epoch AND s.incarnation = p_owner RETURNING s.shard;
END $$;

-- Says where shards should go. Answers 0 set, 1 another planner is at work, 2 the view is another one or the planner holds
-- no lease; with the version of the view as it is then. A shard whose owner or epoch is another one keeps its target.
CREATE FUNCTION orchestrix.set_targets(
    p_planner uuid, p_view int8, p_shards int4[], p_owners uuid[], p_epochs int8[], p_targets uuid[]
) RETURNS TABLE (state int4, version int8) LANGUAGE plpgsql AS $$
DECLARE
    v_version int8;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended('orchestrix.set_targets', 0)) THEN
        RETURN QUERY SELECT 1, p_view;
        RETURN;
    END IF;
    PERFORM 1 FROM orchestrix.shards AS s WHERE s.shard = ANY (p_shards) ORDER BY s.shard FOR NO KEY UPDATE;
    -- Nobody commits a change of the view from here on.
    SELECT v.version INTO v_version FROM orchestrix.cluster_view AS v FOR NO KEY UPDATE;
    IF v_version <> p_view OR NOT EXISTS (
        SELECT 1 FROM orchestrix.nodes AS n
         WHERE n.incarnation = p_planner AND NOT n.deposed AND n.lease_until > clock_timestamp()) THEN
        RETURN QUERY SELECT 2, v_version;
        RETURN;
    END IF;
    UPDATE orchestrix.shards AS s SET target = nullif(w.target, s.incarnation)
      FROM unnest(p_shards, p_owners, p_epochs, p_targets) AS w(shard, owner, epoch, target)
     WHERE s.shard = w.shard AND s.epoch = w.epoch AND s.incarnation IS NOT DISTINCT FROM w.owner
       AND s.target IS DISTINCT FROM nullif(w.target, s.incarnation);
    SET CONSTRAINTS orchestrix.shards_seen IMMEDIATE;
    RETURN QUERY SELECT 0, v.version FROM orchestrix.cluster_view AS v;
END $$;

-- The rights, as those of the other tables and functions.
REVOKE ALL ON FUNCTION orchestrix.change_view, orchestrix.raise_fences_of, orchestrix.raise_fences_of_deleted,
    orchestrix.end_sessions, orchestrix.release_shards, orchestrix.set_targets FROM PUBLIC;

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
    GRANT SELECT ON orchestrix.cluster_view TO orchestrix_migrator, orchestrix_writer, orchestrix_reader,
        orchestrix_projector, orchestrix_archiver;
    GRANT ALL ON orchestrix.cluster_view TO orchestrix_owner, orchestrix_migrator;
    GRANT UPDATE (version, changed_by) ON orchestrix.cluster_view TO orchestrix_writer;
    GRANT EXECUTE ON FUNCTION orchestrix.change_view, orchestrix.raise_fences_of, orchestrix.raise_fences_of_deleted,
        orchestrix.end_sessions, orchestrix.release_shards, orchestrix.set_targets
        TO orchestrix_owner, orchestrix_migrator, orchestrix_writer;
    BEGIN
        ALTER TABLE orchestrix.cluster_view OWNER TO orchestrix_owner;
        FOR v_name IN SELECT p.oid::regprocedure::text FROM pg_proc AS p
             WHERE p.pronamespace = 'orchestrix'::regnamespace AND p.proname IN ('change_view', 'raise_fences_of',
                   'raise_fences_of_deleted', 'end_sessions', 'release_shards', 'set_targets') LOOP
            EXECUTE format('ALTER FUNCTION %s OWNER TO orchestrix_owner', v_name);
        END LOOP;
    EXCEPTION WHEN insufficient_privilege THEN
        RAISE WARNING 'what is new in the schema stays with %, since % may not give it to orchestrix_owner',
            current_user, current_user;
    END;
END $$;
