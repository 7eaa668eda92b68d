//! What is asked of the decode loop, and what comes back.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::decode::{Constraint, Decoder, Sampler, SamplingParams, StopRules, TokenId, Tokenizer};
use crate::{Error, ErrorKind, Result};

/// Most samples of one request.
pub const MAX_SAMPLES: usize = 100_000;

/// What to generate.
#[derive(Debug, Clone)]
pub struct Request {
    /// The prompt, at least one token.
    pub prompt: Vec<TokenId>,
    /// Samples, from 1 to [`MAX_SAMPLES`].
    pub n: usize,
    /// How tokens are drawn.
    pub params: SamplingParams,
    /// With a sample's index, the source of all its randomness.
    pub seed: u64,
    /// Tokens a sample may have, at least one.
    pub max_tokens: usize,
    /// Where a completion is cut.
    pub stops: StopRules,
    /// Tokens that end a sample as the model's end of text does: markers of infilling, the end of a turn.
    pub ends: Vec<TokenId>,
    /// Control tokens that may be drawn and stand for no text.
    pub silent: Vec<TokenId>,
    /// Whether [`Completion::log_probabilities`] are wanted.
    pub log_probabilities: bool,
    /// What narrows the tokens of every sample by the text before them; `None`: nothing does.
    pub constraint: Option<Arc<dyn Constraint>>,
    /// Bytes that every sample writes first and that are the prompt's, not the completion's: what the constraint has it write
    /// again ([`Healing`](crate::constrain::Healing)). Tokens that hold nothing else do not count.
    pub healed: usize,
    /// Whether the first sample takes the most probable token always, whatever the others do.
    pub greedy_first: bool,
}

impl Request {
    /// Whether `decoder` can serve it at all.
    ///
    /// # Errors
    /// What is out of range ([`ErrorKind::InvalidArgument`]), or a prompt longer than the context
    /// ([`ErrorKind::LimitExceeded`]).
    pub(super) fn check(&self, decoder: &dyn Decoder, tokenizer: &dyn Tokenizer) -> Result<()> {
        let invalid = |message: &str| Err(Error::new(ErrorKind::InvalidArgument, message));
        if self.prompt.is_empty() {
            return invalid("the prompt is empty: a model needs at least one token to continue");
        }
        if self.n == 0 {
            return invalid("0 samples asked for");
        }
        if self.n > MAX_SAMPLES {
            let message = format!("{} samples asked for, at most {MAX_SAMPLES} are drawn at once", self.n);
            return Err(Error::new(ErrorKind::LimitExceeded, message));
        }
        if self.max_tokens == 0 {
            return invalid("max_tokens is 0: nothing may be generated");
        }
        if let Some(token) = self.prompt.iter().find(|&&token| token as usize >= tokenizer.vocab_size()) {
            return invalid(&format!("token {token} of the prompt is not below {}", tokenizer.vocab_size()));
        }
        let (tokens, limit) = (self.prompt.len(), decoder.context_length());
        if tokens > limit {
            let message =
                format!("the prompt has {tokens} tokens, the context holds {limit}: shorten the prompt");
            return Err(Error::new(ErrorKind::LimitExceeded, message));
        }
        Sampler::new(&self.params, self.seed, 0).map(drop)
    }
}

/// Why a completion ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FinishReason {
    /// A stop rule; the text ends before it.
    Stop,
    /// The model ended the text.
    EndOfText,
    /// `max_tokens` were generated.
    Length,
    /// The context or the KV cache is full.
    ContextFull,
    /// The caller cancelled; the text is what was there by then.
    Cancelled,
    /// The deadline passed; the text is what was there by then.
    Deadline,
}

impl FinishReason {
    /// The name in JSON output: `stop`, `end_of_text`, ...
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::EndOfText => "end_of_text",
            Self::Length => "length",
            Self::ContextFull => "context_full",
            Self::Cancelled => "cancelled",
            Self::Deadline => "deadline",
        }
    }
}

impl std::fmt::Display for FinishReason {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(self.as_str())
    }
}

/// One sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Completion {
    /// Its number, below `Request::n`.
    pub index: usize,
    /// The text up to the end of text or the first stop.
    pub text: String,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Tokens that were generated for it, those of a stop string included, the end of text not.
    pub completion_tokens: usize,
    /// Where asked for, the natural logarithm of the probability of each of these tokens as the model gives it, before
    /// temperature and the other steps of sampling.
    pub log_probabilities: Option<Vec<f32>>,
}

/// All samples of a request.
#[derive(Debug, Clone)]
pub struct Generation {
    /// By index: `n` of them.
    pub completions: Vec<Completion>,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Of these, the tokens that the decoder held already, from a [`PrefixCache`](super::PrefixCache) or another request.
    pub prompt_tokens_shared: usize,
    /// Seconds from the first token of the prompt to its last, once for all samples. Other requests may be served meanwhile.
    pub seconds_prefill: f64,
    /// Seconds from then until the last sample was complete.
    pub seconds_decode: f64,
}

/// What happens while samples are generated; samples interleave.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// More text of a sample: whole characters, never part of what may still turn out to be a stop. The texts of a
    /// sample's events are together its completion's text.
    Text {
        /// The sample.
        index: usize,
        /// The text, not empty.
        text: &'a str,
    },
    /// A sample is complete.
    Finished(&'a Completion),
}
