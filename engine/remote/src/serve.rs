//! The worker's end: loads one model and does what the host asks.
//!
//! Any number of requests may be under way. One thread at a time leads: it reads the next request, hands the lead to another
//! thread, and does the request itself, so that an answer waits for no change of threads, and a cancel is always read. A
//! feed of the only decoder that is over in a moment, as one token is, is not worth waking another thread.

use std::collections::HashMap;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use inhouse_core::decode::{CancelToken, Decoder, Feed, Model, TokenId};
use inhouse_core::{Error, ErrorKind, Result};

use crate::frame::{self, Head, Input};
use crate::hello::{Hello, Side};
use crate::message::{self, Edit, Load, Loaded, Opened, Options, Reply, Request};
use crate::vocabulary::Vocabulary;

/// More requests than this are not done side by side.
const MAX_THREADS: usize = 512;
/// A feed of so few tokens is over in a moment: a cancel ends work within a token at best.
const FEW_TOKENS: usize = 4;
/// No decoder has more sequences.
const MAX_SEQUENCES: usize = 1 << 16;
/// Within this time what is under way ends once the host is gone.
const END_PATIENCE: Duration = Duration::from_secs(2);

/// Serves the host at the other end of `channel` until it hangs up. `load` opens the model that it asks for.
///
/// # Errors
/// The host is of another build ([`ErrorKind::UnsupportedVersion`]) or breaks the protocol ([`ErrorKind::InvalidData`]);
/// work that does not end with the channel ([`ErrorKind::Busy`]): the process should then end without waiting for it.
pub fn serve(
    channel: UnixStream,
    load: impl Fn(&Path, &Load) -> Result<Arc<dyn Model>> + Send + Sync + 'static,
) -> Result<()> {
    let broken = |cause: std::io::Error| {
        Error::with_source(ErrorKind::InvalidData, format!("the host: {cause}"), cause)
    };
    let own = Hello::own();
    frame::send(&channel, &[&own.bytes(Side::Worker)], &mut forever).map_err(broken)?;
    let mut input = Input::new(channel.try_clone().map_err(broken)?);
    let host = Hello::read(Side::Host, &mut input.with(&mut forever)).map_err(broken)?;
    if !host.fits(&own) {
        let what = format!("this worker is of version {}, its host of {}", own.version, host.version);
        return Err(Error::new(ErrorKind::UnsupportedVersion, what));
    }
    let server = Arc::new(Server {
        reading: Mutex::new(input),
        channel,
        writing: Mutex::new(()),
        load: Box::new(load),
        model: OnceLock::new(),
        decoders: Mutex::default(),
        n_opened: AtomicU32::new(0),
        running: Mutex::default(),
        waiting: AtomicUsize::new(0),
        threads: Mutex::new(0),
        ended: Condvar::new(),
        end: OnceLock::new(),
    });
    Server::spawn(&server).map_err(broken)?;
    server.join(broken)
}

/// The worker's side waits as long as the host likes.
fn forever() -> std::io::Result<()> {
    Ok(())
}

type Loader = dyn Fn(&Path, &Load) -> Result<Arc<dyn Model>> + Send + Sync;

struct Server {
    /// Whoever holds this leads.
    reading: Mutex<Input<UnixStream>>,
    channel: UnixStream,
    writing: Mutex<()>,
    load: Box<Loader>,
    model: OnceLock<Arc<dyn Model>>,
    decoders: Mutex<HashMap<u32, Arc<Mutex<Slot>>>>,
    n_opened: AtomicU32,
    /// Feeds under way, by their request.
    running: Mutex<HashMap<u32, CancelToken>>,
    /// Threads that read, or wait for the lead.
    waiting: AtomicUsize,
    threads: Mutex<usize>,
    /// A thread has ended.
    ended: Condvar,
    /// Why there will be no more requests.
    end: OnceLock<std::io::Error>,
}

struct Slot {
    decoder: Box<dyn Decoder>,
    broken: bool,
}

/// A request that is answered.
struct Job {
    number: u32,
    request: Request,
    body: Vec<u8>,
    cancel: CancelToken,
}

impl Job {
    fn is_short(&self) -> bool {
        matches!(self.request, Request::Feed { .. }) && self.body.len() <= FEW_TOKENS * size_of::<TokenId>()
    }
}

