//! What runs in which sequence, pass by pass.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use rayon::prelude::*;

use super::sample::Sample;
use super::slots::{PROMPT_PIECE, Slots, Work};
use super::{Client, Completion, Event, FinishReason, Generation, Output, Request};
use crate::decode::prefix::PrefixCache;
use crate::decode::{CancelToken, Decoder, Feed, TokenId, TokenSet, Tokenizer};
use crate::{Error, ErrorKind, Result};

/// A request that was taken and is not complete.
struct Job {
    request: Arc<Request>,
    /// What its samples may draw.
    allowed: Arc<TokenSet>,
    prompt: Prompt,
    /// Tokens of the prompt that the decoder held already.
    shared: usize,
    /// Samples begun so far; the next one has this index.
    started: usize,
    completions: Vec<Completion>,
    seconds_prefill: f64,
}

/// How far the prompt of a job is.
enum Prompt {
    Waiting,
    Reading {
        since: Instant,
    },
    /// The first token of every sample is drawn from these logits.
    Read {
        logits: Vec<f32>,
        at: Instant,
    },
}

pub(super) struct Schedule<'r> {
    slots: Slots<'r>,
    tokenizer: &'r dyn Tokenizer,
    cancel: &'r CancelToken,
    out: Output<'r>,
    /// What every request may draw.
    allowed: Arc<TokenSet>,
    context_length: usize,
    /// By number.
    jobs: BTreeMap<usize, Job>,
    n_taken: usize,
    /// The client has no more requests.
    exhausted: bool,
    /// Samples that had to leave the cache for want of cells, by request and index.
    parked: BTreeMap<(usize, usize), Box<Sample>>,
    /// Cells that were in use when the cache was found to be full: what is counted on from then.
    capacity: Option<usize>,
    /// The cache was full, and no pass has succeeded since.
    stalled: bool,
    /// Complete samples, and their tokens together.
    lengths: (usize, usize),
}

impl<'r> Schedule<'r> {
    pub(super) fn new(
        decoder: &'r mut dyn Decoder,
        cache: Option<&'r mut PrefixCache>,
        tokenizer: &'r dyn Tokenizer,
        client: &'r mut dyn Client,
        cancel: &'r CancelToken,
    ) -> Self {
        Self {
            context_length: decoder.context_length(),
            slots: Slots::new(decoder, cache),
            tokenizer,
            cancel,
            out: Output { client, halted: None },
            allowed: Arc::new(TokenSet::sampleable(tokenizer)),
            jobs: BTreeMap::new(),
            n_taken: 0,
            exhausted: false,
            parked: BTreeMap::new(),
            capacity: None,
            stalled: false,
            lengths: (0, 0),
        }
    }

    pub(super) fn run(mut self) -> Result<Option<FinishReason>> {
        self.clear()?;
        let served = self.pass_by_pass();
        // A backend that failed is not touched again; anything else leaves a decoder that goes on.
        if !served.as_ref().is_err_and(|error| error.kind() == ErrorKind::Backend) {
            self.clear()?;
        }
        served.map(|()| self.out.halted)
    }

    fn clear(&mut self) -> Result<()> {
        (0..self.slots.slots.len()).try_for_each(|i| self.slots.clear(i).map(drop))
    }

    fn pass_by_pass(&mut self) -> Result<()> {
        loop {
            self.fill()?;
            if let Some(reason) = self.out.halted {
                return self.abandon(reason);
            }
            if self.jobs.is_empty() {
                return Ok(());
            }
            self.pass()?;
        }
    }

