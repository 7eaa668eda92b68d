//! The run: data, steps, checkpoints, evaluation, and the trained encoder's folder.

use std::path::Path;
use std::time::Instant;

use candle_core::Var;
use inhouse_candle::{DType, Device, EncoderSettings, LoadOptions, TrainableEncoder};
use inhouse_core::decode::CancelToken;
use inhouse_core::{Error, ErrorKind, Progress, Result, files};
use serde::Serialize;

use super::batch::Batch;
use super::config::Config;
use super::distil;
use super::evaluation::{self, Pool, Recall};
use super::examples::Examples;
use super::step::{self, Tokens};
use crate::journal::{Log, memory_mib, write_json};
use crate::optimizer::{AdamW, Optimizer, Schedule};
use crate::pairs::{MakeOptions, Statistics, make};
use crate::snapshot;
use crate::sources::{SourceList, fetch};

/// What a step did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepReport {
    /// Its number; the first is 1.
    pub step: u64,
    /// Steps of the run.
    pub steps: u64,
    /// Mean cross-entropy in nats.
    pub loss: f64,
    /// Share of queries whose positive came first in the batch.
    pub accuracy: f64,
    /// The learning rate.
    pub rate: f64,
    /// The gradient's norm before clipping.
    pub norm: f64,
    /// Queries and APIs per second of the step.
    pub texts_per_second: f64,
    /// Tokens per second of the step.
    pub tokens_per_second: f64,
    /// Memory of the process in MiB, where the system tells.
    pub memory_mib: Option<u64>,
}

/// What a run tells while it goes on.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Report {
    /// What is learned from.
    Data {
        /// Numbers of the pipeline.
        statistics: Statistics,
        /// Queries removed because they repeat a benchmark; `None`: no benchmark was given.
        overlapping: Option<usize>,
    },
    /// A step.
    Step(StepReport),
    /// Recall on held-out libraries.
    HeldOut {
        /// After this many steps.
        step: u64,
        /// The recall.
        recall: Recall,
    },
    /// Recall on a pool.
    Pool {
        /// After this many steps.
        step: u64,
        /// Its name.
        name: String,
        /// The recall.
        recall: Recall,
    },
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outcome {
    /// Steps done.
    pub steps: u64,
    /// Whether all of them are.
    pub finished: bool,
    /// Seconds spent in steps by this process.
    pub training_seconds: f64,
    /// The last loss, a mean over the last hundred steps.
    pub loss: f64,
}

