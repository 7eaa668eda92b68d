//! Texts as vectors: what a text encoder is, whichever backend computes it.

mod settings;

use crate::Result;
use crate::decode::{CancelToken, TokenId};

pub use settings::{FileSettings, Pooling};

/// Which side of retrieval a text stands on. A model may have an encoder for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// What is asked.
    Query,
    /// What is found.
    Document,
}

/// Facts about a loaded encoder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncoderInfo {
    /// `bert`, ...
    pub architecture: String,
    /// The file's or folder's name.
    pub name: String,
    /// What tells its vectors from another model's. A conversion to another format keeps it.
    pub fingerprint: String,
    /// Width of its vectors.
    pub dim: usize,
    /// Tokens of a text that are read, the tokenizer's own included; the rest is cut off.
    pub max_tokens: usize,
    /// Whether vectors have length 1.
    pub normalized: bool,
    /// `inhouse` (the encoder of this crate, [`crate::bert`]), `candle` or `llama.cpp`.
    pub backend: &'static str,
}

/// A text encoder: texts in, vectors out, one for each text and independent of the others but for rounding. The dot product
/// of a query's and a document's vector says how well they fit.
pub trait TextEncoder: Send + Sync {
    /// Facts about it.
    fn info(&self) -> &EncoderInfo;

    /// The vectors of `texts`, in their order: `[texts.len(), dim] f32`. The same texts give the same vectors. Long work looks
    /// at `cancel` between passes.
    ///
    /// # Errors
    /// Cancelled, or the backend fails.
    fn encode(&self, role: Role, texts: &[&str], cancel: &CancelToken) -> Result<Vectors>;
}

/// Vectors of one width, row after row.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Vectors {
    /// Width of a row.
    pub dim: usize,
    /// `[len, dim]`.
    pub values: Vec<f32>,
}

impl Vectors {
    /// The rows.
    pub fn rows(&self) -> std::slice::ChunksExact<'_, f32> {
        self.values.chunks_exact(self.dim.max(1))
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.values.len().checked_div(self.dim).unwrap_or(0)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}

/// The tokens of each text; looks at `cancel` between texts.
///
/// # Errors
/// Cancelled, or `tokens` fails.
pub fn tokens_of(
    texts: &[&str],
    cancel: &CancelToken,
    tokens: impl Fn(&str) -> Result<Vec<TokenId>>,
) -> Result<Vec<Vec<TokenId>>> {
    let of_text = |text: &&str| cancel.check().and_then(|()| tokens(text));
    texts.iter().map(of_text).collect()
}

/// Texts of these `lengths` (in tokens) as passes of at most `max_tokens` tokens and `max_texts` texts, alike lengths
/// together; a text that is longer has a pass of its own. The numbers are positions in `lengths`.
pub fn passes(lengths: &[usize], max_tokens: usize, max_texts: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(lengths[i]));
    let mut passes: Vec<Vec<usize>> = Vec::new();
    let mut tokens = 0;
    for i in order {
        match passes.last_mut() {
            Some(pass) if tokens + lengths[i] <= max_tokens && pass.len() < max_texts => {
                tokens += lengths[i];
                pass.push(i);
            }
            _ => {
                tokens = lengths[i];
                passes.push(vec![i]);
            }
        }
    }
    passes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_hold_each_text_once_and_stay_within_bounds() {
        let lengths = [3, 9, 1, 4, 4, 20, 2];
        let passes = passes(&lengths, 10, 3);
        assert_eq!(passes, [vec![5], vec![1], vec![3, 4], vec![0, 6, 2]]);
        assert_eq!(super::passes(&[1; 5], 10, 2).len(), 3);
        assert!(super::passes(&[], 10, 2).is_empty());
    }
}
