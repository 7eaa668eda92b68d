//! The warm interpreter: a master per environment that imports the libraries once, a slot per core forked from it, and
//! a sample per job forked from a slot.
//!
//! This runs inside CPython (see `frame::exec_python`), on its only thread, with the GIL held throughout. Descriptor 0
//! is the control socket: the master's, then in each slot the slot's own.

use std::ffi::c_int;
use std::io::{IoSliceMut, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl;
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use evald_proto::Verdict;

use crate::cgroup::Membership;
use crate::message::{
    MAX_PACKET_BYTES, MAX_PACKET_DESCRIPTORS, Ready, Setup, SlotJob, SlotSays, read_frame, write_frame,
};
use crate::mounts::{self, Entry};
use crate::python::{Code, Python};
use crate::record::Nonce;
use crate::sample::{self, Sample};
use crate::seccomp::Filters;
use crate::supervise::{Watched, watch};
use crate::sys;
use crate::tier::Tier;

/// The walls of an environment's samples.
pub struct Plan {
    /// The tier.
    pub tier: Tier,
    /// Whether to confine files by Landlock.
    pub landlock: bool,
    /// Folders a sample may read, for Landlock.
    pub readable: Vec<PathBuf>,
    /// What a sample's private folder hides and must show again (not in T3).
    pub kept: Vec<Entry>,
    /// In T3, the folder in which samples get theirs.
    pub scratch: PathBuf,
}

const CONTROL_FD: RawFd = 0;

/// What the warm interpreter's boot line calls; it returns only when it was called a second time, by a candidate.
///
/// # Safety
/// The caller is the only thread of a CPython process and holds the GIL (`ctypes.PyDLL`).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evald_zygote_main() -> c_int {
    static CALLED: AtomicBool = AtomicBool::new(false);
    if CALLED.swap(true, Ordering::SeqCst) {
        return -1;
    }
    // SAFETY: the caller's promise.
    let outcome = unsafe { Python::attach() }.and_then(|python| master(&python));
    if let Err(reason) = &outcome {
        let ready = Ready { error: Some(reason.clone()) };
        send_packet(&ready).ok();
    }
    sys::exit_now(if outcome.is_ok() { 0 } else { 1 })
}

fn send_packet(ready: &Ready) -> Result<(), String> {
    let bytes = serde_json::to_vec(ready).map_err(|error| error.to_string())?;
    // SAFETY: pointer and length describe a live buffer.
    let sent = unsafe { libc::send(CONTROL_FD, bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL) };
    if sent < 0 { Err(std::io::Error::last_os_error().to_string()) } else { Ok(()) }
}

