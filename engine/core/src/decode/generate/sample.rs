//! One sample on its way: its draws, its text, and where it ends.

use std::sync::Arc;

use super::{Completion, Event, FinishReason, Output, Request};
use crate::Result;
use crate::decode::constraint::{self, Guard};
use crate::decode::sampler::log_probability;
use crate::decode::stop::{Scanned, StopScanner};
use crate::decode::utf8::Utf8Stream;
use crate::decode::{Sampler, TokenId, TokenSet, Tokenizer};

/// A sample that is not complete. Its KV cells can be rebuilt at any time, from the prompt and its tokens.
pub(super) struct Sample {
    /// The number of its request.
    pub(super) job: usize,
    pub(super) index: usize,
    pub(super) request: Arc<Request>,
    allowed: Arc<TokenSet>,
    /// Drawn so far, the last of them perhaps not in the KV cache yet.
    pub(super) tokens: Vec<TokenId>,
    sampler: Sampler,
    guard: Option<Box<dyn Guard>>,
    utf8: Utf8Stream,
    scanner: StopScanner,
    text: String,
    /// Bytes still to come that belong to the prompt.
    healing: usize,
    /// Tokens that held nothing but such bytes: the first ones.
    healed: usize,
    /// Of `tokens`, where they are wanted.
    log_probabilities: Option<Vec<f32>>,
}

impl Sample {
    pub(super) fn new(
        job: usize,
        request: &Arc<Request>,
        allowed: &Arc<TokenSet>,
        index: usize,
    ) -> Result<Self> {
        let mut params = request.params.clone();
        if request.greedy_first && index == 0 {
            params.temperature = 0.0;
        }
        let mut sampler = Sampler::new(&params, request.seed, index)?;
        sampler.observe(&request.prompt);
        Ok(Self {
            job,
            index,
            request: Arc::clone(request),
            allowed: Arc::clone(allowed),
            tokens: Vec::new(),
            sampler,
            guard: request.constraint.as_ref().map(|constraint| constraint.begin()),
            utf8: Utf8Stream::default(),
            scanner: StopScanner::new(&request.stops),
            text: String::new(),
            healing: request.healed,
            healed: 0,
            log_probabilities: request.log_probabilities.then(Vec::new),
        })
    }

    /// Draws a token from `logits` among those that the request allows and its constraint leaves.
    pub(super) fn draw(&mut self, logits: &[f32]) -> Result<TokenId> {
        let allowed = self.allowed.as_ref();
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

    /// Takes the token that was drawn. Why the sample ends with it, if it does; its text is whole then.
    pub(super) fn take(
        &mut self,
        token: TokenId,
        tokenizer: &dyn Tokenizer,
        context_length: usize,
        out: &mut Output<'_>,
    ) -> Option<FinishReason> {
        if tokenizer.is_end(token) || self.request.ends.contains(&token) {
            // It is no token of the completion.
            if let Some(values) = &mut self.log_probabilities {
                values.pop();
            }
            return Some(self.flush(FinishReason::EndOfText, out));
        }
        self.tokens.push(token);
        let mut piece = String::new();
        if !self.request.silent.contains(&token) {
            let bytes = tokenizer.token_bytes(token);
            let prompts = bytes.len().min(self.healing);
            self.healing -= prompts;
            if prompts > 0 && prompts == bytes.len() {
                self.healed += 1;
            }
            self.utf8.push(&bytes[prompts..], &mut piece);
        }
        match self.scanner.push(&piece) {
            Scanned::Text(text) => self.emit(&text, out),
            Scanned::Stopped(text) => {
                self.emit(&text, out);
                return Some(FinishReason::Stop);
            }
        }
        if self.tokens.len() - self.healed >= self.request.max_tokens {
            Some(self.flush(FinishReason::Length, out))
        } else if self.request.prompt.len() + self.tokens.len() > context_length {
            Some(self.flush(FinishReason::ContextFull, out))
        } else {
            None
        }
    }

    /// Lets out the text that was held back. A stop that is complete in it makes the reason [`FinishReason::Stop`].
    pub(super) fn flush(&mut self, reason: FinishReason, out: &mut Output<'_>) -> FinishReason {
        let mut piece = String::new();
        self.utf8.finish(&mut piece);
        let mut scanned = self.scanner.push(&piece);
        if let Scanned::Text(text) = &scanned {
            self.emit(text, out);
            scanned = self.scanner.finish();
        }
        match scanned {
            Scanned::Text(text) => {
                self.emit(&text, out);
                reason
            }
            Scanned::Stopped(text) => {
                self.emit(&text, out);
                FinishReason::Stop
            }
        }
    }

    /// Appends certain text and tells the caller.
    fn emit(&mut self, text: &str, out: &mut Output<'_>) {
        if !text.is_empty() {
            self.text.push_str(text);
            out.event(self.job, Event::Text { index: self.index, text });
        }
    }

    pub(super) fn complete(mut self, finish_reason: FinishReason) -> Completion {
        if let Some(values) = &mut self.log_probabilities {
            values.drain(..self.healed.min(values.len()));
        }
        Completion {
            index: self.index,
            text: self.text,
            finish_reason,
            completion_tokens: self.tokens.len() - self.healed,
            log_probabilities: self.log_probabilities,
        }
    }
}
