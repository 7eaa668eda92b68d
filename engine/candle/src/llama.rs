//! The llama family (Touvron et al. 2023, arXiv 2302.13971): Llama, Mistral and Qwen2, following transformers'
//! `modeling_llama.py`, `modeling_mistral.py` and `modeling_qwen2.py`.
//!
//! Root-mean-square norms, rotary embedding over whole heads in halves, fewer heads of keys and values than of queries
//! (Ainslie et al. 2023, arXiv 2305.13245), and a gated feed-forward. Mistral sees a window; Qwen2 has biases on queries, keys
//! and values.

mod gradient;

use std::sync::Mutex;

use candle_core::{DType, Device, Tensor};
use inhouse_core::decode::TokenId;
use inhouse_core::{Error, Result};
use serde_json::json;

use crate::attention::{self, Projected, Rows, Sight, self_attention, split_heads};
use crate::cache::Shape;
use crate::config::ConfigFile;
use crate::layers::{Linear, Loader, Norm};
use crate::model::Network;
use crate::ops::{Activation, Ops, Pairs, Rotary};
use crate::trainable::{Batch, Gradient, Loss};

/// How positions were stretched after training.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum RopeScaling {
    /// They were not.
    None,
    /// All of them divided by `factor` (Chen et al. 2023, arXiv 2306.15595).
    Linear {
        /// By how much.
        factor: f64,
    },
    /// Llama 3's: long wavelengths are stretched, short ones stay, those between are interpolated
    /// (`_compute_llama3_parameters` in transformers' `modeling_rope_utils.py`).
    Llama3 {
        /// By how much long wavelengths are stretched.
        factor: f64,
        /// Wavelengths above `original / low_freq_factor` are long.
        low_freq_factor: f64,
        /// Wavelengths below `original / high_freq_factor` are short.
        high_freq_factor: f64,
        /// Context length before stretching.
        original: usize,
    },
}

/// Hyperparameters of a model of the family, named as in its `config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Rows of the embedding and of the output, padding included.
    pub vocab_size: usize,
    /// Context length in tokens.
    pub max_position_embeddings: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// For each block the tokens that it sees; `None`: all.
    pub windows: Vec<Option<usize>>,
    /// Heads of queries.
    pub num_attention_heads: usize,
    /// Heads of keys and values.
    pub num_key_value_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Epsilon of the norms.
    pub rms_norm_eps: f64,
    /// Base of the rotary embedding's wavelengths.
    pub rope_theta: f64,
    /// How positions were stretched.
    pub rope_scaling: RopeScaling,
    /// Of the feed-forward layer.
    pub hidden_act: Activation,
    /// Whether queries, keys and values have biases.
    pub qkv_bias: bool,
    /// Whether the attention's output projection has a bias.
    pub output_bias: bool,
    /// Whether the feed-forward layer has biases.
    pub mlp_bias: bool,
    /// Whether the output projection shares the embedding's weight.
    pub tie_word_embeddings: bool,
}

impl Config {
    /// Takes the hyperparameters out of a `config.json`.
    ///
    /// # Errors
    /// A key is missing, out of range, contradicts another, or asks for what is not built (other rope scalings).
    pub fn from_file(file: &ConfigFile) -> Result<Self> {
        let qwen2 = file.model_type()? == "qwen2";
        let hidden_size = file.size("hidden_size", 1..=1 << 16)?;
        let heads = file.size("num_attention_heads", 1..=1 << 12)?;
        // Qwen2 always has biases on three of the four, whatever the key says; the others follow it.
        let attention_bias = file.flag_or("attention_bias", false)?;
        let max_position_embeddings = file.size("max_position_embeddings", 1..=1 << 24)?;
        let config = Self {
            vocab_size: file.size("vocab_size", 1..=1 << 24)?,
            max_position_embeddings,
            hidden_size,
            intermediate_size: file.size("intermediate_size", 1..=1 << 20)?,
            windows: windows(file, qwen2, file.size("num_hidden_layers", 1..=512)?)?,
            num_attention_heads: heads,
            num_key_value_heads: file.optional_size("num_key_value_heads", 1..=1 << 12)?.unwrap_or(heads),
            head_dim: file.optional_size("head_dim", 2..=1 << 16)?.unwrap_or(hidden_size / heads),
            rms_norm_eps: file.positive_or("rms_norm_eps", 1e-6)?,
            rope_theta: rope_theta(file)?,
            rope_scaling: rope_scaling(file, max_position_embeddings)?,
            hidden_act: file.activation_or("hidden_act", Activation::Silu)?,
            qkv_bias: qwen2 || attention_bias,
            output_bias: !qwen2 && attention_bias,
            mlp_bias: file.flag_or("mlp_bias", false)?,
            tie_word_embeddings: file.flag_or("tie_word_embeddings", false)?,
        };
        file.only("partial_rotary_factor", &json!(1.0))?;
        let wrong = |what: String| Err(Error::data(file.path(), what));
        if !heads.is_multiple_of(config.num_key_value_heads) {
            let kv = config.num_key_value_heads;
            return wrong(format!(
                "num_attention_heads {heads} is not divisible by num_key_value_heads {kv}"
            ));
        }
        if file.optional_size("head_dim", 2..=1 << 16)?.is_none() && !hidden_size.is_multiple_of(heads) {
            return wrong(format!(
                "hidden_size {hidden_size} is not divisible by num_attention_heads {heads}"
            ));
        }
        if config.head_dim == 0 || !config.head_dim.is_multiple_of(2) {
            return wrong(format!("head_dim {} is odd: a head is rotated by halves", config.head_dim));
        }
        Ok(config)
    }

