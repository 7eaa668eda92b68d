//! [`Decoder`] over a llama.cpp context with a unified KV cache.

use std::sync::Arc;

use inhouse_core::decode::{CancelToken, Decoder, Feed, SeqId};
use inhouse_core::{Error, ErrorKind, Result};

use crate::raw::{BatchToken, Context, ContextOptions, EncoderText, ModelHandle, Outcome};

/// Sequences of one context, their lengths, and the logits of the last feeds.
pub(crate) struct LlamaDecoder {
    context: Context,
    context_length: usize,
    n_vocab: usize,
    lengths: Vec<usize>,
    /// Rows of the last call of `feed`, `[feeds, vocab]`: copied, since a call may take several passes.
    logits: Vec<f32>,
    /// Set when the cache is in an unknown state.
    broken: bool,
}

impl LlamaDecoder {
    /// A decoder; `context_length` tokens a sequence.
    pub(crate) fn new(
        model: Arc<ModelHandle>,
        context_length: usize,
        options: ContextOptions,
    ) -> Result<Self> {
        let n_vocab = model.n_vocab();
        let lengths = vec![0; options.n_seq as usize];
        let context = Context::new(model, options)?;
        let context_length = context_length.min(context.n_cells());
        Ok(Self { context, context_length, n_vocab, lengths, logits: Vec::new(), broken: false })
    }

    fn check_sequence(&self, seq: SeqId) -> Result<()> {
        if self.broken {
            return Err(Error::new(
                ErrorKind::Backend,
                "the decoder failed before and cannot be used any more",
            ));
        }
        if (seq as usize) < self.lengths.len() {
            return Ok(());
        }
        let what = format!("sequence {seq} of a decoder with {} sequences", self.lengths.len());
        Err(Error::new(ErrorKind::InvalidArgument, what))
    }

