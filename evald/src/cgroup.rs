//! Cgroups of samples: memory and threads counted and capped by the kernel for the sample as a whole, whatever it does.
//!
//! ```text
//! BASE                     delegated (see `delegation`); passes memory and pids on
//!  ├ evald-ID-main         the daemon and its zygotes, where they had to leave BASE
//!  └ evald-ID              the samples of one daemon; ID tells which, so that a later one can clear up after it
//!     └ 1, 2, ...          a leaf per slot: one sample at a time
//! ```
//!
//! The daemon makes leaves and sets their limits. A slot gets descriptors on a leaf's files ([`Membership`]); each
//! sample joins by one of them right after its fork, before it reads its texts, and loses them all when it closes its
//! descriptors. The kernel judges the joining by whoever opened the file: the daemon.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::delegation::{NEEDED, Place};
use crate::error::{Error, Result, Step};
use crate::limits::{Baseline, Limits};

const PREFIX: &str = "evald-";
/// What is left of the moved daemon's leaf in its name.
const MAIN_SUFFIX: &str = "-main";
/// How long the kernel may take to let go of processes that have been killed.
const REMOVAL_PATIENCE: Duration = Duration::from_secs(5);

/// Who owns a group: a process, told apart from any other of this boot by its pid namespace, number and start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    namespace: u64,
    pid: i32,
    /// In clock ticks since the boot.
    started: u64,
}

impl Identity {
    fn own() -> io::Result<Self> {
        use std::os::unix::fs::MetadataExt;
        let pid = std::process::id() as i32;
        let started =
            start_of(pid).ok_or_else(|| io::Error::other("/proc has no start time of this process"))?;
        Ok(Self { namespace: fs::metadata("/proc/self/ns/pid")?.ino(), pid, started })
    }

    fn name(&self) -> String {
        format!("{PREFIX}{}-{}-{}", self.namespace, self.pid, self.started)
    }

    /// Reads it from a group's name.
    fn of(name: &str) -> Option<Self> {
        let id = name.strip_prefix(PREFIX)?;
        let mut parts = id.strip_suffix(MAIN_SUFFIX).unwrap_or(id).split('-');
        let found = Self {
            namespace: parts.next()?.parse().ok()?,
            pid: parts.next()?.parse().ok()?,
            started: parts.next()?.parse().ok()?,
        };
        parts.next().is_none().then_some(found)
    }

    /// Whether its process has ended. Those of other pid namespaces cannot be seen, and are taken to live.
    fn is_dead(&self, own: &Self, start_of: impl Fn(i32) -> Option<u64>) -> bool {
        self.namespace == own.namespace && start_of(self.pid) != Some(self.started)
    }
}

/// Field 22 of `/proc/PID/stat`; `None` when there is no such process, or only its remains.
fn start_of(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(") ")?;
    let mut fields = after_name.split(' ');
    if fields.next()? == "Z" {
        return None;
    }
    // The state was field 3.
    fields.nth(18)?.parse().ok()
}

/// The groups of one daemon.
#[derive(Debug)]
pub struct Group {
    place: Place,
    samples: PathBuf,
    main: Option<PathBuf>,
    leaves: AtomicU64,
}

impl Group {
    /// Clears up after daemons that were killed, makes this daemon's groups, and tries out with `executable`'s
    /// `__probe` whether a sample could join one. Must be called before other processes are started.
    ///
    /// # Errors
    /// A step that the kernel refuses, named; what was made is taken back.
    pub fn set_up(place: &Place, executable: &Path) -> Result<Self> {
        let own = Identity::own().step("tell this process from others")?;
        clear_stale(&place.base, &own);
        let samples = place.base.join(own.name());
        let main = place.vacate.then(|| place.base.join(own.name() + MAIN_SUFFIX));
        let group = Self { place: place.clone(), samples, main, leaves: AtomicU64::new(0) };
        let made = group.make().and_then(|()| group.leaf()).and_then(|leaf| leaf.rehearse(executable));
        if made.is_err() {
            group.remove();
        }
        made.map(|()| group)
    }

    fn make(&self) -> Result<()> {
        if let Some(main) = &self.main {
            fs::create_dir(main).step(format!("make the cgroup {}", main.display()))?;
            set(main, "cgroup.procs", "0")?;
        }
        if !self.place.to_pass_on.is_empty() {
            set(&self.place.base, "cgroup.subtree_control", &signed('+', &self.place.to_pass_on))?;
        }
        fs::create_dir(&self.samples).step(format!("make the cgroup {}", self.samples.display()))?;
        set(&self.samples, "cgroup.subtree_control", &signed('+', &NEEDED))
    }

