//! Rows of a prepared corpus. Which of them a step sees follows from its number alone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use inhouse_core::decode::TokenId;
use inhouse_core::{Error, ErrorKind, Result, files};
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokenizers::Tokenizer;

use super::config::Phase;

/// The token that ends a text in a corpus.
pub const END: &str = "<|endoftext|>";
/// Bytes of a shard at most.
const MAX_SHARD_BYTES: u64 = 4 << 30;

/// `manifest.json`.
#[derive(Debug, Clone, Deserialize)]
pub struct Manifest {
    version: u32,
    /// Tokens of the tokenizer.
    pub vocab_size: usize,
    /// Its file.
    pub tokenizer: String,
    /// Of everything in the corpus.
    pub digest: String,
    shards: Vec<ShardEntry>,
    /// Held-out data.
    pub evaluation: Held,
}

#[derive(Debug, Clone, Deserialize)]
struct ShardEntry {
    #[serde(default)]
    part: String,
    file: String,
    tokens: u64,
    #[serde(default)]
    sha256: String,
}

/// The files of held-out data.
#[derive(Debug, Clone, Deserialize)]
pub struct Held {
    /// Rows of code below their API lines, and the same without them.
    pub perplexity: Option<String>,
    pub perplexity_no_api: Option<String>,
    /// Tasks, a JSON object a line.
    pub tasks: Option<String>,
}

/// Rows of tokens, each with weights of as many.
#[derive(Debug, Default)]
pub struct Rows {
    tokens: Vec<TokenId>,
    weights: Vec<f32>,
    /// Where rows begin, and the end of the last.
    starts: Vec<usize>,
}

impl Rows {
    /// How many.
    pub fn len(&self) -> usize {
        self.starts.len().saturating_sub(1)
    }

    /// The first so many.
    pub fn first(mut self, count: usize) -> Self {
        self.starts.truncate(count + 1);
        self
    }

    /// Tokens and weights of one.
    pub fn row(&self, i: usize) -> (&[TokenId], &[f32]) {
        let range = self.starts[i]..self.starts[i + 1];
        (&self.tokens[range.clone()], &self.weights[range])
    }

    /// Reads a shard: `tokens` U16 `[n]`, `weights` U8 `[n]` in hundredths, `starts` U32 `[rows + 1]`.
    ///
    /// # Errors
    /// The file cannot be read, is not what its checksum says, or holds no such rows.
    pub fn read(path: &Path, sha256: &str, vocab_size: usize) -> Result<Self> {
        let bytes =
            files::read_bounded(path, MAX_SHARD_BYTES).map_err(|cause| Error::io("read", path, cause))?;
        if !sha256.is_empty() {
            let found: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
            if found != sha256.to_ascii_lowercase() {
                return Err(Error::data(
                    path,
                    format!("has the SHA-256 {found}, the manifest says {sha256}"),
                ));
            }
        }
        let file = SafeTensors::deserialize(&bytes).map_err(|cause| Error::data(path, cause))?;
        let get = |name: &str, dtype: Dtype| {
            let tensor = file.tensor(name).map_err(|cause| Error::data(path, cause))?;
            if tensor.dtype() != dtype {
                return Err(Error::data(
                    path,
                    format!("{name} is of type {:?}, not {dtype:?}", tensor.dtype()),
                ));
            }
            Ok(tensor.data().to_vec())
        };
        let tokens: Vec<TokenId> = get("tokens", Dtype::U16)?
            .as_chunks::<2>()
            .0
            .iter()
            .map(|bytes| TokenId::from(u16::from_le_bytes(*bytes)))
            .collect();
        let weights: Vec<f32> =
            get("weights", Dtype::U8)?.iter().map(|&weight| f32::from(weight) / 100.0).collect();
        let starts: Vec<usize> = get("starts", Dtype::U32)?
            .as_chunks::<4>()
            .0
            .iter()
            .map(|bytes| u32::from_le_bytes(*bytes) as usize)
            .collect();
        let whole = starts.first() == Some(&0)
            && starts.last() == Some(&tokens.len())
            && starts.windows(2).all(|pair| pair[0] < pair[1])
            && weights.len() == tokens.len();
        if !whole {
            return Err(Error::data(path, "the rows' starts do not fit its tokens and weights"));
        }
        if let Some(token) = tokens.iter().find(|&&token| token as usize >= vocab_size) {
            return Err(Error::data(
                path,
                format!("token {token} is not below the vocabulary's {vocab_size}"),
            ));
        }
        Ok(Self { tokens, weights, starts })
    }
}

/// A corpus, and the phases in which it is read.
pub struct Corpus {
    folder: PathBuf,
    /// What it says of itself.
    pub manifest: Manifest,
    phases: Vec<PhaseSteps>,
    batch_tokens: u64,
    open: BTreeMap<String, Rows>,
}

struct PhaseSteps {
    shards: Vec<ShardEntry>,
    tokens: u64,
    steps: u64,
}

