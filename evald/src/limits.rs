//! Limits of one sample: the daemon's defaults and ceilings, and the rlimits that enforce part of them.

use std::io;

use nix::sys::resource::{Resource, setrlimit};
use serde::{Deserialize, Serialize};

use crate::tier::Tier;

/// All limits of one sample, resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// CPU time of the candidate, user and system, with all processes that it starts.
    pub cpu_ms: u64,
    /// Wall-clock time from the moment the candidate starts.
    pub wall_ms: u64,
    /// Private memory of a process above what the warm interpreter holds.
    pub memory_bytes: u64,
    /// Bytes on standard output and error together.
    pub output_bytes: u64,
    /// Bytes of all files in the sample's private folder.
    pub disk_bytes: u64,
    /// Files and folders in the sample's private folder.
    pub inodes: u64,
    /// Threads and processes at a time.
    pub processes: u64,
    /// Open descriptors of a process.
    pub files: u64,
    /// Whether it may have further processes, and become other programs.
    pub allow_processes: bool,
}

const MIB: u64 = 1 << 20;

impl Default for Limits {
    fn default() -> Self {
        Self {
            cpu_ms: 3_000,
            wall_ms: 9_000,
            memory_bytes: 1024 * MIB,
            output_bytes: 4 * MIB,
            disk_bytes: 64 * MIB,
            inodes: 4_096,
            processes: 128,
            files: 1_024,
            allow_processes: false,
        }
    }
}

/// No job may ask for more: one straggler must not hold a slot for hours.
const MOST: Limits = Limits {
    cpu_ms: 3_600_000,
    wall_ms: 4 * 3_600_000,
    memory_bytes: 64 << 30,
    output_bytes: 1 << 30,
    disk_bytes: 16 << 30,
    inodes: 1 << 20,
    processes: 4_096,
    files: 4_096,
    allow_processes: true,
};

/// What a daemon gives to jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Where a job says nothing.
    pub usual: Limits,
    /// No job gets more.
    pub most: Limits,
}

impl Default for Terms {
    fn default() -> Self {
        Self { usual: Limits::default(), most: MOST }
    }
}

impl Terms {
    /// The terms of a daemon by its options: `usual` where jobs say nothing, and no more than `most`.
    ///
    /// # Errors
    /// A limit is zero, or beyond what any daemon gives.
    pub fn new(usual: &evald_proto::Limits, most: &evald_proto::Limits) -> Result<Self, String> {
        let built_in = Self::default();
        // A ceiling without a usual value beside it bounds that too.
        let most = Self { usual: MOST, ..built_in.clone() }.resolve(most)?;
        let ceiling = Self { usual: built_in.usual, most: most.clone() };
        let capped = ceiling.usual.at_most(&most);
        let usual = Self { usual: capped, most: most.clone() }.resolve(usual)?;
        Ok(Self { usual, most })
    }

    /// A job's wishes over what is usual. Wall-clock time defaults to three times the CPU time.
    ///
    /// # Errors
    /// A wish is zero or beyond what the daemon gives, with the name of the limit.
    pub fn resolve(&self, wish: &evald_proto::Limits) -> Result<Limits, String> {
        let pick = |name: &str, wish: Option<u64>, usual: u64, most: u64| match wish {
            None => Ok(usual),
            Some(value) if value == 0 || value > most => {
                Err(format!("limit {name} = {value} is outside 1..={most}"))
            }
            Some(value) => Ok(value),
        };
        let Self { usual, most } = self;
        let cpu_ms = pick("cpu_ms", wish.cpu_ms, usual.cpu_ms, most.cpu_ms)?;
        let wall =
            if wish.cpu_ms.is_some() { cpu_ms.saturating_mul(3).min(most.wall_ms) } else { usual.wall_ms };
        if wish.allow_processes == Some(true) && !most.allow_processes {
            return Err("processes are not allowed by this evald; start it with --allow processes".into());
        }
        Ok(Limits {
            cpu_ms,
            wall_ms: pick("wall_ms", wish.wall_ms, wall, most.wall_ms)?,
            memory_bytes: pick("memory_bytes", wish.memory_bytes, usual.memory_bytes, most.memory_bytes)?,
            output_bytes: pick("output_bytes", wish.output_bytes, usual.output_bytes, most.output_bytes)?,
            disk_bytes: pick("disk_bytes", wish.disk_bytes, usual.disk_bytes, most.disk_bytes)?,
            inodes: pick("inodes", wish.inodes, usual.inodes, most.inodes)?,
            processes: pick("processes", wish.processes, usual.processes, most.processes)?,
            files: pick("files", wish.files, usual.files, most.files)?,
            allow_processes: wish.allow_processes.unwrap_or(usual.allow_processes),
        })
    }
}

