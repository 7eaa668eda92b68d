//! From a prompt to a completion, for any backend: [`Model`] and [`Decoder`] are what a backend implements; sampling,
//! stop rules and the loop live here, so that every backend behaves the same.

mod cancel;
mod constraint;
mod conventions;
mod generate;
mod prefix;
mod sampler;
mod stop;
mod token_set;
mod unspelled;
mod utf8;

pub use cancel::CancelToken;
pub use constraint::{Constraint, Guard};
pub use conventions::{Conventions, Infill, InfillPart, is_infill_marker};
pub use generate::{
    Client, Completion, Event, FinishReason, Generation, MAX_SAMPLES, Request, generate, generate_cached,
    serve,
};
pub use prefix::PrefixCache;
pub use sampler::{Sampler, SamplingParams, log_probability};
pub use stop::{PAPER_STOPS, StopRules};
pub use token_set::TokenSet;
pub use unspelled::Unspelled;

use std::sync::Arc;

use crate::Result;

/// A token's number in a model's vocabulary.
pub type TokenId = u32;

/// A sequence of a [`Decoder`], below [`Decoder::max_sequences`].
pub type SeqId = u32;

/// Tokens appended to one sequence in a batch.
#[derive(Debug, Clone, Copy)]
pub struct Feed<'a> {
    /// The sequence that grows.
    pub seq: SeqId,
    /// The tokens appended, at least one.
    pub tokens: &'a [TokenId],
}

/// Text to tokens and back, as the model was trained.
pub trait Tokenizer: Send + Sync {
    /// Tokens of `text`, without any token that the text does not contain (no BOS).
    ///
    /// # Errors
    /// The text cannot be tokenised (too long for the backend).
    fn encode(&self, text: &str) -> Result<Vec<TokenId>>;

    /// The bytes of one token; empty for control tokens (end of text, padding). A token may hold part of a character.
    fn token_bytes(&self, token: TokenId) -> Vec<u8>;

    /// Whether `token` ends a text.
    fn is_end(&self, token: TokenId) -> bool;

    /// Whether `token` may be sampled: false for padding rows of the vocabulary and for unused or control tokens other
    /// than the end of text.
    fn is_sampleable(&self, token: TokenId) -> bool;

    /// Number of rows of the vocabulary, padding included: the length of a row of logits.
    fn vocab_size(&self) -> usize;
}

/// How a [`Decoder`] is made.
#[derive(Debug, Clone)]
pub struct DecoderOptions {
    /// Tokens of context a single sequence may use; `None`: as the model was trained.
    pub context_length: Option<usize>,
    /// Sequences decoded side by side.
    pub sequences: usize,
    /// Cells of KV cache over all sequences (a prefix shared by forked sequences counts once); `None`: chosen from the
    /// two above.
    pub kv_cells: Option<usize>,
    /// Threads; `None`: the backend chooses by the size of the model and the cores.
    pub threads: Option<usize>,
    /// Keys and values are kept in f32 instead of f16 where the backend rounds them: twice the memory and slower, for
    /// comparing logits with a reference.
    pub exact: bool,
}

impl Default for DecoderOptions {
    fn default() -> Self {
        Self { context_length: None, sequences: 1, kv_cells: None, threads: None, exact: false }
    }
}

/// Facts about a loaded model.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ModelInfo {
    /// Architecture as the file names it: `codegen`, `phi2`, `gpt2`.
    pub architecture: String,
    /// The name in the file, or its file name.
    pub name: String,
    /// Trained context length in tokens.
    pub context_length: usize,
    /// Rows of the vocabulary, padding included.
    pub vocab_size: usize,
    /// Parameters of all tensors.
    pub parameters: u64,
    /// Which backend runs it: `llama.cpp` or `candle`.
    pub backend: String,
    /// Weight type: `F32`, `Q8_0`, ...
    pub dtype: String,
}

