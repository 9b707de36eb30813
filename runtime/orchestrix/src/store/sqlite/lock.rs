//! One process at a time: an advisory lock on a file beside the database.
//!
//! The lock ends with its holder, however that one ends. It gives the second process a clear answer; what keeps a
//! second writer out for certain is the generation checked in each append.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use orchestrix_core::Clock;

use super::error::OpenError;

/// The lock that this process holds; dropping it lets go.
#[derive(Debug)]
pub(super) struct LockFile {
    file: File,
}

impl LockFile {
    /// Takes the lock of a database, or tells who has it.
    pub(super) fn take(database: &Path, clock: &dyn Clock) -> Result<Self, OpenError> {
        let lock = lock_path(database);
        let not_writable = |error: std::io::Error| OpenError::NotWritable {
            path: database.to_owned(),
            reason: format!("{}: {error}", lock.display()),
        };
        let mut options = OpenOptions::new();
        let mut file = options.read(true).write(true).create(true).truncate(false).open(&lock);
        let file = file
            .as_mut()
            .map_err(|error| not_writable(std::io::Error::new(error.kind(), error.to_string())))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = read_holder(file);
                return Err(OpenError::Held { path: database.to_owned(), lock, holder });
            }
            Err(TryLockError::Error(error)) => return Err(not_writable(error)),
        }
        let mut held = Self { file: file.try_clone().map_err(not_writable)? };
        held.introduce(clock).map_err(not_writable)?;
        Ok(held)
    }

    /// Writes who holds the lock, for the process that finds it taken.
    fn introduce(&mut self, clock: &dyn Clock) -> std::io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        write!(self.file, "process {} since {}", std::process::id(), clock.now())?;
        self.file.flush()
    }
}

/// Returns where the lock of a database lies: beside it, with `.lock` added to its name.
fn lock_path(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(".lock");
    PathBuf::from(name)
}

fn read_holder(file: &mut File) -> String {
    let mut holder = String::new();
    match file.take(200).read_to_string(&mut holder) {
        Ok(_) if !holder.trim().is_empty() => holder.trim().to_owned(),
        _ => "another process that is just starting".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use orchestrix_core::SystemClock;

    use super::*;

    #[test]
    fn the_second_taker_learns_who_holds_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let database = directory.path().join("bank.db");
        let first = LockFile::take(&database, &SystemClock).expect("free");
        let error = LockFile::take(&database, &SystemClock).expect_err("held");
        let text = error.to_string();
        assert!(text.contains(&format!("process {} since 20", std::process::id())), "{text}");
        assert!(text.contains("bank.db.lock"), "{text}");
        drop(first);
        LockFile::take(&database, &SystemClock).expect("free again");
    }
}