    fn rotary(&self) -> Rotary {
        let rotary = Rotary::new(self.head_dim, self.rope_theta, Pairs::Halves);
        match self.rope_scaling {
            RopeScaling::None => rotary,
            RopeScaling::Linear { factor } => rotary.map(|frequency| frequency / factor),
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original } => {
                let original = original as f64;
                rotary.map(|frequency| {
                    let wavelength = std::f64::consts::TAU / frequency;
                    if wavelength > original / low_freq_factor {
                        frequency / factor
                    } else if wavelength < original / high_freq_factor {
                        frequency
                    } else {
                        let smooth =
                            (original / wavelength - low_freq_factor) / (high_freq_factor - low_freq_factor);
                        (1.0 - smooth) * frequency / factor + smooth * frequency
                    }
                })
            }
        }
    }
}

/// Which blocks see a window: `layer_types` where it is there, else Qwen2's switch and first block, else all of them.
fn windows(file: &ConfigFile, qwen2: bool, num_layers: usize) -> Result<Vec<Option<usize>>> {
    let mut window = file.optional_size("sliding_window", 1..=1 << 24)?;
    if !file.flag_or("use_sliding_window", !qwen2)? || file.model_type()? == "llama" {
        window = None;
    }
    if let Some(kinds) = file.texts("layer_types")? {
        if kinds.len() != num_layers {
            let what =
                format!("layer_types is for {} layers, num_hidden_layers says {num_layers}", kinds.len());
            return Err(Error::data(file.path(), what));
        }
        let of =
            |kind: &str| match (kind, window) {
                ("full_attention", _) => Ok(None),
                ("sliding_attention", Some(window)) => Ok(Some(window)),
                _ => Err(file
                    .unsupported("layer_types", "full_attention, and sliding_attention with sliding_window")),
            };
        return kinds.into_iter().map(of).collect();
    }
    let first = if qwen2 { file.optional_size("max_window_layers", 0..=1 << 16)?.unwrap_or(28) } else { 0 };
    Ok((0..num_layers).map(|layer| window.filter(|_| layer >= first)).collect())
}

/// Newer versions of transformers keep the base with the scaling.
fn rope_theta(file: &ConfigFile) -> Result<f64> {
    match file.section("rope_parameters")? {
        Some(rope) => rope.positive_or("rope_theta", 10_000.0),
        None => file.positive_or("rope_theta", 10_000.0),
    }
}

fn rope_scaling(file: &ConfigFile, context: usize) -> Result<RopeScaling> {
    let rope = match file.section("rope_parameters")? {
        Some(rope) => Some(rope),
        None => file.section("rope_scaling")?,
    };
    let Some(rope) = rope else { return Ok(RopeScaling::None) };
    let key = if rope.text("rope_type")?.is_some() { "rope_type" } else { "type" };
    let required = |key: &str| match rope.get(key) {
        Some(_) => rope.positive_or(key, 1.0),
        None => Err(Error::data(file.path(), format!("key {key:?} of the rope scaling is missing"))),
    };
    match rope.text(key)? {
        Some("default") => Ok(RopeScaling::None),
        Some("linear") => Ok(RopeScaling::Linear { factor: required("factor")? }),
        Some("llama3") => {
            let (low, high) = (required("low_freq_factor")?, required("high_freq_factor")?);
            if low >= high {
                let what = format!("low_freq_factor {low} is not below high_freq_factor {high}");
                return Err(Error::data(file.path(), what));
            }
            let original = rope.optional_size("original_max_position_embeddings", 1..=1 << 24)?;
            Ok(RopeScaling::Llama3 {
                factor: required("factor")?,
                low_freq_factor: low,
                high_freq_factor: high,
                original: original.unwrap_or(context),
            })
        }
        _ => Err(rope.unsupported(key, "default, linear, llama3")),
    }
}

struct Block {
    attention_norm: Norm,
    queries: Linear,
    keys: Linear,
    values: Linear,
    attention_output: Linear,
    feed_forward_norm: Norm,
    gate: Linear,
    up: Linear,
    down: Linear,
}

/// A loaded model of the family.
pub(crate) struct Llama {
    config: Config,
    dtype: DType,
    device: Device,
    /// `[vocab_size, hidden_size]`.
    embedding: Tensor,
    blocks: Vec<Block>,
    final_norm: Norm,
    output: Linear,
    rotary: Rotary,
    /// The window of the blocks that have one.
    window: Option<usize>,
    /// What the tensors' names begin with.
    root: &'static str,
    /// What the written-out gradient computes in, kept from one batch to the next.
    room: Mutex<gradient::Room>,
}

