//! The run: steps, checkpoints, evaluation, and the trained model's folder.

use std::path::{Path, PathBuf};
use std::time::Instant;

use inhouse_candle::{
    DType, Device, Example, Gradients, Lesson, LoadOptions, Loss, LowRankOptions, Trainable,
};
use inhouse_core::decode::{CancelToken, TokenId};
use inhouse_core::{Error, ErrorKind, Progress, Result};
use serde::{Deserialize, Serialize};

use super::config::{Config, LoraConfig, Precision};
use super::corpus::{Corpus, documents};
use super::curve::{Curve, Point};
use super::evaluation::{HeldOut, Measured};
use super::scale::LossScale;
use super::{adapter, start};
use crate::journal::{Log, memory_mib};
use crate::optimizer::{AdamW, Optimizer, Schedule};
use crate::snapshot;

/// What a step did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepReport {
    /// Its number; the first is 1.
    pub step: u64,
    /// Steps of the run.
    pub steps: u64,
    /// Tokens read by the run until then.
    pub tokens: u64,
    /// Weighted mean of the step's cross-entropy in nats.
    pub loss: f64,
    /// Share of the weight whose token was the likeliest.
    pub accuracy: f64,
    /// The learning rate.
    pub rate: f64,
    /// The gradient's norm before clipping.
    pub norm: f64,
    /// Of this step.
    pub tokens_per_second: f64,
    /// Memory of the process in MiB, where the system tells.
    pub memory_mib: Option<u64>,
    /// Seconds of training by all processes of this run.
    pub seconds: f64,
    /// What the loss was multiplied by (half precision).
    pub loss_scale: f64,
}

/// What a run tells while it goes on.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Report {
    /// What is trained.
    Model {
        /// Trained weights.
        parameters: u64,
        /// Rows of the embedding.
        vocab_size: usize,
        /// Steps of the run.
        steps: u64,
    },
    /// A step.
    Step(StepReport),
    /// An evaluation.
    Measured(Measured),
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outcome {
    /// Steps done.
    pub steps: u64,
    /// Tokens read.
    pub tokens: u64,
    /// Whether the schedule is at its end.
    pub finished: bool,
    /// Seconds spent in steps, by all processes of this run.
    pub training_seconds: f64,
    /// The loss, a mean over the last hundred steps.
    pub loss: f64,
    /// The trained model, a Hugging Face folder; of an adapter a PEFT folder.
    pub model: PathBuf,
}

/// Trains as `config` says. With `resume` it goes on from the newest checkpoint in `out`, if there is one; without, a checkpoint
/// there is an error. A cancel ends the run after the step, with a checkpoint.
///
/// # Errors
/// The corpus or the start cannot be read, a checkpoint is of another run, a file cannot be written, or the backend fails.
pub fn run(
    config: &Config,
    resume: bool,
    cancel: &CancelToken,
    progress: &dyn Progress,
    report: &mut dyn FnMut(&Report),
) -> Result<Outcome> {
    let out = &config.training.out;
    let snapshots = snapshot::folder_of_run(out, resume)?;
    let mut trainer = Trainer::new(config)?;
    if resume && trainer.restore(&snapshots)? {
        progress.note(&format!("going on after step {}", trainer.optimizer.step()));
    }
    let held_out = HeldOut::read(&trainer.corpus, &config.evaluation)?;
    let mut curve = Curve::read(&out.join("curve.csv"), trainer.optimizer.step());
    let mut log = Log::open(&out.join("log.jsonl"))?;
    let mut tell = |what: Report| -> Result<()> {
        log.write(&what)?;
        report(&what);
        Ok(())
    };
    let steps = trainer.corpus.steps();
    let parameters =
        trainer.trainable.variables().values().map(|variable| variable.elem_count() as u64).sum();
    tell(Report::Model { parameters, vocab_size: trainer.trainable.vocab_size(), steps })?;
    let model = out.join(if config.model.lora.is_some() { "adapter" } else { "model" });
    progress.start("training", Some(steps));
    progress.advance(trainer.optimizer.step());
    let begun = Instant::now();
    let mut saved = begun;
    let mut recent = std::collections::VecDeque::new();
    let mut stopped = false;
    while !trainer.finished() && !stopped {
        let done = trainer.step()?;
        recent.push_back(done.loss);
        if recent.len() > 100 {
            recent.pop_front();
        }
        let step = done.step;
        let StepReport { tokens, loss, rate, norm, .. } = done;
        curve.set(step, Point { tokens, loss, rate, norm, perplexity: None });
        tell(Report::Step(done))?;
        progress.advance(1);
        let over = |minutes: f64| begun.elapsed().as_secs_f64() > minutes * 60.0;
        stopped = cancel.is_cancelled() || config.training.max_minutes.is_some_and(over);
        let last = trainer.finished() || stopped;
        let every = config.evaluation.every;
        let due = last || every > 0 && step.is_multiple_of(every);
        let every_minutes = 60.0 * config.training.checkpoint_minutes;
        let long = every_minutes > 0.0 && saved.elapsed().as_secs_f64() > every_minutes;
        let keep = last || long || step.is_multiple_of(config.training.checkpoint_every);
        // A model may be large; an adapter is written whenever it is kept.
        if due || keep && config.model.lora.is_some() {
            trainer.save(&model)?;
        }
        if due {
            if !cancel.is_cancelled() {
                let trainable = &trainer.trainable;
                let measured = rayon::scope(|_| held_out.measure(step, trainable, &trainer.start, cancel))?;
                if let (Some(with), Some(without)) = (measured.perplexity, measured.perplexity_no_api) {
                    curve.measured(step, [with, without]);
                }
                tell(Report::Measured(measured))?;
            }
        }
        if keep {
            trainer.snapshot(&snapshots)?;
            curve.write(out)?;
            saved = Instant::now();
        }
    }
    progress.finish();
    Ok(Outcome {
        steps: trainer.optimizer.step(),
        tokens: trainer.rest.tokens,
        finished: trainer.finished(),
        training_seconds: trainer.rest.seconds,
        loss: recent.iter().sum::<f64>() / recent.len().max(1) as f64,
        model,
    })
}