    /// A new leaf, empty and without limits yet.
    ///
    /// # Errors
    /// A step that the kernel refuses, named.
    pub fn leaf(&self) -> Result<Leaf> {
        let number = self.leaves.fetch_add(1, Ordering::Relaxed) + 1;
        Leaf::make(self.samples.join(number.to_string()))
    }

    /// Kills every sample and takes all groups back, the move of this process included.
    pub fn remove(&self) {
        if let Err(error) = remove_tree(&self.samples) {
            tracing::warn!(%error, "cannot remove the cgroup {}", self.samples.display());
        }
        let Some(main) = &self.main else { return };
        let outcome = self.move_back(main);
        if let Err(error) = outcome {
            tracing::warn!(%error, "cannot move out of the cgroup {}", main.display());
        }
    }

    /// Processes may return only once the base passes nothing on.
    fn move_back(&self, main: &Path) -> io::Result<()> {
        if main.exists() {
            fs::write(self.place.base.join("cgroup.subtree_control"), signed('-', &self.place.to_pass_on))?;
        }
        let deadline = Instant::now() + REMOVAL_PATIENCE;
        while main.exists() {
            for pid in fs::read_to_string(main.join("cgroup.procs"))?.split_whitespace() {
                // A process that has ended meanwhile need not move.
                fs::write(self.place.base.join("cgroup.procs"), pid).ok();
            }
            if let Err(error) = fs::remove_dir(main)
                && Instant::now() > deadline
            {
                return Err(error);
            }
        }
        Ok(())
    }
}

fn signed(sign: char, controllers: &[impl AsRef<str>]) -> String {
    let signed: Vec<String> = controllers.iter().map(|name| format!("{sign}{}", name.as_ref())).collect();
    signed.join(" ")
}

fn set(group: &Path, file: &str, value: &str) -> Result<()> {
    let path = group.join(file);
    // Not `fs::write`, which would make the file where the kernel has none.
    let written =
        File::options().write(true).open(&path).and_then(|mut file| file.write_all(value.as_bytes()));
    written.step(format!("write {value:?} to {}", path.display()))
}

/// Removes what daemons that have ended left in `base`.
fn clear_stale(base: &Path, own: &Identity) {
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if Identity::of(&name).is_some_and(|identity| identity.is_dead(own, start_of)) {
            let path = entry.path();
            match remove_tree(&path) {
                Ok(()) => tracing::info!("removed the cgroup {} of a daemon that was killed", path.display()),
                Err(error) => tracing::warn!(%error, "cannot remove the stale cgroup {}", path.display()),
            }
        }
    }
}

/// Kills what lives in a group, and removes it with those below it.
fn remove_tree(group: &Path) -> io::Result<()> {
    if !group.exists() {
        return Ok(());
    }
    // Before Linux 5.14 there is no such file; slots and samples end with their parents anyway.
    set(group, "cgroup.kill", "1").ok();
    let deadline = Instant::now() + REMOVAL_PATIENCE;
    loop {
        for entry in fs::read_dir(group).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                fs::remove_dir(entry.path()).ok();
            }
        }
        match fs::remove_dir(group) {
            Err(error) if error.kind() != io::ErrorKind::NotFound && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => return Ok(()),
        }
    }
}

/// The group of one slot's samples, as the daemon sees it; dropping it kills what is in it and removes it.
#[derive(Debug)]
pub struct Leaf {
    path: PathBuf,
    /// In the order that [`Membership::adopt`] expects.
    handles: Vec<File>,
    current: File,
    limits: Option<[u64; 2]>,
}

/// A sample's private memory ends with it at once, its tmpfs a little later.
const SETTLING_PATIENCE: Duration = Duration::from_millis(500);
/// Less than this may be left when the next sample comes.
const SETTLED_BYTES: u64 = 4 << 20;
/// For what the kernel keeps for a sample: page tables, pipes, stacks.
const KERNEL_BYTES: u64 = 32 << 20;

/// The cap of a sample's group: its private memory above the interpreter's, a copy of all that it inherits from the
/// warm interpreter, the files of its private folder, and what the kernel needs for all that.
fn memory_max(limits: &Limits, baseline: &Baseline) -> u64 {
    [baseline.data, limits.disk_bytes, KERNEL_BYTES]
        .into_iter()
        .fold(limits.memory_bytes, u64::saturating_add)
}

