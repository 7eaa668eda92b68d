//! The slot's side of one sample: watches clocks, output and record, kills, reaps, and decides the verdict.
//!
//! CPU time is the first limit and the wall clock the second; both count from the start record, so neither a loaded
//! machine's fork nor its queue counts against a candidate. Time that a candidate waits for a processor does not count
//! either: when its wall clock is up, the daemon is asked how long that was, and the clock is put back by as much.

use std::io::{IoSliceMut, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use evald_proto::{Trust, Verdict};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use crate::broker::{Broker, Folder};
use crate::cgroup::{Counts, Membership};
use crate::init::Init;
use crate::limits::Limits;
use crate::message::{CANCEL, KillFigures, SlotReport, SlotSays, USED, WAITED, write_frame};
use crate::record::{self, Kind, Nonce, Stream};
use crate::tier::Tier;
use crate::tree::{self, Usage};
use crate::{family, sys};

/// A forked sample, as its slot sees it.
pub struct Watched<'a> {
    /// Its process id.
    pub pid: i32,
    /// What comes from it.
    pub pipes: Pipes,
    /// Whether what it writes goes into the report.
    pub keep_output: bool,
    /// Whether it is a program, which has an exit status.
    pub program: bool,
    /// The harness's secret.
    pub nonce: Nonce,
    /// Its limits.
    pub limits: &'a Limits,
    /// Its walls.
    pub tier: Tier,
    /// Its cgroup and what was counted in that before it came (T0, T1).
    pub group: Option<(&'a Membership, Counts)>,
    /// Pid 1 of its pid namespace (not in T3 and T4).
    pub init: Option<Init>,
    /// Its private folder.
    pub scratch: &'a Path,
    /// When the slot began to fork it.
    pub begun: Instant,
    /// In T3, the slot's master: it would end what a killed slot leaves, so no sample goes on without it.
    pub master: Option<u32>,
}

/// The slot's ends of what a sample writes to.
pub struct Pipes {
    /// The record's pipe.
    pub record: OwnedFd,
    /// What it writes to: standard output and error together; of a program the one, the other, and the files that are wanted
    /// of it.
    pub outputs: Vec<OwnedFd>,
    /// Where the end at which asked calls are answered arrives, once the filters stand.
    pub handover: OwnedFd,
}

/// The walls must stand within this time; the machine may be very loaded.
const SETUP_PATIENCE: Duration = Duration::from_secs(20);
/// A clock is looked at no more often than this.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);
/// What only adding up shows (CPU time of many processes, files in a T3 folder) is looked at no more often than this.
const LOOK: Duration = Duration::from_millis(20);

/// Why a sample was killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Killed {
    Cpu,
    Wall,
    Output,
    Disk,
    Flood,
    Stuck,
    Cancelled,
    Abandoned,
}

/// Watches the sample to its end. `None`: the daemon is gone, and so is the sample.
///
/// # Errors
/// poll(2), pidfds or wait4(2) fail: the slot cannot go on.
pub fn watch(mut watched: Watched<'_>, control: &UnixStream) -> std::io::Result<Option<SlotReport>> {
    let init = watched.init.take();
    let pidfd = sys::pidfd_open(watched.pid)?;
    let mut watch = Watch {
        watched: &watched,
        pidfd: pidfd.as_fd(),
        init,
        broker: None,
        shut: false,
        stream: Vec::new(),
        written: 0,
        kept: Default::default(),
        started: None,
        waited: Duration::ZERO,
        asked: None,
        ready: false,
        used: None,
        look_took: Duration::ZERO,
        asked_cpu: false,
        looked: watched.begun,
        killed: None,
        at_kill: None,
    };
    watch.until_it_ends(control)?;
    // An answer that is still on its way would be taken for the next job.
    while watch.asked.is_some() || watch.asked_cpu {
        watch.hear(control)?;
    }
    let wall = watch.started.map(|(at, _)| at.elapsed()).unwrap_or_default();
    let mut ended = sys::wait4(watched.pid)?;
    // Whatever it has started ends with it; nothing new can be, since nobody answers any more. The end at which that is done
    // stays open until then: whoever asks waits, where he would go on and take the processor from those that are to end.
    if watched.tier == Tier::T3 {
        ended.cpu += family::end()?;
    }
    let asked = watch.broker.take();
    let (refused, used_network) = asked.map_or((0, false), |broker| (broker.refused, broker.used_network));
    if let Some(init) = watch.init.take() {
        ended.cpu += init.end()?.cpu;
    }
    watch.drain()?;
    let mut counted = match watched.group {
        Some((group, before)) => {
            group.kill()?;
            group.counts()?.since(before)
        }
        None => Counts::default(),
    };
    counted.refused += refused;
    if watch.killed == Some(Killed::Abandoned) {
        return Ok(None);
    }
    let said = std::mem::take(&mut watch.kept);
    let said_bytes = [&said[0], &said[1], &said[2]].map(|bytes| bytes.len() as u64);
    let report = watch.report(ended, wall, counted);
    Ok(Some(SlotReport { said_bytes, said, used_network, ..report }))
}

