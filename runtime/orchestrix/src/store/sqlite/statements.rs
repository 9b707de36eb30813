//! The statements that take many rows at once, each in a few sizes, so that they are compiled once and used again.
//!
//! A statement of size 2^n takes up to that many rows: rows that are not bound are NULL and are left out. Rows of one
//! statement are cheap (about a microsecond), statements are not: each is a hand-over to SQLite's thread and back.

use std::sync::OnceLock;

use super::pack::packed_event;

/// The most rows that one statement takes: 12 parameters a row stay under SQLite's bound of 32,766.
pub(super) const ROWS_MAX: usize = 1_024;

/// One size for each power of two up to [`ROWS_MAX`].
const SIZES: usize = ROWS_MAX.ilog2() as usize + 1;

/// The columns of the table of events, in the order in which they are bound and read.
const EVENT_COLUMNS: &str = "pos, stream, version, epoch, event_type, schema_version, codec, command_id, \
                             recorded_at, headers, receipt, payload";
const EVENT_COLUMN_COUNT: usize = 12;
const STREAM_COLUMNS: &str = "stream, aggregate_type, id";
/// How many parameters a stream takes.
pub(super) const STREAM_COLUMN_COUNT: usize = 3;

/// Rounds a number of rows up to the size of a statement.
pub(super) fn size_for(rows: usize) -> usize {
    rows.next_power_of_two().min(ROWS_MAX)
}

/// A statement in all its sizes.
struct Family {
    sizes: [OnceLock<String>; SIZES],
    write: fn(usize) -> String,
}

impl Family {
    const fn new(write: fn(usize) -> String) -> Self {
        Self { sizes: [const { OnceLock::new() }; SIZES], write }
    }

    fn get(&'static self, rows: usize) -> &'static str {
        let size = size_for(rows);
        self.sizes[size.ilog2() as usize].get_or_init(|| (self.write)(size))
    }
}

/// Inserts events, if the generation (bound first) is still the same.
pub(super) fn insert_events(rows: usize) -> &'static str {
    static FAMILY: Family = Family::new(events_text);
    FAMILY.get(rows)
}

/// Inserts streams, if the generation (bound first) is still the same.
pub(super) fn insert_streams(rows: usize) -> &'static str {
    static FAMILY: Family = Family::new(streams_text);
    FAMILY.get(rows)
}

/// Inserts streams and events in one transaction and returns how many events it inserted.
///
/// Bound are the generation, [`size_for`] rows of streams, and the same again for events.
pub(super) fn insert_streams_and_events(rows: usize) -> &'static str {
    static FAMILY: Family = Family::new(|size| {
        let (streams, events) = (streams_text(size), events_text(size));
        format!("BEGIN IMMEDIATE; {streams}; {events}; SELECT changes(); COMMIT")
    });
    FAMILY.get(rows)
}

/// Looks streams up: bound are place, type and id of each; returned are place, number and version of those there are.
pub(super) fn find_heads(rows: usize) -> &'static str {
    static FAMILY: Family = Family::new(|size| {
        format!(
            "SELECT wanted.column1, streams.stream, (SELECT max(version) FROM events WHERE events.stream = \
             streams.stream) FROM (VALUES {}) AS wanted CROSS JOIN streams ON streams.aggregate_type = \
             wanted.column2 AND streams.id = wanted.column3",
            rows_text(STREAM_COLUMN_COUNT, size)
        )
    });
    FAMILY.get(rows)
}

/// Loads streams, a row for each: place, snapshot (version, time, bytes), quarantine (reason, command, time), the
/// stream's version, and its events after the snapshot in one value.
///
/// Bound are the most events, and then place, type and id of each stream. Versions are dense, so that so many events
/// are a range of versions.
pub(super) fn load(rows: usize) -> &'static str {
    static FAMILY: Family = Family::new(|size| {
        format!(
            "WITH most(events) AS (SELECT ?), wanted(place, aggregate_type, id) AS (VALUES {}) \
             SELECT place, n.version, n.taken_at, n.bytes, q.reason, q.command_id, q.since, \
             (SELECT max(version) FROM events WHERE stream = s.stream), \
             (SELECT CAST(group_concat({}, '') AS BLOB) FROM events AS e WHERE e.stream = s.stream \
             AND e.version > coalesce(n.version, 0) \
             AND e.version <= coalesce(n.version, 0) + (SELECT events FROM most)) \
             FROM wanted LEFT JOIN streams AS s USING (aggregate_type, id) \
             LEFT JOIN snapshots AS n USING (aggregate_type, id) \
             LEFT JOIN quarantine AS q USING (aggregate_type, id) WHERE place IS NOT NULL",
            rows_text(STREAM_COLUMN_COUNT, size),
            packed_event!()
        )
    });
    FAMILY.get(rows)
}

fn events_text(size: usize) -> String {
    guarded_insert("events", EVENT_COLUMNS, EVENT_COLUMN_COUNT, size)
}

fn streams_text(size: usize) -> String {
    guarded_insert("streams", STREAM_COLUMNS, STREAM_COLUMN_COUNT, size)
}

/// The guard stands in front, so that it is bound before rows that may be fewer than the statement takes.
fn guarded_insert(table: &str, columns: &str, column_count: usize, size: usize) -> String {
    let selected = (1..=column_count).map(|at| format!("column{at}")).collect::<Vec<_>>().join(", ");
    let rows = rows_text(column_count, size);
    format!(
        "WITH guard(holds) AS (SELECT generation = ? FROM log) INSERT INTO {table} ({columns}) SELECT {selected} \
         FROM (VALUES {rows}) WHERE column1 IS NOT NULL AND (SELECT holds FROM guard)"
    )
}

/// Writes `(?,?),(?,?)` and so on.
fn rows_text(columns: usize, rows: usize) -> String {
    let row = format!("({})", vec!["?"; columns].join(","));
    vec![row.as_str(); rows].join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_two_up_to_the_bound() {
        let sizes: Vec<usize> = [1, 2, 3, 5, 1_000, 1_024, 5_000].into_iter().map(size_for).collect();
        assert_eq!(sizes, [1, 2, 4, 8, 1_024, 1_024, 1_024]);
    }

    #[test]
    fn a_statement_takes_as_many_parameters_as_its_size_says() {
        let parameters = |text: &str| text.matches('?').count();
        assert_eq!(parameters(insert_events(3)), 1 + 4 * EVENT_COLUMN_COUNT);
        assert_eq!(parameters(insert_streams(1)), 1 + STREAM_COLUMN_COUNT);
        assert_eq!(
            parameters(insert_streams_and_events(2)),
            2 + 2 * (STREAM_COLUMN_COUNT + EVENT_COLUMN_COUNT)
        );
        assert!(parameters(insert_events(ROWS_MAX)) < 32_766);
    }
}
