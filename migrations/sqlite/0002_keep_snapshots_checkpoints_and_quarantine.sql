-- What belongs to the log and can be made anew from it, and the list of aggregates that take no commands.

-- The newest snapshot of each stream. Named by type and id, since a snapshot of a stream without events is not
-- forbidden; a table with row ids, since a snapshot may be much longer than a page.
CREATE TABLE snapshots (
    aggregate_type TEXT NOT NULL,
    id             TEXT NOT NULL,
    version        INTEGER NOT NULL,
    taken_at       INTEGER NOT NULL,
    bytes          BLOB NOT NULL,
    PRIMARY KEY (aggregate_type, id)
) STRICT;

-- How far each consumer has come in each shard.
CREATE TABLE checkpoints (
    consumer TEXT NOT NULL,
    shard    INTEGER NOT NULL,
    seq      INTEGER NOT NULL,
    PRIMARY KEY (consumer, shard)
) STRICT, WITHOUT ROWID;

CREATE TABLE quarantine (
    aggregate_type TEXT NOT NULL,
    id             TEXT NOT NULL,
    reason         TEXT NOT NULL,
    command_id     BLOB,
    since          INTEGER NOT NULL,
    PRIMARY KEY (aggregate_type, id)
) STRICT;

-- The longest-standing come first when people look.
CREATE INDEX quarantine_by_age ON quarantine (since, aggregate_type, id);
