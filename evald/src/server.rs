//! Connections: JSON lines in, JSON lines out. Two threads each, so that a slow reader holds up nobody but itself.

use std::collections::HashMap;
use std::io::{BufReader, BufWriter, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use evald_proto::{ErrorCode, Job, MAX_LINE_BYTES, PROTOCOL_VERSION, Reply, Request};
use nix::sys::socket::{MsgFlags, UnixCredentials, getsockopt, send, sockopt};

use crate::budget::Budget;
use crate::connections::Connections;
use crate::error::{Error, Result, Step};
use crate::limits::Terms;
use crate::metrics::Metrics;
use crate::permits::{MAX_IN_FLIGHT, NoPermit, Permits};
use crate::program;
use crate::scheduler::{Answer, Scheduler, Task};
use crate::tier::Tier;
use crate::wire_line::read_line;

/// A client that has taken in nothing of its replies for so long is given up.
const REPLY_PATIENCE: Duration = Duration::from_secs(300);

/// How often a reader that waits for the rest of a line looks at the clock.
const LOOK: Duration = Duration::from_secs(2);
/// Longest name of a job or an environment, in bytes: they are kept, and said again in replies.
const MAX_NAME_BYTES: usize = 256;
/// Longest message about a request, in bytes: it may quote what was sent.
const MAX_MESSAGE_BYTES: usize = 400;

/// What connections share.
pub struct Server {
    /// Names of the environments, by index.
    pub environments: Vec<String>,
    /// The tier that runs jobs.
    pub tier: String,
    /// Jobs that run side by side.
    pub slots: usize,
    /// Limits that jobs leave open, and those that they cannot exceed.
    pub terms: Terms,
    /// Where jobs go.
    pub scheduler: Arc<Scheduler>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Who is connected.
    pub connections: Arc<Connections>,
    /// What they make the daemon hold.
    pub budget: Arc<Budget>,
}

/// A listening socket, mode 0600. A socket file that no daemon answers on is replaced.
///
/// # Errors
/// Another daemon listens there, the path is something else, or the folder is not writable.
pub fn listen(path: &Path) -> Result<UnixListener> {
    use std::os::unix::fs::FileTypeExt;
    if let Ok(meta) = std::fs::symlink_metadata(path) {
        if !meta.file_type().is_socket() {
            return Err(Error::Host(format!("{} exists and is not a socket", path.display())));
        }
        if UnixStream::connect(path).is_ok() {
            return Err(Error::Host(format!("another daemon listens on {}", path.display())));
        }
        std::fs::remove_file(path).step(format!("remove the old socket {}", path.display()))?;
    }
    // Bound under another name, closed to others, and only then shown. Between the first two steps the umask alone decides
    // who could find and open it; whoever does is turned away for his credentials (see `Server::serve`).
    let hidden = path.with_extension(format!("{}.new", std::process::id()));
    let listener = UnixListener::bind(&hidden).step(format!("listen on {}", path.display()))?;
    std::fs::set_permissions(&hidden, std::fs::Permissions::from_mode(0o600))
        .step("close the socket to others")?;
    std::fs::rename(&hidden, path).step(format!("name the socket {}", path.display()))?;
    Ok(listener)
}

impl Server {
    /// Serves connections for ever.
    ///
    /// # Errors
    /// Accepting fails for another reason than a client's.
    pub fn serve(self: &Arc<Self>, listener: &UnixListener) -> Result<()> {
        for stream in listener.incoming() {
            match stream {
                Ok(stream) => self.receive(Arc::new(stream)),
                Err(error) => {
                    // Out of descriptors, an aborted connection: wait for better times rather than end.
                    tracing::warn!(error = error.to_string(), "cannot accept a connection");
                    std::thread::sleep(Duration::from_millis(50));
                }
            }
        }
        Ok(())
    }

    /// A connection from this process itself.
    ///
    /// # Errors
    /// As socketpair(2).
    pub fn connect(self: &Arc<Self>) -> std::io::Result<UnixStream> {
        let (ours, theirs) = UnixStream::pair()?;
        self.receive(Arc::new(theirs));
        Ok(ours)
    }

    /// Finds a newcomer a place and a thread, or says why not.
    fn receive(self: &Arc<Self>, stream: Arc<UnixStream>) {
        let turn_away = |code, reason: String| {
            self.metrics.refused_connections.fetch_add(1, Ordering::Relaxed);
            refuse(&stream, code, reason);
        };
        let peer = match known_peer(&stream) {
            Ok(peer) => peer,
            Err(reason) => {
                tracing::warn!(reason, "turned a connection away");
                return turn_away(ErrorCode::Forbidden, reason);
            }
        };
        let client = next_client();
        let permits = Arc::new(Permits::new(self.budget.open(client, peer.pid, Arc::clone(&stream))));
        let gauge = &self.metrics.connections;
        let Some(place) = self.connections.admit(client, peer.pid, &stream, &permits, gauge) else {
            tracing::info!(peer.pid, "turned a connection away: too many");
            return turn_away(ErrorCode::Busy, format!("more than {} connections", self.connections.most()));
        };
        let (server, theirs) = (Arc::clone(self), Arc::clone(&stream));
        let spawned = std::thread::Builder::new().name("client".into()).spawn(move || {
            server.attend(client, &theirs, permits, peer);
            drop(place);
        });
        if let Err(error) = spawned {
            tracing::warn!(error = error.to_string(), "cannot start a thread for a connection");
            turn_away(ErrorCode::Busy, format!("cannot start a thread: {error}"));
        }
    }

    /// Serves one connection to its end.
    pub fn converse(&self, stream: UnixStream) {
        let peer = credentials(&stream).unwrap_or_default();
        let _counted = self.metrics.connections.count();
        let (client, stream) = (next_client(), Arc::new(stream));
        let permits = Arc::new(Permits::new(self.budget.open(client, peer.pid, Arc::clone(&stream))));
        self.attend(client, &stream, permits, peer);
    }

    fn attend(&self, client: u64, stream: &Arc<UnixStream>, permits: Arc<Permits>, peer: Peer) {
        let begun = Instant::now();
        stream.set_write_timeout(Some(REPLY_PATIENCE)).ok();
        stream.set_read_timeout(Some(LOOK)).ok();
        let (replies, outbox) = channel();
        let writer = {
            let (stream, permits) = (Arc::clone(stream), Arc::clone(&permits));
            let builder = std::thread::Builder::new().name("replies".into());
            builder.spawn(move || write_replies(&stream, &outbox, &permits))
        };
        let writer = match writer {
            Ok(writer) => writer,
            Err(error) => {
                tracing::warn!(error = error.to_string(), "cannot start a thread for a connection");
                self.metrics.refused_connections.fetch_add(1, Ordering::Relaxed);
                return refuse(stream, ErrorCode::Busy, format!("cannot start a thread: {error}"));
            }
        };
        let mut conversation = Conversation {
            server: self,
            client,
            peer,
            replies,
            permits,
            jobs: HashMap::new(),
            asked: 0,
            ran: 0,
        };
        let mut reader = BufReader::with_capacity(64 << 10, &**stream);
        let permits = Arc::clone(&conversation.permits);
        loop {
            let mut held = 0;
            let line = read_line(&mut reader, &mut |bytes| {
                held += bytes;
                permits.holding().grow(bytes).is_ok()
            });
            match line {
                Ok(Some(line)) => {
                    let heard = if line.trim().is_empty() { Ok(()) } else { conversation.hear(line, held) };
                    if let Err(refused) = heard {
                        if refused == NoPermit::Full {
                            let message =
                                "no memory for this request beside others; try again later".to_owned();
                            conversation.complain(None, ErrorCode::Busy, message);
                        }
                        break;
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    conversation.complain(None, ErrorCode::BadLine, error.to_string());
                    break;
                }
            }
        }
        let (requests, jobs) = (conversation.asked, conversation.ran);
        drop(conversation);
        stream.shutdown(std::net::Shutdown::Read).ok();
        writer.join().ok();
        let ms = begun.elapsed().as_millis() as u64;
        tracing::info!(client, uid = peer.uid, pid = peer.pid, requests, jobs, ms, "connection ended");
    }

    /// What a job makes the daemon hold until its reply is written: its texts, and its output where that is kept.
    pub fn bytes_of(&self, job: &Job) -> usize {
        let output = job.limits.output_bytes.unwrap_or(self.terms.usual.output_bytes);
        let kept = job.keep_output || job.program.is_some();
        let output = if kept { output.min(MAX_LINE_BYTES as u64) as usize } else { 0 };
        job.code.len() + job.test.len() + job.program.as_ref().map_or(0, program::size) + output
    }

    /// Takes no more jobs and refuses those that wait; connections stay, so that what runs can be answered.
    pub fn stop(&self) {
        for task in self.scheduler.stop() {
            refuse_task(task);
        }
    }

    fn hello(&self) -> Reply {
        Reply::Hello {
            protocol: PROTOCOL_VERSION,
            version: env!("CARGO_PKG_VERSION").into(),
            tier: self.tier.clone(),
            envs: self.environments.clone(),
            slots: self.slots,
            max_in_flight: MAX_IN_FLIGHT,
        }
    }
}

fn next_client() -> u64 {
    static CLIENTS: AtomicU64 = AtomicU64::new(0);
    CLIENTS.fetch_add(1, Ordering::Relaxed)
}

/// Who is at the other end, as the kernel says.
#[derive(Debug, Clone, Copy, Default)]
struct Peer {
    uid: u32,
    pid: i32,
}

fn credentials(stream: &UnixStream) -> nix::Result<Peer> {
    let peer: UnixCredentials = getsockopt(stream, sockopt::PeerCredentials)?;
    Ok(Peer { uid: peer.uid(), pid: peer.pid() })
}

/// Only the daemon's own user, and root, may ask it to run code.
fn known_peer(stream: &UnixStream) -> Result<Peer, String> {
    let peer = credentials(stream).map_err(|error| format!("who connects cannot be told: {error}"))?;
    let own = nix::unistd::geteuid().as_raw();
    if peer.uid == own || peer.uid == 0 {
        Ok(peer)
    } else {
        Err(format!("user {} may not connect to the evald of user {own}", peer.uid))
    }
}

fn refuse_task(task: Task) {
    let id = Some(task.job.id.clone());
    task.answer(Reply::error(id, ErrorCode::Stopping, "evald is stopping; this job was not run"));
}

/// Says a last word and hangs up, without waiting for a peer that does not read.
pub(crate) fn refuse(stream: &UnixStream, code: ErrorCode, message: String) {
    let mut line = serde_json::to_vec(&Reply::error(None, code, message)).unwrap_or_default();
    line.push(b'\n');
    // A buffer with nothing in it takes one line; a peer that has gone already is no matter.
    send(stream.as_raw_fd(), &line, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL).ok();
    stream.shutdown(std::net::Shutdown::Both).ok();
}

fn write_replies(stream: &UnixStream, outbox: &Receiver<Answer>, permits: &Permits) {
    let mut out = BufWriter::with_capacity(16 << 10, stream);
    while let Ok(first) = outbox.recv() {
        let mut next = Some(first);
        let mut written_jobs = Vec::new();
        // Whatever is ready goes out in one write.
        while let Some(Answer { reply, counted }) = next {
            written_jobs.extend(counted);
            permits.writing(true);
            let written = serde_json::to_writer(&mut out, &reply).map_err(std::io::Error::from);
            if written.and_then(|()| out.write_all(b"\n")).is_err() {
                return permits.give_up();
            }
            permits.free(&reply);
            next = outbox.try_recv().ok();
        }
        if out.flush().is_err() {
            return permits.give_up();
        }
        permits.writing(false);
        // Only now is a job out of flight.
        drop(written_jobs);
    }
}

/// What is left of a request that cannot be read.
#[derive(serde::Deserialize)]
struct Named {
    id: String,
}

struct Conversation<'a> {
    server: &'a Server,
    client: u64,
    peer: Peer,
    replies: Sender<Answer>,
    permits: Arc<Permits>,
    /// Jobs without a reply, roughly: ended ones are swept out now and then.
    jobs: HashMap<String, Arc<AtomicBool>>,
    /// Requests and jobs so far, for the log.
    asked: u64,
    ran: u64,
}

impl Drop for Conversation<'_> {
    /// Nobody waits for what is left: queued jobs are forgotten and running ones killed.
    fn drop(&mut self) {
        let forgotten = self.server.scheduler.forget(self.client) as u64;
        self.server.metrics.cancelled.fetch_add(forgotten, Ordering::Relaxed);
        for cancelled in self.jobs.values() {
            cancelled.store(true, Ordering::Relaxed);
        }
    }
}

