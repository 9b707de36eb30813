//! Where the binaries of PostgreSQL are.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{ServerError, is_program};

/// The programs that a server needs.
const NEEDED: [&str; 3] = ["postgres", "initdb", "pg_ctl"];

/// Where packages of several releases put their binaries, the newest release last in the order of their names.
const HOMES: [&str; 4] = ["/usr/lib/postgresql", "/opt/homebrew/opt", "/usr/local/opt", "/usr/pgsql"];

/// Finds the directory with the binaries of a server: that of `pg_config`, those on `PATH`, and where packages put them.
///
/// # Errors
/// [`ServerError`] that says where was looked and how to install them.
pub fn find_binaries() -> Result<PathBuf, ServerError> {
    let candidates = said_by_config().into_iter().chain(on_path()).chain(of_packages());
    let mut looked = Vec::new();
    for candidate in candidates {
        if NEEDED.iter().all(|program| is_program(&candidate.join(program))) {
            return Ok(candidate);
        }
        looked.push(candidate.display().to_string());
    }
    Err(ServerError(format!(
        "no PostgreSQL server is installed here (looked for postgres, initdb and pg_ctl in {}); install it with \
         `apt-get install postgresql` or `brew install postgresql`, or name a server by {}",
        looked.join(", "),
        super::OVERRIDE
    )))
}

fn said_by_config() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").output().ok()?;
    output.status.success().then(|| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
}

fn on_path() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).filter(|directory| is_program(&directory.join("postgres"))).collect()
}

fn of_packages() -> Vec<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = HOMES.iter().flat_map(|home| releases(Path::new(home))).collect();
    found.sort();
    found.into_iter().rev().map(|(_, path)| path).collect()
}

/// Returns the directories of binaries under a home, with the release that their names tell.
fn releases(home: &Path) -> Vec<(u32, PathBuf)> {
    let Ok(entries) = std::fs::read_dir(home) else { return Vec::new() };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let digits: String = name.trim_start_matches("postgresql").trim_start_matches('@').into();
        let binaries = entry.path().join("bin");
        if (name.starts_with("postgresql") || digits == name) && is_program(&binaries.join("postgres")) {
            found.push((digits.parse().unwrap_or(0), binaries));
        }
    }
    found
}
