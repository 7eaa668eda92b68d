//! The frame of one environment: namespaces and a read-only root, made once, in which the warm interpreter runs.
//!
//! `evald __frame CONFIG` is a process of its own, started by the daemon with the control socket as descriptor 0. It
//! has one thread, which unshare(2) needs. It becomes:
//!
//! ```text
//! evald ── frame (waits; host pid namespace) ── python, pid 1 of the frame's pid namespace ── slots ── samples
//! ```
//!
//! In T4 there are no namespaces: the frame itself becomes the machine (see [`crate::wasi`]).
//!
//! Each link carries PDEATHSIG, and the kernel kills a whole pid namespace with its pid 1: whatever dies, nothing below
//! it survives.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, openat};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use serde::{Deserialize, Serialize};

use crate::cgroup;
use crate::error::{Error, Result, Step};
use crate::mounts::{self, Entry};
use crate::sys;
use crate::tier::Tier;
use crate::wasi::{self, Machine};

/// What the daemon tells a frame.
#[derive(Debug, Serialize, Deserialize)]
pub struct Config {
    /// The daemon's process, our parent while it lives.
    pub daemon: u32,
    /// How samples will be walled in.
    pub tier: Tier,
    /// The interpreter, as seen in the new root.
    pub python: PathBuf,
    /// What the root shows (not in T3 and T4, which keep the host's root).
    pub root: Vec<Entry>,
    /// `libevald.so` on the host.
    pub library: PathBuf,
    /// Folders for PYTHONPATH.
    pub paths: Vec<PathBuf>,
    /// T3 as root: whether some of that can be read by root alone, so that the sandbox's user must be able to as well. What
    /// samples read of it is the business of Landlock.
    pub reads_all: bool,
    /// In T4, what the machine is made of.
    pub machine: Option<Machine>,
}

/// The user that samples become when the daemon is root: high, so that nothing else on the host runs as it or owns
/// files as it, and not 0, so that RLIMIT_NPROC counts (the kernel exempts the host's root).
pub(crate) const SANDBOX_USER: u32 = 0x6576_616c;

/// Makes the frame and becomes the warm interpreter.
///
/// # Errors
/// Any step, named; on success it does not return.
pub fn run(config: &Config) -> Result<Infallible> {
    die_with_the_daemon(config.daemon)?;
    // Out of the terminal's process group: Ctrl-C is for the daemon, which then ends this in order.
    nix::unistd::setsid().step("start a session")?;
    match config.tier {
        Tier::T3 => {
            if nix::unistd::geteuid().is_root() {
                let become_user =
                    if config.reads_all { sys::become_user_who_reads } else { sys::become_user };
                become_user(SANDBOX_USER).step("become the sandbox's user")?;
                die_with_the_daemon(config.daemon)?;
            }
            exec_python(config)
        }
        Tier::T4 => match &config.machine {
            Some(machine) => wasi::run(machine, &config.paths, config.daemon),
            None => Err(Error::Host("T4 without a machine".into())),
        },
        _ => {
            enter_namespaces(&config.root, &config.library)?;
            die_with_the_daemon(config.daemon)?;
            // The frame alone holds the end to write to, so the other end hangs up when it has died.
            let (alive, life) = nix::unistd::pipe2(OFlag::O_CLOEXEC).step("make a pipe")?;
            match sys::fork_single_threaded().step("fork the warm interpreter")? {
                None => {
                    drop(life);
                    prctl::set_pdeathsig(Signal::SIGKILL).step("set the parent-death signal")?;
                    // It may have died before that; its pid cannot tell, for it lies outside our pid namespace.
                    if sys::hung_up(alive.as_fd()).step("look for the frame")? {
                        return Err(Error::Host("the frame has gone".into()));
                    }
                    exec_python(config)
                }
                Some(pid) => {
                    // The daemon must see the end of the control socket when the interpreter ends, not when we do.
                    sys::dup2(life.as_raw_fd(), 0).step("keep a pipe")?;
                    sys::close_range(1, u32::MAX).step("close descriptors")?;
                    let ended = sys::wait4(pid).step("wait for the warm interpreter")?;
                    let code =
                        if libc::WIFEXITED(ended.status) { libc::WEXITSTATUS(ended.status) } else { 1 };
                    sys::exit_now(code)
                }
            }
        }
    }
}

/// Again after every change of user, at which the kernel forgets a parent-death signal.
pub(crate) fn die_with_the_daemon(daemon: u32) -> Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL).step("set the parent-death signal")?;
    // It may have died before that. The control socket alone does not tell: the thread that started us may have ended while
    // others, as they die, still hold the other end.
    let orphaned = std::os::unix::process::parent_id() != daemon;
    if orphaned || sys::hung_up(std::io::stdin().as_fd()).step("look for the daemon")? {
        return Err(Error::Host("the daemon has gone".into()));
    }
    Ok(())
}

/// Makes the namespaces of a frame, and one sample's on top, in a process of its own: whether this host lets us. With
/// `joining`, the `cgroup.procs` of a group, the sample joins that first.
///
/// # Errors
/// The step that it does not let us do.
pub fn try_out(joining: Option<&File>) -> Result<()> {
    let library = std::env::current_exe().step("find the executable")?;
    enter_namespaces(&[], &library)?;
    match sys::fork_single_threaded().step("fork")? {
        None => {
            let joined = joining.map_or(Ok(()), |procs| cgroup::join(procs).step("write to cgroup.procs"));
            let outcome = joined
                .and_then(|()| {
                    unshare(sample_namespaces(joining.is_some())).step("make a sample's namespaces")
                })
                .and_then(|()| {
                    mounts::mount_scratch(1 << 20, 16, &[]).step("mount a sample's private folder")
                })
                .and_then(|()| unshare(CloneFlags::CLONE_NEWUSER).step("make a sample's user namespace"));
            if let Err(error) = &outcome {
                writeln!(std::io::stderr(), "{error}").ok();
            }
            sys::exit_now(i32::from(outcome.is_err()))
        }
        Some(pid) => {
            let status = sys::wait4(pid).step("wait for the probe")?.status;
            if status == 0 { Ok(()) } else { Err(Error::Host("a sample's namespaces cannot be made".into())) }
        }
    }
}

