//! The configuration file of `inhouse train retriever`.

use std::path::{Path, PathBuf};

use inhouse_candle::{Pooling, Towers};
use inhouse_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// A run, as a TOML file describes it. Relative paths are relative to the working folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What is learned from.
    pub data: DataConfig,
    /// The encoder.
    pub model: ModelConfig,
    /// How it is trained.
    pub training: TrainingConfig,
    /// What is measured meanwhile and at the end.
    #[serde(default)]
    pub evaluation: EvaluationConfig,
}

/// What is learned from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// The pinned list of packages.
    pub sources: PathBuf,
    /// Folder for wheels and prepared pairs, outside of any repository.
    pub cache: PathBuf,
    /// The Python whose pip fetches the wheels that the cache lacks.
    #[serde(default = "python")]
    pub python: String,
    /// Folder with benchmark problems: pairs that repeat one of them are removed and listed.
    pub benchmarks: Option<PathBuf>,
    /// Libraries, by top-level name, that are not learned from: evaluation during training asks for them.
    #[serde(default)]
    pub held_out: Vec<String>,
    /// Pairs of one API name at most.
    #[serde(default = "max_pairs_per_api")]
    pub max_pairs_per_api: usize,
}

/// The encoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Hugging Face folder of a BERT to begin with.
    pub start: PathBuf,
    /// Layers of it that are used, from the first on; all by default. 0: an encoder without layers, which is distilled from
    /// all of them.
    pub layers: Option<usize>,
    /// One network for queries and APIs, or one for each.
    #[serde(default)]
    pub towers: Towers,
    /// How the states of tokens become a vector.
    pub pooling: Pooling,
    /// Whether vectors have length 1.
    pub normalize: bool,
    /// Tokens of a query that are read in training.
    #[serde(default = "query_tokens")]
    pub query_tokens: usize,
    /// Tokens of an API that are read, in training and later.
    #[serde(default = "api_tokens")]
    pub api_tokens: usize,
    /// Whether the word, position and type embeddings stay as they are.
    #[serde(default)]
    pub freeze_embeddings: bool,
    /// CUDA device; without one the processor computes.
    pub cuda_device: Option<usize>,
}

/// How it is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingConfig {
    /// Folder of the run: checkpoints, log, the trained encoder.
    pub out: PathBuf,
    /// Steps of the run; the schedule ends there.
    pub steps: u64,
    /// Stop after this many minutes of training, with the encoder as it is then.
    pub max_minutes: Option<f64>,
    /// Queries of a step.
    pub batch: usize,
    /// Queries of a step that are of the same library: the APIs of one are the others' negatives.
    #[serde(default = "queries_per_library")]
    pub queries_per_library: usize,
    /// Negatives per query that BM25 takes for answers.
    #[serde(default = "one")]
    pub hard_negatives: usize,
    /// Negatives per query drawn from its library.
    #[serde(default)]
    pub random_negatives: usize,
    /// Texts of one pass forward and backward. Fewer take less memory and cost a second pass forward; 0: all at once.
    #[serde(default)]
    pub chunk_texts: usize,
    /// Scores are divided by it: about 0.05 for vectors of length 1, 1 for others.
    pub temperature: f64,
    /// The highest learning rate.
    pub learning_rate: f64,
    /// Steps until it is reached.
    #[serde(default)]
    pub warmup_steps: u64,
    /// Share of it that is left at the end.
    #[serde(default)]
    pub final_rate: f64,
    /// AdamW's weight decay.
    #[serde(default = "weight_decay")]
    pub weight_decay: f64,
    /// Norm to which gradients are scaled down.
    #[serde(default = "clip_norm")]
    pub clip_norm: f64,
    /// Of all randomness.
    pub seed: u64,
    /// Share of a batch's libraries that appear under other names.
    #[serde(default = "third")]
    pub twins: f64,
    /// How much queries are reworded, from 0 to 1.
    #[serde(default = "third")]
    pub reworded: f64,
    /// Steps between checkpoints.
    #[serde(default = "hundred")]
    pub checkpoint_every: u64,
}

