//! A small deterministic language model for the tests of the decode loop: the next-token logits are a hash of all
//! tokens so far, so that any mix-up of sequences, positions or order changes every later token.

use std::collections::HashMap;

use crate::decode::{CancelToken, Decoder, Feed, SeqId, TokenId, Tokenizer};
use crate::{Error, ErrorKind, Result};

/// Tokens that are arbitrary pieces of bytes; the last two rows are the end of text and padding.
pub(super) struct ToyTokenizer {
    pub(super) pieces: Vec<Vec<u8>>,
}

impl ToyTokenizer {
    pub(super) fn new<P: AsRef<[u8]>>(pieces: &[P]) -> Self {
        Self { pieces: pieces.iter().map(|piece| piece.as_ref().to_vec()).collect() }
    }

    pub(super) fn end(&self) -> TokenId {
        self.pieces.len() as TokenId
    }
}

impl Tokenizer for ToyTokenizer {
    /// Longest match.
    fn encode(&self, text: &str) -> Result<Vec<TokenId>> {
        let mut rest = text.as_bytes();
        let mut tokens = Vec::new();
        while !rest.is_empty() {
            let found = (0..self.pieces.len())
                .filter(|&i| rest.starts_with(&self.pieces[i]))
                .max_by_key(|&i| self.pieces[i].len())
                .ok_or_else(|| Error::new(ErrorKind::InvalidArgument, "no such piece"))?;
            tokens.push(found as TokenId);
            rest = &rest[self.pieces[found].len()..];
        }
        Ok(tokens)
    }

    fn token_bytes(&self, token: TokenId) -> Vec<u8> {
        self.pieces.get(token as usize).cloned().unwrap_or_default()
    }

    fn is_end(&self, token: TokenId) -> bool {
        token == self.end()
    }

    fn is_sampleable(&self, token: TokenId) -> bool {
        token <= self.end()
    }

    fn vocab_size(&self) -> usize {
        self.pieces.len() + 2
    }
}

/// What the model wants to say next.
pub(super) enum Mind {
    /// A hash of all tokens so far.
    Hash,
    /// After a prompt of one token, this text of tokens, then the end of text.
    Script(Vec<TokenId>),
}

/// A decoder whose cells are counted as a unified KV cache counts them: a prefix shared by forks once.
pub(super) struct ToyDecoder {
    pub(super) sequences: Vec<Vec<(TokenId, u64)>>,
    pub(super) context: usize,
    pub(super) cells: usize,
    pub(super) vocab: usize,
    pub(super) mind: Mind,
    /// Logit of the end of text and of padding.
    pub(super) end_logit: f32,
    pub(super) padding_logit: f32,
    pub(super) rows: Vec<Vec<f32>>,
    pub(super) next_cell: u64,
    /// Tokens that went through a forward pass, and passes.
    pub(super) n_fed: usize,
    pub(super) n_passes: usize,
    /// The n-th pass fails with this.
    pub(super) fail_at: Option<(usize, ErrorKind)>,
    pub(super) peak_sequences: usize,
    /// Most tokens of a pass.
    pub(super) most_fed: usize,
    /// The token that somebody cancels while the n-th pass runs.
    pub(super) cancel_in: Option<(usize, CancelToken)>,
}

impl ToyDecoder {
    pub(super) fn new(tokenizer: &ToyTokenizer, n_seq: usize) -> Self {
        Self {
            sequences: vec![Vec::new(); n_seq],
            context: 4096,
            cells: usize::MAX,
            vocab: tokenizer.vocab_size(),
            mind: Mind::Hash,
            end_logit: f32::NEG_INFINITY,
            padding_logit: 100.0,
            rows: Vec::new(),
            next_cell: 0,
            n_fed: 0,
            n_passes: 0,
            fail_at: None,
            peak_sequences: 0,
            most_fed: 0,
            cancel_in: None,
        }
    }

    fn row(&self, seq: SeqId) -> Vec<f32> {
        let tokens = &self.sequences[seq as usize];
        let mut row = vec![0.0; self.vocab];
        match &self.mind {
            Mind::Hash => {
                let mut hash = 0xcbf2_9ce4_8422_2325u64;
                for (token, _) in tokens {
                    hash = (hash ^ u64::from(*token)).wrapping_mul(0x100_0000_01b3).rotate_left(23);
                }
                for logit in &mut row {
                    hash =
                        hash.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    *logit = (hash >> 40) as f32 / (1u64 << 24) as f32 * 4.0;
                }
                row[self.vocab - 2] = self.end_logit;
            }
            Mind::Script(script) => {
                let next = script.get(tokens.len() - 1).copied().unwrap_or(self.vocab as TokenId - 2);
                row[next as usize] = 50.0;
            }
        }
        row[self.vocab - 1] = self.padding_logit;
        row
    }
}

impl Decoder for ToyDecoder {
    fn max_sequences(&self) -> usize {
        self.sequences.len()
    }

    fn context_length(&self) -> usize {
        self.context
    }

    fn len(&self, seq: SeqId) -> usize {
        self.sequences[seq as usize].len()
    }

    fn feed(&mut self, feeds: &[Feed<'_>], cancel: &CancelToken) -> Result<()> {
        cancel.check()?;
        self.n_passes += 1;
        if let Some((_, kind)) = self.fail_at.filter(|(pass, _)| *pass == self.n_passes) {
            return Err(Error::new(kind, "asked to fail"));
        }
        let mut used = HashMap::new();
        for (_, cell) in self.sequences.iter().flatten() {
            *used.entry(*cell).or_insert(0) += 1;
        }
        let n_new: usize = feeds.iter().map(|feed| feed.tokens.len()).sum();
        let too_long = feeds.iter().any(|feed| self.len(feed.seq) + feed.tokens.len() > self.context);
        if used.len() + n_new > self.cells || too_long {
            return Err(Error::new(ErrorKind::LimitExceeded, "the cache is full"));
        }
        for feed in feeds {
            assert!(!feed.tokens.is_empty());
            for &token in feed.tokens {
                self.sequences[feed.seq as usize].push((token, self.next_cell));
                self.next_cell += 1;
            }
        }
        if let Some((_, token)) = self.cancel_in.as_ref().filter(|(pass, _)| *pass == self.n_passes) {
            token.cancel();
        }
        self.n_fed += n_new;
        self.most_fed = self.most_fed.max(n_new);
        self.peak_sequences = self.peak_sequences.max(feeds.len());
        self.rows = feeds.iter().map(|feed| self.row(feed.seq)).collect();
        Ok(())
    }

    fn logits(&self, i: usize) -> Result<&[f32]> {
        self.rows
            .get(i)
            .map(Vec::as_slice)
            .ok_or_else(|| Error::new(ErrorKind::InvalidArgument, "no such feed"))
    }

    fn fork(&mut self, from: SeqId, to: SeqId) -> Result<()> {
        self.sequences[to as usize] = self.sequences[from as usize].clone();
        Ok(())
    }

    fn rewind(&mut self, seq: SeqId, len: usize) -> Result<()> {
        assert!(len <= self.len(seq), "rewind to {len} of {}", self.len(seq));
        self.sequences[seq as usize].truncate(len);
        Ok(())
    }
}
