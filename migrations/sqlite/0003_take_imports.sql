-- A log from another store may come into an empty database: that is how a backup is restored.

-- The name of the import under way. While there is one, nobody can take a shard, so nothing else is stored and nobody
-- serves a part of a log.
ALTER TABLE log ADD COLUMN importing TEXT;

CREATE TRIGGER shards_taken_during_import BEFORE UPDATE OF incarnation ON shards
WHEN NEW.incarnation IS NOT NULL AND (SELECT importing FROM log) IS NOT NULL BEGIN
    SELECT RAISE(ABORT, 'the database is being restored; it can be used when that is finished');
END;
