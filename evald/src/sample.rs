//! The sample's side: from the fork to the record. Runs in the warm interpreter's copy; nothing untrusted has run yet
//! when [`run`] is entered, and nothing of it returns.

use std::io::{IoSlice, Read};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use crate::cgroup::Membership;
use crate::cpython::Cpython;
use crate::frame::sample_namespaces;
use crate::judging::{self, End, Texts};
use crate::limits;
use crate::message::{Role, SlotJob};
use crate::mounts;
use crate::program;
use crate::record::{self, Kind, Nonce};
use crate::seccomp::{Filters, Policy};
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
    /// Write ends of the output's pipes (see [`crate::supervise::Pipes::outputs`]).
    pub outputs: &'a [RawFd],
    /// Where the slot waits for the end at which it answers asked calls.
    pub handover: RawFd,
    /// The line to the candidate's or the judge's sample.
    pub line: Option<RawFd>,
}

/// A second end of the record's pipe. Low on purpose: a candidate that writes to descriptors blindly hits it, and shows.
/// One that closes them closes no more than this.
const BAIT_FD: RawFd = 3;
/// Beyond all that a sample may open, so that nobody who closes what he may have opened closes it.
const RECORD_FD: RawFd = 4096 + 64;

/// Raises the walls, runs code and test, writes the record and ends the process.
pub fn run(python: &mut impl Cpython, sample: &Sample<'_>) -> ! {
    // Until the descriptors are in place, a failure can only be told by ending without a record.
    // Before the texts, so that all of its memory is its group's; told below, where there is a way to.
    let joined = sample.walls.membership.map_or(Ok(()), Membership::join);
    let Ok(texts) = read_texts(sample) else { sys::exit_now(70) };
    let Ok(Descriptors { record, handover, line, files }) = arrange_descriptors(sample, &texts) else {
        sys::exit_now(70)
    };
    // In T4 no process can be forked, and behind its walls none can ask for its number.
    let number = || (sample.walls.plan.tier != Tier::T4).then(std::process::id);
    let myself = number();
    let report = |kind, value, text: &str| {
        // What a candidate has forked comes this way too, where it does not end by itself: it has nothing to say.
        if number() != myself {
            sys::exit_now(0);
        }
        let bytes = record::encode(&sample.nonce, kind, value, text);
        // SAFETY: pointer and length describe a live buffer. One write below PIPE_BUF is whole or absent.
        unsafe { libc::write(record, bytes.as_ptr().cast(), bytes.len()) };
    };
    let joined = joined.map_err(|error| format!("cannot join the sample's cgroup: {error}"));
    if let Err(reason) = joined.and_then(|()| raise_walls(sample, handover)) {
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
    // Compiled before the candidate runs: in T4 nothing is afterwards.
    let flush = sample.job.keep_output.then(|| judging::flushing(python)).flatten();
    let ended = judging::run(python, sample.job, &texts, line, ready);
    // A machine that has stopped (T4) runs nothing more.
    let stopped = matches!(ended, Err(End::Exit(_) | End::Told(Kind::Crashed, _)));
    if let Some(flush) = flush.filter(|_| !stopped && number() == myself) {
        // Whatever the candidate has put in the place of its streams gets a turn by it, which can cost a pass and make none.
        let harness = python.harness();
        python.run(flush, harness).ok();
    }
    if let Some(given) = &sample.job.given
        && number() == myself
    {
        program::hand_over(&given.fetch, sample.job.limits.output_bytes, files);
    }
    match ended {
        Ok(text) => report(Kind::Passed, 0, &text),
        // As if it had been a process: there is no record.
        Err(End::Exit(status)) => sys::exit_now(status),
        Err(End::Told(kind, text)) => report(kind, judging::exit_status(kind, &text), &text),
    }
    // No atexit handler, destructor or buffered output of the candidate gets another turn.
    sys::exit_now(0)
}

fn read_texts(sample: &Sample<'_>) -> std::io::Result<Texts> {
    let bytes = |length: u64| -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let got = sample.control.take(length).read_to_end(&mut bytes)?;
        if got as u64 == length { Ok(bytes) } else { Err(std::io::ErrorKind::UnexpectedEof.into()) }
    };
    let text = |length| String::from_utf8(bytes(length)?).map_err(std::io::Error::other);
    let (code, test) = (text(sample.job.code_bytes)?, text(sample.job.test_bytes)?);
    let mut texts = Texts { code, test, stdin: Vec::new(), files: Vec::new() };
    if let Some(given) = &sample.job.given {
        texts.stdin = bytes(given.stdin_bytes)?;
        for (path, length) in &given.files {
            texts.files.push((path.clone(), bytes(*length)?));
        }
    }
    Ok(texts)
}

/// What a sample's process has open beside the standard three and the bait.
struct Descriptors {
    record: RawFd,
    handover: OwnedFd,
    line: RawFd,
    files: RawFd,
}