/// Trains as `config` says. With `resume` it goes on from the newest checkpoint in `out`, if there is one; without, a
/// checkpoint there is an error. A cancel ends the run after the step, with a checkpoint.
///
/// # Errors
/// Packages cannot be fetched, data cannot be made, the encoder cannot be loaded, a checkpoint is of another run, a file cannot
/// be written, or the backend fails.
pub fn run(
    config: &Config,
    resume: bool,
    cancel: &CancelToken,
    progress: &dyn Progress,
    report: &mut dyn FnMut(&Report),
) -> Result<Outcome> {
    let out = &config.training.out;
    let snapshots = snapshot::folder_of_run(out, resume)?;
    let (examples, pools) = data(config, progress, report)?;
    let encoder = load(config, &examples, progress)?;
    let mut trainer = Trainer::new(config, &encoder, &examples)?;
    if resume && snapshot::restore::<()>(&snapshots, &mut trainer.optimizer, &trainer.run)?.is_some() {
        progress.note(&format!("going on after step {}", trainer.optimizer.step()));
    }
    let mut log = Log::open(&out.join("log.jsonl"))?;
    let mut tell = |what: &Report| -> Result<()> {
        log.write(what)?;
        report(what);
        Ok(())
    };
    let given: Vec<Pool> = config.evaluation.pool.iter().map(Pool::read).collect::<Result<_>>()?;
    let measure = |step: u64, with_given: bool, tell: &mut dyn FnMut(&Report) -> Result<()>| -> Result<()> {
        if !pools.is_empty() {
            tell(&Report::HeldOut { step, recall: evaluation::overall(&pools, &encoder)? })?;
        }
        for pool in given.iter().filter(|_| with_given) {
            tell(&Report::Pool { step, name: pool.name.clone(), recall: pool.recall(&encoder)? })?;
        }
        Ok(())
    };
    let steps = config.training.steps;
    if trainer.optimizer.step() == 0 {
        measure(0, true, &mut tell)?;
    }
    progress.start("training", Some(steps));
    progress.advance(trainer.optimizer.step());
    let begun = Instant::now();
    let mut recent = std::collections::VecDeque::new();
    let mut stopped = false;
    while trainer.optimizer.step() < steps && !stopped {
        let done = trainer.step(config, &encoder, &examples)?;
        recent.push_back(done.loss);
        if recent.len() > 100 {
            recent.pop_front();
        }
        let step = done.step;
        tell(&Report::Step(done))?;
        progress.advance(1);
        stopped = cancel.is_cancelled()
            || config
                .training
                .max_minutes
                .is_some_and(|minutes| begun.elapsed().as_secs_f64() > minutes * 60.0);
        if step.is_multiple_of(config.training.checkpoint_every) || step == steps || stopped {
            snapshot::write(&snapshots, &trainer.optimizer, &trainer.run, &())?;
        }
        let every = config.evaluation.every;
        if every > 0 && step.is_multiple_of(every) && step < steps && !stopped {
            measure(step, false, &mut tell)?;
        }
    }
    progress.finish();
    let step = trainer.optimizer.step();
    encoder.save(&out.join("encoder"))?;
    if !cancel.is_cancelled() {
        measure(step, true, &mut tell)?;
    }
    Ok(Outcome {
        steps: step,
        finished: step >= steps,
        training_seconds: begun.elapsed().as_secs_f64(),
        loss: recent.iter().sum::<f64>() / recent.len().max(1) as f64,
    })
}

fn data(
    config: &Config,
    progress: &dyn Progress,
    report: &mut dyn FnMut(&Report),
) -> Result<(Examples, Vec<Pool>)> {
    let list = SourceList::read(&config.data.sources)?;
    let options = MakeOptions {
        wheels: config.data.cache.join("wheels"),
        work: config.data.cache.join("pairs"),
        benchmarks: config.data.benchmarks.clone(),
        max_pairs_per_api: config.data.max_pairs_per_api,
        held_out: config.data.held_out.clone(),
    };
    fetch(&list, &options.wheels, &config.data.python, progress)?;
    let made = make(&list, &options, progress)?;
    let out = &config.training.out;
    write_json(&out.join("statistics.json"), &made.statistics)?;
    if let Some(overlap) = &made.overlap {
        write_json(&out.join("overlap.json"), overlap)?;
    }
    report(&Report::Data {
        statistics: made.statistics.clone(),
        overlapping: made.overlap.as_ref().map(|overlap| overlap.removed.len()),
    });
    let pools = evaluation::held_out(&made.table, &made.held_out, &config.evaluation);
    let mine = config.training.hard_negatives > 0;
    let examples =
        Examples::new(made.table, &made.pairs, &config.data.cache.join("indexes"), mine, progress)?;
    Ok((examples, pools))
}

fn load(config: &Config, examples: &Examples, progress: &dyn Progress) -> Result<TrainableEncoder> {
    let model = &config.model;
    let device = model.cuda_device.map_or(Device::Cpu, Device::Cuda);
    let longest = model.api_tokens.max(model.query_tokens);
    let settings = EncoderSettings::new(model.pooling, model.normalize, longest, model.towers);
    let options = LoadOptions { dtype: DType::F32, device };
    let start = match model.layers {
        None => model.start.clone(),
        Some(0) => {
            let start = config.training.out.join("start");
            if !distil::is_whole(&start) {
                distil::distil(&model.start, &options, examples, &start, progress)?;
            }
            start
        }
        Some(layers) => {
            let start = config.training.out.join("start");
            truncate(&model.start, layers, &start)?;
            start
        }
    };
    TrainableEncoder::load(&start, &options, Some(settings))
}