    /// Gives idle slots work: samples that had to wait, then new samples of the requests at hand, the first first, then the
    /// prompt of another request.
    fn fill(&mut self) -> Result<()> {
        while self.out.halted.is_none() && self.slots.n_idle() > 0 {
            if let Some((&key, sample)) = self.parked.iter().next() {
                let (tokens, most) = (sample.tokens.len(), sample.request.max_tokens);
                let needed = sample.request.prompt.len() + tokens + self.growth(tokens, most);
                if !self.has_room(needed)? {
                    return Ok(());
                }
                if let Some(sample) = self.parked.remove(&key) {
                    self.begin(sample)?;
                }
            } else if let Some(job) = self.next_with_samples() {
                if !self.start_sample(job)? {
                    return Ok(());
                }
            } else if !self.next_prompt()? {
                return Ok(());
            }
        }
        Ok(())
    }

    fn next_with_samples(&self) -> Option<usize> {
        let left = |job: &Job| matches!(job.prompt, Prompt::Read { .. }) && job.started < job.request.n;
        self.jobs.iter().find(|(_, job)| left(job)).map(|(number, _)| *number)
    }

    /// Begins the next sample of a job with its first token. One that is over with it makes room for another at once.
    fn start_sample(&mut self, number: usize) -> Result<bool> {
        let Some(request) = self.jobs.get(&number).map(|job| Arc::clone(&job.request)) else {
            return Ok(false);
        };
        if !self.has_room(self.growth(0, request.max_tokens))? {
            return Ok(false);
        }
        let Some(Job { prompt: Prompt::Read { logits, .. }, started, allowed, .. }) =
            self.jobs.get_mut(&number)
        else {
            return Ok(false);
        };
        let mut sample = Sample::new(number, &request, allowed, *started)?;
        *started += 1;
        let token = sample.draw(logits)?;
        match sample.take(token, self.tokenizer, self.context_length, &mut self.out) {
            Some(reason) => self.complete(sample, reason)?,
            None => self.begin(Box::new(sample))?,
        }
        Ok(true)
    }

    /// Gives a sample an idle slot.
    fn begin(&mut self, sample: Box<Sample>) -> Result<()> {
        let request = Arc::clone(&sample.request);
        let Some(i) = self.slots.idle(&request) else {
            self.parked.insert((sample.job, sample.index), sample);
            return Ok(());
        };
        self.slots.place(i, &request, request.prompt.len())?;
        self.slots.slots[i].work = Work::Sample(sample);
        Ok(())
    }

    /// Begins to read a prompt, where there will be idle slots beside those for the samples of the jobs at hand.
    fn next_prompt(&mut self) -> Result<bool> {
        let waiting = self
            .jobs
            .iter()
            .find(|(_, job)| matches!(job.prompt, Prompt::Waiting))
            .map(|(number, _)| *number);
        let number = match waiting {
            Some(number) => number,
            None => {
                // The slot that reads a prompt goes on with its first sample.
                let expected: usize =
                    self.jobs.values().map(|job| (job.request.n - job.started).saturating_sub(1)).sum();
                if self.exhausted || expected >= self.slots.n_idle() {
                    return Ok(false);
                }
                let Some(request) = self.out.client.next()? else {
                    self.exhausted = true;
                    return Ok(false);
                };
                let number = self.n_taken;
                self.n_taken += 1;
                if let Err(error) = request.check(&*self.slots.decoder, self.tokenizer) {
                    self.out.client.done(number, Err(error))?;
                    return Ok(true);
                }
                self.jobs.insert(number, Job::new(request, &self.allowed));
                number
            }
        };
        let Some(job) = self.jobs.get(&number) else { return Ok(false) };
        let request = Arc::clone(&job.request);
        if self.slots.whole_prompts {
            // An encoder's output serves one prompt, and idle sequences would have it read theirs again.
            if self.jobs.len() > 1 {
                return Ok(false);
            }
            self.slots.clear_idle()?;
        }
        let needed = request.prompt.len() + self.growth(0, request.max_tokens);
        if self.slots.better_to_wait(&request) || !self.has_room(needed)? {
            return Ok(false);
        }
        let Some(i) = self.slots.idle(&request) else { return Ok(false) };
        // Never all of it, since the logits after its last token are wanted.
        let shared = self.slots.place(i, &request, request.prompt.len() - 1)?;
        self.slots.slots[i].work = Work::Prompt(number);
        if let Some(job) = self.jobs.get_mut(&number) {
            job.shared = shared;
            job.prompt = Prompt::Reading { since: Instant::now() };
        }
        Ok(true)
    }

