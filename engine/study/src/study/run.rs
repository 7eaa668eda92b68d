//! A worker of a study: takes the units of its shard that are not done and nobody is at, samples them, runs them, counts them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use inhouse::{
    CancelToken, Chat, Engine, EngineOptions, Error, ErrorKind, LoraChoice, Progress, Result, SamplingParams,
    StopRules, WorkerProgram,
};
use inhouse_core::{Fingerprint, files};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::config::{Config, EqualSamples, ModelConfig};
use super::environment;
use super::recalled;
use super::sets::Set;
use super::store::{Claim, Record, Store, write_json};
use super::tally::Counter;
use super::units::{Shard, Unit, cells, problems_per_unit, units};
use crate::evaluate::{EvalOptions, Evaluator, Limits, TrustWish};
use crate::generate::{self, GenerateOptions};
use crate::samples::{self, Sample};

/// A half of the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Sampling alone: no evald is needed.
    Generate,
    /// Running alone what others have sampled: no model is needed.
    Evaluate,
}

/// How a worker works.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// The store's folder.
    pub store: PathBuf,
    /// The part of the work that is this worker's.
    pub shard: Shard,
    /// `None`: both phases, unit by unit.
    pub only: Option<Phase>,
    /// With [`Phase::Evaluate`]: waits for samples of others until the whole shard is done.
    pub follow: bool,
    /// Executable of evald, as [`EvalOptions::evald`].
    pub evald: Option<PathBuf>,
    /// Tier to insist on.
    pub tier: Option<String>,
}

/// What a worker did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct RunReport {
    /// Units of the shard.
    pub units: usize,
    /// Of these, done now, by whichever run.
    pub done: usize,
    /// Of these, done in this run.
    pub done_now: usize,
    /// Left alone because another worker is at them.
    pub busy: usize,
}

/// How long a worker that follows waits before it looks again.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Works on a study until the shard is done, or nothing of it is left that this worker may do.
///
/// # Errors
/// A configuration that does not fit its files or the store; a cancel; whatever sampling and evaluation report. All that is
/// done stays, and the same call goes on from there.
pub fn run(
    config: &Config,
    options: &RunOptions,
    cancel: &CancelToken,
    progress: &dyn Progress,
) -> Result<RunReport> {
    let sets = config.problems.iter().map(Set::read).collect::<Result<Vec<_>>>()?;
    let generates = options.only != Some(Phase::Evaluate);
    for set in &sets {
        for setting in config.settings_of(&set.config) {
            set.asked(&setting)?;
        }
    }
    let store = begin(config, &sets, options)?;
    let mut worker = Worker { config, options, store, sets, cancel, progress, report: RunReport::default() };
    let mut log = RunLog::begin(&worker)?;
    let done = worker.measure_recall().and_then(|()| {
        if options.only != Some(Phase::Generate) {
            worker.run_canonical(&mut log)?;
        }
        progress.start("study", Some(worker.total_samples()));
        let model = |name: &str| config.models.iter().find(|model| model.name == name);
        let all: Vec<Unit> = worker.my_units();
        worker.report.units = all.len();
        for of_model in all.chunk_by(|a, b| a.cell.model == b.cell.model) {
            let Some(model) = of_model.first().and_then(|unit| model(&unit.cell.model)) else { continue };
            let mut loaded = None;
            for of_set in of_model.chunk_by(|a, b| a.cell.set == b.cell.set) {
                worker.work(model, of_set, generates, &mut loaded, &mut log)?;
            }
        }
        Ok(())
    });
    progress.finish();
    log.end(&worker, done.as_ref().err())?;
    done.map(|()| worker.report)
}

fn begin(config: &Config, sets: &[Set], options: &RunOptions) -> Result<Store> {
    // Who runs samples alone need not have the models.
    let models = config.models.iter().filter(|_| options.only != Some(Phase::Evaluate));
    let models = models.map(|model| Ok((model.name.clone(), fingerprint(model)?)));
    let record = Record::new(
        config,
        problems_per_unit(config),
        sets.iter().map(|set| (set.config.name.clone(), set.record.clone())).collect(),
        models.collect::<Result<_>>()?,
    );
    Store::begin(&options.store, record)
}

