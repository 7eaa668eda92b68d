//! The decode loop: one prefill of a prompt, n samples side by side.
//!
//! A sample depends on (prompt, parameters, seed, its index) and on nothing else: it has its own stream of random
//! numbers, sees only its own tokens, and is cut by its own text. Neither n nor the number of sequences that fit side
//! by side changes what is asked of the model for it. What a backend answers may differ in the last bits with the
//! shape of the batch (sums in another order); such a difference changes a sample only where a draw falls within it,
//! and the schedule is a function of the request alone, so the same request on the same machine repeats exactly.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::constraint::{self, Constraint, Guard};
use super::prefix::PrefixCache;
use super::sampler::log_probability;
use super::stop::{Scanned, StopScanner};
use super::utf8::Utf8Stream;
use super::{
    CancelToken, Decoder, Feed, Sampler, SamplingParams, SeqId, StopRules, TokenId, TokenSet, Tokenizer,
};
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
    /// Whether [`Completion::log_probabilities`] are wanted.
    pub log_probabilities: bool,
    /// What narrows the tokens of every sample by the text before them; `None`: nothing does.
    pub constraint: Option<Arc<dyn Constraint>>,
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
    /// Of these, the tokens that a [`PrefixCache`] held already.
    pub prompt_tokens_shared: usize,
    /// Seconds for the prompt, once for all samples.
    pub seconds_prefill: f64,
    /// Seconds for everything after it.
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

/// Generates `request.n` samples: one prefill of the prompt, then all samples side by side, as many as the decoder has
/// sequences; where one ends the next begins. All sequences of the decoder are overwritten.
///
/// A cancel, a deadline, or `on_event` returning `Break` ends every sample that is not complete yet: it keeps its text
/// so far and has the finish reason [`FinishReason::Cancelled`] or [`FinishReason::Deadline`].
///
/// # Errors
/// An empty prompt, `n` or `max_tokens` of 0, parameters out of range; a prompt that is longer than the context
/// ([`ErrorKind::LimitExceeded`]); a failing backend, after which the decoder must be dropped.
pub fn generate(
    decoder: &mut dyn Decoder,
    tokenizer: &dyn Tokenizer,
    request: &Request,
    cancel: &CancelToken,
    on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
) -> Result<Generation> {
    run(decoder, None, tokenizer, request, cancel, on_event)
}

/// The same with a cache of prompts: what `request.prompt` begins with is taken from it, and the prompt is kept in it.
/// The sequences of the cache are left alone otherwise.
///
/// # Errors
/// As [`generate`]; after a failure of the backend the cache must be dropped with the decoder.
pub fn generate_cached(
    decoder: &mut dyn Decoder,
    cache: &mut PrefixCache,
    tokenizer: &dyn Tokenizer,
    request: &Request,
    cancel: &CancelToken,
    on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
) -> Result<Generation> {
    // An encoder reads every prompt as a whole.
    let cache = if decoder.reads_prompt_whole() { None } else { Some(cache) };
    run(decoder, cache, tokenizer, request, cancel, on_event)
}

fn run(
    decoder: &mut dyn Decoder,
    cache: Option<&mut PrefixCache>,
    tokenizer: &dyn Tokenizer,
    request: &Request,
    cancel: &CancelToken,
    on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
) -> Result<Generation> {
    check(decoder, tokenizer, request)?;
    let mut run = Run {
        n_seq: decoder.max_sequences() - cache.as_ref().map_or(0, |cache| cache.sequences()),
        cache,
        decoder,
        tokenizer,
        request,
        cancel,
        out: Output { on_event, completions: Vec::with_capacity(request.n), halted: None },
        allowed: TokenSet::sampleable(tokenizer),
        prompt_logits: Vec::new(),
        shared: 0,
        started: 0,
        parked: VecDeque::new(),
        slots: Vec::new(),
    };
    let start = Instant::now();
    run.prefill()?;
    let seconds_prefill = start.elapsed().as_secs_f64();
    let start = Instant::now();
    while run.out.halted.is_none() && run.out.completions.len() < request.n {
        run.step()?;
    }
    if let Some(reason) = run.out.halted {
        run.abandon(reason)?;
    }
    let prompt_tokens_shared = run.shared;
    let mut completions = run.out.completions;
    completions.sort_unstable_by_key(|completion| completion.index);
    Ok(Generation {
        completions,
        prompt_tokens: request.prompt.len(),
        prompt_tokens_shared,
        seconds_prefill,
        seconds_decode: start.elapsed().as_secs_f64(),
    })
}