/// What is measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvaluationConfig {
    /// Steps between evaluations on held-out libraries; 0: only at the beginning and the end.
    pub every: u64,
    /// Queries of the held-out libraries at most.
    pub queries: usize,
    /// APIs of each held-out library that are searched at most, those asked for among them.
    pub apis_per_library: usize,
    /// Pools to search at the beginning and the end.
    pub pool: Vec<PoolConfig>,
}

impl Default for EvaluationConfig {
    fn default() -> Self {
        Self { every: 200, queries: 200, apis_per_library: 250, pool: Vec::new() }
    }
}

/// A pool of documentation with queries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolConfig {
    /// Its name in reports.
    pub name: String,
    /// apis.jsonl, or anything else that documentation is read from.
    pub apis: PathBuf,
    /// Rows {query, gold: [names]}.
    pub queries: PathBuf,
}

fn python() -> String {
    "python3".into()
}
fn max_pairs_per_api() -> usize {
    40
}
fn query_tokens() -> usize {
    32
}
fn api_tokens() -> usize {
    48
}
fn queries_per_library() -> usize {
    8
}
fn one() -> usize {
    1
}
fn weight_decay() -> f64 {
    0.01
}
fn clip_norm() -> f64 {
    1.0
}
fn third() -> f64 {
    0.3
}
fn hundred() -> u64 {
    100
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
        let size =
            |name: &str, value: usize, range: std::ops::RangeInclusive<usize>| match range.contains(&value) {
                true => Ok(()),
                false => Err(format!("{name} = {value} is not within {}..={}", range.start(), range.end())),
            };
        size("training.batch", training.batch, 1..=1 << 16)?;
        size("training.queries_per_library", training.queries_per_library, 1..=training.batch)?;
        size("training.hard_negatives", training.hard_negatives, 0..=64)?;
        size("training.random_negatives", training.random_negatives, 0..=64)?;
        size("model.query_tokens", model.query_tokens, 4..=512)?;
        size("model.api_tokens", model.api_tokens, 4..=512)?;
        let number = |name: &str, value: f64, low: f64, high: f64| {
            let good = value.is_finite() && value >= low && value <= high;
            if good { Ok(()) } else { Err(format!("{name} = {value} is not within {low}..={high}")) }
        };
        number("training.temperature", training.temperature, 1e-4, 1e3)?;
        number("training.learning_rate", training.learning_rate, 0.0, 1.0)?;
        number("training.final_rate", training.final_rate, 0.0, 1.0)?;
        number("training.weight_decay", training.weight_decay, 0.0, 1.0)?;
        number("training.clip_norm", training.clip_norm, 1e-6, 1e6)?;
        number("training.twins", training.twins, 0.0, 1.0)?;
        number("training.reworded", training.reworded, 0.0, 1.0)?;
        if training.steps == 0 || training.checkpoint_every == 0 {
            return Err("training.steps and training.checkpoint_every are at least 1".into());
        }
        if training.batch < 2 && training.hard_negatives + training.random_negatives == 0 {
            return Err("training.batch = 1 without negatives teaches nothing".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> String {
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("retriever.toml")).unwrap()
    }

    fn read(text: &str) -> Result<Config> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.toml");
        std::fs::write(&path, text).unwrap();
        Config::read(&path)
    }

    #[test]
    fn the_example_is_one_and_mistakes_are_named() {
        let text = example();
        read(&text).unwrap();
        for (from, to, said) in [
            ("[training]", "[training]\nrate = 1", "rate"),
            ("\nseed =", "\nsede =", "sede"),
            ("\nsteps =", "\nsteps = 0 #", "training.steps"),
            ("\ntemperature =", "\ntemperature = 0.0 #", "training.temperature = 0"),
            ("\nbatch =", "\nbatch = 0 #", "training.batch = 0"),
            ("\npooling =", "\npooling = \"max\" #", "max"),
        ] {
            assert!(text.contains(from), "{from}");
            let error = read(&text.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(error.contains(said) && error.contains("run.toml"), "{said}: {error}");
        }
    }
}