impl Server {
    /// One more thread that leads when it is its turn.
    fn spawn(self: &Arc<Self>) -> std::io::Result<()> {
        *lock(&self.threads) += 1;
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let server = Arc::clone(self);
        let spawned = std::thread::Builder::new().name("worker".into()).spawn(move || {
            server.lead();
            *lock(&server.threads) -= 1;
            server.ended.notify_all();
        });
        if spawned.is_err() {
            *lock(&self.threads) -= 1;
            self.waiting.fetch_sub(1, Ordering::SeqCst);
        }
        spawned.map(drop)
    }

    /// Waits for the end of the channel and then, not for long, for what is under way.
    fn join(&self, broken: impl Fn(std::io::Error) -> Error) -> Result<()> {
        let threads = lock(&self.threads);
        let open = |_: &mut usize| self.end.get().is_none();
        let threads = self.ended.wait_while(threads, open).unwrap_or_else(PoisonError::into_inner);
        let (threads, _) = self
            .ended
            .wait_timeout_while(threads, END_PATIENCE, |threads| *threads > 0)
            .unwrap_or_else(PoisonError::into_inner);
        if *threads > 0 {
            return Err(Error::new(ErrorKind::Busy, "the host is gone, and work is still under way"));
        }
        match self.end.get() {
            Some(end) if end.kind() == std::io::ErrorKind::InvalidData => {
                Err(broken(std::io::Error::new(end.kind(), end.to_string())))
            }
            _ => Ok(()),
        }
    }

