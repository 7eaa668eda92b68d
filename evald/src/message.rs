//! What the daemon and its zygotes say to each other, over socketpairs that no sample ever holds.
//!
//! To the master (a SEQPACKET pair): one [`Setup`], answered by one [`Ready`]; then one packet per slot to make,
//! with the slot's end of its socket and, in T0 and T1, descriptors on its cgroup. To a slot (a STREAM pair): one [`Ready`] from it, then [`SlotJob`] and [`SlotReport`] in turn, each as
//! a length (u32 LE) and JSON. A job is followed by its code and its test, as plain bytes that only the sample reads:
//! a slot never holds them, so no later sample can find them in the memory it inherits. A single [`CANCEL`] byte may
//! follow that.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use evald_proto::{Trust, Verdict};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::limits::{Baseline, Limits};
use crate::mounts::Entry;
use crate::record::Kind;
use crate::sys;
use crate::tier::Tier;

/// What a master does before it is ready.
#[derive(Debug, Serialize, Deserialize)]
pub struct Setup {
    /// How samples are walled in.
    pub tier: Tier,
    /// Modules to import.
    pub preload: Vec<String>,
    /// Folders that a T3 sample may read.
    pub readable: Vec<PathBuf>,
    /// What a sample's private folder hides and must show again (not in T3).
    pub kept: Vec<Entry>,
    /// Where T3 samples get their private folders.
    pub scratch: PathBuf,
    /// See [`crate::frame::Config::reads_all`].
    pub reads_all: bool,
    /// Version of Landlock that confines samples, where there is one.
    pub landlock: Option<i64>,
    /// Whether to filter their system calls; always, but in T4 on a kernel without seccomp.
    pub seccomp: bool,
}

/// A zygote is warm, or why not.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Ready {
    /// One line for people; `None` when all is well.
    pub error: Option<String>,
}

/// What a sample runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// A candidate and its test.
    Whole,
    /// A candidate, which then answers its judge.
    Candidate,
    /// A test, which asks a candidate in another sample.
    Judge {
        /// Whether it may let the candidate compare its own objects.
        compare: bool,
    },
    /// A program by itself, with standard input, files and an exit status.
    Program,
}

/// What a program is given and asked for; its texts follow those of the job, in this order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// Bytes of its standard input.
    pub stdin_bytes: u64,
    /// Its files: paths, and their bytes.
    pub files: Vec<(String, u64)>,
    /// The files that are wanted of it.
    pub fetch: Vec<String>,
}

/// One sample to run; its texts follow on the stream. With a role of two comes a descriptor: the line to the other one.
#[derive(Debug, Serialize, Deserialize)]
pub struct SlotJob {
    /// What it runs.
    pub role: Role,
    /// What the test is about (see [`evald_proto::Job::entry_point`]).
    pub entry: String,
    /// Bytes of the candidate; of the problem's prompt for a judge.
    pub code_bytes: u64,
    /// Bytes of the test, after it.
    pub test_bytes: u64,
    /// Its limits.
    pub limits: Limits,
    /// What the slot's address space holds before the fork.
    pub baseline: Baseline,
    /// Whether what it writes is handed on.
    pub keep_output: bool,
    /// Of a program.
    pub given: Option<Given>,
}

/// What a slot says while it runs a sample.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum SlotSays {
    /// The sample's wall-clock time is up: how long did it wait for a processor? Answered by [`WAITED`]. Only the daemon
    /// sees /proc.
    HowLongDidItWait,
    /// A candidate has run, and waits for its judge.
    Ready,
    /// How much CPU time did all processes of the sample use? Answered by [`USED`].
    HowMuchCpu,
    /// It ended.
    Ended(SlotReport),
}

/// How a sample ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SlotReport {
    /// `None`: it was cancelled.
    pub verdict: Option<Verdict>,
    /// What the verdict rests on.
    pub trust: Trust,
    /// The last record, where there was one.
    pub last: Option<Kind>,
    /// CPU time of the candidate.
    pub cpu_us: u64,
    /// Wall-clock time of the candidate.
    pub wall_us: u64,
    /// CPU time from the fork to the candidate's start: what the walls cost.
    pub setup_cpu_us: u64,
    /// Wall-clock time from the fork to the candidate's start; `None`: it never started.
    pub setup_us: Option<u64>,
    /// Where a clock killed it: how late.
    pub kill: Option<KillFigures>,
    /// One line for people.
    pub detail: String,
    /// What ended it, where that was a signal.
    pub signal: Option<i32>,
    /// Whether it made an internet socket.
    pub used_network: bool,
    /// Of a program that ended by itself: its exit status, or minus the signal that ended it.
    pub exit_status: Option<i32>,
    /// Bytes of output, of a program's standard error, and of the files that were fetched: they follow the report on the
    /// stream.
    pub said_bytes: [u64; 3],
    /// Those bytes.
    #[serde(skip)]
    pub said: [Vec<u8>; 3],
}

impl SlotReport {
    /// Of a sample that did not run.
    pub fn without_a_run(verdict: Verdict, detail: String) -> Self {
        Self {
            verdict: Some(verdict),
            trust: Trust::Outside,
            last: None,
            cpu_us: 0,
            wall_us: 0,
            setup_cpu_us: 0,
            setup_us: None,
            kill: None,
            detail,
            signal: None,
            used_network: false,
            exit_status: None,
            said_bytes: [0; 3],
            said: Default::default(),
        }
    }
}

/// How far beyond its limit a killed sample got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KillFigures {
    /// What the clock that killed it (CPU or wall) showed beyond its limit as the signal was sent.
    pub overshoot_us: u64,
    /// CPU time from the signal to the end. The candidate runs no more in it; the kernel frees its memory, as far
    /// as the slot does not do that (about 40 ms per GiB, 80 before Linux 5.15).
    pub teardown_us: u64,
}