    /// Tokens that a sample which has `tokens` of at most `most` is likely to grow by: to the mean of the complete ones.
    fn growth(&self, tokens: usize, most: usize) -> usize {
        let (n, sum) = self.lengths;
        let rest = most.saturating_sub(tokens);
        match sum.checked_div(n) {
            None => rest,
            Some(mean) if mean > tokens => rest.min(mean - tokens),
            Some(_) => rest.div_ceil(2),
        }
    }

    /// Whether `cells` more will do, beside what the work under way waits to be fed and is likely to grow by. The cache's
    /// size is known once it was full.
    fn has_room(&mut self, cells: usize) -> Result<bool> {
        let Some(capacity) = self.capacity else {
            return Ok(true);
        };
        let mut working = false;
        let mut growth = 0;
        for slot in self.slots.slots.iter().filter(|slot| !slot.is_idle()) {
            working = true;
            growth += slot.target().saturating_sub(self.slots.held(slot));
            if let Work::Sample(sample) = &slot.work {
                growth += self.growth(sample.tokens.len(), sample.request.max_tokens);
            }
        }
        if self.stalled && working {
            return Ok(false);
        }
        let fits = |slots: &Slots<'_>| slots.cells() + growth + cells <= capacity;
        Ok(!working || fits(&self.slots) || (self.slots.clear_idle()? && fits(&self.slots)))
    }

    /// One forward pass: every sample grows by a token, and prompts by a piece.
    fn pass(&mut self) -> Result<()> {
        if let Err(error) = self.cancel.check() {
            return self.out.halt_or_fail(error);
        }
        let fed = self.fed();
        if fed.is_empty() {
            return Err(Error::new(ErrorKind::Internal, "requests are left and none can go on"));
        }
        let slots = &mut self.slots;
        let feeds: Vec<Feed<'_>> = fed
            .iter()
            .map(|&i| {
                let slot = &slots.slots[i];
                Feed { seq: slot.seq, tokens: slot.pending(slots.decoder.len(slot.seq), slots.whole_prompts) }
            })
            .collect();
        match slots.decoder.feed(&feeds, self.cancel) {
            Ok(()) => self.stalled = false,
            Err(error) if error.kind() == ErrorKind::LimitExceeded => return self.make_room(&fed, error),
            Err(error) => return self.out.halt_or_fail(error),
        }
        // Those that hold all their tokens now, with the place of their logits.
        let ready: Vec<(usize, usize)> = fed
            .into_iter()
            .enumerate()
            .filter(|&(_, i)| slots.held(&slots.slots[i]) == slots.slots[i].target())
            .collect();
        for &(row, i) in &ready {
            if let Work::Prompt(number) = self.slots.slots[i].work {
                self.prompt_is_read(number, row, i)?;
            }
        }
        for (i, token) in self.draw(&ready)? {
            let Work::Sample(sample) = &mut self.slots.slots[i].work else { continue };
            let ended = sample.take(token, self.tokenizer, self.context_length, &mut self.out);
            if let Some(reason) = ended {
                self.end(i, reason)?;
            }
            if self.out.halted.is_some() {
                break;
            }
        }
        Ok(())
    }