struct Watch<'a> {
    watched: &'a Watched<'a>,
    pidfd: BorrowedFd<'a>,
    init: Option<Init>,
    /// Once the sample has handed it over.
    broker: Option<Broker>,
    /// Whether nobody is answered there any more (T3).
    shut: bool,
    stream: Vec<u8>,
    written: u64,
    /// What was written, where that is wanted.
    kept: [Vec<u8>; 3],
    /// When the candidate started, and the CPU time it had used by then.
    started: Option<(Instant, Duration)>,
    /// How long it waited for a processor, as far as was asked.
    waited: Duration,
    /// How long it had lived when that was asked, while the daemon owes the answer. Counted until then and not until the
    /// answer comes: on a loaded machine that takes its time, and the sample waits through it unseen.
    asked: Option<Duration>,
    /// Whether it is a candidate that waits for its judge.
    ready: bool,
    /// CPU time of all its processes, and when that was looked at.
    used: Option<(Instant, Duration)>,
    /// How long that look took: with thousands of processes, longer than is to be spent on it every few milliseconds.
    look_took: Duration,
    /// Whether the daemon owes an answer about that.
    asked_cpu: bool,
    /// When its files were last added up.
    looked: Instant,
    killed: Option<Killed>,
    /// What a clock showed as it killed.
    at_kill: Option<AtKill>,
}

/// A kill by a clock, in figures.
#[derive(Debug, Clone, Copy)]
struct AtKill {
    /// What the clock showed beyond its limit when the signal was sent.
    overshoot: Duration,
    /// CPU time of the whole process by then.
    cpu: Duration,
}

