//! T5 (Raffel et al. 2020, arXiv 1910.10683), which CodeT5 is, following transformers' `modeling_t5.py`.
//!
//! An encoder and a decoder with root-mean-square norms, unscaled attention, positions as a bias on the scores by bucketed
//! distance (learned in the first block of each stack and used by all), no biases elsewhere, and a ReLU or gated feed-forward.
//! How a prompt meets the two halves is told in `encoder_decoder.rs`.

use candle_core::{DType, Device, Tensor};
use inhouse_core::decode::{CancelToken, TokenId};
use inhouse_core::{Error, Result};

use crate::attention::{Projected, Reader, Rows, Sight, attend, self_attention, split_heads};
use crate::cache::{KeyValue, Memory, Shape};
use crate::config::ConfigFile;
use crate::layers::{Linear, Loader, Norm};
use crate::model::{Encoder, Network};
use crate::ops::{Activation, Ops};

/// Hyperparameters of a T5 model, named as in its `config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Rows of the embedding and of the output, padding included.
    pub vocab_size: usize,
    /// Tokens of prompt and completion together: T5 has no table of positions, this is what it was trained with.
    pub n_positions: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Width of one head; independent of `d_model`.
    pub d_kv: usize,
    /// Width of the feed-forward layer.
    pub d_ff: usize,
    /// Blocks of the encoder.
    pub num_layers: usize,
    /// Blocks of the decoder.
    pub num_decoder_layers: usize,
    /// Attention heads.
    pub num_heads: usize,
    /// Buckets of distances.
    pub relative_attention_num_buckets: usize,
    /// Distances from here on share a bucket.
    pub relative_attention_max_distance: usize,
    /// Epsilon of the norms.
    pub layer_norm_epsilon: f64,
    /// Of the feed-forward layer.
    pub dense_act_fn: Activation,
    /// Whether the feed-forward layer is gated.
    pub is_gated_act: bool,
    /// Whether the output projection shares the embedding's weight; the states are then scaled by `d_model^-0.5`.
    pub tie_word_embeddings: bool,
    /// The token that the decoder begins with.
    pub decoder_start_token_id: usize,
}

impl Config {
    /// Takes the hyperparameters out of a `config.json`.
    ///
    /// # Errors
    /// A key is missing, out of range, contradicts another, or names a feed-forward layer that is not known.
    pub fn from_file(file: &ConfigFile) -> Result<Self> {
        let vocab_size = file.size("vocab_size", 1..=1 << 24)?;
        let num_layers = file.size("num_layers", 1..=512)?;
        let (dense_act_fn, is_gated_act) = feed_forward(file)?;
        let start = match file.optional_size("decoder_start_token_id", 0..=vocab_size - 1)? {
            Some(start) => start,
            None => file.size("pad_token_id", 0..=vocab_size - 1)?,
        };
        let config = Self {
            vocab_size,
            n_positions: file.optional_size("n_positions", 1..=1 << 20)?.unwrap_or(512),
            d_model: file.size("d_model", 1..=1 << 16)?,
            d_kv: file.size("d_kv", 1..=1 << 16)?,
            d_ff: file.size("d_ff", 1..=1 << 20)?,
            num_layers,
            num_decoder_layers: file.optional_size("num_decoder_layers", 1..=512)?.unwrap_or(num_layers),
            num_heads: file.size("num_heads", 1..=1 << 12)?,
            relative_attention_num_buckets: file.size("relative_attention_num_buckets", 4..=1 << 16)?,
            relative_attention_max_distance: file
                .optional_size("relative_attention_max_distance", 2..=1 << 20)?
                .unwrap_or(128),
            layer_norm_epsilon: file.positive_or("layer_norm_epsilon", 1e-6)?,
            dense_act_fn,
            is_gated_act,
            tie_word_embeddings: file.flag_or("tie_word_embeddings", true)?,
            decoder_start_token_id: start,
        };
        let (buckets, distance) =
            (config.relative_attention_num_buckets, config.relative_attention_max_distance);
        if distance <= buckets / 2 {
            let what = format!(
                "relative_attention_max_distance {distance} is not above half of the {buckets} buckets of distances"
            );
            return Err(Error::data(file.path(), what));
        }
        Ok(config)
    }

    /// Width of all heads together.
    pub fn inner_dim(&self) -> usize {
        self.num_heads * self.d_kv
    }