/// A folder with the first layers of a BERT: its configuration says so, the other layers' weights are not read.
fn truncate(from: &Path, layers: usize, out: &Path) -> Result<()> {
    std::fs::create_dir_all(out).map_err(|cause| Error::io("create", out, cause))?;
    let path = from.join("config.json");
    let mut tree: serde_json::Value =
        serde_json::from_str(&files::read_text(&path)?).map_err(|cause| Error::data(&path, cause))?;
    if tree["num_hidden_layers"].as_u64().is_none_or(|all| (layers as u64) > all) {
        return Err(Error::data(&path, format!("has fewer layers than model.layers = {layers}")));
    }
    tree["num_hidden_layers"] = layers.into();
    write_json(&out.join("config.json"), &tree)?;
    for name in
        ["tokenizer.json", "vocab.txt", "tokenizer_config.json", "model.safetensors", "pytorch_model.bin"]
    {
        let (source, copy) = (from.join(name), out.join(name));
        if source.exists() && !copy.exists() {
            std::fs::copy(&source, &copy).map_err(|cause| Error::io("write", &copy, cause))?;
        }
    }
    Ok(())
}

/// The state of a run.
pub(super) struct Trainer {
    pub optimizer: Optimizer,
    trained: Vec<(String, Var)>,
    schedule: Schedule,
    /// What tells this run from others.
    pub run: String,
}

impl Trainer {
    pub fn new(config: &Config, encoder: &TrainableEncoder, examples: &Examples) -> Result<Self> {
        let training = &config.training;
        let frozen = |name: &str| config.model.freeze_embeddings && name.contains("embeddings.");
        let trained: Vec<(String, Var)> = encoder
            .variables()
            .iter()
            .filter(|(name, _)| !frozen(name))
            .map(|(name, variable)| (name.clone(), variable.clone()))
            .collect();
        let constants = AdamW { weight_decay: training.weight_decay, ..AdamW::default() };
        let optimizer = Optimizer::new(trained.iter().cloned(), constants)?;
        let schedule = Schedule {
            peak: training.learning_rate,
            warmup_steps: training.warmup_steps,
            total_steps: training.steps,
            floor: training.final_rate,
        };
        // What changes no step may change between runs: where things lie, and when to stop, save and measure.
        let mut fixed = config.clone();
        fixed.training.out = Path::new("").into();
        fixed.training.max_minutes = None;
        fixed.training.checkpoint_every = 1;
        fixed.evaluation = Default::default();
        fixed.data.cache = Path::new("").into();
        fixed.data.sources = Path::new("").into();
        fixed.data.benchmarks = None;
        fixed.data.python.clear();
        let fixed = serde_json::to_string(&fixed).map_err(|cause| {
            Error::new(ErrorKind::Internal, format!("cannot write the configuration: {cause}"))
        })?;
        let run = format!("{} {fixed}", examples.digest());
        Ok(Self { optimizer, trained, schedule, run })
    }

    pub fn step(
        &mut self,
        config: &Config,
        encoder: &TrainableEncoder,
        examples: &Examples,
    ) -> Result<StepReport> {
        let begun = Instant::now();
        let number = self.optimizer.step() + 1;
        let batch = Batch::draw(examples, &config.training, number)?;
        let tokens = Tokens::of(&batch, encoder, &config.model)?;
        let (loss, gradients) = step::gradients(encoder, &tokens, &batch, &config.training, &self.trained)?;
        let rate = self.schedule.rate(number);
        let norm = self.optimizer.update(&gradients, rate, Some(config.training.clip_norm))?;
        let seconds = begun.elapsed().as_secs_f64();
        Ok(StepReport {
            step: number,
            steps: config.training.steps,
            loss: loss.value,
            accuracy: loss.accuracy,
            rate,
            norm,
            texts_per_second: (batch.queries.len() + batch.apis.len()) as f64 / seconds,
            tokens_per_second: tokens.count() as f64 / seconds,
            memory_mib: memory_mib(),
        })
    }
}
