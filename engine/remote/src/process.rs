//! The worker as a process: started, listened to, ended, and never left as a zombie.
//!
//! A thread of its own starts it, since a worker asks the kernel to be ended with the thread that started it, and the host's
//! threads come and go. The thread then collects what the worker writes, and its status at the end. Nothing here needs the
//! host's SIGCHLD: a host that ignores it, or reaps every child, only costs the words on how the worker ended.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, PipeReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use inhouse_core::{Error, ErrorKind, Result};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

/// Lines that are kept of what a worker writes, and how much of each.
const KEPT_LINES: usize = 12;
const LINE_BYTES: u64 = 500;
/// A worker whose channel broke is dead, or about to be.
const DEATH_PATIENCE: Duration = Duration::from_secs(1);
/// What it wrote last is in the pipe by then.
const LAST_WORDS_PATIENCE: Duration = Duration::from_millis(200);
/// A worker whose channel was closed gives its memory back.
const END_PATIENCE: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(1);

/// A started worker.
pub(crate) struct Process {
    program: PathBuf,
    pid: u32,
    /// A host that forked has a copy of this, and must not end what is not its own.
    host: u32,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    child: Child,
    ended: Option<End>,
    /// The last lines of its standard output and error.
    lines: VecDeque<String>,
    /// Whether there will be no more of them.
    silent: bool,
}

/// How a worker ended.
#[derive(Debug, Clone, Copy)]
enum End {
    Status(ExitStatus),
    /// Somebody else took the status.
    Unknown,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes note of the end, if it has come.
    fn look(&mut self) -> Option<End> {
        if self.ended.is_none() {
            self.ended = match self.child.try_wait() {
                Ok(status) => status.map(End::Status),
                Err(_) => Some(End::Unknown),
            };
        }
        self.ended
    }
}

impl Process {
    /// Starts `program` with `channel` as its standard input.
    ///
    /// # Errors
    /// The system refuses.
    pub fn start(program: &Path, channel: UnixStream) -> Result<Self> {
        let (send, receive) = mpsc::sync_channel(1);
        let path = program.to_path_buf();
        let failed = |cause: std::io::Error| Error::io("start the worker", program, cause);
        std::thread::Builder::new()
            .name("inhouse-worker".into())
            .spawn(move || match spawn(&path, channel) {
                Ok((child, words)) => {
                    let pid = child.id();
                    let state = State { child, ended: None, lines: VecDeque::new(), silent: false };
                    let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
                    if send.send(Ok((pid, Arc::clone(&shared)))).is_ok() {
                        attend(pid, words, &shared);
                    }
                }
                Err(error) => drop(send.send(Err(error))),
            })
            .map_err(failed)?;
        let started =
            receive.recv().unwrap_or_else(|_| Err(std::io::Error::other("it could not be started")));
        let (pid, shared) = started.map_err(failed)?;
        Ok(Self { program: program.to_path_buf(), pid, host: std::process::id(), shared })
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Ends it at once, unless it has ended.
    pub fn kill(&self) {
        // Under the lock nobody of this process reaps it, so that the number is still its own.
        let mut state = self.shared.lock();
        if self.host == std::process::id() && state.look().is_none() {
            kill(Pid::from_raw(self.pid as i32), Signal::SIGKILL).ok();
        }
    }

    /// The error for a worker whose channel broke: how it ended, and what it wrote last. One that is still there, or did
    /// what it must not do (`fault`), is ended.
    pub fn obituary(&self, fault: Option<&str>) -> Error {
        let mut end = self.wait(if fault.is_some() { Duration::ZERO } else { DEATH_PATIENCE });
        let alive = end.is_none();
        if alive {
            self.kill();
            end = self.wait(END_PATIENCE);
        }
        let state = self.shared.lock();
        let (state, _) = self
            .shared
            .changed
            .wait_timeout_while(state, LAST_WORDS_PATIENCE, |state| !state.silent)
            .unwrap_or_else(PoisonError::into_inner);
        let how = match end {
            _ if alive => format!("was ended, since {}", fault.unwrap_or("it closed its channel")),
            Some(End::Status(status)) => describe(status),
            Some(End::Unknown) => {
                "ended (how, went to the host program, which reaps its children itself)".into()
            }
            None => "cannot be ended".into(),
        };
        let mut what = format!("the worker {} (process {}) {how}", self.program.display(), self.pid);
        if !state.lines.is_empty() {
            let lines: Vec<&str> = state.lines.iter().map(String::as_str).collect();
            what = format!("{what}; it wrote last: {}", lines.join(" | "));
        }
        Error::new(ErrorKind::Backend, what)
    }

    fn wait(&self, patience: Duration) -> Option<End> {
        let deadline = Instant::now() + patience;
        loop {
            let end = self.shared.lock().look();
            if end.is_some() || Instant::now() >= deadline {
                return end;
            }
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for Process {
    /// The channel is closed by now, at which the worker ends.
    fn drop(&mut self) {
        if self.host == std::process::id() && self.wait(END_PATIENCE).is_none() {
            self.kill();
            self.wait(END_PATIENCE);
        }
    }
}

fn spawn(program: &Path, channel: UnixStream) -> std::io::Result<(Child, PipeReader)> {
    let (words, out) = std::io::pipe()?;
    // The command owns the worker's ends of channel and pipe: they must not outlive this function here.
    let mut command = Command::new(program);
    command
        .stdin(Stdio::from(OwnedFd::from(channel)))
        .stdout(out.try_clone()?)
        .stderr(out)
        // It holds no folder that the host's user may want to remove or unmount.
        .current_dir("/")
        // Ctrl-C in a terminal is the host's to act on.
        .process_group(0)
        // ggml would start a debugger and write pages to a pipe that shows lines.
        .env("GGML_NO_BACKTRACE", "1");
    Ok((command.spawn()?, words))
}

/// Collects what the worker writes, then its status.
fn attend(pid: u32, words: PipeReader, shared: &Shared) {
    let mut words = BufReader::new(words);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = words.by_ref().take(LINE_BYTES).read_until(b'\n', &mut line);
        if !matches!(read, Ok(1..)) {
            break;
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        if text.is_empty() {
            continue;
        }
        tracing::warn!(target: "inhouse_worker", worker = pid, "{text}");
        let mut state = shared.lock();
        if state.lines.len() == KEPT_LINES {
            state.lines.pop_front();
        }
        state.lines.push_back(text.to_owned());
    }
    let ended = {
        let mut state = shared.lock();
        state.silent = true;
        state.look().is_some()
    };
    shared.changed.notify_all();
    if !ended {
        // Without taking the status: that is done under the lock.
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        while waitid(Id::Pid(Pid::from_raw(pid as i32)), flags) == Err(nix::errno::Errno::EINTR) {}
        shared.lock().look();
    }
}

fn describe(status: ExitStatus) -> String {
    match status.signal() {
        Some(number) => {
            let name = Signal::try_from(number).map(|signal| format!(" ({signal})")).unwrap_or_default();
            let cause = match Signal::try_from(number) {
                Ok(Signal::SIGKILL) => ": by somebody, or by the kernel for want of memory",
                Ok(Signal::SIGABRT) => ": an assertion failed in it",
                _ => "",
            };
            format!("was ended by signal {number}{name}{cause}")
        }
        None => format!("ended with status {}", status.code().unwrap_or(-1)),
    }
}