impl Limits {
    fn at_most(&self, most: &Self) -> Self {
        Self {
            cpu_ms: self.cpu_ms.min(most.cpu_ms),
            wall_ms: self.wall_ms.min(most.wall_ms),
            memory_bytes: self.memory_bytes.min(most.memory_bytes),
            output_bytes: self.output_bytes.min(most.output_bytes),
            disk_bytes: self.disk_bytes.min(most.disk_bytes),
            inodes: self.inodes.min(most.inodes),
            processes: self.processes.min(most.processes),
            files: self.files.min(most.files),
            allow_processes: self.allow_processes && most.allow_processes,
        }
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
/// - NPROC counts threads of this sample alone, because the sample has a user namespace of its own. Where the sample's
///   cgroup limits them (T0, T1), it is a second wall behind that one, which also counts what it refuses. In T3 it would
///   count all that the user runs: the broker counts instead.
pub(crate) fn apply(limits: &Limits, baseline: &Baseline, tier: Tier) -> io::Result<()> {
    let stacks = limits.processes.saturating_mul(8 * MIB).min(1024 * MIB);
    let data = baseline.data.saturating_add(limits.memory_bytes);
    let address_space = baseline
        .address_space
        .saturating_add(limits.memory_bytes)
        .saturating_add(stacks)
        .saturating_add(64 * MIB);
    let cpu_seconds = limits.cpu_ms.div_ceil(1000) + 2;
    let mut all = vec![
        (Resource::RLIMIT_DATA, data),
        (Resource::RLIMIT_AS, address_space),
        (Resource::RLIMIT_CPU, cpu_seconds),
        (Resource::RLIMIT_FSIZE, limits.disk_bytes),
        (Resource::RLIMIT_NOFILE, limits.files),
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_MEMLOCK, 0),
        (Resource::RLIMIT_MSGQUEUE, 0),
        (Resource::RLIMIT_SIGPENDING, 256),
    ];
    if tier != Tier::T3 {
        let behind = if tier.has_cgroups() { NPROC_BEHIND } else { 0 };
        all.push((Resource::RLIMIT_NPROC, limits.processes.saturating_add(behind)));
    }
    all.into_iter().try_for_each(|(resource, value)| setrlimit(resource, value, value)).map_err(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_override_defaults_and_wall_follows_cpu() {
        let defaults = Terms::default();
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
            let error = Terms::default().resolve(&wish).expect_err("out of range");
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn a_daemon_has_terms_of_its_own() {
        let of = |text: &str| text.parse::<evald_proto::Limits>().expect(text);
        let mut most = of("wall=5s,memory=1g");
        most.allow_processes = Some(false);
        let terms = Terms::new(&of("cpu=1s,memory=64m"), &most).expect("terms");
        assert_eq!((terms.usual.cpu_ms, terms.usual.wall_ms), (1_000, 3_000));
        assert_eq!(terms.usual.memory_bytes, 64 << 20);
        let job = terms.resolve(&of("cpu=4s,memory=1g")).expect("in range");
        assert_eq!((job.cpu_ms, job.wall_ms, job.memory_bytes), (4_000, 5_000, 1 << 30));
        assert!(terms.resolve(&of("wall=6s")).is_err_and(|reason| reason.contains("wall_ms")));
        let wish = evald_proto::Limits { allow_processes: Some(true), ..Default::default() };
        assert!(terms.resolve(&wish).is_err_and(|reason| reason.contains("--allow processes")));
        assert!(Terms::new(&of("memory=2g"), &most).is_err(), "more than any job may have");
    }

    #[test]
    fn the_baseline_is_read_in_bytes() {
        let status = "Name:\tpython\nVmSize:\t  20 kB\nVmData:\t 7 kB\nThreads:\t1\n";
        assert_eq!(Baseline::from_status(status), Some(Baseline { address_space: 20 << 10, data: 7 << 10 }));
        assert_eq!(Baseline::from_status("VmSize: many kB"), None);
    }
}
