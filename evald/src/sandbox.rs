//! One job in, one verdict out: the seam between the daemon and whatever walls a sample in.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use evald_proto::{ErrorCode, Job, JobResult, Reply, Trust, Verdict};

use crate::environment::Keeper;
use crate::error::Result;
use crate::limits::Limits;
use crate::message::{SlotJob, SlotReport};
use crate::metrics::Metrics;
use crate::scheduler::{Scheduler, Worker};
use crate::scratch::Sweeper;
use crate::slot::Slot;
use crate::tier::Tier;

/// Something that runs samples. Another kind of wall (WebAssembly) is another implementation.
pub trait Sandbox: Send {
    /// The tier recorded in verdicts.
    fn tier(&self) -> String;

    /// Runs one job to its end; `None` when it was cancelled. Failures of the sandbox itself are
    /// [`Verdict::InfraError`]s.
    fn run(
        &mut self,
        environment: usize,
        job: &Job,
        limits: &Limits,
        cancelled: &AtomicBool,
    ) -> Option<JobResult>;
}

/// Samples forked from warm interpreters (tiers T0 to T3). One per worker thread; slots are made when first needed.
pub struct Warm {
    tier: Tier,
    keeper: Keeper,
    slots: HashMap<usize, Slot>,
    metrics: Arc<Metrics>,
    /// T3: told when a sample has left its folder.
    sweeper: Option<Sweeper>,
    /// Processes that the host had killed for want of memory, as far as is known.
    host_kills: u64,
}

impl Warm {
    /// A sandbox without slots yet.
    pub fn new(tier: Tier, keeper: Keeper, metrics: Arc<Metrics>, sweeper: Option<Sweeper>) -> Self {
        Self { tier, keeper, slots: HashMap::new(), metrics, sweeper, host_kills: host_kills() }
    }

    /// A sample that was killed may have done that itself, and the host may have, which ran out of memory.
    fn was_it_the_host(&mut self, report: &mut SlotReport) {
        if report.verdict == Some(Verdict::Signaled) && report.signal == Some(libc::SIGKILL) {
            let before = std::mem::replace(&mut self.host_kills, host_kills());
            if self.host_kills > before {
                report.verdict = Some(Verdict::InfraError);
                report.detail = "killed by a host that is out of memory".into();
            }
        }
    }

    fn attempt(
        &mut self,
        environment: usize,
        job: &Job,
        limits: &Limits,
        cancelled: &AtomicBool,
    ) -> Result<SlotReport> {
        let used = self.slots.remove(&environment);
        let ready = used.and_then(|mut slot| slot.prepare(limits).map(|baseline| (slot, baseline)).ok());
        let (mut slot, baseline) = match ready {
            Some(ready) => ready,
            // None yet, or it has died, or memory of its last sample is still held.
            None => {
                let mut slot = self.keeper.slot(environment)?;
                let baseline = slot.prepare(limits)?;
                (slot, baseline)
            }
        };
        let head = SlotJob {
            code_bytes: job.code.len() as u64,
            test_bytes: job.test.len() as u64,
            limits: limits.clone(),
            baseline,
            keep_output: job.keep_output,
        };
        let ran = slot.run(&head, [job.code.as_bytes(), job.test.as_bytes()], cancelled);
        if let Some(sweeper) = &self.sweeper {
            // Its thread lives as long as the daemon.
            sweeper.send(()).ok();
        }
        let mut report = ran?;
        self.was_it_the_host(&mut report);
        if let Some(us) = report.setup_us {
            self.metrics.fork.observe(Duration::from_micros(us));
        }
        if let Some(kill) = report.kill {
            self.metrics.kill_overshoot.observe(Duration::from_micros(kill.overshoot_us));
            self.metrics.kill_teardown.observe(Duration::from_micros(kill.teardown_us));
        }
        // Only a slot that has answered well is used again.
        if report.verdict != Some(Verdict::InfraError) {
            self.slots.insert(environment, slot);
        }
        Ok(report)
    }
}

impl Sandbox for Warm {
    fn tier(&self) -> String {
        self.tier.to_string()
    }

    fn run(
        &mut self,
        environment: usize,
        job: &Job,
        limits: &Limits,
        cancelled: &AtomicBool,
    ) -> Option<JobResult> {
        let (verdict, trust, cpu_us, wall_us, detail, output) =
            match self.attempt(environment, job, limits, cancelled) {
                Ok(SlotReport { verdict: None, .. }) => return None,
                Ok(SlotReport {
                    verdict: Some(verdict),
                    trust,
                    cpu_us,
                    wall_us,
                    detail,
                    output,
                    setup_cpu_us,
                    ..
                }) => {
                    tracing::trace!(id = job.id, cpu_us, wall_us, setup_cpu_us, "sample");
                    match on_the_wire(&output) {
                        Some(output) => (verdict, trust, cpu_us, wall_us, detail, output),
                        None => {
                            let detail = "its output does not fit into a reply".to_owned();
                            (Verdict::OutputLimit, Trust::Outside, cpu_us, wall_us, detail, String::new())
                        }
                    }
                }
                Err(_) if cancelled.load(Ordering::Relaxed) => return None,
                Err(error) => {
                    tracing::warn!(id = job.id, error = error.to_string(), "the sandbox failed");
                    (Verdict::InfraError, Trust::Outside, 0, 0, error.to_string(), String::new())
                }
            };
        Some(JobResult {
            id: job.id.clone(),
            verdict,
            passed: verdict == Verdict::Passed,
            trust,
            tier: self.tier(),
            cpu_ms: cpu_us as f64 / 1e3,
            wall_ms: wall_us as f64 / 1e3,
            detail,
            output,
        })
    }
}

/// Processes that the host has killed for want of memory since it started.
fn host_kills() -> u64 {
    let counters = std::fs::read_to_string("/proc/vmstat").unwrap_or_default();
    let count = counters.lines().find_map(|line| line.strip_prefix("oom_kill "));
    count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

/// Output as text, where it fits into a line of the protocol with its escapes.
fn on_the_wire(output: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(output).into_owned();
    // A control character takes six bytes.
    let escaped = text.bytes().map(|byte| {
        if byte < b' ' {
            6
        } else if byte == b'"' || byte == b'\\' {
            2
        } else {
            1
        }
    });
    (escaped.sum::<usize>() < evald_proto::MAX_LINE_BYTES - (64 << 10)).then_some(text)
}

/// A worker's life: jobs from the queues, replies to their clients.
pub fn work(scheduler: &Scheduler, worker: Worker, sandbox: &mut dyn Sandbox, metrics: &Metrics) -> ! {
    loop {
        let task = scheduler.next(worker);
        metrics.queue_wait.observe(task.accepted.elapsed());
        let running = metrics.running.count();
        let ended = if task.cancelled.load(Ordering::Relaxed) {
            None
        } else {
            sandbox.run(task.environment, &task.job, &task.limits, &task.cancelled)
        };
        drop(running);
        let reply = match ended {
            Some(result) => {
                metrics.ended(result.verdict);
                // Texts as string fields, never in the message: both log formats escape those.
                let (client, verdict, cpu_ms) = (task.client, result.verdict.as_str(), result.cpu_ms);
                tracing::debug!(client, id = result.id, verdict, cpu_ms, detail = result.detail, "job ended");
                Reply::Verdict(result)
            }
            None => {
                metrics.cancelled.fetch_add(1, Ordering::Relaxed);
                Reply::error(Some(task.job.id.clone()), ErrorCode::Cancelled, "cancelled")
            }
        };
        let (user, process) = (task.user, task.process);
        task.answer(reply);
        scheduler.ended(user, process);
    }
}
