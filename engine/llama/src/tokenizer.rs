//! The tokenizer inside a GGUF file.

use std::sync::Arc;

use inhouse_core::decode::{TokenId, Tokenizer, Unspelled};
use inhouse_core::{Error, ErrorKind, Result};

use crate::raw::ModelHandle;

/// No longer text is tokenised: far above any context, and it keeps the work bounded.
const MAX_TEXT_BYTES: usize = 16 << 20;

/// llama.cpp's tokenizer of a model, its token table read once.
pub(crate) struct LlamaTokenizer {
    model: Arc<ModelHandle>,
    /// The tokens' bytes one after the other, and where each ends.
    bytes: Vec<u8>,
    ends: Vec<usize>,
    is_end: Vec<bool>,
    is_sampleable: Vec<bool>,
    unspelled: Unspelled,
}

impl LlamaTokenizer {
    pub(crate) fn new(model: Arc<ModelHandle>, unspelled: Unspelled) -> Self {
        let n_vocab = model.n_vocab();
        let mut this = Self {
            model,
            bytes: Vec::new(),
            ends: Vec::with_capacity(n_vocab),
            is_end: Vec::with_capacity(n_vocab),
            is_sampleable: Vec::with_capacity(n_vocab),
            unspelled,
        };
        for token in 0..n_vocab as TokenId {
            let Some(kind) = this.model.token_kind(token) else {
                break;
            };
            if !kind.end && !kind.unused && !kind.control {
                this.bytes.extend_from_slice(&this.model.token_bytes(token));
            }
            this.ends.push(this.bytes.len());
            this.is_end.push(kind.end);
            this.is_sampleable.push(kind.end || !(kind.unused || kind.control));
        }
        this
    }
}

impl Tokenizer for LlamaTokenizer {
    fn encode(&self, text: &str) -> Result<Vec<TokenId>> {
        if text.len() > MAX_TEXT_BYTES {
            let what =
                format!("{} bytes of text to tokenise, at most {MAX_TEXT_BYTES} are allowed", text.len());
            return Err(Error::new(ErrorKind::LimitExceeded, what));
        }
        if text.is_empty() {
            return Ok(Vec::new());
        }
        self.unspelled.warn_of_loss(text);
        self.model.tokenize(text)
    }

    fn token_bytes(&self, token: TokenId) -> Vec<u8> {
        let token = token as usize;
        let Some(&end) = self.ends.get(token) else {
            return Vec::new();
        };
        let start = if token == 0 { 0 } else { self.ends[token - 1] };
        self.bytes[start..end].to_vec()
    }

    fn is_end(&self, token: TokenId) -> bool {
        self.is_end.get(token as usize).copied().unwrap_or(false)
    }

    fn is_sampleable(&self, token: TokenId) -> bool {
        self.is_sampleable.get(token as usize).copied().unwrap_or(false)
    }

    fn vocab_size(&self) -> usize {
        self.ends.len()
    }
}
