//! Limits of one sample: the daemon's defaults and ceilings, and the rlimits that enforce part of them.

use std::io;

use nix::sys::resource::{Resource, setrlimit};
use serde::{Deserialize, Serialize};

use crate::tier::Tier;

/// All limits of one sample, resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// CPU time of the candidate, user and system.
    pub cpu_ms: u64,
    /// Wall-clock time from the moment the candidate starts.
    pub wall_ms: u64,
    /// Private memory above what the warm interpreter holds.
    pub memory_bytes: u64,
    /// Bytes on standard output and error together.
    pub output_bytes: u64,
    /// Bytes of all files in the sample's private folder.
    pub disk_bytes: u64,
    /// Files and folders in the sample's private folder.
    pub inodes: u64,
    /// Threads (further processes are not allowed at all).
    pub processes: u64,
    /// Open descriptors.
    pub files: u64,
}

const MIB: u64 = 1 << 20;

impl Default for Limits {
    fn default() -> Self {
        Self {
            cpu_ms: 3_000,
            wall_ms: 9_000,
            memory_bytes: 1024 * MIB,
            output_bytes: MIB,
            disk_bytes: 64 * MIB,
            inodes: 4_096,
            processes: 64,
            files: 256,
        }
    }
}

/// No job may ask for more: one straggler must not hold a slot for hours.
const MAX_CPU_MS: u64 = 3_600_000;
const MAX_WALL_MS: u64 = 4 * MAX_CPU_MS;
const MAX_MEMORY_BYTES: u64 = 64 << 30;

impl Limits {
    /// A job's wishes over the defaults. Wall-clock time defaults to three times the CPU time.
    ///
    /// # Errors
    /// A wish is zero or beyond what the daemon gives, with the name of the limit.
    pub fn resolve(&self, wish: &evald_proto::Limits) -> Result<Self, String> {
        let pick = |name: &str, wish: Option<u64>, default: u64, most: u64| match wish {
            None => Ok(default),
            Some(value) if value == 0 || value > most => {
                Err(format!("limit {name} = {value} is outside 1..={most}"))
            }
            Some(value) => Ok(value),
        };
        let cpu_ms = pick("cpu_ms", wish.cpu_ms, self.cpu_ms, MAX_CPU_MS)?;
        let wall_default = if wish.cpu_ms.is_some() { cpu_ms.saturating_mul(3) } else { self.wall_ms };
        Ok(Self {
            cpu_ms,
            wall_ms: pick("wall_ms", wish.wall_ms, wall_default, MAX_WALL_MS)?,
            memory_bytes: pick("memory_bytes", wish.memory_bytes, self.memory_bytes, MAX_MEMORY_BYTES)?,
            output_bytes: pick("output_bytes", wish.output_bytes, self.output_bytes, 1 << 30)?,
            disk_bytes: pick("disk_bytes", wish.disk_bytes, self.disk_bytes, 16 << 30)?,
            inodes: self.inodes,
            processes: pick("processes", wish.processes, self.processes, 4_096)?,
            files: pick("files", wish.files, self.files, 4_096)?,
        })
    }
}

/// What the warm interpreter's address space holds; limits are counted from here.
///
/// An absolute RLIMIT_AS would be spent by the mapped libraries before the sample starts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Baseline {
    /// VmSize of /proc/PID/status, in bytes.
    pub address_space: u64,
    /// VmData of /proc/PID/status, in bytes.
    pub data: u64,
}

impl Baseline {
    /// Reads it from the text of `/proc/PID/status`.
    pub fn from_status(status: &str) -> Option<Self> {
        Some(Self { address_space: kib(status, "VmSize:")?, data: kib(status, "VmData:")? })
    }
}

fn kib(status: &str, field: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(field))?;
    value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// So many more threads than the cgroup allows are too many for the rlimit.
const NPROC_BEHIND: u64 = 8;

/// Sets the rlimits of the calling process, soft and hard alike.
///
/// - DATA bounds private memory; AS bounds shared anonymous memory too, with room for thread stacks.
/// - CPU is a backstop in whole seconds: the supervisor's clock is the finer limit.
/// - FSIZE bounds one file; the tmpfs bounds their sum.
/// - NPROC counts threads of this sample alone, because the sample has a user namespace of its own (not in T3). Where the
///   sample's cgroup limits them (T0, T1), it is a second wall behind that one, which also counts what it refuses.
pub(crate) fn apply(limits: &Limits, baseline: &Baseline, tier: Tier) -> io::Result<()> {
    let stacks = limits.processes.saturating_mul(8 * MIB).min(512 * MIB);
    let data = baseline.data.saturating_add(limits.memory_bytes);
    let address_space = baseline
        .address_space
        .saturating_add(limits.memory_bytes)
        .saturating_add(stacks)
        .saturating_add(64 * MIB);
    let processes = limits.processes.saturating_add(if tier.has_cgroups() { NPROC_BEHIND } else { 0 });
    let cpu_seconds = limits.cpu_ms.div_ceil(1000) + 2;
    for (resource, value) in [
        (Resource::RLIMIT_DATA, data),
        (Resource::RLIMIT_AS, address_space),
        (Resource::RLIMIT_CPU, cpu_seconds),
        (Resource::RLIMIT_FSIZE, limits.disk_bytes),
        (Resource::RLIMIT_NOFILE, limits.files),
        (Resource::RLIMIT_NPROC, processes),
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_MEMLOCK, 0),
        (Resource::RLIMIT_MSGQUEUE, 0),
        (Resource::RLIMIT_SIGPENDING, 256),
    ] {
        setrlimit(resource, value, value)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_override_defaults_and_wall_follows_cpu() {
        let defaults = Limits::default();
        let wish = evald_proto::Limits { cpu_ms: Some(500), ..Default::default() };
        let got = defaults.resolve(&wish).expect("in range");
        assert_eq!((got.cpu_ms, got.wall_ms), (500, 1500));
        let wish = evald_proto::Limits { wall_ms: Some(700), ..Default::default() };
        let got = defaults.resolve(&wish).expect("in range");
        assert_eq!((got.cpu_ms, got.wall_ms), (3_000, 700));
    }

    #[test]
    fn absurd_wishes_are_refused_by_name() {
        for (wish, name) in [
            (evald_proto::Limits { cpu_ms: Some(0), ..Default::default() }, "cpu_ms"),
            (evald_proto::Limits { memory_bytes: Some(u64::MAX), ..Default::default() }, "memory_bytes"),
            (evald_proto::Limits { files: Some(1 << 20), ..Default::default() }, "files"),
        ] {
            let error = Limits::default().resolve(&wish).expect_err("out of range");
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn the_baseline_is_read_in_bytes() {
        let status = "Name:\tpython\nVmSize:\t  20 kB\nVmData:\t 7 kB\nThreads:\t1\n";
        assert_eq!(Baseline::from_status(status), Some(Baseline { address_space: 20 << 10, data: 7 << 10 }));
        assert_eq!(Baseline::from_status("VmSize: many kB"), None);
    }
}