    /// The bucket of a cell as seen from a row (`_relative_position_bucket` in `modeling_t5.py`): near distances have one
    /// each, further ones share them by logarithm. An encoder looks both ways and halves the buckets.
    fn bucket(&self, row: usize, cell: usize, both_ways: bool) -> u32 {
        let mut buckets = self.relative_attention_num_buckets;
        let mut bucket = 0;
        let distance = if both_ways {
            buckets /= 2;
            if cell > row {
                bucket = buckets;
            }
            row.abs_diff(cell)
        } else {
            row.saturating_sub(cell)
        };
        let exact = buckets / 2;
        if distance < exact {
            return (bucket + distance) as u32;
        }
        // In f32, as there: a distance at the border of two buckets must fall to the same side.
        let ratio = (distance as f32 / exact as f32).ln()
            / (self.relative_attention_max_distance as f64 / exact as f64).ln() as f32;
        let far = exact + (ratio * (buckets - exact) as f32) as usize;
        (bucket + far.min(buckets - 1)) as u32
    }
}

/// `feed_forward_proj`, "relu" or "gated-gelu"; `dense_act_fn` and `is_gated_act`, which transformers writes beside it, win.
fn feed_forward(file: &ConfigFile) -> Result<(Activation, bool)> {
    let key = "feed_forward_proj";
    let text = file.text(key)?.unwrap_or("relu");
    let (name, gated) = match text.strip_prefix("gated-") {
        Some(name) => (name, true),
        None => (text, false),
    };
    // The gated GELU of T5 1.1 is the tanh form, whatever it is called.
    let activation = match (name, gated) {
        ("gelu", true) => Some(Activation::GeluTanh),
        (name, _) => Activation::from_name(name),
    };
    let known = format!("an activation or gated-ACTIVATION, of {}", Activation::NAMES);
    let activation = activation.ok_or_else(|| file.unsupported(key, &known))?;
    Ok((file.activation_or("dense_act_fn", activation)?, file.flag_or("is_gated_act", gated)?))
}

struct Attention {
    queries: Linear,
    keys: Linear,
    values: Linear,
    output: Linear,
}

struct FeedForward {
    norm: Norm,
    /// Where the layer is gated: what the activation is applied to.
    gate: Option<Linear>,
    input: Linear,
    output: Linear,
}

struct EncoderBlock {
    norm: Norm,
    attention: Attention,
    feed_forward: FeedForward,
}

struct DecoderBlock {
    norm: Norm,
    attention: Attention,
    cross_norm: Norm,
    cross_attention: Attention,
    feed_forward: FeedForward,
}

/// A loaded T5.
pub(crate) struct T5 {
    config: Config,
    dtype: DType,
    device: Device,
    /// `[vocab_size, d_model]`, of both stacks.
    embedding: Tensor,
    encoder: Vec<EncoderBlock>,
    /// `[buckets, num_heads]`.
    encoder_bias: Tensor,
    encoder_norm: Norm,
    decoder: Vec<DecoderBlock>,
    /// `[buckets, num_heads]`.
    decoder_bias: Tensor,
    decoder_norm: Norm,
    output: Linear,
}

