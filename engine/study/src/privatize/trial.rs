//! The problems run in the sandbox: once to see which of their names are the library's, once before and once after.

use std::ops::ControlFlow;
use std::path::Path;

use evald_proto::{Client, Job, JobResult, Limits, SpawnOptions, TrustWish};
use inhouse_core::decode::CancelToken;
use inhouse_core::{Error, ErrorKind, Progress, Result};

use super::problems::{Converted, Seen, Strings, convert, recording};
use super::speech::Speech;
use super::{Options, ProblemReport};
use crate::evaluate::{canonical_samples, environment, failure, folders, start};
use crate::naming::Naming;
use crate::problems::Problem;
use crate::twin::Twin;

/// CPU seconds of a problem's solution and test.
const SECONDS: u64 = 10;
/// Solutions of a problem that are looked at; for further ones what names stand for is told by their look.
const MAX_SOLUTIONS: usize = 8;

/// What the problems are tried in.
pub struct Trial<'t> {
    pub options: &'t Options,
    pub twin: &'t Twin,
    /// Where the twin is written.
    pub folder: &'t Path,
    pub cancel: &'t CancelToken,
    pub progress: &'t dyn Progress,
}

impl Trial<'_> {
    /// Converts the problems and says how their canonical solutions fare.
    pub fn run(&self, problems: &[Problem], speech: &Speech) -> Result<(Vec<Problem>, ProblemReport)> {
        let mut client = self.client()?;
        let seen = self.seen(&mut client, problems)?;
        let before = self.passes(&mut client, &Naming::AsWritten, problems, "their solutions as written")?;
        let follow = |i: usize| convert(&problems[i], speech, &seen[i], Strings::Follow);
        let mut converted: Vec<Converted> = (0..problems.len()).map(follow).collect();
        let private = Naming::Private(self.twin.clone());
        let mut after = self.passes(&mut client, &private, &all(&converted), "their private solutions")?;
        let again: Vec<usize> =
            (0..problems.len()).filter(|i| passed(&before[*i]) && !passed(&after[*i])).collect();
        let mut strings_kept = 0;
        if !again.is_empty() {
            let keep = |i: &usize| convert(&problems[*i], speech, &seen[*i], Strings::Keep);
            let others: Vec<Converted> = again.iter().map(keep).collect();
            let results =
                self.passes(&mut client, &private, &all(&others), "those with strings as they were")?;
            for ((i, other), result) in again.into_iter().zip(others).zip(results) {
                if passed(&result) {
                    strings_kept += 1;
                    converted[i] = other;
                    after[i] = result;
                }
            }
        }
        let mut report = ProblemReport {
            problems: problems.len(),
            solved_before: before.iter().filter(|result| passed(result)).count(),
            solved: after.iter().filter(|result| passed(result)).count(),
            strings_kept,
            ..ProblemReport::default()
        };
        for (problem, (before, after)) in converted.iter().zip(before.iter().zip(&after)) {
            report.prompts.look(&problem.prompt, speech);
            if passed(before) && !passed(after) {
                let why = after.as_ref().map_or("no solution", |result| result.detail.as_str());
                report.lost.insert(problem.problem.task_id.clone(), why.to_owned());
            }
        }
        Ok((all(&converted), report))
    }

    fn client(&self) -> Result<Client> {
        let preload = [self.options.library.clone()].into_iter().chain(self.twin.preload()).collect();
        let mut paths = folders(&self.options.paths);
        paths.extend(folders(&[self.folder.to_path_buf()]));
        let spawn = SpawnOptions {
            envs: vec![environment(&self.options.python, preload)],
            paths,
            ..SpawnOptions::default()
        };
        start(&spawn, self.options.evald.as_deref(), self.cancel)
    }

    fn seen(&self, client: &mut Client, problems: &[Problem]) -> Result<Vec<Vec<Seen>>> {
        let mut jobs = Vec::new();
        let mut owners = Vec::new();
        for (i, problem) in problems.iter().enumerate() {
            for solution in problem.canonical_solutions.iter().take(MAX_SOLUTIONS) {
                owners.push(i);
                jobs.push(Job {
                    id: jobs.len().to_string(),
                    code: recording(self.twin.name(), problem, solution)?,
                    limits: Limits { output_bytes: Some(1 << 20), ..limits() },
                    keep_output: true,
                    ..Job::default()
                });
            }
        }
        let results = self.run_all(client, jobs, "what names stand for")?;
        let mut seen = vec![Vec::new(); problems.len()];
        for (i, result) in owners.into_iter().zip(results) {
            seen[i].push(Seen::parse(&result.output));
        }
        Ok(seen)
    }

    /// The result of each problem's first canonical solution; `None` where it has none.
    fn passes(
        &self,
        client: &mut Client,
        naming: &Naming,
        problems: &[Problem],
        what: &str,
    ) -> Result<Vec<Option<JobResult>>> {
        let samples = canonical_samples(problems);
        let with: Vec<usize> =
            (0..problems.len()).filter(|i| !problems[*i].canonical_solutions.is_empty()).collect();
        let jobs = with
            .iter()
            .zip(&samples)
            .enumerate()
            .map(|(id, (i, sample))| naming.job(id, &problems[*i], sample, &limits(), TrustWish::InProcess))
            .collect::<Result<Vec<_>>>()?;
        let mut results = vec![None; problems.len()];
        for (i, result) in with.into_iter().zip(self.run_all(client, jobs, what)?) {
            results[i] = Some(naming.result(result));
        }
        Ok(results)
    }

    fn run_all(&self, client: &mut Client, jobs: Vec<Job>, what: &str) -> Result<Vec<JobResult>> {
        let mut results = vec![None; jobs.len()];
        self.progress.start(what, Some(jobs.len() as u64));
        let stop = || self.cancel.is_cancelled() || self.progress.check().is_err();
        let ran = client.run_all(jobs, &stop, |at, result| {
            results[at] = Some(result);
            self.progress.advance(1);
            ControlFlow::Continue(())
        });
        if ran.is_err() {
            self.progress.check()?;
        }
        ran.map_err(|error| failure(error, self.cancel))?;
        self.progress.finish();
        let whole = results.into_iter().collect::<Option<Vec<_>>>();
        whole.ok_or_else(|| Error::new(ErrorKind::Sandbox, "evald ended without a verdict for every problem"))
    }
}

fn all(converted: &[Converted]) -> Vec<Problem> {
    converted.iter().map(|converted| converted.problem.clone()).collect()
}

fn limits() -> Limits {
    Limits { cpu_ms: Some(SECONDS * 1000), ..Limits::default() }
}

fn passed(result: &Option<JobResult>) -> bool {
    result.as_ref().is_some_and(|result| result.passed)
}
