//! Who the server runs as: PostgreSQL refuses to run as root.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use super::{ServerError, failed};

/// Users without rights, in the order of preference.
const NAMES: [&str; 2] = ["postgres", "nobody"];

/// A user without rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct User {
    uid: u32,
    gid: u32,
}

impl User {
    /// Returns the user to run as; `None` is the caller, who is not root.
    pub(super) fn unprivileged() -> Result<Option<Self>, ServerError> {
        if !is_root()? {
            return Ok(None);
        }
        let users =
            fs::read_to_string("/etc/passwd").map_err(|error| failed("/etc/passwd cannot be read", error))?;
        let found = NAMES.iter().find_map(|name| Self::of(name, &users));
        found.map(Some).ok_or_else(|| {
            ServerError(
                "PostgreSQL does not run as root, and there is no user `postgres` or `nobody` to run it as; make one, \
                 or run this as another user"
                    .to_owned(),
            )
        })
    }

    /// Finds a user in the text of `/etc/passwd`.
    fn of(name: &str, users: &str) -> Option<Self> {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some(Self { uid: fields.next()?.parse().ok()?, gid: fields.next()?.parse().ok()? })
    }

    /// Has a command run as this user, with no other rights.
    pub(super) fn take_on(self, command: &mut Command) {
        command.uid(self.uid).gid(self.gid);
    }

    /// Gives a file or directory to this user.
    pub(super) fn own(self, path: &Path) -> Result<(), ServerError> {
        let given = chown(path, Some(self.uid), Some(self.gid));
        given.map_err(|error| failed(&format!("{} cannot be given away", path.display()), error))
    }
}

/// A file that this process makes belongs to the user that it runs as.
fn is_root() -> Result<bool, ServerError> {
    let probe = std::env::temp_dir().join(format!("orchestrix-user-{}", uuid::Uuid::new_v4().simple()));
    let made = fs::write(&probe, "").and_then(|()| fs::metadata(&probe));
    let removed = fs::remove_file(&probe);
    let file = made.map_err(|error| failed("no temporary file can be made", error))?;
    removed.map_err(|error| failed("a temporary file cannot be removed", error))?;
    Ok(file.uid() == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_name() {
        let users = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65533:nobody:/:/bin/false\n";
        assert_eq!(User::of("nobody", users), Some(User { uid: 65_534, gid: 65_533 }));
        assert_eq!(User::of("postgres", users), None);
    }
}
