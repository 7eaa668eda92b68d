//! `inhouse eval`: samples in, verdicts and pass@k out. Every sample runs in evald, never here.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use evald_proto::{
    Client, ClientError, Info, Job, JobResult, MAX_LINE_BYTES, NamedEnv, PROTOCOL_VERSION, SpawnOptions,
    Trust, Verdict,
};
pub use evald_proto::{EnvSpec, Limits, TrustWish};
use inhouse_core::decode::CancelToken;
use inhouse_core::{Error, ErrorKind, Progress, Result, files};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use crate::journal::{self, Journal};
use crate::naming::Naming;
use crate::pass_at_k::mean_pass_at_k;
use crate::problems::Problem;
use crate::samples::Sample;
use crate::twin::Twin;
use crate::unusable::Unusable;

/// How to evaluate.
#[derive(Debug, Clone)]
pub struct EvalOptions {
    /// The k of pass@k.
    pub k: Vec<u64>,
    /// In whose names the samples are written. A twin needs a private evald.
    pub naming: Naming,
    /// What runs the samples, where a private evald is started.
    pub environment: EnvSpec,
    /// CPU seconds a sample; the wall-clock limit is evald's multiple of it.
    pub timeout_seconds: f64,
    /// What else samples may use; where it says nothing, evald's defaults. Its CPU time goes before `timeout_seconds`.
    pub limits: Limits,
    /// Whether samples may start processes; a running evald must have been started so.
    pub allow_processes: bool,
    /// Folders on the module search path of a private evald's samples.
    pub paths: Vec<PathBuf>,
    /// Socket of a running evald; `None` starts a private one.
    pub socket: Option<PathBuf>,
    /// Executable of a private evald; `None`: what `INHOUSE_EVALD` names, else the one beside this program, else the one on
    /// the PATH.
    pub evald: Option<PathBuf>,
    /// Tier to insist on, of a private evald or of the one behind `socket`; `None` and `auto`: whichever runs.
    pub tier: Option<String>,
    /// Whether tests run out of their candidates' reach.
    pub trust: TrustWish,
    /// Whether samples that are equal to the letter are run once and share what came of it; otherwise each is run, has times of
    /// its own, and what is flaky shows.
    pub equal_once: bool,
    /// Where to write the rows of all samples; `-` is standard output. A regular file has a journal beside it until it is written
    /// (see [`run`]).
    pub out: Option<PathBuf>,
}

/// The figures of one evaluation. Serialises to one flat object with `pass@k` keys.
#[derive(Debug, Clone)]
pub struct EvalReport {
    /// `(k, pass@k)`, the mean over problems, for every k that all problems have samples for.
    pub pass_at: Vec<(u64, f64)>,
    /// Problems that have samples.
    pub problems: usize,
    /// Samples that have a verdict, those that the sandbox failed to run included.
    pub samples: usize,
    /// Samples by verdict.
    pub verdicts: BTreeMap<String, usize>,
    /// Samples by what their verdicts may be trusted for.
    pub trust: BTreeMap<String, usize>,
    /// Of the samples, those whose results came from the journal of an earlier, unfinished run.
    pub resumed: usize,
    /// Rate of this run: resumed samples do not count.
    pub samples_per_second: f64,
    /// Tier that ran them.
    pub tier: String,
}

impl Serialize for EvalReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (k, value) in &self.pass_at {
            map.serialize_entry(&format!("pass@{k}"), value)?;
        }
        map.serialize_entry("problems", &self.problems)?;
        map.serialize_entry("samples", &self.samples)?;
        map.serialize_entry("verdicts", &self.verdicts)?;
        map.serialize_entry("trust", &self.trust)?;
        map.serialize_entry("resumed", &self.resumed)?;
        map.serialize_entry("samples_per_second", &self.samples_per_second)?;
        map.serialize_entry("tier", &self.tier)?;
        map.end()
    }
}

/// An evaluation: its figures, and a row for every sample in the order of the samples.
#[derive(Debug, Clone)]
pub struct Evaluation {
    /// The figures.
    pub report: EvalReport,
    /// The sample's own fields with verdict, passed, trust, tier, `cpu_ms`, `wall_ms` and detail.
    pub rows: Vec<Map<String, Value>>,
}

