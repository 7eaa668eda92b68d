//! The warm interpreter: a master per environment that imports the libraries once, a slot per core forked from it, and
//! a sample per job forked from a slot.
//!
//! This runs inside CPython (see `frame::exec_python`), on its only thread, with the GIL held throughout. Descriptor 0
//! is the control socket: the master's, then in each slot the slot's own.

use std::ffi::c_int;
use std::io::{IoSliceMut, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl;
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, socketpair,
};

use evald_proto::Verdict;

use crate::cgroup::Membership;
use crate::cpython::Cpython;
use crate::init::Init;
use crate::message::{
    MAX_PACKET_BYTES, MAX_PACKET_DESCRIPTORS, Ready, Role, Setup, SlotJob, SlotSays, receive_job, write_frame,
};
use crate::mounts::{self, Entry};
use crate::python::{Python, Warm};
use crate::record::Nonce;
use crate::sample::{self, Sample, Walls};
use crate::seccomp::{Filters, Policy};
use crate::supervise::{Pipes, Watched, watch};
use crate::sys;
use crate::tier::Tier;
use crate::{family, landlock, network};

/// The walls of an environment's samples.
pub struct Plan {
    /// The tier.
    pub tier: Tier,
    /// Whether samples keep the capability to read what modes forbid (see [`crate::frame::Config::reads_all`]).
    pub reads_all: bool,
    /// Version of Landlock, where files are to be confined by it.
    pub landlock: Option<i64>,
    /// Whether to filter system calls.
    pub seccomp: bool,
    /// Folders a sample may read, for Landlock.
    pub readable: Vec<PathBuf>,
    /// What a sample's private folder hides and must show again (not in T3).
    pub kept: Vec<Entry>,
    /// In T3, the folder in which samples get theirs.
    pub scratch: PathBuf,
}

impl Plan {
    /// As the daemon wants it.
    pub(crate) fn of(setup: Setup) -> Self {
        let readable = if setup.tier.has_namespaces() { vec![PathBuf::from("/")] } else { setup.readable };
        Self {
            tier: setup.tier,
            reads_all: setup.reads_all,
            landlock: setup.landlock,
            seccomp: setup.seccomp,
            readable,
            kept: setup.kept,
            scratch: setup.scratch,
        }
    }

    /// Whether nothing but a filter that names its process keeps a sample from signalling others.
    pub(crate) fn names_signals(&self) -> bool {
        self.tier == Tier::T3 && self.landlock.is_none_or(|version| version < landlock::SCOPES)
    }
}