/// What a snapshot holds beside the optimizer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Rest {
    pub tokens: u64,
    pub seconds: f64,
    pub scale: LossScale,
}

/// The state of a run.
pub(super) struct Trainer {
    config: Config,
    pub corpus: Corpus,
    pub trainable: Trainable,
    pub optimizer: Optimizer,
    schedule: Schedule,
    gradients: Gradients,
    pub rest: Rest,
    /// Whose tokenizer and configuration the trained model gets.
    start: PathBuf,
    /// The token that parts the documents of a row, where they do not see each other.
    pub end: Option<TokenId>,
    /// What tells this run from others.
    run: String,
}

impl Trainer {
    pub fn new(config: &Config) -> Result<Self> {
        let training = &config.training;
        let corpus = Corpus::open(&training.corpus, &training.phase, training.batch_tokens)?;
        let start = match (&config.model.start, &config.model.new) {
            (Some(start), _) => start.clone(),
            (None, Some(new)) => {
                let start = training.out.join("start");
                start::create(new, &corpus, &start)?;
                start
            }
            (None, None) => return Err(Error::new(ErrorKind::InvalidArgument, "no model to train")),
        };
        let dtype = match config.model.precision {
            Precision::F32 => DType::F32,
            Precision::F16 => DType::F16,
            Precision::BF16 => DType::BF16,
        };
        let device = config.model.cuda_device.map_or(Device::Cpu, Device::Cuda);
        let options = LoadOptions { dtype, device };
        let mut trainable = match &config.model.lora {
            Some(lora) => Trainable::load_updates(&start, &options, &updates(lora))?,
            None if start.is_file() => {
                let what = format!(
                    "{}: a GGUF file is trained as an adapter alone: add [model.lora], or give the Hugging Face folder",
                    start.display()
                );
                return Err(Error::new(ErrorKind::InvalidArgument, what));
            }
            None => Trainable::load(&start, &options)?,
        };
        trainable.recompute(config.model.recompute);
        if corpus.manifest.vocab_size > trainable.vocab_size() {
            let what = format!(
                "{}: {} tokens, but the corpus was made with a tokenizer of {}",
                start.display(),
                trainable.vocab_size(),
                corpus.manifest.vocab_size
            );
            return Err(Error::new(ErrorKind::InvalidData, what));
        }
        let [beta1, beta2] = training.betas;
        let constants = AdamW { weight_decay: training.weight_decay, beta1, beta2, ..AdamW::default() };
        // Master weights come from the file, not from the rounded copies that a network in half precision computes with.
        let named = trainable.variables().iter().map(|(name, variable)| (name.clone(), variable.clone()));
        let mut optimizer = Optimizer::new(named, constants)?;
        if dtype != DType::F32 && config.model.lora.is_none() {
            optimizer.master_weights(&start)?;
        }
        let schedule = Schedule {
            peak: training.learning_rate,
            warmup_steps: training.warmup_steps,
            total_steps: corpus.steps(),
            floor: training.final_rate,
        };
        let gradients = trainable.zero_gradients();
        let apart = training.documents_apart.unwrap_or(config.model.lora.is_some());
        let end = if apart { Some(corpus.end_token()?) } else { None };
        let run = format!("{} {}", corpus.manifest.digest, config.fixed());
        let scale = LossScale::new(config.model.precision == Precision::F16);
        let rest = Rest { tokens: 0, seconds: 0.0, scale };
        Ok(Self {
            config: config.clone(),
            corpus,
            trainable,
            optimizer,
            schedule,
            gradients,
            rest,
            start,
            end,
            run,
        })
    }

    /// Goes on from the newest snapshot; false: there is none.
    pub fn restore(&mut self, snapshots: &Path) -> Result<bool> {
        match snapshot::restore(snapshots, &mut self.optimizer, &self.run)? {
            Some(rest) => {
                self.rest = rest;
                Ok(true)
            }
            None => Ok(false),
        }
    }

    pub fn snapshot(&self, snapshots: &Path) -> Result<()> {
        snapshot::write(snapshots, &self.optimizer, &self.run, &self.rest)
    }

