//! GPT-Neo (Black et al. 2021), which CodeClippy is, following transformers' `modeling_gpt_neo.py`.
//!
//! As GPT-2, but attention is not scaled, every other block sees only a window of `window_size` tokens, and queries, keys and
//! values are projections of their own without a bias.

use candle_core::{DType, Device, Tensor};
use inhouse_core::decode::TokenId;
use inhouse_core::{Error, Result};
use serde_json::Value;

use crate::attention::{self, Projected, Rows, Sight, self_attention, split_heads};
use crate::cache::Shape;
use crate::config::ConfigFile;
use crate::layers::{Linear, Loader, Norm};
use crate::model::Network;
use crate::ops::{Activation, Ops};

const MAX_LAYERS: usize = 512;

/// Hyperparameters of a GPT-Neo model, named as in its `config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Rows of the embedding and of the output, padding included.
    pub vocab_size: usize,
    /// Context length in tokens, and rows of the position embedding.
    pub max_position_embeddings: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// For each block whether it sees only the window.
    pub local: Vec<bool>,
    /// Attention heads.
    pub num_heads: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// Tokens that a local block sees, the last included.
    pub window_size: usize,
    /// Epsilon of the layer norms.
    pub layer_norm_epsilon: f64,
    /// Of the feed-forward layer.
    pub activation_function: Activation,
    /// Whether the output projection shares the embedding's weight.
    pub tie_word_embeddings: bool,
}

impl Config {
    /// Takes the hyperparameters out of a `config.json`.
    ///
    /// # Errors
    /// A key is missing, out of range, contradicts another, or names a kind of attention that is not known.
    pub fn from_file(file: &ConfigFile) -> Result<Self> {
        let hidden_size = file.size("hidden_size", 1..=1 << 16)?;
        let config = Self {
            vocab_size: file.size("vocab_size", 1..=1 << 24)?,
            max_position_embeddings: file.size("max_position_embeddings", 1..=1 << 20)?,
            hidden_size,
            local: local_layers(file, file.size("num_layers", 1..=MAX_LAYERS)?)?,
            num_heads: file.size("num_heads", 1..=1 << 12)?,
            intermediate_size: file
                .optional_size("intermediate_size", 1..=1 << 20)?
                .unwrap_or(4 * hidden_size),
            window_size: file.optional_size("window_size", 1..=1 << 20)?.unwrap_or(256),
            layer_norm_epsilon: file.positive_or("layer_norm_epsilon", 1e-5)?,
            activation_function: file.activation_or("activation_function", Activation::GeluTanh)?,
            tie_word_embeddings: file.flag_or("tie_word_embeddings", true)?,
        };
        if !hidden_size.is_multiple_of(config.num_heads) {
            let what =
                format!("hidden_size {hidden_size} is not divisible by num_heads {}", config.num_heads);
            return Err(Error::data(file.path(), what));
        }
        Ok(config)
    }

    /// Width of one attention head.
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.num_heads
    }
}

/// `attention_layers` spells the kinds out; `attention_types`, `[[["global", "local"], 12]]`, repeats a pattern.
fn local_layers(file: &ConfigFile, num_layers: usize) -> Result<Vec<bool>> {
    let known = "lists of \"global\" and \"local\"";
    let kind = |key: &str, name: Option<&str>| match name {
        Some("global") => Ok(false),
        Some("local") => Ok(true),
        _ => Err(file.unsupported(key, known)),
    };
    let mut local = Vec::with_capacity(num_layers);
    let key = if let Some(names) = file.texts("attention_layers")? {
        for name in names {
            local.push(kind("attention_layers", Some(name))?);
        }
        "attention_layers"
    } else {
        let key = "attention_types";
        let patterns = file.get(key).and_then(Value::as_array);
        for pattern in patterns.ok_or_else(|| file.unsupported(key, known))? {
            let (names, repeats) = (pattern[0].as_array(), pattern[1].as_u64());
            let (names, repeats) = names.zip(repeats).ok_or_else(|| file.unsupported(key, known))?;
            for _ in 0..repeats.min(MAX_LAYERS as u64) {
                for name in names.iter().take(MAX_LAYERS) {
                    local.push(kind(key, name.as_str())?);
                }
                if local.len() > MAX_LAYERS {
                    break;
                }
            }
        }
        key
    };
    if local.len() != num_layers {
        let what = format!("{key} is for {} layers, num_layers says {num_layers}", local.len());
        return Err(Error::data(file.path(), what));
    }
    Ok(local)
}

struct Block {
    attention_norm: Norm,
    queries: Linear,
    keys: Linear,
    values: Linear,
    attention_output: Linear,
    feed_forward_norm: Norm,
    feed_forward_in: Linear,
    feed_forward_out: Linear,
}