/// A digest of a model's files, or of the command that asks it; of how it is asked, too.
fn fingerprint(model: &ModelConfig) -> Result<String> {
    let mut print = Fingerprint::default();
    print.add(model.chat.as_bytes());
    if let Some(command) = &model.command {
        print.add(command.to_string().as_bytes());
    }
    if let Some(path) = &model.path {
        let mut paths: Vec<PathBuf> = match std::fs::read_dir(path) {
            Ok(entries) => {
                entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect()
            }
            Err(_) => vec![path.clone()],
        };
        paths.sort();
        for path in paths {
            print.add(path.file_name().unwrap_or_default().as_encoded_bytes());
            print.add_file(&path)?;
        }
    }
    adapters(model)?.iter().try_for_each(|adapter| adapter.add_to(&mut print))?;
    Ok(print.finish())
}

fn adapters(model: &ModelConfig) -> Result<Vec<LoraChoice>> {
    let read = |text: &String| {
        let wrong =
            |what| Error::new(ErrorKind::InvalidArgument, format!("model {}: lora: {what}", model.name));
        text.parse::<LoraChoice>().map_err(wrong)
    };
    model.lora.iter().map(read).collect()
}

/// How long work of one unit at a time is reported: as one.
struct Within<'p>(&'p dyn Progress);

impl Progress for Within<'_> {
    fn start(&self, _what: &str, _total: Option<u64>) {}
    fn advance(&self, steps: u64) {
        self.0.advance(steps);
    }
    fn note(&self, message: &str) {
        self.0.note(message);
    }
    fn finish(&self) {}
    fn check(&self) -> Result<()> {
        self.0.check()
    }
}

struct Worker<'r> {
    config: &'r Config,
    options: &'r RunOptions,
    store: Store,
    sets: Vec<Set>,
    cancel: &'r CancelToken,
    progress: &'r dyn Progress,
    report: RunReport,
}

/// What became of a unit.
#[derive(PartialEq)]
enum Outcome {
    Done,
    Busy,
    /// Nothing that this worker may do.
    Waiting,
}