impl Corpus {
    /// Opens a folder with a manifest.
    ///
    /// # Errors
    /// There is no manifest of a known version, or a phase names a part that there is not.
    pub fn open(folder: &Path, phases: &[Phase], batch_tokens: usize) -> Result<Self> {
        let path = folder.join("manifest.json");
        let manifest: Manifest =
            serde_json::from_str(&files::read_text(&path)?).map_err(|cause| Error::data(&path, cause))?;
        if manifest.version != 1 {
            let what =
                format!("{}: version {} of a corpus, this build reads 1", path.display(), manifest.version);
            return Err(Error::new(ErrorKind::UnsupportedVersion, what));
        }
        let batch_tokens = batch_tokens as u64;
        let phases = phases
            .iter()
            .map(|phase| {
                let wanted = |shard: &&ShardEntry| phase.part.as_ref().is_none_or(|part| *part == shard.part);
                let shards: Vec<ShardEntry> =
                    manifest.shards.iter().filter(wanted).filter(|shard| shard.tokens > 0).cloned().collect();
                if shards.is_empty() {
                    let part = phase.part.as_deref().unwrap_or("any part");
                    return Err(Error::data(&path, format!("there are no rows of {part:?}")));
                }
                let tokens = shards.iter().map(|shard| shard.tokens).sum();
                Ok(PhaseSteps { shards, tokens, steps: phase.tokens.div_ceil(batch_tokens) })
            })
            .collect::<Result<_>>()?;
        Ok(Self { folder: folder.to_owned(), manifest, phases, batch_tokens, open: BTreeMap::new() })
    }

    /// The token that ends every document.
    ///
    /// # Errors
    /// The tokenizer cannot be read, or has none.
    pub fn end_token(&self) -> Result<TokenId> {
        let path = self.path(&self.manifest.tokenizer);
        let tokenizer = Tokenizer::from_file(&path).map_err(|cause| Error::data(&path, cause.to_string()))?;
        tokenizer.token_to_id(END).ok_or_else(|| Error::data(&path, format!("has no token {END}")))
    }

    /// A file of the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Steps of all phases.
    pub fn steps(&self) -> u64 {
        self.phases.iter().map(|phase| phase.steps).sum()
    }

    /// The rows of a step, the first of which is 1: those that begin within its share of the phase's tokens.
    ///
    /// # Errors
    /// A shard cannot be read.
    pub fn batch(&mut self, step: u64) -> Result<Vec<(Vec<TokenId>, Vec<f32>)>> {
        let mut before = 0;
        let mut index = self.phases.len() - 1;
        for (i, phase) in self.phases.iter().enumerate() {
            if step <= before + phase.steps {
                index = i;
                break;
            }
            if i < index {
                before += phase.steps;
            }
        }
        let phase = &self.phases[index];
        let begin = (step - 1).saturating_sub(before) * self.batch_tokens;
        let end = begin + self.batch_tokens;
        let mut rows = Vec::new();
        // The stream of the phase is its shards over and over.
        let mut round = begin / phase.tokens * phase.tokens;
        let mut needed: Vec<(ShardEntry, u64)> = Vec::new();
        while round < end {
            let mut at = round;
            for shard in &phase.shards {
                if at < end && at + shard.tokens > begin {
                    needed.push((shard.clone(), at));
                }
                at += shard.tokens;
            }
            round += phase.tokens;
        }
        self.open.retain(|file, _| needed.iter().any(|(shard, _)| shard.file == *file));
        for (shard, at) in needed {
            if !self.open.contains_key(&shard.file) {
                let read =
                    Rows::read(&self.folder.join(&shard.file), &shard.sha256, self.manifest.vocab_size)?;
                if read.tokens.len() as u64 != shard.tokens {
                    let what =
                        format!("holds {} tokens, the manifest says {}", read.tokens.len(), shard.tokens);
                    return Err(Error::data(&self.folder.join(&shard.file), what));
                }
                self.open.insert(shard.file.clone(), read);
            }
            let Some(shard) = self.open.get(&shard.file) else { continue };
            let first = shard.starts.partition_point(|&start| at + (start as u64) < begin);
            for i in first..shard.len() {
                if at + shard.starts[i] as u64 >= end {
                    break;
                }
                let (tokens, weights) = shard.row(i);
                rows.push((tokens.to_vec(), weights.to_vec()));
            }
        }
        Ok(rows)
    }
}

/// The documents of a row, each with its end token; the last may have none.
pub fn documents<'a>(
    tokens: &'a [TokenId],
    weights: &'a [f32],
    end: TokenId,
) -> impl Iterator<Item = (&'a [TokenId], &'a [f32])> {
    let mut begin = 0;
    tokens.split_inclusive(move |&token| token == end).map(move |document| {
        let range = begin..begin + document.len();
        begin = range.end;
        (document, &weights[range])
    })
}