/// Sent to a slot while it runs a job: kill it.
pub const CANCEL: u8 = b'C';
/// Sent to a slot, with nanoseconds (u64 LE), when it asks [`SlotSays::HowLongDidItWait`].
pub const WAITED: u8 = b'W';
/// Sent to a slot, with nanoseconds (u64 LE), when it asks [`SlotSays::HowMuchCpu`].
pub const USED: u8 = b'U';
/// Frames carry limits and figures, no programs.
const MAX_FRAME_BYTES: u32 = 64 << 10;
/// Largest packet to or from a master.
pub const MAX_PACKET_BYTES: usize = 64 << 10;
/// Most descriptors that come with a packet to a master.
pub const MAX_PACKET_DESCRIPTORS: usize = 8;

/// Writes one frame.
///
/// # Errors
/// As the writer; also when the value is larger than a frame may be.
pub fn write_frame(mut to: impl Write, value: &impl Serialize) -> io::Result<()> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, value)?;
    let length = u32::try_from(bytes.len() - 4).ok().filter(|length| *length <= MAX_FRAME_BYTES);
    let length = length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a frame is too large"))?;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    to.write_all(&bytes)
}

/// Sends a job to a slot: its frame, with the line to the other sample where it has one, and its texts.
///
/// # Errors
/// As sendmsg(2) and write(2).
pub fn send_job(
    to: &UnixStream,
    job: &SlotJob,
    texts: &[&[u8]],
    line: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let mut frame = Vec::new();
    write_frame(&mut frame, job)?;
    let fds: Vec<RawFd> = line.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    let rights = if fds.is_empty() { &[][..] } else { &rights[..] };
    let sent = sendmsg::<()>(to.as_raw_fd(), &[IoSlice::new(&frame)], rights, MsgFlags::MSG_NOSIGNAL, None)?;
    let mut to = to;
    to.write_all(&frame[sent..])?;
    texts.iter().try_for_each(|text| to.write_all(text))
}

/// Receives a job, and the descriptor that came with it; `None` at the end of the stream.
///
/// # Errors
/// As recvmsg(2) and [`read_frame`].
pub fn receive_job(from: &UnixStream) -> io::Result<Option<(SlotJob, Option<OwnedFd>)>> {
    let mut length = [0u8; 4];
    let mut space = nix::cmsg_space!(RawFd);
    let mut slices = [IoSliceMut::new(&mut length)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_WAITALL;
    let message = loop {
        match recvmsg::<()>(from.as_raw_fd(), &mut slices, Some(&mut space), flags) {
            Err(nix::errno::Errno::EINTR) => {}
            other => break other?,
        }
    };
    let mut line = None;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = control {
            for fd in fds {
                line = Some(sys::adopt(fd)?);
            }
        }
    }
    match message.bytes {
        0 => return Ok(None),
        4 => {}
        _ => return Err(io::ErrorKind::UnexpectedEof.into()),
    }
    // The length again, with the rest behind it.
    let frame = length.as_slice().chain(from);
    Ok(read_frame(frame)?.map(|job| (job, line)))
}

/// Reads one frame; `None` at the end of the stream.
///
/// # Errors
/// As the reader; also when the stream ends within a frame or the frame is not what it should be.
pub fn read_frame<T: DeserializeOwned>(mut from: impl Read) -> io::Result<Option<T>> {
    let mut length = [0u8; 4];
    match from.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let length = u32::from_le_bytes(length);
    if length > MAX_FRAME_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame is too large"));
    }
    let mut bytes = Vec::new();
    if from.take(length.into()).read_to_end(&mut bytes)? != length as usize {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    serde_json::from_slice(&bytes).map(Some).map_err(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_brings_its_line_along() {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let (line, mut other) = UnixStream::pair().expect("a pair");
        let job = SlotJob {
            role: Role::Judge { compare: true },
            entry: "f".into(),
            code_bytes: 2,
            test_bytes: 1,
            limits: Limits::default(),
            baseline: Baseline::default(),
            keep_output: false,
            given: None,
        };
        send_job(&ours, &job, &[b"ab", b"c"], Some(std::os::fd::AsFd::as_fd(&line))).expect("sent");
        send_job(&ours, &SlotJob { role: Role::Whole, ..job }, &[b"", b""], None).expect("sent");
        drop((ours, line));
        let (job, line) = receive_job(&theirs).expect("received").expect("a job");
        assert_eq!((job.role, job.entry.as_str()), (Role::Judge { compare: true }, "f"));
        let mut texts = [0; 3];
        (&theirs).read_exact(&mut texts).expect("the texts");
        assert_eq!(&texts, b"abc");
        UnixStream::from(line.expect("a line")).write_all(b"x").expect("written");
        let mut byte = [0];
        other.read_exact(&mut byte).expect("heard");
        let (job, line) = receive_job(&theirs).expect("received").expect("a job");
        assert!(job.role == Role::Whole && line.is_none());
        assert!(receive_job(&theirs).expect("the end").is_none());
    }

    #[test]
    fn frames_round_trip_and_damage_is_an_error() {
        let mut bytes = Vec::new();
        write_frame(&mut bytes, &Ready { error: Some("x".into()) }).expect("written");
        let ready: Ready = read_frame(bytes.as_slice()).expect("read").expect("one frame");
        assert_eq!(ready.error.as_deref(), Some("x"));
        assert!(read_frame::<Ready>([].as_slice()).expect("end").is_none());
        assert!(read_frame::<Ready>(&bytes[..bytes.len() - 1]).is_err());
        assert!(read_frame::<Ready>([0xff; 8].as_slice()).is_err());
    }
}
