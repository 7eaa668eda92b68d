//! The configuration file of `inhouse train coder`.

use std::path::{Path, PathBuf};

use inhouse_core::lora::MAX_RANK;
use inhouse_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// A run, as a TOML file describes it. Relative paths are relative to the working folder. A section `data` is the corpus pipeline's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What the corpus is made of: not read here, so that one file can describe both.
    #[serde(default, skip_serializing)]
    data: Option<toml::Value>,
    /// What is trained.
    pub model: ModelConfig,
    /// How.
    pub training: TrainingConfig,
    /// What is measured meanwhile and at the end.
    #[serde(default)]
    pub evaluation: EvaluationConfig,
}

/// Element type that the network computes in. Master weights and moments are f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit float.
    #[default]
    F32,
    /// IEEE half, with dynamic loss scaling.
    F16,
    /// bfloat16.
    BF16,
}

/// What is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Hugging Face folder to go on from, in any architecture that this engine trains; its tokenizer is the corpus's. For an adapter
    /// a GGUF file (llama, qwen2) will do, whose weights are dequantised.
    pub start: Option<PathBuf>,
    /// Train a low-rank adapter of `start` instead of its weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraConfig>,
    /// Or a new CodeGen of this shape.
    pub new: Option<NewModel>,
    /// Element type to compute in.
    #[serde(default)]
    pub precision: Precision,
    /// Activation checkpointing: of each layer only its input is kept. Less memory, a third more time. For networks whose gradient
    /// is written out (CodeGen and the llama family on the processor in f32).
    #[serde(default)]
    pub recompute: bool,
    /// CUDA device; without one the processor computes.
    pub cuda_device: Option<usize>,
}

/// A low-rank adapter (LoRA; Hu et al. 2021, arXiv 2106.09685).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraConfig {
    /// Rank of each projection's update.
    pub rank: usize,
    /// The update is `alpha / rank` times the product of its two matrices.
    pub alpha: f64,
    /// Chance of an update's input to be left out of a step.
    #[serde(default)]
    pub dropout: f64,
    /// Projections by the last part of their names (`q_proj`); none: all but the output layer.
    #[serde(default)]
    pub targets: Vec<String>,
    /// Of the first values and of dropout.
    #[serde(default)]
    pub seed: u64,
    /// What the adapter calls its base; without it the path of `start`.
    #[serde(default)]
    pub base: Option<String>,
}

/// The shape of a new CodeGen; the vocabulary is the corpus's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewModel {
    /// Width of the residual stream.
    pub n_embd: usize,
    /// Blocks.
    pub n_layer: usize,
    /// Attention heads; a multiple of 4.
    pub n_head: usize,
    /// Leading dimensions of each head that are rotated.
    pub rotary_dim: usize,
    /// Context length in tokens.
    pub n_positions: usize,
    /// Of the weights.
    pub seed: u64,
    /// Two heads in each of the first two layers begin as a circuit that copies (see `circuit`).
    #[serde(default)]
    pub induction: bool,
}

/// A stretch of training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phase {
    /// Part of the corpus; all of it by default.
    pub part: Option<String>,
    /// Tokens of this phase. Past the end of the part it begins again.
    pub tokens: u64,
}

/// How it is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingConfig {
    /// Folder of the corpus, with manifest.json.
    pub corpus: PathBuf,
    /// Folder of the run: checkpoints, log, loss curve, the trained model.
    pub out: PathBuf,
    /// Stretches one after the other, with one schedule over all of them.
    pub phase: Vec<Phase>,
    /// Tokens of a step, about: rows are whole.
    pub batch_tokens: usize,
    /// Tokens of one pass forward and backward, about: a step adds up the gradients of as many as it takes. 0: the whole step.
    #[serde(default)]
    pub pass_tokens: usize,
    /// Stop after this many minutes of training, with the model as it is then; `--resume` goes on.
    pub max_minutes: Option<f64>,
    /// Let the schedule end after this many minutes of training, where the tokens would take longer. Such a run depends on the
    /// machine's speed: it cannot be repeated bit by bit.
    pub finish_minutes: Option<f64>,
    /// The highest learning rate.
    pub learning_rate: f64,
    /// Steps until it is reached.
    #[serde(default)]
    pub warmup_steps: u64,
    /// Share of it that is left at the end of the cosine.
    #[serde(default)]
    pub final_rate: f64,
    /// AdamW's weight decay.
    #[serde(default = "tenth")]
    pub weight_decay: f64,
    /// AdamW's decay of the mean of gradients, and of the mean of their squares.
    #[serde(default = "betas")]
    pub betas: [f64; 2],
    /// Norm to which gradients are scaled down.
    #[serde(default = "one")]
    pub clip_norm: f64,
    /// Steps between checkpoints.
    #[serde(default = "hundred")]
    pub checkpoint_every: u64,
    /// Minutes after which there is one whatever the step; 0: never.
    #[serde(default = "five", skip_serializing_if = "is_zero")]
    pub checkpoint_minutes: f64,
    /// Whether the documents of a row do not see each other, and each begins at the first position. By default so for adapters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub documents_apart: Option<bool>,
}

/// What is measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvaluationConfig {
    /// Steps between evaluations; 0: only at the end.
    pub every: u64,
    /// Rows of held-out code for perplexity at most, each with and without API lines.
    pub rows: usize,
    /// Held-out tasks of each kind at most.
    pub tasks: usize,
    /// Tokens of a greedy answer at most.
    pub answer_tokens: usize,
}