fn check(decoder: &dyn Decoder, tokenizer: &dyn Tokenizer, request: &Request) -> Result<()> {
    let invalid = |message: &str| Err(Error::new(ErrorKind::InvalidArgument, message));
    if request.prompt.is_empty() {
        return invalid("the prompt is empty: a model needs at least one token to continue");
    }
    if request.n == 0 {
        return invalid("0 samples asked for");
    }
    if request.n > MAX_SAMPLES {
        let message = format!("{} samples asked for, at most {MAX_SAMPLES} are drawn at once", request.n);
        return Err(Error::new(ErrorKind::LimitExceeded, message));
    }
    if request.max_tokens == 0 {
        return invalid("max_tokens is 0: nothing may be generated");
    }
    if let Some(token) = request.prompt.iter().find(|&&token| token as usize >= tokenizer.vocab_size()) {
        return invalid(&format!("token {token} of the prompt is not below {}", tokenizer.vocab_size()));
    }
    let (tokens, limit) = (request.prompt.len(), decoder.context_length());
    if tokens > limit {
        let message =
            format!("the prompt has {tokens} tokens, the context holds {limit}: shorten the prompt");
        return Err(Error::new(ErrorKind::LimitExceeded, message));
    }
    Sampler::new(&request.params, request.seed, 0).map(drop)
}

/// A sample on its way. Its KV cells can be rebuilt from its tokens at any time.
struct Sample<'r> {
    index: usize,
    sampler: Sampler,
    guard: Option<Box<dyn Guard>>,
    utf8: Utf8Stream,
    scanner: StopScanner<'r>,
    text: String,
    tokens: Vec<TokenId>,
    /// Of `tokens`, where they are wanted.
    log_probabilities: Option<Vec<f32>>,
    /// How many of `tokens` are in the KV cache.
    fed: usize,
}

impl Sample<'_> {
    /// Draws a token from `logits` among the `allowed` ones, and among those that the request's constraint leaves.
    fn draw(&mut self, logits: &[f32], allowed: &TokenSet) -> Result<TokenId> {
        let token = match &mut self.guard {
            Some(guard) => constraint::draw(guard.as_mut(), &mut self.sampler, logits, allowed),
            None => self.sampler.sample(logits, allowed),
        }?;
        self.sampler.observe(&[token]);
        if let Some(values) = &mut self.log_probabilities {
            values.push(log_probability(logits, allowed, token)?);
        }
        Ok(token)
    }
}

/// A sequence of the decoder; it holds the prompt, and after it the tokens of its sample.
struct Slot<'r> {
    seq: SeqId,
    sample: Option<Sample<'r>>,
}

/// What goes to the caller, and whether generation must end early.
struct Output<'e> {
    on_event: &'e mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    completions: Vec<Completion>,
    halted: Option<FinishReason>,
}

impl Output<'_> {
    /// Appends certain text to a sample and tells the caller.
    fn emit(&mut self, sample: &mut Sample<'_>, text: &str) {
        if !text.is_empty() {
            sample.text.push_str(text);
            let flow = (self.on_event)(Event::Text { index: sample.index, text });
            self.halt_on(flow);
        }
    }

    fn finish(&mut self, sample: Sample<'_>, finish_reason: FinishReason) {
        let completion = Completion {
            index: sample.index,
            text: sample.text,
            finish_reason,
            completion_tokens: sample.tokens.len(),
            log_probabilities: sample.log_probabilities,
        };
        let flow = (self.on_event)(Event::Finished(&completion));
        self.completions.push(completion);
        self.halt_on(flow);
    }

    fn halt_on(&mut self, flow: ControlFlow<()>) {
        if flow.is_break() && self.halted.is_none() {
            self.halted = Some(FinishReason::Cancelled);
        }
    }

    /// Takes note of an end that was asked for; hands a failure on.
    fn halt_or_fail(&mut self, error: Error) -> Result<()> {
        self.halted = Some(match error.kind() {
            ErrorKind::Cancelled => FinishReason::Cancelled,
            ErrorKind::DeadlineExceeded => FinishReason::Deadline,
            _ => return Err(error),
        });
        Ok(())
    }
}

struct Run<'r, 'e> {
    decoder: &'r mut dyn Decoder,
    /// Sequences that are the samples'.
    n_seq: usize,
    cache: Option<&'r mut PrefixCache>,
    tokenizer: &'r dyn Tokenizer,
    request: &'r Request,
    cancel: &'r CancelToken,
    out: Output<'e>,
    allowed: TokenSet,
    /// Logits after the prompt: the first token of every sample is drawn from them.
    prompt_logits: Vec<f32>,
    /// Tokens of the prompt that came from the cache.
    shared: usize,
    /// Samples begun so far; the next one has this index.
    started: usize,
    /// Samples that had to leave the cache for want of cells, and go on when others have ended.
    parked: VecDeque<Sample<'r>>,
    slots: Vec<Slot<'r>>,
}

