//! Text encoders for the dense half of an index: loading one, and finding the one that an index was built with.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use inhouse_core::Result;
use inhouse_core::encode::TextEncoder;
use inhouse_core::index::{Index, IndexEncoder};

use crate::backend::{self, Backend};

/// Which encoder an index is searched with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum EncoderChoice {
    /// The one that the index names, where it was built with one. Where that cannot be loaded, the index is searched by words
    /// alone, with a warning.
    #[default]
    OfIndex,
    /// None: the index is searched by words alone.
    None,
    /// The one at this path, a Hugging Face folder or a GGUF file. It must be the one that the index was built with, or its
    /// conversion to another format.
    At(PathBuf),
}

/// Loads a text encoder: a Hugging Face folder (by the candle backend) or a GGUF file ([`inhouse_core::bert`] runs a BERT of Q8_0
/// without a backend, llama.cpp the others).
///
/// # Errors
/// Nothing at `path`, a backend that this build lacks, or a file that is no encoder or damaged.
pub fn load_encoder(path: &Path) -> Result<Arc<dyn TextEncoder>> {
    load_encoder_on(path, Backend::Auto)
}

/// The same on a backend of the caller's choice.
///
/// # Errors
/// As [`load_encoder`].
pub fn load_encoder_on(path: &Path, backend: Backend) -> Result<Arc<dyn TextEncoder>> {
    backend::load_encoder(path, backend)
}

/// The encoder at `path` for building an index.
///
/// # Errors
/// As [`load_encoder`].
pub fn index_encoder(path: &Path) -> Result<IndexEncoder> {
    let encoder = load_encoder(path)?;
    // The index names it wherever it is opened from.
    let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    Ok(IndexEncoder { encoder, path })
}

/// The encoder to update the index in `dir` with; `None` where it was built without one.
///
/// # Errors
/// The index cannot be opened, or the encoder that `choice` or the index names cannot be loaded.
pub fn encoder_for_update(dir: &Path, choice: &EncoderChoice) -> Result<Option<IndexEncoder>> {
    let index = Index::open(dir)?;
    match (index.encoder(), choice) {
        (_, EncoderChoice::At(path)) => index_encoder(path).map(Some),
        (Some(entry), EncoderChoice::OfIndex) => index_encoder(&entry.path).map(Some),
        _ => Ok(None),
    }
}

/// Opens the index in `dir` with the encoder that is `loaded` for another, where that is its encoder too; else as
/// [`open_index`].
pub(crate) fn reopen_index(
    dir: &Path,
    choice: &EncoderChoice,
    loaded: Option<&Arc<dyn TextEncoder>>,
) -> Result<Index> {
    if let Some(encoder) = loaded {
        let index = Index::open(dir)?;
        if index.encoder().is_some_and(|entry| entry.fingerprint == encoder.info().fingerprint) {
            return index.with_encoder(Arc::clone(encoder));
        }
    }
    open_index(dir, choice)
}

/// Opens the index in `dir` with its encoder.
///
/// # Errors
/// The index cannot be opened; the encoder at the path of [`EncoderChoice::At`] cannot be loaded or is not the index's.
pub fn open_index(dir: &Path, choice: &EncoderChoice) -> Result<Index> {
    let index = Index::open(dir)?;
    match (index.encoder(), choice) {
        (_, EncoderChoice::At(path)) => index.with_encoder(load_encoder(path)?),
        (Some(entry), EncoderChoice::OfIndex) => {
            let (name, path) = (entry.name.clone(), entry.path.clone());
            let without = |cause: &dyn std::fmt::Display| {
                tracing::warn!(
                    "{}: searched by words alone, since its encoder {name} is not to be had ({cause}); name it (--encoder \
                     PATH), or none",
                    dir.display()
                );
            };
            match load_encoder(&path) {
                Ok(encoder) if encoder.info().fingerprint != entry.fingerprint => {
                    without(&format!("{} is another now", path.display()));
                    Ok(index)
                }
                Ok(encoder) => index.with_encoder(encoder),
                Err(cause) => {
                    without(&cause);
                    Ok(index)
                }
            }
        }
        _ => Ok(index),
    }
}
