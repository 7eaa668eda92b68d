//! A slot as the daemon sees it: a forked copy of a warm interpreter that runs one sample at a time.

use std::io::{IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixCredentials, recvmsg, setsockopt, sockopt};

use crate::cgroup::Leaf;
use crate::error::{Error, Result, Step};
use crate::limits::{Baseline, Limits};
use crate::message::{CANCEL, SlotJob, SlotReport, SlotSays, USED, WAITED, read_frame, send_job};
use crate::{family, sys};

/// A running slot; dropping it kills it and its sample.
pub struct Slot {
    stream: UnixStream,
    pid: i32,
    pidfd: OwnedFd,
    /// Its samples' cgroup (T0, T1); goes after the slot has been told to.
    leaf: Option<Leaf>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        sys::pidfd_kill(self.pidfd.as_fd()).ok();
    }
}

const GREETING_PATIENCE: Duration = Duration::from_secs(60);
/// Beyond a sample's wall-clock limit, the slot itself gets this long to fork, kill, reap and answer.
const SLOT_PATIENCE: Duration = Duration::from_secs(60);
/// How often a running job looks whether it was cancelled.
const CANCEL_POLL_MS: u16 = 50;

/// A wait for a processor that still goes on is waited for no longer than this.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// A thread of a sample, as the scheduler counts it.
struct Thread {
    path: PathBuf,
    /// On a processor, or ready for one.
    runnable: bool,
    /// Nanoseconds on a processor, and turns on one: they grow as it runs.
    ran: (u64, u64),
    /// Ready to run without a processor to run on, in turns that have ended.
    waited: Duration,
}

impl Thread {
    /// `None`: it has ended.
    fn read(path: PathBuf) -> Option<Self> {
        // "time on the processor, time waiting for one, turns", times in nanoseconds.
        let figures = std::fs::read_to_string(path.join("schedstat")).ok()?;
        let mut figures = figures.split_whitespace().map(|figure| figure.parse().unwrap_or(0));
        let (on, waited, turns) = (figures.next()?, figures.next()?, figures.next()?);
        let status = std::fs::read_to_string(path.join("stat")).ok()?;
        // The name before the state may hold anything, parentheses too.
        let runnable = status.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('R'));
        Some(Self { path, runnable, ran: (on, turns), waited: Duration::from_nanos(waited) })
    }
}

impl Slot {
    /// Waits for a new slot's greeting. The kernel attaches its process id, translated to our pid namespace.
    pub(crate) fn greet(stream: UnixStream, leaf: Option<Leaf>) -> Result<Self> {
        stream.set_read_timeout(Some(GREETING_PATIENCE)).step("set a timeout")?;
        let mut length = [0u8; 4];
        let mut space = nix::cmsg_space!(UnixCredentials);
        let mut slices = [IoSliceMut::new(&mut length)];
        let silent = |why: String| Error::Zygote(format!("a new slot does not answer: {why}"));
        let message = recvmsg::<()>(stream.as_raw_fd(), &mut slices, Some(&mut space), MsgFlags::MSG_WAITALL)
            .map_err(|error| silent(error.to_string()))?;
        let mut pid = None;
        for control in message.cmsgs().map_err(|error| silent(error.to_string()))? {
            if let ControlMessageOwned::ScmCredentials(credentials) = control {
                pid = Some(credentials.pid());
            }
        }
        let (got, pid) = (message.bytes, pid.filter(|pid| *pid > 0));
        let (4, Some(pid)) = (got, pid) else { return Err(silent("it hung up".into())) };
        let mut greeting = vec![0u8; (u32::from_le_bytes(length) as usize).min(4096)];
        (&stream).read_exact(&mut greeting).map_err(|error| silent(error.to_string()))?;
        setsockopt(&stream, sockopt::PassCred, &false).step("stop asking for credentials")?;
        let pidfd = sys::pidfd_open(pid).step("open a handle on a slot")?;
        // Were the slot gone by now, its pid could be another process's. It alone holds the other end of the stream: as
        // long as that is open, the handle is on the slot.
        if sys::hung_up(stream.as_fd()).step("look at a slot's stream")? {
            return Err(silent("it hung up".into()));
        }
        let slot = Self { stream, pid, pidfd, leaf };
        let status = slot.status()?;
        let threads = status.lines().find_map(|line| line.strip_prefix("Threads:")).map(str::trim);
        match threads {
            Some("1") => Ok(slot),
            // A fork has only the forking thread; more means that a fork handler started some.
            other => Err(Error::Zygote(format!(
                "the warm interpreter has {} threads; a module that starts threads when imported cannot be preloaded",
                other.unwrap_or("an unknown number of")
            ))),
        }
    }

