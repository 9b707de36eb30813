-- The log of one database: events in the order of their shards, who owns which shard, and the fence between owners.
--
-- Every name is written with its schema, so that no setting of a session can lead a statement to another table.

CREATE SCHEMA IF NOT EXISTS orchestrix;

-- One row. `cluster` names this life of the database: a restore gives it another one, so that nodes of the old life are
-- told apart. `stream_seed` goes into the key of each stream, so that nobody can choose ids whose keys collide.
-- `pinged_at` is written to find out whether a durable write goes through.
CREATE TABLE orchestrix.meta (
    one         boolean     PRIMARY KEY DEFAULT true CHECK (one),
    shard_count int4        NOT NULL CHECK (shard_count BETWEEN 1 AND 4096),
    cluster     uuid        NOT NULL DEFAULT gen_random_uuid(),
    stream_seed int8        NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    pinged_at   timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 20);

-- Who owns which shard. A shard that was never claimed has epoch 0 and no owner. Rows change in place.
CREATE TABLE orchestrix.shards (
    shard       int4 PRIMARY KEY,
    epoch       int8 NOT NULL DEFAULT 0,
    incarnation uuid
) WITH (fillfactor = 40);

-- The fence. Each run of a node has a row for each of its writer lanes, and an append holds the row of its lane FOR SHARE
-- while it compares the generation with the one under which the node last read what it owns. Whatever changes the
-- ownership of a shard changes the generation of the run that owned it, and so waits for its appends in flight and ends
-- those that come later. One row a batch is locked, where locking the row of each shard cost a tenth of the append.
-- No generation is ever used twice, also not by a row that was deleted and made anew.
CREATE SEQUENCE orchestrix.generations;
CREATE TABLE orchestrix.fences (
    incarnation uuid NOT NULL,
    lane        int2 NOT NULL,
    generation  int8 NOT NULL,
    PRIMARY KEY (incarnation, lane)
) WITH (fillfactor = 40);

-- Rows are locked in the order of their key before they change, so that two changes of ownership cannot wait for each other.
-- The new generation is drawn when they are locked, so that it is above every one that was there before.
CREATE FUNCTION orchestrix.raise_fences() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    v_generation int8;
BEGIN
    PERFORM 1 FROM orchestrix.fences AS f
     WHERE f.incarnation IN (SELECT b.incarnation FROM before AS b)
     ORDER BY f.incarnation, f.lane FOR NO KEY UPDATE;
    v_generation := nextval('orchestrix.generations');
    UPDATE orchestrix.fences AS f SET generation = v_generation
     WHERE f.incarnation IN (SELECT b.incarnation FROM before AS b);
    RETURN NULL;
END $$;

CREATE TRIGGER shards_updated AFTER UPDATE ON orchestrix.shards
    REFERENCING OLD TABLE AS before FOR EACH STATEMENT EXECUTE FUNCTION orchestrix.raise_fences();
CREATE TRIGGER shards_deleted AFTER DELETE ON orchestrix.shards
    REFERENCING OLD TABLE AS before FOR EACH STATEMENT EXECUTE FUNCTION orchestrix.raise_fences();

-- `stream` is a key of 128 bits over type and id: the index that an append spends most of its time on has keys of half
-- the size. Wide columns come first, so that no space is lost to alignment. A `receipt` stands with a command's last event.
CREATE TABLE orchestrix.events (
    seq            int8        NOT NULL,
    version        int8        NOT NULL,
    epoch          int8        NOT NULL,
    recorded_at    timestamptz NOT NULL,
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
    payload        bytea       NOT NULL
) PARTITION BY HASH (shard);

-- Payloads are not compressed by the server: those of usual size would not shrink, and trying costs more than writing.
ALTER TABLE orchestrix.events ALTER COLUMN headers SET STORAGE EXTERNAL;
ALTER TABLE orchestrix.events ALTER COLUMN receipt SET STORAGE EXTERNAL;
ALTER TABLE orchestrix.events ALTER COLUMN payload SET STORAGE EXTERNAL;

CREATE TABLE orchestrix.events_0 PARTITION OF orchestrix.events FOR VALUES WITH (MODULUS 8, REMAINDER 0);
CREATE TABLE orchestrix.events_1 PARTITION OF orchestrix.events FOR VALUES WITH (MODULUS 8, REMAINDER 1);
CREATE TABLE orchestrix.events_2 PARTITION OF orchestrix.events FOR VALUES WITH (MODULUS 8, REMAINDER 2);
CREATE TABLE orchestrix.events_3 PARTITION OF orchestrix.events FOR VALUES WITH (MODULUS 8, REMAINDER 3);
CREATE TABLE orchestrix.events_4 PARTITION OF orchestrix.events FOR VALUES WITH (MODULUS 8, REMAINDER 4);
CREATE TABLE orchestrix.events_5 PARTITION OF orchestrix.events FOR VALUES WITH (MODULUS 8, REMAINDER 5);
CREATE TABLE orchestrix.events_6 PARTITION OF orchestrix.events FOR VALUES WITH (MODULUS 8, REMAINDER 6);
CREATE TABLE orchestrix.events_7 PARTITION OF orchestrix.events FOR VALUES WITH (MODULUS 8, REMAINDER 7);