/// A loaded GPT-Neo.
pub(crate) struct GptNeo {
    config: Config,
    dtype: DType,
    device: Device,
    /// `[vocab_size, hidden_size]`.
    embedding: Tensor,
    /// `[max_position_embeddings, hidden_size]`.
    position_embedding: Tensor,
    blocks: Vec<Block>,
    final_norm: Norm,
    output: Linear,
}

impl GptNeo {
    pub fn load(file: &ConfigFile, loader: &Loader<'_>) -> Result<Self> {
        let config = Config::from_file(file)?;
        let (vocab, hidden, inner) = (config.vocab_size, config.hidden_size, config.intermediate_size);
        // A model saved without its head has no prefix.
        let root = loader.prefix("transformer.", "wte.weight");
        let norm = |name: String| loader.layer_norm(&name, hidden, config.layer_norm_epsilon);
        let embedding = loader.tensor(&format!("{root}wte.weight"), &[vocab, hidden])?;
        let position_embedding =
            loader.tensor(&format!("{root}wpe.weight"), &[config.max_position_embeddings, hidden])?;
        let mut blocks = Vec::with_capacity(config.local.len());
        for layer in 0..config.local.len() {
            let name = |tensor: &str| format!("{root}h.{layer}.{tensor}");
            let square = |tensor: &str, bias: bool| {
                loader.linear(&name(&format!("attn.attention.{tensor}")), hidden, hidden, bias)
            };
            blocks.push(Block {
                attention_norm: norm(name("ln_1"))?,
                queries: square("q_proj", false)?,
                keys: square("k_proj", false)?,
                values: square("v_proj", false)?,
                attention_output: square("out_proj", true)?,
                feed_forward_norm: norm(name("ln_2"))?,
                feed_forward_in: loader.linear(&name("mlp.c_fc"), inner, hidden, true)?,
                feed_forward_out: loader.linear(&name("mlp.c_proj"), hidden, inner, true)?,
            });
        }
        let final_norm = norm(format!("{root}ln_f"))?;
        let output = loader.head(config.tie_word_embeddings, &embedding)?;
        let (dtype, device) = (loader.dtype, loader.device.clone());
        Ok(Self { config, dtype, device, embedding, position_embedding, blocks, final_norm, output })
    }
}

impl Network for GptNeo {
    fn vocab_size(&self) -> usize {
        self.config.vocab_size
    }

    fn context_length(&self) -> usize {
        self.config.max_position_embeddings
    }

    fn cache_shape(&self) -> Shape {
        Shape {
            n_layer: self.blocks.len(),
            n_kv_head: self.config.num_heads,
            head_dim: self.config.head_dim(),
            dtype: self.dtype,
            device: self.device.clone(),
        }
    }

    fn forward(
        &self,
        tokens: &[TokenId],
        parts: &mut [Rows<'_>],
        wanted: &[u32],
        ops: Ops,
    ) -> candle_core::Result<Tensor> {
        let positions: Vec<u32> = attention::positions(parts).into_iter().map(|at| at as u32).collect();
        let global = Sight::causal_of(parts, None, &self.device)?;
        let local = Sight::causal_of(parts, Some(self.config.window_size), &self.device)?;
        let unscaled = (self.config.head_dim() as f64).sqrt();
        let x = self.embedding.index_select(&Tensor::new(tokens, &self.device)?, 0)?;
        let positions = Tensor::new(positions, &self.device)?;
        let mut x = (x + self.position_embedding.index_select(&positions, 0)?)?;
        for (layer, block) in self.blocks.iter().enumerate() {
            let normed = block.attention_norm.apply(&x, ops)?;
            let heads = |linear: &Linear| split_heads(&linear.apply(&normed, ops)?, self.config.num_heads);
            let projected = Projected {
                queries: heads(&block.queries)?,
                keys: heads(&block.keys)?,
                values: heads(&block.values)?,
            };
            let sights = if self.config.local[layer] { &local } else { &global };
            let attended = self_attention(layer, &projected, unscaled, parts, sights, ops)?;
            x = (block.attention_output.apply(&attended, ops)? + x)?;
            let normed = block.feed_forward_norm.apply(&x, ops)?;
            let hidden =
                ops.activate(self.config.activation_function, &block.feed_forward_in.apply(&normed, ops)?)?;
            x = (block.feed_forward_out.apply(&hidden, ops)? + x)?;
        }
        let x = x.index_select(&Tensor::new(wanted, &self.device)?, 0)?;
        let x = self.final_norm.apply(&x, ops)?;
        self.output.apply(&x, ops)?.to_dtype(DType::F32)
    }
}
