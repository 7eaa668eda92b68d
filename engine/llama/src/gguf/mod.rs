//! GGUF files, read strictly before llama.cpp sees them.
//!
//! llama.cpp answers a good part of what can be wrong with a file with `GGML_ASSERT`, which ends the process. So a file
//! is accepted only when everything in it is known and fits together: the container ([`inhouse_core::gguf`]), the
//! tokenizer ([`vocab`]) and the tensors against the hyperparameters of its architecture ([`arch`]). What this build does not
//! know is refused rather than tried.
//!
//! Followed: the specification in ggml's `docs/gguf.md`, and what llama.cpp (the version that llama-cpp-sys-2 0.1.161
//! bundles) asserts in `gguf.cpp`, `llama-model.cpp`, `llama-vocab.cpp` and the graphs in `src/models`.

mod arch;
mod charsmap;
mod tensors;
mod vocab;

use std::path::Path;

use inhouse_core::decode::Unspelled;
use inhouse_core::gguf::{self, Header, TensorEntry, TensorType, Value};
use inhouse_core::{Error, ErrorKind, Result};
use serde::Serialize;

/// What a valid GGUF file holds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GgufSummary {
    /// Version of the container: 2 or 3.
    pub version: u32,
    /// `general.architecture`: `phi2`, `gpt2`, ...
    pub architecture: String,
    /// `general.name`, or empty.
    pub name: String,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Tensors.
    pub n_tensors: usize,
    /// Parameters of all tensors.
    pub parameters: u64,
    /// The type that holds most of the parameters: `F16`, `Q8_0`, ...
    pub dtype: &'static str,
    /// Transformer blocks.
    pub n_blocks: usize,
    /// Width of the hidden state.
    pub n_embd: usize,
    /// Rows of the vocabulary, padding included.
    pub vocab_size: usize,
    /// Trained context length in tokens.
    pub context_length: usize,
    /// Whether the model continues text: false for encoders.
    pub generates: bool,
    /// Of an encoder-decoder: the token that its decoder begins with.
    pub decoder_start: Option<u32>,
    /// Bytes that the vocabulary has no token for: texts lose them.
    #[serde(skip)]
    pub unspelled: Unspelled,
}

/// Checks a GGUF file completely, short of the weights' values, and says what is in it. Only the metadata is read: the
/// memory this takes is below four times its size.
///
/// # Errors
/// The file cannot be read ([`ErrorKind::NotFound`], [`ErrorKind::Io`]); it is not GGUF, truncated or contradicts itself
/// ([`ErrorKind::InvalidData`]); its container version is not 2 or 3 ([`ErrorKind::UnsupportedVersion`]); its
/// architecture, tokenizer, tensor types or options are not among those this build knows ([`ErrorKind::Unsupported`]).
/// The message names the file and the key, tensor or byte.
pub fn validate(path: &Path) -> Result<GgufSummary> {
    let file = gguf::read(path)?;
    check(&file).map_err(|fault| fault.at(path))
}

/// Why a file can only run unchecked ([`crate::LoadOptions::unchecked`]): it holds something that [`validate`] does not know, which
/// llama.cpp may run, or end the process over. `None`: it was checked completely.
///
/// # Errors
/// As [`validate`], for a file that is wrong by what is known.
pub fn why_unchecked(path: &Path) -> Result<Option<String>> {
    match validate(path) {
        Ok(_) => Ok(None),
        Err(error) if error.kind() == ErrorKind::Unsupported => Ok(Some(error.to_string())),
        Err(error) => Err(error),
    }
}

/// What a file says of itself where [`validate`] does not know it. Sizes are llama.cpp's to read: they are 0 here.
pub(crate) fn survey(path: &Path) -> Result<GgufSummary> {
    let file = gguf::read(path)?;
    let sizes = || -> Result<GgufSummary, Fault> {
        let shape =
            arch::Shape { n_blocks: 0, n_embd: 0, context_length: 0, generates: true, decoder_start: None };
        summary(&file, shape, vocab::Vocab { n_tokens: 0, unspelled: Unspelled::default() })
    };
    sizes().map_err(|fault| fault.at(path))
}

