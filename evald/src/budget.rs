//! What all clients together make the daemon hold: lines that have not ended, jobs that have not, replies that wait.
//!
//! The memory is shared between processes, since one of them gets no more by connecting more often. Where it runs out, the
//! process that holds the most gives way: by waiting, while jobs of its own are under way, or by losing a connection.

use std::collections::HashMap;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use evald_proto::{ErrorCode, MAX_LINE_BYTES};

use crate::server::refuse;

/// What all clients may hold, whatever the daemon's size.
const MAX_BYTES: usize = 4 * MAX_LINE_BYTES;
/// What one process holds before it waits for its own jobs to end.
const MAX_PROCESS_BYTES: usize = 2 * MAX_LINE_BYTES;
/// For each slot a process, and all together, may hold so much more: a job whose output, of the usual limit, is kept.
const BYTES_PER_SLOT: usize = 4 << 20;

/// The books.
pub struct Budget {
    most: usize,
    most_of_a_process: usize,
    held: Mutex<Held>,
    freed: Condvar,
}

impl Default for Budget {
    fn default() -> Self {
        Self::for_slots(0)
    }
}

#[derive(Default)]
struct Held {
    bytes: usize,
    by_client: HashMap<u64, Account>,
}

struct Account {
    process: i32,
    bytes: usize,
    stream: Arc<UnixStream>,
}

impl Held {
    fn of_process(&self, process: i32) -> usize {
        let of = self.by_client.values().filter(|account| account.process == process);
        of.map(|account| account.bytes).sum()
    }

    /// The client that holds the most, of the process that holds the most.
    fn largest(&self) -> Option<(u64, &Account)> {
        let key = |account: &Account| (self.of_process(account.process), account.bytes);
        self.by_client
            .iter()
            .max_by_key(|(_, account)| key(account))
            .map(|(client, account)| (*client, account))
    }
}

/// There is no room, and this client's process is the one that takes it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// What one client holds; all of it is given back when this is dropped.
pub(crate) struct Holding {
    budget: Arc<Budget>,
    client: u64,
}

impl Drop for Holding {
    fn drop(&mut self) {
        let mut held = self.budget.held();
        if let Some(account) = held.by_client.remove(&self.client) {
            held.bytes -= account.bytes;
        }
        drop(held);
        self.budget.freed.notify_all();
    }
}

impl Budget {
    /// Of a daemon with so many slots.
    pub fn for_slots(slots: usize) -> Self {
        let more = slots * BYTES_PER_SLOT;
        Self {
            most: MAX_BYTES + more,
            most_of_a_process: MAX_PROCESS_BYTES + more,
            held: Mutex::default(),
            freed: Condvar::new(),
        }
    }

    /// What one process holds before it waits for its own jobs to end, in bytes.
    pub fn most_of_a_process(&self) -> usize {
        self.most_of_a_process
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An account for a client of a process.
    pub(crate) fn open(self: &Arc<Self>, client: u64, process: i32, stream: Arc<UnixStream>) -> Holding {
        self.held().by_client.insert(client, Account { process, bytes: 0, stream });
        Holding { budget: Arc::clone(self), client }
    }
}

impl Holding {
    /// Holds so many bytes more, at once.
    ///
    /// # Errors
    /// [`Full`]. Where another process holds more, it loses its largest connection, and this is no error.
    pub(crate) fn grow(&self, by: usize) -> Result<(), Full> {
        let mut held = self.budget.held();
        if held.bytes + by > self.budget.most {
            let process = held.by_client.get(&self.client).map(|account| account.process);
            match held.largest() {
                Some((_, account)) if Some(account.process) != process => {
                    let message = "others need the memory that this process' requests hold".to_owned();
                    refuse(&account.stream, ErrorCode::Busy, message);
                }
                _ => return Err(Full),
            }
        }
        self.add(&mut held, by);
        Ok(())
    }

    /// Holds so many bytes more, when there is room for them; `others_under_way` says that this client has something that
    /// will end without it.
    ///
    /// # Errors
    /// [`Full`], where nothing of this client's will end.
    pub(crate) fn wait_for(&self, by: usize, mut others_under_way: impl FnMut() -> bool) -> Result<(), Full> {
        const LOOK: Duration = Duration::from_millis(200);
        let mut held = self.budget.held();
        loop {
            let process = held.by_client.get(&self.client).map_or(0, |account| account.process);
            let room = held.bytes + by <= self.budget.most
                && held.of_process(process) + by <= self.budget.most_of_a_process;
            if room {
                self.add(&mut held, by);
                return Ok(());
            }
            if !others_under_way() {
                drop(held);
                return self.grow(by);
            }
            held = self.budget.freed.wait_timeout(held, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn add(&self, held: &mut Held, by: usize) {
        if let Some(account) = held.by_client.get_mut(&self.client) {
            account.bytes += by;
            held.bytes += by;
        }
    }

    /// Gives so many bytes back.
    pub(crate) fn shrink(&self, by: usize) {
        let mut held = self.budget.held();
        if let Some(account) = held.by_client.get_mut(&self.client) {
            let by = by.min(account.bytes);
            account.bytes -= by;
            held.bytes -= by;
        }
        drop(held);
        self.budget.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn client(budget: &Arc<Budget>, client: u64, process: i32) -> (Holding, UnixStream) {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        theirs.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
        (budget.open(client, process, Arc::new(ours)), theirs)
    }

    #[test]
    fn who_holds_the_most_gives_way() {
        let budget = Arc::new(Budget::default());
        let hogs: Vec<_> = (0..4).map(|at| client(&budget, at, 7)).collect();
        for (hog, _) in &hogs {
            assert_eq!(hog.grow(MAX_LINE_BYTES), Ok(()));
        }
        assert_eq!(hogs[0].0.grow(1), Err(Full), "it is the largest itself");
        let (small, mut theirs) = client(&budget, 9, 8);
        assert_eq!(small.grow(100), Ok(()));
        let mut told = String::new();
        let heard = hogs.iter().any(|(_, stream)| {
            stream.set_nonblocking(true).expect("set");
            { stream }.read_to_string(&mut told).ok();
            told.contains("busy")
        });
        assert!(heard, "one of the large ones is hung up on");
        theirs.set_nonblocking(true).expect("set");
        assert!(theirs.read(&mut [0]).is_err(), "the small one is not");
        drop(hogs);
        assert_eq!(budget.held().bytes, 100);
        small.shrink(1_000);
        assert_eq!(budget.held().bytes, 0);
    }

    #[test]
    fn a_process_waits_for_its_own_jobs_and_no_longer() {
        let budget = Arc::new(Budget::default());
        let (first, _a) = client(&budget, 1, 7);
        assert_eq!(first.wait_for(2 * MAX_LINE_BYTES, || true), Ok(()));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(50));
                first.shrink(MAX_LINE_BYTES);
            });
            assert_eq!(first.wait_for(MAX_LINE_BYTES, || true), Ok(()));
        });
        // With nothing under way it does not wait: it fits, or it does not.
        assert_eq!(first.wait_for(MAX_LINE_BYTES, || false), Ok(()));
        assert_eq!(first.wait_for(3 * MAX_LINE_BYTES, || false), Err(Full));
    }
}