impl Evaluation {
    /// Writes the rows as JSON lines, atomically.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_rows(&self, path: &Path) -> Result<()> {
        files::write_json_lines(path, self.rows.iter())
    }
}

/// The first canonical solution of every problem, as samples.
pub fn canonical_samples(problems: &[Problem]) -> Vec<Sample> {
    problems
        .iter()
        .filter_map(|problem| {
            let completion = problem.canonical_solutions.first()?.clone();
            Some(Sample { task_id: problem.task_id.clone(), completion, ..Sample::default() })
        })
        .collect()
}

/// Runs every sample and computes pass@k.
///
/// A sample is `prompt + completion + suffix`, in the names that [`EvalOptions::naming`] says; what decides is the problem's `test`
/// followed by `check(entry_point)`, or `check()` where the entry point is "none" (the HumanEval protocol), and what else the
/// test has only defined: test cases, test functions, doctests. A test that asserted nothing as it ran passes no sample
/// (`no_test`).
///
/// With [`EvalOptions::out`] the rows are written there when all samples are done. Until then each result stands in
/// `OUT.journal` as soon as it is known: a run that is started again after a kill takes from there what the same code, test,
/// environment, limits, tier and evald decided, and runs the rest. Results that the sandbox failed on are run again.
///
/// # Errors
/// A sample of an unknown problem, a limit out of range, a cancel, or a sandbox that cannot be started or reached; another run
/// with the same `out` ([`ErrorKind::Busy`]), a file in the journal's place that this build does not read, or one that cannot be
/// written. A sandbox that fails on single samples is no error: they are counted as `infra_error` and left out of pass@k. So are
/// samples whose row, or whose problem's, cannot be used; a program that is no text of Python, or over evald's bounds, fails.
pub fn run(
    problems: &[Problem],
    samples: &[Sample],
    options: &EvalOptions,
    cancel: &CancelToken,
    progress: &dyn Progress,
) -> Result<Evaluation> {
    Evaluator::new(options.clone()).run(problems, samples, options.out.as_deref(), cancel, progress)
}

/// Evaluates one set of samples after another in the same sandbox, whose interpreter is started once.
pub struct Evaluator {
    options: EvalOptions,
    live: Option<Live>,
}

/// An evald, and the folder of the twin that it reads.
struct Live {
    client: Client,
    _twin: Option<TempDir>,
}

impl Evaluator {
    /// Starts nothing yet. [`EvalOptions::out`] is passed over: each run names its own.
    pub fn new(options: EvalOptions) -> Self {
        Self { options, live: None }
    }

    /// What [`run`] does, with the rows written to `out`.
    ///
    /// # Errors
    /// As [`run`]. After one of the sandbox's the next run starts another.
    pub fn run(
        &mut self,
        problems: &[Problem],
        samples: &[Sample],
        out: Option<&Path>,
        cancel: &CancelToken,
        progress: &dyn Progress,
    ) -> Result<Evaluation> {
        let Self { options, live } = self;
        let done = evaluate(live, problems, samples, options, out, cancel, progress);
        if done.is_err() {
            *live = None;
        }
        done
    }
}

