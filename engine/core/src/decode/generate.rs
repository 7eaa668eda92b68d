//! The decode loop: any number of requests over one decoder, each with one prefill of its prompt and n samples side by
//! side. [`serve`] is the loop; [`generate`] is the loop for one request.
//!
//! A sample depends on (prompt, parameters, seed, its index) and on nothing else: it has its own stream of random
//! numbers, sees only its own tokens, and is cut by its own text. Neither n, nor what else is served, nor the number of
//! sequences that fit side by side changes what is asked of the model for it. What a backend answers may differ in the last
//! bits with the shape of the batch and the place of the cells (sums in another order); such a difference changes a sample
//! only where a draw falls within it. The schedule is a function of the requests and the decoder's size alone, never of
//! time, so the same requests on the same machine repeat exactly.

mod request;
mod sample;
mod schedule;
mod slots;

use std::ops::ControlFlow;

pub use request::{Completion, Event, FinishReason, Generation, MAX_SAMPLES, Request};
use schedule::Schedule;

use super::prefix::PrefixCache;
use super::{CancelToken, Decoder, Tokenizer};
use crate::{Error, ErrorKind, Result};

/// Where the requests of [`serve`] come from, and where what becomes of them goes.
pub trait Client {
    /// The next request; `None`: there are no more. It is called when there is room to begin one, so that the requests
    /// may be any number and made as they are needed.
    ///
    /// # Errors
    /// Whatever keeps the client from going on; [`serve`] ends with it.
    fn next(&mut self) -> Result<Option<Request>>;

    /// Something happened in request number `request` (they are counted from 0 as they come). `Break` ends all of them as
    /// a cancel does.
    fn event(&mut self, request: usize, event: Event<'_>) -> ControlFlow<()>;

    /// A request is complete, or was refused: out of range, or a prompt without room. Requests end in any order.
    ///
    /// # Errors
    /// Whatever keeps the client from going on; [`serve`] ends with it. An answer of `Ok` to a refusal goes on with the
    /// others.
    fn done(&mut self, request: usize, outcome: Result<Generation>) -> Result<()>;
}

/// Serves requests until the client has no more: as many samples side by side as the decoder has sequences, those of the
/// earlier requests first. Where one ends the next begins, of the same request or of the next, whose prompt is read a bounded
/// piece at a time between the others' tokens. A prompt is read only past what another in the decoder begins with. Where
/// the KV cache runs short the youngest samples wait. All sequences but the cache's are overwritten, and empty afterwards.
///
/// A cancel, a deadline, or an event answered by `Break` ends every sample that is not complete yet: it keeps its text so
/// far and has the finish reason [`FinishReason::Cancelled`] or [`FinishReason::Deadline`]. No further request is taken.
///
/// With a cache, what a prompt begins with is taken from it too, and prompts are kept in it; its sequences are left alone
/// otherwise. An encoder reads every prompt as a whole, one request after another: nothing is shared then.
///
/// The answer is why it ended before the client had no more, if it did.
///
/// # Errors
/// Those of the client; a failing backend ([`ErrorKind::Backend`]), after which decoder and cache must be dropped.
pub fn serve(
    decoder: &mut dyn Decoder,
    cache: Option<&mut PrefixCache>,
    tokenizer: &dyn Tokenizer,
    client: &mut dyn Client,
    cancel: &CancelToken,
) -> Result<Option<FinishReason>> {
    Schedule::new(decoder, cache, tokenizer, client, cancel).run()
}

/// Generates `request.n` samples, as [`serve`] does.
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
    Single::serve(decoder, None, tokenizer, request, cancel, on_event)
}

/// The same with a cache of prompts.
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
    Single::serve(decoder, Some(cache), tokenizer, request, cancel, on_event)
}

/// A client with one request.
struct Single<'r, 'e> {
    request: Option<&'r Request>,
    on_event: &'e mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    generation: Option<Generation>,
}

impl Single<'_, '_> {
    fn serve(
        decoder: &mut dyn Decoder,
        cache: Option<&mut PrefixCache>,
        tokenizer: &dyn Tokenizer,
        request: &Request,
        cancel: &CancelToken,
        on_event: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<Generation> {
        let mut single = Single { request: Some(request), on_event, generation: None };
        serve(decoder, cache, tokenizer, &mut single, cancel)?;
        single.generation.ok_or_else(|| Error::new(ErrorKind::Internal, "the request was not answered"))
    }
}

impl Client for Single<'_, '_> {
    fn next(&mut self) -> Result<Option<Request>> {
        Ok(self.request.take().cloned())
    }

    fn event(&mut self, _request: usize, event: Event<'_>) -> ControlFlow<()> {
        (self.on_event)(event)
    }

    fn done(&mut self, _request: usize, outcome: Result<Generation>) -> Result<()> {
        self.generation = Some(outcome?);
        Ok(())
    }
}

/// The way to the client, and whether it or the cancel token wants everything to end.
struct Output<'c> {
    client: &'c mut dyn Client,
    halted: Option<FinishReason>,
}

impl Output<'_> {
    fn event(&mut self, job: usize, event: Event<'_>) {
        if self.client.event(job, event).is_break() && self.halted.is_none() {
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

#[cfg(test)]
mod serve_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod toy;
