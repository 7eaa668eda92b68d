//! The host's end of the channel: any number of threads ask, each waits for its own answer.
//!
//! No thread is kept for reading: of those that wait, one reads for all of them, so that an answer to the only one wakes
//! nobody else on its way. Waiting, every thread looks at its cancel token.

use std::collections::HashMap;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use inhouse_core::decode::CancelToken;
use inhouse_core::{Error, ErrorKind, Result};

use crate::frame::{self, Head, Input};
use crate::hello::{Hello, Side};
use crate::message::{self, Reply, Request};
use crate::process::Process;

/// How often a waiting thread looks at its cancel token.
const LOOK: Duration = Duration::from_millis(5);
/// A program that is a worker says hello within this time, on a busy machine too.
const HELLO_PATIENCE: Duration = Duration::from_secs(30);
/// A worker that does not react to a cancel for so long hangs, or reads gigabytes at once; it is ended.
const CANCEL_PATIENCE: Duration = Duration::from_secs(30);
/// A worker reads all the time: one that has not taken a message in by then hangs.
const WRITE_PATIENCE: Duration = Duration::from_secs(120);

/// A channel to a worker.
pub(crate) struct Connection {
    stream: UnixStream,
    writing: Mutex<()>,
    reading: Mutex<Input<UnixStream>>,
    state: Mutex<State>,
    changed: Condvar,
    /// `None` where a test has the worker's side in a thread. Last, since it ends when the channel is closed.
    process: Option<Process>,
}

struct State {
    calls: HashMap<u32, Call>,
    /// Whether a thread reads for all of them.
    led: bool,
    next: u32,
    /// Why there will be no more answers.
    broken: Option<(ErrorKind, String)>,
}

enum Call {
    /// The answer has not come. Rows are wanted of just as many numbers as the vector has, another body of so many bytes at
    /// most.
    Waiting(Vec<f32>, u64),
    /// It is being read.
    Arriving,
    Answered(Answer),
}

/// A worker's answer.
pub(crate) struct Answer {
    pub reply: Reply,
    pub body: Vec<u8>,
    /// The vector that came with the question, filled where the reply is rows.
    pub rows: Vec<f32>,
}

/// What a request brings along.
#[derive(Default)]
pub(crate) struct Payload<'a> {
    /// Pieces of the body.
    pub body: &'a [&'a [u8]],
    /// Where rows of logits are the answer: as many numbers as they have.
    pub rows: Vec<f32>,
    /// Where something else is: most bytes it may have.
    pub limit: u64,
    /// Ends the request early.
    pub cancel: Option<&'a CancelToken>,
}

/// How long a thread has waited for a cancel to be heard.
struct Waiting<'a> {
    cancel: Option<&'a CancelToken>,
    since: Option<Instant>,
}

impl Waiting<'_> {
    /// Whether the token has just been cancelled.
    fn newly_cancelled(&mut self) -> bool {
        let newly = self.since.is_none() && self.cancel.is_some_and(CancelToken::is_cancelled);
        if newly {
            self.since = Some(Instant::now());
        }
        newly
    }

    fn check(&self) -> std::io::Result<()> {
        match self.since {
            Some(since) if since.elapsed() > CANCEL_PATIENCE => {
                Err(frame::bad("it has not reacted to a cancel in 30 s"))
            }
            _ => Ok(()),
        }
    }
}

impl Connection {
    /// Greets the worker at the other end of `stream`, which `process` is.
    ///
    /// # Errors
    /// It is no worker of this build.
    pub fn open(stream: UnixStream, process: Option<Process>) -> Result<Self> {
        let io = |cause: std::io::Error| {
            Error::with_source(ErrorKind::Io, format!("cannot open a channel to a worker: {cause}"), cause)
        };
        stream.set_read_timeout(Some(LOOK)).map_err(io)?;
        stream.set_write_timeout(Some(LOOK)).map_err(io)?;
        let reading = Mutex::new(Input::new(stream.try_clone().map_err(io)?));
        let state = State { calls: HashMap::new(), led: false, next: 0, broken: None };
        let connection = Self {
            stream,
            writing: Mutex::new(()),
            reading,
            state: Mutex::new(state),
            changed: Condvar::new(),
            process,
        };
        connection.greet()?;
        Ok(connection)
    }

    fn greet(&self) -> Result<()> {
        let deadline = Instant::now() + HELLO_PATIENCE;
        let mut patience = || match Instant::now() < deadline {
            true => Ok(()),
            false => Err(frame::bad("it does not say hello in 30 s")),
        };
        let own = Hello::own();
        let said = frame::send(&self.stream, &[&own.bytes(Side::Host)], &mut patience)
            .and_then(|()| Hello::read(Side::Worker, &mut lock(&self.reading).with(&mut patience)));
        let said = said.map_err(|cause| self.break_with(&cause))?;
        if said.fits(&own) {
            return Ok(());
        }
        let program = self.process.as_ref().map(|process| process.program().display().to_string());
        let what = format!(
            "the worker {} is of version {} (protocol {}), this library is of {} (protocol {}): install both from one \
             build, or name the right one (INHOUSE_WORKER)",
            program.unwrap_or_default(),
            said.version,
            said.protocol,
            own.version,
            own.protocol
        );
        Err(Error::new(ErrorKind::UnsupportedVersion, what))
    }

    /// The worker's process number.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// Whether the worker can still answer.
    pub fn is_alive(&self) -> bool {
        let broken = lock(&self.state).broken.is_some();
        // Between two calls nobody reads; a worker that died then has closed the channel.
        !broken && is_open(&self.stream)
    }

