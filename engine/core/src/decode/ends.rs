//! A tokenizer under which more tokens end a text than the model's own.

use super::{TokenId, Tokenizer};
use crate::Result;

/// A tokenizer for one kind of request: some control tokens end a completion (the markers of infilling, the end of a turn),
/// and some may be written without standing for text.
pub struct WithEnds<'t> {
    inner: &'t dyn Tokenizer,
    ends: &'t [TokenId],
    silent: &'t [TokenId],
}

impl<'t> WithEnds<'t> {
    /// `ends` end a text as well; `silent` tokens may be sampled and give no text.
    pub fn new(inner: &'t dyn Tokenizer, ends: &'t [TokenId], silent: &'t [TokenId]) -> Self {
        Self { inner, ends, silent }
    }
}

impl Tokenizer for WithEnds<'_> {
    fn encode(&self, text: &str) -> Result<Vec<TokenId>> {
        self.inner.encode(text)
    }

    fn token_bytes(&self, token: TokenId) -> Vec<u8> {
        let no_text = self.is_end(token) || self.silent.contains(&token);
        if no_text { Vec::new() } else { self.inner.token_bytes(token) }
    }

    fn is_end(&self, token: TokenId) -> bool {
        self.inner.is_end(token) || self.ends.contains(&token)
    }

    fn is_sampleable(&self, token: TokenId) -> bool {
        self.inner.is_sampleable(token) || self.ends.contains(&token) || self.silent.contains(&token)
    }

    fn vocab_size(&self) -> usize {
        self.inner.vocab_size()
    }
}