impl T5 {
    pub fn load(file: &ConfigFile, loader: &Loader<'_>) -> Result<Self> {
        let config = Config::from_file(file)?;
        let parts = Parts { config: &config, loader };
        let (vocab, model) = (config.vocab_size, config.d_model);
        // Some checkpoints name the shared embedding only where it is used.
        let names = ["shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"];
        let name = names.into_iter().find(|name| loader.has(name)).unwrap_or(names[0]);
        let embedding = loader.tensor(name, &[vocab, model])?;
        let bias = |stack: &str| {
            let name = format!("{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight");
            loader.tensor(&name, &[config.relative_attention_num_buckets, config.num_heads])
        };
        let (encoder_bias, decoder_bias) = (bias("encoder")?, bias("decoder")?);
        let mut encoder = Vec::with_capacity(config.num_layers);
        for layer in 0..config.num_layers {
            let name = |part: &str| format!("encoder.block.{layer}.layer.{part}");
            encoder.push(EncoderBlock {
                norm: parts.norm(&name("0.layer_norm"))?,
                attention: parts.attention(&name("0.SelfAttention"))?,
                feed_forward: parts.feed_forward(&name("1"))?,
            });
        }
        let mut decoder = Vec::with_capacity(config.num_decoder_layers);
        for layer in 0..config.num_decoder_layers {
            let name = |part: &str| format!("decoder.block.{layer}.layer.{part}");
            decoder.push(DecoderBlock {
                norm: parts.norm(&name("0.layer_norm"))?,
                attention: parts.attention(&name("0.SelfAttention"))?,
                cross_norm: parts.norm(&name("1.layer_norm"))?,
                cross_attention: parts.attention(&name("1.EncDecAttention"))?,
                feed_forward: parts.feed_forward(&name("2"))?,
            });
        }
        let encoder_norm = parts.norm("encoder.final_layer_norm")?;
        let decoder_norm = parts.norm("decoder.final_layer_norm")?;
        let output = loader.head(config.tie_word_embeddings, &embedding)?;
        let (dtype, device) = (loader.dtype, loader.device.clone());
        Ok(Self {
            config,
            dtype,
            device,
            embedding,
            encoder,
            encoder_bias,
            encoder_norm,
            decoder,
            decoder_bias,
            decoder_norm,
            output,
        })
    }

    /// `[num_heads, rows, cells] f32`, for `rows` positions from `past` on and cells from 0 on.
    fn position_bias(
        &self,
        table: &Tensor,
        past: usize,
        rows: usize,
        cells: usize,
        both_ways: bool,
    ) -> candle_core::Result<Tensor> {
        let buckets: Vec<u32> = (past..past + rows)
            .flat_map(|row| (0..cells).map(move |cell| self.config.bucket(row, cell, both_ways)))
            .collect();
        let bias = table.index_select(&Tensor::new(buckets, &self.device)?, 0)?;
        bias.reshape((rows, cells, self.config.num_heads))?
            .permute((2, 0, 1))?
            .contiguous()?
            .to_dtype(DType::F32)
    }

    /// T5 does not divide scores by the square root of the head's width.
    fn unscaled(&self) -> f64 {
        (self.config.d_kv as f64).sqrt()
    }

    fn project(&self, attention: &Attention, x: &Tensor, ops: Ops) -> candle_core::Result<Projected> {
        let heads = |linear: &Linear| split_heads(&linear.apply(x, ops)?, self.config.num_heads);
        Ok(Projected {
            queries: heads(&attention.queries)?,
            keys: heads(&attention.keys)?,
            values: heads(&attention.values)?,
        })
    }

    fn feed_forward(&self, layer: &FeedForward, x: &Tensor, ops: Ops) -> candle_core::Result<Tensor> {
        let normed = layer.norm.apply(x, ops)?;
        let activation = self.config.dense_act_fn;
        let input = layer.input.apply(&normed, ops)?;
        let hidden = match &layer.gate {
            Some(gate) => (ops.activate(activation, &gate.apply(&normed, ops)?)? * input)?,
            None => ops.activate(activation, &input)?,
        };
        layer.output.apply(&hidden, ops)? + x
    }

    fn cross_attention(
        &self,
        layer: usize,
        attention: &Attention,
        x: &Tensor,
        parts: &[Rows<'_>],
        ops: Ops,
    ) -> candle_core::Result<Tensor> {
        let queries = split_heads(&attention.queries.apply(x, ops)?, self.config.num_heads)?;
        let whole = Sight::all();
        let mut readers = Vec::with_capacity(parts.len());
        for part in parts {
            let cells = vec![part.memory()?.layers[layer].clone()];
            readers.push(Reader { begin: part.begin, count: part.count, cells, sight: &whole });
        }
        attention.output.apply(&attend(&queries, self.unscaled(), readers, ops)?, ops)
    }
}

/// Takes the parts that both stacks have out of a checkpoint.
struct Parts<'a> {
    config: &'a Config,
    loader: &'a Loader<'a>,
}

