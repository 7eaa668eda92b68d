//! The sample's side: from the fork to the record. Runs in the warm interpreter's copy; nothing untrusted has run yet
//! when [`run`] is entered, and nothing of it returns.

use std::io::Read;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::Signal;

use crate::cgroup::Membership;
use crate::cpython::Cpython;
use crate::frame::sample_namespaces;
use crate::judging::{self, End, Texts};
use crate::limits;
use crate::message::SlotJob;
use crate::mounts;
use crate::record::{self, Kind, Nonce};
use crate::seccomp::Filters;
use crate::sys;
use crate::tier::Tier;
use crate::zygote::Plan;

/// What walls a sample in.
#[derive(Clone, Copy)]
pub struct Walls<'a> {
    /// Which ones.
    pub plan: &'a Plan,
    /// The filters, compiled before the fork (not in T3, where they hold the sample's pid).
    pub filters: Option<&'a Filters>,
    /// Its cgroup (T0, T1).
    pub membership: Option<&'a Membership>,
}

/// What a sample inherits from its slot.
pub struct Sample<'a> {
    /// Walls.
    pub walls: Walls<'a>,
    /// Its limits, and how long its texts are.
    pub job: &'a SlotJob,
    /// Where its texts wait to be read.
    pub control: &'a UnixStream,
    /// Its private folder.
    pub scratch: &'a Path,
    /// The harness's secret.
    pub nonce: Nonce,
    /// The slot's process.
    pub slot: u32,
    /// Write end of the record's pipe.
    pub record: RawFd,
    /// Write end of the output's pipe.
    pub output: RawFd,
    /// The line to the candidate's or the judge's sample.
    pub line: Option<RawFd>,
}

/// Where the record's pipe ends up. Low on purpose: a candidate that writes to descriptors blindly hits it, and shows.
const RECORD_FD: RawFd = 3;
/// Where the line ends up: beyond what a sample may open.
const LINE_FD: RawFd = 4096 + 128;

/// Raises the walls, runs code and test, writes the record and ends the process.
pub fn run(python: &mut impl Cpython, sample: &Sample<'_>) -> ! {
    // Until the descriptors are in place, a failure can only be told by ending without a record.
    // Before the texts, so that all of its memory is its group's; told below, where there is a way to.
    let joined = sample.walls.membership.map_or(Ok(()), Membership::join);
    let Ok(texts) = read_texts(sample) else { sys::exit_now(70) };
    if arrange_descriptors(sample).is_err() {
        sys::exit_now(70);
    }
    let report = |kind, value, text: &str| {
        let bytes = record::encode(&sample.nonce, kind, value, text);
        // SAFETY: pointer and length describe a live buffer. One write below PIPE_BUF is whole or absent.
        unsafe { libc::write(RECORD_FD, bytes.as_ptr().cast(), bytes.len()) };
    };
    let joined = joined.map_err(|error| format!("cannot join the sample's cgroup: {error}"));
    if let Err(reason) = joined.and_then(|()| raise_walls(sample)) {
        report(Kind::Broken, 0, &reason);
        sys::exit_now(71);
    }
    if let Err(raised) = python.reseed() {
        report(Kind::Broken, 0, &format!("cannot reseed the random generators: {}", raised.text));
        sys::exit_now(71);
    }
    python.limit(&sample.job.limits);
    let used = sys::process_cpu_time(0).unwrap_or_default();
    report(Kind::Start, used.as_nanos() as u64, "");
    let ready = || report(Kind::Ready, 0, "");
    match judging::run(python, sample.job, &texts, LINE_FD, ready) {
        Ok(text) => report(Kind::Passed, 0, &text),
        // As if it had been a process: there is no record.
        Err(End::Exit(status)) => sys::exit_now(status),
        Err(End::Told(kind, text)) => report(kind, 0, &text),
    }
    // No atexit handler, destructor or buffered output of the candidate gets another turn.
    sys::exit_now(0)
}

fn read_texts(sample: &Sample<'_>) -> std::io::Result<Texts> {
    let read = |bytes: u64| -> std::io::Result<String> {
        let mut text = String::new();
        let got = sample.control.take(bytes).read_to_string(&mut text)?;
        if got as u64 == bytes { Ok(text) } else { Err(std::io::ErrorKind::UnexpectedEof.into()) }
    };
    Ok(Texts { code: read(sample.job.code_bytes)?, test: read(sample.job.test_bytes)? })
}

fn arrange_descriptors(sample: &Sample<'_>) -> std::io::Result<()> {
    let null = std::fs::File::options().read(true).write(true).open("/dev/null")?;
    sys::dup2(null.as_raw_fd(), 0)?;
    sys::dup2(sample.output, 1)?;
    sys::dup2(sample.output, 2)?;
    sys::dup2(sample.record, RECORD_FD)?;
    // `null` goes with the rest; it must not be closed a second time.
    std::mem::forget(null);
    let Some(line) = sample.line else { return sys::close_range(RECORD_FD + 1, u32::MAX) };
    sys::dup2(line, LINE_FD)?;
    sys::close_range(RECORD_FD + 1, LINE_FD as u32 - 1)?;
    sys::close_range(LINE_FD + 1, u32::MAX)
}

fn raise_walls(sample: &Sample<'_>) -> Result<(), String> {
    let named = |step: &'static str| move |error: std::io::Error| format!("cannot {step}: {error}");
    nix::unistd::setsid().map_err(|error| format!("cannot start a session: {error}"))?;
    prctl::set_pdeathsig(Signal::SIGKILL)
        .map_err(|error| format!("cannot set the parent-death signal: {error}"))?;
    // The slot may have died before that. In a pid namespace, which has no parent to see, the kernel ends us with it.
    if !sample.walls.plan.tier.has_namespaces() && std::os::unix::process::parent_id() != sample.slot {
        sys::exit_now(70);
    }
    let limits = &sample.job.limits;
    // T4 has none: its programs see no file of this process's.
    let scratch = (sample.walls.plan.tier != Tier::T4).then_some(sample.scratch);
    if sample.walls.plan.tier.has_namespaces() {
        unshare(sample_namespaces(sample.walls.membership.is_some()))
            .map_err(|error| format!("cannot make the sample's namespaces: {error}"))?;
        mounts::mount_scratch(limits.disk_bytes, limits.inodes, &sample.walls.plan.kept)
            .map_err(named("mount the private folder"))?;
        // A user namespace of its own, with no user mapped: the kernel counts its threads apart from everybody's.
        unshare(CloneFlags::CLONE_NEWUSER)
            .map_err(|error| format!("cannot make a user namespace: {error}"))?;
    } else if let Some(scratch) = scratch {
        std::env::set_current_dir(scratch).map_err(named("enter the private folder"))?;
    }
    limits::apply(limits, &sample.job.baseline, sample.walls.plan.tier).map_err(named("set the limits"))?;
    sys::drop_capabilities().map_err(named("drop capabilities"))?;
    prctl::set_no_new_privs().map_err(|error| format!("cannot set no_new_privs: {error}"))?;
    if sample.walls.plan.landlock {
        let required = sample.walls.plan.tier == Tier::T3;
        crate::landlock::restrict(&sample.walls.plan.readable, scratch, required)
            .map_err(|error| format!("cannot confine files by Landlock: {error}"))?;
    }
    if !sample.walls.plan.seccomp {
        return Ok(());
    }
    let filters = match sample.walls.filters {
        Some(filters) => filters,
        None => &Filters::compile(sample.walls.plan.tier, std::process::id() as i32)?,
    };
    filters.apply().map_err(|error| format!("cannot install the system-call filter: {error}"))
}
