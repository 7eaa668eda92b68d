//! `inhouse-llama`: the one safe wrapper over llama.cpp.
//!
//! [`load`] checks a GGUF file completely ([`validate`]) and hands it to llama.cpp, since llama.cpp's own answer to much of
//! what can be wrong is to end the process. What comes out implements [`inhouse_core::decode::Model`]; sampling, stop
//! rules and the loop over tokens are inhouse-core's.
//!
//! llama.cpp's log goes to `tracing` and nowhere else.
#![deny(unsafe_code)]

mod adapter;
mod conventions;
mod decoder;
mod encoder;
mod encoder_decoder;
pub mod gguf;
mod model;
mod raw;
mod tokenizer;

pub use encoder::load_encoder;
pub use gguf::{GgufSummary, validate, why_unchecked};
pub use model::{LoadOptions, load};