impl Watch<'_> {
    fn until_it_ends(&mut self, control: &UnixStream) -> std::io::Result<()> {
        let (mut record_open, mut handover_open) = (true, true);
        let mut outputs_open = vec![true; self.watched.pipes.outputs.len()];
        loop {
            let wait = self.check_clocks(control)?;
            // A closed pipe reports its end for ever: it is left out, or this would spin.
            // Until the sample has read its texts, what comes over the control socket is for it.
            let hear = self.started.is_some() && self.killed.is_none();
            let pipes = &self.watched.pipes;
            let asking = self.broker.as_ref().map_or(self.pidfd, Broker::listener);
            let answers = self.broker.is_some() && !self.shut;
            let keep = [true, record_open, hear, handover_open, answers];
            let fds = [self.pidfd, pipes.record.as_fd(), control.as_fd(), pipes.handover.as_fd(), asking];
            let outputs = pipes.outputs.iter().map(AsFd::as_fd).zip(outputs_open.iter().copied());
            let mut live: Vec<PollFd<'_>> = fds
                .into_iter()
                .zip(keep)
                .chain(outputs)
                .filter(|(_, keep)| *keep)
                .map(|(fd, _)| PollFd::new(fd, PollFlags::POLLIN))
                .collect();
            let timeout =
                PollTimeout::try_from(wait.as_millis().clamp(1, 60_000) as i32).unwrap_or(PollTimeout::MAX);
            match poll(&mut live, timeout) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            let mut answers = live.iter().map(|fd| fd.revents().unwrap_or(PollFlags::empty()));
            let mut told = |keep| if keep { answers.next() } else { None }.unwrap_or(PollFlags::empty());
            let [ended, record, heard, handed, asked] = keep.map(&mut told);
            let outputs: Vec<PollFlags> = outputs_open.iter().map(|keep| told(*keep)).collect();
            drop(live);
            if !handed.is_empty() {
                handover_open = false;
                self.broker = self.take_over()?;
            }
            if asked.contains(PollFlags::POLLIN) {
                let answered = self.broker.as_mut().map_or(Ok(true), Broker::answer);
                answered?;
            } else if !asked.is_empty() {
                // Nobody is left under the filter.
                self.broker = None;
            }
            if !record.is_empty() {
                let was_ready = self.ready;
                record_open = self.read_record()?;
                if self.ready && !was_ready && write_frame(control, &SlotSays::Ready).is_err() {
                    self.kill(Killed::Abandoned)?;
                }
            }
            for (which, open) in outputs_open.iter_mut().enumerate() {
                if !outputs[which].is_empty() {
                    *open = self.read_output(which)?;
                }
            }
            if !heard.is_empty() {
                self.hear(control)?;
            }
            if !ended.is_empty() {
                return Ok(());
            }
        }
    }

    /// Takes the end of the sample's asked calls; `None` when it has none.
    fn take_over(&self) -> std::io::Result<Option<Broker>> {
        let mut device = [0u8; 8];
        let Some(listener) = receive_descriptor(self.watched.pipes.handover.as_fd(), &mut device)? else {
            return Ok(None);
        };
        let shared = self.watched.tier == Tier::T3;
        let folder = if shared {
            Folder::Below(self.watched.scratch.to_path_buf())
        } else {
            Folder::Device(u64::from_le_bytes(device))
        };
        Ok(Some(Broker::new(listener, folder, shared.then_some(self.watched.limits.processes))))
    }

    /// Kills what is over a clock; otherwise says how long nothing can be.
    fn check_clocks(&mut self, control: &UnixStream) -> std::io::Result<Duration> {
        if self.killed.is_some() {
            return Ok(Duration::from_secs(60));
        }
        if self.watched.master.is_some_and(|master| std::os::unix::process::parent_id() != master) {
            self.kill(Killed::Abandoned)?;
            return Ok(SHORTEST_WAIT);
        }
        let Some((at, base)) = self.started else {
            let left = SETUP_PATIENCE.saturating_sub(self.watched.begun.elapsed());
            if left.is_zero() {
                self.kill(Killed::Stuck)?;
            }
            return Ok(left);
        };
        let limits = self.watched.limits;
        let limit = Duration::from_millis(limits.cpu_ms);
        // So many threads may burn CPU time side by side.
        let abreast = std::thread::available_parallelism().map_or(1, usize::from) as u64;
        let abreast = abreast.min(limits.processes).max(1) as u32;
        let used = self.cpu_used(at, base, abreast, control)?;
        let cpu_left = limit.saturating_sub(used);
        let wall_left =
            Duration::from_millis(limits.wall_ms).saturating_sub(at.elapsed().saturating_sub(self.waited));
        if cpu_left.is_zero() {
            self.at_kill = Some(AtKill { overshoot: used.saturating_sub(limit), cpu: base + used });
            self.kill(Killed::Cpu)?;
        } else if wall_left.is_zero() && self.asked.is_none() {
            self.asked = Some(at.elapsed());
            if write_frame(control, &SlotSays::HowLongDidItWait).is_err() {
                self.kill(Killed::Abandoned)?;
            }
        } else if self.watched.tier == Tier::T3 && self.looked.elapsed() > LOOK {
            if self.over_disk() {
                self.kill(Killed::Disk)?;
            }
            self.looked = Instant::now();
        }
        let cpu_wait = cpu_left / abreast;
        // An answer wakes us by itself.
        let wall_wait = if self.asked.is_some() { Duration::from_secs(60) } else { wall_left };
        let look = if self.watched.tier == Tier::T3 { LOOK } else { Duration::MAX };
        Ok(cpu_wait.min(wall_wait).min(look).max(SHORTEST_WAIT))
    }

    /// CPU time of the sample since its start. Where that may be more than one process, no less than what is known, and as
    /// much as it may be by now only if that is not looked at.
    fn cpu_used(
        &mut self,
        at: Instant,
        base: Duration,
        abreast: u32,
        control: &UnixStream,
    ) -> std::io::Result<Duration> {
        let own = sys::process_cpu_time(self.watched.pid).unwrap_or_default().saturating_sub(base);
        if !self.watched.limits.allow_processes {
            return Ok(own);
        }
        let (looked, used) = self.used.unwrap_or((at, Duration::ZERO));
        let most = used + looked.elapsed() * abreast;
        // Nothing can be over the limit yet, or the last look was just now.
        let next_look = LOOK.max(4 * self.look_took);
        if most < Duration::from_millis(self.watched.limits.cpu_ms) || looked.elapsed() < next_look {
            return Ok(own.max(used));
        }
        match (self.watched.group, self.watched.tier) {
            (Some((group, before)), _) => {
                self.used = Some((Instant::now(), group.counts()?.since(before).cpu.saturating_sub(base)));
            }
            (None, Tier::T3) => {
                // What has gone unseen is not given back.
                let begun = Instant::now();
                let all = family::cpu_time(std::process::id()).saturating_sub(base);
                self.used = Some((Instant::now(), all.max(used)));
                self.look_took = begun.elapsed();
            }
            // Only the daemon sees /proc.
            _ if self.asked_cpu => {}
            _ if write_frame(control, &SlotSays::HowMuchCpu).is_ok() => self.asked_cpu = true,
            _ => self.kill(Killed::Abandoned)?,
        }
        Ok(own.max(self.used.map_or(Duration::ZERO, |(_, used)| used)))
    }

    /// Takes one message of the daemon's.
    fn hear(&mut self, mut control: &UnixStream) -> std::io::Result<()> {
        let mut kind = [0u8];
        let mut nanos = [0u8; 8];
        match control.read_exact(&mut kind) {
            Ok(()) if kind[0] == CANCEL => return self.kill(Killed::Cancelled),
            Ok(()) if kind[0] == USED && control.read_exact(&mut nanos).is_ok() => {
                self.asked_cpu = false;
                let base = self.started.map(|(_, base)| base).unwrap_or_default();
                let used = Duration::from_nanos(u64::from_le_bytes(nanos)).saturating_sub(base);
                self.used = Some((Instant::now(), used));
                return Ok(());
            }
            Ok(()) if kind[0] == WAITED && control.read_exact(&mut nanos).is_ok() => {}
            _ => {
                (self.asked, self.asked_cpu) = (None, false);
                return self.kill(Killed::Abandoned);
            }
        }
        let had_lived = self.asked.take().unwrap_or_default();
        self.waited = self.waited.max(Duration::from_nanos(u64::from_le_bytes(nanos)));
        let allowed = Duration::from_millis(self.watched.limits.wall_ms) + self.waited;
        if had_lived >= allowed {
            let lived = self.started.map(|(at, _)| at.elapsed()).unwrap_or_default();
            let overshoot = lived.saturating_sub(allowed);
            let cpu = sys::process_cpu_time(self.watched.pid).unwrap_or_default();
            self.kill(Killed::Wall)?;
            self.at_kill = Some(AtKill { overshoot, cpu });
        }
        Ok(())
    }

    fn kill(&mut self, why: Killed) -> std::io::Result<()> {
        self.killed = self.killed.or(Some(why));
        // A killed process frees its memory itself, 80 ms per GiB on its own clock. We do that too: as it begins at the
        // same time, it is left with half, and with less where being last in line for a processor holds it up (the
        // scheduler's autogroups are in the way of that). Where the kernel cannot, it does all as ever.
        sys::make_idle(self.watched.pid).ok();
        self.end()?;
        sys::process_mrelease(self.pidfd).ok();
        Ok(())
    }

    /// Ends the sample, and everything that it has started: what a T3 sample has, once that has ended itself.
    fn end(&mut self) -> std::io::Result<()> {
        match &self.init {
            Some(init) => init.kill(),
            None => {
                sys::pidfd_kill(self.pidfd)?;
                if self.watched.tier == Tier::T3 {
                    // Whoever waits for an answer gets none, and no further process comes to be.
                    self.shut = true;
                    // Now, and not when the sample itself has ended: for that it needs a processor, which these would share.
                    family::kill_but(&[]);
                }
                Ok(())
            }
        }
    }

    /// Whether more is in the private folder than may be. Only T3 has to ask: elsewhere the file system refuses.
    fn over_disk(&self) -> bool {
        let limits = self.watched.limits;
        let most = Usage { bytes: limits.disk_bytes, entries: limits.inodes };
        let usage = tree::usage(self.watched.scratch, most);
        usage.bytes > most.bytes || usage.entries > most.entries
    }

    /// Reads once; false at the end of the pipe.
    fn read_record(&mut self) -> std::io::Result<bool> {
        let mut buffer = [0u8; 4096];
        let got = read(self.watched.pipes.record.as_fd(), &mut buffer)?;
        let room = (record::MAX_STREAM_BYTES + 1).saturating_sub(self.stream.len());
        self.stream.extend_from_slice(&buffer[..got.min(room)]);
        if self.stream.len() > record::MAX_STREAM_BYTES {
            self.kill(Killed::Flood)?;
        }
        let stream = record::decode(&self.watched.nonce, &self.stream);
        if stream.is_none() {
            // Records come whole: what cannot be read now never will be.
            self.kill(Killed::Flood)?;
        }
        if let Some(Stream { start: Some(nanos), .. }) = stream
            && self.started.is_none()
        {
            self.started = Some((Instant::now(), Duration::from_nanos(nanos)));
        }
        self.ready |= stream.as_ref().is_some_and(|stream| stream.ready);
        if let Some(Stream { last: Some(_), .. }) = stream {
            // It has said its last word; what it started ends with it, now.
            self.end()?;
        }
        Ok(got > 0)
    }

    fn read_output(&mut self, which: usize) -> std::io::Result<bool> {
        let mut buffer = [0u8; 64 << 10];
        let got = read(self.watched.pipes.outputs[which].as_fd(), &mut buffer)?;
        self.written += got as u64;
        if self.watched.keep_output && self.written <= self.watched.limits.output_bytes {
            self.kept[which].extend_from_slice(&buffer[..got]);
        }
        if self.written > self.watched.limits.output_bytes && self.killed.is_none() {
            self.kill(Killed::Output)?;
        }
        Ok(got > 0)
    }

    /// Reads what the pipes still hold. Everything that could write to them is dead.
    fn drain(&mut self) -> std::io::Result<()> {
        while self.stream.len() <= record::MAX_STREAM_BYTES && self.read_record()? {}
        for which in 0..self.watched.pipes.outputs.len() {
            while self.written <= self.watched.limits.output_bytes && self.read_output(which)? {}
        }
        Ok(())
    }

    fn report(&self, ended: sys::Ended, wall: Duration, counted: Counts) -> SlotReport {
        let base = self.started.map(|(_, base)| base);
        // The group's clock began a little later (with the joining), but nothing that ran in it can be missing.
        let used = ended.cpu.max(counted.cpu);
        let cpu = base.map_or(Duration::ZERO, |base| used.saturating_sub(base));
        let stream = record::decode(&self.watched.nonce, &self.stream);
        let last = stream.as_ref().and_then(|stream| stream.last.as_ref()).map(|(kind, _)| *kind);
        let exit_status = self.exit_status(stream.as_ref(), ended.status);
        let facts = Facts { stream, killed: self.killed, status: ended.status, cpu, counted };
        let facts = Facts { killed: self.over_in_the_end().or(facts.killed), ..facts };
        let (verdict, trust, detail) = decide(&facts, self.watched.limits, self.watched.tier);
        SlotReport {
            verdict,
            trust,
            last,
            cpu_us: cpu.as_micros() as u64,
            wall_us: wall.as_micros() as u64,
            setup_cpu_us: base.unwrap_or_default().as_micros() as u64,
            setup_us: self.started.map(|(at, _)| (at - self.watched.begun).as_micros() as u64),
            kill: self.at_kill.map(|at_kill| KillFigures {
                overshoot_us: at_kill.overshoot.as_micros() as u64,
                teardown_us: ended.cpu.saturating_sub(at_kill.cpu).as_micros() as u64,
            }),
            detail,
            signal: libc::WIFSIGNALED(ended.status).then(|| libc::WTERMSIG(ended.status)),
            used_network: false,
            exit_status,
            said_bytes: [0; 3],
            said: Default::default(),
        }
    }

    /// A program's, where it ended by itself.
    fn exit_status(&self, stream: Option<&Stream>, status: i32) -> Option<i32> {
        if !self.watched.program || self.killed.is_some() || self.started.is_none() {
            return None;
        }
        match stream {
            // It was ended once it had said its last word.
            Some(Stream { last: Some((kind, _)), status, .. }) if *kind != Kind::Broken => {
                i32::try_from(*status).ok()
            }
            _ if libc::WIFSIGNALED(status) => Some(-libc::WTERMSIG(status)),
            _ => Some(libc::WEXITSTATUS(status)),
        }
    }

    /// Decided by what was written in the end, not by who was faster.
    fn over_in_the_end(&self) -> Option<Killed> {
        let over_output = self.written > self.watched.limits.output_bytes;
        let over_disk = || self.watched.tier == Tier::T3 && self.started.is_some() && self.over_disk();
        if over_output { Some(Killed::Output) } else { over_disk().then_some(Killed::Disk) }
    }
}