    /// Asks and waits for the answer; a worker's error is an error.
    ///
    /// # Errors
    /// What the worker says, or [`ErrorKind::Backend`] where it is gone.
    pub fn call(&self, request: &Request, payload: Payload<'_>) -> Result<Answer> {
        let Payload { body, rows, limit, cancel } = payload;
        let message = message::to_json(request)?;
        let number = {
            let mut state = lock(&self.state);
            if let Some(error) = state.broken() {
                return Err(error);
            }
            let number = state.next;
            state.next = state.next.wrapping_add(1);
            state.calls.insert(number, Call::Waiting(rows, limit));
            number
        };
        let mut waiting = Waiting { cancel, since: None };
        let sent = self.send(number, &message, body, cancel);
        let answer = sent.and_then(|()| self.answer(number, &mut waiting));
        lock(&self.state).calls.remove(&number);
        let answer = answer?;
        match answer.reply {
            Reply::Failed { kind, message } => Err(message::failure(kind, message)),
            _ => Ok(answer),
        }
    }

    /// Tells the worker something that it does not answer. Where it is gone, the next call says so.
    pub fn tell(&self, request: &Request) {
        if let Ok(message) = message::to_json(request) {
            self.send(0, &message, &[], None).ok();
        }
    }

    /// What breaks the protocol in a reply of the right form, such as one to another question.
    pub fn protocol_error(&self, what: &str) -> Error {
        self.break_with(&frame::bad(what))
    }

    fn send(&self, number: u32, message: &[u8], body: &[&[u8]], cancel: Option<&CancelToken>) -> Result<()> {
        let begun = Instant::now();
        let mut waiting = Waiting { cancel, since: None };
        let mut patience = || {
            waiting.newly_cancelled();
            if begun.elapsed() > WRITE_PATIENCE {
                return Err(frame::bad("it reads nothing"));
            }
            waiting.check()
        };
        let sent = {
            let _writing = lock(&self.writing);
            frame::write(&self.stream, number, message, body, &mut patience)
        };
        sent.map_err(|cause| self.break_with(&cause))
    }

    /// Waits for the answer to request `number`, reading for the others where nobody else does.
    fn answer(&self, number: u32, waiting: &mut Waiting<'_>) -> Result<Answer> {
        loop {
            let mut state = lock(&self.state);
            if let Some(Call::Answered(_)) = state.calls.get(&number)
                && let Some(Call::Answered(answer)) = state.calls.remove(&number)
            {
                return Ok(answer);
            }
            if let Some(error) = state.broken() {
                return Err(error);
            }
            if state.led {
                drop(self.changed.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner));
                self.look(number, waiting).map_err(|cause| self.break_with(&cause))?;
                continue;
            }
            state.led = true;
            drop(state);
            let mut looking = || self.look(number, waiting);
            let read = self.read_one(&mut looking);
            lock(&self.state).led = false;
            if let Err(cause) = read {
                self.break_with(&cause);
            }
            self.changed.notify_all();
        }
    }

    /// What a thread does while it waits.
    fn look(&self, number: u32, waiting: &mut Waiting<'_>) -> std::io::Result<()> {
        if waiting.newly_cancelled() {
            self.tell(&Request::Cancel { request: number });
        }
        waiting.check()
    }

    /// Reads one answer and puts it where its caller finds it.
    fn read_one(&self, looking: &mut dyn FnMut() -> std::io::Result<()>) -> std::io::Result<()> {
        let mut reading = lock(&self.reading);
        let mut input = reading.with(looking);
        let head = Head::read(&mut input)?;
        let (mut rows, limit) = {
            let mut state = lock(&self.state);
            let call = state.calls.get_mut(&head.request);
            match call.map(|call| std::mem::replace(call, Call::Arriving)) {
                Some(Call::Waiting(rows, limit)) => (rows, limit),
                _ => return Err(frame::bad("it answers what nobody asked")),
            }
        };
        let message = head.read_message(&mut input)?;
        let reply: Reply = message::from_json(&message)?;
        let body = match reply {
            Reply::Rows => {
                let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut rows);
                if bytes.len() as u64 != head.body_bytes {
                    return Err(frame::bad("it sends rows of another length than asked for"));
                }
                input.read_exact(bytes)?;
                Vec::new()
            }
            _ if head.body_bytes > limit => return Err(frame::bad("it sends more than the answer can have")),
            _ => head.read_body(&mut input)?,
        };
        let answer = Answer { reply, body, rows };
        // Where the caller is gone, so is its entry.
        if let Some(call) = lock(&self.state).calls.get_mut(&head.request) {
            *call = Call::Answered(answer);
        }
        Ok(())
    }

    /// Ends the connection for `cause`, unless it has ended for another, and gives the error of all later calls.
    fn break_with(&self, cause: &std::io::Error) -> Error {
        let mut state = lock(&self.state);
        if let Some(error) = state.broken() {
            return error;
        }
        // Others wait meanwhile: they get this error as well.
        let error = match (&self.process, cause.kind()) {
            (Some(process), std::io::ErrorKind::InvalidData) => process.obituary(Some(&cause.to_string())),
            (Some(process), _) => process.obituary(None),
            (None, _) => Error::new(ErrorKind::Backend, format!("the channel to the worker broke: {cause}")),
        };
        state.broken = Some((error.kind(), error.to_string()));
        self.changed.notify_all();
        error
    }
}

impl State {
    fn broken(&self) -> Option<Error> {
        self.broken.as_ref().map(|(kind, what)| Error::new(*kind, what.clone()))
    }
}

fn is_open(stream: &UnixStream) -> bool {
    use nix::sys::socket::{MsgFlags, recv};
    use std::os::fd::AsRawFd;
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    !matches!(recv(stream.as_raw_fd(), &mut [0], flags), Ok(0) | Err(nix::errno::Errno::ECONNRESET))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