    /// The slots that are fed in a pass: all that lack one token, and as many of those that lack more as the bound on prompts
    /// lets pass, the oldest first.
    fn fed(&self) -> Vec<usize> {
        let pending = |i: usize| {
            let slot = &self.slots.slots[i];
            slot.pending(self.slots.held(slot), self.slots.whole_prompts).len()
        };
        let (mut fed, mut long): (Vec<usize>, Vec<usize>) =
            (0..self.slots.slots.len()).filter(|&i| pending(i) > 0).partition(|&i| pending(i) == 1);
        long.sort_unstable_by_key(|&i| self.slots.slots[i].age());
        let mut n_tokens = 0;
        for i in long {
            if n_tokens > 0 && n_tokens + pending(i) > PROMPT_PIECE {
                break;
            }
            n_tokens += pending(i);
            fed.push(i);
        }
        fed.sort_unstable();
        fed
    }

    fn prompt_is_read(&mut self, number: usize, row: usize, i: usize) -> Result<()> {
        let logits = self.slots.decoder.logits(row)?.to_vec();
        let Some(job) = self.jobs.get_mut(&number) else { return Ok(()) };
        let now = Instant::now();
        if let Prompt::Reading { since } = job.prompt {
            job.seconds_prefill = now.duration_since(since).as_secs_f64();
        }
        job.prompt = Prompt::Read { logits, at: now };
        let seq = self.slots.slots[i].seq;
        self.slots.slots[i].work = Work::Idle;
        if let Some(cache) = &mut self.slots.cache {
            cache.keep(self.slots.decoder, &job.request.prompt, seq)?;
        }
        Ok(())
    }

    /// Draws the next token of each sample among `ready` (rows of logits and their slots), on all cores: a row is a whole
    /// vocabulary, and the samplers share nothing.
    fn draw(&mut self, ready: &[(usize, usize)]) -> Result<Vec<(usize, TokenId)>> {
        let Slots { decoder, slots, .. } = &mut self.slots;
        let mut rows = ready.iter();
        let mut next = rows.next();
        let mut draws = Vec::with_capacity(ready.len());
        for (i, slot) in slots.iter_mut().enumerate() {
            let Some(&(row, _)) = next.filter(|(_, at)| *at == i) else { continue };
            next = rows.next();
            if let Work::Sample(sample) = &mut slot.work {
                draws.push((i, sample, decoder.logits(row)?));
            }
        }
        let draw = |(i, sample, row): (usize, &mut Box<Sample>, &[f32])| Ok((i, sample.draw(row)?));
        // One draw is not worth waking another thread.
        match draws.len() {
            0 | 1 => draws.into_iter().map(draw).collect(),
            _ => draws.into_par_iter().map(draw).collect(),
        }
    }

    /// The cache has no cells for the slots `fed`. Idle prompts go first, then those of other calls; then the youngest work
    /// waits until others have ended. Work that is alone and finds no room ends.
    fn make_room(&mut self, fed: &[usize], error: Error) -> Result<()> {
        if self.slots.clear_idle()? {
            return Ok(());
        }
        let Slots { cache, decoder, .. } = &mut self.slots;
        if let Some(cache) = cache
            && cache.clear(*decoder)?
        {
            return Ok(());
        }
        let in_the_way = |i: &usize| {
            let slot = &self.slots.slots[*i];
            !slot.is_idle() && (self.slots.held(slot) > 0 || fed.contains(i))
        };
        let takers: Vec<usize> = (0..self.slots.slots.len()).filter(in_the_way).collect();
        let Some(&youngest) = takers.iter().max_by_key(|&&i| self.slots.slots[i].age()) else {
            return Err(error);
        };
        let alone = takers.len() == 1;
        // A decoder may need more cells than are counted here; then less is counted on every time.
        let in_use = self.slots.cells();
        self.capacity = Some(self.capacity.map_or(in_use, |capacity| in_use.max(capacity - capacity / 16)));
        self.stalled = true;
        tracing::debug!(cells = in_use, "the KV cache is full: fewer samples side by side");
        if alone && matches!(self.slots.slots[youngest].work, Work::Sample(_)) {
            return self.end_of_room(youngest);
        }
        match self.slots.clear(youngest)? {
            Work::Idle => {}
            Work::Prompt(number) if alone => {
                self.jobs.remove(&number);
                self.out.client.done(number, Err(error))?;
            }
            Work::Prompt(number) => {
                if let Some(job) = self.jobs.get_mut(&number) {
                    job.prompt = Prompt::Waiting;
                }
            }
            Work::Sample(sample) => {
                self.parked.insert((sample.job, sample.index), sample);
            }
        }
        Ok(())
    }

