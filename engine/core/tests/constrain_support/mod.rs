//! A tokenizer of real pieces of text for the tests of constrained decoding, and a walk over a file with it.

use std::sync::Arc;

use inhouse_core::constrain::{ApiConstraint, ApiNames};
use inhouse_core::decode::{Constraint, TokenId, Tokenizer};

/// Longest match over all single bytes and the most frequent pieces of a corpus, cut as byte-pair encoders cut: words
/// with the space or dot before them, runs of blanks, runs of punctuation. The last row ends a text.
pub struct PieceTokenizer {
    pieces: Vec<Vec<u8>>,
    by_text: std::collections::HashMap<Vec<u8>, TokenId>,
    longest: usize,
}

impl PieceTokenizer {
    pub fn new<'t>(corpus: impl Iterator<Item = &'t str>, size: usize) -> Self {
        let mut counts: std::collections::HashMap<&[u8], usize> = std::collections::HashMap::new();
        for text in corpus {
            let bytes = text.as_bytes();
            let kind = |byte: u8| match byte {
                b' ' | b'\t' | b'\n' => 0,
                byte if byte.is_ascii_alphanumeric() || byte >= 0x80 => 1,
                _ => 2,
            };
            let mut from = 0;
            for at in 1..=bytes.len() {
                if at < bytes.len() && kind(bytes[at]) == kind(bytes[from]) {
                    continue;
                }
                let lead = usize::from(from > 0 && matches!(bytes[from - 1], b' ' | b'.' | b'_'));
                for start in [from, from - lead] {
                    for end in [at, (from + 4).min(at)] {
                        *counts.entry(&bytes[start..end]).or_default() += 1;
                    }
                }
                from = at;
            }
        }
        let mut frequent: Vec<(&[u8], usize)> =
            counts.into_iter().filter(|(text, _)| text.len() > 1).collect();
        frequent.sort_unstable_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        let mut pieces: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
        pieces.extend(frequent.into_iter().take(size).map(|(text, _)| text.to_vec()));
        for piece in ["==", " ==", "().", "(self.", "import pandas as pd\n", "pd.read", "\n\n", "):\n    "] {
            if !pieces.iter().any(|other| other == piece.as_bytes()) {
                pieces.push(piece.into());
            }
        }
        let by_text = (0..).zip(&pieces).map(|(token, piece)| (piece.clone(), token)).collect();
        let longest = pieces.iter().map(Vec::len).max().unwrap_or(1);
        Self { pieces, by_text, longest }
    }
}

impl Tokenizer for PieceTokenizer {
    fn encode(&self, text: &str) -> inhouse_core::Result<Vec<TokenId>> {
        let (mut rest, mut tokens) = (text.as_bytes(), Vec::new());
        while !rest.is_empty() {
            let found = (1..=self.longest.min(rest.len()))
                .rev()
                .find_map(|n| self.by_text.get(&rest[..n]).map(|&token| (token, n)));
            let (token, n) = found.expect("every byte is a piece");
            tokens.push(token);
            rest = &rest[n..];
        }
        Ok(tokens)
    }

    fn token_bytes(&self, token: TokenId) -> Vec<u8> {
        self.pieces.get(token as usize).cloned().unwrap_or_default()
    }

    fn is_end(&self, token: TokenId) -> bool {
        token as usize == self.pieces.len()
    }

    fn is_sampleable(&self, token: TokenId) -> bool {
        token as usize <= self.pieces.len()
    }

    fn vocab_size(&self) -> usize {
        self.pieces.len() + 1
    }
}

/// What a walk over one text found.
#[derive(Debug, Default)]
pub struct Walk {
    /// Tokens of the text.
    pub steps: usize,
    /// Tokens for which there was a mask.
    pub masked: usize,
    /// Lines, 1-based, and text of those where the true token was not allowed.
    pub violations: Vec<(usize, String)>,
}

/// Feeds the true tokens of `text` after `prompt` and asks at each whether it was allowed.
pub fn walk(names: &Arc<ApiNames>, tokenizer: &PieceTokenizer, prompt: &str, text: &str) -> Walk {
    let mut guard = ApiConstraint::new(Arc::clone(names), prompt).begin();
    let mut found = Walk::default();
    let mut at = 0;
    for token in tokenizer.encode(text).expect("every byte is a piece") {
        let mask = guard.allowed();
        found.steps += 1;
        found.masked += usize::from(mask.is_some());
        let admitted = guard.admits(token);
        assert!(
            !admitted || mask.is_none_or(|mask| mask.contains(token)),
            "the mask lacks what is admitted at byte {at}"
        );
        if !admitted {
            let line = text.as_bytes()[..at].iter().filter(|&&byte| byte == b'\n').count();
            let shown = text.lines().nth(line).unwrap_or_default().trim().to_owned();
            let piece = String::from_utf8_lossy(&tokenizer.token_bytes(token)).into_owned();
            found.violations.push((line + 1, format!("{piece:?} in {shown}")));
        }
        guard.accept(token);
        at += tokenizer.token_bytes(token).len();
    }
    found
}
