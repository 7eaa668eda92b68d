//! `inhouse-convert`: Hugging Face checkpoints to GGUF files that llama.cpp runs, with quantisation.
//!
//! [`convert`] reads `config.json`, lets the architecture ([`arch`]) plan which tensors the file gets and where their rows
//! come from, and streams them through the quantiser ([`quantize`]) into the writer
//! ([`inhouse_core::gguf`]). Memory stays at a few
//! megabytes beside the tokenizer whatever the size of the model. [`info`] says what a GGUF file holds.

#![forbid(unsafe_code)]

pub mod arch;
mod convert;
mod info;
pub mod quantize;
mod tokenizer;
mod wordpiece;

pub use convert::{Options, Report, convert};
pub use info::{Info, TensorRow, info};
