//! A GGUF file as a [`Model`].

use std::path::Path;
use std::sync::Arc;

use inhouse_core::decode::{Conventions, Decoder, DecoderOptions, Model, ModelInfo, Tokenizer};
use inhouse_core::lora::LoraChoice;
use inhouse_core::{Error, ErrorKind, Result};

use crate::adapter;
use crate::conventions;
use crate::decoder::LlamaDecoder;
use crate::encoder_decoder::EncoderDecoder;
use crate::gguf::{self, GgufSummary};
use crate::raw::{self, ContextOptions, ModelHandle};
use crate::tokenizer::LlamaTokenizer;

/// Tokens given to llama.cpp at once.
const BATCH_TOKENS: u32 = 512;
/// Tokens of one pass over the weights. More gain nothing on a CPU, and the working memory (attention scores of all cells
/// for each of them) grows with it.
const PASS_TOKENS: u32 = 128;
/// A thread more is worth its barriers only with this much work. Threads meet after every operation by spinning, and on a
/// busy machine a meeting costs a scheduler's time slice: a model of 0.2 M parameters on two shared cores made 2,000
/// tokens/s with one thread and 3 with two.
const PARAMETERS_PER_THREAD: u64 = 16 << 20;
/// Cells that every further sequence gets by default for its own tokens (five times the paper's 100 new tokens).
const CELLS_PER_SEQUENCE: usize = 512;

/// How a model is loaded.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LoadOptions {
    /// Blocks computed on a GPU, where the build has one; 0: none.
    pub gpu_layers: u32,
    /// Map the file instead of reading it: starts faster and shares memory between processes, but the file must not be
    /// written to or truncated while the model is in use.
    pub mmap: bool,
    /// Low-rank adapters (LoRA), PEFT folders or GGUF adapters. Their effects add up.
    pub adapters: Vec<LoraChoice>,
    /// Also load what [`gguf::validate`] does not know. llama.cpp may end the process over such a file: for a process of its own.
    pub unchecked: bool,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { gpu_layers: 0, mmap: true, adapters: Vec::new(), unchecked: false }
    }
}

/// Loads a GGUF file after validating it.
///
/// # Errors
/// As [`gguf::validate`], and as [`inhouse_core::lora::Adapter::for_gguf`] of adapters; also when the model is an encoder, which continues no text ([`ErrorKind::Unsupported`]), or
/// llama.cpp refuses it ([`ErrorKind::Backend`]).
pub fn load(path: &Path, options: &LoadOptions) -> Result<Arc<dyn Model>> {
    let mut unchecked = false;
    let mut summary = match gguf::validate(path) {
        Err(error) if options.unchecked && error.kind() == ErrorKind::Unsupported => {
            unchecked = true;
            gguf::survey(path)?
        }
        checked => checked?,
    };
    if !summary.generates {
        let what = format!(
            "{}: a `{}` model is no decoder, it cannot generate",
            path.display(),
            summary.architecture
        );
        return Err(Error::new(ErrorKind::Unsupported, what));
    }
    let mut handle = ModelHandle::load(path, options.gpu_layers, options.mmap)?;
    if unchecked {
        let sizes = handle.sizes();
        if !sizes.generates {
            let what = format!("{}: a `{}` model is no decoder alone", path.display(), summary.architecture);
            return Err(Error::new(ErrorKind::Unsupported, what));
        }
        (summary.n_blocks, summary.n_embd) = (sizes.n_blocks, sizes.n_embd);
        (summary.context_length, summary.vocab_size) = (sizes.context_length, handle.n_vocab());
    }
    adapter::load(&mut handle, path, &options.adapters)?;
    let handle = Arc::new(handle);
    if handle.n_vocab() != summary.vocab_size {
        let what =
            format!("llama.cpp reads {} tokens, the file has {}", handle.n_vocab(), summary.vocab_size);
        return Err(Error::data(path, what));
    }
    let tokenizer = LlamaTokenizer::new(Arc::clone(&handle), summary.unspelled.clone());
    let conventions = conventions::read(&handle, summary.decoder_start.is_some());
    let info = info(path, &summary);
    let on_gpu = options.gpu_layers > 0;
    Ok(Arc::new(LlamaModel { info, tokenizer, conventions, summary, on_gpu, handle }))
}

fn info(path: &Path, summary: &GgufSummary) -> ModelInfo {
    let file_name = || path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    ModelInfo {
        architecture: summary.architecture.clone(),
        name: if summary.name.is_empty() { file_name() } else { summary.name.clone() },
        context_length: summary.context_length,
        vocab_size: summary.vocab_size,
        parameters: summary.parameters,
        backend: "llama.cpp".into(),
        dtype: summary.dtype.to_owned(),
    }
}

struct LlamaModel {
    info: ModelInfo,
    tokenizer: LlamaTokenizer,
    conventions: Conventions,
    summary: GgufSummary,
    on_gpu: bool,
    handle: Arc<ModelHandle>,
}

impl Model for LlamaModel {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn tokenizer(&self) -> &dyn Tokenizer {
        &self.tokenizer
    }

