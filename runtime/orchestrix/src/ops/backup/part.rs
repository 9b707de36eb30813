//! A file with events of one shard: how it is written and read.

use std::fmt;
use std::fs::File;
use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use orchestrix_core::store::RecordedEvent;
use orchestrix_core::{Seq, ShardId};
use xxhash_rust::xxh3::Xxh3;

use super::error::BackupError;
use super::files::Unfinished;
use super::line;
use super::manifest::Part;

/// The most events of a part, unless told otherwise: what an interruption loses at most, for each shard under way.
pub(super) const PART_EVENTS: u64 = 50_000;

/// The most bytes of a part, one event more or less.
const PART_BYTES: u64 = 256 << 20;

/// The longest line that is read: no event is nearly as long, and what is damaged may have no end.
const LINE_BYTES_MAX: u64 = 2 << 30;

/// What the name of a part tells.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PartName {
    pub(super) shard: ShardId,
    pub(super) first_seq: Seq,
    /// Its checksum stands in its name, so that nothing else has to be written for a part that is complete.
    pub(super) xxh3: String,
}

impl PartName {
    pub(super) fn parse(name: &str) -> Option<Self> {
        let mut words = name.strip_prefix("shard-")?.strip_suffix(".ndjson")?.split('-');
        let (shard, first_seq, xxh3) =
            (words.next()?.parse().ok()?, words.next()?.parse().ok()?, words.next()?);
        let own = Self { shard: ShardId::new(shard), first_seq: Seq::new(first_seq), xxh3: xxh3.to_owned() };
        (own.to_string() == name).then_some(own)
    }
}

impl fmt::Display for PartName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shard-{:04}-{:013}-{}.ndjson", self.shard.get(), self.first_seq.get(), self.xxh3)
    }
}

/// A part on its way to the disk.
pub(super) struct PartWriter {
    file: BufWriter<Unfinished>,
    path: PathBuf,
    part: Part,
    hash: Xxh3,
    text: Vec<u8>,
}

impl PartWriter {
    pub(super) fn create(directory: &Path, shard: ShardId, first_seq: Seq) -> Result<Self, BackupError> {
        let last_seq = Seq::new(first_seq.get() - 1);
        let part = Part { file: String::new(), shard, first_seq, last_seq, bytes: 0, xxh3: String::new() };
        let file = Unfinished::create(directory, &format!("shard-{:04}", shard.get()))?;
        let (path, file) = (file.name.clone(), BufWriter::with_capacity(1 << 20, file));
        Ok(Self { file, path, part, hash: Xxh3::new(), text: Vec::new() })
    }

    /// Adds the next event.
    pub(super) fn add(&mut self, event: &RecordedEvent) -> Result<(), BackupError> {
        self.text.clear();
        line::write(&mut self.text, event);
        self.hash.update(&self.text);
        self.part.bytes += self.text.len() as u64;
        self.part.last_seq = event.seq;
        self.file.write_all(&self.text).map_err(|error| BackupError::file(&self.path, error))
    }

    /// Tells whether it has as much as a part may have.
    pub(super) fn is_full(&self, events_max: u64) -> bool {
        let events = self.part.last_seq.get() + 1 - self.part.first_seq.get();
        events >= events_max || self.part.bytes >= PART_BYTES
    }

    /// Makes it last.
    pub(super) fn complete(self) -> Result<Part, BackupError> {
        let Self { file, path, mut part, hash, .. } = self;
        let file = file.into_inner().map_err(|error| BackupError::file(&path, error.into_error()))?;
        let Part { shard, first_seq, .. } = part;
        part.xxh3 = format!("{:032x}", hash.digest128());
        part.file = PartName { shard, first_seq, xxh3: part.xxh3.clone() }.to_string();
        file.complete(&part.file)?;
        Ok(part)
    }
}

/// Reads the events of a part in their order.
pub(super) struct PartReader {
    file: BufReader<File>,
    path: PathBuf,
    hash: Xxh3,
    bytes: u64,
    lines: u64,
    text: Vec<u8>,
}

impl PartReader {
    pub(super) fn open(path: &Path) -> Result<Self, BackupError> {
        let file = match File::open(path) {
            Ok(file) => BufReader::with_capacity(1 << 20, file),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(BackupError::damaged(path, "it is missing"));
            }
            Err(error) => return Err(BackupError::file(path, error)),
        };
        Ok(Self { file, path: path.to_owned(), hash: Xxh3::new(), bytes: 0, lines: 0, text: Vec::new() })
    }

    /// Returns the next event; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<RecordedEvent>, BackupError> {
        use std::io::Read as _;
        self.text.clear();
        let read = self.file.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut self.text);
        if read.map_err(|error| BackupError::file(&self.path, error))? == 0 {
            return Ok(None);
        }
        self.hash.update(&self.text);
        self.bytes += self.text.len() as u64;
        self.lines += 1;
        let text = self.text.strip_suffix(b"\n").ok_or_else(|| self.damaged("it has no end".to_owned()))?;
        line::read(text).map(Some).map_err(|reason| self.damaged(reason))
    }

    /// Says what is wrong with the line that was read last.
    fn damaged(&self, reason: String) -> BackupError {
        BackupError::damaged(&self.path, format!("line {}: {reason}", self.lines))
    }

    /// Returns size and checksum of what was read.
    pub(super) fn sum(&self) -> (u64, String) {
        (self.bytes, format!("{:032x}", self.hash.digest128()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_what_they_hold_and_sort_in_their_order() {
        let name = |first_seq| PartName {
            shard: ShardId::new(7),
            first_seq: Seq::new(first_seq),
            xxh3: "0f".into(),
        };
        let text = name(50_001).to_string();
        assert_eq!(text, "shard-0007-0000000050001-0f.ndjson");
        assert_eq!(PartName::parse(&text), Some(name(50_001)));
        assert!(name(9).to_string() < text && name(9) < name(50_001));
        for other in ["shard-7-1-0f.ndjson", "manifest.json", "shard-0007-0000000050001-0f.ndjson.unfinished"]
        {
            assert_eq!(PartName::parse(other), None, "{other}");
        }
    }
}
