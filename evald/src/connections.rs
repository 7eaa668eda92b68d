//! Who is connected: a bounded number, of whom the idle ones make room for newcomers.

use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use evald_proto::ErrorCode;

use crate::metrics::{Counted, Gauge};
use crate::permits::Permits;
use crate::server::refuse;

/// Connections served at a time.
pub const MAX_CONNECTIONS: usize = 64;
/// Connections that were hung up on and have not ended yet; beyond that newcomers are turned away.
const MAX_LEAVING: usize = 64;

/// The open connections.
#[derive(Default)]
pub struct Connections {
    open: Mutex<Vec<Connection>>,
}

struct Connection {
    client: u64,
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
    fn open(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection, counted in `gauge`; `None` when all are taken by clients that wait for replies.
    ///
    /// A crowd that connects and asks for nothing cannot keep others out: where no place is free, the client is hung up on
    /// that has asked for nothing the longest, those first that never did.
    pub(crate) fn admit(
        self: &Arc<Self>,
        client: u64,
        stream: &Arc<UnixStream>,
        permits: &Arc<Permits>,
        gauge: &Gauge,
    ) -> Option<Place> {
        let mut open = self.open();
        if gauge.now() >= MAX_CONNECTIONS + MAX_LEAVING {
            return None;
        }
        if open.len() >= MAX_CONNECTIONS {
            let idle = open.iter().enumerate().filter_map(|(at, one)| Some((one.permits.idle()?, at))).min();
            let gone = open.swap_remove(idle?.1);
            // Its reader sees the end of the stream and leaves.
            refuse(&gone.stream, ErrorCode::Busy, "others need the place of an idle connection".into());
        }
        open.push(Connection { client, stream: Arc::clone(stream), permits: Arc::clone(permits) });
        Some(Place { connections: Arc::clone(self), client, _counted: gauge.count() })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::time::Duration;

    use super::*;

    struct Crowd {
        connections: Arc<Connections>,
        gauge: Gauge,
    }

    impl Crowd {
        fn join(&self, client: u64, busy: bool) -> (UnixStream, Arc<Permits>, Option<Place>) {
            let (ours, theirs) = UnixStream::pair().expect("a pair");
            let permits = Arc::new(Permits::new());
            if busy {
                permits.take(Some("job"), 1).expect("room");
            }
            let place = self.connections.admit(client, &Arc::new(ours), &permits, &self.gauge);
            (theirs, permits, place)
        }
    }

    fn hung_up(mut stream: &UnixStream) -> bool {
        stream.set_read_timeout(Some(Duration::from_millis(1))).expect("timeout");
        // Not just silent: told why, or at the end.
        stream.read(&mut [0; 256]).is_ok()
    }

    #[test]
    fn the_idle_make_room_and_the_busy_stay() {
        let crowd = Crowd { connections: Arc::default(), gauge: Gauge::default() };
        let mut all: Vec<_> = (0..MAX_CONNECTIONS as u64).map(|client| crowd.join(client, true)).collect();
        assert!(crowd.join(1_000, false).2.is_none(), "all wait for replies");
        // Two have got theirs: who connected and never asked goes before who asked once.
        let reply = evald_proto::Reply::error(Some("job".into()), evald_proto::ErrorCode::Cancelled, "");
        all[5].1.free(&reply);
        let newcomer = crowd.join(1_001, false);
        assert!(newcomer.2.is_some() && hung_up(&all[5].0));
        all[7].1.free(&reply);
        let second = crowd.join(1_002, true);
        assert!(second.2.is_some() && hung_up(&newcomer.0) && !hung_up(&all[7].0));
        // The places of the two that were hung up on are held until their threads end, and counted as such.
        assert_eq!(crowd.gauge.now(), MAX_CONNECTIONS + 2);
        assert_eq!(crowd.connections.open().len(), MAX_CONNECTIONS);
        all.clear();
        drop((newcomer, second));
        assert_eq!((crowd.gauge.now(), crowd.connections.open().len()), (0, 0));
    }

    #[test]
    fn a_panic_gives_the_place_back() {
        let crowd = Crowd { connections: Arc::default(), gauge: Gauge::default() };
        let (_stream, _permits, place) = crowd.join(1, true);
        assert_eq!(crowd.gauge.now(), 1);
        let ended = std::thread::spawn(move || {
            let _place = place;
            assert!(std::hint::black_box(false), "on purpose");
        });
        assert!(ended.join().is_err());
        assert_eq!((crowd.gauge.now(), crowd.connections.open().len()), (0, 0));
    }
}
