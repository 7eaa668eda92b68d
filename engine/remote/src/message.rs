//! What host and worker say to each other. Tokens, logits, cells, texts and paths are a frame's body; the rest is JSON.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use inhouse_core::decode::{Conventions, DecoderOptions, ModelInfo, SeqId, TokenId};
use inhouse_core::lora::LoraChoice;
use inhouse_core::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

use crate::frame;

/// Longest text of an error that is passed on.
const MAX_ERROR_BYTES: usize = 16 << 10;

/// What the worker is to load. The body is its path, then those of the adapters, with a zero byte between.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Load {
    /// Which backend, in the words of whoever loads.
    pub backend: String,
    /// Layers on the GPU.
    pub gpu_layers: u32,
    /// Low-rank adapters.
    #[serde(skip)]
    pub adapters: Vec<LoraChoice>,
    /// Their scales, on the way.
    #[serde(default)]
    scales: Vec<f32>,
}

impl Load {
    /// A model without adapters.
    pub fn new(backend: impl Into<String>, gpu_layers: u32) -> Self {
        Self { backend: backend.into(), gpu_layers, adapters: Vec::new(), scales: Vec::new() }
    }

    /// The same with adapters.
    pub fn with_adapters(mut self, adapters: Vec<LoraChoice>) -> Self {
        self.scales = adapters.iter().map(|adapter| adapter.scale).collect();
        self.adapters = adapters;
        self
    }

    /// The body for a model at `path`.
    pub(crate) fn body(&self, path: &Path) -> Vec<u8> {
        let mut body = path.as_os_str().as_bytes().to_vec();
        for adapter in &self.adapters {
            body.push(0);
            body.extend_from_slice(adapter.path.as_os_str().as_bytes());
        }
        body
    }

    /// The model's path out of a body; the adapters' go to their scales. `None` where there are not as many.
    pub(crate) fn take(&mut self, body: &[u8]) -> Option<PathBuf> {
        let mut paths = body.split(|byte| *byte == 0).map(|path| PathBuf::from(OsStr::from_bytes(path)));
        let model = paths.next()?;
        let adapters = paths.zip(&self.scales).map(|(path, &scale)| LoraChoice { path, scale }).collect();
        self.adapters = adapters;
        let n_paths = body.iter().filter(|byte| **byte == 0).count();
        (self.adapters.len() == self.scales.len() && n_paths == self.scales.len()).then_some(model)
    }
}

/// What a host asks. A worker answers each with one [`Reply`], but for `Close` and `Cancel`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Request {
    /// The first request, and only the first. Body: see [`Load`]. Answer: `Loaded`.
    Load(Load),
    /// Body: the text. Answer: `Tokens`.
    Encode,
    /// Makes a decoder. Answer: `Opened`.
    Open(Options),
    /// Edits, then a feed. Body: the tokens of all feeds. Answer: `Rows`.
    Feed {
        decoder: u32,
        edits: Vec<Edit>,
        /// Sequences, and how many tokens each is fed.
        feeds: Vec<(SeqId, u32)>,
    },
    /// Edits, then a save. Answer: `Cells`.
    Save { decoder: u32, edits: Vec<Edit>, seq: SeqId },
    /// Edits, then a restore. Body: the cells. Answer: `Done`.
    Restore { decoder: u32, edits: Vec<Edit>, seq: SeqId, len: u64 },
    /// The decoder is used no more.
    Close { decoder: u32 },
    /// Ends the feed of that request, if it is still under way.
    Cancel { request: u32 },
}

/// A change of sequences that needs no answer: it goes along with the next request that does, since a round trip costs more
/// than the change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Edit {
    Fork(SeqId, SeqId),
    Rewind(SeqId, u64),
}

/// [`DecoderOptions`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Options {
    context_length: Option<u64>,
    sequences: u64,
    kv_cells: Option<u64>,
    threads: Option<u64>,
    exact: bool,
}

impl From<&DecoderOptions> for Options {
    fn from(options: &DecoderOptions) -> Self {
        let wide = |n: Option<usize>| n.map(|n| n as u64);
        Self {
            context_length: wide(options.context_length),
            sequences: options.sequences as u64,
            kv_cells: wide(options.kv_cells),
            threads: wide(options.threads),
            exact: options.exact,
        }
    }
}

impl Options {
    pub fn decoder_options(&self) -> DecoderOptions {
        let narrow = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        DecoderOptions {
            context_length: self.context_length.map(narrow),
            sequences: narrow(self.sequences),
            kv_cells: self.kv_cells.map(narrow),
            threads: self.threads.map(narrow),
            exact: self.exact,
        }
    }
}

/// What a worker answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Reply {
    /// Body: the vocabulary, see [`crate::vocabulary`].
    Loaded(Box<Loaded>),
    /// Body: the tokens.
    Tokens,
    Opened(Opened),
    /// Body: the logits after each feed, `[feeds, vocab] f32`.
    Rows,
    /// Body: the cells.
    Cells,
    Done,
    /// The request failed.
    Failed {
        kind: i32,
        message: String,
    },
}

/// A loaded model.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Loaded {
    pub info: ModelInfo,
    pub conventions: Conventions,
}

/// A new decoder.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Opened {
    pub decoder: u32,
    pub max_sequences: u32,
    pub context_length: u64,
    pub reads_prompt_whole: bool,
}

impl Reply {
    pub fn failed(error: &Error) -> Self {
        let mut message = error.to_string();
        if message.len() > MAX_ERROR_BYTES {
            message.truncate(message.floor_char_boundary(MAX_ERROR_BYTES));
        }
        Self::Failed { kind: error.kind() as i32, message }
    }
}

/// The worker's error as the host's own.
pub(crate) fn failure(kind: i32, message: String) -> Error {
    // A worker of the same build knows no other kinds.
    Error::new(ErrorKind::from_number(kind).unwrap_or(ErrorKind::Internal), message)
}

pub(crate) fn to_json(message: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(message)
        .map_err(|cause| Error::new(ErrorKind::Internal, format!("cannot write a message: {cause}")))
}

pub(crate) fn from_json<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> std::io::Result<T> {
    serde_json::from_slice(bytes).map_err(|cause| frame::bad(&format!("a message cannot be read: {cause}")))
}

/// Tokens as they stand in a body: u32, of this machine.
pub(crate) fn tokens(body: &[u8]) -> std::io::Result<Vec<TokenId>> {
    let (tokens, rest) = body.as_chunks::<4>();
    if !rest.is_empty() {
        return Err(frame::bad("a body of tokens is cut off"));
    }
    Ok(tokens.iter().map(|bytes| TokenId::from_ne_bytes(*bytes)).collect())
}
