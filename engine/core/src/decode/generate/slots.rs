//! The sequences of the decoder that samples and prompts use, and what each of them holds.

use std::sync::Arc;

use super::Request;
use super::sample::Sample;
use crate::Result;
use crate::decode::prefix::{PrefixCache, WORTH_SHARING, common};
use crate::decode::{Decoder, SeqId, TokenId};

/// Tokens of prompts that one pass reads at most, beside one token for each sample. What is decoded meanwhile waits no
/// longer than these take.
pub(super) const PROMPT_PIECE: usize = 128;

/// A sequence of the decoder.
pub(super) struct Slot {
    pub(super) seq: SeqId,
    /// The request whose prompt, or a beginning of it, the sequence begins with. An idle slot keeps it, for others to
    /// share, until the sequence or its cells are wanted.
    pub(super) text: Option<Arc<Request>>,
    pub(super) work: Work,
}

/// What a sequence grows for.
pub(super) enum Work {
    Idle,
    /// The prompt of this request is being read.
    Prompt(usize),
    /// Boxed, since most slots of a small request are idle.
    Sample(Box<Sample>),
}

impl Slot {
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.work, Work::Idle)
    }

    /// The order in which work was begun: by request, its samples by index and its prompt before them. The last goes first
    /// when cells run short.
    pub(super) fn age(&self) -> Option<(usize, usize)> {
        match &self.work {
            Work::Idle => None,
            Work::Prompt(job) => Some((*job, 0)),
            Work::Sample(sample) => Some((sample.job, sample.index + 1)),
        }
    }

    /// Tokens that the sequence will hold when all is fed.
    pub(super) fn target(&self) -> usize {
        let prompt = self.text.as_ref().map_or(0, |request| request.prompt.len());
        match &self.work {
            Work::Idle => 0,
            Work::Prompt(_) => prompt,
            Work::Sample(sample) => prompt + sample.tokens.len(),
        }
    }

    /// The next tokens for the sequence, which holds `held`: a piece of what is missing.
    pub(super) fn pending(&self, held: usize, whole_prompts: bool) -> &[TokenId] {
        let (Some(request), false) = (&self.text, self.is_idle()) else {
            return &[];
        };
        let (rest, piece) = match (request.prompt.get(held..), &self.work) {
            (Some(rest), _) if !rest.is_empty() => {
                (rest, if whole_prompts { rest.len() } else { PROMPT_PIECE })
            }
            (_, Work::Sample(sample)) => {
                (sample.tokens.get(held - request.prompt.len()..).unwrap_or(&[]), PROMPT_PIECE)
            }
            _ => return &[],
        };
        &rest[..rest.len().min(piece)]
    }
}

/// All sequences but those of the prefix cache.
pub(super) struct Slots<'r> {
    pub(super) decoder: &'r mut dyn Decoder,
    pub(super) cache: Option<&'r mut PrefixCache>,
    pub(super) slots: Vec<Slot>,
    pub(super) whole_prompts: bool,
}

impl<'r> Slots<'r> {
    pub(super) fn new(decoder: &'r mut dyn Decoder, cache: Option<&'r mut PrefixCache>) -> Self {
        let whole_prompts = decoder.reads_prompt_whole();
        let cached = cache.as_ref().map_or(0, |cache| cache.sequences());
        let slots = (0..decoder.max_sequences() - cached)
            .map(|seq| Slot { seq: seq as SeqId, text: None, work: Work::Idle })
            .collect();
        Self { decoder, cache: cache.filter(|_| !whole_prompts), slots, whole_prompts }
    }

    pub(super) fn held(&self, slot: &Slot) -> usize {
        self.decoder.len(slot.seq)
    }

    /// An idle slot for `request`: one that holds its prompt, else an empty one, else any.
    pub(super) fn idle(&self, request: &Arc<Request>) -> Option<usize> {
        let preference = |slot: &Slot| match &slot.text {
            Some(text) if Arc::ptr_eq(text, request) => 0,
            None => 1,
            Some(_) => 2,
        };
        (0..self.slots.len()).filter(|&i| self.slots[i].is_idle()).min_by_key(|&i| preference(&self.slots[i]))
    }

    pub(super) fn n_idle(&self) -> usize {
        self.slots.iter().filter(|slot| slot.is_idle()).count()
    }

