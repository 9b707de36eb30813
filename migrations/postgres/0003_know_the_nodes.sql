-- The runs of nodes and their leases, and how a shard changes its owner.

-- A row is a run of a node that has announced itself. `lease_until` is by this server's clock. `deposed` is set when
-- somebody took a shard of a run whose lease had ended: such a run may not renew any more.
CREATE TABLE orchestrix.nodes (
    incarnation         uuid        PRIMARY KEY,
    name                text        NOT NULL,
    host                text        NOT NULL,
    boot_id             text        NOT NULL,
    pid_namespace       text        NOT NULL,
    pid                 int8        NOT NULL,
    pid_started         int8        NOT NULL,
    application_version text        NOT NULL,
    address             text,
    joined_at           timestamptz NOT NULL DEFAULT clock_timestamp(),
    lease_until         timestamptz NOT NULL,
    deposed             bool        NOT NULL DEFAULT false
) WITH (fillfactor = 40);

-- Takes shards over, or tells who holds one of them. Answers a row for each shard that the owner has afterwards, with
-- the head of those asked for; or one row about a holder. `p_dead` are runs whose processes are known to be gone.
CREATE FUNCTION orchestrix.claim(p_owner uuid, p_shards int4[], p_dead uuid[], p_lanes int2)
RETURNS TABLE (shard int4, epoch int8, head int8, generation int8, server timestamptz, holder uuid)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    v_generation int8 := nextval('orchestrix.generations');
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
    UPDATE orchestrix.nodes AS n SET deposed = true
     WHERE n.incarnation IN (SELECT s.incarnation FROM orchestrix.shards AS s WHERE s.shard = ANY (p_shards))
       AND n.incarnation <> p_owner;
    INSERT INTO orchestrix.fences (incarnation, lane, generation)
    SELECT p_owner, lane, v_generation FROM generate_series(0, p_lanes - 1) AS lane ON CONFLICT DO NOTHING;
    -- The trigger raises the fences of the former owners, and by that waits for their appends in flight.
    UPDATE orchestrix.shards AS s SET epoch = s.epoch + 1, incarnation = p_owner WHERE s.shard = ANY (p_shards);
    -- A statement of its own, so that it sees what those appends stored.
    RETURN QUERY
        SELECT s.shard, s.epoch,
               CASE WHEN s.shard = ANY (p_shards) THEN coalesce(
                   (SELECT e.seq FROM orchestrix.events AS e WHERE e.shard = s.shard ORDER BY e.seq DESC LIMIT 1), 0) END,
               f.generation, pg_postmaster_start_time(), NULL::uuid
          FROM orchestrix.fences AS f JOIN orchestrix.shards AS s ON s.incarnation = f.incarnation
         WHERE f.incarnation = p_owner AND f.lane = 0;
    -- Fences of runs that own nothing any more are of no use; one that is in use is left for the next claim.
    DELETE FROM orchestrix.fences AS f USING (
        SELECT o.incarnation, o.lane FROM orchestrix.fences AS o
         WHERE o.incarnation <> p_owner
           AND NOT EXISTS (SELECT 1 FROM orchestrix.shards AS s WHERE s.incarnation = o.incarnation)
         ORDER BY o.incarnation, o.lane FOR UPDATE SKIP LOCKED) AS o
     WHERE f.incarnation = o.incarnation AND f.lane = o.lane;
END $$;
