//! The decode loop's view of a network: sequences, passes of bounded size, cancellation.

use std::sync::Arc;

use inhouse_core::decode::{CancelToken, Decoder, DecoderOptions, Feed, SeqId};
use inhouse_core::{Error, ErrorKind, Result};
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::attention::Rows;
use crate::backend_error;
use crate::cache::{self, Memory, Sequence};
use crate::model::HfModel;
use crate::ops::Ops;

/// Rows of one forward pass at most: bounds the attention scores' memory.
const PASS_ROWS: usize = 256;
/// No fewer for a large model: with less to do for each weight its reading is what counts.
const FEWEST_PASS_ROWS: usize = 32;
/// Products of one layer in a pass, about: a cancel is looked at between layers, and two cores take some 50 ms for these.
const LAYER_PRODUCTS: u64 = 1_000_000_000;
/// Sequences of one decoder at most.
const MAX_SEQUENCES: usize = 4096;

/// Sequences of a network that reads and writes one stream of tokens (the decoder of an encoder-decoder is one, too).
pub(crate) struct CellDecoder {
    model: Arc<HfModel>,
    sequences: Vec<Sequence>,
    context_length: usize,
    kv_cells: usize,
    /// Logits `[feeds, vocab_size]` of the last call of `feed`.
    logits: Vec<f32>,
    threads: Option<ThreadPool>,
}

/// Rows of one pass that belong to one feed.
#[derive(Clone, Copy)]
struct Run {
    feed: usize,
    begin: usize,
    end: usize,
}

impl CellDecoder {
    pub fn new(model: Arc<HfModel>, options: &DecoderOptions) -> Result<Self> {
        let wrong = |what: String| Err(Error::new(ErrorKind::InvalidArgument, what));
        let trained = model.network.context_length();
        let context_length = options.context_length.unwrap_or(trained);
        if context_length == 0 || context_length > trained {
            return wrong(format!(
                "context length {context_length} is not within 1..={trained}, as the model was trained"
            ));
        }
        if options.sequences == 0 || options.sequences > MAX_SEQUENCES {
            return wrong(format!("{} sequences are not within 1..={MAX_SEQUENCES}", options.sequences));
        }
        if options.kv_cells == Some(0) || options.threads == Some(0) {
            return wrong("a decoder needs at least one KV cell and one thread".into());
        }
        let threads = match options.threads {
            None => None,
            Some(threads) => {
                Some(ThreadPoolBuilder::new().num_threads(threads).build().map_err(|cause| {
                    Error::new(ErrorKind::Backend, format!("cannot start {threads} threads: {cause}"))
                })?)
            }
        };
        Ok(Self {
            model,
            sequences: (0..options.sequences).map(|_| Sequence::default()).collect(),
            context_length,
            kv_cells: options.kv_cells.unwrap_or(context_length * options.sequences),
            logits: Vec::new(),
            threads,
        })
    }

    /// Makes `seq` an empty sequence that continues what an encoder read.
    pub fn attach(&mut self, seq: SeqId, memory: Memory) -> Result<()> {
        let index = self.check_seq(seq)?;
        self.sequences[index] = Sequence::after(memory);
        Ok(())
    }

    /// Empties `seq` and drops what an encoder read for it.
    pub fn detach(&mut self, seq: SeqId) -> Result<()> {
        let index = self.check_seq(seq)?;
        self.sequences[index] = Sequence::default();
        Ok(())
    }

