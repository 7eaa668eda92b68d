//! The one place where a model file meets a backend.

use std::path::Path;
use std::sync::Arc;

use inhouse_core::decode::Model;
use inhouse_core::encode::TextEncoder;
use inhouse_core::lora::LoraChoice;
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

/// A model to load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source<'s> {
    pub path: &'s Path,
    pub backend: Backend,
    /// As many layers on the GPU, where the backend has one.
    pub gpu_layers: u32,
    pub adapters: &'s [LoraChoice],
}

impl Source<'_> {
    /// The backend that it goes to.
    fn chosen(&self) -> Result<Backend> {
        let meta = std::fs::metadata(self.path).map_err(|cause| Error::io("open model", self.path, cause))?;
        Ok(match self.backend {
            Backend::Auto if meta.is_dir() => Backend::Candle,
            Backend::Auto => Backend::Llama,
            chosen => chosen,
        })
    }
}

/// Loads a model. `isolated` says that this process is there for the model alone: files then need not be known completely.
///
/// # Errors
/// Nothing at the path, a backend that this build lacks, or a file that the backend refuses.
pub(crate) fn load(source: &Source<'_>, isolated: bool) -> Result<Arc<dyn Model>> {
    match source.chosen()? {
        Backend::Candle => load_candle(source),
        _ => load_llama(source, isolated),
    }
}

/// Why a model should run in a process of its own, where it should.
///
/// # Errors
/// As [`load`], of a file that is wrong.
pub(crate) fn why_isolated(source: &Source<'_>) -> Result<Option<String>> {
    match source.chosen()? {
        Backend::Candle => Ok(None),
        _ => why_unchecked(source.path),
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
fn load_llama(source: &Source<'_>, isolated: bool) -> Result<Arc<dyn Model>> {
    let mut options = inhouse_llama::LoadOptions::default();
    options.gpu_layers = source.gpu_layers;
    options.adapters = source.adapters.to_vec();
    options.unchecked = isolated;
    inhouse_llama::load(source.path, &options)
}

#[cfg(not(feature = "llama"))]
fn load_llama(source: &Source<'_>, _isolated: bool) -> Result<Arc<dyn Model>> {
    Err(missing(source.path, "llama.cpp", "llama"))
}

#[cfg(feature = "llama")]
fn why_unchecked(path: &Path) -> Result<Option<String>> {
    inhouse_llama::why_unchecked(path)
}

#[cfg(not(feature = "llama"))]
fn why_unchecked(_path: &Path) -> Result<Option<String>> {
    Ok(None)
}

#[cfg(feature = "candle")]
fn load_candle(source: &Source<'_>) -> Result<Arc<dyn Model>> {
    use inhouse_candle::{Device, LoadOptions};
    // candle has no half-way: with any layer on the GPU all of them are.
    let device = if source.gpu_layers > 0 { Device::Cuda(0) } else { Device::Cpu };
    let options = LoadOptions { device, ..LoadOptions::default() };
    inhouse_candle::load_adapted(source.path, &options, source.adapters)
}

#[cfg(not(feature = "candle"))]
fn load_candle(source: &Source<'_>) -> Result<Arc<dyn Model>> {
    Err(missing(source.path, "candle", "candle"))
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