const CONTROL_FD: RawFd = 0;
/// What the names of T3 samples' folders end in that nobody uses any more.
pub(crate) const LEFT: &str = "left";

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
    let outcome = unsafe { Python::attach() }.and_then(master);
    if let Err(reason) = &outcome {
        refuse(reason.clone());
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

/// Imports what the daemon says, and serves it.
fn master(python: Python) -> Result<(), String> {
    let Some(setup) = receive_setup()? else { return Ok(()) };
    let mut warm = Warm::up(python, &setup.preload)?;
    serve(&mut warm, Plan::of(setup))
}

/// What the daemon wants of this environment; `None` when it has hung up.
pub(crate) fn receive_setup() -> Result<Option<Setup>, String> {
    prctl::set_pdeathsig(Signal::SIGKILL)
        .map_err(|error| format!("cannot set the parent-death signal: {error}"))?;
    let mut buffer = vec![0u8; MAX_PACKET_BYTES];
    let Some((length, _)) = receive_packet(&mut buffer)? else { return Ok(None) };
    serde_json::from_slice(&buffer[..length])
        .map(Some)
        .map_err(|error| format!("the daemon sent no setup: {error}"))
}

/// Tells the daemon why there will be no slots.
pub(crate) fn refuse(reason: String) {
    send_packet(&Ready { error: Some(reason) }).ok();
}

/// The life of a master: a slot for each packet of the daemon's, until it hangs up.
pub(crate) fn serve(python: &mut impl Cpython, plan: Plan) -> Result<(), String> {
    // Our children are slots; their end needs no attention (the daemon sees their sockets close).
    // SAFETY: SIG_IGN runs no code of ours.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) }.map_err(|error| error.to_string())?;
    let mut guarded = (plan.tier == Tier::T3).then(Slots::guard).transpose()?;
    send_packet(&Ready::default())?;
    let mut buffer = vec![0u8; MAX_PACKET_BYTES];
    let master = std::process::id();
    loop {
        if let Some(slots) = &mut guarded {
            slots.until_a_packet()?;
        }
        let packet = receive_packet(&mut buffer)?;
        let mut passed = packet.map(|(_, passed)| passed).unwrap_or_default().into_iter();
        let Some(socket) = passed.next() else { break };
        match python.fork().map_err(|error| format!("cannot fork a slot: {error}"))? {
            Some(pid) => {
                if let Some(slots) = &mut guarded {
                    slots.add(pid)?;
                }
            }
            None => {
                let ended = slot(python, &plan, master, socket, Membership::adopt(passed));
                sys::exit_now(if ended.is_ok() { 0 } else { 1 });
            }
        }
    }
    match guarded {
        Some(_) => family::end().map(drop).map_err(|error| error.to_string()),
        None => Ok(()),
    }
}

/// The slots of a T3 master, which ends what killed ones leave, and all of them when the daemon has gone.
struct Slots {
    living: Vec<(u32, OwnedFd)>,
    /// So many looks are to come at what a slot that has ended has left.
    looks: u32,
}

/// A look may miss somebody (see [`family::kill_but`]).
const CLEAN_LOOKS: u32 = 3;
const NEXT_LOOK_MS: u8 = 10;

impl Slots {
    fn guard() -> Result<Self, String> {
        family::gather().map_err(|error| error.to_string())?;
        // Killed with the daemon, it could end nothing: from here on it hears of that at the control socket.
        prctl::set_pdeathsig(None).map_err(|error| error.to_string())?;
        Ok(Self { living: Vec::new(), looks: 0 })
    }

    fn add(&mut self, pid: i32) -> Result<(), String> {
        match sys::pidfd_open(pid) {
            Ok(handle) => self.living.push((pid as u32, handle)),
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => self.looks = CLEAN_LOOKS,
            Err(error) => return Err(error.to_string()),
        }
        Ok(())
    }

    /// Guards until the daemon has sent a packet, or hung up.
    fn until_a_packet(&mut self) -> Result<(), String> {
        loop {
            // SAFETY: the control socket is open for as long as this process lives.
            let control = unsafe { BorrowedFd::borrow_raw(CONTROL_FD) };
            let handles = self.living.iter().map(|(_, handle)| handle.as_fd());
            let mut fds: Vec<PollFd<'_>> =
                [control].into_iter().chain(handles).map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
            let patience = if self.looks > 0 { PollTimeout::from(NEXT_LOOK_MS) } else { PollTimeout::NONE };
            match poll(&mut fds, patience) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error.to_string()),
            }
            let mut told = fds.iter().map(|fd| fd.any().unwrap_or(false));
            let packet = told.next().unwrap_or(false);
            let ended: Vec<bool> = told.collect();
            drop(fds);
            if ended.contains(&true) {
                let mut ended = ended.into_iter();
                self.living.retain(|_| !ended.next().unwrap_or(false));
                self.looks = CLEAN_LOOKS;
            }
            if self.looks > 0 {
                let slots: Vec<u32> = self.living.iter().map(|(pid, _)| *pid).collect();
                self.looks = if family::kill_but(&slots) > 0 { CLEAN_LOOKS } else { self.looks - 1 };
            }
            if packet {
                return Ok(());
            }
        }
    }
}

/// A T3 slot has a family to end when its master dies, and does so (see [`Watched::master`]); others, and one without a
/// family, go with it.
fn die_with_the_master(master: u32) -> Result<(), String> {
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(|error| error.to_string())?;
    // In a pid namespace, whose first process it is, the kernel does that.
    if std::os::unix::process::parent_id() == master { Ok(()) } else { Err("the master has gone".into()) }
}

