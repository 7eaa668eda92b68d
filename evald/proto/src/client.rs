//! The blocking client.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::{ErrorCode, Job, JobResult, MAX_LINE_BYTES, NamedEnv, PROTOCOL_VERSION, Reply, Request, Verdict};

/// Why the daemon could not be asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// No daemon can be reached or started.
    #[error("cannot reach evald at {place}: {cause}")]
    Connect {
        /// Its socket or executable.
        place: String,
        /// The system's answer.
        cause: std::io::Error,
    },
    /// A private daemon ended before it was ready; the reason is what it wrote last.
    #[error("evald did not start: {0}")]
    Start(String),
    /// The connection broke while jobs were under way.
    #[error("the connection to evald broke: {0}")]
    Broken(std::io::Error),
    /// The daemon said something that this client does not understand.
    #[error("evald answers what this client does not understand: {0}")]
    Protocol(String),
    /// The daemon refused a request.
    #[error("evald refused: {message}")]
    Refused {
        /// Why, for programs.
        code: ErrorCode,
        /// Why, in the daemon's words; names the job where it is about one.
        message: String,
    },
    /// The daemon has not said hello in time.
    #[error("evald did not answer within {} s; are the modules that it imports that slow?", .0.as_secs())]
    Timeout(Duration),
    /// The job's line would be over [`MAX_LINE_BYTES`].
    #[error("job {id:?} is larger than {MAX_LINE_BYTES} bytes")]
    TooLarge {
        /// The job's id.
        id: String,
    },
    /// The caller asked to stop.
    #[error("stopped")]
    Stopped,
}

/// What the daemon is, from [`Reply::Hello`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// The daemon's version.
    pub version: String,
    /// The tier that runs jobs.
    pub tier: String,
    /// Names of its environments; the first is the default.
    pub envs: Vec<String>,
    /// Jobs it runs side by side.
    pub slots: usize,
    /// Unanswered requests it takes from one connection.
    pub max_in_flight: usize,
}

/// How to start a private daemon. `Default` is one environment, the `python3` on PATH, at the host's best tier.
#[derive(Debug, Clone, Default)]
pub struct SpawnOptions {
    /// `auto`, or one of `T0` to `T4`; `None`: auto.
    pub tier: Option<String>,
    /// Its environments; the first is the default.
    pub envs: Vec<NamedEnv>,
    /// Folders on the module search path of every environment, read-only in the sandbox.
    pub paths: Vec<PathBuf>,
    /// Jobs to run side by side; `None`: one per core.
    pub slots: Option<usize>,
    /// Whether samples may have further processes.
    pub allow_processes: bool,
}

/// A connection to a daemon, on which jobs are pipelined.
pub struct Client {
    reader: BufReader<UnixStream>,
    /// The part of a reply's line that has come so far.
    line: Vec<u8>,
    info: Info,
    /// Makes wire ids unique over the connection's life.
    next_id: u64,
    private: Option<Private>,
}

/// A private daemon; dropping it waits for its end.
struct Private {
    child: Child,
    said: Option<JoinHandle<String>>,
}

