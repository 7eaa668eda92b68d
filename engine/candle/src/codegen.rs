//! CodeGen (Nijkamp et al. 2022, arXiv 2203.13474), following transformers' `modeling_codegen.py`.
//!
//! A decoder with one layer norm per block that feeds attention and feed-forward side by side, rotary embedding in GPT-J's
//! interleaved order on the first `rotary_dim` dimensions of each head, tanh-GELU, and an output projection with a bias.

mod gradient;

use std::ops::Range;
use std::sync::Mutex;

use candle_core::{DType, Device, Tensor};
use inhouse_core::decode::TokenId;
use inhouse_core::{Error, Result};

use crate::attention::{self, Projected, Rows, Sight, self_attention};
use crate::cache::Shape;
use crate::config::ConfigFile;
use crate::layers::{Linear, Loader, Norm};
use crate::model::Network;
use crate::ops::{Activation, Ops, Pairs, Rotary, Turns};
use crate::trainable::{Batch, Gradient, Loss};

/// Blocks of the fused qkv projection: CodeGen was trained on TPU v4 with four-way model parallelism, and its
/// checkpoints keep that layout whatever runs them (`mp_num` in transformers' `modeling_codegen.py`).
const MP_NUM: usize = 4;

/// Hyperparameters of a CodeGen model (Nijkamp et al. 2022, arXiv 2203.13474), named as in its `config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Rows of the embedding and of the output, padding included.
    pub vocab_size: usize,
    /// Context length in tokens.
    pub n_positions: usize,
    /// Width of the residual stream.
    pub n_embd: usize,
    /// Transformer blocks.
    pub n_layer: usize,
    /// Attention heads; a multiple of 4.
    pub n_head: usize,
    /// Width of the feed-forward layer.
    pub n_inner: usize,
    /// Leading dimensions of each head that are rotated; even.
    pub rotary_dim: usize,
    /// Epsilon of the layer norms.
    pub layer_norm_epsilon: f64,
    /// Whether the output projection shares the embedding's weight.
    pub tie_word_embeddings: bool,
}

/// One of the three projections in the fused weight, in the order of the blocks' parts: query, **value**, key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Query.
    Query = 0,
    /// Value.
    Value = 1,
    /// Key.
    Key = 2,
}

impl Config {
    /// Takes the hyperparameters out of a `config.json`.
    ///
    /// # Errors
    /// A key is missing, out of range or contradicts another; the activation is not `gelu_new`.
    pub fn from_file(file: &ConfigFile) -> Result<Self> {
        let n_embd = file.size("n_embd", 4..=1 << 16)?;
        let n_head = file.size("n_head", 4..=1 << 12)?;
        let config = Self {
            vocab_size: file.size("vocab_size", 1..=1 << 24)?,
            n_positions: file.size("n_positions", 1..=1 << 20)?,
            n_embd,
            n_layer: file.size("n_layer", 1..=512)?,
            n_head,
            n_inner: file.optional_size("n_inner", 1..=1 << 20)?.unwrap_or(4 * n_embd),
            rotary_dim: file.size("rotary_dim", 2..=1 << 16)?,
            layer_norm_epsilon: file.positive_or("layer_norm_epsilon", 1e-5)?,
            tie_word_embeddings: file.flag_or("tie_word_embeddings", false)?,
        };
        let wrong = |what: String| Err(Error::data(file.path(), what));
        if !n_embd.is_multiple_of(n_head) {
            return wrong(format!("n_embd {n_embd} is not divisible by n_head {n_head}"));
        }
        if !n_head.is_multiple_of(MP_NUM) {
            return wrong(format!(
                "n_head {n_head} is not divisible by {MP_NUM}, the blocks of CodeGen's fused qkv"
            ));
        }
        if config.rotary_dim > config.head_dim() || !config.rotary_dim.is_multiple_of(2) {
            let head_dim = config.head_dim();
            return wrong(format!(
                "rotary_dim {} is odd or above the head's width {head_dim}",
                config.rotary_dim
            ));
        }
        match file.activation_or("activation_function", Activation::GeluTanh)? {
            Activation::GeluTanh => Ok(config),
            _ => Err(file.unsupported("activation_function", "gelu_new")),
        }
    }

    /// Width of one attention head.
    pub fn head_dim(&self) -> usize {
        self.n_embd / self.n_head
    }

    /// Rows `[begin, end)` of the fused weight `[3 * n_embd, n_embd]` that hold one head's projection.
    ///
    /// The fused rows are four blocks; each block is the queries, then the values, then the keys of a quarter of the heads.
    pub fn head_rows(&self, part: Part, head: usize) -> Range<usize> {
        let heads_per_block = self.n_head / MP_NUM;
        let part_rows = self.n_embd / MP_NUM;
        let (block, head) = (head / heads_per_block, head % heads_per_block);
        let begin = block * 3 * part_rows + part as usize * part_rows + head * self.head_dim();
        begin..begin + self.head_dim()
    }

    /// Rows of the fused weight that make up a projection `[n_embd, n_embd]` with its heads in order.
    pub fn part_rows(&self, part: Part) -> impl Iterator<Item = usize> {
        (0..self.n_head).flat_map(move |head| self.head_rows(part, head))
    }
}

