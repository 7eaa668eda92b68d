//! Prompts that stay in a decoder from one call to the next, so that what a new prompt shares with them is not read again.

use super::{Decoder, SeqId, TokenId};
use crate::Result;

/// A shorter beginning is read as quickly as it is found.
pub(super) const WORTH_SHARING: usize = 16;

/// Tokens that two texts begin with alike.
pub(super) fn common(a: &[TokenId], b: &[TokenId]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// The prompts of the last calls, each in a sequence of the decoder that nobody else uses; the least recently used ones
/// go first when there are too many or they have too many tokens.
///
/// What is read after a shared beginning is computed in other batches than the whole prompt would be. The logits may then
/// differ in their last bits from those of an empty cache, as they do for any other shape of a batch.
#[derive(Debug)]
pub struct PrefixCache {
    /// Least recently used first.
    entries: Vec<Entry>,
    /// Sequences that are free.
    free: Vec<SeqId>,
    max_tokens: usize,
}

#[derive(Debug)]
struct Entry {
    seq: SeqId,
    tokens: Vec<TokenId>,
}

impl PrefixCache {
    /// A cache in the last `sequences` sequences of a decoder that has `of` (the others are left to the samples), of
    /// `max_tokens` tokens over all prompts. One sequence at least is left.
    pub fn new(sequences: usize, of: usize, max_tokens: usize) -> Self {
        let first = of.saturating_sub(sequences).max(1);
        Self { entries: Vec::new(), free: (first..of).map(|seq| seq as SeqId).collect(), max_tokens }
    }

    /// Sequences that belong to the cache.
    pub fn sequences(&self) -> usize {
        self.free.len() + self.entries.len()
    }

    /// The prompts it holds, the most recently used last, and where.
    pub fn prompts(&self) -> impl Iterator<Item = (SeqId, &[TokenId])> {
        self.entries.iter().map(|entry| (entry.seq, entry.tokens.as_slice()))
    }

    /// Tokens of all prompts together; cells that two of them share are counted twice.
    pub fn tokens(&self) -> usize {
        self.entries.iter().map(|entry| entry.tokens.len()).sum()
    }

    /// The sequence with the longest beginning of `prompt`, and how many tokens that is; it counts as used now.
    pub(super) fn find(&mut self, prompt: &[TokenId]) -> Option<(SeqId, usize)> {
        let shared = |entry: &Entry| common(&entry.tokens, prompt);
        let (shared, at) = (0..self.entries.len()).map(|i| (shared(&self.entries[i]), i)).max()?;
        if shared < WORTH_SHARING {
            return None;
        }
        let entry = self.entries.remove(at);
        let seq = entry.seq;
        self.entries.push(entry);
        Some((seq, shared))
    }

    /// Keeps `prompt`, which `seq` holds. A prompt that begins it makes room for it.
    pub(super) fn keep(&mut self, decoder: &mut dyn Decoder, prompt: &[TokenId], seq: SeqId) -> Result<()> {
        if let Some(at) = self.entries.iter().position(|entry| entry.tokens.starts_with(prompt)) {
            let entry = self.entries.remove(at);
            self.entries.push(entry);
            return Ok(());
        }
        let Some(to) = self.room(decoder, prompt)? else {
            return Ok(());
        };
        decoder.fork(seq, to)?;
        self.entries.push(Entry { seq: to, tokens: prompt.to_vec() });
        Ok(())
    }

    /// Takes in a prompt that was put into a free sequence by `fill`, from elsewhere; false where it is too long.
    ///
    /// # Errors
    /// What `fill` says; the sequence is free again.
    pub fn adopt(
        &mut self,
        decoder: &mut dyn Decoder,
        prompt: &[TokenId],
        fill: impl FnOnce(&mut dyn Decoder, SeqId) -> Result<()>,
    ) -> Result<bool> {
        let Some(to) = self.room(decoder, prompt)? else {
            return Ok(false);
        };
        if let Err(error) = fill(decoder, to) {
            self.free.push(to);
            return Err(error);
        }
        self.entries.push(Entry { seq: to, tokens: prompt.to_vec() });
        Ok(true)
    }

    /// A free sequence for `prompt`, made by dropping what it begins with and what was not used for longest; `None` where
    /// the prompt is longer than the cache.
    fn room(&mut self, decoder: &mut dyn Decoder, prompt: &[TokenId]) -> Result<Option<SeqId>> {
        if prompt.len() > self.max_tokens || self.sequences() == 0 {
            return Ok(None);
        }
        if let Some(at) = self.entries.iter().position(|entry| prompt.starts_with(&entry.tokens)) {
            self.drop_entry(decoder, at)?;
        }
        while self.free.is_empty() || self.tokens() + prompt.len() > self.max_tokens {
            self.drop_entry(decoder, 0)?;
        }
        Ok(self.free.pop())
    }

    /// Gives up everything, for want of cells. False where there was nothing.
    pub(super) fn clear(&mut self, decoder: &mut dyn Decoder) -> Result<bool> {
        let held = !self.entries.is_empty();
        while !self.entries.is_empty() {
            self.drop_entry(decoder, 0)?;
        }
        Ok(held)
    }

    fn drop_entry(&mut self, decoder: &mut dyn Decoder, at: usize) -> Result<()> {
        let entry = self.entries.remove(at);
        decoder.rewind(entry.seq, 0)?;
        self.free.push(entry.seq);
        Ok(())
    }
}
