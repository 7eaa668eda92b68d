//! Sets of tokens: what may be sampled.

use super::{TokenId, Tokenizer};

/// A set of tokens as one bit each: what may be sampled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSet {
    words: Vec<u64>,
    vocab: usize,
}

impl TokenSet {
    /// The tokens below `vocab` for which `contains` holds.
    pub fn new(vocab: usize, contains: impl Fn(TokenId) -> bool) -> Self {
        let mut words = vec![0; vocab.div_ceil(64)];
        for token in 0..vocab {
            if contains(token as TokenId) {
                words[token / 64] |= 1 << (token % 64);
            }
        }
        Self { words, vocab }
    }

    /// Every token that a tokenizer lets be sampled: no padding, no unused or control token but the end of text.
    pub fn sampleable(tokenizer: &dyn Tokenizer) -> Self {
        Self::new(tokenizer.vocab_size(), |token| tokenizer.is_sampleable(token))
    }

    /// Whether `token` is in the set.
    pub fn contains(&self, token: TokenId) -> bool {
        let token = token as usize;
        token < self.vocab && self.words[token / 64] >> (token % 64) & 1 == 1
    }

    /// No token of a vocabulary of `vocab`.
    pub fn empty(vocab: usize) -> Self {
        Self { words: vec![0; vocab.div_ceil(64)], vocab }
    }

    /// Puts a token in; one beyond the vocabulary is left out.
    pub fn insert(&mut self, token: TokenId) {
        let token = token as usize;
        if token < self.vocab {
            self.words[token / 64] |= 1 << (token % 64);
        }
    }

    /// Takes a token out.
    pub fn remove(&mut self, token: TokenId) {
        let token = token as usize;
        if token < self.vocab {
            self.words[token / 64] &= !(1 << (token % 64));
        }
    }

    /// The tokens that are in both, of the smaller vocabulary of the two.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let words = self.words.iter().zip(&other.words).map(|(a, b)| a & b).collect();
        Self { words, vocab: self.vocab.min(other.vocab) }
    }

    /// Number of tokens in the set.
    pub fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The set as bits: token `t` is bit `t % 64` of word `t / 64`.
    pub(super) fn words(&self) -> &[u64] {
        &self.words
    }

    /// Tokens of the vocabulary, in the set or not: the length of the rows of logits it goes with.
    pub fn vocab_size(&self) -> usize {
        self.vocab
    }
}