    pub(crate) fn check_feeds(&self, feeds: &[Feed<'_>]) -> Result<()> {
        let mut seen = vec![false; self.lengths.len()];
        for feed in feeds {
            self.check_sequence(feed.seq)?;
            if feed.tokens.is_empty() || std::mem::replace(&mut seen[feed.seq as usize], true) {
                let what = format!("sequence {} is fed twice or nothing", feed.seq);
                return Err(Error::new(ErrorKind::InvalidArgument, what));
            }
            if let Some(token) = feed.tokens.iter().find(|&&token| token as usize >= self.n_vocab) {
                let what = format!("token {token} is not below the vocabulary's {}", self.n_vocab);
                return Err(Error::new(ErrorKind::InvalidArgument, what));
            }
            let length = self.lengths[feed.seq as usize] + feed.tokens.len();
            if length > self.context_length {
                let what =
                    format!("{length} tokens in a sequence, the context holds {}", self.context_length);
                return Err(Error::new(ErrorKind::LimitExceeded, what));
            }
        }
        Ok(())
    }

    /// Tokens of one call of llama.cpp.
    pub(crate) fn n_batch(&self) -> usize {
        self.context.n_batch()
    }

    /// Has an encoder-decoder's encoder read texts for their sequences, instead of what it read before.
    pub(crate) fn encode(&mut self, texts: &[EncoderText<'_>], cancel: &CancelToken) -> Result<()> {
        cancel.check()?;
        match self.context.encode(texts, cancel)? {
            Outcome::Done => Ok(()),
            Outcome::Aborted => {
                cancel.check()?;
                Err(Error::new(ErrorKind::Cancelled, "cancelled"))
            }
            outcome => {
                self.broken = true;
                let what = format!("llama.cpp's encoder failed: {outcome:?} (see its log)");
                Err(Error::new(ErrorKind::Backend, what))
            }
        }
    }

    /// One pass over a part of the batch; `rows` gives the feed of each output.
    fn pass(&mut self, part: &[BatchToken], rows: &[usize], cancel: &CancelToken) -> Result<()> {
        cancel.check()?;
        match self.context.decode(part, cancel)? {
            Outcome::Done => {}
            Outcome::Full => {
                let what = format!("the KV cache of {} cells is full", self.context.n_cells());
                return Err(Error::new(ErrorKind::LimitExceeded, what));
            }
            Outcome::Aborted => {
                // The token may have been reset since; the pass was given up all the same.
                cancel.check()?;
                return Err(Error::new(ErrorKind::Cancelled, "cancelled"));
            }
            Outcome::Failed(number) => {
                self.broken = true;
                let what = format!("llama.cpp's forward pass failed with {number} (see its log)");
                return Err(Error::new(ErrorKind::Backend, what));
            }
        }
        let mut rows = rows.iter();
        for (i, _) in part.iter().enumerate().filter(|(_, item)| item.output) {
            let (Some(row), Some(&feed)) = (self.context.logits(i), rows.next()) else {
                self.broken = true;
                return Err(Error::new(ErrorKind::Backend, "llama.cpp gave no logits for an output"));
            };
            self.logits[feed * self.n_vocab..][..self.n_vocab].copy_from_slice(row);
        }
        Ok(())
    }
}

impl Decoder for LlamaDecoder {
    fn max_sequences(&self) -> usize {
        self.lengths.len()
    }

    fn context_length(&self) -> usize {
        self.context_length
    }

    fn len(&self, seq: SeqId) -> usize {
        self.lengths.get(seq as usize).copied().unwrap_or(0)
    }

    fn feed(&mut self, feeds: &[Feed<'_>], cancel: &CancelToken) -> Result<()> {
        self.check_feeds(feeds)?;
        self.logits.clear();
        self.logits.resize(feeds.len() * self.n_vocab, 0.0);
        let mut batch = Vec::with_capacity(feeds.iter().map(|feed| feed.tokens.len()).sum());
        for feed in feeds {
            let start = self.lengths[feed.seq as usize];
            for (i, &token) in feed.tokens.iter().enumerate() {
                let output = i + 1 == feed.tokens.len();
                batch.push(BatchToken { token, position: start + i, seq: feed.seq, output });
            }
        }
        let n_batch = self.context.n_batch();
        let mut next_row = 0;
        for part in batch.chunks(n_batch) {
            let n_outputs = part.iter().filter(|item| item.output).count();
            let rows: Vec<usize> = (next_row..next_row + n_outputs).collect();
            next_row += n_outputs;
            if let Err(error) = self.pass(part, &rows, cancel) {
                // Back to the state before: what parts of the batch are in the cache is dropped again.
                for feed in feeds {
                    let undone = self.context.truncate_sequence(feed.seq, self.lengths[feed.seq as usize]);
                    self.broken |= !undone;
                }
                self.logits.clear();
                if self.broken && error.kind() != ErrorKind::Backend {
                    let what = format!("llama.cpp cannot undo a pass that ended early ({error})");
                    return Err(Error::with_source(ErrorKind::Backend, what, error));
                }
                return Err(error);
            }
        }
        for feed in feeds {
            self.lengths[feed.seq as usize] += feed.tokens.len();
        }
        Ok(())
    }

    fn logits(&self, i: usize) -> Result<&[f32]> {
        let start = i.saturating_mul(self.n_vocab);
        self.logits.get(start..start.saturating_add(self.n_vocab)).filter(|row| !row.is_empty()).ok_or_else(
            || {
                let what = format!(
                    "logits of feed {i}, the last call had {}",
                    self.logits.len() / self.n_vocab.max(1)
                );
                Error::new(ErrorKind::InvalidArgument, what)
            },
        )
    }

    fn fork(&mut self, from: SeqId, to: SeqId) -> Result<()> {
        self.check_sequence(from)?;
        self.check_sequence(to)?;
        self.context.copy_sequence(from, to);
        self.lengths[to as usize] = self.lengths[from as usize];
        Ok(())
    }

    fn rewind(&mut self, seq: SeqId, len: usize) -> Result<()> {
        self.check_sequence(seq)?;
        let length = self.lengths[seq as usize];
        if len > length {
            let what = format!("cannot rewind sequence {seq} to {len} tokens, it holds {length}");
            return Err(Error::new(ErrorKind::InvalidArgument, what));
        }
        if len < length && !self.context.truncate_sequence(seq, len) {
            self.broken = true;
            return Err(Error::new(
                ErrorKind::Backend,
                format!("llama.cpp cannot rewind sequence {seq} to {len} tokens"),
            ));
        }
        self.lengths[seq as usize] = len;
        Ok(())
    }
}
