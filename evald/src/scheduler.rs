//! Who is next: one queue per client, served in turn, so that a client with many jobs does not hold up the others. Clients
//! of one process take turns among themselves: a process gets no more by connecting more often, and one of whose jobs fewer
//! run goes first, users before processes.
//!
//! Jobs that take their time must not hold up others either. Beside the workers that make up the slots there are as many in
//! reserve: where all slots are taken, they run jobs of processes of which none runs. More samples than processors change
//! no verdict (see [`crate::supervise`]).

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use evald_proto::{Job, Reply};

use crate::limits::Limits;
use crate::metrics::Counted;

/// One accepted job.
pub struct Task {
    /// The connection it came from.
    pub client: u64,
    /// The user of the process at its other end.
    pub user: u32,
    /// That process.
    pub process: i32,
    /// What to run.
    pub job: Job,
    /// Its environment's index.
    pub environment: usize,
    /// Its limits, resolved.
    pub limits: Limits,
    /// Set when it need not run, or run on.
    pub cancelled: Arc<AtomicBool>,
    /// Where its only reply goes.
    pub reply: std::sync::mpsc::Sender<Answer>,
    /// When it was accepted.
    pub accepted: Instant,
    /// Counts it as in flight.
    pub counted: Counted,
}

impl Task {
    /// Sends its only reply. A client that has gone wants none.
    pub fn answer(self, reply: Reply) {
        self.reply.send(Answer { reply, counted: Some(self.counted) }).ok();
    }
}

/// A reply on its way to the connection's writer.
pub struct Answer {
    /// What to write.
    pub reply: Reply,
    /// The job that it ends, which counts as in flight until the reply is written.
    pub counted: Option<Counted>,
}

/// The queues.
#[derive(Default)]
pub struct Scheduler {
    queues: Mutex<Queues>,
    filled: Condvar,
}

#[derive(Default)]
struct Queues {
    by_process: VecDeque<Process>,
    /// What runs, by user and process; no number is 0.
    running: HashMap<(u32, i32), usize>,
    /// Workers of slots that wait for a job.
    free: usize,
    stopped: bool,
}

/// Which workers a job is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Worker {
    /// One of a slot.
    Slot,
    /// One in reserve.
    Reserve,
}

/// The queues of one process' clients; none is empty.
struct Process {
    user: u32,
    id: i32,
    by_client: VecDeque<(u64, VecDeque<Task>)>,
}

impl Queues {
    /// The queue of a client, with its place: the process' index and its own there.
    fn of(&mut self, client: u64) -> Option<(usize, usize)> {
        self.by_process.iter().enumerate().find_map(|(process, queues)| {
            let index = queues.by_client.iter().position(|(owner, _)| *owner == client)?;
            Some((process, index))
        })
    }

    /// The process whose turn it is: of those with the least running, the one that has waited longest. For a worker in
    /// reserve, one with nothing running, where no slot is free.
    fn turn(&self, worker: Worker) -> Option<usize> {
        let of = |process: &Process| self.running.get(&(process.user, process.id)).copied().unwrap_or(0);
        let of_user = |user: u32| -> usize {
            self.running.iter().filter(|((owner, _), _)| *owner == user).map(|(_, count)| count).sum()
        };
        let all = self.by_process.iter().enumerate();
        let load = |process: &Process| (of_user(process.user), of(process));
        match worker {
            Worker::Slot => all.min_by_key(|(_, process)| load(process)).map(|(at, _)| at),
            Worker::Reserve if self.free > 0 => None,
            Worker::Reserve => all.filter(|(_, process)| of(process) == 0).map(|(at, _)| at).next(),
        }
    }

    fn remove(&mut self, (process, index): (usize, usize)) -> Option<VecDeque<Task>> {
        let queues = self.by_process.get_mut(process)?;
        let queue = queues.by_client.remove(index);
        if queues.by_client.is_empty() {
            self.by_process.remove(process);
        }
        queue.map(|(_, queue)| queue)
    }
}

