//! CodeGen (Nijkamp et al. 2022, arXiv 2203.13474) on candle, following transformers' `modeling_codegen.py`.
//!
//! A decoder with one layer norm per block that feeds attention and feed-forward side by side, rotary embedding in GPT-J's
//! interleaved order on the first `rotary_dim` dimensions of each head, tanh-GELU, and an output projection with a bias.

mod cache;
mod config;
mod decoder;
mod forward;

use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use inhouse_core::Result;
use inhouse_core::decode::{Decoder, DecoderOptions, Model, ModelInfo, Tokenizer};

use crate::checkpoint::Checkpoint;
use crate::config::ConfigFile;
use crate::tokenizer::HfTokenizer;
use crate::vocabulary::Vocabulary;
use crate::{LoadOptions, backend_error};

pub use config::{Config, Part, names};

/// Layer norm's weight and bias, each `[n_embd]`.
struct Norm {
    weight: Tensor,
    bias: Tensor,
}

/// A projection `x [rows, in] -> [rows, out]`: weight `[out, in]`, bias `[out]` where there is one.
struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

/// Weights of one transformer block.
struct Block {
    norm: Norm,
    /// Queries, keys, values, heads in order: `[3 * n_embd, n_embd]`.
    qkv: Linear,
    attention_output: Linear,
    feed_forward_in: Linear,
    feed_forward_out: Linear,
}

/// Weights of a model.
struct Weights {
    config: Config,
    dtype: DType,
    device: Device,
    /// `[vocab_size, n_embd]`.
    embedding: Tensor,
    blocks: Vec<Block>,
    final_norm: Norm,
    output: Linear,
    /// Cosines and sines of the rotary embedding, each `[n_positions, rotary_dim / 2]`.
    rotary: (Tensor, Tensor),
}

/// A loaded CodeGen model.
pub struct CodeGen {
    info: ModelInfo,
    tokenizer: HfTokenizer,
    weights: Weights,
}

impl CodeGen {
    /// Loads the model of a Hugging Face folder; see [`crate::load`].
    ///
    /// # Errors
    /// As [`crate::load`].
    pub fn load(dir: &Path, config_file: &ConfigFile, options: &LoadOptions) -> Result<Self> {
        let config = Config::from_file(config_file)?;
        let checkpoint = Checkpoint::open(dir)?;
        let device = options.device.open()?;
        let weights = Weights::load(&checkpoint, config.clone(), options.dtype.to_candle(), device)?;
        let tokenizer = HfTokenizer::new(Vocabulary::read(dir, config.vocab_size, config_file)?)?;
        let name = dir.canonicalize().unwrap_or_else(|_| dir.to_path_buf());
        let info = ModelInfo {
            architecture: "codegen".into(),
            name: name.file_name().unwrap_or(name.as_os_str()).to_string_lossy().into_owned(),
            context_length: config.n_positions,
            vocab_size: config.vocab_size,
            parameters: weights.parameters(),
            backend: "candle",
            dtype: options.dtype.name().into(),
        };
        Ok(Self { info, tokenizer, weights })
    }
}

impl Model for CodeGen {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn tokenizer(&self) -> &dyn Tokenizer {
        &self.tokenizer
    }

    fn decoder(self: Arc<Self>, options: &DecoderOptions) -> Result<Box<dyn Decoder>> {
        Ok(Box::new(decoder::CodeGenDecoder::new(self, options)?))
    }
}

impl Weights {
    fn load(checkpoint: &Checkpoint, config: Config, dtype: DType, device: Device) -> Result<Self> {
        let (vocab, embd, inner) = (config.vocab_size, config.n_embd, config.n_inner);
        let get = |name: &str, shape: &[usize]| checkpoint.tensor(name, shape, dtype, &device);
        let norm = |name: &str| -> Result<Norm> {
            let weight = get(&format!("{name}.weight"), &[embd])?;
            Ok(Norm { weight, bias: get(&format!("{name}.bias"), &[embd])? })
        };
        let linear = |name: &str, rows: usize, columns: usize, bias: bool| -> Result<Linear> {
            let weight = get(&format!("{name}.weight"), &[rows, columns])?;
            let bias = if bias { Some(get(&format!("{name}.bias"), &[rows])?) } else { None };
            Ok(Linear { weight, bias })
        };
        let order: Vec<u32> = [Part::Query, Part::Key, Part::Value]
            .into_iter()
            .flat_map(|part| config.part_rows(part))
            .map(|row| row as u32)
            .collect();
        let order = Tensor::new(order, &device).map_err(backend_error)?;

        let mut blocks = Vec::with_capacity(config.n_layer);
        for layer in 0..config.n_layer {
            let name = |tensor: &str| names::block(layer, tensor);
            let fused = linear(&name("attn.qkv_proj"), 3 * embd, embd, false)?;
            let weight = fused.weight.index_select(&order, 0).map_err(backend_error)?;
            blocks.push(Block {
                norm: norm(&name("ln_1"))?,
                qkv: Linear { weight, bias: None },
                attention_output: linear(&name("attn.out_proj"), embd, embd, false)?,
                feed_forward_in: linear(&name("mlp.fc_in"), inner, embd, true)?,
                feed_forward_out: linear(&name("mlp.fc_out"), embd, inner, true)?,
            });
        }
        let embedding = get(names::EMBEDDING, &[vocab, embd])?;
        let output = if config.tie_word_embeddings {
            Linear {
                weight: embedding.clone(),
                bias: Some(get(&format!("{}.bias", names::OUTPUT), &[vocab])?),
            }
        } else {
            linear(names::OUTPUT, vocab, embd, true)?
        };
        let final_norm = norm(names::FINAL_NORM)?;
        let rotary = forward::rotary_tables(&config, &device).map_err(backend_error)?;
        Ok(Self { config, dtype, device, embedding, blocks, final_norm, output, rotary })
    }

    fn parameters(&self) -> u64 {
        let linear = |linear: &Linear| {
            linear.weight.elem_count() + linear.bias.as_ref().map_or(0, candle_core::Tensor::elem_count)
        };
        let norm = |norm: &Norm| norm.weight.elem_count() + norm.bias.elem_count();
        let block = |block: &Block| {
            let linears =
                [&block.qkv, &block.attention_output, &block.feed_forward_in, &block.feed_forward_out];
            norm(&block.norm) + linears.map(linear).iter().sum::<usize>()
        };
        let tied = if self.config.tie_word_embeddings { self.embedding.elem_count() } else { 0 };
        let all = self.embedding.elem_count() + self.blocks.iter().map(block).sum::<usize>();
        (all + norm(&self.final_norm) + linear(&self.output) - tied) as u64
    }
}
