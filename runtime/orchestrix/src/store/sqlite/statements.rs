//! The statements that take many rows at once, each in a few sizes, so that they are compiled once and used again.
//!
//! A statement of size 2^n takes up to that many rows: rows that are not bound are NULL and are left out. Rows of one
//! statement are cheap (about a microsecond), statements are not: each is a hand-over to SQLite's thread and back.

use std::sync::OnceLock;

use super::pack::{indexed_event, packed_event};

/// The most rows that one statement takes: 12 parameters a row stay under SQLite's bound of 32,766.
pub(super) const ROWS_MAX: usize = 1_024;

/// One size for each power of two up to [`ROWS_MAX`].
const SIZES: usize = ROWS_MAX.ilog2() as usize + 1;

/// The columns of the table of events, in the order in which they are bound and read.
const EVENT_COLUMNS: &str = "pos, stream, version, epoch, event_type, schema_version, codec, command_id, \
                             recorded_at, headers, receipt, payload";
const EVENT_COLUMN_COUNT: usize = 12;
const ENTRY_COLUMNS: &str = "stream, version, pos";
/// How many parameters an entry of the index takes.
pub(super) const ENTRY_COLUMN_COUNT: usize = 3;
const STREAM_COLUMNS: &str = "stream, aggregate_type, id";
/// How many parameters a stream takes.
pub(super) const STREAM_COLUMN_COUNT: usize = 3;

/// Rounds a number of rows up to the size of a statement.
pub(super) fn size_for(rows: usize) -> usize {
    rows.next_power_of_two().min(ROWS_MAX)
}

/// Returns how many entries of the index go along with a statement of this size: a quarter more than events, so that a
/// generation is through before the next one is full.
pub(super) const fn entries_for(size: usize) -> usize {
    size + size.div_ceil(4)
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

/// Writes entries of the index, if the generation (bound first) is still the same; those that are there stay.
pub(super) fn insert_entries(rows: usize) -> &'static str {
    static FAMILY: Family = Family::new(entries_text);
    FAMILY.get(rows)
}

/// What is stored in one transaction with up to so many events, in one hand-over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Along {
    /// New streams.
    Streams,
    /// Entries of the index.
    Entries,
    /// Both.
    StreamsAndEntries,
}

/// Inserts events and what goes along with them in one transaction; returns the number of inserted entries, if any go
/// along, and the number of inserted events.
///
/// Bound are, each after the generation: [`size_for`] rows of streams, [`entries_for`] rows of entries, and the events.
pub(super) fn insert_together(along: Along, rows: usize) -> &'static str {
    static WITH_STREAMS: Family = Family::new(|size| together(&[&streams_text(size), &events_text(size)]));
    static WITH_ENTRIES: Family =
        Family::new(|size| together(&[&entries_text(entries_for(size)), COUNT, &events_text(size)]));
    static WITH_BOTH: Family = Family::new(|size| {
        together(&[&streams_text(size), &entries_text(entries_for(size)), COUNT, &events_text(size)])
    });
    match along {
        Along::Streams => WITH_STREAMS.get(rows),
        Along::Entries => WITH_ENTRIES.get(rows),
        Along::StreamsAndEntries => WITH_BOTH.get(rows),
    }
}

const COUNT: &str = "SELECT changes()";

fn together(parts: &[&str]) -> String {
    format!("BEGIN IMMEDIATE; {}; {COUNT}; COMMIT", parts.join("; "))
}

/// Looks streams up: bound are place, type and id of each; returned are place, number and version of those there are.
/// The version is the one in the index.
pub(super) fn find_heads(rows: usize) -> &'static str {
    static FAMILY: Family = Family::new(|size| {
        format!(
            "SELECT wanted.column1, streams.stream, (SELECT max(version) FROM stream_index AS i WHERE i.stream = \
             streams.stream) FROM (VALUES {}) AS wanted CROSS JOIN streams ON streams.aggregate_type = \
             wanted.column2 AND streams.id = wanted.column3",
            rows_text(STREAM_COLUMN_COUNT, size)
        )
    });
    FAMILY.get(rows)
}

/// Loads streams, a row for each: place, snapshot (version, time, bytes), quarantine (reason, command, time), the
/// stream's number, and, as far as the index knows, its version and its events after the snapshot in one value.
///
/// Bound are the most events, and then place, type and id of each stream. Versions are dense, so that so many events
/// are a range of versions.
pub(super) fn load(rows: usize) -> &'static str {
    static FAMILY: Family = Family::new(|size| {
        format!(
            "WITH most(events) AS (SELECT ?), wanted(place, aggregate_type, id) AS (VALUES {}) \
             SELECT place, n.version, n.taken_at, n.bytes, q.reason, q.command_id, q.since, \
             s.stream, (SELECT max(version) FROM stream_index WHERE stream = s.stream), \
             (SELECT CAST(group_concat({}, '') AS BLOB) FROM {} WHERE i.stream = s.stream \
             AND i.version > coalesce(n.version, 0) \
             AND i.version <= coalesce(n.version, 0) + (SELECT events FROM most)) \
             FROM wanted LEFT JOIN streams AS s USING (aggregate_type, id) \
             LEFT JOIN snapshots AS n USING (aggregate_type, id) \
             LEFT JOIN quarantine AS q USING (aggregate_type, id) WHERE place IS NOT NULL",
            rows_text(STREAM_COLUMN_COUNT, size),
            packed_event!(),
            indexed_event!()
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

fn entries_text(size: usize) -> String {
    guarded_insert("stream_index", ENTRY_COLUMNS, ENTRY_COLUMN_COUNT, size) + " ON CONFLICT DO NOTHING"
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
        assert_eq!(parameters(insert_entries(5)), 1 + 8 * ENTRY_COLUMN_COUNT);
        let (streams, entries, events) = (STREAM_COLUMN_COUNT, ENTRY_COLUMN_COUNT, EVENT_COLUMN_COUNT);
        assert_eq!(parameters(insert_together(Along::Streams, 2)), 2 + 2 * (streams + events));
        assert_eq!(parameters(insert_together(Along::Entries, 4)), 2 + 5 * entries + 4 * events);
        assert_eq!(
            parameters(insert_together(Along::StreamsAndEntries, 1)),
            3 + streams + 2 * entries + events
        );
        assert!(parameters(insert_events(ROWS_MAX)) < 32_766);
    }
}
