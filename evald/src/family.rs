//! The processes that a T3 sample has started. No pid namespace holds them together there; what does is that a process
//! whose parent ends becomes its slot's child (PR_SET_CHILD_SUBREAPER), and that none can be started once the slot has shut
//! the broker, which every fork asks.

use std::io;
use std::path::Path;
use std::time::Duration;

use crate::sys;

/// Between two looks at who is left.
const NEXT_LOOK: Duration = Duration::from_millis(1);

/// Makes the calling process the parent of whatever its children leave behind.
///
/// # Errors
/// As prctl(2).
pub fn gather() -> io::Result<()> {
    nix::sys::prctl::set_child_subreaper(true).map_err(Into::into)
}

fn children(process: u32) -> Vec<u32> {
    let mut found = Vec::new();
    for thread in std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten() {
        let list = std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        found.extend(list.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
    }
    found
}

/// All processes below one.
pub fn below(process: u32) -> Vec<u32> {
    let mut found = children(process);
    let mut index = 0;
    while let Some(next) = found.get(index).copied() {
        // One that moves up while we look is met twice.
        let more: Vec<u32> = children(next).into_iter().filter(|pid| !found.contains(pid)).collect();
        found.extend(more);
        index += 1;
    }
    found
}

/// Threads and processes of the sample of the calling slot.
pub fn count_tasks() -> u64 {
    below(std::process::id()).into_iter().map(|pid| threads(Path::new(&format!("/proc/{pid}/stat")))).sum()
}

/// The number of threads by a `stat` file; 0 when the process has gone.
fn threads(stat: &Path) -> u64 {
    const FIELD_BEHIND_NAME: usize = 17;
    let text = std::fs::read_to_string(stat).unwrap_or_default();
    let fields = text.rsplit_once(") ").map(|(_, rest)| rest);
    fields.and_then(|rest| rest.split_whitespace().nth(FIELD_BEHIND_NAME)?.parse().ok()).unwrap_or(0)
}

/// CPU time that processes below one have used, those included that they have reaped.
pub fn cpu_time(process: u32) -> Duration {
    // utime, stime, cutime, cstime, in ticks.
    const FIELDS_BEHIND_NAME: std::ops::Range<usize> = 11..15;
    let ticks_a_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
    let mut ticks = 0u64;
    for pid in below(process) {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let Some((_, rest)) = text.rsplit_once(") ") else { continue };
        let fields = rest.split_whitespace().skip(FIELDS_BEHIND_NAME.start).take(FIELDS_BEHIND_NAME.len());
        ticks += fields.filter_map(|field| field.parse::<u64>().ok()).sum::<u64>();
    }
    Duration::from_millis(ticks.saturating_mul(1000) / ticks_a_second.max(1) as u64)
}

/// Kills whatever is left below the calling process, and reaps it; what all of that used of CPU time.
///
/// # Errors
/// As wait4(2).
pub fn end() -> io::Result<Duration> {
    let mut used = Duration::ZERO;
    loop {
        for child in children(std::process::id()) {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(child as i32), nix::sys::signal::SIGKILL).ok();
        }
        // Its own children become ours as it ends: until none is left. The kernel's list may leave out some while others
        // end, so nobody is waited for who may not have been killed: the list is read again.
        match sys::wait4_now(-1) {
            Ok(Some(ended)) => used += ended.cpu,
            Ok(None) => std::thread::sleep(NEXT_LOOK),
            Err(error) if error.raw_os_error() == Some(libc::ECHILD) => return Ok(used),
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_counted_behind_any_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let stat = folder.path().join("stat");
        let text = "7 (a ) b) S 1 7 7 0 -1 4194560 1 0 0 0 5 6 7 8 20 0 42 0 100 1 1";
        std::fs::write(&stat, text).expect("written");
        assert_eq!(threads(&stat), 42);
        assert_eq!(threads(&folder.path().join("gone")), 0);
    }

    #[test]
    fn grandchildren_are_found_with_what_they_used() {
        let script = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; sleep 100 & wait";
        let mut child = std::process::Command::new("sh")
            .args(["-c", &format!("sh -c '{script}' & wait")])
            .spawn()
            .expect("sh");
        let mut found = Vec::new();
        for _ in 0..1000 {
            found = below(child.id());
            if found.len() >= 2 && cpu_time(std::process::id()) > Duration::ZERO {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        for pid in &found {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(*pid as i32), nix::sys::signal::SIGKILL).ok();
        }
        child.wait().ok();
        assert!(found.len() >= 2, "{found:?}");
    }
}
