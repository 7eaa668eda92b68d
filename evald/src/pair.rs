//! A candidate and its judge, each in a sample of its own, and the one verdict that comes of both.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use evald_proto::{Trust, Verdict};

use crate::error::{Result, Step};
use crate::message::{SlotJob, SlotReport};
use crate::record::Kind;
use crate::slot::{Running, Said, Slot, wait};

/// A candidate whose judge has hung up ends by itself; one that does not is ended after this time.
const FAREWELL: Duration = Duration::from_secs(2);

/// So long may a judge go on without its candidate.
const WAKING: Duration = Duration::from_secs(10);

/// A sample's slot, what it is to run, and its texts.
pub struct Half<'a> {
    /// The slot.
    pub slot: &'a mut Slot,
    /// The job.
    pub job: SlotJob,
    /// Code and test, as far as the role has them.
    pub texts: [&'a [u8]; 2],
}

/// What became of both, and whether the candidate's slot may be used again.
pub struct Ran {
    /// The verdict.
    pub outcome: Outcome,
    /// False: it was told to end its sample as that ended, and would take that for the next one.
    pub reusable: bool,
}

/// What became of both.
pub enum Outcome {
    /// A verdict.
    Decided(SlotReport),
    /// The test cannot run outside the candidate's process, for this reason.
    Needs(String),
}

/// Runs a candidate, and when it is ready its judge.
///
/// # Errors
/// A slot died or does not answer; neither must be used again.
pub fn run(candidate: Half<'_>, judge: Half<'_>, cancelled: &AtomicBool) -> Result<Ran> {
    let (theirs, ours) = UnixStream::pair().step("make a socket pair")?;
    let mut running = candidate.slot.start(&candidate.job, &candidate.texts, Some(theirs.as_fd()))?;
    // Either sample's end is the other's end of the line.
    drop(theirs);
    loop {
        wait(&[candidate.slot])?;
        match candidate.slot.step(&mut running, cancelled)? {
            None => {}
            Some(Said::Ready) => break,
            // It does not compile, it failed before its test, it was ended.
            Some(Said::Ended(report)) => {
                let verdict = match report.last {
                    // None of its records makes a pass.
                    Some(Kind::Served | Kind::Passed) => Some(Verdict::Tampered),
                    _ => report.verdict,
                };
                let trust = if report.trust == Trust::InProcess { Trust::Isolated } else { report.trust };
                let outcome = Outcome::Decided(SlotReport { verdict, trust, ..report });
                return Ok(Ran { outcome, reusable: true });
            }
        }
    }
    let mut judging = judge.slot.start(&judge.job, &judge.texts, Some(ours.as_fd()))?;
    drop(ours);
    running.waits_for(judge.slot);
    let mut ended = None;
    // A judge hears at once that its candidate has gone; one that sleeps through that is ended.
    let (over, mut patience) = (AtomicBool::new(false), None);
    let said = loop {
        match ended {
            None => wait(&[candidate.slot, judge.slot])?,
            Some(_) => wait(&[judge.slot])?,
        }
        if ended.is_none()
            && let Some(Said::Ended(report)) = candidate.slot.step(&mut running, cancelled)?
        {
            ended = Some(report);
            patience = Some(Instant::now() + WAKING);
        }
        if cancelled.load(Ordering::Relaxed) || patience.is_some_and(|until| Instant::now() > until) {
            over.store(true, Ordering::Relaxed);
        }
        if let Some(Said::Ended(report)) = judge.slot.step(&mut judging, &over)? {
            break report;
        }
    };
    let ended = match ended {
        Some(report) => Some(report),
        None => farewell(candidate.slot, &mut running, cancelled)?,
    };
    let reusable = ended.is_some();
    let silent =
        || SlotReport { verdict: None, ..SlotReport::without_a_run(Verdict::NoVerdict, String::new()) };
    Ok(Ran { outcome: decide(ended.unwrap_or_else(silent), said), reusable })
}

/// Waits for the end of a candidate that nobody asks any more. `None`: it ended as it was told to, so that its slot is of no
/// more use.
fn farewell(slot: &mut Slot, running: &mut Running, cancelled: &AtomicBool) -> Result<Option<SlotReport>> {
    let deadline = Instant::now() + FAREWELL;
    let enough = AtomicBool::new(false);
    loop {
        wait(&[slot])?;
        if cancelled.load(Ordering::Relaxed) || Instant::now() > deadline {
            enough.store(true, Ordering::Relaxed);
        }
        match slot.step(running, &enough) {
            Ok(Some(Said::Ended(report))) => return Ok(Some(report)),
            Err(_) if enough.load(Ordering::Relaxed) => return Ok(None),
            other => drop(other?),
        }
    }
}

