//! The resident memory of this process, as the operating system counts it.

use std::time::Duration;

use tokio::time::sleep;

/// Readings closer together than this count as equal.
const SETTLED_BYTES: u64 = 256 << 10;

/// Returns the resident memory in bytes; `None` where the system does not tell.
#[cfg(target_os = "linux")]
pub(crate) fn now_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    parse_status(&status)
}

/// Returns the resident memory in bytes; `None` where the system does not tell.
#[cfg(not(target_os = "linux"))]
pub(crate) fn now_bytes() -> Option<u64> {
    let pid = std::process::id().to_string();
    let output = std::process::Command::new("ps").args(["-o", "rss=", "-p", &pid]).output().ok()?;
    let kib: u64 = String::from_utf8(output.stdout).ok()?.trim().parse().ok()?;
    Some(kib << 10)
}

#[cfg(any(target_os = "linux", test))]
fn parse_status(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

/// Waits until the memory stops changing, at most 15 s, and returns it. The allocator gives freed pages back late.
///
/// # Errors
/// When the system does not tell how much memory a process has.
pub(crate) async fn settled_bytes() -> anyhow::Result<u64> {
    let mut last = read()?;
    let mut calm = 0;
    for _ in 0..60 {
        sleep(Duration::from_millis(250)).await;
        let now = read()?;
        calm = if now.abs_diff(last) <= SETTLED_BYTES { calm + 1 } else { 0 };
        last = now;
        if calm == 4 {
            break;
        }
    }
    Ok(last)
}

fn read() -> anyhow::Result<u64> {
    now_bytes().ok_or_else(|| anyhow::anyhow!("this system does not tell the resident memory of a process"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_the_kernel_is_understood() {
        assert_eq!(parse_status("VmHWM:\t 9 kB\nVmRSS:\t    2048 kB\n"), Some(2 << 20));
        assert_eq!(parse_status("VmHWM:\t 9 kB\n"), None);
    }

    #[test]
    fn this_process_has_some_memory() {
        assert!(now_bytes().is_some_and(|bytes| bytes > 100 << 10));
    }
}
