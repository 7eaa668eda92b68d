//! Jobs from HTTP to the daemon and back.

use std::sync::Arc;

use evald::server::Server;
use evald_proto::{ErrorCode, Job, JobResult, MAX_LINE_BYTES, Reply, Request, Verdict};
use hyper::StatusCode;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;

use super::{MOST_WAITING, Refusal};

/// Runs of one job before an `infra_error` is believed.
const ATTEMPTS: usize = 3;

/// The way to the daemon.
pub struct Asking {
    server: Arc<Server>,
    /// Connections to the daemon: half of what it serves, so that others find it, too.
    places: Semaphore,
    /// KiB that the jobs of all of them may make it hold; whoever wants more waits here, in turn, and not there.
    memory: Semaphore,
    most_memory: u32,
    /// Those connections, and requests that wait for one.
    room: Semaphore,
}

impl Asking {
    pub fn new(server: Arc<Server>) -> Self {
        let places = (server.connections.most() / 2).max(1);
        // The daemon's books may lag a little behind ours.
        let most_memory = (server.budget.most_of_a_process() / 8 * 7) >> 10;
        Self {
            server,
            places: Semaphore::new(places),
            memory: Semaphore::new(most_memory),
            most_memory: u32::try_from(most_memory).unwrap_or(u32::MAX),
            room: Semaphore::new(places + MOST_WAITING),
        }
    }

    /// What `/health` says.
    pub fn health(&self) -> serde_json::Value {
        let Server { tier, environments, slots, .. } = &*self.server;
        serde_json::json!({ "status": "ok", "tier": tier, "envs": environments, "slots": slots })
    }

    /// What the daemon has counted, in Prometheus' text format.
    pub fn metrics(&self) -> String {
        self.server.metrics.text(&self.server.tier, self.server.slots)
    }

    /// Runs a job to its end; dropping the future cancels it.
    ///
    /// # Errors
    /// The daemon refuses it, has no room, or is about to end.
    pub async fn run(&self, job: Job) -> Result<JobResult, Refusal> {
        let busy = |why: &str| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, why);
        let _room = self.room.try_acquire().map_err(|_| busy("too many jobs wait"))?;
        let takes = u32::try_from((self.server.bytes_of(&job) >> 10) + 4).unwrap_or(u32::MAX);
        let takes = takes.min(self.most_memory);
        let _memory = self.memory.acquire_many(takes).await.map_err(|_| busy("evald is stopping"))?;
        let _place = self.places.acquire().await.map_err(|_| busy("evald is stopping"))?;
        let asked_for = job.id.clone();
        let mut line = serde_json::to_vec(&Request::Run(Job { id: "0".into(), ..job }))
            .map_err(|error| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
        line.push(b'\n');
        if line.len() > MAX_LINE_BYTES {
            let detail = format!("the job is larger than {MAX_LINE_BYTES} bytes");
            return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, detail));
        }
        let mut attempt = 1;
        loop {
            let mut result = self.ask(&line).await?;
            if result.verdict == Verdict::InfraError && attempt < ATTEMPTS {
                attempt += 1;
                continue;
            }
            result.id = asked_for;
            return Ok(result);
        }
    }

    async fn ask(&self, line: &[u8]) -> Result<JobResult, Refusal> {
        let broken = |error: std::io::Error| {
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, format!("the daemon does not answer: {error}"))
        };
        let stream = self.server.connect().map_err(broken)?;
        stream.set_nonblocking(true).map_err(broken)?;
        let mut stream = UnixStream::from_std(stream).map_err(broken)?;
        // A refusal may be there before all has been sent.
        let sent = stream.write_all(line).await;
        let mut reply = Vec::new();
        let mut from = BufReader::new(&mut stream).take(MAX_LINE_BYTES as u64 + 1);
        let got = from.read_until(b'\n', &mut reply).await;
        if reply.last() != Some(&b'\n') {
            sent.and(got).map_err(broken)?;
            return Err(broken(std::io::ErrorKind::UnexpectedEof.into()));
        }
        match serde_json::from_slice(&reply) {
            Ok(Reply::Verdict(result)) => Ok(result),
            Ok(Reply::Error { code, message, .. }) => Err(Refusal::new(status_of(code), message)),
            Ok(_) => Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "another reply than a verdict")),
            Err(error) => Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
        }
    }
}

fn status_of(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::BadRequest | ErrorCode::UnknownEnv | ErrorCode::BadLimits => {
            StatusCode::UNPROCESSABLE_ENTITY
        }
        ErrorCode::Stopping | ErrorCode::Busy | ErrorCode::Cancelled => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