impl<'r> Run<'r, '_> {
    /// Puts the prompt into the cache, once, and shares it with all slots.
    fn prefill(&mut self) -> Result<()> {
        let n_seq = self.n_seq;
        for seq in 0..n_seq {
            self.decoder.rewind(seq as SeqId, 0)?;
        }
        let prompt = &self.request.prompt;
        self.shared = match &mut self.cache {
            Some(cache) => cache.lend(self.decoder, prompt, 0)?,
            None => 0,
        };
        if let Err(error) = self.decoder.feed(&[Feed { seq: 0, tokens: &prompt[self.shared..] }], self.cancel)
        {
            if error.kind() == ErrorKind::LimitExceeded && self.give_up_cache()? {
                return self.prefill();
            }
            return self.out.halt_or_fail(error);
        }
        self.prompt_logits = self.decoder.logits(0)?.to_vec();
        if let Some(cache) = &mut self.cache {
            cache.keep(self.decoder, prompt, 0)?;
        }
        for seq in 0..n_seq.min(self.request.n) {
            if seq > 0 {
                self.decoder.fork(0, seq as SeqId)?;
            }
            self.slots.push(Slot { seq: seq as SeqId, sample: None });
        }
        Ok(())
    }

    /// Frees the cells of the prompts of other calls; false where there are none.
    fn give_up_cache(&mut self) -> Result<bool> {
        match &mut self.cache {
            Some(cache) => cache.clear(self.decoder),
            None => Ok(false),
        }
    }

    /// One forward pass: every slot's sample grows by a token.
    fn step(&mut self) -> Result<()> {
        if let Err(error) = self.cancel.check() {
            return self.out.halt_or_fail(error);
        }
        self.fill()?;
        let active: Vec<usize> = (0..self.slots.len()).filter(|&i| self.slots[i].sample.is_some()).collect();
        if active.is_empty() || self.out.halted.is_some() {
            return Ok(());
        }
        let feeds: Vec<Feed<'_>> = self
            .slots
            .iter()
            .filter_map(|slot| slot.sample.as_ref().map(|sample| (slot.seq, sample)))
            .map(|(seq, sample)| Feed { seq, tokens: &sample.tokens[sample.fed..] })
            .collect();
        match self.decoder.feed(&feeds, self.cancel) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::LimitExceeded => return self.make_room(&active),
            Err(error) => return self.out.halt_or_fail(error),
        }
        let drawn = self.draw(active.len())?;
        for (i, token) in active.into_iter().zip(drawn) {
            self.accept(i, token)?;
            if self.out.halted.is_some() {
                break;
            }
        }
        Ok(())
    }

    /// Draws the next token of each of the `n_active` samples that were just fed, on all cores: a row is a whole
    /// vocabulary, and the samplers share nothing.
    fn draw(&mut self, n_active: usize) -> Result<Vec<TokenId>> {
        let rows = (0..n_active).map(|i| self.decoder.logits(i)).collect::<Result<Vec<_>>>()?;
        let samples: Vec<&mut Sample<'r>> =
            self.slots.iter_mut().filter_map(|slot| slot.sample.as_mut()).collect();
        let allowed = &self.allowed;
        samples
            .into_par_iter()
            .zip(rows)
            .map(|(sample, row)| {
                sample.fed = sample.tokens.len();
                sample.draw(row, allowed)
            })
            .collect()
    }

    /// Gives every free slot a sample: a parked one first, else the next new one with its first token drawn. A sample
    /// that is over with its first token makes room for another at once.
    fn fill(&mut self) -> Result<()> {
        for i in 0..self.slots.len() {
            while self.slots[i].sample.is_none() && self.out.halted.is_none() {
                if let Some(sample) = self.parked.pop_front() {
                    self.slots[i].sample = Some(sample);
                } else if self.started < self.request.n {
                    let mut sample = self.new_sample(self.started)?;
                    self.started += 1;
                    let token = sample.draw(&self.prompt_logits, &self.allowed)?;
                    self.slots[i].sample = Some(sample);
                    self.accept(i, token)?;
                } else {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn new_sample(&self, index: usize) -> Result<Sample<'r>> {
        let mut sampler = Sampler::new(&self.request.params, self.request.seed, index)?;
        sampler.observe(&self.request.prompt);
        Ok(Sample {
            index,
            sampler,
            guard: self.request.constraint.as_ref().map(|constraint| constraint.begin()),
            utf8: Utf8Stream::default(),
            scanner: StopScanner::new(&self.request.stops),
            text: String::new(),
            tokens: Vec::new(),
            log_probabilities: self.request.log_probabilities.then(Vec::new),
            fed: 0,
        })
    }

    /// The cache has no cell left: half of the samples leave it and wait; their slots are closed, since as many as now
    /// cannot go on side by side. A sample that is alone and finds no room ends.
    fn make_room(&mut self, active: &[usize]) -> Result<()> {
        if self.give_up_cache()? {
            return Ok(());
        }
        if let [only] = active {
            return self.finish(*only, FinishReason::ContextFull);
        }
        let stay = active.len().div_ceil(2);
        tracing::debug!(samples = active.len(), stay, "the KV cache is full: fewer samples side by side");
        for &i in active[stay..].iter().rev() {
            let Slot { seq, sample } = self.slots.remove(i);
            self.decoder.rewind(seq, 0)?;
            if let Some(mut sample) = sample {
                sample.fed = 0;
                self.parked.push_front(sample);
            }
        }
        Ok(())
    }

    /// Takes a token into the sample of slot `i` and ends the sample where the token does.
    fn accept(&mut self, i: usize, token: TokenId) -> Result<()> {
        let Some(sample) = self.slots[i].sample.as_mut() else {
            return Ok(());
        };
        if self.tokenizer.is_end(token) {
            // It is no token of the completion.
            if let Some(values) = &mut sample.log_probabilities {
                values.pop();
            }
            return self.finish(i, FinishReason::EndOfText);
        }
        sample.tokens.push(token);
        let mut piece = String::new();
        sample.utf8.push(&self.tokenizer.token_bytes(token), &mut piece);
        let (text, stopped) = match sample.scanner.push(&piece) {
            Scanned::Text(text) => (text, false),
            Scanned::Stopped(text) => (text, true),
        };
        self.out.emit(sample, &text);
        let n_tokens = sample.tokens.len();
        if stopped {
            self.end(i, FinishReason::Stop)
        } else if n_tokens >= self.request.max_tokens {
            self.finish(i, FinishReason::Length)
        } else if self.request.prompt.len() + n_tokens > self.decoder.context_length() {
            self.finish(i, FinishReason::ContextFull)
        } else {
            Ok(())
        }
    }

    /// Ends the sample of slot `i` for `reason`, or for a stop that shows in the text held back.
    fn finish(&mut self, i: usize, reason: FinishReason) -> Result<()> {
        let reason = match self.slots[i].sample.as_mut() {
            Some(sample) => flush(sample, reason, &mut self.out),
            None => reason,
        };
        self.end(i, reason)
    }

    /// Takes the sample out of slot `i`, reports it, and leaves the slot with the bare prompt.
    fn end(&mut self, i: usize, reason: FinishReason) -> Result<()> {
        let slot = &mut self.slots[i];
        if let Some(sample) = slot.sample.take() {
            self.decoder.rewind(slot.seq, self.request.prompt.len())?;
            self.out.finish(sample, reason);
        }
        Ok(())
    }

    /// Ends everything that is not complete: samples on their way keep their text, the others are empty.
    fn abandon(&mut self, reason: FinishReason) -> Result<()> {
        let running = self.slots.iter_mut().filter_map(|slot| slot.sample.take());
        let mut left: Vec<Sample<'r>> = running.chain(std::mem::take(&mut self.parked)).collect();
        for index in self.started..self.request.n {
            left.push(self.new_sample(index)?);
        }
        for mut sample in left {
            let reason = flush(&mut sample, reason, &mut self.out);
            self.out.finish(sample, reason);
        }
        for seq in 0..self.n_seq {
            self.decoder.rewind(seq as SeqId, 0)?;
        }
        Ok(())
    }
}

/// Lets out the text of a sample that was held back. A stop that is complete in it makes the reason
/// [`FinishReason::Stop`].
fn flush(sample: &mut Sample<'_>, reason: FinishReason, out: &mut Output<'_>) -> FinishReason {
    let mut piece = String::new();
    sample.utf8.finish(&mut piece);
    let mut scanned = sample.scanner.push(&piece);
    if let Scanned::Text(text) = &scanned {
        out.emit(sample, text);
        scanned = sample.scanner.finish();
    }
    match scanned {
        Scanned::Text(text) => {
            out.emit(sample, &text);
            reason
        }
        Scanned::Stopped(text) => {
            out.emit(sample, &text);
            FinishReason::Stop
        }
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod toy;
