//! `inhouse-candle`: models that run from their Hugging Face folder on candle, and the reading of such folders.
//!
//! [`load`] gives a [`Model`] for the decode loop of `inhouse-core`; [`Trainable`] gives the same networks with gradients.
//! [`load_encoder`] and [`TrainableEncoder`] do so for text encoders.
//! [`checkpoint`], [`config`], [`vocabulary`] and the architectures' configurations ([`codegen::Config`], [`gpt2::Config`], ...)
//! are also what `inhouse-convert` reads checkpoints with.
//!
//! An architecture is one file: its hyperparameters, its weights, its forward pass. What they share lies beside them: `layers`
//! (weights out of a checkpoint), `attention`, `cache` (keys and values), `ops` (fused and differentiable operations),
//! `decoder` and `encoder_decoder` (the decode loop's view). A text encoder (`encoder`) needs no cache: `ragged` is its attention.

#![forbid(unsafe_code)]

mod attention;
pub mod bert;
mod cache;
pub mod checkpoint;
pub mod codegen;
pub mod config;
mod cpu;
mod decoder;
mod encoder;
mod encoder_decoder;
pub mod gguf;
pub mod gpt2;
pub mod gpt_neo;
mod kernels;
mod layers;
pub mod llama;
mod model;
mod ops;
mod ragged;
pub mod t5;
mod tokenizer;
mod trainable;
pub mod vocabulary;
mod wordpiece;

use std::path::Path;
use std::sync::Arc;

use inhouse_core::decode::{Model, ModelInfo};
use inhouse_core::gguf::{Counterparts, HeadSizes};
use inhouse_core::lora::{Adapter, LoraChoice, combined};
use inhouse_core::{Error, ErrorKind, Result};

use checkpoint::Checkpoint;
use config::ConfigFile;
use layers::Loader;
use model::{HfModel, Network};
use vocabulary::Vocabulary;

pub use encoder::{
    EncoderSettings, Pooling, SETTINGS_FILE, Towers, TrainableEncoder, encoder_fingerprint, load_encoder,
};
pub use tokenizer::HfTokenizer;
pub use trainable::{Example, Gradients, Lesson, Loss, Trainable};
pub use wordpiece::WordPiece;

/// Element type that a model computes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum DType {
    /// 32-bit float: the reference, and the fastest on most CPUs.
    #[default]
    F32,
    /// IEEE half.
    F16,
    /// bfloat16.
    BF16,
}

impl DType {
    fn to_candle(self) -> candle_core::DType {
        match self {
            Self::F32 => candle_core::DType::F32,
            Self::F16 => candle_core::DType::F16,
            Self::BF16 => candle_core::DType::BF16,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
        }
    }
}

/// Where a model computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Device {
    /// The processor.
    #[default]
    Cpu,
    /// The CUDA device with this number; needs the feature `cuda`.
    Cuda(usize),
}

impl Device {
    fn open(self) -> Result<candle_core::Device> {
        match self {
            Self::Cpu => Ok(candle_core::Device::Cpu),
            Self::Cuda(ordinal) => {
                if !candle_core::utils::cuda_is_available() {
                    let what = "this build has no CUDA (feature `cuda` of inhouse-candle)";
                    return Err(Error::new(ErrorKind::Unsupported, what));
                }
                candle_core::Device::new_cuda(ordinal).map_err(backend_error)
            }
        }
    }
}

/// How [`load`] loads.
#[derive(Debug, Clone, Copy, Default)]
pub struct LoadOptions {
    /// Element type to compute in.
    pub dtype: DType,
    /// Device to compute on.
    pub device: Device,
}

/// Loads a model from a Hugging Face folder: `config.json`, safetensors or `pytorch_model.bin`, tokenizer files; or from a GGUF
/// file of an architecture that [`gguf`] reads.
///
/// # Errors
/// A file is missing, truncated or malformed; the architecture is not one of [`config::ARCHITECTURES`]; the device is not there.
pub fn load(dir: &Path, options: &LoadOptions) -> Result<Arc<dyn Model>> {
    load_adapted(dir, options, &[])
}

