-- The log of one database: events in the order of their shards, and the streams that they belong to.
--
-- Every table is STRICT, so that a value of the wrong type is refused when it is written and not found when it is read.

-- One row. `generation` grows with every change of ownership (see the triggers below): a writer that knows the
-- generation under which it read the ownership of the shards needs to compare this one number to know that it still
-- holds. `settled` is written to settle what became of a failed commit: whatever was half written before is overwritten.
CREATE TABLE log (
    one         INTEGER PRIMARY KEY CHECK (one = 1),
    shard_count INTEGER NOT NULL CHECK (shard_count BETWEEN 1 AND 4096),
    created_at  INTEGER NOT NULL,
    generation  INTEGER NOT NULL DEFAULT 0,
    settled     INTEGER NOT NULL DEFAULT 0
) STRICT;

-- Who owns which shard, and up to which seq its events are in the index of streams. A shard that was never claimed has
-- epoch 0 and no owner.
CREATE TABLE shards (
    shard       INTEGER PRIMARY KEY,
    epoch       INTEGER NOT NULL DEFAULT 0,
    incarnation BLOB CHECK (length(incarnation) = 16),
    indexed     INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TRIGGER shards_updated AFTER UPDATE OF shard, epoch, incarnation ON shards BEGIN
    UPDATE log SET generation = generation + 1;
END;
CREATE TRIGGER shards_inserted AFTER INSERT ON shards BEGIN
    UPDATE log SET generation = generation + 1;
END;
CREATE TRIGGER shards_deleted AFTER DELETE ON shards BEGIN
    UPDATE log SET generation = generation + 1;
END;

-- A stream gets a small number when its first event is stored. The index of streams then has keys of ten bytes instead
-- of type and id as text.
CREATE TABLE streams (
    stream         INTEGER PRIMARY KEY,
    aggregate_type TEXT NOT NULL,
    id             TEXT NOT NULL
) STRICT;

CREATE UNIQUE INDEX streams_by_id ON streams (aggregate_type, id);

-- `pos` is shard * 2^40 + seq: the rows of a shard lie side by side in the order in which readers want them, and
-- the table needs no second index for that. Times are microseconds since 1970, ids the 16 bytes of a UUID.
CREATE TABLE events (
    pos            INTEGER PRIMARY KEY,
    stream         INTEGER NOT NULL,
    version        INTEGER NOT NULL,
    epoch          INTEGER NOT NULL,
    event_type     TEXT NOT NULL,
    schema_version INTEGER NOT NULL,
    codec          INTEGER NOT NULL,
    command_id     BLOB NOT NULL,
    recorded_at    INTEGER NOT NULL,
    headers        BLOB,
    receipt        BLOB,
    payload        BLOB NOT NULL
) STRICT;

-- Finds the events of a stream. It is filled late, many events at a time in the order of its keys: an entry for each
-- event as it comes would touch a leaf for each, and write 4 KiB to the write-ahead log for it. Events after
-- `shards.indexed` may be missing here; a reader finds them in the memory of the writer, or by reading them. An event that
-- is here lies at the only place of its version: a version that is stored twice is damage, and is told when it is found.
CREATE TABLE stream_index (
    stream  INTEGER NOT NULL,
    version INTEGER NOT NULL,
    pos     INTEGER NOT NULL,
    PRIMARY KEY (stream, version)
) STRICT, WITHOUT ROWID;
