//! The processes that a T3 sample has started. No pid namespace holds them together there; three things do:
//!
//! - A process whose parent ends becomes its slot's child, and where the slot has ended its master's
//!   (PR_SET_CHILD_SUBREAPER; samples may not call prctl(2) to that end).
//! - None can be started while nobody answers the broker, which every fork asks.
//! - Who ends them kills all that there are at once, and looks again until there are none: how many run beside it, and for
//!   how long, changes nothing about that.
//!
//! A slot ends what its sample has left; its master does where the slot was killed; and a slot whose master was killed
//! ends its sample. So it takes the deaths of both at once to leave anything.

use std::collections::HashSet;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use crate::sys;

/// Between two looks at who is left: at first, and at most.
const NEXT_LOOK: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(20)];

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

/// All processes below one, parents before their children.
pub fn below(process: u32) -> Vec<u32> {
    below_but(process, &[])
}

/// As [`below`], without some and what is below those.
fn below_but(process: u32, spared: &[u32]) -> Vec<u32> {
    let mut seen: HashSet<u32> = spared.iter().copied().collect();
    let mut found = Vec::new();
    let mut next = Some(process);
    let mut index = 0;
    while let Some(parent) = next {
        // One that moves up while we look is met twice.
        found.extend(children(parent).into_iter().filter(|pid| seen.insert(*pid)));
        next = found.get(index).copied();
        index += 1;
    }
    found
}

/// Threads and processes of the sample of the calling slot.
pub fn count_tasks() -> u64 {
    const THREADS: usize = 17;
    below(std::process::id()).into_iter().map(|pid| field(&stat_of(pid), THREADS).unwrap_or(0)).sum()
}

fn stat_of(process: u32) -> String {
    std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default()
}

/// A number of a `stat` text, counted from the state behind the name, which may hold anything. `None`: there is none such, for
/// the process has gone.
fn field(stat: &str, index: usize) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split_whitespace().nth(index)?.parse().ok()
}

/// CPU time that processes below one have used, those included that they have reaped.
pub fn cpu_time(process: u32) -> Duration {
    // utime, stime, cutime, cstime, in ticks.
    const FIELDS_BEHIND_NAME: std::ops::Range<usize> = 11..15;
    let ticks_a_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
    let mut ticks = 0u64;
    for pid in below(process) {
        let text = stat_of(pid);
        ticks += FIELDS_BEHIND_NAME.filter_map(|index| field(&text, index)).sum::<u64>();
    }
    Duration::from_millis(ticks.saturating_mul(1000) / ticks_a_second.max(1) as u64)
}

/// Kills all that is below the calling process, but for some of its children and what is below those; how many there were.
/// Some may have been missed, since the kernel's lists may leave out some while others end: it is for the caller to look
/// again.
pub fn kill_but(spared: &[u32]) -> usize {
    const PARENT: usize = 1;
    let found = below_but(std::process::id(), spared);
    let mut known = HashSet::from([u64::from(std::process::id())]);
    for pid in &found {
        // A number may be another process's by now: a handle stays with whose it was, and that one is of the family if its
        // parent is.
        let Ok(handle) = sys::pidfd_open(*pid as i32) else { continue };
        if field(&stat_of(*pid), PARENT).is_some_and(|parent| known.contains(&parent)) {
            sys::pidfd_kill(handle.as_fd()).ok();
            known.insert(u64::from(*pid));
        }
    }
    found.len()
}

/// Kills whatever is below the calling process, and reaps it; what all of that used of CPU time.
///
/// # Errors
/// As wait4(2).
pub fn end() -> io::Result<Duration> {
    let [mut next_look, longest] = NEXT_LOOK;
    let mut used = Duration::ZERO;
    loop {
        // All of them, and not only our own children: each would have to end before its children become ours, and those who
        // go on meanwhile keep it from the processor that it needs to end.
        kill_but(&[]);
        loop {
            match sys::wait4_now(-1) {
                Ok(Some(ended)) => used += ended.cpu,
                Ok(None) => break,
                Err(error) if error.raw_os_error() == Some(libc::ECHILD) => return Ok(used),
                Err(error) => return Err(error),
            }
        }
        std::thread::sleep(next_look);
        next_look = (2 * next_look).min(longest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_behind_any_name() {
        let text = "7 (a ) b) S 1 7 7 0 -1 4194560 1 0 0 0 5 6 7 8 20 0 42 0 100 1 1";
        assert_eq!([1, 11, 17].map(|index| field(text, index)), [Some(1), Some(5), Some(42)]);
        assert_eq!(field("", 1), None);
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
