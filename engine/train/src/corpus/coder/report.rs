//! What a corpus says of itself in files: the manifest, statistics, overlaps, and rows of tasks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::rows::Shard;

/// `manifest.json`: what a trainer reads first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Of the format: 1.
    pub version: u32,
    /// Tokens of the tokenizer.
    pub vocab_size: usize,
    /// The tokenizer's file.
    pub tokenizer: String,
    /// The longest row.
    pub block_tokens: usize,
    /// Of everything in it: a run with another corpus is another run.
    pub digest: String,
    /// Files of rows; a curriculum takes those of one part after the other's.
    pub shards: Vec<Shard>,
    /// Held-out data.
    pub evaluation: Evaluation,
}

/// The files of held-out data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Code of held-out libraries below its API lines.
    pub perplexity: String,
    /// The same code, row by row, without them.
    pub perplexity_no_api: String,
    /// Rows of [`TaskRow`].
    pub tasks: String,
}

/// One line of `tasks.jsonl`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRow {
    /// How many APIs the block holds: `one`, `two`, `three`, `five`.
    pub kind: String,
    /// All up to the cursor.
    pub prompt: String,
    /// The same without the block.
    pub prompt_no_api: String,
    /// The API that the comment asks for, as it is called here.
    pub name: String,
    /// What the rest of the line should be.
    pub line: String,
    /// The library, by its public name.
    pub library: String,
}

/// `statistics.json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Statistics {
    /// Packages that were read.
    pub packages: usize,
    /// Documented APIs in them.
    pub apis: usize,
    /// APIs that tasks are made of, by library.
    pub task_apis: BTreeMap<String, usize>,
    /// The same of held-out libraries.
    pub held_out_apis: BTreeMap<String, usize>,
    /// Blocks of code that were read.
    pub blocks: usize,
    /// Those that are the same as another.
    pub repeated_blocks: usize,
    /// Those that are nearly the same.
    pub similar_blocks: usize,
    /// Those that repeat a benchmark.
    pub overlapping_blocks: usize,
    /// Those that are left, of libraries to learn from.
    pub training_blocks: usize,
    /// Those of them that call a documented API.
    pub blocks_with_calls: usize,
    /// Those of held-out libraries.
    pub held_out_blocks: usize,
    /// Of docstrings, where a part asks for their examples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub examples: Option<ExampleStatistics>,
    /// Of every part.
    pub parts: BTreeMap<String, PartStatistics>,
}

/// Examples of docstrings that call a documented API.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExampleStatistics {
    /// All that were read.
    pub read: usize,
    /// Those that are the same as another, or nearly.
    pub repeated: usize,
    /// Those that repeat a benchmark.
    pub overlapping: usize,
    /// Those that are left, of libraries to learn from.
    pub training: usize,
}

/// What one part consists of.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PartStatistics {
    /// Training sequences.
    pub rows: usize,
    /// Their tokens.
    pub tokens: u64,
    /// Documents by kind.
    pub documents: BTreeMap<String, usize>,
    /// Tokens by kind.
    pub tokens_by_kind: BTreeMap<String, u64>,
    /// Documents that were longer than a row.
    pub too_long: usize,
    /// Documents that share words with a benchmark problem and were left out.
    pub overlapping: usize,
    /// Documents of code, examples included, in which the library has other names.
    pub twins: usize,
    /// APIs that such documents call, and others put beside them.
    pub called_apis: usize,
    /// Those others.
    pub noise_apis: usize,
}

/// `overlap.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overlap {
    /// Words of an n-gram.
    pub ngram_words: usize,
    /// Whether there were benchmarks to look for.
    pub looked_for: bool,
    /// Texts that were left out, with the problem that they share words with; the first thousand.
    pub removed: Vec<(String, String)>,
    /// All of them.
    pub n_removed: usize,
}