/// One verdict of both reports. Only a judge that has said so makes a pass.
fn decide(candidate: SlotReport, judge: SlotReport) -> Outcome {
    if let (Some(Kind::Needs), Some(_)) = (judge.last, judge.verdict) {
        return Outcome::Needs(judge.detail);
    }
    let figures = |report: SlotReport| SlotReport {
        cpu_us: candidate.cpu_us + judge.cpu_us,
        wall_us: candidate.wall_us.max(judge.wall_us),
        setup_cpu_us: candidate.setup_cpu_us + judge.setup_cpu_us,
        setup_us: candidate.setup_us,
        kill: candidate.kill.or(judge.kill),
        ..report
    };
    // A limit that the candidate broke is the verdict, whatever its judge made of its silence.
    let broke = matches!(
        candidate.verdict,
        Some(
            Verdict::TimeoutCpu
                | Verdict::TimeoutWall
                | Verdict::Oom
                | Verdict::OutputLimit
                | Verdict::DiskLimit
                | Verdict::ProcLimit
                | Verdict::PolicyViolation
                | Verdict::Tampered
                | Verdict::InfraError
        )
    );
    let gone = judge.last == Some(Kind::Gone) || judge.verdict.is_none();
    if broke || gone {
        // One that says it was told to go, and has gone before its judge has hung up, has said too much.
        let verdict = match candidate.last {
            Some(Kind::Passed | Kind::Served) => Some(Verdict::NoVerdict),
            _ => candidate.verdict.or(judge.verdict),
        };
        let trust = if candidate.trust == Trust::InProcess { Trust::Isolated } else { candidate.trust };
        let report = SlotReport { verdict, trust, ..candidate.clone() };
        return Outcome::Decided(figures(report));
    }
    let output = [candidate.said[0].as_slice(), judge.said[0].as_slice()].concat();
    let said_bytes = [output.len() as u64, 0, 0];
    let said = [output, Vec::new(), Vec::new()];
    let trust = if judge.trust == Trust::InProcess { Trust::Isolated } else { judge.trust };
    Outcome::Decided(figures(SlotReport { trust, said_bytes, said, ..judge.clone() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(verdict: Option<Verdict>, last: Option<Kind>) -> SlotReport {
        SlotReport {
            verdict,
            trust: Trust::InProcess,
            last,
            cpu_us: 5,
            wall_us: 7,
            setup_cpu_us: 1,
            setup_us: Some(1),
            kill: None,
            detail: String::new(),
            signal: None,
            used_network: false,
            exit_status: None,
            said_bytes: [0; 3],
            said: Default::default(),
        }
    }

    fn verdict(candidate: SlotReport, judge: SlotReport) -> Option<Verdict> {
        match decide(candidate, judge) {
            Outcome::Decided(report) => report.verdict,
            Outcome::Needs(_) => None,
        }
    }

    #[test]
    fn only_the_judge_makes_a_pass() {
        let all = [Some(Kind::Passed), Some(Kind::Served), Some(Kind::Failed), Some(Kind::Exited), None];
        let served = || report(Some(Verdict::NoVerdict), Some(Kind::Served));
        for last in all {
            let verdicts = [Verdict::Passed, Verdict::Failed, Verdict::NoVerdict, Verdict::Signaled];
            for candidate in verdicts {
                for judge in [Verdict::Failed, Verdict::NoTest, Verdict::TimeoutCpu, Verdict::Signaled] {
                    let got = verdict(report(Some(candidate), last), report(Some(judge), Some(Kind::Failed)));
                    assert_ne!(got, Some(Verdict::Passed), "{candidate:?} {last:?} {judge:?}");
                }
                let gone = report(Some(Verdict::NoVerdict), Some(Kind::Gone));
                if candidate != Verdict::Passed || matches!(last, Some(Kind::Passed | Kind::Served)) {
                    assert_ne!(verdict(report(Some(candidate), last), gone), Some(Verdict::Passed));
                }
            }
        }
        assert_eq!(
            verdict(served(), report(Some(Verdict::Passed), Some(Kind::Passed))),
            Some(Verdict::Passed)
        );
        // Cancelled at the end, because it did not end by itself.
        assert_eq!(
            verdict(report(None, None), report(Some(Verdict::Passed), Some(Kind::Passed))),
            Some(Verdict::Passed)
        );
    }

    #[test]
    fn a_limit_of_the_candidate_is_the_verdict() {
        for broken in [Verdict::TimeoutCpu, Verdict::Oom, Verdict::Tampered] {
            let passed = report(Some(Verdict::Passed), Some(Kind::Passed));
            assert_eq!(verdict(report(Some(broken), None), passed), Some(broken));
        }
        let gone = || report(Some(Verdict::NoVerdict), Some(Kind::Gone));
        assert_eq!(verdict(report(Some(Verdict::Signaled), None), gone()), Some(Verdict::Signaled));
        assert!(matches!(
            decide(report(None, None), report(Some(Verdict::NoTest), Some(Kind::Needs))),
            Outcome::Needs(_)
        ));
    }
}