impl Drop for Private {
    fn drop(&mut self) {
        // The connection is closed by now, at which it ends; one that hangs is killed.
        let deadline = Instant::now() + Duration::from_secs(2);
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A daemon that cannot start says so within this time; imports of large libraries count.
const HELLO_PATIENCE: Duration = Duration::from_secs(360);
/// What a daemon that has hung up said before that is in the socket already.
const LAST_WORDS_PATIENCE: Duration = Duration::from_secs(1);
/// How often a waiting client looks whether it should stop.
const STOP_POLL: Duration = Duration::from_millis(100);
/// Runs of one job before an `infra_error` is believed.
const ATTEMPTS: u32 = 3;

struct Flight {
    index: usize,
    job: Job,
    attempt: u32,
}

impl Client {
    /// Connects to the daemon that listens on `socket`, and waits for its hello unless `stop` turns true: one that systemd
    /// starts for this connection imports its modules first.
    ///
    /// # Errors
    /// Nobody listens there, it turns this user away, it speaks another protocol, or [`ClientError::Stopped`].
    pub fn connect(socket: &Path, stop: &dyn Fn() -> bool) -> Result<Self, ClientError> {
        let stream = UnixStream::connect(socket)
            .map_err(|cause| ClientError::Connect { place: socket.display().to_string(), cause })?;
        Self::greet(stream, None, stop)
    }

    /// Starts a private daemon: it listens nowhere, serves this client over a socket pair, and ends with it (also when
    /// this process is killed, because the kernel closes the pair). When `stop` turns true while it imports modules, it is
    /// ended.
    ///
    /// # Errors
    /// `evald` is not an evald executable, it cannot start (the message is its own), or [`ClientError::Stopped`].
    pub fn spawn(evald: &Path, options: &SpawnOptions, stop: &dyn Fn() -> bool) -> Result<Self, ClientError> {
        let connect = |cause| ClientError::Connect { place: evald.display().to_string(), cause };
        let (ours, theirs) = UnixStream::pair().map_err(connect)?;
        let mut command = Command::new(evald);
        command.args(["serve", "--stdio"]);
        if let Some(tier) = &options.tier {
            command.args(["--tier", tier]);
        }
        for env in &options.envs {
            command.args(["--env", &env.to_string()]);
        }
        for path in &options.paths {
            command.arg("--path").arg(path);
        }
        if let Some(slots) = options.slots {
            command.args(["--slots", &slots.to_string()]);
        }
        if options.allow_processes {
            command.args(["--allow", "processes"]);
        }
        command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null()).stderr(Stdio::piped());
        // A terminal's Ctrl-C is for this process, which then ends the daemon in order.
        command.process_group(0);
        let mut child = command.spawn().map_err(connect)?;
        // The command still holds the other end of the pair: without this, the daemon's death would not be seen.
        drop(command);
        let said = child.stderr.take().map(|stderr| std::thread::spawn(move || tail(stderr)));
        Self::greet(ours, Some(Private { child, said }), stop)
    }

    fn greet(
        stream: UnixStream,
        mut private: Option<Private>,
        stop: &dyn Fn() -> bool,
    ) -> Result<Self, ClientError> {
        let mut client = Self {
            reader: BufReader::new(stream),
            line: Vec::new(),
            info: Info {
                version: String::new(),
                tier: String::new(),
                envs: Vec::new(),
                slots: 0,
                max_in_flight: 0,
            },
            next_id: 0,
            private: None,
        };
        let deadline = Instant::now() + HELLO_PATIENCE;
        let answer = client
            .send(&Request::Hello)
            .and_then(|()| client.reply(&|| stop() || Instant::now() > deadline))
            .and_then(|reply| client.introduce(reply));
        match answer {
            Ok(()) => {
                client.private = private;
                Ok(client)
            }
            // A private daemon that ends before its hello has written the reason to standard error.
            Err(ClientError::Broken(_)) if private.is_some() => {
                drop(client);
                let said = private.as_mut().and_then(|private| private.said.take());
                let said = said.and_then(|thread| thread.join().ok()).unwrap_or_default();
                // The error's line, behind what it may have logged; where there is none, all.
                let mut errors = said
                    .lines()
                    .filter_map(|line| line.strip_prefix("evald: ").or_else(|| line.strip_prefix("error: ")));
                let said = errors.next_back().map_or_else(|| said.trim().replace('\n', "; "), str::to_owned);
                Err(ClientError::Start(if said.is_empty() { "it said nothing".into() } else { said }))
            }
            Err(ClientError::Stopped) if !stop() => Err(ClientError::Timeout(HELLO_PATIENCE)),
            Err(error) => Err(error),
        }
    }

    fn introduce(&mut self, reply: Reply) -> Result<(), ClientError> {
        match reply {
            Reply::Hello { protocol, version, tier, envs, slots, max_in_flight } => {
                if protocol != PROTOCOL_VERSION {
                    let text = format!("protocol {protocol}, this client speaks {PROTOCOL_VERSION}");
                    return Err(ClientError::Protocol(text));
                }
                self.info = Info { version, tier, envs, slots, max_in_flight };
                Ok(())
            }
            Reply::Error { code, message, .. } => Err(ClientError::Refused { code, message }),
            Reply::Verdict(_) | Reply::Metrics { .. } => {
                Err(ClientError::Protocol("another answer than a hello's".into()))
            }
        }
    }

    /// What the daemon is.
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// What the daemon has counted since its start, in Prometheus' text format.
    ///
    /// # Errors
    /// The connection breaks, or the daemon is of a version that does not count.
    pub fn metrics(&mut self) -> Result<String, ClientError> {
        self.send(&Request::Metrics)?;
        loop {
            match self.reply(&|| false)? {
                Reply::Metrics { text } => return Ok(text),
                // The tail of an earlier, stopped run.
                Reply::Error { id: None, code: ErrorCode::NothingToCancel, .. } => {}
                Reply::Error { code, message, .. } => return Err(ClientError::Refused { code, message }),
                _ => return Err(ClientError::Protocol("another answer than metrics".into())),
            }
        }
    }

    /// Runs one job.
    ///
    /// # Errors
    /// As [`Client::run_all`].
    pub fn run(&mut self, job: Job) -> Result<JobResult, ClientError> {
        let mut found = None;
        self.run_all([job], &|| false, |_, result| {
            found = Some(result);
            ControlFlow::Continue(())
        })?;
        found.ok_or_else(|| ClientError::Protocol("no reply to a job".into()))
    }

    /// Runs many jobs, several at a time, and hands over each result with its job's position as it comes, in any order.
    ///
    /// `jobs` is only advanced as far as the daemon has room, so it may be long and lazy. Jobs may share an id. A job
    /// that ends in `infra_error` is run again, up to three times in all. When `stop` turns true, or `on_result` breaks,
    /// what is under way is cancelled and its results are dropped. A daemon that stops finishes what it runs: those results
    /// come before the error.
    ///
    /// # Errors
    /// The connection breaks, a job is too large, the daemon refuses one (unknown environment, absurd limit), or
    /// [`ClientError::Stopped`]. After an error the client is of use only if it was `Stopped` or `Refused`.
    pub fn run_all(
        &mut self,
        jobs: impl IntoIterator<Item = Job>,
        stop: &dyn Fn() -> bool,
        mut on_result: impl FnMut(usize, JobResult) -> ControlFlow<()>,
    ) -> Result<(), ClientError> {
        // Enough to keep every slot busy while a reply travels; within what the daemon reads, so that neither side can
        // wait for the other to read.
        let window = (4 * self.info.slots + 4).min(self.info.max_in_flight).max(1);
        let mut jobs = jobs.into_iter().enumerate();
        let mut under_way: HashMap<String, Flight> = HashMap::new();
        // The daemon's refusal once it stops: what it runs already is still waited for.
        let mut stopping = None;
        let outcome = loop {
            let mut sent = Ok(());
            while under_way.len() < window && sent.is_ok() && stopping.is_none() {
                let Some((index, job)) = jobs.next() else { break };
                sent = self.launch(Flight { index, job, attempt: 1 }, &mut under_way);
            }
            if let Err(error) = sent {
                break Err(error);
            }
            if under_way.is_empty() {
                break stopping.map_or(Ok(()), Err);
            }
            let (id, answer) = match self.answer(stop) {
                Ok(answer) => answer,
                Err(error) => break Err(error),
            };
            let Some(mut flight) = under_way.remove(&id) else {
                break Err(ClientError::Protocol(format!("an answer to no job ({id:?})")));
            };
            match answer {
                Err((code @ ErrorCode::Stopping, message)) => {
                    stopping = Some(ClientError::Refused { code, message });
                }
                Err((code, message)) => {
                    let message = format!("job {:?}: {message}", flight.job.id);
                    break Err(ClientError::Refused { code, message });
                }
                Ok(result) if result.verdict == Verdict::InfraError && flight.attempt < ATTEMPTS => {
                    flight.attempt += 1;
                    if let Err(error) = self.launch(flight, &mut under_way) {
                        break Err(error);
                    }
                }
                Ok(mut result) => {
                    result.id = flight.job.id;
                    if on_result(flight.index, result).is_break() {
                        break Err(ClientError::Stopped);
                    }
                }
            }
        };
        if matches!(
            outcome,
            Err(ClientError::Stopped | ClientError::Refused { .. } | ClientError::TooLarge { .. })
        ) {
            self.call_back(under_way)?;
        }
        outcome
    }

    fn launch(&mut self, flight: Flight, under_way: &mut HashMap<String, Flight>) -> Result<(), ClientError> {
        let id = self.next_id.to_string();
        self.next_id += 1;
        let request = Request::Run(Job { id: id.clone(), ..flight.job.clone() });
        self.send(&request).map_err(|error| match error {
            ClientError::TooLarge { .. } => ClientError::TooLarge { id: flight.job.id.clone() },
            other => other,
        })?;
        under_way.insert(id, flight);
        Ok(())
    }

    /// Cancels jobs and waits for their last replies.
    fn call_back(&mut self, mut under_way: HashMap<String, Flight>) -> Result<(), ClientError> {
        for id in under_way.keys() {
            self.send(&Request::Cancel { id: id.clone() })?;
        }
        while !under_way.is_empty() {
            // A cancel that crossed its job's end draws a complaint without an id: passed over.
            match self.reply(&|| false)? {
                Reply::Verdict(result) => under_way.remove(&result.id),
                Reply::Error { id: Some(id), .. } => under_way.remove(&id),
                Reply::Error { id: None, .. } | Reply::Hello { .. } | Reply::Metrics { .. } => None,
            };
        }
        Ok(())
    }

    /// The next answer that belongs to a job: its id, and its result or the reason why it was not run.
    #[allow(clippy::type_complexity, reason = "local to this file")]
    fn answer(
        &mut self,
        stop: &dyn Fn() -> bool,
    ) -> Result<(String, Result<JobResult, (ErrorCode, String)>), ClientError> {
        loop {
            match self.reply(stop)? {
                Reply::Verdict(result) => return Ok((result.id.clone(), Ok(result))),
                Reply::Error { id: Some(id), code, message } => return Ok((id, Err((code, message)))),
                // The tail of an earlier, stopped run.
                Reply::Error { id: None, code: ErrorCode::NothingToCancel, .. } => {}
                Reply::Error { id: None, code, message } => {
                    return Err(ClientError::Refused { code, message });
                }
                Reply::Hello { .. } | Reply::Metrics { .. } => {
                    return Err(ClientError::Protocol("an answer that was not asked for".into()));
                }
            }
        }
    }

    fn send(&mut self, request: &Request) -> Result<(), ClientError> {
        let mut line =
            serde_json::to_vec(request).map_err(|error| ClientError::Protocol(error.to_string()))?;
        if line.len() > MAX_LINE_BYTES {
            let id = if let Request::Run(job) = request { job.id.clone() } else { String::new() };
            return Err(ClientError::TooLarge { id });
        }
        line.push(b'\n');
        match self.reader.get_mut().write_all(&line) {
            Ok(()) => Ok(()),
            Err(error) => Err(self.last_words().unwrap_or(ClientError::Broken(error))),
        }
    }

    /// Why the daemon has hung up, if it has said so: that line is still to be read when writing fails already.
    fn last_words(&mut self) -> Option<ClientError> {
        let deadline = Instant::now() + LAST_WORDS_PATIENCE;
        loop {
            match self.reply(&|| Instant::now() > deadline) {
                Ok(Reply::Error { id: None, code, message }) if code != ErrorCode::NothingToCancel => {
                    return Some(ClientError::Refused { code, message });
                }
                Ok(_) => {}
                Err(_) => return None,
            }
        }
    }

    fn reply(&mut self, stop: &dyn Fn() -> bool) -> Result<Reply, ClientError> {
        self.reader.get_ref().set_read_timeout(Some(STOP_POLL)).map_err(ClientError::Broken)?;
        loop {
            if stop() {
                return Err(ClientError::Stopped);
            }
            let room = (MAX_LINE_BYTES + 1).saturating_sub(self.line.len()) as u64;
            match (&mut self.reader).take(room).read_until(b'\n', &mut self.line) {
                Ok(_) if self.line.last() == Some(&b'\n') => break,
                Ok(_) if self.line.len() > MAX_LINE_BYTES => {
                    return Err(ClientError::Protocol(format!("a line over {MAX_LINE_BYTES} bytes")));
                }
                Ok(_) => return Err(ClientError::Broken(ErrorKind::UnexpectedEof.into())),
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                    ) => {}
                Err(error) => return Err(ClientError::Broken(error)),
            }
        }
        let line = std::mem::take(&mut self.line);
        serde_json::from_slice(&line).map_err(|error| ClientError::Protocol(error.to_string()))
    }
}