/// A loaded model: weights and tokenizer, shared by any number of decoders.
pub trait Model: Send + Sync {
    /// Facts about it.
    fn info(&self) -> &ModelInfo;

    /// Its tokenizer.
    fn tokenizer(&self) -> &dyn Tokenizer;

    /// What it expects around a text.
    fn conventions(&self) -> &Conventions;

    /// A decoder with an empty cache. It keeps the weights alive by itself.
    ///
    /// # Errors
    /// The options are out of range or memory for the cache is not to be had.
    fn decoder(self: Arc<Self>, options: &DecoderOptions) -> Result<Box<dyn Decoder>>;
}

/// One KV cache with several sequences: feed tokens, read raw logits, fork, rewind.
///
/// Every call that fails leaves the sequences as they were, or reports [`crate::ErrorKind::Backend`] after which the
/// decoder must be dropped.
pub trait Decoder: Send {
    /// Sequences that may live side by side.
    fn max_sequences(&self) -> usize;

    /// Tokens that one sequence may hold.
    fn context_length(&self) -> usize;

    /// Whether a prompt must come in one feed to an empty sequence, because an encoder reads it as a whole: what is fed later
    /// then belongs to the completion. A prefix shared by several prompts cannot be fed ahead.
    fn reads_prompt_whole(&self) -> bool {
        false
    }

    /// Tokens that `seq` holds now.
    fn len(&self, seq: SeqId) -> usize;

    /// Appends tokens to sequences (each sequence at most once) in as few forward passes as possible. Afterwards
    /// [`Decoder::logits`] gives the logits after the last token of each feed. `cancel` is looked at between passes.
    ///
    /// # Errors
    /// A token or sequence out of range, a full context or cache ([`crate::ErrorKind::LimitExceeded`]), a cancel, or a
    /// failing backend. Where what was fed cannot be taken out again, the error is [`crate::ErrorKind::Backend`]
    /// whatever the cause.
    fn feed(&mut self, feeds: &[Feed<'_>], cancel: &CancelToken) -> Result<()>;

    /// Raw logits `[vocab] f32` after the last token of the `i`-th feed of the last call of [`Decoder::feed`].
    ///
    /// # Errors
    /// There is no such feed.
    fn logits(&self, i: usize) -> Result<&[f32]>;

    /// Makes `to` a copy of `from`, sharing its cells. What `to` held before is dropped.
    ///
    /// # Errors
    /// A sequence out of range.
    fn fork(&mut self, from: SeqId, to: SeqId) -> Result<()>;

    /// Drops the tokens of `seq` from position `len` on; 0 clears it.
    ///
    /// # Errors
    /// `seq` is out of range or holds fewer than `len` tokens.
    fn rewind(&mut self, seq: SeqId, len: usize) -> Result<()>;

    /// The cells of `seq` as bytes that [`Decoder::restore`] of the same model on the same build takes.
    ///
    /// # Errors
    /// `seq` is out of range, or the backend cannot do this ([`crate::ErrorKind::Unsupported`]).
    fn save(&self, seq: SeqId) -> Result<Vec<u8>> {
        let what = format!("this backend cannot save sequence {seq}");
        Err(crate::Error::new(crate::ErrorKind::Unsupported, what))
    }

    /// Makes `seq` hold `len` tokens whose cells [`Decoder::save`] gave. The bytes must be unchanged: what is checked here
    /// is whether they fit, not whether they are sound.
    ///
    /// # Errors
    /// The bytes do not fit the model or the length ([`crate::ErrorKind::InvalidData`]), no room
    /// ([`crate::ErrorKind::LimitExceeded`]), or the backend cannot do this.
    fn restore(&mut self, seq: SeqId, len: usize, bytes: &[u8]) -> Result<()> {
        let what =
            format!("this backend cannot restore sequence {seq} ({len} tokens, {} bytes)", bytes.len());
        Err(crate::Error::new(crate::ErrorKind::Unsupported, what))
    }
}
