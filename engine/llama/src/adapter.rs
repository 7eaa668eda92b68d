//! Low-rank adapters for llama.cpp. What users name is read and checked by [`inhouse_core::lora`], put together to one adapter, and
//! written anew to a file without a name, which is all that llama.cpp sees: its reader ends the process over a broken file.

use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use inhouse_core::gguf;
use inhouse_core::lora::{Adapter, LoraChoice, combined};
use inhouse_core::{Error, Result};

use crate::raw::ModelHandle;

/// Gives the adapters to `model`, which was loaded from `path`.
///
/// # Errors
/// As [`Adapter::read`] and [`Adapter::for_gguf`]; a temporary file cannot be written, or llama.cpp refuses it.
pub(crate) fn load(model: &mut ModelHandle, path: &Path, choices: &[LoraChoice]) -> Result<()> {
    let header = gguf::read(path)?;
    let mut parts = Vec::with_capacity(choices.len());
    for choice in choices {
        parts.push((Adapter::read(&choice.path)?.for_gguf(&header)?, choice.scale));
    }
    let Some(adapter) = combined(parts)? else { return Ok(()) };
    let failed = |cause| Error::io("write the adapter to", &std::env::temp_dir(), cause);
    let mut file = tempfile::tempfile().map_err(failed)?;
    let architecture = header.text("general.architecture").unwrap_or_default();
    adapter.write_gguf_to(&mut file, architecture, false).map_err(failed)?;
    model.load_adapter(&PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd())))
}
