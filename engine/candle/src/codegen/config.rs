//! CodeGen's hyperparameters and the layout of its fused projection.

use std::ops::Range;

use inhouse_core::{Error, Result};

use crate::config::ConfigFile;

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
        match file.text("activation_function")?.unwrap_or("gelu_new") {
            "gelu_new" => Ok(config),
            other => wrong(format!("activation_function {other:?} is not supported (supported: gelu_new)")),
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