fn evaluate(
    live: &mut Option<Live>,
    problems: &[Problem],
    samples: &[Sample],
    options: &EvalOptions,
    out: Option<&Path>,
    cancel: &CancelToken,
    progress: &dyn Progress,
) -> Result<Evaluation> {
    if let Some(out) = out.filter(|out| *out != Path::new("-")) {
        // Found out before hours of work, not after.
        let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if !folder.is_dir() {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("cannot write {}: no folder {}", out.display(), folder.display()),
            ));
        }
    }
    if !(options.timeout_seconds > 0.0 && options.timeout_seconds <= 86_400.0) {
        let message = format!("timeout {} is not between 0 and 86400 seconds", options.timeout_seconds);
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    }
    if samples.is_empty() {
        return Err(Error::new(ErrorKind::InvalidArgument, "nothing to evaluate: there is no sample"));
    }
    let by_id: HashMap<_, _> = problems.iter().map(|problem| (problem.task_id.as_str(), problem)).collect();
    let limits = limits(options);
    let jobs = samples
        .iter()
        .enumerate()
        .map(|(i, sample)| {
            if let Some(unusable) = &sample.unusable {
                return Ok(Err(unusable.clone()));
            }
            let problem = by_id.get(sample.task_id.as_str()).ok_or_else(|| {
                let message = format!("sample {}: no problem has task_id `{}`", i + 1, sample.task_id);
                Error::new(ErrorKind::InvalidData, message)
            })?;
            match options.naming.job(i, problem, sample, &limits, options.trust) {
                Ok(job) => Ok(if is_too_large(&job) { Err(Unusable::too_large(i + 1)) } else { Ok(job) }),
                Err(error) if error.kind() == ErrorKind::InvalidData => {
                    Ok(Err(Unusable::problem(&error.to_string())))
                }
                Err(error) => Err(error),
            }
        })
        .collect::<Result<Vec<_>>>()?;

    let mut journal = match out {
        Some(out) => Journal::beside(out, progress)?,
        None => None,
    };
    let client = match live {
        Some(live) => &mut live.client,
        None => {
            // Kept as long as evald runs, which reads from it.
            let twin = options.naming.twin().map(write_twin).transpose()?;
            let client = connect(options, twin.as_ref().map(TempDir::path), cancel)?;
            &mut live.insert(Live { client, _twin: twin }).client
        }
    };
    let mut results: Vec<Option<JobResult>> = vec![None; jobs.len()];
    let mut left: Vec<(usize, Job)> = Vec::new();
    for (i, job) in jobs.into_iter().enumerate() {
        match job {
            Ok(job) => left.push((i, job)),
            Err(unusable) => results[i] = Some(not_run(i, &unusable, &client.info().tier)),
        }
    }
    let runnable = left.len();
    // By sample; those that are not run have none.
    let mut keys = vec![None; samples.len()];
    if let Some(journal) = &mut journal {
        let made = journal::keys(&runner(options, client.info()), left.iter().map(|(_, job)| job))?;
        for ((i, _), key) in left.iter().zip(made) {
            results[*i] = journal.take(&key);
            keys[*i] = Some(key);
        }
    }
    left.retain(|(i, _)| results[*i].is_none());
    let resumed = runnable - left.len();
    if let Some(journal) = journal.as_ref().filter(|_| resumed > 0) {
        progress.note(&format!("going on after {resumed} results in {}", journal.path().display()));
    }

    progress.start("evaluating", Some(samples.len() as u64));
    progress.advance((samples.len() - left.len()) as u64);
    let started = Instant::now();
    let n_left = left.len();
    let (places, jobs) = shared(left, options.equal_once);
    let mut recorded = Ok(());
    let stop = || cancel.is_cancelled() || progress.check().is_err();
    let ran = client.run_all(jobs, &stop, |at, result| {
        let result = options.naming.result(result);
        for &i in &places[at] {
            if let (Some(journal), Some(key)) = (&mut journal, &keys[i]) {
                recorded = journal.append(key, &result);
            }
            results[i] = Some(result.clone());
            progress.advance(1);
            if recorded.is_err() {
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    });
    if let Some(journal) = journal.as_ref().filter(|journal| ran.is_err() && journal.rows() > 0) {
        progress.note(&format!(
            "{} results are kept in {}; the same command goes on from there",
            journal.rows(),
            journal.path().display()
        ));
    }
    recorded?;
    if ran.is_err() {
        progress.check()?;
    }
    ran.map_err(|error| failure(error, cancel))?;
    let seconds = started.elapsed().as_secs_f64();
    progress.finish();

    let results = results
        .into_iter()
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| Error::new(ErrorKind::Sandbox, "evald ended without a verdict for every sample"))?;
    let report = EvalReport {
        resumed,
        samples_per_second: if seconds > 0.0 { n_left as f64 / seconds } else { 0.0 },
        ..report(samples, &results, &options.k)
    };
    let rows = samples.iter().zip(&results).map(|(sample, result)| row(sample, result)).collect();
    let evaluation = Evaluation { report, rows };
    if let Some(out) = out {
        evaluation.write_rows(out)?;
    }
    if let Some(journal) = journal {
        journal.remove()?;
    }
    if results.iter().all(|result| result.verdict == Verdict::InfraError) {
        let why = results.first().map(|result| result.detail.as_str()).unwrap_or_default();
        let what = if runnable > 0 { "the sandbox failed on every sample" } else { "no sample can be run" };
        return Err(Error::new(ErrorKind::Sandbox, format!("{what}: {why}")));
    }
    for (sample, result) in
        samples.iter().zip(&results).filter(|(sample, _)| sample.unusable.is_some()).take(MAX_NOTES)
    {
        progress.note(&format!("{} ({}): {}", result.verdict.as_str(), sample.task_id, result.detail));
    }
    for note in left_out(problems, &evaluation.report, &options.k) {
        progress.note(&note);
    }
    Ok(evaluation)
}