fn check(file: &Header) -> Result<GgufSummary, Fault> {
    for (key, _) in &file.metadata {
        if key.starts_with("split.") {
            return Err(Fault::unsupported(format!("`{key}`: the model is split over several files")));
        }
    }
    check_container(file)?;
    let vocab = vocab::check(file)?;
    let shape = arch::check(file, vocab.n_tokens)?;
    summary(file, shape, vocab)
}

fn summary(file: &Header, shape: arch::Shape, vocab: vocab::Vocab) -> Result<GgufSummary, Fault> {
    let mut by_type: Vec<(&TensorType, u64)> = Vec::new();
    let mut parameters = 0u64;
    for tensor in &file.tensors {
        let n_elements = tensor.n_elements();
        parameters = parameters.saturating_add(n_elements);
        match by_type.iter_mut().find(|(kind, _)| *kind == tensor.kind) {
            Some((_, n)) => *n = n.saturating_add(n_elements),
            None => by_type.push((tensor.kind, n_elements)),
        }
    }
    Ok(GgufSummary {
        version: file.version,
        architecture: text(file, "general.architecture")?.to_owned(),
        name: file.text("general.name").unwrap_or_default().to_owned(),
        file_bytes: file.file_bytes,
        n_tensors: file.tensors.len(),
        parameters,
        dtype: by_type.iter().max_by_key(|(_, n)| *n).map_or("", |(kind, _)| kind.name),
        n_blocks: shape.n_blocks,
        n_embd: shape.n_embd,
        vocab_size: vocab.n_tokens,
        context_length: shape.context_length,
        generates: shape.generates,
        decoder_start: shape.decoder_start,
        unspelled: vocab.unspelled,
    })
}

/// Types of tensors that llama.cpp computes with on every backend.
const RUNNABLE: &[&str] = &[
    "F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K",
    "IQ4_NL", "IQ4_XS",
];

/// What llama.cpp asks of a container beyond what makes it one.
fn check_container(file: &Header) -> Result<(), Fault> {
    if file.tensors.is_empty() {
        return Err(Fault::data("0 tensors: the file holds no model"));
    }
    // Tensors are read where they lie, so they must be aligned for ggml's vector loads too.
    if file.alignment < gguf::ALIGNMENT {
        let least = gguf::ALIGNMENT;
        return Err(Fault::data(format!(
            "`general.alignment` is {}, expected at least {least}",
            file.alignment
        )));
    }
    match file.tensors.iter().find(|tensor| !RUNNABLE.contains(&tensor.kind.name)) {
        Some(TensorEntry { name, kind, .. }) => Err(Fault::unsupported(format!(
            "tensor `{name}` has ggml type {} ({}), which this build does not run",
            kind.id, kind.name
        ))),
        None => Ok(()),
    }
}

/// The text under `key`, which must be there.
fn text<'f>(file: &'f Header, key: &str) -> Result<&'f str, Fault> {
    match file.get(key) {
        Some(Value::Text(text)) => Ok(text),
        Some(other) => Err(Fault::data(format!("`{key}` is of type {}, expected a text", other.kind_name()))),
        None => Err(Fault::data(format!("`{key}` is missing"))),
    }
}

/// What is wrong with a file, before its name is put in front.
#[derive(Debug)]
struct Fault {
    kind: ErrorKind,
    what: String,
}

impl Fault {
    fn data(what: impl Into<String>) -> Self {
        Self { kind: ErrorKind::InvalidData, what: what.into() }
    }

    fn unsupported(what: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Unsupported, what: what.into() }
    }

    fn at(self, path: &Path) -> Error {
        // What came out of the file is shown on one line.
        let mut line = format!("{}: ", path.display());
        for character in self.what.chars() {
            if character.is_control() {
                line.extend(character.escape_default());
            } else {
                line.push(character);
            }
        }
        Error::new(self.kind, line)
    }
}
