//! One job in, one verdict out: the seam between the daemon and whatever walls a sample in.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use evald_proto::{ErrorCode, Job, JobResult, Reply, Trust, TrustWish, Verdict};

use crate::environment::Keeper;
use crate::error::{Error, Result};
use crate::limits::{Baseline, Limits};
use crate::message::{Given, Role, SlotJob, SlotReport};
use crate::metrics::Metrics;
use crate::pair::{self, Half, Outcome};
use crate::program;
use crate::scheduler::{Scheduler, Worker};
use crate::scratch::Sweeper;
use crate::slot::Slot;
use crate::testing;
use crate::tier::Tier;

/// No test lasts that long.
const A_DAY_MS: u64 = 24 * 60 * 60 * 1000;

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

    /// Ends what is kept for further jobs.
    fn rest(&mut self) {}
}

/// Samples forked from warm interpreters (tiers T0 to T3). One per worker thread; slots are made when first needed.
pub struct Warm {
    tier: Tier,
    keeper: Keeper,
    /// By environment, and whether they run tests alone: what a candidate did cannot be in their memory.
    slots: HashMap<(usize, bool), Slot>,
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

    /// A slot that is ready for a sample, and what its address space holds.
    fn ready(&mut self, environment: usize, judge: bool, limits: &Limits) -> Result<(Slot, Baseline)> {
        let used = self.slots.remove(&(environment, judge));
        let ready = used.and_then(|mut slot| slot.prepare(limits).map(|baseline| (slot, baseline)).ok());
        match ready {
            Some(ready) => Ok(ready),
            // None yet, or it has died, or memory of its last sample is still held.
            None => {
                let mut slot = self.keeper.slot(environment)?;
                let baseline = slot.prepare(limits)?;
                Ok((slot, baseline))
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
        let (mut slot, baseline) = self.ready(environment, false, limits)?;
        let (mut head, mut texts) =
            (head(Role::Whole, job, [&job.code, &job.test], limits, baseline), Vec::new());
        texts.extend([job.code.as_bytes(), job.test.as_bytes()]);
        let files = job.program.as_ref().map_or(Ok(Vec::new()), program::files).map_err(Error::Host)?;
        if let Some(program) = &job.program {
            head.role = Role::Program;
            head.given = Some(Given {
                stdin_bytes: program.stdin.len() as u64,
                files: files.iter().map(|(path, bytes)| (path.clone(), bytes.len() as u64)).collect(),
                fetch: program.fetch.clone(),
            });
            texts.push(program.stdin.as_bytes());
            texts.extend(files.iter().map(|(_, bytes)| bytes.as_slice()));
        }
        let ran = slot.run(&head, &texts, cancelled);
        self.sweep();
        let mut report = ran?;
        self.was_it_the_host(&mut report);
        self.observe(&report);
        // Only a slot that has answered well is used again.
        if report.verdict != Some(Verdict::InfraError) {
            self.slots.insert((environment, false), slot);
        }
        Ok(report)
    }

    /// Candidate and test in two samples.
    fn attempt_apart(
        &mut self,
        environment: usize,
        job: &Job,
        limits: &Limits,
        cancelled: &AtomicBool,
    ) -> Result<Outcome> {
        let (mut candidate, baseline) = self.ready(environment, false, limits)?;
        let (mut judge, judges) = self.ready(environment, true, limits)?;
        let compare = job.trust != Some(TrustWish::Isolated);
        // The candidate's clock runs until both have ended: it waits for its judge, or the judge for it.
        let patient = Limits { wall_ms: A_DAY_MS, ..limits.clone() };
        let outcome = pair::run(
            Half {
                slot: &mut candidate,
                job: head(Role::Candidate, job, [&job.code, ""], limits, baseline),
                texts: [job.code.as_bytes(), b""],
            },
            Half {
                slot: &mut judge,
                job: head(Role::Judge { compare }, job, [&job.prompt, &job.test], &patient, judges),
                texts: [job.prompt.as_bytes(), job.test.as_bytes()],
            },
            cancelled,
        );
        self.sweep();
        let pair::Ran { mut outcome, reusable } = outcome?;
        let well = match &mut outcome {
            Outcome::Decided(report) => {
                self.was_it_the_host(report);
                self.observe(report);
                report.verdict != Some(Verdict::InfraError)
            }
            Outcome::Needs(_) => true,
        };
        if well && reusable {
            self.slots.insert((environment, false), candidate);
        }
        if well {
            self.slots.insert((environment, true), judge);
        }
        Ok(outcome)
    }

    fn sweep(&self) {
        if let Some(sweeper) = &self.sweeper {
            // Its thread lives as long as the daemon.
            sweeper.send(()).ok();
        }
    }

    fn observe(&self, report: &SlotReport) {
        if let Some(us) = report.setup_us {
            self.metrics.fork.observe(Duration::from_micros(us));
        }
        if let Some(kill) = report.kill {
            self.metrics.kill_overshoot.observe(Duration::from_micros(kill.overshoot_us));
            self.metrics.kill_teardown.observe(Duration::from_micros(kill.teardown_us));
        }
    }

    /// Runs the job where its test may run; what came of it, and why that is not out of the candidate's reach.
    fn judge(
        &mut self,
        environment: usize,
        job: &Job,
        limits: &Limits,
        cancelled: &AtomicBool,
    ) -> Result<(SlotReport, String)> {
        let wish = job.trust.unwrap_or(TrustWish::InProcess);
        if job.program.is_some() {
            return Ok((self.attempt(environment, job, limits, cancelled)?, String::new()));
        }
        if wish == TrustWish::InProcess || (job.test.is_empty() && job.entry_point.is_empty()) {
            return Ok((self.attempt(environment, job, limits, cancelled)?, String::new()));
        }
        let reason = match self.tier {
            Tier::T4 => Some("T4 runs a program and its test in one machine".to_owned()),
            _ => testing::needs(&job.test),
        };
        let reason = match reason {
            Some(reason) => reason,
            None => match self.attempt_apart(environment, job, limits, cancelled)? {
                Outcome::Decided(mut report) => {
                    let passed = report.verdict == Some(Verdict::Passed);
                    // What a judge says of a pass is why it is worth less.
                    let reason = if passed { std::mem::take(&mut report.detail) } else { String::new() };
                    if !reason.is_empty() {
                        report.trust = Trust::InProcess;
                    }
                    return Ok((report, reason));
                }
                Outcome::Needs(reason) => reason,
            },
        };
        if wish == TrustWish::Isolated {
            let detail = format!("the test cannot run out of the candidate's reach: {reason}");
            return Ok((SlotReport::without_a_run(Verdict::NoTest, detail), reason));
        }
        Ok((self.attempt(environment, job, limits, cancelled)?, reason))
    }
}

/// What a slot is told of a job.
fn head(role: Role, job: &Job, texts: [&str; 2], limits: &Limits, baseline: Baseline) -> SlotJob {
    let [code_bytes, test_bytes] = texts.map(|text| text.len() as u64);
    let (entry, limits, keep_output) = (job.entry_point.clone(), limits.clone(), job.keep_output);
    SlotJob { role, entry, code_bytes, test_bytes, limits, baseline, keep_output, given: None }
}

impl Sandbox for Warm {
    fn rest(&mut self) {
        self.slots.clear();
    }

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
        let (report, trust_reason) = match self.judge(environment, job, limits, cancelled) {
            Ok((SlotReport { verdict: None, .. }, _)) => return None,
            Ok(judged) => judged,
            Err(_) if cancelled.load(Ordering::Relaxed) => return None,
            Err(error) => {
                tracing::warn!(id = job.id, error = error.to_string(), "the sandbox failed");
                (SlotReport::without_a_run(Verdict::InfraError, error.to_string()), String::new())
            }
        };
        let SlotReport { verdict, trust, cpu_us, wall_us, setup_cpu_us, detail, exit_status, said, .. } =
            report;
        let verdict = verdict?;
        tracing::trace!(id = job.id, cpu_us, wall_us, setup_cpu_us, "sample");
        let (verdict, trust, detail, [output, errors]) = match on_the_wire(&said) {
            Some(texts) => (verdict, trust, detail, texts),
            None => {
                let detail = "its output does not fit into a reply".to_owned();
                (Verdict::OutputLimit, Trust::Outside, detail, Default::default())
            }
        };
        let fetched = match &job.program {
            Some(program) if verdict != Verdict::OutputLimit => program::fetched(&program.fetch, &said[2]),
            _ => BTreeMap::new(),
        };
        let result = JobResult {
            id: job.id.clone(),
            verdict,
            passed: verdict == Verdict::Passed,
            trust,
            trust_reason,
            tier: self.tier(),
            cpu_ms: cpu_us as f64 / 1e3,
            wall_ms: wall_us as f64 / 1e3,
            detail,
            output,
            errors,
            exit_status,
            files: fetched,
        };
        Some(if job.trust.is_none() { in_old_words(result) } else { result })
    }
}

/// A result in the words of clients that do not say what they trust: they know no other verdicts than were there before.
fn in_old_words(mut result: JobResult) -> JobResult {
    if result.verdict == Verdict::NoTest {
        result.verdict = Verdict::Failed;
        result.detail = format!("no test: {}", result.detail);
    }
    result
}

/// Processes that the host has killed for want of memory since it started.
fn host_kills() -> u64 {
    let counters = std::fs::read_to_string("/proc/vmstat").unwrap_or_default();
    let count = counters.lines().find_map(|line| line.strip_prefix("oom_kill "));
    count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

/// Output and errors as texts, where they fit into a line of the protocol with their escapes, and with the files in base64.
fn on_the_wire(said: &[Vec<u8>; 3]) -> Option<[String; 2]> {
    let texts = [&said[0], &said[1]].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    // A control character takes six bytes.
    let escaped = texts.iter().flat_map(|text| text.bytes()).map(|byte| {
        if byte < b' ' {
            6
        } else if byte == b'"' || byte == b'\\' {
            2
        } else {
            1
        }
    });
    let bytes = escaped.sum::<usize>() + said[2].len().div_ceil(3) * 4;
    (bytes < evald_proto::MAX_LINE_BYTES - (64 << 10)).then_some(texts)
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
        // The reserve is seldom needed: its interpreters do not stay.
        if worker == Worker::Reserve {
            sandbox.rest();
        }
        let (user, process) = (task.user, task.process);
        task.answer(reply);
        match worker {
            Worker::Slot => scheduler.ended_quietly(user, process),
            Worker::Reserve => scheduler.ended(user, process),
        }
    }
}