    fn lead(self: &Arc<Self>) {
        while let Some(job) = self.read_and_do() {
            if self.waiting.fetch_sub(1, Ordering::SeqCst) == 1 && *lock(&self.threads) < MAX_THREADS {
                // Without another thread, cancels are read when this request is done.
                self.spawn().ok();
            }
            self.finish(job);
            self.waiting.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Leads, until there is a request that another thread should lead on for, which is returned; `None` at the end of the
    /// channel.
    fn read_and_do(&self) -> Option<Job> {
        let mut reading = lock(&self.reading);
        while self.end.get().is_none() {
            match self.read(&mut reading) {
                Ok(job) if job.is_short() && lock(&self.decoders).len() == 1 => self.finish(job),
                Ok(job) => return Some(job),
                Err(end) => {
                    self.end.set(end).ok();
                    lock(&self.running).values().for_each(CancelToken::cancel);
                }
            }
        }
        None
    }

    /// Does what is asked, whatever happens on the way.
    fn finish(&self, job: Job) {
        let number = job.number;
        let done = catch_unwind(AssertUnwindSafe(|| self.execute(job)));
        lock(&self.running).remove(&number);
        let failed = match done {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error),
            Err(_) => Some(Error::new(ErrorKind::Backend, "a panic in the worker (see its log)")),
        };
        if let Some(error) = failed {
            // Where the host is gone, the next read says so.
            self.answer(number, &Reply::failed(&error), &[]).ok();
        }
    }

    /// Reads the next request that is answered, and does those on the way that are not.
    fn read(&self, input: &mut Input<UnixStream>) -> std::io::Result<Job> {
        let mut forever = forever;
        let input: &mut dyn Read = &mut input.with(&mut forever);
        loop {
            let head = Head::read(input)?;
            let request: Request = message::from_json(&head.read_message(input)?)?;
            let body = head.read_body(input)?;
            match request {
                Request::Cancel { request } => {
                    if let Some(cancel) = lock(&self.running).get(&request) {
                        cancel.cancel();
                    }
                }
                // Now, so that its memory is there for one that is opened next.
                Request::Close { decoder } => {
                    let closed = lock(&self.decoders).remove(&decoder);
                    drop(closed);
                }
                _ => {
                    let (number, cancel) = (head.request, CancelToken::new());
                    lock(&self.running).insert(number, cancel.clone());
                    return Ok(Job { number, request, body, cancel });
                }
            }
        }
    }

    /// Does what is asked and answers; an error is left to be answered.
    fn execute(&self, job: Job) -> Result<()> {
        let Job { number, request, body, cancel } = job;
        match request {
            Request::Load(mut load) => {
                let path = load.take(&body).ok_or_else(|| invalid("paths of adapters are missing"))?;
                let model = (self.load)(&path, &load)?;
                let loaded = Loaded { info: model.info().clone(), conventions: model.conventions().clone() };
                let vocabulary = Vocabulary::pack(model.tokenizer());
                if self.model.set(model).is_err() {
                    return Err(invalid("a model is loaded already"));
                }
                self.answer(number, &Reply::Loaded(Box::new(loaded)), &[&vocabulary])
            }
            Request::Encode => {
                let text = std::str::from_utf8(&body).map_err(|_| invalid("a text is not UTF-8"))?;
                let tokens = self.model()?.tokenizer().encode(text)?;
                self.answer(number, &Reply::Tokens, &[bytemuck::cast_slice(&tokens)])
            }
            Request::Open(options) => self.open(number, &options),
            Request::Feed { decoder, edits, feeds } => {
                let slot = self.slot(decoder)?;
                let mut slot = lock(&slot);
                slot.apply(&edits)?;
                let tokens = message::tokens(&body).map_err(|cause| invalid(&cause.to_string()))?;
                let mut rest = tokens.as_slice();
                let mut taken = Vec::with_capacity(feeds.len());
                for (seq, n) in feeds {
                    let (tokens, others) = rest
                        .split_at_checked(n as usize)
                        .ok_or_else(|| invalid("tokens of a feed are missing"))?;
                    rest = others;
                    taken.push(Feed { seq, tokens });
                }
                slot.decoder.feed(&taken, &cancel)?;
                let rows = (0..taken.len()).map(|i| slot.decoder.logits(i).map(bytemuck::cast_slice));
                let rows: Vec<&[u8]> = rows.collect::<Result<_>>()?;
                self.answer(number, &Reply::Rows, &rows)
            }
            Request::Save { decoder, edits, seq } => {
                let slot = self.slot(decoder)?;
                let mut slot = lock(&slot);
                slot.apply(&edits)?;
                let cells = slot.decoder.save(seq)?;
                drop(slot);
                self.answer(number, &Reply::Cells, &[&cells])
            }
            Request::Restore { decoder, edits, seq, len } => {
                let slot = self.slot(decoder)?;
                let mut slot = lock(&slot);
                slot.apply(&edits)?;
                slot.decoder.restore(seq, narrow(len), &body)?;
                self.answer(number, &Reply::Done, &[])
            }
            // Done when it was read.
            Request::Cancel { .. } | Request::Close { .. } => Ok(()),
        }
    }

    fn open(&self, number: u32, options: &Options) -> Result<()> {
        let options = options.decoder_options();
        if options.sequences > MAX_SEQUENCES {
            return Err(invalid("too many sequences"));
        }
        let decoder = Arc::clone(self.model()?).decoder(&options)?;
        let id = self.n_opened.fetch_add(1, Ordering::Relaxed);
        let opened = Opened {
            decoder: id,
            max_sequences: decoder.max_sequences() as u32,
            context_length: decoder.context_length() as u64,
            reads_prompt_whole: decoder.reads_prompt_whole(),
        };
        let slot = Slot { decoder, broken: false };
        lock(&self.decoders).insert(id, Arc::new(Mutex::new(slot)));
        self.answer(number, &Reply::Opened(opened), &[])
    }

    fn model(&self) -> Result<&Arc<dyn Model>> {
        self.model.get().ok_or_else(|| invalid("no model is loaded"))
    }

    fn slot(&self, decoder: u32) -> Result<Arc<Mutex<Slot>>> {
        let slot = lock(&self.decoders).get(&decoder).map(Arc::clone);
        match slot {
            Some(slot) if slot.is_poisoned() => Err(Slot::unusable()),
            slot => slot.ok_or_else(|| invalid("no such decoder")),
        }
    }

    fn answer(&self, number: u32, reply: &Reply, body: &[&[u8]]) -> Result<()> {
        let message = message::to_json(reply)?;
        let _writing = lock(&self.writing);
        frame::write(&self.channel, number, &message, body, &mut forever)
            .map_err(|cause| Error::new(ErrorKind::Io, format!("cannot answer the host: {cause}")))
    }
}

impl Slot {
    fn unusable() -> Error {
        Error::new(ErrorKind::Backend, "the decoder failed before and cannot be used any more")
    }

    fn apply(&mut self, edits: &[Edit]) -> Result<()> {
        if self.broken {
            return Err(Self::unusable());
        }
        for edit in edits {
            let done = match *edit {
                Edit::Fork(from, to) => self.decoder.fork(from, to),
                Edit::Rewind(seq, len) => self.decoder.rewind(seq, narrow(len)),
            };
            if let Err(error) = done {
                // The host took it for done already.
                self.broken = true;
                return Err(Error::new(ErrorKind::Backend, error.to_string()));
            }
        }
        Ok(())
    }
}

fn narrow(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

fn invalid(what: &str) -> Error {
    Error::new(ErrorKind::InvalidArgument, what)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
