//! Who is connected: a bounded number, of whom the idle ones make room for newcomers.

use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use evald_proto::ErrorCode;

use crate::metrics::{Counted, Gauge};
use crate::permits::Permits;
use crate::server::refuse;

/// Connections served at a time, where there are descriptors for so many.
const MAX_CONNECTIONS: usize = 256;
/// For so many served, one may have been hung up on and not ended yet; beyond that newcomers are turned away.
const SERVED_PER_LEAVING: usize = 4;
/// Descriptors that a daemon has open whoever is connected: standard ones, logs, its socket, its folders, its masters.
const USUAL_FILES: u64 = 64;
/// Descriptors for each slot and for each in reserve: its own, and those of its start and of a sample's.
const SLOT_FILES: u64 = 12;

/// The open connections.
pub struct Connections {
    most: usize,
    open: Mutex<Vec<Connection>>,
}

impl Default for Connections {
    fn default() -> Self {
        Self::at_most(MAX_CONNECTIONS)
    }
}

struct Connection {
    client: u64,
    process: i32,
    stream: Arc<UnixStream>,
    permits: Arc<Permits>,
}

/// One connection's place; dropping it, in whatever way its thread ends, gives the place back.
pub struct Place {
    connections: Arc<Connections>,
    client: u64,
    _counted: Counted,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.open().retain(|connection| connection.client != self.client);
    }
}

impl Connections {
    /// As many connections as a daemon with so many slots can serve that may have so many descriptors open.
    pub fn for_files(files: u64, slots: usize) -> Self {
        let taken = USUAL_FILES + 2 * SLOT_FILES * slots as u64;
        let left = usize::try_from(files.saturating_sub(taken)).unwrap_or(usize::MAX);
        // Those that leave hold theirs, too.
        Self::at_most((left / (SERVED_PER_LEAVING + 1) * SERVED_PER_LEAVING).clamp(4, MAX_CONNECTIONS))
    }

    fn at_most(most: usize) -> Self {
        Self { most, open: Mutex::default() }
    }

    /// How many are served at a time.
    pub fn most(&self) -> usize {
        self.most
    }