impl Conversation<'_> {
    /// Serves one line, which is given back with its memory of `held` bytes. An error ends the conversation.
    fn hear(&mut self, line: String, held: usize) -> Result<(), NoPermit> {
        self.asked += 1;
        let request = serde_json::from_str::<Request>(&line);
        let broken_job = if request.is_err() { serde_json::from_str::<Named>(&line).ok() } else { None };
        drop(line);
        self.permits.holding().shrink(held);
        match request {
            Ok(Request::Hello) => {
                self.permits.take(None, 0)?;
                self.send(self.server.hello())
            }
            Ok(Request::Metrics) => {
                self.permits.take_for_metrics()?;
                self.send(Reply::Metrics {
                    text: self.server.metrics.text(&self.server.tier, self.server.slots),
                })
            }
            Ok(Request::Run(job)) => self.run(job),
            Ok(Request::Cancel { id }) => self.cancel(&id),
            Err(error) => {
                // A job whose text is none (half of a surrogate pair, say) is told from the others by its id.
                let id = broken_job
                    .map(|job| job.id)
                    .filter(|id| !id.is_empty() && id.len() <= MAX_NAME_BYTES && !self.permits.holds(id));
                self.permits.take(id.as_deref(), 0)?;
                self.complain(id, ErrorCode::BadRequest, format!("not a request: {error}"));
                Ok(())
            }
        }
    }

    fn complain(&self, id: Option<String>, code: ErrorCode, mut message: String) {
        if message.len() > MAX_MESSAGE_BYTES {
            message.truncate(message.floor_char_boundary(MAX_MESSAGE_BYTES));
            message.push_str("...");
        }
        self.send(Reply::error(id, code, message)).ok();
    }

    fn send(&self, reply: Reply) -> Result<(), NoPermit> {
        self.replies.send(Answer { reply, counted: None }).map_err(|_| NoPermit::Broken)
    }

    fn run(&mut self, job: Job) -> Result<(), NoPermit> {
        self.ran += 1;
        for (what, name) in [("id", &job.id), ("env", &job.env)] {
            if name.len() > MAX_NAME_BYTES {
                self.permits.take(None, 0)?;
                let message =
                    format!("a job's {what} of {} bytes is longer than {MAX_NAME_BYTES}", name.len());
                self.complain(None, ErrorCode::BadRequest, message);
                return Ok(());
            }
        }
        let program = job.program.as_ref();
        let refusal = program::unusable(&job).or_else(|| {
            let files = program.is_some_and(|program| !program.files.is_empty() || !program.fetch.is_empty());
            (files && self.server.tier == Tier::T4.to_string())
                .then(|| "in T4 a program has no folder to write to, so no files".into())
        });
        if let Some(reason) = refusal {
            let id = Some(job.id).filter(|id| !id.is_empty() && !self.permits.holds(id));
            self.permits.take(id.as_deref(), 0)?;
            self.complain(id, ErrorCode::BadRequest, reason);
            return Ok(());
        }
        if self.permits.holds(&job.id) {
            self.permits.take(None, 0)?;
            // Without the id: the reply must not be taken for the end of the first job of that name.
            let message = format!("a job {:?} of this connection has not ended", job.id);
            self.complain(None, ErrorCode::DuplicateId, message);
            return Ok(());
        }
        self.permits.take(Some(&job.id), self.server.bytes_of(&job))?;
        let environment = match job.env.as_str() {
            "" => Some(0),
            name => self.server.environments.iter().position(|known| known == name),
        };
        let Some(environment) = environment else {
            let known = self.server.environments.join(", ");
            let message = format!("no environment {:?}; there are: {known}", job.env);
            self.complain(Some(job.id), ErrorCode::UnknownEnv, message);
            return Ok(());
        };
        let limits = match self.server.terms.resolve(&job.limits) {
            Ok(limits) => limits,
            Err(reason) => {
                self.complain(Some(job.id), ErrorCode::BadLimits, reason);
                return Ok(());
            }
        };
        if self.jobs.len() >= 2 * MAX_IN_FLIGHT {
            self.jobs.retain(|id, _| self.permits.holds(id));
        }
        let cancelled = Arc::new(AtomicBool::new(false));
        self.jobs.insert(job.id.clone(), Arc::clone(&cancelled));
        let task = Task {
            client: self.client,
            user: self.peer.uid,
            process: self.peer.pid,
            job,
            environment,
            limits,
            cancelled,
            reply: self.replies.clone(),
            accepted: Instant::now(),
            counted: self.server.metrics.in_flight.count(),
        };
        if let Err(task) = self.server.scheduler.push(task) {
            refuse_task(*task);
        }
        Ok(())
    }

    fn cancel(&mut self, id: &str) -> Result<(), NoPermit> {
        if let Some(task) = self.server.scheduler.take(self.client, id) {
            self.server.metrics.cancelled.fetch_add(1, Ordering::Relaxed);
            let id = Some(task.job.id.clone());
            task.answer(Reply::error(id, ErrorCode::Cancelled, "cancelled"));
        } else if self.permits.holds(id) {
            // It runs: the worker replies.
            if let Some(cancelled) = self.jobs.get(id) {
                cancelled.store(true, Ordering::Relaxed);
            }
        } else {
            self.permits.take(None, 0)?;
            let named = &id[..id.floor_char_boundary(MAX_NAME_BYTES)];
            self.complain(None, ErrorCode::NothingToCancel, format!("no job {named:?} to cancel"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server() -> Server {
        Server {
            environments: vec!["py".into()],
            tier: "T2".into(),
            slots: 1,
            terms: Terms::default(),
            scheduler: Arc::default(),
            metrics: Arc::default(),
            connections: Arc::default(),
            budget: Arc::default(),
        }
    }

    /// A conversation that ends by a panic leaves no job in the queue and none that runs on.
    #[test]
    fn a_panic_forgets_the_jobs_of_its_client() {
        let server = server();
        let (replies, outbox) = channel();
        let mut conversation = Conversation {
            server: &server,
            client: 7,
            peer: Peer::default(),
            replies,
            permits: {
                let stream = Arc::new(UnixStream::pair().expect("a pair").0);
                Arc::new(Permits::new(server.budget.open(7, 1, stream)))
            },
            jobs: HashMap::new(),
            asked: 0,
            ran: 0,
        };
        for id in ["runs", "waits"] {
            let line = serde_json::to_string(&Request::Run(Job { id: id.into(), ..Job::default() }));
            conversation.hear(line.expect("a line"), 0).expect("heard");
        }
        let running = server.scheduler.next(crate::scheduler::Worker::Slot);
        assert_eq!(server.metrics.in_flight.now(), 2);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _conversation = conversation;
            assert!(std::hint::black_box(false), "on purpose");
        }));
        assert!(panicked.is_err());
        assert!(running.cancelled.load(Ordering::Relaxed));
        assert_eq!(server.scheduler.forget(7), 0, "none is queued");
        drop((running, outbox));
        assert_eq!(server.metrics.in_flight.now(), 0);
    }

    #[test]
    fn a_socket_replaces_a_dead_one_and_nothing_else() {
        let folder = tempfile::tempdir().expect("temp folder");
        let path = folder.path().join("s");
        let first = listen(&path).expect("listens");
        let mode = std::fs::metadata(&path).expect("socket").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        assert!(listen(&path).expect_err("in use").to_string().contains("another daemon"));
        drop(first);
        listen(&path).expect("replaced");
        let file = folder.path().join("file");
        std::fs::write(&file, "x").expect("written");
        assert!(listen(&file).expect_err("a file").to_string().contains("not a socket"));
    }
}
