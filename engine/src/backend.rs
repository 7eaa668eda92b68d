//! The one place where a model file meets a backend.

use std::path::Path;
use std::sync::Arc;

use inhouse_core::decode::Model;
use inhouse_core::encode::TextEncoder;
use inhouse_core::{Error, ErrorKind, Result};

/// Which backend runs a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Backend {
    /// By what the path is: a `.gguf` file goes to llama.cpp, a Hugging Face folder to candle.
    #[default]
    Auto,
    /// llama.cpp.
    Llama,
    /// candle.
    Candle,
}

impl Backend {
    const ALL: [Self; 3] = [Self::Auto, Self::Llama, Self::Candle];

    /// Its name between host and worker.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Llama => "llama",
            Self::Candle => "candle",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|backend| backend.name() == name)
    }
}

/// Names of the backends in this build.
pub fn available_backends() -> &'static [&'static str] {
    match (cfg!(feature = "llama"), cfg!(feature = "candle")) {
        (true, true) => &["llama.cpp", "candle"],
        (true, false) => &["llama.cpp"],
        (false, true) => &["candle"],
        (false, false) => &[],
    }
}

/// Loads the model at `path`, with as many layers on the GPU as asked where the backend has one.
///
/// # Errors
/// Nothing at `path`, a backend that this build lacks, or a file that the backend refuses.
pub(crate) fn load(path: &Path, backend: Backend, gpu_layers: u32) -> Result<Arc<dyn Model>> {
    let meta = std::fs::metadata(path).map_err(|cause| Error::io("open model", path, cause))?;
    let backend = match backend {
        Backend::Auto if meta.is_dir() => Backend::Candle,
        Backend::Auto => Backend::Llama,
        chosen => chosen,
    };
    match backend {
        Backend::Candle => load_candle(path, gpu_layers),
        _ => load_llama(path, gpu_layers),
    }
}

/// Loads the text encoder at `path`. Of its own accord candle runs folders, and core the files that it can; llama.cpp the others.
///
/// # Errors
/// As [`load`].
pub(crate) fn load_encoder(path: &Path, backend: Backend) -> Result<Arc<dyn TextEncoder>> {
    let meta = std::fs::metadata(path).map_err(|cause| Error::io("open encoder", path, cause))?;
    match backend {
        Backend::Candle => load_candle_encoder(path),
        Backend::Llama => load_llama_encoder(path),
        Backend::Auto if meta.is_dir() => load_candle_encoder(path),
        Backend::Auto => match inhouse_core::bert::load_encoder(path) {
            Err(error) if error.kind() == ErrorKind::Unsupported && cfg!(feature = "llama") => {
                load_llama_encoder(path)
            }
            loaded => loaded,
        },
    }
}

#[cfg(feature = "llama")]
fn load_llama_encoder(path: &Path) -> Result<Arc<dyn TextEncoder>> {
    inhouse_llama::load_encoder(path, &inhouse_llama::LoadOptions::default())
}

#[cfg(not(feature = "llama"))]
fn load_llama_encoder(path: &Path) -> Result<Arc<dyn TextEncoder>> {
    Err(missing(path, "llama.cpp", "llama"))
}

#[cfg(feature = "candle")]
fn load_candle_encoder(path: &Path) -> Result<Arc<dyn TextEncoder>> {
    inhouse_candle::load_encoder(path, &inhouse_candle::LoadOptions::default())
}

#[cfg(not(feature = "candle"))]
fn load_candle_encoder(path: &Path) -> Result<Arc<dyn TextEncoder>> {
    Err(missing(path, "candle", "candle"))
}

#[cfg(feature = "llama")]
fn load_llama(path: &Path, gpu_layers: u32) -> Result<Arc<dyn Model>> {
    let mut options = inhouse_llama::LoadOptions::default();
    options.gpu_layers = gpu_layers;
    inhouse_llama::load(path, &options)
}

#[cfg(not(feature = "llama"))]
fn load_llama(path: &Path, _gpu_layers: u32) -> Result<Arc<dyn Model>> {
    Err(missing(path, "llama.cpp", "llama"))
}

#[cfg(feature = "candle")]
fn load_candle(path: &Path, gpu_layers: u32) -> Result<Arc<dyn Model>> {
    use inhouse_candle::{Device, LoadOptions};
    // candle has no half-way: with any layer on the GPU all of them are.
    let device = if gpu_layers > 0 { Device::Cuda(0) } else { Device::Cpu };
    inhouse_candle::load(path, &LoadOptions { device, ..LoadOptions::default() })
}

#[cfg(not(feature = "candle"))]
fn load_candle(path: &Path, _gpu_layers: u32) -> Result<Arc<dyn Model>> {
    Err(missing(path, "candle", "candle"))
}

#[cfg(not(all(feature = "llama", feature = "candle")))]
fn missing(path: &Path, backend: &str, feature: &str) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!(
            "{}: needs the {backend} backend, which this build lacks (build with `--features {feature}`)",
            path.display()
        ),
    )
}
