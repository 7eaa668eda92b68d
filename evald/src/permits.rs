//! What one connection has in flight: bounds the daemon's memory and, by not reading on, the client's pace.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use evald_proto::Reply;

use crate::budget::Holding;

/// Requests of one connection that have no written reply yet; beyond that it is not read from.
pub const MAX_IN_FLIGHT: usize = 256;
/// What a request without a job takes, with its reply.
const SMALL_BYTES: usize = 1 << 10;
/// What a reply to a question for metrics takes.
const METRICS_BYTES: usize = 16 << 10;
/// A client that takes in nothing for so long is no longer waited for, where its place is needed.
const STALLED: Duration = Duration::from_secs(5);

/// The permits of one connection: its reader takes one per request, its writer frees it with the reply.
pub(crate) struct Permits {
    taken: Mutex<Taken>,
    freed: Condvar,
    holding: Holding,
}

struct Taken {
    requests: usize,
    /// Jobs by id, each with its size in bytes.
    jobs: HashMap<String, usize>,
    /// When a reply began to be written that is not written yet.
    writing: Option<Instant>,
    /// Nobody writes replies any more. Under the lock, so that a reader about to wait cannot miss it.
    broken: bool,
    heard: Option<Instant>,
    since: Instant,
}

/// Why a request is not taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NoPermit {
    /// The client reads no replies any more.
    Broken,
    /// The daemon has no memory for it (see [`crate::budget`]).
    Full,
}

impl Permits {
    pub(crate) fn new(holding: Holding) -> Self {
        let taken = Taken {
            requests: 0,
            jobs: HashMap::new(),
            writing: None,
            broken: false,
            heard: None,
            since: Instant::now(),
        };
        Self { taken: Mutex::new(taken), freed: Condvar::new(), holding }
    }

    /// What the connection holds.
    pub(crate) fn holding(&self) -> &Holding {
        &self.holding
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for room for one more request. A job has an id, and takes `bytes` until its reply is written.
    pub(crate) fn take(&self, id: Option<&str>, bytes: usize) -> Result<(), NoPermit> {
        let mut taken = self.taken();
        taken.heard = Some(Instant::now());
        while taken.requests >= MAX_IN_FLIGHT {
            if taken.broken {
                return Err(NoPermit::Broken);
            }
            taken = self.freed.wait(taken).unwrap_or_else(PoisonError::into_inner);
        }
        drop(taken);
        let bytes = bytes + SMALL_BYTES;
        let mut broken = false;
        let under_way = || {
            let taken = self.taken();
            broken = taken.broken;
            taken.requests > 0 && !taken.broken
        };
        let held = self.holding.wait_for(bytes, under_way);
        if broken || held.is_err() {
            return Err(if broken { NoPermit::Broken } else { NoPermit::Full });
        }
        let mut taken = self.taken();
        taken.requests += 1;
        if let Some(id) = id {
            taken.jobs.insert(id.to_owned(), bytes);
        }
        Ok(())
    }

    /// As [`Permits::take`], for a question after metrics.
    pub(crate) fn take_for_metrics(&self) -> Result<(), NoPermit> {
        self.take(None, METRICS_BYTES)
    }

    /// Whether a job of that id has no written reply yet.
    pub(crate) fn holds(&self, id: &str) -> bool {
        self.taken().jobs.contains_key(id)
    }

    /// Gives a written reply's permit back.
    pub(crate) fn free(&self, reply: &Reply) {
        let id = match reply {
            Reply::Verdict(result) => Some(result.id.as_str()),
            Reply::Error { id, .. } => id.as_deref(),
            Reply::Hello { .. } | Reply::Metrics { .. } => None,
        };
        let mut taken = self.taken();
        taken.requests = taken.requests.saturating_sub(1);
        let bytes = match reply {
            Reply::Metrics { .. } => SMALL_BYTES + METRICS_BYTES,
            _ => id.and_then(|id| taken.jobs.remove(id)).unwrap_or(SMALL_BYTES),
        };
        drop(taken);
        self.holding.shrink(bytes);
        self.freed.notify_one();
    }

    /// Says that a reply begins to be written, or that none is.
    pub(crate) fn writing(&self, now: bool) {
        self.taken().writing = now.then(Instant::now);
    }

    /// No reply will be written any more: whoever waits for room is told.
    pub(crate) fn give_up(&self) {
        self.taken().broken = true;
        self.freed.notify_all();
    }

    /// How little the connection would be missed, and since when; `None` while it works. What sorts first is missed least.
    pub(crate) fn idle(&self) -> Option<(Idle, Instant)> {
        let taken = self.taken();
        if let Some(since) = taken.writing.filter(|since| since.elapsed() > STALLED) {
            return Some((Idle::Stalled, since));
        }
        let asked = if taken.heard.is_some() { Idle::Silent } else { Idle::NeverAsked };
        (taken.requests == 0).then(|| (asked, taken.heard.unwrap_or(taken.since)))
    }
}

/// Why a connection does nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Idle {
    /// It does not read its replies.
    Stalled,
    /// It has asked for nothing yet.
    NeverAsked,
    /// Nothing that it asked for is under way.
    Silent,
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use evald_proto::ErrorCode;

    use super::*;

    fn permits() -> Permits {
        let stream = Arc::new(std::os::unix::net::UnixStream::pair().expect("a pair").0);
        Permits::new(Arc::new(crate::budget::Budget::default()).open(1, 1, stream))
    }

    #[test]
    fn bytes_are_bounded_by_what_is_under_way() {
        let permits = permits();
        let large = evald_proto::MAX_LINE_BYTES;
        permits.take(Some("big"), large).expect("room");
        permits.take(Some("other"), large - (8 << 10)).expect("room");
        assert!(permits.holds("big"));
        permits.give_up();
        assert_eq!(
            permits.take(Some("next"), large),
            Err(NoPermit::Broken),
            "no room while those are in flight"
        );
        permits.free(&Reply::error(Some("big".into()), ErrorCode::Cancelled, ""));
        permits.take(Some("next"), 1).expect("room again");
    }

    /// The end of the writer and the reader's way to sleep, raced many times: no reader sleeps on.
    #[test]
    fn nobody_waits_for_a_writer_that_has_ended() {
        for round in 0..100 {
            let permits = Arc::new(permits());
            permits.take(Some("big"), 2 * evald_proto::MAX_LINE_BYTES - (8 << 10)).expect("room");
            let (told, outcome) = channel();
            let (reader, writer) = (Arc::clone(&permits), Arc::clone(&permits));
            let reader = std::thread::spawn(move || told.send(reader.take(Some("next"), 1 << 20).is_err()));
            let writer = std::thread::spawn(move || writer.give_up());
            assert_eq!(outcome.recv_timeout(Duration::from_secs(60)), Ok(true), "round {round}");
            assert!(reader.join().is_ok() && writer.join().is_ok());
        }
    }

    #[test]
    fn idle_connections_are_told_apart() {
        let (silent, asked, busy) = (permits(), permits(), permits());
        asked.take(None, 0).expect("room");
        asked.free(&Reply::error(None, ErrorCode::BadRequest, ""));
        busy.take(Some("job"), 1).expect("room");
        assert!(silent.idle() < asked.idle(), "who never asked is missed least");
        assert_eq!(busy.idle(), None);
    }
}
