//! BERT (Devlin et al. 2019, arXiv 1810.04805) as a text encoder, following transformers' `modeling_bert.py`.
//!
//! Learned positions and token types (a single text has type 0), attention both ways, a layer norm after each sublayer. The
//! pooler and the heads of pre-training take no part in sentence vectors and are not read.

use candle_core::{Device, Tensor};
use inhouse_core::decode::TokenId;
use inhouse_core::{Error, Result};
use serde_json::json;

use crate::config::ConfigFile;
use crate::layers::{Linear, Loader, Norm};
use crate::ops::{Activation, Ops};
use crate::ragged::{self, Texts};

/// Hyperparameters of a BERT model, named as in its `config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Blocks; without any, a text is the mean of its embeddings.
    pub num_hidden_layers: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// Of the feed-forward layer.
    pub hidden_act: Activation,
    /// Rows of the position embedding: the longest text in tokens.
    pub max_position_embeddings: usize,
    /// Rows of the token type embedding.
    pub type_vocab_size: usize,
    /// Epsilon of the layer norms.
    pub layer_norm_eps: f64,
}

impl Config {
    /// Takes the hyperparameters out of a `config.json`.
    ///
    /// # Errors
    /// A key is missing, out of range, contradicts another, or asks for what is not built (relative positions, a decoder).
    pub fn from_file(file: &ConfigFile) -> Result<Self> {
        if file.model_type()? != "bert" {
            return Err(file.unsupported("model_type", "bert"));
        }
        file.refuse_quantization()?;
        file.only("position_embedding_type", &json!("absolute"))?;
        for key in ["is_decoder", "add_cross_attention", "is_encoder_decoder"] {
            file.only(key, &json!(false))?;
        }
        let config = Self {
            vocab_size: file.size("vocab_size", 1..=1 << 24)?,
            hidden_size: file.size("hidden_size", 1..=1 << 16)?,
            num_hidden_layers: file.size("num_hidden_layers", 0..=512)?,
            num_attention_heads: file.size("num_attention_heads", 1..=1 << 12)?,
            intermediate_size: file.size("intermediate_size", 1..=1 << 20)?,
            hidden_act: file.activation_or("hidden_act", Activation::Gelu)?,
            max_position_embeddings: file.size("max_position_embeddings", 2..=1 << 20)?,
            type_vocab_size: file.optional_size("type_vocab_size", 1..=1 << 16)?.unwrap_or(2),
            layer_norm_eps: file.positive_or("layer_norm_eps", 1e-12)?,
        };
        let (width, heads) = (config.hidden_size, config.num_attention_heads);
        if !width.is_multiple_of(heads) {
            let what = format!("hidden_size {width} is not divisible by num_attention_heads {heads}");
            return Err(Error::data(file.path(), what));
        }
        Ok(config)
    }
}

struct Block {
    queries: Linear,
    keys: Linear,
    values: Linear,
    attention_output: Linear,
    attention_norm: Norm,
    feed_forward_in: Linear,
    feed_forward_out: Linear,
    feed_forward_norm: Norm,
}

/// A loaded BERT.
pub(crate) struct Bert {
    config: Config,
    device: Device,
    /// `[vocab_size, hidden_size]`.
    embedding: Tensor,
    /// `[max_position_embeddings, hidden_size]`.
    position_embedding: Tensor,
    /// `[type_vocab_size, hidden_size]`.
    type_embedding: Tensor,
    embedding_norm: Norm,
    blocks: Vec<Block>,
}

impl Bert {
    /// The prefix of a checkpoint's names: a model saved with its head has one.
    pub fn prefix(loader: &Loader<'_>) -> &'static str {
        loader.prefix("bert.", "embeddings.word_embeddings.weight")
    }

    /// Loads the weights whose names begin with `root`.
    pub fn load(config: &Config, loader: &Loader<'_>, root: &str) -> Result<Self> {
        let config = config.clone();
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let table = |name: &str, rows: usize| {
            loader.tensor(&format!("{root}embeddings.{name}_embeddings.weight"), &[rows, hidden])
        };
        let norm = |name: String| loader.layer_norm(&name, hidden, config.layer_norm_eps);
        let embedding = table("word", config.vocab_size)?;
        let position_embedding = table("position", config.max_position_embeddings)?;
        let type_embedding = table("token_type", config.type_vocab_size)?;
        let embedding_norm = norm(format!("{root}embeddings.LayerNorm"))?;
        let mut blocks = Vec::with_capacity(config.num_hidden_layers);
        for layer in 0..config.num_hidden_layers {
            let name = |part: &str| format!("{root}encoder.layer.{layer}.{part}");
            let linear = |part: &str, outputs, inputs| loader.linear(&name(part), outputs, inputs, true);
            blocks.push(Block {
                queries: linear("attention.self.query", hidden, hidden)?,
                keys: linear("attention.self.key", hidden, hidden)?,
                values: linear("attention.self.value", hidden, hidden)?,
                attention_output: linear("attention.output.dense", hidden, hidden)?,
                attention_norm: norm(name("attention.output.LayerNorm"))?,
                feed_forward_in: linear("intermediate.dense", inner, hidden)?,
                feed_forward_out: linear("output.dense", hidden, inner)?,
                feed_forward_norm: norm(name("output.LayerNorm"))?,
            });
        }
        let device = loader.device.clone();
        Ok(Self { config, device, embedding, position_embedding, type_embedding, embedding_norm, blocks })
    }

    /// The last hidden states `[all tokens, hidden_size]` of texts that lie one after the other in `tokens`.
    pub fn forward(&self, tokens: &[TokenId], texts: &Texts, ops: Ops) -> candle_core::Result<Tensor> {
        let positions: Vec<u32> = texts.lengths().iter().flat_map(|&length| 0..length as u32).collect();
        let positions = Tensor::new(positions, &self.device)?;
        let places = self.position_embedding.broadcast_add(&self.type_embedding.narrow(0, 0, 1)?)?;
        let x = self.embedding.index_select(&Tensor::new(tokens, &self.device)?, 0)?;
        let x = (x + places.index_select(&positions, 0)?)?;
        let mut x = self.embedding_norm.apply(&x, ops)?;
        for block in &self.blocks {
            let (queries, keys, values) =
                (block.queries.apply(&x, ops)?, block.keys.apply(&x, ops)?, block.values.apply(&x, ops)?);
            let attended =
                ragged::attend(&queries, &keys, &values, texts, self.config.num_attention_heads, ops)?;
            let attended = block.attention_output.apply(&attended, ops)?;
            x = block.attention_norm.apply(&(attended + x)?, ops)?;
            let hidden = ops.activate(self.config.hidden_act, &block.feed_forward_in.apply(&x, ops)?)?;
            let hidden = block.feed_forward_out.apply(&hidden, ops)?;
            x = block.feed_forward_norm.apply(&(hidden + x)?, ops)?;
        }
        Ok(x)
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn device(&self) -> &Device {
        &self.device
    }
}