impl Llama {
    pub fn load(file: &ConfigFile, loader: &Loader<'_>) -> Result<Self> {
        let config = Config::from_file(file)?;
        let (vocab, hidden, inner) = (config.vocab_size, config.hidden_size, config.intermediate_size);
        let queries = config.num_attention_heads * config.head_dim;
        let keys = config.num_key_value_heads * config.head_dim;
        // A model saved without its head has no prefix.
        let root = loader.prefix("model.", "embed_tokens.weight");
        let norm = |name: String| loader.rms_norm(&name, hidden, config.rms_norm_eps);
        let embedding = loader.tensor(&format!("{root}embed_tokens.weight"), &[vocab, hidden])?;
        let mut blocks = Vec::with_capacity(config.windows.len());
        for layer in 0..config.windows.len() {
            let name = |tensor: &str| format!("{root}layers.{layer}.{tensor}");
            let linear =
                |tensor: &str, outputs, inputs, bias| loader.linear(&name(tensor), outputs, inputs, bias);
            blocks.push(Block {
                attention_norm: norm(name("input_layernorm"))?,
                queries: linear("self_attn.q_proj", queries, hidden, config.qkv_bias)?,
                keys: linear("self_attn.k_proj", keys, hidden, config.qkv_bias)?,
                values: linear("self_attn.v_proj", keys, hidden, config.qkv_bias)?,
                attention_output: linear("self_attn.o_proj", hidden, queries, config.output_bias)?,
                feed_forward_norm: norm(name("post_attention_layernorm"))?,
                gate: linear("mlp.gate_proj", inner, hidden, config.mlp_bias)?,
                up: linear("mlp.up_proj", inner, hidden, config.mlp_bias)?,
                down: linear("mlp.down_proj", hidden, inner, config.mlp_bias)?,
            });
        }
        let final_norm = norm(format!("{root}norm"))?;
        let output = loader.head(config.tie_word_embeddings, &embedding)?;
        let rotary = config.rotary();
        let window = config.windows.iter().copied().flatten().next();
        let (dtype, device) = (loader.dtype, loader.device.clone());
        Ok(Self {
            config,
            dtype,
            device,
            embedding,
            blocks,
            final_norm,
            output,
            rotary,
            window,
            root,
            room: Mutex::default(),
        })
    }
}

impl Network for Llama {
    fn vocab_size(&self) -> usize {
        self.config.vocab_size
    }

    fn context_length(&self) -> usize {
        self.config.max_position_embeddings
    }

    fn cache_shape(&self) -> Shape {
        Shape {
            n_layer: self.blocks.len(),
            n_kv_head: self.config.num_key_value_heads,
            head_dim: self.config.head_dim,
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
        let config = &self.config;
        let turns = self.rotary.turns(&attention::positions(parts), self.dtype, &self.device)?;
        let whole = Sight::causal_of(parts, None, &self.device)?;
        let windowed = match self.window {
            Some(window) => Sight::causal_of(parts, Some(window), &self.device)?,
            None => Vec::new(),
        };
        let mut x = self.embedding.index_select(&Tensor::new(tokens, &self.device)?, 0)?;
        for (layer, block) in self.blocks.iter().enumerate() {
            let normed = block.attention_norm.apply(&x, ops)?;
            let heads = |linear: &Linear, n: usize| split_heads(&linear.apply(&normed, ops)?, n);
            let projected = Projected {
                queries: turns.apply(&heads(&block.queries, config.num_attention_heads)?, ops)?,
                keys: turns.apply(&heads(&block.keys, config.num_key_value_heads)?, ops)?,
                values: heads(&block.values, config.num_key_value_heads)?,
            };
            let sights = if config.windows[layer].is_some() { &windowed } else { &whole };
            let attended = self_attention(layer, &projected, 1.0, parts, sights, ops)?;
            x = (block.attention_output.apply(&attended, ops)? + x)?;
            let normed = block.feed_forward_norm.apply(&x, ops)?;
            let gate = ops.activate(config.hidden_act, &block.gate.apply(&normed, ops)?)?;
            let hidden = (gate * block.up.apply(&normed, ops)?)?;
            x = (block.down.apply(&hidden, ops)? + x)?;
        }
        let x = x.index_select(&Tensor::new(wanted, &self.device)?, 0)?;
        let x = self.final_norm.apply(&x, ops)?;
        self.output.apply(&x, ops)?.to_dtype(DType::F32)
    }

    fn written_out(
        &self,
        batch: &Batch<'_>,
        gradient: Option<Gradient<'_>>,
    ) -> Option<candle_core::Result<Loss>> {
        let here = self.device.is_cpu() && self.dtype == DType::F32;
        let longest = batch.lengths.iter().copied().max().unwrap_or(0);
        let whole = self.window.is_none_or(|window| longest <= window);
        let built = whole && self.config.hidden_act == Activation::Silu;
        (here && built).then(|| self.loss_written_out(batch, gradient))
    }
}
