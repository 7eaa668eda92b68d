//! GPT-2 (Radford et al. 2019), which CodeParrot and CodeGPT are, following transformers' `modeling_gpt2.py`.
//!
//! Learned positions, a layer norm before attention and before the feed-forward, projections stored `[in, out]` (`Conv1D`),
//! and the embedding as the output projection.

use candle_core::{DType, Device, Tensor};
use inhouse_core::decode::TokenId;
use inhouse_core::{Error, Result};
use serde_json::json;

use crate::attention::{self, Projected, Rows, Sight, self_attention, split_heads};
use crate::cache::Shape;
use crate::config::ConfigFile;
use crate::layers::{Linear, Loader, Norm};
use crate::model::Network;
use crate::ops::{Activation, Ops};

/// Hyperparameters of a GPT-2 model, named as in its `config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Rows of the embedding and of the output, padding included.
    pub vocab_size: usize,
    /// Context length in tokens, and rows of the position embedding.
    pub n_positions: usize,
    /// Width of the residual stream.
    pub n_embd: usize,
    /// Transformer blocks.
    pub n_layer: usize,
    /// Attention heads.
    pub n_head: usize,
    /// Width of the feed-forward layer.
    pub n_inner: usize,
    /// Epsilon of the layer norms.
    pub layer_norm_epsilon: f64,
    /// Of the feed-forward layer.
    pub activation_function: Activation,
    /// Whether scores are divided by the square root of the head's width.
    pub scale_attn_weights: bool,
    /// Whether the scores of block i are divided by i + 1.
    pub scale_attn_by_inverse_layer_idx: bool,
    /// Whether the output projection shares the embedding's weight.
    pub tie_word_embeddings: bool,
}

impl Config {
    /// Takes the hyperparameters out of a `config.json`.
    ///
    /// # Errors
    /// A key is missing, out of range, contradicts another, or asks for what is not built (cross-attention).
    pub fn from_file(file: &ConfigFile) -> Result<Self> {
        let n_embd = file.size("n_embd", 1..=1 << 16)?;
        let config = Self {
            vocab_size: file.size("vocab_size", 1..=1 << 24)?,
            n_positions: file.size("n_positions", 1..=1 << 20)?,
            n_embd,
            n_layer: file.size("n_layer", 1..=512)?,
            n_head: file.size("n_head", 1..=1 << 12)?,
            n_inner: file.optional_size("n_inner", 1..=1 << 20)?.unwrap_or(4 * n_embd),
            layer_norm_epsilon: file.positive_or("layer_norm_epsilon", 1e-5)?,
            activation_function: file.activation_or("activation_function", Activation::GeluTanh)?,
            scale_attn_weights: file.flag_or("scale_attn_weights", true)?,
            scale_attn_by_inverse_layer_idx: file.flag_or("scale_attn_by_inverse_layer_idx", false)?,
            tie_word_embeddings: file.flag_or("tie_word_embeddings", true)?,
        };
        file.only("add_cross_attention", &json!(false))?;
        // Changes where transformers rounds in half precision, not what it computes: scores are f32 here in any case.
        file.flag_or("reorder_and_upcast_attn", false)?;
        if !n_embd.is_multiple_of(config.n_head) {
            let what = format!("n_embd {n_embd} is not divisible by n_head {}", config.n_head);
            return Err(Error::data(file.path(), what));
        }
        Ok(config)
    }

    /// Width of one attention head.
    pub fn head_dim(&self) -> usize {
        self.n_embd / self.n_head
    }
}

struct Block {
    attention_norm: Norm,
    /// Queries, keys, values.
    qkv: Linear,
    attention_output: Linear,
    feed_forward_norm: Norm,
    feed_forward_in: Linear,
    feed_forward_out: Linear,
}

/// A loaded GPT-2.
pub(crate) struct Gpt2 {
    config: Config,
    dtype: DType,
    device: Device,
    /// `[vocab_size, n_embd]`.
    embedding: Tensor,
    /// `[n_positions, n_embd]`.
    position_embedding: Tensor,
    blocks: Vec<Block>,
    final_norm: Norm,
    output: Linear,
}

impl Gpt2 {
    pub fn load(file: &ConfigFile, loader: &Loader<'_>) -> Result<Self> {
        let config = Config::from_file(file)?;
        let (vocab, embd, inner) = (config.vocab_size, config.n_embd, config.n_inner);
        // A model saved without its head has no prefix.
        let root = loader.prefix("transformer.", "wte.weight");
        let norm = |name: String| loader.layer_norm(&name, embd, config.layer_norm_epsilon);
        let embedding = loader.tensor(&format!("{root}wte.weight"), &[vocab, embd])?;
        let position_embedding = loader.tensor(&format!("{root}wpe.weight"), &[config.n_positions, embd])?;
        let mut blocks = Vec::with_capacity(config.n_layer);
        for layer in 0..config.n_layer {
            let name = |tensor: &str| format!("{root}h.{layer}.{tensor}");
            blocks.push(Block {
                attention_norm: norm(name("ln_1"))?,
                qkv: loader.conv1d(&name("attn.c_attn"), 3 * embd, embd)?,
                attention_output: loader.conv1d(&name("attn.c_proj"), embd, embd)?,
                feed_forward_norm: norm(name("ln_2"))?,
                feed_forward_in: loader.conv1d(&name("mlp.c_fc"), inner, embd)?,
                feed_forward_out: loader.conv1d(&name("mlp.c_proj"), embd, inner)?,
            });
        }
        let final_norm = norm(format!("{root}ln_f"))?;
        let output = loader.head(config.tie_word_embeddings, &embedding)?;
        let (dtype, device) = (loader.dtype, loader.device.clone());
        Ok(Self { config, dtype, device, embedding, position_embedding, blocks, final_norm, output })
    }

    /// What the scores of a block are scaled by beside `1 / sqrt(head_dim)`.
    fn score_factor(&self, layer: usize) -> f64 {
        let unscaled =
            if self.config.scale_attn_weights { 1.0 } else { (self.config.head_dim() as f64).sqrt() };
        if self.config.scale_attn_by_inverse_layer_idx { unscaled / (layer + 1) as f64 } else { unscaled }
    }
}

impl Network for Gpt2 {
    fn vocab_size(&self) -> usize {
        self.config.vocab_size
    }

    fn context_length(&self) -> usize {
        self.config.n_positions
    }

    fn cache_shape(&self) -> Shape {
        Shape {
            n_layer: self.config.n_layer,
            n_kv_head: self.config.n_head,
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
        let sights = Sight::causal_of(parts, None, &self.device)?;
        let x = self.embedding.index_select(&Tensor::new(tokens, &self.device)?, 0)?;
        let positions = Tensor::new(positions, &self.device)?;
        let mut x = (x + self.position_embedding.index_select(&positions, 0)?)?;
        for (layer, block) in self.blocks.iter().enumerate() {
            let fused = block.qkv.apply(&block.attention_norm.apply(&x, ops)?, ops)?;
            let embd = self.config.n_embd;
            let part =
                |i: usize| split_heads(&fused.narrow(1, i * embd, embd)?.contiguous()?, self.config.n_head);
            let projected = Projected { queries: part(0)?, keys: part(1)?, values: part(2)? };
            let attended = self_attention(layer, &projected, self.score_factor(layer), parts, &sights, ops)?;
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
