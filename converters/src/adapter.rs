//! A PEFT folder as a GGUF adapter.

use std::path::{Path, PathBuf};

use inhouse_core::gguf;
use inhouse_core::lora::Adapter;
use inhouse_core::{Error, ErrorKind, Result, installation};
use serde::Serialize;

/// What to convert.
#[derive(Debug, Clone)]
pub struct AdapterOptions {
    /// PEFT folder.
    pub from: PathBuf,
    /// The GGUF adapter to write; an existing one is replaced once the new one is complete.
    pub out: PathBuf,
    /// The GGUF model that it is for, which the order of rows depends on; `None`: the file that the folder names as its base, or the
    /// model that is set up as the default, where the adapter fits.
    pub model: Option<PathBuf>,
    /// Matrices in f32 instead of f16.
    pub full: bool,
}

/// What was written.
#[derive(Debug, Clone, Serialize)]
pub struct AdapterReport {
    /// The GGUF model that names and rows were taken from.
    pub model: String,
    /// `general.architecture`.
    pub architecture: String,
    /// Weights that the adapter changes.
    pub modules: usize,
    /// Its parameters.
    pub parameters: u64,
}

/// Converts an adapter.
///
/// # Errors
/// As [`Adapter::read`] and [`Adapter::for_gguf`]; no base is named and none is there; the output cannot be written.
pub fn convert_adapter(options: &AdapterOptions) -> Result<AdapterReport> {
    let adapter = Adapter::read(&options.from)?;
    let model = match &options.model {
        Some(model) => model.clone(),
        None => base_of(&adapter)?,
    };
    let header = gguf::read(&model)?;
    let adapter = adapter.for_gguf(&header)?;
    let architecture = header.text("general.architecture").unwrap_or_default().to_owned();
    adapter.write_gguf(&options.out, &architecture, !options.full)?;
    Ok(AdapterReport {
        model: model.display().to_string(),
        architecture,
        modules: adapter.modules.len(),
        parameters: adapter.parameters(),
    })
}

/// A GGUF model that the adapter fits, where nobody names one.
fn base_of(adapter: &Adapter) -> Result<PathBuf> {
    let named = adapter.base.as_deref().map(Path::new).filter(|base| base.is_file()).map(Path::to_path_buf);
    let fits =
        |model: &PathBuf| gguf::read(model).is_ok_and(|header| adapter.clone().for_gguf(&header).is_ok());
    let installed = || installation::model_file(installation::DEFAULT_CODER).filter(fits);
    named.or_else(installed).ok_or_else(|| {
        let base = adapter.base.as_deref().unwrap_or("no base");
        let what = format!(
            "{}: the order of rows depends on the base, which is not here ({base}): name its GGUF file with --model",
            adapter.path.display()
        );
        Error::new(ErrorKind::NotFound, what)
    })
}
