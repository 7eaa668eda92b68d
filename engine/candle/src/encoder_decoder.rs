//! The decode loop's view of an encoder-decoder: the prompt goes to the encoder, completions come from the decoder.
//!
//! A sequence's prompt is what it is fed while it is empty, wrapped as the tokenizer wraps a text (`<s> prompt </s>` for
//! CodeT5). The decoder begins with its start token; the logits after the prompt are those after the start token. What is fed
//! later goes to the decoder. CodeT5 was trained for completion in just this way (Le et al. 2022, arXiv 2207.01780, next-token
//! prediction: the first part of a function to the encoder, the rest from the decoder).
//!
//! To the caller a sequence is one stream, prompt first, as with any other model. A sequence that is cut within its prompt has
//! its shorter prompt, with what is fed next, read anew: an encoder reads both ways.

use std::sync::Arc;

use inhouse_core::decode::{CancelToken, Decoder, Feed, SeqId, TokenId};
use inhouse_core::{Error, ErrorKind, Result};

use crate::backend_error;
use crate::decoder::CellDecoder;
use crate::model::{Encoder, HfModel};
use crate::ops::Ops;

pub(crate) struct EncoderDecoder {
    model: Arc<HfModel>,
    decoder: CellDecoder,
    prompts: Vec<Prompt>,
    start: TokenId,
    /// What the tokenizer puts before and after a text.
    wrapping: (Vec<TokenId>, Vec<TokenId>),
}

/// What a sequence's encoder has read, or is to read with the next feed.
#[derive(Clone, Default)]
struct Prompt {
    tokens: Arc<Vec<TokenId>>,
    encoded: bool,
}

impl EncoderDecoder {
    pub fn new(model: Arc<HfModel>, decoder: CellDecoder) -> Result<Self> {
        let start = encoder(&model)?.start();
        let wrapping = model.tokenizer.vocabulary().wrapping.clone();
        let prompts = vec![Prompt::default(); decoder.max_sequences()];
        Ok(Self { model, decoder, prompts, start, wrapping })
    }

    /// The prompts that a call makes whole, by feed; `None` where the decoder takes the tokens.
    fn new_prompts(&self, feeds: &[Feed<'_>]) -> Vec<Option<Vec<TokenId>>> {
        let whole = |feed: &Feed<'_>| {
            let prompt = self.prompts.get(feed.seq as usize).filter(|prompt| !prompt.encoded)?;
            Some([prompt.tokens.as_slice(), feed.tokens].concat())
        };
        feeds.iter().map(whole).collect()
    }

    fn check(&self, feeds: &[Feed<'_>], prompts: &[Option<Vec<TokenId>>], inner: &[Feed<'_>]) -> Result<()> {
        let wrapped = self.wrapping.0.len() + self.wrapping.1.len();
        let mut cells = 0;
        for (feed, prompt) in feeds.iter().zip(prompts) {
            let length = self.len(feed.seq) + feed.tokens.len();
            if length > self.decoder.context_length() {
                let what = format!("{length} tokens in a context of {}", self.decoder.context_length());
                return Err(Error::new(ErrorKind::LimitExceeded, what));
            }
            cells += prompt.as_ref().map_or(0, |prompt| prompt.len() + wrapped);
        }
        // The feeds as they came first: only they show an empty or repeated one, or a token out of range.
        self.decoder.check_tokens(feeds)?;
        self.decoder.check_feeds(inner, cells)
    }

    fn read(&mut self, seq: SeqId, tokens: &[TokenId], cancel: &CancelToken) -> Result<()> {
        cancel.check()?;
        let text = [&self.wrapping.0, tokens, &self.wrapping.1].concat();
        let encoder = encoder(&self.model)?;
        let memory = self.decoder.on_threads(|| encoder.encode(&text, cancel, Ops::Fused));
        let memory = memory.map_err(|error| cancel.check().err().unwrap_or_else(|| backend_error(error)))?;
        self.decoder.attach(seq, memory)
    }
}

fn encoder(model: &HfModel) -> Result<&dyn Encoder> {
    model.network.encoder().ok_or_else(|| Error::new(ErrorKind::Internal, "the model has no encoder"))
}

impl Decoder for EncoderDecoder {
    fn max_sequences(&self) -> usize {
        self.decoder.max_sequences()
    }

    fn context_length(&self) -> usize {
        self.decoder.context_length()
    }

    fn reads_prompt_whole(&self) -> bool {
        true
    }

    fn len(&self, seq: SeqId) -> usize {
        let prompt = self.prompts.get(seq as usize).map_or(0, |prompt| prompt.tokens.len());
        // The start token is no part of the stream.
        prompt + self.decoder.len(seq).saturating_sub(1)
    }

    fn feed(&mut self, feeds: &[Feed<'_>], cancel: &CancelToken) -> Result<()> {
        let prompts = self.new_prompts(feeds);
        let start = [self.start];
        let inner: Vec<Feed<'_>> = feeds
            .iter()
            .zip(&prompts)
            .map(|(feed, prompt)| match prompt {
                Some(_) => Feed { seq: feed.seq, tokens: &start },
                None => *feed,
            })
            .collect();
        self.check(feeds, &prompts, &inner)?;
        let read = feeds.iter().zip(&prompts).try_for_each(|(feed, prompt)| match prompt {
            Some(tokens) => self.read(feed.seq, tokens, cancel),
            None => Ok(()),
        });
        let outcome = read.and_then(|()| self.decoder.feed(&inner, cancel));
        for (feed, prompt) in feeds.iter().zip(prompts) {
            let Some(tokens) = prompt else { continue };
            if outcome.is_ok() {
                self.prompts[feed.seq as usize] = Prompt { tokens: Arc::new(tokens), encoded: true };
            } else {
                self.decoder.detach(feed.seq)?;
            }
        }
        outcome
    }

    fn logits(&self, i: usize) -> Result<&[f32]> {
        self.decoder.logits(i)
    }

    fn fork(&mut self, from: SeqId, to: SeqId) -> Result<()> {
        self.decoder.fork(from, to)?;
        self.prompts[to as usize] = self.prompts[from as usize].clone();
        Ok(())
    }

    fn rewind(&mut self, seq: SeqId, len: usize) -> Result<()> {
        let held = self.len(seq);
        let Some(prompt) = self.prompts.get_mut(seq as usize) else {
            return self.decoder.rewind(seq, len);
        };
        if len > held {
            let what = format!("sequence {seq} holds {held} tokens, it cannot be cut to {len}");
            return Err(Error::new(ErrorKind::InvalidArgument, what));
        }
        if prompt.encoded && len >= prompt.tokens.len() {
            // The start token stays, before what is left of the stream.
            return self.decoder.rewind(seq, len - prompt.tokens.len() + 1);
        }
        if len < prompt.tokens.len() {
            *prompt = Prompt { tokens: Arc::new(prompt.tokens[..len].to_vec()), encoded: false };
        }
        self.decoder.detach(seq)
    }
}