/// Samples that are not run and are told of one by one; the rows tell of all.
const MAX_NOTES: usize = 10;

/// The limits of every sample.
fn limits(options: &EvalOptions) -> Limits {
    let usual =
        Limits { cpu_ms: Some((options.timeout_seconds * 1000.0).ceil() as u64), ..Limits::default() };
    let allow_processes = options.allow_processes.then_some(true);
    Limits { allow_processes, ..options.limits.clone().or(&usual) }
}

/// Whether a job is over what evald reads as one line.
fn is_too_large(job: &Job) -> bool {
    // JSON writes a byte as six at the most.
    6 * (job.code.len() + job.test.len() + job.prompt.len()) > MAX_LINE_BYTES / 2
        && serde_json::to_vec(job).map_or(0, |line| line.len()) > MAX_LINE_BYTES - (1 << 10)
}

/// The result of a sample that is not run.
fn not_run(i: usize, unusable: &Unusable, tier: &str) -> JobResult {
    JobResult {
        id: i.to_string(),
        verdict: unusable.verdict,
        passed: false,
        trust: Trust::Outside,
        trust_reason: String::new(),
        tier: tier.to_owned(),
        cpu_ms: 0.0,
        wall_ms: 0.0,
        detail: unusable.detail.clone(),
        output: String::new(),
        errors: String::new(),
        exit_status: None,
        files: Default::default(),
    }
}

/// Jobs, and the samples that each decides: one a job, or with `once` all of one program.
fn shared(left: Vec<(usize, Job)>, once: bool) -> (Vec<Vec<usize>>, Vec<Job>) {
    let mut places: Vec<Vec<usize>> = Vec::new();
    let mut jobs: Vec<Job> = Vec::new();
    let mut seen: HashMap<(String, String), usize> = HashMap::new();
    for (i, job) in left {
        if once {
            let next = jobs.len();
            let at = *seen.entry((job.code.clone(), job.test.clone())).or_insert(next);
            if at < next {
                places[at].push(i);
                continue;
            }
        }
        places.push(vec![i]);
        jobs.push(job);
    }
    (places, jobs)
}

/// What the figures do not cover, for people.
fn left_out(problems: &[Problem], report: &EvalReport, k: &[u64]) -> Vec<String> {
    let mut notes = Vec::new();
    let missing = problems.len().saturating_sub(report.problems);
    if missing > 0 {
        notes.push(format!(
            "{missing} of {} problems have no sample that could be run and are not counted",
            problems.len()
        ));
    }
    let given: Vec<_> = k
        .iter()
        .filter(|k| !report.pass_at.iter().any(|(done, _)| done == *k))
        .map(|k| format!("pass@{k}"))
        .collect();
    if !given.is_empty() {
        notes.push(format!("no {}: a problem has fewer samples than that", given.join(", ")));
    }
    notes
}

/// All that bears on verdicts beside the jobs: a journal's rows are of use only where this is the same.
///
/// The tier is the one that runs, not the one that was asked for, because another host's best may be another; the version of
/// evald stands for its default limits. What a running evald serves behind its socket is known by its name alone.
fn runner(options: &EvalOptions, evald: &Info) -> String {
    let environment = match &options.socket {
        Some(socket) => json!({"socket": absolute(socket), "env": evald.envs.first()}),
        None => {
            json!({"python": located(&options.environment.python), "preload": options.environment.preload})
        }
    };
    json!({
        "protocol": PROTOCOL_VERSION,
        "evald": evald.version,
        "tier": evald.tier,
        "environment": environment,
        "twin": options.naming.twin().map(Twin::identity),
        "paths": folders(&options.paths),
    })
    .to_string()
}