impl Leaf {
    fn make(path: PathBuf) -> Result<Self> {
        fs::create_dir(&path).step(format!("make the cgroup {}", path.display()))?;
        let open = |name: &str, write: bool| {
            let file = File::options().read(!write).write(write).open(path.join(name));
            file.step(format!("open {}", path.join(name).display()))
        };
        let opened = || {
            set(&path, "memory.oom.group", "1")?;
            // Only where the kernel can swap.
            if path.join("memory.swap.max").exists() {
                set(&path, "memory.swap.max", "0")?;
            }
            let mut handles = vec![
                open("cgroup.procs", true)?,
                open("memory.events", false)?,
                open("pids.events", false)?,
                open("cpu.stat", false)?,
            ];
            handles.extend(open("cgroup.kill", true).ok());
            Ok((handles, open("memory.current", false)?))
        };
        match opened() {
            Ok((handles, current)) => Ok(Self { path, handles, current, limits: None }),
            Err(error) => {
                remove_tree(&path).ok();
                Err(error)
            }
        }
    }

    /// What a slot needs of it, to be sent to it.
    pub fn descriptors(&self) -> Vec<RawFd> {
        self.handles.iter().map(|file| file.as_raw_fd()).collect()
    }

    /// Waits until nothing of the last sample is charged any more, and sets the next one's limits.
    ///
    /// # Errors
    /// Something is left (the leaf must not be used again), or the kernel refuses.
    pub fn prepare(&mut self, limits: &Limits, baseline: &Baseline) -> Result<()> {
        let deadline = Instant::now() + SETTLING_PATIENCE;
        while self.is_charged().step(format!("read the counters of {}", self.path.display()))? {
            if Instant::now() > deadline {
                return Err(Error::Host(format!("{} does not become empty", self.path.display())));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let wanted = [memory_max(limits, baseline), limits.processes];
        if self.limits != Some(wanted) {
            set(&self.path, "memory.max", &wanted[0].to_string())?;
            set(&self.path, "pids.max", &wanted[1].to_string())?;
            self.limits = Some(wanted);
        }
        Ok(())
    }

    /// Whether memory that nobody could take back is charged. Cached file pages are no matter.
    fn is_charged(&self) -> io::Result<bool> {
        let mut buffer = [0u8; 32];
        let got = self.current.read_at(&mut buffer, 0)?;
        let current =
            std::str::from_utf8(&buffer[..got]).ok().and_then(|text| text.trim().parse::<u64>().ok());
        if current.is_some_and(|bytes| bytes <= SETTLED_BYTES) {
            return Ok(false);
        }
        let stat = fs::read_to_string(self.path.join("memory.stat"))?;
        Ok(field(&stat, "anon") + field(&stat, "shmem") > SETTLED_BYTES)
    }

    /// Lets a short-lived process with a sample's namespaces and user join it.
    fn rehearse(self, executable: &Path) -> Result<()> {
        let joining = self.handles[0].try_clone().step("copy a descriptor")?;
        let output = Command::new(executable)
            .args(["__probe", "--join"])
            .stdin(Stdio::from(joining))
            .output()
            .step(format!("run {}", executable.display()))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().last().unwrap_or("the probe said nothing").trim();
        Err(Error::Host(format!("a sample cannot join {}: {last}", self.path.display())))
    }
}

impl Drop for Leaf {
    fn drop(&mut self) {
        if let Err(error) = remove_tree(&self.path) {
            tracing::warn!(%error, "cannot remove the cgroup {}", self.path.display());
        }
    }
}

/// What the kernel has counted in a leaf since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Allocations that failed for the group's limit, or that a process was killed for.
    pub oom: u64,
    /// Threads and processes refused for the group's limit.
    pub refused: u64,
    /// CPU time of all that ran in it.
    pub cpu: Duration,
}

impl Counts {
    fn parse(memory_events: &str, pids_events: &str, cpu_stat: &str) -> Self {
        Self {
            oom: field(memory_events, "oom").max(field(memory_events, "oom_kill")),
            refused: field(pids_events, "max"),
            cpu: Duration::from_micros(field(cpu_stat, "usage_usec")),
        }
    }

    /// What was counted since `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            oom: self.oom.saturating_sub(before.oom),
            refused: self.refused.saturating_sub(before.refused),
            cpu: self.cpu.saturating_sub(before.cpu),
        }
    }
}

