//! `inhouse-core`: documentation, index, prompt and decode loop.
//!
//! Pure Rust: no model backend, no network, no printing. Everything that a host may feed in (files, prompts,
//! queries) ends in a value or an [`Error`]; nothing here aborts or panics on bad input.
//!
//! Reading order: [`api`] (the documentation record) -> [`python`] (text to syntax trees) -> [`docs`] (Python source to records) -> [`index`]
//! (records on disk, searched) -> [`prompt`] (records in front of a context; [`chat`] for instruction models) -> [`decode`]
//! (tokens out of a model) -> [`constrain`] (only names that the documentation has in what is decoded). [`encode`] is what a
//! text encoder is to the index, [`bert`] the one that needs no backend. [`gguf`] is the container of models that it, the converter
//! and the llama.cpp backend read; [`lora`] reads adapters of models.

pub mod api;
pub mod bert;
pub mod chat;
pub mod constrain;
pub mod decode;
pub mod docs;
pub mod encode;
mod error;
pub mod files;
mod fingerprint;
pub mod gguf;
pub mod index;
pub mod installation;
pub mod lora;
pub mod progress;
pub mod prompt;
pub mod python;
pub mod safetensors;
pub mod usage;
pub mod vector;

pub use api::ApiDoc;
pub use error::{Error, ErrorKind, Result};
pub use fingerprint::Fingerprint;
pub use progress::Progress;
