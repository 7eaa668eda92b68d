//! [`Decoder`] over an encoder-decoder (T5): the prompt goes to the encoder, the completion comes from the decoder.
//!
//! A sequence's prompt is what it is fed while it is empty, wrapped in the tokens that the file asks for (`<s> prompt </s>`
//! for CodeT5). The decoder begins with its start token, which is no part of the stream that the caller sees; the logits
//! after the prompt are those after the start token. What is fed later goes to the decoder.
//!
//! llama.cpp keeps one encoder output for a context. While all sequences share a prompt, as samples do, it is read once for
//! all of them; prompts side by side are read together, and again whenever one of them changes (once for each sequence
//! that is under way, so that this suits a few short prompts).

use std::sync::Arc;

use inhouse_core::decode::{CancelToken, Decoder, Feed, SeqId, TokenId};
use inhouse_core::{Error, ErrorKind, Result};

use crate::decoder::LlamaDecoder;
use crate::raw::EncoderText;

pub(crate) struct EncoderDecoder {
    decoder: LlamaDecoder,
    start: TokenId,
    /// What stands before and after a text.
    wrapping: (Option<TokenId>, Option<TokenId>),
    prompts: Vec<Prompt>,
    /// The prompt that each sequence sees in the encoder's output.
    encoded: Vec<Option<Arc<Vec<TokenId>>>>,
}

/// A sequence's prompt.
#[derive(Clone, Default)]
struct Prompt {
    tokens: Arc<Vec<TokenId>>,
    /// Whether the decoder has begun on it; else it is read with the next feed.
    begun: bool,
}

/// A text for the encoder, and who sees it.
struct Text {
    tokens: Arc<Vec<TokenId>>,
    readers: Vec<SeqId>,
    start: usize,
}

impl EncoderDecoder {
    pub(crate) fn new(
        decoder: LlamaDecoder,
        start: TokenId,
        wrapping: (Option<TokenId>, Option<TokenId>),
    ) -> Self {
        let n = decoder.max_sequences();
        Self { decoder, start, wrapping, prompts: vec![Prompt::default(); n], encoded: vec![None; n] }
    }

    /// What every sequence's prompt will be after `feeds`, whose sequences are in range.
    fn prompts_after(&self, feeds: &[Feed<'_>]) -> Vec<Prompt> {
        let mut prompts = self.prompts.clone();
        for feed in feeds {
            let prompt = &mut prompts[feed.seq as usize];
            if !prompt.begun {
                let tokens = [prompt.tokens.as_slice(), feed.tokens].concat();
                *prompt = Prompt { tokens: Arc::new(tokens), begun: true };
            }
        }
        prompts
    }

    /// Has the encoder read what `feeds` need, unless its output serves them as it is.
    fn read(&mut self, prompts: &[Prompt], feeds: &[Feed<'_>], cancel: &CancelToken) -> Result<()> {
        let serves = |feed: &Feed<'_>| {
            let seq = feed.seq as usize;
            self.encoded[seq].as_ref().is_some_and(|encoded| Arc::ptr_eq(encoded, &prompts[seq].tokens))
        };
        if feeds.iter().all(serves) {
            return Ok(());
        }
        let texts = self.texts(prompts);
        let (before, after) = self.wrapping;
        let wrapped: Vec<Vec<TokenId>> = texts
            .iter()
            .map(|text| before.into_iter().chain(text.tokens.iter().copied()).chain(after).collect())
            .collect();
        let (n_tokens, room) = (wrapped.iter().map(Vec::len).sum::<usize>(), self.decoder.n_batch());
        if n_tokens > room {
            let what = format!("prompts of {n_tokens} tokens side by side, the encoder reads {room} at once");
            return Err(Error::new(ErrorKind::LimitExceeded, what));
        }
        let groups: Vec<EncoderText<'_>> = wrapped
            .iter()
            .zip(&texts)
            .map(|(tokens, text)| EncoderText { tokens, readers: &text.readers, start: text.start })
            .collect();
        self.decoder.encode(&groups, cancel)?;
        self.encoded.fill(None);
        for text in &texts {
            for &seq in &text.readers {
                self.encoded[seq as usize] = Some(Arc::clone(&text.tokens));
            }
        }
        Ok(())
    }

    /// What the encoder is to read so that every sequence that has begun, or begins now, sees its prompt. A text stands once
    /// for all sequences that hold nothing yet, and once for each of the others: llama.cpp lets only equals share.
    fn texts(&self, prompts: &[Prompt]) -> Vec<Text> {
        let mut texts: Vec<Text> = Vec::new();
        for (seq, prompt) in prompts.iter().enumerate().filter(|(_, prompt)| prompt.begun) {
            let seq = seq as SeqId;
            let start = self.decoder.len(seq);
            let shared = texts
                .iter_mut()
                .find(|text| start == 0 && text.start == 0 && Arc::ptr_eq(&text.tokens, &prompt.tokens));
            match shared {
                Some(text) => text.readers.push(seq),
                None => {
                    texts.push(Text { tokens: Arc::clone(&prompt.tokens), readers: vec![seq], start });
                }
            }
        }
        if let [Text { readers, start: 0, .. }] = texts.as_mut_slice() {
            // Forks of it find it read.
            let empty = (0..prompts.len() as SeqId).filter(|&seq| self.decoder.len(seq) == 0);
            *readers = empty.collect();
        }
        texts
    }
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
        prompt + self.decoder.len(seq).saturating_sub(1)
    }

    fn feed(&mut self, feeds: &[Feed<'_>], cancel: &CancelToken) -> Result<()> {
        // The feeds as they came: only they show a repeated or empty one, or a token out of range.
        self.decoder.check_feeds(feeds)?;
        for feed in feeds {
            let (length, room) = (self.len(feed.seq) + feed.tokens.len(), self.context_length());
            if length > room {
                let what = format!("{length} tokens in a sequence, the context holds {room}");
                return Err(Error::new(ErrorKind::LimitExceeded, what));
            }
        }
        let prompts = self.prompts_after(feeds);
        self.read(&prompts, feeds, cancel)?;
        let start = [self.start];
        let begun = |feed: &Feed<'_>| self.prompts[feed.seq as usize].begun;
        let inner: Vec<Feed<'_>> = feeds
            .iter()
            .map(|feed| if begun(feed) { *feed } else { Feed { seq: feed.seq, tokens: &start } })
            .collect();
        self.decoder.feed(&inner, cancel)?;
        self.prompts = prompts;
        Ok(())
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
        if prompt.begun && len >= prompt.tokens.len() {
            // The start token stays, before what is left of the stream.
            return self.decoder.rewind(seq, len - prompt.tokens.len() + 1);
        }
        // What is left of the prompt is read anew with what comes next: an encoder reads both ways.
        self.decoder.rewind(seq, 0)?;
        let prompt = &mut self.prompts[seq as usize];
        let tokens = Arc::new(prompt.tokens[..len].to_vec());
        *prompt = Prompt { tokens, begun: false };
        Ok(())
    }
}