/// A number of a "name number" file; 0 where the kernel does not have it.
fn field(text: &str, name: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

/// A leaf as its slot sees it: descriptors alone, since the sandbox shows no /sys.
pub struct Membership {
    procs: File,
    memory_events: File,
    pids_events: File,
    cpu_stat: File,
    kill: Option<File>,
}

impl Membership {
    /// From what [`Leaf::descriptors`] sent; `None` when that is nothing (a tier without cgroups).
    pub fn adopt(handles: impl IntoIterator<Item = OwnedFd>) -> Option<Self> {
        let mut files = handles.into_iter().map(File::from);
        Some(Self {
            procs: files.next()?,
            memory_events: files.next()?,
            pids_events: files.next()?,
            cpu_stat: files.next()?,
            kill: files.next(),
        })
    }

    /// Puts the calling process into the group.
    ///
    /// # Errors
    /// As write(2).
    pub fn join(&self) -> io::Result<()> {
        join(&self.procs)
    }

    /// What the kernel has counted so far.
    ///
    /// # Errors
    /// As pread(2).
    pub fn counts(&self) -> io::Result<Counts> {
        let [memory, pids, cpu] = [&self.memory_events, &self.pids_events, &self.cpu_stat].map(|file| {
            let mut buffer = [0u8; 4096];
            let got = file.read_at(&mut buffer, 0)?;
            Ok::<_, io::Error>(String::from_utf8_lossy(&buffer[..got]).into_owned())
        });
        Ok(Counts::parse(&memory?, &pids?, &cpu?))
    }

    /// Kills whatever may still be in the group. The sample has been reaped, and its pid namespace with it; this is
    /// the proof that does not rest on that.
    ///
    /// # Errors
    /// As write(2).
    pub fn kill(&self) -> io::Result<()> {
        self.kill.as_ref().map_or(Ok(()), |mut kill| kill.write_all(b"1"))
    }
}

/// Puts the calling process into the group whose `cgroup.procs` this is.
///
/// # Errors
/// As write(2).
pub fn join(mut procs: &File) -> io::Result<()> {
    procs.write_all(b"0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_whatever_the_kernel_lists() {
        let memory = "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 1\n";
        let counts = Counts::parse(memory, "max 4\n", "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\n");
        assert_eq!(counts, Counts { oom: 3, refused: 4, cpu: Duration::from_micros(1500) });
        assert_eq!(Counts::parse("oom_kill 2\n", "", "").oom, 2);
        assert_eq!(Counts::parse("", "max many\n", "junk"), Counts::default());
        let later = Counts { oom: 5, refused: 4, cpu: Duration::from_micros(2000) };
        assert_eq!(later.since(counts), Counts { oom: 2, refused: 0, cpu: Duration::from_micros(500) });
    }

    #[test]
    fn the_dead_are_told_from_the_living() {
        let own = Identity { namespace: 7, pid: 100, started: 5_000 };
        let start_of =
            |pid: i32| [(100, 5_000), (200, 6_000)].into_iter().find(|(p, _)| *p == pid).map(|(_, s)| s);
        for (name, dead) in [
            ("evald-7-100-5000", Some(false)),
            ("evald-7-200-6000", Some(false)),
            ("evald-7-200-6000-main", Some(false)),
            // Its number went to another process.
            ("evald-7-200-5999", Some(true)),
            ("evald-7-300-5999-main", Some(true)),
            // Another container's.
            ("evald-8-300-5999", Some(false)),
            ("evald-7-300", None),
            ("evald-7-300-1-2", None),
            ("evald-x-300-1", None),
            ("evald.service", None),
            ("system.slice", None),
        ] {
            let got = Identity::of(name).map(|identity| identity.is_dead(&own, start_of));
            assert_eq!(got, dead, "{name}");
        }
        let own = Identity::own().expect("an identity");
        assert_eq!(Identity::of(&own.name()), Some(own));
        assert!(!own.is_dead(&own, super::start_of));
        assert!(Identity { started: own.started + 1, ..own }.is_dead(&own, super::start_of));
    }

    #[test]
    fn the_cap_has_room_for_all_that_the_other_limits_allow() {
        let limits = Limits { memory_bytes: 100, disk_bytes: 20, ..Limits::default() };
        let baseline = Baseline { address_space: 0, data: 3 };
        assert_eq!(memory_max(&limits, &baseline), 123 + KERNEL_BYTES);
        let limits = Limits { memory_bytes: u64::MAX, ..limits };
        assert_eq!(memory_max(&limits, &baseline), u64::MAX);
    }

    #[test]
    fn only_dead_daemons_groups_are_cleared() {
        let base = tempfile::tempdir().expect("temp folder");
        let own = Identity::own().expect("an identity");
        let dead = Identity { started: own.started + 1, ..own };
        for name in [own.name(), dead.name(), dead.name() + MAIN_SUFFIX, "evald.slice".into()] {
            fs::create_dir_all(base.path().join(name)).expect("made");
        }
        fs::create_dir(base.path().join(dead.name()).join("1")).expect("made");
        clear_stale(base.path(), &own);
        let mut left: Vec<String> = fs::read_dir(base.path())
            .expect("listed")
            .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
            .collect();
        left.sort();
        assert_eq!(left, [own.name(), "evald.slice".into()]);
    }
}
