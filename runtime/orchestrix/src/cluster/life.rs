//! Whether another process is certainly gone: only where that can be proved on this very machine.

use std::fs;
use std::path::Path;

/// What tells one process from every other one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Life {
    pub(crate) host: String,
    /// One start of the machine.
    pub(crate) boot_id: String,
    /// Where `pid` is valid.
    pub(crate) pid_namespace: String,
    pub(crate) pid: u32,
    /// When it began, in clock ticks since the machine started.
    pub(crate) started: u64,
}

impl Life {
    /// Describes this process; what cannot be told stays empty, and then nothing is proved by it.
    pub(crate) fn own() -> Self {
        let pid = std::process::id();
        let namespace = fs::read_link("/proc/self/ns/pid");
        Self {
            host: read("/proc/sys/kernel/hostname"),
            boot_id: read("/proc/sys/kernel/random/boot_id"),
            pid_namespace: namespace.map(|link| link.to_string_lossy().into_owned()).unwrap_or_default(),
            pid,
            started: started(pid).unwrap_or(0),
        }
    }
}

/// Tells whether a process is gone for certain: it ran on this machine, in this start of it, where process numbers mean
/// the same, and no process of that number began at that time.
pub(crate) fn is_gone(other: &Life, own: &Life) -> bool {
    let same_place = other.host == own.host
        && other.boot_id == own.boot_id
        && other.pid_namespace == own.pid_namespace
        && ![&own.boot_id, &own.pid_namespace].into_iter().any(String::is_empty);
    // Where even the own process cannot be seen, its absence from the list proves nothing.
    same_place && other.started > 0 && own.started > 0 && started(other.pid) != Some(other.started)
}

/// Returns when a process began; `None` when there is none of that number. A process that has ended and waits for its
/// parent to notice counts as gone.
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
    // The name of the program may hold anything, so the fields are counted from its closing parenthesis.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next()?;
    let started = fields.nth(18)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(started)
}

fn read(path: &str) -> String {
    fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_living_process_is_not_gone() {
        let own = Life::own();
        assert!(own.started > 0 && !own.boot_id.is_empty());
        assert!(!is_gone(&own, &own));
    }

    #[test]
    fn a_process_that_ended_is_gone() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("a process");
        let life = Life { pid: child.id(), started: started(child.id()).expect("it runs"), ..Life::own() };
        assert!(!is_gone(&life, &Life::own()));
        child.kill().expect("it can be stopped");
        child.wait().expect("it ends");
        assert!(is_gone(&life, &Life::own()));
    }

    #[test]
    fn a_number_that_another_process_has_now_is_not_the_same_process() {
        let own = Life::own();
        assert!(is_gone(&Life { started: own.started + 1, ..own.clone() }, &own));
    }

    #[test]
    fn nothing_is_proved_about_another_machine_or_another_start_of_it() {
        let own = Life::own();
        let gone = Life { started: own.started + 1, ..own.clone() };
        for elsewhere in [
            Life { host: "elsewhere".into(), ..gone.clone() },
            Life { boot_id: "before".into(), ..gone.clone() },
            Life { pid_namespace: "pid:[1]".into(), ..gone.clone() },
            Life { started: 0, ..gone },
        ] {
            assert!(!is_gone(&elsewhere, &own), "{elsewhere:?}");
        }
        let blind = Life { boot_id: String::new(), ..own };
        assert!(!is_gone(&Life { started: 1, ..blind.clone() }, &blind));
    }
}