/// The namespaces of one sample, its pid and user namespaces apart. In its cgroup namespace its own group is the root.
pub(crate) fn sample_namespaces(cgroup: bool) -> CloneFlags {
    let own = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
    if cgroup { own | CloneFlags::CLONE_NEWCGROUP } else { own }
}

fn enter_namespaces(root: &[Entry], library: &Path) -> Result<()> {
    // Held open because the new root has no /proc; closed before the interpreter starts (O_CLOEXEC).
    let proc = File::open("/proc").step("open /proc")?;
    let as_root =
        nix::unistd::geteuid().is_root() && sys::has_sys_admin() && unshare(CloneFlags::CLONE_NEWNS).is_ok();
    if as_root {
        // The host's root sees interpreters below folders that only root may enter; then it becomes nobody in particular.
        mounts::enter_root(root, library)?;
        sys::become_user(SANDBOX_USER).step("become the sandbox's user")?;
        prctl::set_dumpable(true).step("own our /proc entries again")?;
    } else {
        let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS).step("make a user namespace")?;
        map_ids(&proc, uid, gid)?;
        mounts::enter_root(root, library)?;
    }
    // The second user namespace owns none of the mounts above, so they are locked: nothing in it can take one away.
    let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    unshare(
        CloneFlags::CLONE_NEWUSER
            | CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWPID
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWUTS,
    )
    .step("make the namespaces")?;
    map_ids(&proc, uid, gid)?;
    nix::unistd::sethostname("sandbox").step("set the host name")
}

/// Maps the only user and group of a fresh user namespace: 0 inside to `uid` and `gid` outside.
fn map_ids(proc: &File, uid: u32, gid: u32) -> Result<()> {
    for (file, text) in [
        ("self/setgroups", "deny".to_owned()),
        ("self/uid_map", format!("0 {uid} 1")),
        ("self/gid_map", format!("0 {gid} 1")),
    ] {
        let step = || format!("write /proc/{file}");
        let opened =
            openat(proc.as_fd(), file, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty()).step(step())?;
        File::from(opened).write_all(text.as_bytes()).step(step())?;
    }
    Ok(())
}

/// One thread per library: the interpreter will be forked, and threads do not survive that.
const ENVIRONMENT: &[(&str, &str)] = &[
    ("PATH", "/usr/bin:/bin"),
    ("HOME", mounts::SCRATCH),
    ("TMPDIR", mounts::SCRATCH),
    ("USER", "nobody"),
    ("LOGNAME", "nobody"),
    ("LANG", "C.UTF-8"),
    ("PYTHONHASHSEED", "0"),
    ("PYTHONDONTWRITEBYTECODE", "1"),
    ("PYTHONNOUSERSITE", "1"),
    ("OPENBLAS_NUM_THREADS", "1"),
    ("OMP_NUM_THREADS", "1"),
    ("MKL_NUM_THREADS", "1"),
    ("NUMEXPR_NUM_THREADS", "1"),
    ("NUMEXPR_MAX_THREADS", "1"),
    ("ARROW_NUM_THREADS", "1"),
    ("VECLIB_MAXIMUM_THREADS", "1"),
    ("TOKENIZERS_PARALLELISM", "false"),
    ("MALLOC_ARENA_MAX", "1"),
    ("MPLBACKEND", "Agg"),
];

fn exec_python(config: &Config) -> Result<Infallible> {
    let library = match config.tier {
        Tier::T3 => config.library.clone(),
        _ => PathBuf::from(mounts::LIBRARY_PATH),
    };
    // Everything after that line is Rust (zygote.rs); PyDLL keeps the GIL held.
    let boot =
        format!("import ctypes\nctypes.PyDLL({:?}).evald_zygote_main()", library.display().to_string());
    let c_string = |bytes: &[u8]| CString::new(bytes).step("pass a text with a null byte to the interpreter");
    let mut environment = Vec::new();
    for (name, value) in ENVIRONMENT {
        environment.push(c_string(format!("{name}={value}").as_bytes())?);
    }
    if !config.paths.is_empty() {
        let joined = std::env::join_paths(&config.paths)
            .map_err(|cause| Error::Host(format!("a --path cannot be part of PYTHONPATH: {cause}")))?;
        environment.push(c_string(&[b"PYTHONPATH=", joined.as_bytes()].concat())?);
    }
    // See `shim`. A path that cannot stand in that list leaves samples without named semaphores.
    let library = library.as_os_str().as_bytes();
    if config.tier == Tier::T3 && !library.iter().any(|byte| b" :".contains(byte)) {
        environment.push(c_string(&[b"LD_PRELOAD=", library].concat())?);
    }
    let python = c_string(config.python.as_os_str().as_bytes())?;
    let arguments = [python.clone(), c_string(b"-B")?, c_string(b"-c")?, c_string(boot.as_bytes())?];
    nix::unistd::execve(&python, &arguments, &environment).step(format!("run {}", config.python.display()))
}