fn absolute(path: &Path) -> String {
    // Links are not followed: a virtual environment's interpreter is a link, and what it links to is not the environment.
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf()).to_string_lossy().into_owned()
}

/// The path of an interpreter that may be given as a name on the PATH.
pub(crate) fn located(python: &Path) -> String {
    let on_path = || {
        let folders = std::env::var_os("PATH")?;
        std::env::split_paths(&folders).map(|folder| folder.join(python)).find(|path| path.is_file())
    };
    let is_name = python.components().count() == 1 && !python.as_os_str().as_encoded_bytes().contains(&b'/');
    absolute(&is_name.then(on_path).flatten().unwrap_or_else(|| python.to_path_buf()))
}

/// An environment of an interpreter and what it imports beforehand.
pub(crate) fn environment(python: &Path, preload: Vec<String>) -> NamedEnv {
    NamedEnv { name: "default".into(), spec: EnvSpec { python: located(python).into(), preload } }
}

/// Folders as the sandbox can be told of them.
pub(crate) fn folders(paths: &[PathBuf]) -> Vec<PathBuf> {
    paths.iter().filter_map(|path| std::path::absolute(path).ok()).collect()
}

/// A folder with the twin, which samples may read.
fn write_twin(twin: &Twin) -> Result<TempDir> {
    let readable = std::fs::Permissions::from_mode(0o755);
    let folder = tempfile::Builder::new().prefix("inhouse-twin-").permissions(readable).tempdir().map_err(
        |cause| Error::with_source(ErrorKind::Io, format!("cannot make a temporary folder: {cause}"), cause),
    )?;
    twin.write(folder.path())?;
    Ok(folder)
}

fn connect(options: &EvalOptions, twin_folder: Option<&Path>, cancel: &CancelToken) -> Result<Client> {
    let client = match &options.socket {
        Some(_) if twin_folder.is_some() => {
            let message = "a private library needs an evald of its own; leave the socket out";
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        Some(socket) => {
            Client::connect(socket, &|| cancel.is_cancelled()).map_err(|error| failure(error, cancel))?
        }
        None => {
            let mut spec = options.environment.clone();
            spec.preload.extend(options.naming.twin().into_iter().flat_map(Twin::preload));
            let spawn = SpawnOptions {
                tier: options.tier.clone(),
                envs: vec![NamedEnv { name: "default".into(), spec }],
                paths: folders(&options.paths)
                    .into_iter()
                    .chain(twin_folder.map(Path::to_path_buf))
                    .collect(),
                allow_processes: options.allow_processes,
                ..SpawnOptions::default()
            };
            start(&spawn, options.evald.as_deref(), cancel)?
        }
    };
    let runs = &client.info().tier;
    match (options.tier.as_deref(), &options.socket) {
        (Some(asked), Some(socket)) if asked != "auto" && !asked.eq_ignore_ascii_case(runs) => {
            let message = format!(
                "the evald at {} runs tier {runs}, not {asked}; start it with --tier {asked}, or ask for no tier",
                socket.display()
            );
            Err(Error::new(ErrorKind::Sandbox, message))
        }
        _ => Ok(client),
    }
}

/// Starts a private evald: `evald`, or the one that is found.
///
/// # Errors
/// There is none to start, it does not answer, or a cancel.
pub(crate) fn start(options: &SpawnOptions, evald: Option<&Path>, cancel: &CancelToken) -> Result<Client> {
    let (evald, origin) = evald.map_or_else(evald_executable, |evald| (evald.to_path_buf(), "as asked for"));
    Client::spawn(&evald, options, &|| cancel.is_cancelled()).map_err(|error| match error {
        ClientError::Connect { .. } => {
            Error::with_source(ErrorKind::Sandbox, format!("{error} ({origin})"), error)
        }
        error => failure(error, cancel),
    })
}

/// Runs one job in a private evald of its own: what ran it, and what came of it.
///
/// # Errors
/// As [`start`]; evald breaks off, or a cancel. A job that fails is no error.
pub(crate) fn run_one(
    job: Job,
    options: &SpawnOptions,
    evald: Option<&Path>,
    cancel: &CancelToken,
) -> Result<(Info, JobResult)> {
    let mut client = start(&SpawnOptions { slots: Some(1), ..options.clone() }, evald, cancel)?;
    let mut found = None;
    let ran = client.run_all([job], &|| cancel.is_cancelled(), |_, result| {
        found = Some(result);
        ControlFlow::Continue(())
    });
    ran.map_err(|error| failure(error, cancel))?;
    let result = found.ok_or_else(|| Error::new(ErrorKind::Sandbox, "evald ended without an answer"))?;
    Ok((client.info().clone(), result))
}

/// `$INHOUSE_EVALD`, else the evald beside this program, else the one on the PATH; and where it was found, for people.
fn evald_executable() -> (PathBuf, &'static str) {
    if let Some(path) = std::env::var_os("INHOUSE_EVALD") {
        return (path.into(), "named by INHOUSE_EVALD; unset it to use the one beside inhouse");
    }
    let beside = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.join("evald")));
    match beside.filter(|path| path.is_file()) {
        Some(path) => (path, "beside inhouse"),
        None => (
            "evald".into(),
            "there is none beside inhouse, so it was looked for on the PATH; INHOUSE_EVALD can name one",
        ),
    }
}

