//! `inhouse-candle`: models that run from their Hugging Face folder on candle, and the reading of such folders.
//!
//! [`load`] gives a [`Model`] for the decode loop of `inhouse-core`. [`checkpoint`], [`config`], [`vocabulary`] and the
//! architectures' configurations ([`codegen::Config`]) are also what `inhouse-convert` reads checkpoints with.
//!
//! Inference only: the fused operations used here have no backward pass.

#![forbid(unsafe_code)]

pub mod checkpoint;
pub mod codegen;
pub mod config;
mod tokenizer;
pub mod vocabulary;

use std::path::Path;
use std::sync::Arc;

use inhouse_core::decode::Model;
use inhouse_core::{Error, ErrorKind, Result};

pub use tokenizer::HfTokenizer;

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

/// Loads a model from a Hugging Face folder: `config.json`, safetensors or `pytorch_model.bin`, tokenizer files.
///
/// # Errors
/// A file is missing, truncated or malformed; the architecture is not one of [`config::ARCHITECTURES`]; the device is not there.
pub fn load(dir: &Path, options: &LoadOptions) -> Result<Arc<dyn Model>> {
    let config = config::ConfigFile::read(dir)?;
    match config.model_type()? {
        "codegen" => Ok(Arc::new(codegen::CodeGen::load(dir, &config, options)?)),
        other => {
            let what = format!(
                "architecture {other:?} is not supported (supported: {})",
                config::ARCHITECTURES.join(", ")
            );
            Err(Error::new(ErrorKind::Unsupported, format!("{}: {what}", config.path().display())))
        }
    }
}

/// An error of candle as the engine's: its first line, since the rest is a backtrace.
fn backend_error(error: candle_core::Error) -> Error {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    Error::with_source(ErrorKind::Backend, format!("candle: {line}"), error)
}
