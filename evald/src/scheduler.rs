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
    queues: Mutex<VecDeque<(u64, VecDeque<Task>)>>,
    filled: Condvar,
}

impl Scheduler {
    fn queues(&self) -> MutexGuard<'_, VecDeque<(u64, VecDeque<Task>)>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a job behind its client's others.
    pub fn push(&self, task: Task) {
        let mut queues = self.queues();
        match queues.iter_mut().find(|(client, _)| *client == task.client) {
            Some((_, queue)) => queue.push_back(task),
            None => queues.push_back((task.client, VecDeque::from([task]))),
        }
        drop(queues);
        self.filled.notify_one();
    }

    /// The next job, clients in turn; waits for one.
    pub fn next(&self) -> Task {
        let mut queues = self.queues();
        loop {
            if let Some((client, mut queue)) = queues.pop_front() {
                let task = queue.pop_front();
                if !queue.is_empty() {
                    queues.push_back((client, queue));
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
        let (_, queue) = queues.iter_mut().find(|(owner, _)| *owner == client)?;
        let index = queue.iter().position(|task| task.job.id == id)?;
        queue.remove(index)
    }

    /// Forgets all queued jobs of a client that has gone; how many those were.
    pub fn forget(&self, client: u64) -> usize {
        let mut queues = self.queues();
        let index = queues.iter().position(|(owner, _)| *owner == client);
        index.and_then(|index| queues.remove(index)).map_or(0, |(_, queue)| queue.len())
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
            scheduler.push(task(client, id));
        }
        let order: Vec<String> = (0..6).map(|_| scheduler.next().job.id).collect();
        assert_eq!(order, ["a1", "b1", "c1", "a2", "b2", "a3"]);
    }

    #[test]
    fn queued_jobs_can_be_taken_back() {
        let scheduler = Scheduler::default();
        for (client, id) in [(1, "a"), (1, "b"), (2, "a")] {
            scheduler.push(task(client, id));
        }
        assert_eq!(scheduler.take(1, "a").map(|task| task.client), Some(1));
        assert!(scheduler.take(1, "a").is_none());
        scheduler.forget(1);
        assert_eq!(scheduler.next().client, 2);
    }
}