/// What a client reports, or the cancel that made it.
pub(crate) fn failure(error: ClientError, cancel: &CancelToken) -> Error {
    let cancelled = matches!(error, ClientError::Stopped).then(|| cancel.check().err()).flatten();
    cancelled.unwrap_or_else(|| Error::with_source(ErrorKind::Sandbox, error.to_string(), error))
}

/// The figures that follow from the results; those of the run itself are left at zero.
fn report(samples: &[Sample], results: &[JobResult], k: &[u64]) -> EvalReport {
    let mut counts: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    let mut verdicts: BTreeMap<String, usize> = BTreeMap::new();
    let mut trust: BTreeMap<String, usize> = BTreeMap::new();
    for (sample, result) in samples.iter().zip(results) {
        *trust.entry(result.trust.as_str().to_owned()).or_default() += 1;
        *verdicts.entry(result.verdict.as_str().to_owned()).or_default() += 1;
        // A row that cannot be read says nothing about any sample.
        if sample.unusable.is_some() && result.verdict == Verdict::InfraError {
            continue;
        }
        let (n, c) = counts.entry(&sample.task_id).or_default();
        // Nor does a sandbox that failed.
        if result.verdict != Verdict::InfraError {
            *n += 1;
            *c += u64::from(result.passed);
        }
    }
    EvalReport {
        pass_at: k.iter().filter_map(|k| Some((*k, mean_pass_at_k(counts.values().copied(), *k)?))).collect(),
        problems: counts.len(),
        samples: results.len(),
        verdicts,
        trust,
        resumed: 0,
        samples_per_second: 0.0,
        tier: results.first().map(|result| result.tier.clone()).unwrap_or_default(),
    }
}

fn row(sample: &Sample, result: &JobResult) -> Map<String, Value> {
    let mut row = Map::new();
    row.insert("task_id".into(), json!(sample.task_id));
    row.insert("completion".into(), json!(sample.completion));
    row.extend(sample.extra.clone());
    row.insert("verdict".into(), json!(result.verdict));
    row.insert("passed".into(), json!(result.passed));
    row.insert("trust".into(), json!(result.trust));
    if !result.trust_reason.is_empty() {
        row.insert("trust_reason".into(), json!(result.trust_reason));
    }
    row.insert("tier".into(), json!(result.tier));
    row.insert("cpu_ms".into(), json!(result.cpu_ms));
    row.insert("wall_ms".into(), json!(result.wall_ms));
    row.insert("detail".into(), json!(result.detail));
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_jobs_share_one_where_asked() {
        let job = |code: &str| Job { code: code.into(), test: "t".into(), ..Job::default() };
        let left = || vec![(0, job("a")), (2, job("b")), (3, job("a")), (5, job("a"))];
        let codes = |jobs: Vec<Job>| jobs.into_iter().map(|job| job.code).collect::<String>();
        let (places, jobs) = shared(left(), true);
        assert_eq!((places, codes(jobs).as_str()), (vec![vec![0, 3, 5], vec![2]], "ab"));
        let (places, jobs) = shared(left(), false);
        assert_eq!((places, codes(jobs).as_str()), (vec![vec![0], vec![2], vec![3], vec![5]], "abaa"));
    }
}