/// One packet and the descriptors that came with it; `None` when the daemon has hung up.
fn receive_packet(buffer: &mut [u8]) -> Result<Option<(usize, Vec<OwnedFd>)>, String> {
    let mut space = nix::cmsg_space!([RawFd; MAX_PACKET_DESCRIPTORS]);
    let mut slices = [IoSliceMut::new(buffer)];
    let message = loop {
        match recvmsg::<()>(CONTROL_FD, &mut slices, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC) {
            Err(nix::errno::Errno::EINTR) => {}
            other => break other.map_err(|error| format!("cannot hear the daemon: {error}"))?,
        }
    };
    let mut passed: Vec<OwnedFd> = Vec::new();
    for control in message.cmsgs().map_err(|error| error.to_string())? {
        if let ControlMessageOwned::ScmRights(fds) = control {
            // SAFETY: the kernel has just installed these descriptors for us; nobody else owns them.
            passed.extend(fds.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    Ok(if message.bytes == 0 && passed.is_empty() { None } else { Some((message.bytes, passed)) })
}

/// Freezes what has been imported (a collection in a sample then touches, and copies, none of it), and empties
/// `__main__`, the only Python frame below a candidate.
const SETTLE: &str = "import gc, sys
sys.path[:] = [path for path in sys.path if path]
sys.argv[:] = ['']
main = vars(sys.modules['__main__'])
for name in [name for name in main if not name.startswith('__')]:
    del main[name]
gc.collect()
gc.freeze()
";

/// `random` reseeds itself after a fork; numpy's and torch's global generators do not.
const RESEED: &str = "import os, sys
seed = int.from_bytes(os.urandom(4), 'little')
numpy_random = sys.modules.get('numpy.random')
if numpy_random is not None:
    numpy_random.seed(seed)
torch = sys.modules.get('torch')
if torch is not None and hasattr(torch, 'manual_seed'):
    torch.manual_seed(seed)
";

fn master(python: &Python) -> Result<(), String> {
    prctl::set_pdeathsig(Signal::SIGKILL)
        .map_err(|error| format!("cannot set the parent-death signal: {error}"))?;
    let mut buffer = vec![0u8; MAX_PACKET_BYTES];
    let Some((length, _)) = receive_packet(&mut buffer)? else { return Ok(()) };
    let setup: Setup = serde_json::from_slice(&buffer[..length])
        .map_err(|error| format!("the daemon sent no setup: {error}"))?;
    for module in &setup.preload {
        python.import(module).map_err(|raised| format!("cannot import {module}: {}", raised.text))?;
    }
    let settle = python.compile(SETTLE, "<settle>").map_err(|raised| raised.text)?;
    let namespace = python.namespace().ok_or("no memory for a namespace")?;
    python
        .run(settle, namespace)
        .map_err(|raised| format!("cannot settle the interpreter: {}", raised.text))?;
    let reseed = python.compile(RESEED, "<reseed>").map_err(|raised| raised.text)?;
    let readable = if setup.tier.has_namespaces() { vec![PathBuf::from("/")] } else { setup.readable };
    let plan = Plan {
        tier: setup.tier,
        landlock: setup.landlock,
        readable,
        kept: setup.kept,
        scratch: setup.scratch,
    };
    // Our children are slots; their end needs no attention (the daemon sees their sockets close).
    // SAFETY: SIG_IGN runs no code of ours.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) }.map_err(|error| error.to_string())?;
    send_packet(&Ready::default())?;
    loop {
        let Some((_, passed)) = receive_packet(&mut buffer)? else { return Ok(()) };
        let mut passed = passed.into_iter();
        let Some(socket) = passed.next() else { return Ok(()) };
        match python.fork().map_err(|error| format!("cannot fork a slot: {error}"))? {
            Some(_) => {}
            None => {
                let ended = slot(python, &plan, reseed, socket, Membership::adopt(passed));
                sys::exit_now(if ended.is_ok() { 0 } else { 1 });
            }
        }
    }
}

fn slot(
    python: &Python,
    plan: &Plan,
    reseed: Code,
    socket: OwnedFd,
    membership: Option<Membership>,
) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(|error| error.to_string())?;
    // SAFETY: SIG_DFL runs no code of ours.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) }.map_err(|error| error.to_string())?;
    sys::dup2(socket.as_raw_fd(), CONTROL_FD).map_err(text)?;
    drop(socket);
    // SAFETY: descriptor 0 is the slot's socket now, and this is its only owner.
    let control = unsafe { UnixStream::from_raw_fd(CONTROL_FD) };
    let filters = if plan.tier.has_namespaces() { Some(Filters::compile(plan.tier, 1)?) } else { None };
    write_frame(&control, &Ready::default()).map_err(text)?;
    let mut count = 0u64;
    while let Some(job) = read_frame::<SlotJob>(&control).map_err(text)? {
        count += 1;
        let scratch = scratch_folder(plan, count).map_err(text)?;
        let warm = Warm { python, plan, filters: filters.as_ref(), reseed, membership: membership.as_ref() };
        let report = one_sample(&warm, &job, &scratch, &control).map_err(text);
        if plan.tier == Tier::T3 {
            remove_tree(&scratch);
        }
        match report? {
            Some(mut report) => {
                let failed = report.verdict == Some(Verdict::InfraError);
                let mut output = std::mem::take(&mut report.output);
                write_frame(&control, &SlotSays::Ended(report)).map_err(text)?;
                (&control).write_all(&output).map_err(text)?;
                // The next sample inherits this memory.
                output.fill(0);
                std::hint::black_box(&mut output);
                // A sample that did not get as far as reading its texts has left them on the stream.
                if failed {
                    return Ok(());
                }
            }
            None => return Ok(()),
        }
    }
    Ok(())
}

struct Warm<'a> {
    python: &'a Python,
    plan: &'a Plan,
    filters: Option<&'a Filters>,
    reseed: Code,
    membership: Option<&'a Membership>,
}

fn one_sample(
    warm: &Warm<'_>,
    job: &SlotJob,
    scratch: &Path,
    control: &UnixStream,
) -> std::io::Result<Option<crate::message::SlotReport>> {
    let nonce: Nonce = sys::random_bytes()?;
    let (record, record_end) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    let (output, output_end) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    let begun = Instant::now();
    // Told from the last sample's by what was counted before this one.
    let counted = warm.membership.map(Membership::counts).transpose()?;
    let group = warm.membership.zip(counted);
    if warm.plan.tier.has_namespaces() {
        fresh_pid_namespace()?;
    }
    let slot = std::process::id();
    match warm.python.fork()? {
        None => sample::run(&Sample {
            python: warm.python,
            plan: warm.plan,
            filters: warm.filters,
            membership: warm.membership,
            reseed: warm.reseed,
            job,
            control,
            scratch,
            nonce,
            slot,
            record: record_end.as_raw_fd(),
            output: output_end.as_raw_fd(),
        }),
        Some(pid) => {
            drop((record_end, output_end));
            let tier = warm.plan.tier;
            let (limits, keep_output) = (&job.limits, job.keep_output);
            let watched = Watched { pid, record, output, nonce, limits, keep_output, tier, group, begun };
            watch(watched, control)
        }
    }
}

/// The next fork becomes pid 1 of a new pid namespace.
///
/// The last sample's namespace died with it; the way back to our own goes through a handle on ourselves (the frame has
/// no /proc), and from there a new one can be made.
fn fresh_pid_namespace() -> std::io::Result<()> {
    let myself = sys::pidfd_open(std::process::id() as i32)?;
    setns(myself.as_fd(), CloneFlags::CLONE_NEWPID)?;
    unshare(CloneFlags::CLONE_NEWPID)?;
    Ok(())
}

fn scratch_folder(plan: &Plan, count: u64) -> std::io::Result<PathBuf> {
    if plan.tier.has_namespaces() {
        return Ok(PathBuf::from(mounts::SCRATCH));
    }
    use std::os::unix::fs::DirBuilderExt;
    let folder = plan.scratch.join(format!("{}-{count}", std::process::id()));
    std::fs::DirBuilder::new().mode(0o700).create(&folder)?;
    Ok(folder)
}

/// Removes a T3 sample's folder and all in it, also where the sample has taken away its own permissions. Links are not followed.
pub(crate) fn remove_tree(folder: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let mut todo = vec![folder.to_path_buf()];
    while let Some(folder) = todo.pop() {
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o700)).ok();
        let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        todo.extend(
            entries
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .map(|entry| entry.path()),
        );
    }
    if let Err(error) = std::fs::remove_dir_all(folder) {
        // Standard error goes to the daemon's log.
        writeln!(std::io::stderr(), "cannot remove {}: {error}", folder.display()).ok();
    }
}
