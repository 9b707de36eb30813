//! Where a measurement keeps its events: a store, or a file or a database of its own that goes away with it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use orchestrix::core::EventStore;
use orchestrix::store::{Memory, Postgres, Sqlite};
use orchestrix::{ClusterOptions, Node, Orchestrix, Settings};
use tempfile::TempDir;

use crate::cli::{Common, Place, StoreKind};
use crate::scenario::Counter;
use crate::server::{self, Guest};

/// A database that a measurement works on. A temporary one is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Database {
    home: Home,
    lanes: Option<u8>,
}

#[derive(Debug)]
enum Home {
    Memory,
    File { path: PathBuf, _directory: Option<TempDir> },
    Server(Guest),
}

impl Database {
    /// Makes the place for a database that is used once and removed: beside the one of `--url`, under `./data`, or on a
    /// server of its own.
    ///
    /// # Errors
    /// When the directory cannot be made, or the server cannot be started.
    pub(crate) fn temporary(common: &Common) -> anyhow::Result<Self> {
        let home = match (common.store, &common.url) {
            (StoreKind::Memory, _) => Home::Memory,
            (StoreKind::Sqlite, None) => temporary_file(Path::new("data"))?,
            (StoreKind::Sqlite, Some(Place::File(file))) => {
                let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty());
                temporary_file(parent.unwrap_or(Path::new(".")))?
            }
            (StoreKind::Postgres, None) => Home::Server(server::temporary(None)?),
            (StoreKind::Postgres, Some(Place::Server(url))) => Home::Server(server::temporary(Some(url))?),
            (store, Some(place)) => return mismatch(store, place),
        };
        Ok(Self { home, lanes: common.lanes })
    }

    /// Takes the database of `--url`, which is kept, or makes a temporary one.
    ///
    /// # Errors
    /// As for [`temporary`](Self::temporary).
    pub(crate) fn of_url(common: &Common) -> anyhow::Result<Self> {
        let home = match (common.store, &common.url) {
            (StoreKind::Sqlite, Some(Place::File(file))) => {
                Home::File { path: file.clone(), _directory: None }
            }
            (StoreKind::Postgres, Some(Place::Server(url))) => Home::Server(Guest::of(url)),
            _ => return Self::temporary(common),
        };
        Ok(Self { home, lanes: common.lanes })
    }

    /// Returns the file of an SQLite database.
    ///
    /// # Errors
    /// When it is none.
    pub(crate) fn file(&self) -> anyhow::Result<&Path> {
        match &self.home {
            Home::File { path, .. } => Ok(path),
            _ => bail!("this measurement works on a file: use --store sqlite"),
        }
    }

    /// Returns the URL of a PostgreSQL database.
    ///
    /// # Errors
    /// When it is none.
    pub(crate) fn url(&self) -> anyhow::Result<&str> {
        match &self.home {
            Home::Server(guest) => Ok(guest.url()),
            _ => bail!("this measurement works on a server: use --store postgres"),
        }
    }

    /// Opens the store.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub(crate) async fn open(&self) -> anyhow::Result<Arc<dyn EventStore>> {
        match &self.home {
            Home::Memory => Ok(Arc::new(Memory::new())),
            Home::File { path, .. } => Ok(Arc::new(Sqlite::open(path).connect().await?)),
            Home::Server(guest) => {
                guest.make().await?;
                let options = Postgres::open(guest.url())?;
                let options = match self.lanes {
                    Some(lanes) => options.lanes(usize::from(lanes)),
                    None => options,
                };
                Ok(Arc::new(options.connect().await?))
            }
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

    /// Starts a node on the store that takes part in its cluster, over loopback.
    ///
    /// # Errors
    /// When the store cannot be opened or the node cannot join.
    pub(crate) async fn join(&self, lease: Duration) -> anyhow::Result<Node> {
        let store = self.open().await?;
        let settings = Settings { lease, ..Settings::default() };
        let builder = Orchestrix::builder().store(store).aggregate::<Counter>().settings(settings);
        let cluster = ClusterOptions::new(([127, 0, 0, 1], 0).into());
        builder.cluster(cluster).start().await.context("no node could join")
    }
}

fn temporary_file(parent: &Path) -> anyhow::Result<Home> {
    std::fs::create_dir_all(parent)
        .with_context(|| format!("the directory {} could not be made", parent.display()))?;
    let directory = tempfile::Builder::new().prefix("loadtest-").tempdir_in(parent);
    let directory =
        directory.with_context(|| format!("no directory could be made in {}", parent.display()))?;
    Ok(Home::File { path: directory.path().join("events.db"), _directory: Some(directory) })
}

fn mismatch<T>(store: StoreKind, place: &Place) -> anyhow::Result<T> {
    let given = match place {
        Place::File(_) => "the path of a file",
        Place::Server(_) => "the URL of a PostgreSQL database",
    };
    bail!("--store {} and --url do not go together: --url is {given}", store.name())
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
        let place = database.file().expect("a file").parent().expect("a parent").to_owned();
        assert!(place.starts_with(home.path()) && place.exists());
        drop(database);
        assert!(!place.exists());
    }
}