/// The same with low-rank adapters (LoRA), whose effects add up. They are added to the weights.
///
/// # Errors
/// As [`load`]; an adapter cannot be read, or is not for this model ([`inhouse_core::lora`]).
pub fn load_adapted(dir: &Path, options: &LoadOptions, adapters: &[LoraChoice]) -> Result<Arc<dyn Model>> {
    let config = ConfigFile::read(dir)?;
    let checkpoint = Checkpoint::open(dir)?;
    let loader = Loader::new(&checkpoint, options.dtype.to_candle(), options.device.open()?, false)
        .with_adapter(adapter(&config, adapters)?);
    let network = network(&config, &loader)?;
    loader.check_adapter()?;
    let tokenizer = HfTokenizer::new(Vocabulary::read(dir, network.vocab_size(), &config)?)?;
    let conventions = tokenizer.vocabulary().conventions(network.encoder().is_some());
    let info = ModelInfo {
        architecture: config.model_type()?.to_owned(),
        name: model::folder_name(dir),
        context_length: network.context_length(),
        vocab_size: network.vocab_size(),
        parameters: loader.parameters(),
        backend: "candle".into(),
        dtype: options.dtype.name().into(),
    };
    Ok(Arc::new(HfModel { info, tokenizer, conventions, network }))
}

/// Adapters as one, under Hugging Face's names.
fn adapter(config: &ConfigFile, choices: &[LoraChoice]) -> Result<Option<Adapter>> {
    let mut parts = Vec::with_capacity(choices.len());
    for choice in choices {
        let adapter = Adapter::read(&choice.path)?;
        let counterparts = Counterparts::of_model_type(config.model_type()?, head_sizes(config)?);
        parts.push((adapter.for_hugging_face(counterparts.as_ref())?, choice.scale));
    }
    combined(parts)
}

/// The sizes of attention that the order of rows in GGUF follows from, under the names of any architecture.
fn head_sizes(config: &ConfigFile) -> Result<HeadSizes> {
    let first = |keys: &[&str]| -> Result<Option<usize>> {
        for key in keys {
            if let Some(size) = config.optional_size(key, 1..=1 << 24)? {
                return Ok(Some(size));
            }
        }
        Ok(None)
    };
    let heads = first(&["num_attention_heads", "n_head", "num_heads"])?.unwrap_or(1);
    let width = first(&["hidden_size", "n_embd", "d_model"])?.unwrap_or(heads);
    let head = first(&["head_dim", "d_kv"])?.unwrap_or(width / heads).max(1);
    let kv_heads = first(&["num_key_value_heads"])?.unwrap_or(heads);
    let rotary = first(&["rotary_dim"])?.unwrap_or(head).min(head);
    Ok(HeadSizes { heads, kv_heads, head, rotary })
}

/// The network of a configuration, with its weights.
fn network(config: &ConfigFile, loader: &Loader<'_>) -> Result<Box<dyn Network>> {
    config.refuse_quantization()?;
    Ok(match config.model_type()? {
        "codegen" => Box::new(codegen::CodeGen::load(config, loader)?),
        "gpt2" => Box::new(gpt2::Gpt2::load(config, loader)?),
        "gpt_neo" => Box::new(gpt_neo::GptNeo::load(config, loader)?),
        "llama" | "mistral" | "qwen2" => Box::new(llama::Llama::load(config, loader)?),
        "t5" => Box::new(t5::T5::load(config, loader)?),
        _ => return Err(config.unsupported("model_type", &config::ARCHITECTURES.join(", "))),
    })
}

/// An error of candle as the engine's: its first line, since the rest is a backtrace.
fn backend_error(error: candle_core::Error) -> Error {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    Error::with_source(ErrorKind::Backend, format!("candle: {line}"), error)
}
