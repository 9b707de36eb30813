//! A disk that can be full: a small file system in memory, which root may mount.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use super::{ServerError, failed, run};

/// How much is written at once while it is filled.
const STEP_BYTES: usize = 64 << 10;

/// A small disk. It is unmounted when this is dropped, and also when the process that mounted it is killed.
#[derive(Debug)]
pub struct SmallDisk {
    path: PathBuf,
    watch: Option<(Child, ChildStdin)>,
}

impl SmallDisk {
    /// Mounts an empty one of this size, in MiB, in the directory for temporary files.
    ///
    /// # Errors
    /// [`ServerError`] with the reason when this process may not mount anything: it takes root, on Linux.
    pub fn mount(name: &str, size_mib: u32) -> Result<Self, ServerError> {
        let path = std::env::temp_dir().join(format!("orchestrix-disk-{}-{name}", std::process::id()));
        fs::create_dir(&path)
            .map_err(|error| failed(&format!("{} cannot be made", path.display()), error))?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size_mib}m,mode=0755"), "tmpfs"]).arg(&path);
        let mounted = run(mount, "a small disk cannot be mounted, which takes root on Linux");
        if let Err(error) = mounted {
            fs::remove_dir(&path).map_err(|error| failed("a directory cannot be removed", error))?;
            return Err(error);
        }
        let watch = Some(start_watch(&path)?);
        Ok(Self { path, watch })
    }

    /// Returns where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Fills it to the last byte.
    ///
    /// # Errors
    /// [`ServerError`] when writing fails for any other reason than that it is full.
    pub fn fill(&self) -> Result<(), ServerError> {
        let filled = File::create(self.ballast()).and_then(|mut file| {
            for step in [STEP_BYTES, 1] {
                loop {
                    match file.write_all(&vec![1; step]) {
                        Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
                        written => written?,
                    }
                }
            }
            Ok(())
        });
        filled.map_err(|error| failed("the small disk cannot be filled", error))
    }

    /// Frees what [`fill`](Self::fill) took.
    ///
    /// # Errors
    /// [`ServerError`] when the file that fills it cannot be removed.
    pub fn free(&self) -> Result<(), ServerError> {
        fs::remove_file(self.ballast()).map_err(|error| failed("the small disk cannot be freed", error))
    }

    fn ballast(&self) -> PathBuf {
        self.path.join("ballast")
    }
}

/// A shell that waits for the end of its input, which comes when this process is gone, and unmounts then. Whoever still
/// holds a file there keeps it until then.
fn start_watch(path: &Path) -> Result<(Child, ChildStdin), ServerError> {
    const SCRIPT: &str = "trap '' INT TERM HUP; read -r _; umount -l \"$1\" && rmdir \"$1\"";
    let mut shell = Command::new("sh");
    shell.args(["-c", SCRIPT, "sh"]).arg(path).current_dir("/");
    shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = shell.spawn().map_err(|error| failed("`sh` cannot be run", error))?;
    let input = child.stdin.take().ok_or_else(|| ServerError("`sh` has no input".to_owned()))?;
    Ok((child, input))
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Some((mut child, input)) = self.watch.take() {
            // The end of its input sets it going; whatever fails, nothing of the disk is kept.
            drop(input);
            let _ = child.wait();
        }
    }
}
