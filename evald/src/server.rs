//! Connections: JSON lines in, JSON lines out. Two threads each, so that a slow reader holds up nobody but itself.

use std::collections::HashMap;
use std::io::{BufReader, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

use evald_proto::{Job, PROTOCOL_VERSION, Reply, Request, STOPPING};
use nix::sys::socket::{getsockopt, sockopt};

use crate::error::{Error, Result, Step};
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::scheduler::{Answer, Scheduler, Task};
use crate::wire_line::read_line;

/// Requests of one connection that have no written reply yet; beyond that it is not read from.
pub const MAX_IN_FLIGHT: usize = 256;
/// Bytes of jobs of one connection that have not ended; beyond that it is not read from.
const MAX_HELD_BYTES: usize = 64 << 20;
/// Connections served at a time.
pub const MAX_CONNECTIONS: usize = 64;

/// What connections share.
pub struct Server {
    /// Names of the environments, by index.
    pub environments: Vec<String>,
    /// The tier that runs jobs.
    pub tier: String,
    /// Jobs that run side by side.
    pub slots: usize,
    /// Limits that jobs leave open.
    pub limits: Limits,
    /// Where jobs go.
    pub scheduler: Arc<Scheduler>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
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
    // Bound under another name, closed to others, and only then shown: at no moment can somebody else connect.
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
            let mut stream = match stream {
                Ok(stream) => stream,
                Err(error) => {
                    // Out of descriptors, an aborted connection: wait for better times rather than end.
                    tracing::warn!(%error, "cannot accept a connection");
                    std::thread::sleep(std::time::Duration::from_millis(50));
                    continue;
                }
            };
            if let Err(reason) = known_peer(&stream) {
                self.metrics.refused_connections.fetch_add(1, Ordering::Relaxed);
                refuse(&mut stream, reason);
                continue;
            }
            // This thread alone counts connections up.
            if self.metrics.connections.now() >= MAX_CONNECTIONS {
                self.metrics.refused_connections.fetch_add(1, Ordering::Relaxed);
                refuse(&mut stream, format!("more than {MAX_CONNECTIONS} connections"));
                continue;
            }
            let (server, open) = (Arc::clone(self), self.metrics.connections.count());
            let spawned = std::thread::Builder::new().name("client".into()).spawn(move || {
                server.converse(stream);
                drop(open);
            });
            if let Err(error) = spawned {
                tracing::warn!(%error, "cannot start a thread for a connection");
            }
        }
        Ok(())
    }

    /// Serves one connection to its end.
    pub fn converse(&self, stream: UnixStream) {
        static CLIENTS: AtomicU64 = AtomicU64::new(0);
        let client = CLIENTS.fetch_add(1, Ordering::Relaxed);
        let writing = match stream.try_clone() {
            Ok(writing) => writing,
            Err(error) => {
                tracing::warn!(%error, "cannot serve a connection");
                return;
            }
        };
        let (replies, outbox) = channel();
        let permits = Arc::new(Permits::default());
        let writer = {
            let permits = Arc::clone(&permits);
            std::thread::Builder::new()
                .name("replies".into())
                .spawn(move || write_replies(writing, &outbox, &permits))
        };
        let mut conversation = Conversation { server: self, client, replies, permits, jobs: HashMap::new() };
        let mut reader = BufReader::with_capacity(64 << 10, &stream);
        loop {
            match read_line(&mut reader) {
                Ok(Some(line)) if line.trim().is_empty() => {}
                Ok(Some(line)) => {
                    if conversation.hear(&line).is_err() {
                        break;
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    conversation.complain(None, error.to_string());
                    break;
                }
            }
        }
        // Nobody waits for what is left: queued jobs are forgotten and running ones killed.
        let forgotten = self.scheduler.forget(client) as u64;
        self.metrics.cancelled.fetch_add(forgotten, Ordering::Relaxed);
        for cancelled in conversation.jobs.values() {
            cancelled.store(true, Ordering::Relaxed);
        }
        drop(conversation);
        stream.shutdown(std::net::Shutdown::Read).ok();
        if let Ok(writer) = writer {
            writer.join().ok();
        }
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

/// Only the daemon's own user, and root, may ask it to run code.
fn known_peer(stream: &UnixStream) -> Result<(), String> {
    let peer = getsockopt(stream, sockopt::PeerCredentials).map_err(|error| error.to_string())?;
    let own = nix::unistd::geteuid().as_raw();
    if peer.uid() == own || peer.uid() == 0 {
        Ok(())
    } else {
        Err(format!("user {} may not connect", peer.uid()))
    }
}

fn refuse_task(task: Task) {
    let id = Some(task.job.id.clone());
    task.answer(Reply::Error { id, message: format!("{STOPPING}; this job was not run") });
}

fn refuse(stream: &mut UnixStream, message: String) {
    let mut line = serde_json::to_vec(&Reply::Error { id: None, message }).unwrap_or_default();
    line.push(b'\n');
    // A fresh socket's buffer takes one line; a peer that has gone already is no matter.
    stream.write_all(&line).ok();
}

/// What a connection has in flight: bounds the daemon's memory and, by not reading on, the client's pace.
#[derive(Default)]
struct Permits {
    taken: Mutex<(usize, HashMap<String, usize>, usize)>,
    freed: Condvar,
    broken: AtomicBool,
}

impl Permits {
    /// Waits for room for one more request; an error when the client reads no replies any more.
    fn take(&self, id: Option<&str>, bytes: usize) -> Result<(), ()> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        while taken.0 > 0 && (taken.0 >= MAX_IN_FLIGHT || taken.2 + bytes > MAX_HELD_BYTES) {
            if self.broken.load(Ordering::Relaxed) {
                return Err(());
            }
            taken = self.freed.wait(taken).unwrap_or_else(PoisonError::into_inner);
        }
        taken.0 += 1;
        if let Some(id) = id {
            taken.1.insert(id.to_owned(), bytes);
            taken.2 += bytes;
        }
        Ok(())
    }

    fn holds(&self, id: &str) -> bool {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).1.contains_key(id)
    }

    fn free(&self, reply: &Reply) {
        let id = match reply {
            Reply::Verdict(result) => Some(result.id.as_str()),
            Reply::Error { id, .. } => id.as_deref(),
            Reply::Hello { .. } | Reply::Metrics { .. } => None,
        };
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.0 = taken.0.saturating_sub(1);
        if let Some(bytes) = id.and_then(|id| taken.1.remove(id)) {
            taken.2 -= bytes;
        }
        drop(taken);
        self.freed.notify_one();
    }

    fn give_up(&self) {
        self.broken.store(true, Ordering::Relaxed);
        self.freed.notify_all();
    }
}

