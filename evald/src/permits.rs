//! What one connection has in flight: bounds the daemon's memory and, by not reading on, the client's pace.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use evald_proto::Reply;

/// Requests of one connection that have no written reply yet; beyond that it is not read from.
pub const MAX_IN_FLIGHT: usize = 256;
/// Bytes of jobs of one connection that have not ended; beyond that it is not read from.
const MAX_HELD_BYTES: usize = 64 << 20;

/// The permits of one connection: its reader takes one per request, its writer frees it with the reply.
pub(crate) struct Permits {
    taken: Mutex<Taken>,
    freed: Condvar,
}

struct Taken {
    requests: usize,
    /// Jobs by id, each with its size in bytes.
    jobs: HashMap<String, usize>,
    bytes: usize,
    /// Nobody writes replies any more. Under the lock, so that a reader about to wait cannot miss it.
    broken: bool,
    heard: Option<Instant>,
    since: Instant,
}

/// The client reads no replies any more.
#[derive(Debug)]
pub(crate) struct Broken;

impl Permits {
    pub(crate) fn new() -> Self {
        let taken = Taken {
            requests: 0,
            jobs: HashMap::new(),
            bytes: 0,
            broken: false,
            heard: None,
            since: Instant::now(),
        };
        Self { taken: Mutex::new(taken), freed: Condvar::new() }
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for room for one more request; an error when the client reads no replies any more.
    pub(crate) fn take(&self, id: Option<&str>, bytes: usize) -> Result<(), Broken> {
        let mut taken = self.taken();
        taken.heard = Some(Instant::now());
        while taken.requests > 0 && (taken.requests >= MAX_IN_FLIGHT || taken.bytes + bytes > MAX_HELD_BYTES)
        {
            if taken.broken {
                return Err(Broken);
            }
            taken = self.freed.wait(taken).unwrap_or_else(PoisonError::into_inner);
        }
        taken.requests += 1;
        if let Some(id) = id {
            taken.jobs.insert(id.to_owned(), bytes);
            taken.bytes += bytes;
        }
        Ok(())
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
        if let Some(bytes) = id.and_then(|id| taken.jobs.remove(id)) {
            taken.bytes -= bytes;
        }
        drop(taken);
        self.freed.notify_one();
    }

    /// No reply will be written any more: whoever waits for room is told.
    pub(crate) fn give_up(&self) {
        self.taken().broken = true;
        self.freed.notify_all();
    }

    /// `None` while a request is in flight; else whether it ever asked for anything, and since when it has been silent.
    /// Ordered: what sorts first is missed least.
    pub(crate) fn idle(&self) -> Option<(bool, Instant)> {
        let taken = self.taken();
        (taken.requests == 0).then(|| (taken.heard.is_some(), taken.heard.unwrap_or(taken.since)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use evald_proto::ErrorCode;

    use super::*;

    #[test]
    fn requests_and_bytes_are_bounded() {
        let permits = Permits::new();
        permits.take(Some("big"), 10 * MAX_HELD_BYTES).expect("the first may be of any size");
        assert!(permits.holds("big"));
        permits.give_up();
        assert!(permits.take(Some("next"), 1).is_err(), "no room while the big one is in flight");
        permits.free(&Reply::error(Some("big".into()), ErrorCode::Cancelled, ""));
        permits.take(Some("next"), 1).expect("room again");
    }

    /// The end of the writer and the reader's way to sleep, raced many times: no reader sleeps on.
    #[test]
    fn nobody_waits_for_a_writer_that_has_ended() {
        for round in 0..2_000 {
            let permits = Arc::new(Permits::new());
            permits.take(Some("big"), MAX_HELD_BYTES).expect("room");
            let (told, outcome) = channel();
            let (reader, writer) = (Arc::clone(&permits), Arc::clone(&permits));
            let reader = std::thread::spawn(move || told.send(reader.take(Some("next"), 1).is_err()));
            let writer = std::thread::spawn(move || writer.give_up());
            assert_eq!(outcome.recv_timeout(Duration::from_secs(60)), Ok(true), "round {round}");
            assert!(reader.join().is_ok() && writer.join().is_ok());
        }
    }

    #[test]
    fn idle_connections_are_told_apart() {
        let (silent, asked, busy) = (Permits::new(), Permits::new(), Permits::new());
        asked.take(None, 0).expect("room");
        asked.free(&Reply::error(None, ErrorCode::BadRequest, ""));
        busy.take(Some("job"), 1).expect("room");
        assert!(silent.idle() < asked.idle(), "who never asked is missed least");
        assert_eq!(busy.idle(), None);
    }
}