/// Leaves the standard three, the bait and four more, which are returned: the record's pipe, the way to the slot, the line to
/// another sample and the pipe for a program's files, where there are such.
fn arrange_descriptors(sample: &Sample<'_>, texts: &Texts) -> std::io::Result<Descriptors> {
    let input = match sample.job.role {
        Role::Program => program::input(&texts.stdin)?,
        _ => std::fs::File::options().read(true).write(true).open("/dev/null")?,
    };
    // The limit of the host may be lower than what is asked for; the sample's own is set later.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let record = RECORD_FD.min(i32::try_from(most).unwrap_or(i32::MAX) - 4);
    let (handover, line, files) = (record + 1, record + 2, record + 3);
    // Neither goes to a program that the sample becomes or starts.
    sys::dup_away(sample.record, record)?;
    sys::dup_away(sample.handover, handover)?;
    if let Some(other) = sample.line {
        sys::dup_away(other, line)?;
    }
    sys::dup2(input.as_raw_fd(), 0)?;
    let (output, errors) = match *sample.outputs {
        [output, errors, wanted] => {
            sys::dup_away(wanted, files)?;
            (output, errors)
        }
        [output, ..] => (output, output),
        [] => return Err(std::io::ErrorKind::InvalidInput.into()),
    };
    sys::dup2(output, 1)?;
    sys::dup2(errors, 2)?;
    sys::dup2(record, BAIT_FD)?;
    // It goes with the rest; it must not be closed a second time.
    std::mem::forget(input);
    sys::close_range(BAIT_FD + 1, record as u32 - 1)?;
    sys::close_range(files + 1, u32::MAX)?;
    Ok(Descriptors { record, handover: sys::adopt(handover)?, line, files })
}

fn raise_walls(sample: &Sample<'_>, handover: OwnedFd) -> Result<(), String> {
    let named = |step: &'static str| move |error: std::io::Error| format!("cannot {step}: {error}");
    nix::unistd::setsid().map_err(|error| format!("cannot start a session: {error}"))?;
    prctl::set_pdeathsig(Signal::SIGKILL)
        .map_err(|error| format!("cannot set the parent-death signal: {error}"))?;
    let plan = sample.walls.plan;
    // The slot may have died before that. In a pid namespace, which has no parent to see, the kernel ends us with it.
    if !plan.tier.has_namespaces() && std::os::unix::process::parent_id() != sample.slot {
        sys::exit_now(70);
    }
    let limits = &sample.job.limits;
    // T4 has none: its programs see no file of this process's.
    let scratch = (plan.tier != Tier::T4).then_some(sample.scratch);
    let mut device = 0;
    if plan.tier.has_namespaces() {
        unshare(sample_namespaces(sample.walls.membership.is_some()))
            .map_err(|error| format!("cannot make the sample's namespaces: {error}"))?;
        mounts::mount_scratch(limits.disk_bytes, limits.inodes, &plan.kept)
            .map_err(named("mount the private folder"))?;
        device = std::fs::metadata(".").map_err(named("look at the private folder"))?.dev();
        // A user namespace of its own, with no user mapped: the kernel counts its threads apart from everybody's.
        unshare(CloneFlags::CLONE_NEWUSER)
            .map_err(|error| format!("cannot make a user namespace: {error}"))?;
    } else if let Some(scratch) = scratch {
        std::env::set_current_dir(scratch).map_err(named("enter the private folder"))?;
    }
    limits::apply(limits, &sample.job.baseline, plan.tier).map_err(named("set the limits"))?;
    sys::drop_capabilities(plan.reads_all).map_err(named("drop capabilities"))?;
    prctl::set_no_new_privs().map_err(|error| format!("cannot set no_new_privs: {error}"))?;
    if plan.landlock.is_some() {
        let access = crate::landlock::Access {
            readable: &plan.readable,
            execute: limits.allow_processes,
            scratch,
            required: plan.tier == Tier::T3,
            own_network: plan.tier.has_namespaces(),
        };
        crate::landlock::restrict(access)
            .map_err(|error| format!("cannot confine files by Landlock: {error}"))?;
    }
    if !plan.seccomp {
        return Ok(());
    }
    let filters = match sample.walls.filters {
        Some(filters) => filters,
        None => {
            let signals = plan.names_signals().then_some(std::process::id() as i32);
            &Filters::compile(Policy { tier: plan.tier, processes: limits.allow_processes, signals })?
        }
    };
    let hand_over = |listener: OwnedFd| {
        let rights = [listener.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&rights)];
        let device = device.to_le_bytes();
        sendmsg::<()>(handover.as_raw_fd(), &[IoSlice::new(&device)], &rights, MsgFlags::MSG_NOSIGNAL, None)
            .map(drop)
            .map_err(|error| error.to_string())
    };
    filters.apply(hand_over).map_err(|error| format!("cannot install the system-call filters: {error}"))
}
