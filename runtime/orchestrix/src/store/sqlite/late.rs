//! Reads what the index of streams does not have yet: the events behind each shard's `indexed`.
//!
//! The writer does so when it starts, and a store that only reads beside another process before it looks at the index.
//! All of it is one statement, and so one moment of the log.

use orchestrix_core::Seq;
use sqlx::sqlite::{SqliteArguments, SqliteConnection, SqliteRow};

use super::rows::{Malformed, bind, get};
use super::tail::Late;

/// For each shard up to where it is indexed, and place, stream and version of each event that is not, but for those up
/// to a known seq. The known seqs are bound as a JSON array. 2^40 is the distance between two shards.
pub(super) const LATE: &str = "\
    SELECT indexed, (SELECT group_concat(pos || ' ' || stream || ' ' || version, ' ') FROM events \
                     WHERE pos > shards.shard * 1099511627776 + max(shards.indexed, known.value) \
                     AND pos < (shards.shard + 1) * 1099511627776) \
    FROM shards JOIN json_each(?) AS known ON known.key = shards.shard ORDER BY shards.shard";

/// Binds a seq for each shard, as [`LATE`] takes it.
pub(super) fn known(known: &[Seq]) -> SqliteArguments {
    let seqs: Vec<u64> = known.iter().map(|seq| seq.get()).collect();
    let mut arguments = SqliteArguments::default();
    bind(&mut arguments, serde_json::json!(seqs).to_string());
    arguments
}

/// Takes the answer to [`LATE`] apart: the events, in no order, and up to where each shard is indexed.
pub(super) fn unpack(rows: &[SqliteRow]) -> Result<(Vec<Late>, Vec<Seq>), Malformed> {
    let mut found = Vec::new();
    let mut indexed = Vec::with_capacity(rows.len());
    for row in rows {
        indexed.push(Seq::new(get::<i64>(row, 0)?.max(0) as u64));
        if let Some(packed) = get::<Option<&str>>(row, 1)? {
            unpack_shard(packed, &mut found)?;
        }
    }
    Ok((found, indexed))
}

fn unpack_shard(packed: &str, found: &mut Vec<Late>) -> Result<(), Malformed> {
    let mut numbers = packed.split(' ').map(str::parse);
    let malformed = || Malformed("an answer of SQLite does not come apart: a number is missing".to_owned());
    let mut next = || numbers.next().map(|number| number.map_err(|_| malformed()));
    while let Some(position) = next() {
        let position = position?;
        let stream = next().ok_or_else(malformed)??;
        let version = next().ok_or_else(malformed)??;
        found.push(Late { stream, version, position });
    }
    Ok(())
}

/// Reads all that is not indexed.
pub(super) async fn read(
    connection: &mut SqliteConnection,
    shards: usize,
) -> Result<(Vec<Late>, Vec<Seq>), sqlx::Error> {
    let rows = sqlx::query_with(LATE, known(&vec![Seq::ZERO; shards])).fetch_all(connection).await?;
    unpack(&rows).map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_comes_apart() {
        let mut found = Vec::new();
        unpack_shard("5 2 1 6 3 9", &mut found).expect("as SQLite packs it");
        let late = |position, stream, version| Late { stream, version, position };
        assert_eq!(found, [late(5, 2, 1), late(6, 3, 9)]);
    }

    #[test]
    fn a_cut_is_noticed() {
        for cut in ["5", "5 2", "5 2 1 6", "5 2 x"] {
            assert!(unpack_shard(cut, &mut Vec::new()).is_err(), "{cut}");
        }
    }
}