impl Worker<'_> {
    fn my_units(&self) -> Vec<Unit> {
        let per_unit = self.store.record.problems_per_unit;
        let n_problems = |set: &str| self.store.record.sets.get(set).map_or(0, |set| set.problems);
        let all = cells(self.config).into_iter().flat_map(|cell| {
            let n = n_problems(&cell.set);
            units(&cell, n, per_unit)
        });
        all.enumerate().filter(|(i, _)| self.options.shard.has(*i)).map(|(_, unit)| unit).collect()
    }

    /// Samples count once when they are drawn and once when they are run.
    fn total_samples(&self) -> u64 {
        let phases = if self.options.only.is_some() { 1 } else { 2 };
        let problems: usize = self.my_units().iter().map(|unit| unit.problems.len()).sum();
        (problems * self.config.drawn() * phases) as u64
    }

    fn set(&self, name: &str) -> Result<&Set> {
        let set = self.sets.iter().find(|set| set.config.name == name);
        set.ok_or_else(|| Error::new(ErrorKind::Internal, format!("no problem set `{name}`")))
    }

    fn measure_recall(&self) -> Result<()> {
        for set in &self.sets {
            let path = self.store.recall(&set.config.name);
            if !path.exists() {
                self.progress.note(&format!("{}: measuring recall", set.config.name));
                write_json(&path, &recalled::measure(set, &self.config.encoder())?)?;
            }
        }
        Ok(())
    }

    fn evaluator(&self, set: &Set) -> Result<Evaluator> {
        Ok(Evaluator::new(EvalOptions {
            k: vec![1],
            naming: set.naming(self.config.protocol)?,
            environment: set.environment()?,
            timeout_seconds: self.config.timeout,
            limits: Limits::default(),
            allow_processes: false,
            paths: Vec::new(),
            trust: TrustWish::Auto,
            equal_once: self.config.equal_samples == EqualSamples::Once,
            socket: None,
            evald: self.options.evald.clone(),
            tier: self.options.tier.clone(),
            out: None,
        }))
    }

    /// Which problems of each set one of their own solutions solves here.
    fn run_canonical(&self, log: &mut RunLog) -> Result<()> {
        for set in &self.sets {
            if !self.config.models.is_empty() {
                log.environment(self, set)?;
            }
            let path = self.store.canonical(&set.config.name);
            if path.exists() || self.config.models.is_empty() {
                continue;
            }
            self.progress.note(&format!("{}: running the problems' own solutions", set.config.name));
            let samples: Vec<Sample> = set
                .problems
                .iter()
                .flat_map(|problem| {
                    problem.canonical_solutions.iter().map(|completion| Sample {
                        task_id: problem.task_id.clone(),
                        completion: completion.clone(),
                        ..Sample::default()
                    })
                })
                .collect();
            let mut solved: BTreeMap<String, bool> =
                set.problems.iter().map(|problem| (problem.task_id.clone(), false)).collect();
            if !samples.is_empty() {
                let mut evaluator = self.evaluator(set)?;
                let ran = evaluator.run(
                    &set.problems,
                    &samples,
                    None,
                    self.cancel,
                    &Within(&inhouse_core::progress::Silent),
                )?;
                for row in &ran.rows {
                    let passed = row.get("passed").and_then(Value::as_bool) == Some(true);
                    let id = row.get("task_id").and_then(Value::as_str).unwrap_or_default();
                    if let Some(solved) = solved.get_mut(id) {
                        *solved |= passed;
                    }
                }
            }
            write_json(&path, &solved)?;
        }
        Ok(())
    }

    /// Works on units of one model and one set. `base` is the model once it is loaded, for the next set.
    fn work(
        &mut self,
        model: &ModelConfig,
        units: &[Unit],
        generates: bool,
        base: &mut Option<Engine>,
        log: &mut RunLog,
    ) -> Result<()> {
        let Some(first) = units.first() else { return Ok(()) };
        let set_name = first.cell.set.clone();
        let (index, mut evaluator) = {
            let set = self.set(&set_name)?;
            (set.config.index.clone(), self.evaluator(set)?)
        };
        let mut engine: Option<Engine> = None;
        let mut left: Vec<&Unit> = units.iter().collect();
        loop {
            let mut again = Vec::new();
            for unit in left {
                self.cancel.check()?;
                self.progress.check()?;
                if unit.file(&self.store.folder, "tally.json").exists() {
                    let phases = if self.options.only.is_some() { 1 } else { 2 };
                    self.progress.advance((unit.problems.len() * self.config.drawn() * phases) as u64);
                    self.report.done += 1;
                    continue;
                }
                if engine.is_none() {
                    engine = Some(self.engine(model, index.as_deref(), generates, base)?);
                    if let Some(info) = engine.as_ref().and_then(Engine::model_info) {
                        log.model(&model.name, json!(info))?;
                    }
                }
                let Some(engine) = &engine else { continue };
                match self.do_unit(model, unit, engine, &mut evaluator)? {
                    Outcome::Done => {
                        self.report.done += 1;
                        self.report.done_now += 1;
                    }
                    Outcome::Busy if !self.options.follow => self.report.busy += 1,
                    Outcome::Waiting if !self.options.follow => {}
                    Outcome::Busy | Outcome::Waiting => again.push(unit),
                }
            }
            if again.is_empty() {
                return Ok(());
            }
            std::thread::sleep(LOOK_AGAIN);
            left = again;
        }
    }

    fn engine(
        &self,
        model: &ModelConfig,
        index: Option<&Path>,
        loads: bool,
        base: &mut Option<Engine>,
    ) -> Result<Engine> {
        let loaded = match base {
            Some(engine) => engine.clone(),
            None => base
                .insert(Engine::open(&EngineOptions {
                    model: model.path.clone().filter(|_| loads),
                    encoder: self.config.encoder(),
                    gpu_layers: model.gpu_layers,
                    adapters: if loads { adapters(model)? } else { Vec::new() },
                    threads: model.threads,
                    worker: model.worker.then(WorkerProgram::default),
                    ..EngineOptions::default()
                })?)
                .clone(),
        };
        match index {
            Some(folder) => loaded.with_index(folder),
            None => Ok(loaded),
        }
    }

    fn do_unit(
        &self,
        model: &ModelConfig,
        unit: &Unit,
        engine: &Engine,
        evaluator: &mut Evaluator,
    ) -> Result<Outcome> {
        let file = |kind: &str| unit.file(&self.store.folder, kind);
        let (samples, results, tally) = (file("samples.jsonl"), file("results.jsonl"), file("tally.json"));
        let Some(_claim) = Claim::take(file("claim"))? else { return Ok(Outcome::Busy) };
        if tally.exists() {
            return Ok(Outcome::Done);
        }
        let set = self.set(&unit.cell.set)?;
        let (problems, setting) = set.asked(&unit.cell.setting)?;
        let problems = &problems[unit.problems.clone()];
        let progress = Within(self.progress);
        let drawn = (problems.len() * self.config.drawn()) as u64;
        if !samples.exists() && !results.exists() {
            if self.options.only == Some(Phase::Evaluate) {
                return Ok(Outcome::Waiting);
            }
            // What an earlier run had drawn of the unit is drawn again: a unit is the same bytes however it came about.
            std::fs::remove_file(file("samples.jsonl.partial")).ok();
            let options = self.generate_options(model, unit, setting)?;
            match &model.command {
                Some(program) => {
                    generate::run_program(
                        program,
                        engine,
                        problems,
                        &options,
                        &samples,
                        self.cancel,
                        &progress,
                    )?;
                }
                None => {
                    generate::run(engine, problems, &options, &samples, self.cancel, &progress)?;
                }
            }
        } else if self.options.only != Some(Phase::Evaluate) {
            self.progress.advance(drawn);
        }
        if self.options.only == Some(Phase::Generate) {
            return Ok(Outcome::Done);
        }
        let rows: Vec<Map<String, Value>> = if results.exists() {
            self.progress.advance(drawn);
            files::json_lines(&results)?.map(|row| row.map(|(_, row)| row)).collect::<Result<_>>()?
        } else {
            let drawn = samples::read(&samples, problems)?;
            evaluator.run(problems, &drawn, Some(&results), self.cancel, &progress)?.rows
        };
        // The results hold every sample.
        std::fs::remove_file(&samples).ok();
        let counts = Counter::new(engine).count(problems, setting.apis, &rows)?;
        write_json(&tally, &counts)?;
        Ok(Outcome::Done)
    }

    fn generate_options(
        &self,
        model: &ModelConfig,
        unit: &Unit,
        setting: generate::PromptSetting,
    ) -> Result<GenerateOptions> {
        let config = self.config;
        Ok(GenerateOptions {
            setting: setting.apis,
            examples: setting.examples,
            best_of: setting.best_of,
            refine: setting.refine,
            n: config.drawn(),
            params: SamplingParams {
                temperature: unit.cell.temperature,
                top_p: config.top_p,
                ..SamplingParams::default()
            },
            stops: StopRules::new(config.stop.iter().cloned()),
            max_tokens: config.max_tokens,
            seed: config.seed,
            parallel: config.parallel,
            constrain: config.constrain,
            chat: match model.chat.as_str() {
                "none" => Chat::None,
                "auto" => Chat::Auto,
                file => Chat::Template(files::read_text(Path::new(file))?),
            },
        })
    }
}

