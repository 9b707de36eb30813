-- What belongs to the log and can be made anew from it, and the list of aggregates that take no commands.

-- The newest snapshot of each stream, by the stream's key. Rows change in place where they fit.
CREATE TABLE orchestrix.snapshots (
    version        int8        NOT NULL,
    taken_at       timestamptz NOT NULL,
    stream         uuid        PRIMARY KEY,
    aggregate_type text        COLLATE "C" NOT NULL,
    aggregate_id   text        COLLATE "C" NOT NULL,
    bytes          bytea       NOT NULL
) WITH (fillfactor = 80);

ALTER TABLE orchestrix.snapshots ALTER COLUMN bytes SET STORAGE EXTERNAL;

-- How far each consumer has come in each shard.
CREATE TABLE orchestrix.checkpoints (
    consumer text COLLATE "C" NOT NULL,
    shard    int4 NOT NULL,
    seq      int8 NOT NULL,
    PRIMARY KEY (consumer, shard)
) WITH (fillfactor = 40);

CREATE TABLE orchestrix.quarantine (
    aggregate_type text        COLLATE "C" NOT NULL,
    aggregate_id   text        COLLATE "C" NOT NULL,
    reason         text        NOT NULL,
    command_id     uuid,
    since          timestamptz NOT NULL,
    PRIMARY KEY (aggregate_type, aggregate_id)
);

-- The longest-standing come first when people look.
CREATE INDEX quarantine_by_age ON orchestrix.quarantine (since, aggregate_type, aggregate_id);

-- Saves snapshots under the fence of their shards and answers for each, in order: 0 saved, 1 superseded, 2 fenced. Two
-- snapshots of one stream in a call take effect in their order.
CREATE FUNCTION orchestrix.save_snapshots(
    p_owner uuid, p_shard int4[], p_epoch int8[], p_version int8[], p_taken_at timestamptz[], p_stream uuid[],
    p_aggregate_type text[], p_aggregate_id text[], p_bytes bytea[]
) RETURNS int4[] LANGUAGE plpgsql AS $$
DECLARE
    v_held    int4[];
    v_answers int4[] := '{}';
BEGIN
    -- In the order of the shards, so that two calls cannot wait for each other; a claim waits for all of them.
    SELECT coalesce(array_agg(locked.shard), '{}') INTO v_held FROM (
        SELECT s.shard FROM orchestrix.shards AS s
          JOIN (SELECT DISTINCT w.shard, w.epoch FROM unnest(p_shard, p_epoch) AS w(shard, epoch)) AS w
            ON w.shard = s.shard AND w.epoch = s.epoch
         WHERE s.incarnation = p_owner ORDER BY s.shard FOR SHARE OF s) AS locked;
    FOR i IN 1 .. cardinality(p_shard) LOOP
        IF NOT (p_shard[i] = ANY (v_held)) OR NOT EXISTS (
            SELECT 1 FROM orchestrix.shards AS s WHERE s.shard = p_shard[i] AND s.epoch = p_epoch[i]) THEN
            v_answers := v_answers || 2;
            CONTINUE;
        END IF;
        INSERT INTO orchestrix.snapshots AS s (version, taken_at, stream, aggregate_type, aggregate_id, bytes)
        VALUES (p_version[i], p_taken_at[i], p_stream[i], p_aggregate_type[i], p_aggregate_id[i], p_bytes[i])
        ON CONFLICT (stream) DO UPDATE SET version = excluded.version, taken_at = excluded.taken_at,
            bytes = excluded.bytes
        WHERE excluded.version >= s.version
          AND excluded.aggregate_type = s.aggregate_type AND excluded.aggregate_id = s.aggregate_id;
        v_answers := v_answers || CASE WHEN FOUND THEN 0 ELSE 1 END;
    END LOOP;
    RETURN v_answers;
END $$;

-- Moves a checkpoint forward under the fence of its shard; false when fenced. A step back is ignored. It runs with the
-- rights of its owner, since whoever may lock the row of a shard by hand may change it as well.
CREATE FUNCTION orchestrix.save_checkpoint(
    p_consumer text, p_owner uuid, p_shard int4, p_epoch int8, p_seq int8
) RETURNS bool LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM 1 FROM orchestrix.shards AS s
     WHERE s.shard = p_shard AND s.epoch = p_epoch AND s.incarnation = p_owner FOR SHARE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO orchestrix.checkpoints AS c (consumer, shard, seq) VALUES (p_consumer, p_shard, p_seq)
    ON CONFLICT (consumer, shard) DO UPDATE SET seq = excluded.seq WHERE excluded.seq > c.seq;
    RETURN true;
END $$;
