//! `inhouse-convert`: Hugging Face checkpoints to GGUF files that llama.cpp runs, with quantisation, and back ([`write_folder`]);
//! low-rank adapters to GGUF ([`convert_adapter`]) and into a model ([`merge`]).
//!
//! [`convert`] reads `config.json`, lets the architecture ([`arch`]) plan which tensors the file gets and where their rows
//! come from, and streams them through the quantiser ([`quantize`]) into the writer
//! ([`inhouse_core::gguf`]). Memory stays at a few
//! megabytes beside the tokenizer whatever the size of the model. [`info`] says what a GGUF file holds.

#![forbid(unsafe_code)]

mod adapter;
pub mod arch;
mod convert;
mod folder;
mod info;
mod merge;
pub mod quantize;
mod tokenizer;
mod wordpiece;

pub use adapter::{AdapterOptions, AdapterReport, convert_adapter};
pub use convert::{Options, Report, convert};
pub use folder::{FolderOptions, FolderReport, write_folder};
pub use info::{Info, TensorRow, info};
pub use merge::{MergeOptions, MergeReport, merge};
