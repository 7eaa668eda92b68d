//! A tokenizer's vocabulary as a trie over bytes: the tokens in the order of their bytes, in which every prefix is a range.

use std::ops::Range;

use crate::decode::{TokenId, TokenSet, Tokenizer};

/// The sampleable tokens with their bytes; made once per tokenizer.
#[derive(Debug)]
pub struct Vocabulary {
    size: usize,
    /// Sampleable tokens with text, sorted by it.
    sorted: Vec<TokenId>,
    /// The text of token `t` is `bytes[offsets[t]..offsets[t + 1]]`.
    offsets: Vec<u32>,
    bytes: Vec<u8>,
    /// Tokens that end a text.
    ends: Vec<TokenId>,
    sampleable: TokenSet,
    /// Tokens whose text can, from a place where nothing is constrained, lead to a name that is.
    pub(super) risky: Vec<TokenId>,
    /// Whether there is a token that begins with `==`.
    pub(super) has_equals: bool,
}

impl Vocabulary {
    /// Reads the whole vocabulary once.
    pub fn new(tokenizer: &dyn Tokenizer) -> Self {
        let size = tokenizer.vocab_size();
        let sampleable = TokenSet::sampleable(tokenizer);
        let (mut offsets, mut bytes) = (vec![0u32], Vec::new());
        let (mut sorted, mut ends) = (Vec::new(), Vec::new());
        for token in 0..size as TokenId {
            if tokenizer.is_end(token) {
                ends.push(token);
            } else if sampleable.contains(token) {
                let text = tokenizer.token_bytes(token);
                if !text.is_empty() && bytes.len() + text.len() <= u32::MAX as usize {
                    bytes.extend_from_slice(&text);
                    sorted.push(token);
                }
            }
            offsets.push(bytes.len() as u32);
        }
        let mut this =
            Self { size, sorted, offsets, bytes, ends, sampleable, risky: Vec::new(), has_equals: false };
        let mut sorted = std::mem::take(&mut this.sorted);
        sorted.sort_unstable_by(|&a, &b| this.text(a).cmp(this.text(b)));
        this.risky = sorted.iter().copied().filter(|&token| is_risky(this.text(token))).collect();
        this.has_equals = sorted.iter().any(|&token| this.text(token).starts_with(b"=="));
        this.sorted = sorted;
        this
    }

    /// Rows of the vocabulary.
    pub fn size(&self) -> usize {
        self.size
    }

    /// The bytes of a token; empty for one that is not sampled or has none.
    pub(super) fn text(&self, token: TokenId) -> &[u8] {
        let token = token as usize;
        match (self.offsets.get(token), self.offsets.get(token + 1)) {
            (Some(&from), Some(&to)) => &self.bytes[from as usize..to as usize],
            _ => &[],
        }
    }

    pub(super) fn is_end(&self, token: TokenId) -> bool {
        self.ends.contains(&token)
    }

    pub(super) fn ends(&self) -> &[TokenId] {
        &self.ends
    }

    pub(super) fn sampleable(&self) -> &TokenSet {
        &self.sampleable
    }

    /// Everything, as a range of [`Self::token`].
    pub(super) fn all(&self) -> Range<usize> {
        0..self.sorted.len()
    }

    /// The token at a place in the order.
    pub(super) fn token(&self, at: usize) -> TokenId {
        self.sorted[at]
    }

    /// The tokens that begin `text`, which is not empty, with their lengths, and the places of those that it begins (itself
    /// among the latter).
    pub(super) fn beginning(&self, text: &[u8]) -> (Vec<(usize, TokenId)>, Range<usize>) {
        let mut shorter = Vec::new();
        let mut range = self.all();
        for (depth, &byte) in text.iter().enumerate() {
            let ending = if depth == 0 { 0 } else { self.ending(&range, depth) };
            shorter.extend((range.start..range.start + ending).map(|at| (depth, self.token(at))));
            range = self.child(&range, depth, byte);
        }
        (shorter, range)
    }

    /// Of the tokens of `range`, which share their first `depth` bytes: how many, at its beginning, end there.
    pub(super) fn ending(&self, range: &Range<usize>, depth: usize) -> usize {
        self.sorted[range.clone()].partition_point(|&token| self.text(token).len() <= depth)
    }

    /// Of the tokens of `range`, which share their first `depth` bytes, those that go on with `byte`.
    pub(super) fn child(&self, range: &Range<usize>, depth: usize, byte: u8) -> Range<usize> {
        let tokens = &self.sorted[range.clone()];
        let next = |token: &TokenId| self.text(*token).get(depth).copied();
        let from = tokens.partition_point(|token| next(token) < Some(byte));
        let to = from + tokens[from..].partition_point(|token| next(token) <= Some(byte));
        range.start + from..range.start + to
    }
}

/// Names are constrained after a dot, before a `=`, and in imports: from a place where nothing is constrained yet, only a
/// token that holds one of these and goes on can go wrong.
fn is_risky(text: &[u8]) -> bool {
    let holds = |word: &[u8]| text.windows(word.len()).any(|part| part == word);
    text.iter().rev().skip(1).any(|&byte| byte == b'.')
        || text.contains(&b'=')
        || holds(b"import")
        || holds(b"from")
}