-- Statements of the store search in an index whatever statistics say, so little of them is kept: sampling every column of
-- a table that grows by a tenth again and again took a quarter of the server's time. People's own queries get by with
-- samples of the columns that they group by.
DO $$
DECLARE
    v_column text;
BEGIN
    FOR i IN 0 .. 7 LOOP
        FOR v_column IN SELECT a.attname FROM pg_attribute AS a
             WHERE a.attrelid = 'orchestrix.events'::regclass AND a.attnum > 0 LOOP
            EXECUTE format('ALTER TABLE orchestrix.events_%s ALTER COLUMN %I SET STATISTICS %s', i, v_column,
                CASE WHEN v_column IN ('shard', 'recorded_at', 'aggregate_type', 'event_type') THEN 10 ELSE 0 END);
        END LOOP;
        EXECUTE format('ALTER TABLE orchestrix.events_%s SET (autovacuum_analyze_scale_factor = 0.5)', i);
    END LOOP;
END $$;

-- Finds the events of a shard in their order, and lets no seq exist twice.
ALTER TABLE orchestrix.events ADD CONSTRAINT events_by_shard PRIMARY KEY (shard, seq);

-- Finds the events of a stream, and lets no version exist twice.
CREATE UNIQUE INDEX events_by_stream ON orchestrix.events (stream, version, shard);

-- Lists the streams of a type by id. Only the first event of a stream pays for it.
CREATE UNIQUE INDEX events_by_name ON orchestrix.events (aggregate_type, aggregate_id, shard) WHERE version = 1;

-- Stores a batch, or nothing of it. Answers 0 stored, 1 the ownership has changed, 2 the server is not the one that the
-- heads were read from, 3 a version is missing before one of the commits. A version or a seq that exists already is a
-- unique violation. The predecessors to look for are given by the caller, which knows most of them.
CREATE FUNCTION orchestrix.append(
    p_owner uuid, p_lane int2, p_generation int8, p_server timestamptz, p_durable bool,
    p_before_stream uuid[], p_before_version int8[], p_before_shard int4[],
    p_seq int8[], p_version int8[], p_epoch int8[], p_recorded_at timestamptz[], p_shard int4[],
    p_schema_version int4[], p_codec int2[], p_stream uuid[], p_command_id uuid[], p_aggregate_type text[],
    p_aggregate_id text[], p_event_type text[], p_headers bytea[], p_receipt bytea[], p_payload bytea[]
) RETURNS int4 LANGUAGE plpgsql AS $$
BEGIN
    IF pg_postmaster_start_time() <> p_server THEN
        RETURN 2;
    END IF;
    -- A pooler between node and server may hand over a session without the settings of the node.
    IF p_durable AND current_setting('synchronous_commit') = 'off' THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
    PERFORM 1 FROM orchestrix.fences AS f
     WHERE f.incarnation = p_owner AND f.lane = p_lane AND f.generation = p_generation FOR SHARE;
    IF NOT FOUND THEN
        RETURN 1;
    END IF;
    IF cardinality(p_before_stream) > 0 THEN
        PERFORM 1 FROM unnest(p_before_stream, p_before_version, p_before_shard) AS b(stream, version, shard)
         WHERE NOT EXISTS (SELECT 1 FROM orchestrix.events AS e
                            WHERE e.shard = b.shard AND e.stream = b.stream AND e.version = b.version);
        IF FOUND THEN
            RETURN 3;
        END IF;
    END IF;
    -- Side by side in the list of columns, the arrays are walked in step, without a copy of each on the way.
    INSERT INTO orchestrix.events (seq, version, epoch, recorded_at, shard, schema_version, codec, stream, command_id,
                                   aggregate_type, aggregate_id, event_type, headers, receipt, payload)
    SELECT unnest(p_seq), unnest(p_version), unnest(p_epoch), unnest(p_recorded_at), unnest(p_shard),
           unnest(p_schema_version), unnest(p_codec), unnest(p_stream), unnest(p_command_id), unnest(p_aggregate_type),
           unnest(p_aggregate_id), unnest(p_event_type), unnest(p_headers), unnest(p_receipt), unnest(p_payload);
    RETURN 0;
END $$;