    fn conventions(&self) -> &Conventions {
        &self.conventions
    }

    fn decoder(self: Arc<Self>, options: &DecoderOptions) -> Result<Box<dyn Decoder>> {
        let plan = Plan::new(&self.summary, self.on_gpu, options)?;
        let decoder = LlamaDecoder::new(Arc::clone(&self.handle), plan.context_length, plan.context)?;
        Ok(match self.summary.decoder_start {
            None => Box::new(decoder),
            Some(start) => Box::new(EncoderDecoder::new(decoder, start, self.handle.wrapping())),
        })
    }
}

/// The sizes of a decoder.
#[derive(Debug)]
struct Plan {
    context_length: usize,
    context: ContextOptions,
}

impl Plan {
    fn new(summary: &GgufSummary, on_gpu: bool, options: &DecoderOptions) -> Result<Self> {
        let invalid = |what: String| Err(Error::new(ErrorKind::InvalidArgument, what));
        let trained = summary.context_length;
        let context_length = options.context_length.unwrap_or(trained);
        if context_length == 0 || context_length > trained {
            return invalid(format!(
                "a context of {context_length} tokens, the model was trained with {trained}"
            ));
        }
        let n_seq = options.sequences;
        if n_seq == 0 || n_seq > raw::max_sequences() {
            return invalid(format!("{n_seq} sequences, expected 1 to {}", raw::max_sequences()));
        }
        let own = context_length.min(CELLS_PER_SEQUENCE);
        let n_cells = options.kv_cells.unwrap_or(context_length + (n_seq - 1) * own);
        if n_cells == 0 || n_cells > i32::MAX as usize / 2 {
            return invalid(format!("a KV cache of {n_cells} cells"));
        }
        let n_threads = match options.threads {
            Some(threads @ 1..=1024) => threads,
            Some(threads) => return invalid(format!("{threads} threads, expected 1 to 1024")),
            None => threads_for(summary),
        };
        check_memory(n_cells, if options.exact { 4 } else { 2 }, summary)?;
        // An encoder reads a text in one pass, with what stands around it.
        let encoder = summary.decoder_start.map(|_| context_length.max(BATCH_TOKENS as usize) as u32 + 2);
        let context = ContextOptions {
            n_cells: n_cells as u32,
            n_batch: encoder.unwrap_or(BATCH_TOKENS),
            n_pass: encoder.unwrap_or(PASS_TOKENS),
            n_seq: n_seq as u32,
            n_threads: n_threads as i32,
            // On a CPU it is faster over long contexts, but its sums depend on what else is in the batch enough to change
            // 2 to 4 of 30 random samples (none without it); a sample should not depend on its neighbours.
            flash_attention: on_gpu && !options.exact,
            f32_cache: options.exact,
            states: false,
        };
        Ok(Self { context_length, context })
    }
}

/// Threads that a model of this size is worth on this machine.
pub(crate) fn threads_for(summary: &GgufSummary) -> usize {
    let worth = summary.parameters / PARAMETERS_PER_THREAD;
    usize::try_from(worth).unwrap_or(usize::MAX).clamp(1, physical_cores())
}

/// Refuses a cache that the memory cannot hold: llama.cpp touches all of it, and the system would end the process.
fn check_memory(n_cells: usize, bytes_per_value: u64, summary: &GgufSummary) -> Result<()> {
    // A key and a value in every block, at most as wide as the hidden state in the models this build knows.
    let bytes_per_cell = 2 * bytes_per_value * summary.n_blocks as u64 * summary.n_embd as u64;
    let bytes = (n_cells as u64).saturating_mul(bytes_per_cell);
    let Some(available) = available_memory() else {
        return Ok(());
    };
    if bytes <= available {
        return Ok(());
    }
    let mib = |bytes: u64| bytes >> 20;
    let what = format!(
        "a KV cache of {n_cells} cells takes {} MiB, {} MiB of memory are available: fewer sequences, a shorter context \
         or fewer cells",
        mib(bytes),
        mib(available)
    );
    Err(Error::new(ErrorKind::LimitExceeded, what))
}

/// `MemAvailable` of Linux; `None` elsewhere.
fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

/// Cores that this process may use, two hardware threads of one core counted once: matrix products gain nothing from the
/// second.
fn physical_cores() -> usize {
    let allowed = std::thread::available_parallelism().map_or(1, usize::from);
    let mut cores = Vec::new();
    for cpu in 0..4096 {
        let read =
            |what: &str| std::fs::read_to_string(format!("/sys/devices/system/cpu/cpu{cpu}/topology/{what}"));
        match (read("physical_package_id"), read("core_id")) {
            (Ok(package), Ok(core)) => cores.push((package, core)),
            _ => break,
        }
    }
    let n_cpus = cores.len();
    cores.sort_unstable();
    cores.dedup();
    // A process that is bound to part of the machine has its share of the cores.
    match (allowed * cores.len()).checked_div(n_cpus) {
        Some(share) => share.clamp(1, allowed),
        None => allowed,
    }
}