    fn end_of_room(&mut self, i: usize) -> Result<()> {
        let Work::Sample(sample) = &mut self.slots.slots[i].work else { return Ok(()) };
        let reason = sample.flush(FinishReason::ContextFull, &mut self.out);
        self.end(i, reason)
    }

    /// Takes the sample out of slot `i`, which keeps the bare prompt.
    fn end(&mut self, i: usize, reason: FinishReason) -> Result<()> {
        match self.slots.free(i)? {
            Work::Sample(sample) => self.complete(*sample, reason),
            _ => Ok(()),
        }
    }

    fn complete(&mut self, sample: Sample, reason: FinishReason) -> Result<()> {
        let number = sample.job;
        let completion = sample.complete(reason);
        self.lengths = (self.lengths.0 + 1, self.lengths.1 + completion.completion_tokens);
        self.out.event(number, Event::Finished(&completion));
        let Some(job) = self.jobs.get_mut(&number) else { return Ok(()) };
        job.completions.push(completion);
        if job.completions.len() < job.request.n {
            return Ok(());
        }
        match self.jobs.remove(&number) {
            Some(job) => self.out.client.done(number, Ok(job.finish())),
            None => Ok(()),
        }
    }

    /// Ends everything that is not complete: samples on their way keep their text, the others are empty.
    fn abandon(&mut self, reason: FinishReason) -> Result<()> {
        let mut left = std::mem::take(&mut self.parked);
        for slot in &mut self.slots.slots {
            if let Work::Sample(sample) = std::mem::replace(&mut slot.work, Work::Idle) {
                left.insert((sample.job, sample.index), sample);
            }
        }
        for (number, job) in &mut self.jobs {
            for index in job.started..job.request.n {
                left.insert(
                    (*number, index),
                    Box::new(Sample::new(*number, &job.request, &job.allowed, index)?),
                );
            }
            job.started = job.request.n;
        }
        for mut sample in left.into_values() {
            let reason = sample.flush(reason, &mut self.out);
            self.complete(*sample, reason)?;
        }
        Ok(())
    }
}

impl Job {
    /// `allowed` is what every request may draw.
    fn new(request: Request, allowed: &Arc<TokenSet>) -> Self {
        let more = request.ends.iter().chain(&request.silent);
        let allowed = match more.clone().next() {
            None => Arc::clone(allowed),
            Some(_) => {
                let mut allowed = TokenSet::clone(allowed);
                more.for_each(|token| allowed.insert(*token));
                Arc::new(allowed)
            }
        };
        Self {
            allowed,
            completions: Vec::with_capacity(request.n),
            request: Arc::new(request),
            prompt: Prompt::Waiting,
            shared: 0,
            started: 0,
            seconds_prefill: 0.0,
        }
    }

    fn finish(mut self) -> Generation {
        self.completions.sort_unstable_by_key(|completion| completion.index);
        let (seconds_prefill, seconds_decode) = match self.prompt {
            Prompt::Waiting => (0.0, 0.0),
            Prompt::Reading { since } => (since.elapsed().as_secs_f64(), 0.0),
            Prompt::Read { at, .. } => (self.seconds_prefill, at.elapsed().as_secs_f64()),
        };
        Generation {
            completions: self.completions,
            prompt_tokens: self.request.prompt.len(),
            prompt_tokens_shared: self.shared,
            seconds_prefill,
            seconds_decode,
        }
    }
}