impl Default for EvaluationConfig {
    fn default() -> Self {
        Self { every: 500, rows: 200, tasks: 50, answer_tokens: 40 }
    }
}

fn tenth() -> f64 {
    0.1
}
fn betas() -> [f64; 2] {
    [0.9, 0.98]
}
fn one() -> f64 {
    1.0
}
fn hundred() -> u64 {
    100
}
fn five() -> f64 {
    5.0
}
fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// It cannot be read, is no such TOML, has an unknown key, or a value out of range: the message names key and value.
    pub fn read(path: &Path) -> Result<Self> {
        let config: Self = crate::read_toml(path)?;
        config.check().map_err(|what| Error::data(path, what))?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        let Self { model, training, .. } = self;
        match (&model.start, &model.new) {
            (Some(_), None) | (None, Some(_)) => {}
            _ => return Err("model has either `start` (a folder) or a section [model.new]".into()),
        }
        if let Some(lora) = &model.lora {
            if model.new.is_some() {
                return Err("model.lora adapts a model: it wants `start`, not [model.new]".into());
            }
            if lora.rank == 0 || lora.rank > MAX_RANK {
                return Err(format!("model.lora.rank = {} is not within 1..={MAX_RANK}", lora.rank));
            }
            for (name, value, high) in [("alpha", lora.alpha, 1e6), ("dropout", lora.dropout, 0.99)] {
                if !value.is_finite() || value < 0.0 || value > high || (name == "alpha" && value == 0.0) {
                    return Err(format!("model.lora.{name} = {value} is not within 0..={high}, alpha not 0"));
                }
            }
        }
        if let Some(new) = &model.new {
            let head = new.n_embd.checked_div(new.n_head).unwrap_or(0);
            let heads =
                new.n_head > 0 && new.n_head.is_multiple_of(4) && new.n_embd.is_multiple_of(new.n_head);
            if !heads || new.n_embd > 1 << 14 || new.n_layer == 0 || new.n_layer > 512 {
                return Err(
                    "model.new: n_head is a multiple of 4 that divides n_embd, at most 16384, and n_layer is 1 to 512"
                        .into(),
                );
            }
            if new.rotary_dim < 2 || new.rotary_dim > head || !new.rotary_dim.is_multiple_of(2) {
                return Err(format!(
                    "model.new.rotary_dim = {} is not even and within 2..={head}",
                    new.rotary_dim
                ));
            }
            if new.n_positions == 0 || new.n_positions > 1 << 20 {
                return Err(format!("model.new.n_positions = {} is not within 1..=1048576", new.n_positions));
            }
            let room = head >= 16 && new.rotary_dim >= 8 && new.n_layer >= 2 && new.n_embd >= 8 + 3 * head;
            if new.induction && !room {
                return Err("model.new.induction wants two layers, n_head of at least 4, n_embd of 8 more than three heads, heads of 16 and rotary_dim of 8".into());
            }
        }
        if training.phase.is_empty() || training.phase.iter().any(|phase| phase.tokens == 0) {
            return Err("training.phase: at least one, each with tokens".into());
        }
        if training.batch_tokens == 0 || training.batch_tokens > 1 << 24 || training.checkpoint_every == 0 {
            return Err("training.batch_tokens is 1 to 16777216, training.checkpoint_every at least 1".into());
        }
        let number = |name: &str, value: f64, low: f64, high: f64| {
            let good = value.is_finite() && value >= low && value <= high;
            if good { Ok(()) } else { Err(format!("{name} = {value} is not within {low}..={high}")) }
        };
        number("training.learning_rate", training.learning_rate, 0.0, 1.0)?;
        number("training.final_rate", training.final_rate, 0.0, 1.0)?;
        number("training.weight_decay", training.weight_decay, 0.0, 1.0)?;
        number("training.clip_norm", training.clip_norm, 1e-6, 1e6)?;
        number("training.checkpoint_minutes", training.checkpoint_minutes, 0.0, 1e7)?;
        for beta in training.betas {
            number("training.betas", beta, 0.0, 0.999_999)?;
        }
        for (name, minutes) in
            [("max_minutes", training.max_minutes), ("finish_minutes", training.finish_minutes)]
        {
            if let Some(minutes) = minutes {
                number(&format!("training.{name}"), minutes, 0.0, 1e7)?;
            }
        }
        Ok(())
    }

    /// What the steps depend on, in words: a run with another is another run. Where things lie, and when to stop, save and measure is
    /// none of it.
    pub(super) fn fixed(&self) -> String {
        let mut fixed = self.clone();
        fixed.training.out = PathBuf::new();
        fixed.training.corpus = PathBuf::new();
        fixed.training.max_minutes = None;
        fixed.training.finish_minutes = None;
        fixed.training.checkpoint_every = 1;
        fixed.training.checkpoint_minutes = 0.0;
        fixed.evaluation = EvaluationConfig::default();
        fixed.model.start = None;
        fixed.model.recompute = false;
        fixed.model.cuda_device = None;
        fixed.data = None;
        if let Some(lora) = &mut fixed.model.lora {
            lora.base = None;
        }
        serde_json::to_string(&fixed).unwrap_or_default()
    }
}