impl Scheduler {
    fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a job behind its client's others; gives it back after [`Scheduler::stop`].
    pub fn push(&self, task: Task) -> Result<(), Box<Task>> {
        let mut queues = self.queues();
        if queues.stopped {
            return Err(Box::new(task));
        }
        let (user, id, client) = (task.user, task.process, task.client);
        match queues.by_process.iter_mut().find(|process| process.id == id && process.user == user) {
            Some(Process { by_client, .. }) => match by_client.iter_mut().find(|(owner, _)| *owner == client)
            {
                Some((_, queue)) => queue.push_back(task),
                None => by_client.push_back((client, VecDeque::from([task]))),
            },
            None => {
                let by_client = VecDeque::from([(client, VecDeque::from([task]))]);
                queues.by_process.push_back(Process { user, id, by_client });
            }
        }
        drop(queues);
        // Not every worker may take it.
        self.filled.notify_all();
        Ok(())
    }

    /// Takes no more jobs, for good; gives back those that wait. What runs is not touched.
    pub fn stop(&self) -> Vec<Task> {
        let mut queues = self.queues();
        queues.stopped = true;
        let clients = queues.by_process.drain(..).flat_map(|process| process.by_client);
        clients.flat_map(|(_, queue)| queue).collect()
    }

    /// The next job for a worker, processes in turn, and of each its clients in turn; waits for one. It counts as running
    /// until [`Scheduler::ended`].
    pub fn next(&self, worker: Worker) -> Task {
        let mut queues = self.queues();
        loop {
            let turn = queues.turn(worker);
            if let Some(mut process) = turn.and_then(|at| queues.by_process.remove(at)) {
                let mut next = None;
                if let Some((client, mut queue)) = process.by_client.pop_front() {
                    next = queue.pop_front();
                    if !queue.is_empty() {
                        process.by_client.push_back((client, queue));
                    }
                }
                let key = (process.user, process.id);
                if !process.by_client.is_empty() {
                    queues.by_process.push_back(process);
                }
                if let Some(task) = next {
                    *queues.running.entry(key).or_default() += 1;
                    return task;
                }
                continue;
            }
            let free = usize::from(worker == Worker::Slot);
            queues.free += free;
            queues = self.filled.wait(queues).unwrap_or_else(PoisonError::into_inner);
            queues.free -= free;
        }
    }

    /// Says that a job of a user's process runs no more.
    pub fn ended(&self, user: u32, process: i32) {
        self.ended_quietly(user, process);
        self.filled.notify_all();
    }

    /// As [`ended`](Self::ended), of a worker that asks for its next job at once: no reserve is woken to be there before it.
    pub fn ended_quietly(&self, user: u32, process: i32) {
        let mut queues = self.queues();
        if let Some(count) = queues.running.get_mut(&(user, process)) {
            *count -= 1;
            if *count == 0 {
                queues.running.remove(&(user, process));
            }
        }
    }

    /// Takes a queued job out; `None` when it runs already, or has ended.
    pub fn take(&self, client: u64, id: &str) -> Option<Task> {
        let mut queues = self.queues();
        let place = queues.of(client)?;
        let (_, queue) = queues.by_process.get_mut(place.0)?.by_client.get_mut(place.1)?;
        let index = queue.iter().position(|task| task.job.id == id)?;
        let task = queue.remove(index);
        if queue.is_empty() {
            queues.remove(place);
        }
        task
    }

