//! A network whose weights are variables: the forward passes of inference in the forms that have a backward pass.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Tensor, Var};
use inhouse_core::decode::{CancelToken, TokenId};
use inhouse_core::{Error, ErrorKind, Result};

use crate::attention::Rows;
use crate::checkpoint::Checkpoint;
use crate::config::ConfigFile;
use crate::layers::Loader;
use crate::model::Network;
use crate::ops::Ops;
use crate::{LoadOptions, backend_error};

/// One text of a training batch.
#[derive(Debug, Clone, Copy)]
pub struct Example<'a> {
    /// What the encoder reads, wrapped as the tokenizer wraps a text; empty for a model without an encoder.
    pub source: &'a [TokenId],
    /// What the decoder reads; for an encoder-decoder it begins with the decoder's start token.
    pub tokens: &'a [TokenId],
}

/// A network to train.
pub struct Trainable {
    network: Box<dyn Network>,
    variables: BTreeMap<String, Var>,
}

impl Trainable {
    /// Loads the weights of a Hugging Face folder as variables.
    ///
    /// # Errors
    /// As [`crate::load`], the tokenizer left out.
    pub fn load(dir: &Path, options: &LoadOptions) -> Result<Self> {
        let config = ConfigFile::read(dir)?;
        let checkpoint = Checkpoint::open(dir)?;
        let loader = Loader::new(&checkpoint, options.dtype.to_candle(), options.device.open()?, true);
        let network = crate::network(&config, &loader)?;
        Ok(Self { network, variables: loader.into_variables() })
    }

    /// The weights, by their names in the checkpoint.
    pub fn variables(&self) -> &BTreeMap<String, Var> {
        &self.variables
    }

    /// The token that the decoder of an encoder-decoder begins with; `None`: the model has no encoder.
    pub fn decoder_start(&self) -> Option<TokenId> {
        self.network.encoder().map(|encoder| encoder.start())
    }

    /// Logits `[all tokens, vocab_size] f32` after each token of the examples, one example after the other; none is padded.
    /// Gradients flow back to every variable.
    ///
    /// # Errors
    /// No or an empty example, one that is longer than the context, a token out of range, a source for a model without an
    /// encoder or none for one with it, or a failing backend.
    pub fn logits(&self, examples: &[Example<'_>]) -> Result<Tensor> {
        let wrong = |what: String| Err(Error::new(ErrorKind::InvalidArgument, what));
        let (vocab_size, context) = (self.network.vocab_size(), self.network.context_length());
        if examples.is_empty() {
            return wrong("no example to train on".into());
        }
        for (i, example) in examples.iter().enumerate() {
            let all = || example.source.iter().chain(example.tokens);
            if let Some(token) = all().find(|&&token| token as usize >= vocab_size) {
                return wrong(format!(
                    "example {i}: token {token} is not below the vocabulary's {vocab_size}"
                ));
            }
            let longest = example.source.len().max(example.tokens.len());
            if example.tokens.is_empty() || longest > context {
                return wrong(format!("example {i}: {longest} tokens are not within 1..={context}"));
            }
            if example.source.is_empty() == self.network.encoder().is_some() {
                return wrong(format!(
                    "example {i}: a source is for a model with an encoder, and needed there"
                ));
            }
        }
        self.forward(examples).map_err(backend_error)
    }

    fn forward(&self, examples: &[Example<'_>]) -> candle_core::Result<Tensor> {
        let ops = Ops::Differentiable;
        let go = CancelToken::new();
        let memories = match self.network.encoder() {
            Some(encoder) => {
                let read = |example: &Example<'_>| encoder.encode(example.source, &go, ops).map(Some);
                examples.iter().map(read).collect::<candle_core::Result<Vec<_>>>()?
            }
            None => examples.iter().map(|_| None).collect(),
        };
        let mut begin = 0;
        let mut parts = Vec::with_capacity(examples.len());
        for (example, memory) in examples.iter().zip(&memories) {
            let count = example.tokens.len();
            parts.push(Rows { sequence: None, memory: memory.as_ref(), begin, count, cancel: None });
            begin += count;
        }
        let tokens: Vec<TokenId> = examples.iter().flat_map(|example| example.tokens).copied().collect();
        let wanted: Vec<u32> = (0..begin as u32).collect();
        self.network.forward(&tokens, &mut parts, &wanted, ops)
    }
}