    fn status(&self) -> Result<String> {
        std::fs::read_to_string(format!("/proc/{}/status", self.pid))
            .step(format!("read /proc/{}/status", self.pid))
    }

    /// Makes ready for a sample with these limits: says what the slot's address space holds now (some limits are counted
    /// from there), and sets the limits of the samples' cgroup.
    ///
    /// # Errors
    /// The slot is gone, or its cgroup is of no more use.
    pub fn prepare(&mut self, limits: &Limits) -> Result<Baseline> {
        let status = self.status()?;
        let baseline = Baseline::from_status(&status)
            .ok_or_else(|| Error::Zygote("a slot has no memory figures".into()))?;
        if let Some(leaf) = &mut self.leaf {
            leaf.prepare(limits, &baseline)?;
        }
        Ok(baseline)
    }

    /// Runs one sample, whose `texts` are its code, its test, and what a program is given, to its end; when `cancelled` turns true, it is killed.
    ///
    /// # Errors
    /// The slot died or does not answer; it must not be used again.
    pub fn run(&mut self, job: &SlotJob, texts: &[&[u8]], cancelled: &AtomicBool) -> Result<SlotReport> {
        let mut running = self.start(job, texts, None)?;
        loop {
            wait(&[self])?;
            if let Some(Said::Ended(report)) = self.step(&mut running, cancelled)? {
                return Ok(report);
            }
        }
    }

    /// Sends a sample to the slot, with its end of the line to another one.
    ///
    /// # Errors
    /// The slot died or does not answer; it must not be used again.
    pub fn start(&mut self, job: &SlotJob, texts: &[&[u8]], line: Option<BorrowedFd<'_>>) -> Result<Running> {
        self.stream.set_read_timeout(Some(SLOT_PATIENCE)).map_err(failed)?;
        self.stream.set_write_timeout(Some(SLOT_PATIENCE)).map_err(failed)?;
        send_job(&self.stream, job, texts, line).map_err(failed)?;
        let patience = Duration::from_millis(job.limits.wall_ms) + SLOT_PATIENCE;
        // Never more than the sample may write: a read goes over by less than its buffer.
        let most_output = job.limits.output_bytes.saturating_add(1 << 20);
        let begun = Instant::now();
        Ok(Running { patience, begun, deadline: begun + patience, told: false, most_output, other: None })
    }