    /// Runs `work` on the decoder's own threads, where it has some.
    pub fn on_threads<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        match &self.threads {
            Some(pool) => pool.install(work),
            None => work(),
        }
    }

    fn check_seq(&self, seq: SeqId) -> Result<usize> {
        let index = seq as usize;
        if index < self.sequences.len() {
            return Ok(index);
        }
        let what = format!("sequence {seq} is not below {}", self.sequences.len());
        Err(Error::new(ErrorKind::InvalidArgument, what))
    }

    /// Whether the feeds name sequences and tokens that there are, each sequence once and none without a token.
    pub fn check_tokens(&self, feeds: &[Feed<'_>]) -> Result<()> {
        let vocab_size = self.model.network.vocab_size();
        let mut fed = vec![false; self.sequences.len()];
        for feed in feeds {
            let index = self.check_seq(feed.seq)?;
            if std::mem::replace(&mut fed[index], true) {
                let what = format!("sequence {} is fed twice in one call", feed.seq);
                return Err(Error::new(ErrorKind::InvalidArgument, what));
            }
            if feed.tokens.is_empty() {
                return Err(Error::new(
                    ErrorKind::InvalidArgument,
                    format!("sequence {} is fed no token", feed.seq),
                ));
            }
            if let Some(token) = feed.tokens.iter().find(|&&token| token as usize >= vocab_size) {
                let what = format!("token {token} is not below the vocabulary's {vocab_size}");
                return Err(Error::new(ErrorKind::InvalidArgument, what));
            }
        }
        Ok(())
    }

    /// Everything that can be known to be wrong before anything changes; `more_cells` will be taken beside the feeds'.
    pub fn check_feeds(&self, feeds: &[Feed<'_>], more_cells: usize) -> Result<()> {
        self.check_tokens(feeds)?;
        let mut total = 0;
        for feed in feeds {
            let length = self.len(feed.seq) + feed.tokens.len();
            if length > self.context_length {
                let what = format!("{length} tokens in a context of {}", self.context_length);
                return Err(Error::new(ErrorKind::LimitExceeded, what));
            }
            total += feed.tokens.len();
        }
        let cells = cache::cells(&self.sequences) + total + more_cells;
        if cells > self.kv_cells {
            let what = format!("{cells} cells in a KV cache of {}", self.kv_cells);
            return Err(Error::new(ErrorKind::LimitExceeded, what));
        }
        Ok(())
    }

    /// Rows of one pass.
    fn pass_rows(&self) -> usize {
        let layers = self.model.network.cache_shape().n_layer.max(1) as u64;
        let per_layer = (self.model.info.parameters / layers).max(1);
        ((LAYER_PRODUCTS / per_layer) as usize).clamp(FEWEST_PASS_ROWS, PASS_ROWS)
    }

    fn pass(&mut self, feeds: &[Feed<'_>], runs: &[Run], cancel: &CancelToken) -> Result<()> {
        let model = Arc::clone(&self.model);
        let shape = model.network.cache_shape();
        let tokens: Vec<u32> =
            runs.iter().flat_map(|run| &feeds[run.feed].tokens[run.begin..run.end]).copied().collect();
        // A pass takes each sequence once: hand out disjoint borrows by sequence.
        let mut slots: Vec<Option<&mut Sequence>> = self.sequences.iter_mut().map(Some).collect();
        let mut parts = Vec::with_capacity(runs.len());
        let (mut wanted, mut finished) = (Vec::new(), Vec::new());
        let mut begin = 0;
        for run in runs {
            let feed = &feeds[run.feed];
            let count = run.end - run.begin;
            let Some(sequence) = slots[feed.seq as usize].take() else {
                return Err(Error::new(ErrorKind::Internal, "a sequence stands twice in one pass"));
            };
            sequence.reserve(count, &shape).map_err(backend_error)?;
            if run.end == feed.tokens.len() {
                wanted.push((begin + count - 1) as u32);
                finished.push(run.feed);
            }
            parts.push(Rows { sequence: Some(sequence), memory: None, begin, count, cancel: Some(cancel) });
            begin += count;
        }
        // Where no feed ends in this pass its last row keeps the shapes simple; nobody reads it.
        if wanted.is_empty() {
            wanted.push((begin - 1) as u32);
        }
        let mut forward = || -> candle_core::Result<Vec<f32>> {
            model.network.forward(&tokens, &mut parts, &wanted, Ops::Fused)?.flatten_all()?.to_vec1()
        };
        let rows = match &self.threads {
            Some(pool) => pool.install(forward),
            None => forward(),
        }
        .map_err(|error| cancel.check().err().unwrap_or_else(|| backend_error(error)))?;
        let vocab_size = model.network.vocab_size();
        for (row, feed) in rows.chunks_exact(vocab_size).zip(finished) {
            self.logits[feed * vocab_size..][..vocab_size].copy_from_slice(row);
        }
        for part in parts {
            if let Some(sequence) = part.sequence {
                sequence.commit(part.count);
            }
        }
        Ok(())
    }
}

/// Cuts feeds into passes of at most `pass_rows` rows.
fn plan(feeds: &[Feed<'_>], pass_rows: usize) -> Vec<Vec<Run>> {
    let mut passes = Vec::new();
    let mut pass = Vec::new();
    let mut room = pass_rows;
    for (feed, Feed { tokens, .. }) in feeds.iter().enumerate() {
        let mut begin = 0;
        while begin < tokens.len() {
            let end = tokens.len().min(begin + room);
            pass.push(Run { feed, begin, end });
            room -= end - begin;
            begin = end;
            if room == 0 {
                passes.push(std::mem::take(&mut pass));
                room = pass_rows;
            }
        }
    }
    if !pass.is_empty() {
        passes.push(pass);
    }
    passes
}

impl Decoder for CellDecoder {
    fn max_sequences(&self) -> usize {
        self.sequences.len()
    }

    fn context_length(&self) -> usize {
        self.context_length
    }

    fn len(&self, seq: SeqId) -> usize {
        self.sequences.get(seq as usize).map_or(0, Sequence::len)
    }

    fn feed(&mut self, feeds: &[Feed<'_>], cancel: &CancelToken) -> Result<()> {
        self.check_feeds(feeds, 0)?;
        let before: Vec<usize> = feeds.iter().map(|feed| self.len(feed.seq)).collect();
        self.logits.clear();
        self.logits.resize(feeds.len() * self.model.network.vocab_size(), 0.0);
        for runs in plan(feeds, self.pass_rows()) {
            if let Err(failure) = cancel.check().and_then(|()| self.pass(feeds, &runs, cancel)) {
                for (feed, len) in feeds.iter().zip(&before) {
                    self.sequences[feed.seq as usize].truncate(*len).map_err(backend_error)?;
                }
                self.logits.clear();
                return Err(failure);
            }
        }
        Ok(())
    }

    fn logits(&self, i: usize) -> Result<&[f32]> {
        let vocab_size = self.model.network.vocab_size();
        let rows = self.logits.len() / vocab_size;
        if i >= rows {
            let what = format!("logits of feed {i} were asked for, the last call fed {rows}");
            return Err(Error::new(ErrorKind::InvalidArgument, what));
        }
        Ok(&self.logits[i * vocab_size..][..vocab_size])
    }

    fn fork(&mut self, from: SeqId, to: SeqId) -> Result<()> {
        let (from, to) = (self.check_seq(from)?, self.check_seq(to)?);
        if from != to {
            self.sequences[to] = self.sequences[from].fork().map_err(backend_error)?;
        }
        Ok(())
    }

    fn rewind(&mut self, seq: SeqId, len: usize) -> Result<()> {
        let index = self.check_seq(seq)?;
        let held = self.sequences[index].len();
        if len > held {
            let what = format!("sequence {seq} holds {held} tokens, it cannot be cut to {len}");
            return Err(Error::new(ErrorKind::InvalidArgument, what));
        }
        self.sequences[index].truncate(len).map_err(backend_error)
    }
}