/// The record of one worker.
struct RunLog {
    path: PathBuf,
    value: Value,
}

impl RunLog {
    fn begin(worker: &Worker<'_>) -> Result<Self> {
        let path = worker.store.folder.join("runs").join(format!("{}-{}.json", now(), std::process::id()));
        let value = json!({
            "started": now(),
            "shard": worker.options.shard.to_string(),
            "only": worker.options.only,
            "machine": environment::of_machine(),
            "config": worker.config,
            "environments": {},
            "models": {},
        });
        write_json(&path, &value)?;
        Ok(Self { path, value })
    }

    fn environment(&mut self, worker: &Worker<'_>, set: &Set) -> Result<()> {
        let key = &set.config.env;
        if self.value["environments"].get(key).is_none() {
            let found = environment::of_interpreter(&set.environment()?, worker.options, worker.cancel)?;
            self.value["environments"][key] = found;
        }
        // At once: a run that is killed has used it all the same.
        write_json(&self.path, &self.value)
    }

    fn model(&mut self, name: &str, info: Value) -> Result<()> {
        self.value["models"][name] = info;
        write_json(&self.path, &self.value)
    }

    fn end(&mut self, worker: &Worker<'_>, error: Option<&Error>) -> Result<()> {
        self.value["ended"] = json!(now());
        self.value["units"] = json!(worker.report);
        self.value["error"] = json!(error.map(ToString::to_string));
        write_json(&self.path, &self.value)
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