    /// Writes the model as it is as a Hugging Face folder, in f32; of an adapter a PEFT folder.
    pub fn save(&self, dir: &Path) -> Result<()> {
        if let Some(lora) = &self.config.model.lora {
            return adapter::save(dir, &self.optimizer, lora, &self.start);
        }
        start::copy_tokenizer(&self.start, dir)?;
        let weights =
            self.optimizer.slots().map(|(name, slot)| (name, (slot.shape.clone(), slot.weights.clone())));
        self.trainable.save(dir, &weights.collect())
    }

    /// How much of the schedule is done, by steps or by time.
    fn share(&self) -> f64 {
        let steps = self.optimizer.step() as f64 / self.corpus.steps().max(1) as f64;
        let minutes = self.config.training.finish_minutes;
        minutes.map_or(steps, |minutes| steps.max(self.rest.seconds / (60.0 * minutes.max(1e-9))))
    }

    pub fn finished(&self) -> bool {
        self.share() >= 1.0
    }

    /// One step, on a thread of the pool: from outside every operation on all threads would wait for one to wake.
    pub fn step(&mut self) -> Result<StepReport> {
        rayon::scope(|_| self.step_here())
    }

    fn step_here(&mut self) -> Result<StepReport> {
        let begun = Instant::now();
        let training = &self.config.training;
        let number = self.optimizer.step() + 1;
        let drop_seed = self.config.model.lora.as_ref().map_or(0, |lora| lora.seed << 44);
        let rows = self.corpus.batch(number)?;
        let tokens: usize = rows.iter().map(|(tokens, _)| tokens.len()).sum();
        let texts = rows.iter().flat_map(|(tokens, weights)| match self.end {
            Some(end) => documents(tokens, weights, end).collect(),
            None => vec![(tokens.as_slice(), weights.as_slice())],
        });
        let lessons: Vec<Lesson<'_>> = texts
            .map(|(tokens, weights)| Lesson { example: Example { source: &[], tokens }, weights })
            .collect();
        let learned = lessons.iter().flat_map(|lesson| &lesson.weights[1..]);
        let weight: f64 = learned.map(|&weight| f64::from(weight)).sum();
        let pass_tokens = if training.pass_tokens == 0 { usize::MAX } else { training.pass_tokens };
        let loss = loop {
            self.gradients.values_mut().for_each(|gradient| gradient.fill(0.0));
            let scale = self.rest.scale;
            let mut loss = Loss::default();
            for (i, pass) in passes(&lessons, pass_tokens).into_iter().enumerate() {
                self.trainable.draw(drop_seed ^ ((number << 20) + i as u64));
                let factor = scale.factor / weight.max(f64::MIN_POSITIVE);
                loss += self.trainable.gradient(pass, factor, &mut self.gradients)?;
            }
            let finite = !scale.dynamic
                || self.gradients.values().all(|gradient| gradient.iter().all(|value| value.is_finite()));
            // An overflow at the smallest factor is the optimizer's to refuse.
            if self.rest.scale.accept(finite) || scale.factor <= 1.0 {
                if scale.factor != 1.0 {
                    let back = (1.0 / scale.factor) as f32;
                    self.gradients.values_mut().flatten().for_each(|value| *value *= back);
                }
                break loss;
            }
        };
        // With a time to finish by, the cosine runs as fast as time does.
        let by_time = (self.share() * self.schedule.total_steps as f64) as u64;
        let at = if number <= self.schedule.warmup_steps { number } else { number.max(by_time) };
        let rate = self.schedule.rate(at);
        let norm = self.optimizer.update(&self.gradients, rate, Some(training.clip_norm))?;
        let seconds = begun.elapsed().as_secs_f64();
        self.rest.tokens += tokens as u64;
        self.rest.seconds += seconds;
        Ok(StepReport {
            step: number,
            steps: self.corpus.steps(),
            tokens: self.rest.tokens,
            loss: loss.mean(),
            accuracy: loss.right / loss.weight.max(f64::MIN_POSITIVE),
            rate,
            norm,
            tokens_per_second: tokens as f64 / seconds,
            memory_mib: memory_mib(),
            seconds: self.rest.seconds,
            loss_scale: self.rest.scale.factor,
        })
    }
}

fn updates(lora: &LoraConfig) -> LowRankOptions {
    LowRankOptions {
        rank: lora.rank,
        alpha: lora.alpha,
        dropout: lora.dropout,
        targets: lora.targets.clone(),
        seed: lora.seed,
    }
}

/// Lessons in passes of about so many tokens.
fn passes<'a, 'b>(lessons: &'a [Lesson<'b>], tokens: usize) -> Vec<&'a [Lesson<'b>]> {
    let mut passes = Vec::new();
    let (mut begin, mut count) = (0, 0);
    for (i, lesson) in lessons.iter().enumerate() {
        let length = lesson.example.tokens.len();
        if count > 0 && count + length > tokens {
            passes.push(&lessons[begin..i]);
            (begin, count) = (i, 0);
        }
        count += length;
    }
    if begin < lessons.len() {
        passes.push(&lessons[begin..]);
    }
    passes
}