/// One packet with a descriptor; `None` when the other end is closed.
fn receive_descriptor(from: BorrowedFd<'_>, bytes: &mut [u8]) -> std::io::Result<Option<OwnedFd>> {
    let mut space = nix::cmsg_space!([RawFd; 1]);
    let mut slices = [IoSliceMut::new(bytes)];
    let message = recvmsg::<()>(from.as_raw_fd(), &mut slices, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = control {
            return descriptors.first().map(|descriptor| sys::adopt(*descriptor)).transpose();
        }
    }
    Ok(None)
}

fn read(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> std::io::Result<usize> {
    loop {
        match nix::unistd::read(fd, buffer) {
            Err(nix::errno::Errno::EINTR) => {}
            other => return other.map_err(Into::into),
        }
    }
}

/// All that a verdict rests on.
struct Facts {
    stream: Option<Stream>,
    killed: Option<Killed>,
    status: i32,
    cpu: Duration,
    /// By the sample's cgroup; zeros without one.
    counted: Counts,
}

/// From facts to verdict. A missing record is never a pass.
fn decide(facts: &Facts, limits: &Limits, tier: Tier) -> (Option<Verdict>, Trust, String) {
    let outside = |verdict, detail: String| (Some(verdict), Trust::Outside, detail);
    let Some(stream) = &facts.stream else {
        return outside(Verdict::Tampered, "the record was forged or damaged".into());
    };
    match facts.killed {
        Some(Killed::Cancelled | Killed::Abandoned) => return (None, Trust::Outside, "cancelled".into()),
        Some(Killed::Output) => {
            let detail = format!("more than {} bytes on standard output and error", limits.output_bytes);
            return outside(Verdict::OutputLimit, detail);
        }
        Some(Killed::Disk) => {
            let (bytes, inodes) = (limits.disk_bytes, limits.inodes);
            let detail = format!("more than {bytes} bytes or {inodes} files in its folder");
            return outside(Verdict::DiskLimit, detail);
        }
        _ => {}
    }
    if let Some(decided) = by_counts(facts, stream, limits, tier) {
        return decided;
    }
    if let Some((kind, text)) = &stream.last {
        let (verdict, trust) = match kind {
            Kind::Passed => (Verdict::Passed, Trust::InProcess),
            Kind::Failed | Kind::Start | Kind::Ready => (Verdict::Failed, Trust::InProcess),
            Kind::NoTest | Kind::Needs => (Verdict::NoTest, Trust::InProcess),
            // What became of it, its judge says.
            Kind::Served => (Verdict::NoVerdict, Trust::InProcess),
            Kind::Gone => (Verdict::NoVerdict, Trust::Outside),
            Kind::CompileError => (Verdict::CompileError, Trust::Outside),
            Kind::Exited => (Verdict::NoVerdict, Trust::InProcess),
            Kind::Memory => (Verdict::Oom, Trust::InProcess),
            Kind::Disk => (Verdict::DiskLimit, Trust::InProcess),
            Kind::Processes => (Verdict::ProcLimit, Trust::InProcess),
            Kind::Broken => (Verdict::InfraError, Trust::Outside),
            Kind::Crashed => (Verdict::Signaled, Trust::Outside),
        };
        return (Some(verdict), trust, text.clone());
    }
    let status = facts.status;
    let signal = libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status));
    let over_cpu = facts.cpu >= Duration::from_millis(limits.cpu_ms);
    match facts.killed {
        Some(Killed::Cpu) => {
            return outside(Verdict::TimeoutCpu, format!("CPU time over {} ms", limits.cpu_ms));
        }
        Some(Killed::Wall) => {
            return outside(Verdict::TimeoutWall, format!("wall time over {} ms", limits.wall_ms));
        }
        Some(Killed::Flood) => return outside(Verdict::Tampered, "the record was flooded".into()),
        Some(Killed::Stuck) => {
            return outside(Verdict::InfraError, "the sandbox's set-up does not end".into());
        }
        _ => {}
    }
    if stream.start.is_none() {
        return outside(
            Verdict::InfraError,
            format!("the sandbox's set-up ended with wait status {status:#x}"),
        );
    }
    match signal {
        Some(libc::SIGSYS) => outside(Verdict::PolicyViolation, "a forbidden system call".into()),
        Some(libc::SIGXCPU) => outside(Verdict::TimeoutCpu, format!("CPU time over {} ms", limits.cpu_ms)),
        Some(libc::SIGKILL) if over_cpu => {
            outside(Verdict::TimeoutCpu, format!("CPU time over {} ms", limits.cpu_ms))
        }
        Some(signal) => outside(Verdict::Signaled, signal_name(signal)),
        None => {
            let code = libc::WEXITSTATUS(status);
            outside(Verdict::NoVerdict, format!("ended with exit status {code} before its test did"))
        }
    }
}