    /// Makes the idle slot `i` begin with as much of `request`'s prompt as any sequence holds, but at most `at_most`
    /// tokens; how many that is.
    pub(super) fn place(&mut self, i: usize, request: &Arc<Request>, at_most: usize) -> Result<usize> {
        let target = self.slots[i].seq;
        let mut best: Option<(usize, SeqId)> = None;
        for slot in &self.slots {
            let shared = self.shared(slot, request).min(at_most);
            let better = best.is_none_or(|(most, _)| shared > most || (shared == most && slot.seq == target));
            if better && (shared >= WORTH_SHARING || shared == request.prompt.len()) {
                best = Some((shared, slot.seq));
            }
        }
        if best.is_none_or(|(shared, _)| shared < at_most)
            && let Some((seq, shared)) = self.cache.as_mut().and_then(|cache| cache.find(&request.prompt))
            && best.is_none_or(|(most, _)| shared.min(at_most) > most)
        {
            best = Some((shared.min(at_most), seq));
        }
        let shared = best.map_or(0, |(shared, _)| shared);
        if let Some((_, from)) = best
            && from != target
        {
            self.decoder.fork(from, target)?;
        }
        self.decoder.rewind(target, shared)?;
        self.slots[i].text = Some(Arc::clone(request));
        Ok(shared)
    }

    /// Tokens at the beginning of `request`'s prompt that a slot's sequence holds.
    fn shared(&self, slot: &Slot, request: &Arc<Request>) -> usize {
        let Some(text) = &slot.text else { return 0 };
        let held = self.held(slot).min(text.prompt.len());
        if Arc::ptr_eq(text, request) {
            // Half an encoder's prompt is nothing.
            if self.whole_prompts && held < text.prompt.len() { 0 } else { held }
        } else if self.whole_prompts {
            0
        } else {
            common(&text.prompt[..held], &request.prompt)
        }
    }

    /// Whether a prompt that is being read will hold more of `request`'s beginning than anything does now.
    pub(super) fn better_to_wait(&self, request: &Arc<Request>) -> bool {
        let now = self.slots.iter().map(|slot| self.shared(slot, request)).max().unwrap_or(0);
        self.slots.iter().filter(|slot| matches!(slot.work, Work::Prompt(_))).any(|slot| {
            let text = slot.text.as_ref();
            text.is_some_and(|text| common(&text.prompt, &request.prompt) >= now + WORTH_SHARING)
        })
    }

    /// Ends the work of slot `i`, which keeps the prompt.
    pub(super) fn free(&mut self, i: usize) -> Result<Work> {
        let slot = &mut self.slots[i];
        let prompt = slot.text.as_ref().map_or(0, |text| text.prompt.len());
        self.decoder.rewind(slot.seq, prompt.min(self.decoder.len(slot.seq)))?;
        Ok(std::mem::replace(&mut slot.work, Work::Idle))
    }

    /// Empties slot `i`.
    pub(super) fn clear(&mut self, i: usize) -> Result<Work> {
        let slot = &mut self.slots[i];
        self.decoder.rewind(slot.seq, 0)?;
        slot.text = None;
        Ok(std::mem::replace(&mut slot.work, Work::Idle))
    }

    /// Empties the idle slots; false where they were.
    pub(super) fn clear_idle(&mut self) -> Result<bool> {
        let mut any = false;
        for i in 0..self.slots.len() {
            if self.slots[i].is_idle() && self.held(&self.slots[i]) > 0 {
                self.clear(i)?;
                any = true;
            }
        }
        Ok(any)
    }

    /// Cells in use, a beginning that sequences share counted once.
    pub(super) fn cells(&self) -> usize {
        let mut texts: Vec<&[TokenId]> =
            self.cache.iter().flat_map(|cache| cache.prompts().map(|(_, tokens)| tokens)).collect();
        let mut cells = self.cache.as_ref().map_or(0, |cache| cache.tokens());
        let mut requests: Vec<&Arc<Request>> = Vec::new();
        for slot in &self.slots {
            let Some(request) = &slot.text else { continue };
            let held = self.held(slot);
            let prompt = held.min(request.prompt.len());
            cells += held;
            // The sequences of one request share all of its prompt, or soon do.
            if requests.iter().any(|other| Arc::ptr_eq(other, request)) {
                cells -= prompt;
                continue;
            }
            let prompt = &request.prompt[..prompt];
            let shared = texts.iter().map(|text| common(text, prompt)).max().unwrap_or(0);
            cells -= if shared < WORTH_SHARING { 0 } else { shared };
            texts.push(prompt);
            requests.push(request);
        }
        cells
    }
}
