//! Where a measurement keeps its events: a store, or a file of its own that goes away with it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use orchestrix::core::EventStore;
use orchestrix::store::{Memory, Sqlite};
use orchestrix::{Node, Orchestrix, Settings};
use tempfile::TempDir;

use crate::cli::{Common, StoreKind};
use crate::scenario::Counter;

/// A database that a measurement works on. A temporary one is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Database {
    kind: StoreKind,
    file: PathBuf,
    _home: Option<TempDir>,
}

impl Database {
    /// Makes the place for a database that is used once and removed: beside the file of `--url`, or under `./data`.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub(crate) fn temporary(common: &Common) -> anyhow::Result<Self> {
        let parent = match &common.url {
            Some(file) => {
                file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
            }
            None => Path::new("data"),
        };
        std::fs::create_dir_all(parent)
            .with_context(|| format!("the directory {} could not be made", parent.display()))?;
        let home = tempfile::Builder::new().prefix("loadtest-").tempdir_in(parent);
        let home = home.with_context(|| format!("no directory could be made in {}", parent.display()))?;
        let file = home.path().join("events.db");
        Ok(Self { kind: common.store, file, _home: Some(home) })
    }

    /// Takes the file of `--url`, which is kept, or makes a temporary place.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub(crate) fn of_url(common: &Common) -> anyhow::Result<Self> {
        match &common.url {
            Some(file) => Ok(Self { kind: common.store, file: file.clone(), _home: None }),
            None => Self::temporary(common),
        }
    }

    /// Returns the file; a store in memory does not use it.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// Opens the store.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub(crate) async fn open(&self) -> anyhow::Result<Arc<dyn EventStore>> {
        match self.kind {
            StoreKind::Memory => Ok(Arc::new(Memory::new())),
            StoreKind::Sqlite => Ok(Arc::new(Sqlite::open(&self.file).connect().await?)),
        }
    }

    /// Starts a node on the store.
    ///
    /// # Errors
    /// When the store cannot be opened or the node does not start.
    pub(crate) async fn start_node(&self, settings: Settings) -> anyhow::Result<Node> {
        let store = self.open().await?;
        let builder = Orchestrix::builder().store(store).aggregate::<Counter>().settings(settings);
        builder.start().await.context("no node could be started")
    }
}

/// Returns a warning when a path lies on a file system that lives in memory: its figures say nothing about a disk.
pub(crate) fn warning_about(path: &Path) -> Option<String> {
    let path = path.ancestors().find_map(|part| part.canonicalize().ok())?;
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    let kind = file_system_of(&path, &mounts)?;
    ["tmpfs", "ramfs"].contains(&kind).then(|| {
        format!(
            "{} lies on {kind}, which is memory: durable commits cost nothing there; give --url on a disk",
            path.display()
        )
    })
}

fn file_system_of<'a>(path: &Path, mounts: &'a str) -> Option<&'a str> {
    let mounts = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((fields.next()?, fields.next()?))
    });
    let holding = mounts.filter(|(point, _)| path.starts_with(point));
    holding.max_by_key(|(point, _)| point.len()).map(|(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_mount_decides() {
        let mounts = "/dev/a / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/b /tmp/disk xfs rw 0 0\n";
        let kind = |path: &str| file_system_of(Path::new(path), mounts);
        assert_eq!(kind("/home/x"), Some("ext4"));
        assert_eq!(kind("/tmp/x"), Some("tmpfs"));
        assert_eq!(kind("/tmp/disk/x"), Some("xfs"));
        assert_eq!(kind("/tmpx"), Some("ext4"));
    }

    #[test]
    fn a_temporary_database_goes_away() {
        let home = tempfile::tempdir().expect("a directory");
        let common = crate::tests::common(&home.path().join("mine.db"));
        let database = Database::temporary(&common).expect("a place");
        let place = database.file().parent().expect("a parent").to_owned();
        assert!(place.starts_with(home.path()) && place.exists());
        drop(database);
        assert!(!place.exists());
    }
}