/// What the kernel counted against the sample's cgroup is the reason for any end but a pass, a refused text, a clock's
/// kill or a broken sandbox.
fn by_counts(
    facts: &Facts,
    stream: &Stream,
    limits: &Limits,
    tier: Tier,
) -> Option<(Option<Verdict>, Trust, String)> {
    let last = stream.last.as_ref().map(|(kind, _)| *kind);
    let out_of_memory = facts.counted.oom > 0;
    match last {
        Some(Kind::Passed | Kind::CompileError | Kind::Broken | Kind::Served) => return None,
        // Killed for its memory, it may look as if a clock had been late.
        None if out_of_memory => {}
        None if facts.killed.is_some() || stream.start.is_none() => return None,
        _ => {}
    }
    if out_of_memory {
        let detail = format!("memory over {} bytes, by the sample's cgroup", limits.memory_bytes);
        return Some((Some(Verdict::Oom), Trust::Outside, detail));
    }
    // A signal has a reason of its own.
    let ended_by_itself = last.is_some() || libc::WIFEXITED(facts.status);
    (facts.counted.refused > 0 && ended_by_itself).then(|| {
        let by = if tier.has_cgroups() { ", by the sample's cgroup" } else { "" };
        let detail = format!("more than {} threads and processes{by}", limits.processes);
        (Some(Verdict::ProcLimit), Trust::Outside, detail)
    })
}