    /// Looks whether the slot has said something, and answers it; kills the sample once `cancelled` is true.
    ///
    /// # Errors
    /// The slot died or does not answer; it must not be used again.
    pub fn step(&mut self, running: &mut Running, cancelled: &AtomicBool) -> Result<Option<Said>> {
        let mut fds = [PollFd::new(self.stream.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, 0u8) {
            Ok(0) | Err(nix::errno::Errno::EINTR) => {}
            Ok(_) => match read_frame::<SlotSays>(&self.stream).map_err(failed)? {
                Some(SlotSays::HowLongDidItWait) => {
                    // Who waits for another sample waits through that one's waits, too.
                    let other =
                        running.other.map_or(Duration::ZERO, |pid| waited(pid, running.begun, cancelled));
                    let waited = (waited(self.pid, running.begun, cancelled) + other).as_nanos() as u64;
                    let mut answer = vec![WAITED];
                    answer.extend_from_slice(&waited.to_le_bytes());
                    (&self.stream).write_all(&answer).map_err(failed)?;
                    running.deadline = Instant::now() + running.patience;
                }
                Some(SlotSays::HowMuchCpu) => {
                    let used = family::cpu_time(self.pid as u32).as_nanos() as u64;
                    let mut answer = vec![USED];
                    answer.extend_from_slice(&used.to_le_bytes());
                    (&self.stream).write_all(&answer).map_err(failed)?;
                }
                Some(SlotSays::Ready) => return Ok(Some(Said::Ready)),
                Some(SlotSays::Ended(mut report)) => {
                    for (bytes, said) in report.said_bytes.into_iter().zip(&mut report.said) {
                        if bytes > running.most_output {
                            return Err(Error::Zygote("a slot says more than its sample may".into()));
                        }
                        (&self.stream).take(bytes).read_to_end(said).map_err(failed)?;
                    }
                    // A cancel that crossed the report on its way would be taken for the next job: such a slot is given up.
                    if running.told && report.verdict.is_some() {
                        return Err(Error::Zygote(format!("cancelled as it ended ({})", report.detail)));
                    }
                    return Ok(Some(Said::Ended(report)));
                }
                None => return Err(Error::Zygote("a slot ended".into())),
            },
            Err(error) => return Err(failed(error.into())),
        }
        if !running.told && cancelled.load(Ordering::Relaxed) {
            running.told = true;
            (&self.stream).write_all(&[CANCEL]).map_err(failed)?;
        }
        if Instant::now() > running.deadline {
            return Err(Error::Zygote("a slot does not answer".into()));
        }
        Ok(None)
    }
}

/// How long a sample's threads were held up by others, of which all together ran and waited for a processor so long, and the
/// sample has lived so long, on a machine of so many processors.
///
/// Threads that wait in turn, as those of Python do, of which one runs at a time, never run and wait for longer than they have
/// lived: then all of their waiting counts. Where it is more, so many of them were abreast, and on a machine of their own
/// they would have had all processors, but no more: what they waited for each other is their own affair.
fn held_up(ran: Duration, waited: Duration, lived: Duration, processors: u32) -> Duration {
    let active = ran + waited;
    let abreast = active.div_duration_f64(lived.max(Duration::from_nanos(1)));
    let abreast = abreast.clamp(1.0, f64::from(processors.max(1)));
    active.min(lived).saturating_sub(ran.div_f64(abreast))
}

/// How long the sample of a slot, begun then, was held up for want of a processor.
///
/// The kernel adds a wait when it ends. One that is still going on is waited for, so that no sample pays for it.
fn waited(slot: i32, begun: Instant, cancelled: &AtomicBool) -> Duration {
    let processors = std::thread::available_parallelism().map_or(1, usize::from) as u32;
    let deadline = Instant::now() + LONGEST_WAIT;
    let asked = threads(slot);
    loop {
        let now = threads(slot);
        let waits = |thread: &Thread| {
            let before = asked.iter().find(|before| before.path == thread.path);
            thread.runnable && before.is_some_and(|before| before.runnable && before.ran == thread.ran)
        };
        if !now.iter().any(waits) || cancelled.load(Ordering::Relaxed) || Instant::now() > deadline {
            let ran = now.iter().map(|thread| Duration::from_nanos(thread.ran.0)).sum();
            let waited = now.iter().map(|thread| thread.waited).sum();
            return held_up(ran, waited, begun.elapsed(), processors);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The threads of the sample, and of all that it has started.
fn threads(slot: i32) -> Vec<Thread> {
    let tasks = family::below(slot as u32).into_iter().flat_map(|process| {
        std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten()
    });
    tasks.filter_map(|task| Thread::read(task.path())).collect()
}

/// A sample in a slot, as the daemon sees it.
pub struct Running {
    patience: Duration,
    begun: Instant,
    deadline: Instant,
    /// It was told to kill the sample.
    told: bool,
    most_output: u64,
    /// The slot of the sample that it waits for.
    other: Option<i32>,
}

impl Running {
    /// The sample waits for that of another slot, whose waits for a processor are its own.
    pub fn waits_for(&mut self, other: &Slot) {
        self.other = Some(other.pid);
    }
}

/// What a slot has said that is of interest beyond it.
pub enum Said {
    /// Its candidate waits for its judge.
    Ready,
    /// Its sample ended.
    Ended(SlotReport),
}

fn failed(error: std::io::Error) -> Error {
    Error::Zygote(format!("a slot failed: {error}"))
}

/// Waits until one of the slots says something, or a moment, after which cancels are to be looked at.
///
/// # Errors
/// As poll(2).
pub fn wait(slots: &[&Slot]) -> Result<()> {
    let mut fds: Vec<_> =
        slots.iter().map(|slot| PollFd::new(slot.stream.as_fd(), PollFlags::POLLIN)).collect();
    match poll(&mut fds, CANCEL_POLL_MS) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
        Err(error) => Err(failed(error.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_others_held_up_counts() {
        let held_up = |ran: u64, waited, lived| {
            let [ran, waited, lived] = [ran, waited, lived].map(Duration::from_millis);
            held_up(ran, waited, lived, 2).as_millis()
        };
        // One at a time: all of it.
        assert_eq!(held_up(100, 300, 500), 300);
        // Two abreast on two processors, each kept off half of the time.
        assert_eq!(held_up(1_000, 1_000, 1_000), 500);
        // A hundred on two processors of their own.
        assert_eq!(held_up(2_000, 98_000, 1_000), 0);
        assert_eq!(held_up(0, 0, 0), 0);
    }
}
