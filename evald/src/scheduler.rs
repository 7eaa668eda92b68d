//! Who is next: one queue per client, served in turn, so that a client with many jobs does not hold up the others. Clients
//! of one process take turns among themselves: a process gets no more by connecting more often.

use std::collections::VecDeque;
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
    /// The process at its other end.
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
    stopped: bool,
}

/// The queues of one process' clients; none is empty.
struct Process {
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
        let (id, client) = (task.process, task.client);
        match queues.by_process.iter_mut().find(|process| process.id == id) {
            Some(Process { by_client, .. }) => match by_client.iter_mut().find(|(owner, _)| *owner == client)
            {
                Some((_, queue)) => queue.push_back(task),
                None => by_client.push_back((client, VecDeque::from([task]))),
            },
            None => {
                let by_client = VecDeque::from([(client, VecDeque::from([task]))]);
                queues.by_process.push_back(Process { id, by_client });
            }
        }
        drop(queues);
        self.filled.notify_one();
        Ok(())
    }

    /// Takes no more jobs, for good; gives back those that wait. What runs is not touched.
    pub fn stop(&self) -> Vec<Task> {
        let mut queues = self.queues();
        queues.stopped = true;
        let clients = queues.by_process.drain(..).flat_map(|process| process.by_client);
        clients.flat_map(|(_, queue)| queue).collect()
    }

    /// The next job, processes in turn, and of each its clients in turn; waits for one.
    pub fn next(&self) -> Task {
        let mut queues = self.queues();
        loop {
            if let Some(mut process) = queues.by_process.pop_front() {
                let mut next = None;
                if let Some((client, mut queue)) = process.by_client.pop_front() {
                    next = queue.pop_front();
                    if !queue.is_empty() {
                        process.by_client.push_back((client, queue));
                    }
                }
                if !process.by_client.is_empty() {
                    queues.by_process.push_back(process);
                }
                if let Some(task) = next {
                    return task;
                }
                continue;
            }
            queues = self.filled.wait(queues).unwrap_or_else(PoisonError::into_inner);
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
        let order: Vec<String> = (0..6).map(|_| scheduler.next().job.id).collect();
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
        let order: Vec<String> = (0..7).map(|_| scheduler.next().job.id).collect();
        assert_eq!(order, ["a1", "d1", "b1", "d2", "c1", "d3", "a2"]);
        // Taking the only job of a client leaves nothing of it in the way.
        assert!(scheduler.push(Task { process: 7, ..task(1, "a") }).is_ok());
        assert!(scheduler.take(1, "a").is_some());
        assert!(scheduler.push(Task { process: 8, ..task(4, "d") }).is_ok());
        assert_eq!((scheduler.forget(1), scheduler.next().client), (0, 4));
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
        assert_eq!(scheduler.next().client, 2);
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