fn signal_name(signal: i32) -> String {
    match nix::sys::signal::Signal::try_from(signal) {
        Ok(name) => format!("signal {signal} ({name})"),
        Err(_) => format!("signal {signal}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(stream: Option<Stream>, killed: Option<Killed>, status: i32) -> Facts {
        Facts { stream, killed, status, cpu: Duration::from_millis(10), counted: Counts::default() }
    }

    #[test]
    fn what_the_cgroup_counted_explains_an_end() {
        let (oom, refused) =
            (Counts { oom: 1, ..Counts::default() }, Counts { refused: 1, ..Counts::default() });
        let last = |kind| started(Some((kind, String::new())));
        let (killed, segv) = (libc::SIGKILL, libc::SIGSEGV);
        for (facts, counted, want) in [
            (facts(started(None), None, killed), oom, Verdict::Oom),
            (facts(started(None), Some(Killed::Wall), killed), oom, Verdict::Oom),
            (facts(last(Kind::Failed), None, 0), oom, Verdict::Oom),
            (facts(last(Kind::Memory), None, 0), oom, Verdict::Oom),
            (facts(last(Kind::Passed), None, 0), oom, Verdict::Passed),
            (facts(None, None, killed), oom, Verdict::Tampered),
            (facts(started(None), Some(Killed::Output), killed), oom, Verdict::OutputLimit),
            (facts(started(None), None, killed), refused, Verdict::Signaled),
            (facts(last(Kind::Failed), None, 0), refused, Verdict::ProcLimit),
            (facts(last(Kind::Exited), None, 0), refused, Verdict::ProcLimit),
            (facts(started(None), None, 1 << 8), refused, Verdict::ProcLimit),
            (facts(last(Kind::Passed), None, 0), refused, Verdict::Passed),
            (facts(last(Kind::CompileError), None, 0), refused, Verdict::CompileError),
            (facts(last(Kind::Broken), None, 0), refused, Verdict::InfraError),
            (facts(started(None), Some(Killed::Cpu), killed), refused, Verdict::TimeoutCpu),
            (facts(started(None), None, segv), refused, Verdict::Signaled),
            (facts(Some(Stream::default()), None, 1 << 8), refused, Verdict::InfraError),
        ] {
            let facts = Facts { counted, ..facts };
            let got = decide(&facts, &Limits::default(), Tier::T0);
            assert_eq!(got.0, Some(want), "{counted:?}: {}", got.2);
        }
    }

    fn started(last: Option<(Kind, String)>) -> Option<Stream> {
        Some(Stream { start: Some(1), last, ..Stream::default() })
    }

    #[test]
    fn every_end_has_its_verdict() {
        let exit_7 = 7 << 8;
        let passed = Some((Kind::Passed, String::new()));
        for (facts, want) in [
            (facts(started(passed.clone()), None, 0), Verdict::Passed),
            (facts(started(passed.clone()), None, libc::SIGKILL), Verdict::Passed),
            (facts(started(passed), Some(Killed::Output), 0), Verdict::OutputLimit),
            (facts(None, None, 0), Verdict::Tampered),
            (facts(None, Some(Killed::Cpu), libc::SIGKILL), Verdict::Tampered),
            (facts(started(None), None, 0), Verdict::NoVerdict),
            (facts(started(None), None, exit_7), Verdict::NoVerdict),
            (facts(started(None), None, libc::SIGSYS), Verdict::PolicyViolation),
            (facts(started(None), None, libc::SIGSEGV), Verdict::Signaled),
            (facts(started(None), None, libc::SIGKILL), Verdict::Signaled),
            (facts(started(None), Some(Killed::Cpu), libc::SIGKILL), Verdict::TimeoutCpu),
            (facts(started(None), Some(Killed::Wall), libc::SIGKILL), Verdict::TimeoutWall),
            (facts(Some(Stream::default()), None, exit_7), Verdict::InfraError),
            (facts(Some(Stream::default()), Some(Killed::Stuck), libc::SIGKILL), Verdict::InfraError),
            (facts(started(Some((Kind::Memory, String::new()))), None, 0), Verdict::Oom),
            (facts(started(Some((Kind::Exited, String::new()))), None, 0), Verdict::NoVerdict),
        ] {
            assert_eq!(decide(&facts, &Limits::default(), Tier::T2).0, Some(want));
        }
    }

    #[test]
    fn nothing_but_a_passed_record_passes() {
        for last in
            [None, Some(Kind::Failed), Some(Kind::CompileError), Some(Kind::Broken), Some(Kind::Processes)]
        {
            for status in [0, 1 << 8, libc::SIGKILL, libc::SIGSEGV] {
                let last = last.map(|kind| (kind, String::new()));
                let (verdict, ..) = decide(&facts(started(last), None, status), &Limits::default(), Tier::T3);
                assert_ne!(verdict, Some(Verdict::Passed));
            }
        }
    }
}