    /// Forgets all queued jobs of a client that has gone; how many those were.
    pub fn forget(&self, client: u64) -> usize {
        let mut queues = self.queues();
        let place = queues.of(client);
        place.and_then(|place| queues.remove(place)).map_or(0, |queue| queue.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(client: u64, id: &str) -> Task {
        Task {
            client,
            user: 0,
            process: client as i32,
            job: Job { id: id.into(), ..Job::default() },
            environment: 0,
            limits: Limits::default(),
            cancelled: Arc::default(),
            reply: std::sync::mpsc::channel().0,
            accepted: Instant::now(),
            counted: crate::metrics::Gauge::default().count(),
        }
    }

    #[test]
    fn clients_take_turns() {
        let scheduler = Scheduler::default();
        for (client, id) in [(1, "a1"), (1, "a2"), (1, "a3"), (2, "b1"), (3, "c1"), (2, "b2")] {
            assert!(scheduler.push(task(client, id)).is_ok());
        }
        let order: Vec<String> = (0..6).map(|_| scheduler.next(Worker::Slot).job.id).collect();
        assert_eq!(order, ["a1", "b1", "c1", "a2", "b2", "a3"]);
    }

    #[test]
    fn a_process_gets_no_more_by_connecting_more_often() {
        let scheduler = Scheduler::default();
        for (process, client, id) in
            [(7, 1, "a1"), (7, 2, "b1"), (7, 3, "c1"), (7, 1, "a2"), (8, 4, "d1"), (8, 4, "d2"), (8, 4, "d3")]
        {
            assert!(scheduler.push(Task { process, ..task(client, id) }).is_ok());
        }
        let order: Vec<String> = (0..7).map(|_| scheduler.next(Worker::Slot).job.id).collect();
        assert_eq!(order, ["a1", "d1", "b1", "d2", "c1", "d3", "a2"]);
        // Taking the only job of a client leaves nothing of it in the way.
        assert!(scheduler.push(Task { process: 7, ..task(1, "a") }).is_ok());
        assert!(scheduler.take(1, "a").is_some());
        assert!(scheduler.push(Task { process: 8, ..task(4, "d") }).is_ok());
        assert_eq!((scheduler.forget(1), scheduler.next(Worker::Slot).client), (0, 4));
    }

    #[test]
    fn who_runs_least_is_next_and_the_reserve_is_for_who_runs_nothing() {
        let scheduler = Arc::new(Scheduler::default());
        for (client, id) in [(1, "a1"), (1, "a2"), (1, "a3"), (2, "b1"), (2, "b2")] {
            assert!(scheduler.push(task(client, id)).is_ok());
        }
        let ids = |worker| scheduler.next(worker).job.id;
        assert_eq!(
            (ids(Worker::Slot), ids(Worker::Slot), ids(Worker::Slot)),
            ("a1".into(), "b1".into(), "a2".into())
        );
        // Both have something running: nothing is left for the reserve until one of them has not.
        let reserve = {
            let scheduler = Arc::clone(&scheduler);
            std::thread::spawn(move || scheduler.next(Worker::Reserve).job.id)
        };
        scheduler.ended(0, 2);
        assert_eq!(reserve.join().ok().as_deref(), Some("b2"));
        // Another user with little running goes before a process with less of a user with more.
        assert!(scheduler.push(Task { process: 9, ..task(9, "c") }).is_ok());
        assert!(scheduler.push(Task { user: 5, ..task(6, "d") }).is_ok());
        assert_eq!(
            (ids(Worker::Slot), ids(Worker::Slot), ids(Worker::Slot)),
            ("d".into(), "c".into(), "a3".into())
        );
    }

    #[test]
    fn queued_jobs_can_be_taken_back() {
        let scheduler = Scheduler::default();
        for (client, id) in [(1, "a"), (1, "b"), (2, "a")] {
            assert!(scheduler.push(task(client, id)).is_ok());
        }
        assert_eq!(scheduler.take(1, "a").map(|task| task.client), Some(1));
        assert!(scheduler.take(1, "a").is_none());
        assert_eq!(scheduler.forget(1), 1);
        assert_eq!(scheduler.next(Worker::Slot).client, 2);
    }

    #[test]
    fn a_stopped_scheduler_gives_every_job_back() {
        let scheduler = Scheduler::default();
        for (client, id) in [(1, "a"), (1, "b"), (2, "c")] {
            assert!(scheduler.push(task(client, id)).is_ok());
        }
        let back: Vec<String> = scheduler.stop().into_iter().map(|task| task.job.id).collect();
        assert_eq!(back, ["a", "b", "c"]);
        assert_eq!(scheduler.push(task(1, "d")).err().map(|task| task.job.id), Some("d".into()));
        assert!(scheduler.stop().is_empty());
    }
}