/// Reads a daemon's standard error to its end, keeping the last of it.
fn tail(mut stderr: ChildStderr) -> String {
    const KEPT: usize = 4 << 10;
    let mut text = Vec::new();
    let mut buffer = [0u8; 4096];
    while let Ok(got) = stderr.read(&mut buffer) {
        if got == 0 {
            break;
        }
        text.extend_from_slice(&buffer[..got]);
        let over = text.len().saturating_sub(KEPT);
        text.drain(..over);
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel tells a writer that the other end is closed before it has read what was sent ahead of that.
    #[test]
    fn a_refusal_is_reported_although_writing_fails() {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let reply = Reply::error(None, ErrorCode::Forbidden, "user 7 may not connect");
        let line = serde_json::to_string(&reply).expect("a line") + "\n";
        (&theirs).write_all(line.as_bytes()).expect("written");
        drop(theirs);
        let error = Client::greet(ours, None, &|| false).err().expect("refused");
        assert!(matches!(error, ClientError::Refused { code: ErrorCode::Forbidden, .. }), "{error:?}");
        assert_eq!(error.to_string(), "evald refused: user 7 may not connect");
    }

    #[test]
    fn a_daemon_that_hangs_up_without_a_word_is_a_broken_connection() {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        drop(theirs);
        let error = Client::greet(ours, None, &|| false).err().expect("broken");
        assert!(matches!(error, ClientError::Broken(_)), "{error:?}");
    }

    #[test]
    fn waiting_for_a_hello_can_be_stopped() {
        let (ours, _theirs) = UnixStream::pair().expect("a pair");
        let asked = std::cell::Cell::new(0);
        let stop = || asked.replace(asked.get() + 1) >= 2;
        let error = Client::greet(ours, None, &stop).err().expect("stopped");
        assert!(matches!(error, ClientError::Stopped), "{error:?}");
    }
}