impl Parts<'_> {
    fn norm(&self, name: &str) -> Result<Norm> {
        self.loader.rms_norm(name, self.config.d_model, self.config.layer_norm_epsilon)
    }

    fn attention(&self, name: &str) -> Result<Attention> {
        let (model, inner) = (self.config.d_model, self.config.inner_dim());
        let inward = |part: &str| self.loader.linear(&format!("{name}.{part}"), inner, model, false);
        Ok(Attention {
            queries: inward("q")?,
            keys: inward("k")?,
            values: inward("v")?,
            output: self.loader.linear(&format!("{name}.o"), model, inner, false)?,
        })
    }

    fn feed_forward(&self, name: &str) -> Result<FeedForward> {
        let (model, inner) = (self.config.d_model, self.config.d_ff);
        let inward =
            |part: &str| self.loader.linear(&format!("{name}.DenseReluDense.{part}"), inner, model, false);
        let gated = self.config.is_gated_act;
        Ok(FeedForward {
            norm: self.norm(&format!("{name}.layer_norm"))?,
            gate: if gated { Some(inward("wi_0")?) } else { None },
            input: inward(if gated { "wi_1" } else { "wi" })?,
            output: self.loader.linear(&format!("{name}.DenseReluDense.wo"), model, inner, false)?,
        })
    }
}

impl Encoder for T5 {
    fn start(&self) -> TokenId {
        self.config.decoder_start_token_id as TokenId
    }

    fn encode(&self, tokens: &[TokenId], cancel: &CancelToken, ops: Ops) -> candle_core::Result<Memory> {
        let n = tokens.len();
        let bias = self.position_bias(&self.encoder_bias, 0, n, n, true)?;
        let sights = [Sight::all().biased(&bias)?];
        let mut x = self.embedding.index_select(&Tensor::new(tokens, &self.device)?, 0)?;
        for (layer, block) in self.encoder.iter().enumerate() {
            let projected = self.project(&block.attention, &block.norm.apply(&x, ops)?, ops)?;
            let mut parts = [Rows { sequence: None, memory: None, begin: 0, count: n, cancel: Some(cancel) }];
            let attended = self_attention(layer, &projected, self.unscaled(), &mut parts, &sights, ops)?;
            x = (block.attention.output.apply(&attended, ops)? + x)?;
            x = self.feed_forward(&block.feed_forward, &x, ops)?;
        }
        let x = self.encoder_norm.apply(&x, ops)?;
        let mut layers = Vec::with_capacity(self.decoder.len());
        for block in &self.decoder {
            let heads =
                |linear: &Linear| split_heads(&linear.apply(&x, ops)?, self.config.num_heads)?.contiguous();
            let attention = &block.cross_attention;
            layers.push(KeyValue { keys: heads(&attention.keys)?, values: heads(&attention.values)? });
        }
        Ok(Memory { len: n, layers })
    }
}

impl Network for T5 {
    fn vocab_size(&self) -> usize {
        self.config.vocab_size
    }

    fn context_length(&self) -> usize {
        self.config.n_positions
    }

    fn cache_shape(&self) -> Shape {
        Shape {
            n_layer: self.decoder.len(),
            n_kv_head: self.config.num_heads,
            head_dim: self.config.d_kv,
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
        let mut sights = Vec::with_capacity(parts.len());
        for part in parts.iter() {
            let (past, n) = (part.past(), part.count);
            let bias = self.position_bias(&self.decoder_bias, past, n, past + n, false)?;
            sights.push(Sight::causal(past, n, None, &self.device)?.biased(&bias)?);
        }
        let mut x = self.embedding.index_select(&Tensor::new(tokens, &self.device)?, 0)?;
        for (layer, block) in self.decoder.iter().enumerate() {
            let projected = self.project(&block.attention, &block.norm.apply(&x, ops)?, ops)?;
            let attended = self_attention(layer, &projected, self.unscaled(), parts, &sights, ops)?;
            x = (block.attention.output.apply(&attended, ops)? + x)?;
            let normed = block.cross_norm.apply(&x, ops)?;
            x = (self.cross_attention(layer, &block.cross_attention, &normed, parts, ops)? + x)?;
            x = self.feed_forward(&block.feed_forward, &x, ops)?;
        }
        let x = x.index_select(&Tensor::new(wanted, &self.device)?, 0)?;
        let mut x = self.decoder_norm.apply(&x, ops)?;
        if self.config.tie_word_embeddings {
            x = (x * (self.config.d_model as f64).powf(-0.5))?;
        }
        self.output.apply(&x, ops)?.to_dtype(DType::F32)
    }

    fn encoder(&self) -> Option<&dyn Encoder> {
        Some(self)
    }
}