fn slot(
    python: &mut impl Cpython,
    plan: &Plan,
    master: u32,
    socket: OwnedFd,
    membership: Option<Membership>,
) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    die_with_the_master(master)?;
    // SAFETY: SIG_DFL runs no code of ours.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) }.map_err(|error| error.to_string())?;
    sys::dup2(socket.as_raw_fd(), CONTROL_FD).map_err(text)?;
    drop(socket);
    // SAFETY: descriptor 0 is the slot's socket now, and this is its only owner.
    let control = unsafe { UnixStream::from_raw_fd(CONTROL_FD) };
    if plan.tier.has_namespaces() {
        network::fresh().map_err(|error| format!("cannot make the samples' network: {error}"))?;
    }
    if plan.tier == Tier::T3 {
        family::gather().map_err(text)?;
    }
    let mut filters = Compiled::default();
    write_frame(&control, &Ready::default()).map_err(text)?;
    let mut count = 0u64;
    while let Some((job, line)) = receive_job(&control).map_err(text)? {
        count += 1;
        let scratch = scratch_folder(plan, count).map_err(text)?;
        let filters = filters.of(plan, job.limits.allow_processes)?;
        let walls = Walls { plan, filters, membership: membership.as_ref() };
        if plan.tier == Tier::T3 {
            prctl::set_pdeathsig(None).map_err(|error| error.to_string())?;
        }
        let report = one_sample(python, walls, &job, line, &scratch, &control, master).map_err(text);
        if plan.tier == Tier::T3 {
            die_with_the_master(master)?;
            // How long it takes depends on what the sample left: another thread of the daemon's does it.
            std::fs::rename(&scratch, scratch.with_extension(LEFT)).map_err(text)?;
        }
        match report? {
            Some(mut report) => {
                if report.used_network {
                    network::fresh().map_err(|error| format!("cannot make the samples' network: {error}"))?;
                }
                let failed = report.verdict == Some(Verdict::InfraError);
                let mut said = std::mem::take(&mut report.said);
                write_frame(&control, &SlotSays::Ended(report)).map_err(text)?;
                for bytes in &mut said {
                    (&control).write_all(bytes).map_err(text)?;
                    // The next sample inherits this memory.
                    bytes.fill(0);
                    std::hint::black_box(bytes);
                }
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

/// The filters of samples, each kind compiled when it is first needed.
#[derive(Default)]
struct Compiled {
    /// By whether further processes are allowed.
    filters: [Option<Filters>; 2],
}

impl Compiled {
    /// `None`: this sample gets none, or some that name its own process.
    fn of(&mut self, plan: &Plan, processes: bool) -> Result<Option<&Filters>, String> {
        if !plan.seccomp || plan.names_signals() {
            return Ok(None);
        }
        let filters = &mut self.filters[usize::from(processes)];
        if filters.is_none() {
            *filters = Some(Filters::compile(Policy { tier: plan.tier, processes, signals: None })?);
        }
        Ok(filters.as_ref())
    }
}

fn one_sample(
    python: &mut impl Cpython,
    walls: Walls<'_>,
    job: &SlotJob,
    line: Option<OwnedFd>,
    scratch: &Path,
    control: &UnixStream,
    master: u32,
) -> std::io::Result<Option<crate::message::SlotReport>> {
    let nonce: Nonce = sys::random_bytes()?;
    let begun = Instant::now();
    // Counted before this sample, to be told from what the last one did.
    let counted = walls.membership.map(Membership::counts).transpose()?;
    let group = walls.membership.zip(counted);
    // Before there is any pipe that it could keep open.
    let init = if walls.plan.tier.has_namespaces() {
        fresh_pid_namespace()?;
        Some(Init::start()?)
    } else {
        None
    };
    let (record, record_end) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    let program = job.role == Role::Program;
    let pipes = (0..if program { 3 } else { 1 }).map(|_| nix::unistd::pipe2(OFlag::O_CLOEXEC));
    let (outputs, output_ends): (Vec<_>, Vec<_>) = pipes.collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
    let (handover, handover_end) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    let slot = std::process::id();
    match python.fork()? {
        None => {
            let record = record_end.as_raw_fd();
            let outputs: Vec<_> = output_ends.iter().map(AsRawFd::as_raw_fd).collect();
            let line = line.as_ref().map(AsRawFd::as_raw_fd);
            let handover = handover_end.as_raw_fd();
            let sample = Sample {
                walls,
                job,
                control,
                scratch,
                nonce,
                slot,
                record,
                outputs: &outputs,
                handover,
                line,
            };
            sample::run(python, &sample)
        }
        Some(pid) => {
            // The line, too: each end hears when the other has gone.
            drop((record_end, output_ends, handover_end, line));
            let tier = walls.plan.tier;
            let watched = Watched {
                pid,
                pipes: Pipes { record, outputs, handover },
                nonce,
                limits: &job.limits,
                keep_output: job.keep_output || program,
                program,
                tier,
                group,
                init,
                scratch,
                begun,
                master: (tier == Tier::T3).then_some(master),
            };
            watch(watched, control)
        }
    }
}

/// The next fork begins a new pid namespace, in which those after it are.
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
    match plan.tier {
        Tier::T3 => {}
        Tier::T4 => return Ok(PathBuf::new()),
        _ => return Ok(PathBuf::from(mounts::SCRATCH)),
    }
    use std::os::unix::fs::DirBuilderExt;
    let folder = plan.scratch.join(format!("{}-{count}", std::process::id()));
    std::fs::DirBuilder::new().mode(0o700).create(&folder)?;
    Ok(folder)
}