    fn open(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection of a process, counted in `gauge`; `None` when all are taken by clients that work, of
    /// processes that have no more places than this one.
    ///
    /// A crowd cannot keep others out. Where no place is free, a process that has more than it would leave this one loses
    /// one: one that is idle if there is such, else the youngest. Between equals, the one is hung up on that is missed least.
    pub(crate) fn admit(
        self: &Arc<Self>,
        client: u64,
        process: i32,
        stream: &Arc<UnixStream>,
        permits: &Arc<Permits>,
        gauge: &Gauge,
    ) -> Option<Place> {
        let mut open = self.open();
        if gauge.now() >= self.most + self.most / SERVED_PER_LEAVING {
            return None;
        }
        if open.len() >= self.most {
            let at = least_missed(&open, process)?;
            let gone = open.swap_remove(at);
            // Its reader sees the end of the stream and leaves.
            refuse(&gone.stream, ErrorCode::Busy, "others need the place of an idle connection".into());
        }
        open.push(Connection { client, process, stream: Arc::clone(stream), permits: Arc::clone(permits) });
        Some(Place { connections: Arc::clone(self), client, _counted: gauge.count() })
    }
}

/// Which connection makes room for a newcomer of a process.
fn least_missed(open: &[Connection], newcomer: i32) -> Option<usize> {
    let places = |process| open.iter().filter(|one| one.process == process).count();
    let crowd = open.iter().map(|one| one.process).max_by_key(|process| places(*process))?;
    let of_crowd = |one: &Connection| one.process == crowd && crowd != newcomer;
    let idle = |of: &dyn Fn(&Connection) -> bool| {
        let found = open.iter().enumerate().filter(|(_, one)| of(one));
        found.filter_map(|(at, one)| Some((one.permits.idle()?, at))).min().map(|(_, at)| at)
    };
    if places(crowd) <= places(newcomer) + 1 {
        return idle(&|_| true);
    }
    let youngest =
        || open.iter().enumerate().filter(|(_, one)| of_crowd(one)).max_by_key(|(_, one)| one.client);
    idle(&of_crowd).or_else(|| youngest().map(|(at, _)| at))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::time::Duration;

    use super::*;

    struct Crowd {
        connections: Arc<Connections>,
        gauge: Gauge,
        budget: Arc<crate::budget::Budget>,
    }

    impl Crowd {
        fn join(&self, client: u64, process: i32, busy: bool) -> (UnixStream, Arc<Permits>, Option<Place>) {
            let (ours, theirs) = UnixStream::pair().expect("a pair");
            let ours = Arc::new(ours);
            let permits = Arc::new(Permits::new(self.budget.open(client, process, Arc::clone(&ours))));
            if busy {
                permits.take(Some("job"), 1).expect("room");
            }
            let place = self.connections.admit(client, process, &ours, &permits, &self.gauge);
            (theirs, permits, place)
        }
    }

    /// Few, so that tests have descriptors enough.
    const MOST: usize = 32;

    fn crowd() -> Crowd {
        Crowd {
            connections: Arc::new(Connections::at_most(MOST)),
            gauge: Gauge::default(),
            budget: Arc::default(),
        }
    }

    fn hung_up(mut stream: &UnixStream) -> bool {
        stream.set_read_timeout(Some(Duration::from_millis(1))).expect("timeout");
        // Not just silent: told why, or at the end.
        stream.read(&mut [0; 256]).is_ok()
    }

    #[test]
    fn the_idle_make_room_and_the_busy_stay() {
        let crowd = crowd();
        // A process each.
        let join = |client: u64, busy| crowd.join(client, client as i32, busy);
        let mut all: Vec<_> = (0..MOST as u64).map(|client| join(client, true)).collect();
        assert!(join(1_000, false).2.is_none(), "all wait for replies");
        // Two have got theirs: who connected and never asked goes before who asked once.
        let reply = evald_proto::Reply::error(Some("job".into()), evald_proto::ErrorCode::Cancelled, "");
        all[5].1.free(&reply);
        let newcomer = join(1_001, false);
        assert!(newcomer.2.is_some() && hung_up(&all[5].0));
        all[7].1.free(&reply);
        let second = join(1_002, true);
        assert!(second.2.is_some() && hung_up(&newcomer.0) && !hung_up(&all[7].0));
        // The places of the two that were hung up on are held until their threads end, and counted as such.
        assert_eq!(crowd.gauge.now(), MOST + 2);
        assert_eq!(crowd.connections.open().len(), MOST);
        all.clear();
        drop((newcomer, second));
        assert_eq!((crowd.gauge.now(), crowd.connections.open().len()), (0, 0));
    }

    #[test]
    fn a_process_with_many_places_gives_one_to_who_has_none() {
        let crowd = crowd();
        let (small, _permits, _place) = crowd.join(0, 8, true);
        let all: Vec<_> = (1..MOST as u64).map(|client| crowd.join(client, 7, true)).collect();
        assert!(crowd.join(1_000, 7, true).2.is_none(), "the crowd itself gets no more");
        let newcomer = crowd.join(1_001, 9, true);
        assert!(newcomer.2.is_some() && !hung_up(&small));
        assert!(hung_up(&all[all.len() - 1].0), "its youngest goes");
        assert_eq!(all.iter().filter(|one| hung_up(&one.0)).count(), 1);
    }

    #[test]
    fn as_many_are_served_as_there_are_descriptors_for() {
        assert_eq!(Connections::for_files(u64::MAX, 8).most(), MAX_CONNECTIONS);
        assert_eq!(Connections::for_files(1024, 8).most(), MAX_CONNECTIONS);
        let few = Connections::for_files(256, 2).most() as u64;
        assert!((40..256 - USUAL_FILES).contains(&few), "{few}");
        assert_eq!(Connections::for_files(10, 64).most(), 4);
    }

    #[test]
    fn a_panic_gives_the_place_back() {
        let crowd = crowd();
        let (_stream, _permits, place) = crowd.join(1, 1, true);
        assert_eq!(crowd.gauge.now(), 1);
        let ended = std::thread::spawn(move || {
            let _place = place;
            assert!(std::hint::black_box(false), "on purpose");
        });
        assert!(ended.join().is_err());
        assert_eq!((crowd.gauge.now(), crowd.connections.open().len()), (0, 0));
    }
}
