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

#[cfg(test)]
mod tests {
    use super::*;

    /// Text, a control token, the end of text, another control token.
    struct Four;

    impl Tokenizer for Four {
        fn encode(&self, _: &str) -> Result<Vec<TokenId>> {
            Ok(vec![0])
        }
        fn token_bytes(&self, token: TokenId) -> Vec<u8> {
            if token == 0 { b"x".to_vec() } else { Vec::new() }
        }
        fn is_end(&self, token: TokenId) -> bool {
            token == 2
        }
        fn is_sampleable(&self, token: TokenId) -> bool {
            token == 0 || token == 2
        }
        fn vocab_size(&self) -> usize {
            4
        }
    }

    #[test]
    fn more_tokens_end_a_text() {
        let with = WithEnds::new(&Four, &[1], &[3]);
        let facts = |of: &dyn Tokenizer| {
            (0..4).map(|token| (of.is_end(token), of.is_sampleable(token))).collect::<Vec<_>>()
        };
        assert_eq!(facts(&Four), [(false, true), (false, false), (true, true), (false, false)]);
        assert_eq!(facts(&with), [(false, true), (true, true), (true, true), (false, true)]);
        assert_eq!((with.token_bytes(0), with.token_bytes(3)), (b"x".to_vec(), Vec::new()));
        assert!(WithEnds::new(&Four, &[0], &[]).token_bytes(0).is_empty());
    }
}