/// Names of the tensors of a CodeGen checkpoint.
pub mod names {
    /// Token embedding `[vocab_size, n_embd]`.
    pub const EMBEDDING: &str = "transformer.wte.weight";
    /// Final layer norm.
    pub const FINAL_NORM: &str = "transformer.ln_f";
    /// Output projection `[vocab_size, n_embd]` and its bias.
    pub const OUTPUT: &str = "lm_head";

    /// A tensor of block `layer`: `block(0, "ln_1.weight")`.
    pub fn block(layer: usize, tensor: &str) -> String {
        format!("transformer.h.{layer}.{tensor}")
    }
}

/// Base of the rotary embedding's wavelengths.
const ROTARY_BASE: f64 = 10_000.0;

/// Weights of one transformer block.
struct Block {
    norm: Norm,
    /// Four blocks of queries, values, keys: see [`Config::head_rows`].
    qkv: Linear,
    attention_output: Linear,
    feed_forward_in: Linear,
    feed_forward_out: Linear,
}

/// A loaded CodeGen.
pub(crate) struct CodeGen {
    config: Config,
    dtype: DType,
    device: Device,
    /// `[vocab_size, n_embd]`.
    embedding: Tensor,
    blocks: Vec<Block>,
    final_norm: Norm,
    output: Linear,
    rotary: Rotary,
    /// What the written-out gradient computes in, kept from one batch to the next.
    room: Mutex<gradient::Room>,
}

impl CodeGen {
    pub fn load(file: &ConfigFile, loader: &Loader<'_>) -> Result<Self> {
        let config = Config::from_file(file)?;
        let (vocab, embd, inner) = (config.vocab_size, config.n_embd, config.n_inner);
        let norm = |name: &str| loader.layer_norm(name, embd, config.layer_norm_epsilon);
        let embedding = loader.tensor(names::EMBEDDING, &[vocab, embd])?;
        let mut blocks = Vec::with_capacity(config.n_layer);
        for layer in 0..config.n_layer {
            let name = |tensor: &str| names::block(layer, tensor);
            blocks.push(Block {
                norm: norm(&name("ln_1"))?,
                qkv: loader.linear(&name("attn.qkv_proj"), 3 * embd, embd, false)?,
                attention_output: loader.linear(&name("attn.out_proj"), embd, embd, false)?,
                feed_forward_in: loader.linear(&name("mlp.fc_in"), inner, embd, true)?,
                feed_forward_out: loader.linear(&name("mlp.fc_out"), embd, inner, true)?,
            });
        }
        let final_norm = norm(names::FINAL_NORM)?;
        let output = if config.tie_word_embeddings {
            Linear::tied(&embedding, Some(loader.tensor(&format!("{}.bias", names::OUTPUT), &[vocab])?))
        } else {
            loader.linear(names::OUTPUT, vocab, embd, true)?
        };
        let rotary = Rotary::new(config.rotary_dim, ROTARY_BASE, Pairs::Neighbours);
        let (dtype, device) = (loader.dtype, loader.device.clone());
        let room = Mutex::default();
        Ok(Self { config, dtype, device, embedding, blocks, final_norm, output, rotary, room })
    }

    /// `[rows, n_embd]` to queries, keys and values, each `[n_head, rows, head_dim]`.
    fn project(&self, block: &Block, x: &Tensor, turns: &Turns, ops: Ops) -> candle_core::Result<Projected> {
        let (n_head, head_dim) = (self.config.n_head, self.config.head_dim());
        let rows = x.dim(0)?;
        let fused = block.qkv.apply(x, ops)?.reshape((rows, MP_NUM, 3, n_head / MP_NUM * head_dim))?;
        let part = |part: Part| -> candle_core::Result<Tensor> {
            let part = fused.narrow(2, part as usize, 1)?.contiguous()?;
            part.reshape((rows, n_head, head_dim))?.transpose(0, 1)
        };
        Ok(Projected {
            queries: turns.apply(&part(Part::Query)?, ops)?,
            keys: turns.apply(&part(Part::Key)?, ops)?,
            values: part(Part::Value)?,
        })
    }
}

impl Network for CodeGen {
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
        let turns = self.rotary.turns(&attention::positions(parts), self.dtype, &self.device)?;
        let sights = Sight::causal_of(parts, None, &self.device)?;
        let mut x = self.embedding.index_select(&Tensor::new(tokens, &self.device)?, 0)?;
        for (layer, block) in self.blocks.iter().enumerate() {
            let normed = block.norm.apply(&x, ops)?;
            let projected = self.project(block, &normed, &turns, ops)?;
            let attended = self_attention(layer, &projected, 1.0, parts, &sights, ops)?;
            let attended = block.attention_output.apply(&attended, ops)?;
            let hidden = ops.activate(Activation::GeluTanh, &block.feed_forward_in.apply(&normed, ops)?)?;
            x = ((attended + block.feed_forward_out.apply(&hidden, ops)?)? + x)?;
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
        here.then(|| self.loss_written_out(batch, gradient))
    }
}
