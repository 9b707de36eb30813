//! Files that are there as a whole or not at all, also after a power cut.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_128;

use super::error::BackupError;

/// What is being written ends with this until it is complete.
const UNFINISHED: &str = ".unfinished";

/// Tells whether a file was not completed.
pub(super) fn is_unfinished(name: &str) -> bool {
    name.ends_with(UNFINISHED)
}

/// A file under a name that nobody else uses, until it is complete.
pub(super) struct Unfinished {
    file: File,
    pub(super) name: PathBuf,
}

impl Unfinished {
    /// Opens a file in a directory; the word tells people what it will be.
    pub(super) fn create(directory: &Path, word: &str) -> Result<Self, BackupError> {
        let name = directory.join(format!("{word}.{}{UNFINISHED}", Uuid::new_v4().simple()));
        let opened = OpenOptions::new().write(true).create_new(true).open(&name);
        let file = opened.map_err(|error| BackupError::file(&name, error))?;
        Ok(Self { file, name })
    }

    /// Gives it its name, so that neither its bytes nor its name can be lost any more.
    pub(super) fn complete(self, file_name: &str) -> Result<(), BackupError> {
        let Self { file, name } = self;
        let path = name.with_file_name(file_name);
        let failed = |error| BackupError::file(&path, error);
        file.sync_all().map_err(failed)?;
        std::fs::rename(&name, &path).map_err(failed)?;
        sync_directory(path.parent().unwrap_or(Path::new(".")))
    }
}

impl Write for Unfinished {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

/// Makes the names in a directory last.
pub(super) fn sync_directory(directory: &Path) -> Result<(), BackupError> {
    let synced = File::open(directory).and_then(|opened| opened.sync_all());
    synced.map_err(|error| BackupError::file(directory, error))
}

/// Keeps other backups out of a directory for as long as the answer lives.
pub(super) fn lock(directory: &Path) -> Result<File, BackupError> {
    let failed = |error| BackupError::file(directory, error);
    let opened = File::open(directory).map_err(failed)?;
    match opened.try_lock() {
        Ok(()) => Ok(opened),
        Err(TryLockError::WouldBlock) => {
            let what = "is being written by another backup".to_owned();
            Err(BackupError::Occupied { path: directory.to_owned(), what })
        }
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// A document and the checksum of its text.
#[derive(serde::Serialize, serde::Deserialize)]
struct Sealed<T> {
    #[serde(flatten)]
    document: T,
    xxh3: String,
}

fn text_of(document: &impl Serialize) -> String {
    serde_json::to_string_pretty(document).expect("texts, numbers and lists have a JSON form")
}

fn sealed_text<T: Serialize>(document: T) -> String {
    let xxh3 = checksum(text_of(&document).as_bytes());
    text_of(&Sealed { document, xxh3 }) + "\n"
}

/// Returns a checksum in the form in which it is written.
pub(super) fn checksum(bytes: &[u8]) -> String {
    format!("{:032x}", xxh3_128(bytes))
}

/// Writes a document with its checksum.
pub(super) fn write_sealed(
    directory: &Path,
    file_name: &str,
    document: impl Serialize,
) -> Result<(), BackupError> {
    let mut file = Unfinished::create(directory, file_name)?;
    let written = file.write_all(sealed_text(document).as_bytes());
    written.map_err(|error| BackupError::file(&file.name, error))?;
    file.complete(file_name)
}

/// Reads a document; every byte of it must be as it was written. `None` when there is no such file.
pub(super) fn read_sealed<T: Serialize + DeserializeOwned>(path: &Path) -> Result<Option<T>, BackupError> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(BackupError::file(path, error)),
    };
    let sealed: Sealed<T> =
        serde_json::from_slice(&text).map_err(|error| BackupError::damaged(path, error.to_string()))?;
    // Written again it is the same text, or some byte is not what it was.
    if sealed_text(&sealed.document).as_bytes() != text {
        return Err(BackupError::damaged(path, "its checksum does not match"));
    }
    Ok(Some(sealed.document))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_changed_byte_of_a_document_is_noticed() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("document.json");
        let document = std::collections::BTreeMap::from([("one".to_owned(), 1_u32), ("two".to_owned(), 2)]);
        write_sealed(folder.path(), "document.json", &document).expect("writes");
        let read = || read_sealed::<std::collections::BTreeMap<String, u32>>(&path);
        assert_eq!(read().expect("reads"), Some(document));
        let good = std::fs::read(&path).expect("reads");
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            std::fs::write(&path, &bad).expect("writes");
            let error = read().expect_err("a byte was changed");
            assert!(error.to_string().contains("document.json is damaged"), "byte {at}: {error}");
        }
    }
}
