//! Who is next: one queue per client, served in turn, so that a client with many jobs does not hold up the others.

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
    by_client: VecDeque<(u64, VecDeque<Task>)>,
    stopped: bool,
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
        match queues.by_client.iter_mut().find(|(client, _)| *client == task.client) {
            Some((_, queue)) => queue.push_back(task),
            None => queues.by_client.push_back((task.client, VecDeque::from([task]))),
        }
        drop(queues);
        self.filled.notify_one();
        Ok(())
    }

    /// Takes no more jobs, for good; gives back those that wait. What runs is not touched.
    pub fn stop(&self) -> Vec<Task> {
        let mut queues = self.queues();
        queues.stopped = true;
        queues.by_client.drain(..).flat_map(|(_, queue)| queue).collect()
    }

    /// The next job, clients in turn; waits for one.
    pub fn next(&self) -> Task {
        let mut queues = self.queues();
        loop {
            if let Some((client, mut queue)) = queues.by_client.pop_front() {
                let task = queue.pop_front();
                if !queue.is_empty() {
                    queues.by_client.push_back((client, queue));
                }
                if let Some(task) = task {
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
        let (_, queue) = queues.by_client.iter_mut().find(|(owner, _)| *owner == client)?;
        let index = queue.iter().position(|task| task.job.id == id)?;
        queue.remove(index)
    }

    /// Forgets all queued jobs of a client that has gone; how many those were.
    pub fn forget(&self, client: u64) -> usize {
        let mut queues = self.queues();
        let index = queues.by_client.iter().position(|(owner, _)| *owner == client);
        index.and_then(|index| queues.by_client.remove(index)).map_or(0, |(_, queue)| queue.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(client: u64, id: &str) -> Task {
        Task {
            client,
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