fn write_replies(stream: UnixStream, outbox: &Receiver<Answer>, permits: &Permits) {
    let mut out = BufWriter::with_capacity(16 << 10, &stream);
    while let Ok(first) = outbox.recv() {
        let mut next = Some(first);
        let mut written_jobs = Vec::new();
        // Whatever is ready goes out in one write.
        while let Some(Answer { reply, counted }) = next {
            written_jobs.extend(counted);
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
        // Only now is a job out of flight.
        drop(written_jobs);
    }
}

struct Conversation<'a> {
    server: &'a Server,
    client: u64,
    replies: Sender<Answer>,
    permits: Arc<Permits>,
    /// Jobs without a reply, roughly: ended ones are swept out now and then.
    jobs: HashMap<String, Arc<AtomicBool>>,
}

impl Conversation<'_> {
    /// Serves one line. An error ends the conversation.
    fn hear(&mut self, line: &str) -> Result<(), ()> {
        match serde_json::from_str::<Request>(line) {
            Ok(Request::Hello) => {
                self.permits.take(None, 0)?;
                self.send(self.server.hello())
            }
            Ok(Request::Metrics) => {
                self.permits.take(None, 0)?;
                self.send(Reply::Metrics {
                    text: self.server.metrics.text(&self.server.tier, self.server.slots),
                })
            }
            Ok(Request::Run(job)) => self.run(job),
            Ok(Request::Cancel { id }) => self.cancel(&id),
            Err(error) => {
                self.permits.take(None, 0)?;
                self.complain(None, format!("not a request: {error}"));
                Ok(())
            }
        }
    }

    fn complain(&self, id: Option<String>, message: String) {
        self.send(Reply::Error { id, message }).ok();
    }

    fn send(&self, reply: Reply) -> Result<(), ()> {
        self.replies.send(Answer { reply, counted: None }).map_err(|_| ())
    }

    fn run(&mut self, job: Job) -> Result<(), ()> {
        if self.permits.holds(&job.id) {
            self.permits.take(None, 0)?;
            // Without the id: the reply must not be taken for the end of the first job of that name.
            self.complain(None, format!("a job {:?} of this connection has not ended", job.id));
            return Ok(());
        }
        self.permits.take(Some(&job.id), job.code.len() + job.test.len())?;
        let environment = match job.env.as_str() {
            "" => Some(0),
            name => self.server.environments.iter().position(|known| known == name),
        };
        let Some(environment) = environment else {
            let known = self.server.environments.join(", ");
            self.complain(Some(job.id), format!("no environment {:?}; there are: {known}", job.env));
            return Ok(());
        };
        let limits = match self.server.limits.resolve(&job.limits) {
            Ok(limits) => limits,
            Err(reason) => {
                self.complain(Some(job.id), reason);
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

    fn cancel(&mut self, id: &str) -> Result<(), ()> {
        if let Some(task) = self.server.scheduler.take(self.client, id) {
            self.server.metrics.cancelled.fetch_add(1, Ordering::Relaxed);
            let id = Some(task.job.id.clone());
            task.answer(Reply::Error { id, message: "cancelled".into() });
        } else if self.permits.holds(id) {
            // It runs: the worker replies.
            if let Some(cancelled) = self.jobs.get(id) {
                cancelled.store(true, Ordering::Relaxed);
            }
        } else {
            self.permits.take(None, 0)?;
            self.complain(None, format!("no job {id:?} to cancel"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_bound_requests_and_bytes() {
        let permits = Permits::default();
        permits.take(Some("big"), 10 * MAX_HELD_BYTES).expect("the first may be of any size");
        assert!(permits.holds("big"));
        permits.give_up();
        assert!(permits.take(Some("next"), 1).is_err(), "no room while the big one is in flight");
        permits.free(&Reply::Error { id: Some("big".into()), message: String::new() });
        permits.take(Some("next"), 1).expect("room again");
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
