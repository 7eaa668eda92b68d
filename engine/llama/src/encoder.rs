//! A GGUF file as a text encoder.
//!
//! llama.cpp computes the states of all tokens (its pooling off); how they become a vector is said by the file, and done here
//! as the candle backend does it, so that both give the same vectors.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use inhouse_core::decode::{CancelToken, TokenId};
use inhouse_core::encode::{self, EncoderInfo, Role, TextEncoder, Vectors};
use inhouse_core::gguf::{self, Value};
use inhouse_core::{Error, ErrorKind, Fingerprint, Result};

use crate::LoadOptions;
use crate::gguf::validate;
use crate::model::threads_for;
use crate::raw::{Context, ContextOptions, EncoderText, ModelHandle, Outcome};

/// Tokens of one pass. llama.cpp computes the attention of each token to all of them, whichever text they belong to.
const PASS_TOKENS: usize = 128;
/// Texts of one pass.
const PASS_TEXTS: usize = 64;

/// `llama_pooling_type`.
const MEAN: u32 = 1;
const CLS: u32 = 2;

/// Loads a text encoder from a GGUF file after validating it.
///
/// # Errors
/// As [`validate`]; also when the model is none of `bert`, the file says nothing of pooling or names another than mean and CLS
/// ([`ErrorKind::Unsupported`]), or llama.cpp refuses it ([`ErrorKind::Backend`]).
pub fn load_encoder(path: &Path, options: &LoadOptions) -> Result<Arc<dyn TextEncoder>> {
    let summary = validate(path)?;
    let unsupported =
        |what: String| Error::new(ErrorKind::Unsupported, format!("{}: {what}", path.display()));
    if summary.architecture != "bert" {
        let what = format!("a `{}` model is no text encoder (supported: bert)", summary.architecture);
        return Err(unsupported(what));
    }
    let header = gguf::read(path)?;
    let pooling = match header.get("bert.pooling_type") {
        Some(Value::U32(pooling @ (MEAN | CLS))) => *pooling,
        Some(other) => {
            return Err(unsupported(format!(
                "`bert.pooling_type` is {other:?} (supported: 1, mean, and 2, CLS)"
            )));
        }
        None => {
            return Err(unsupported(
                "`bert.pooling_type` is missing: nothing says how vectors are pooled".into(),
            ));
        }
    };
    let normalized = match header.get("inhouse.encoder.normalize") {
        Some(Value::Bool(normalize)) => *normalize,
        // Files of other converters do not say; whoever uses them divides by the length.
        _ => true,
    };
    let max_tokens = match header.get("inhouse.encoder.max_tokens") {
        Some(Value::U32(most)) => (*most as usize).clamp(3, summary.context_length.max(3)),
        _ => summary.context_length,
    };
    let fingerprint = match header.text("inhouse.encoder.fingerprint") {
        Some(fingerprint) => fingerprint.to_owned(),
        None => {
            let mut fingerprint = Fingerprint::default();
            fingerprint.add_file(path)?;
            fingerprint.finish()
        }
    };
    let handle = Arc::new(ModelHandle::load(path, options.gpu_layers, options.mmap)?);
    let Some(wrapping) = handle.encoder_wrapping() else {
        return Err(Error::data(path, "the vocabulary names no tokens to stand around a text"));
    };
    let pass_tokens = PASS_TOKENS.max(max_tokens);
    let context = Context::new(
        Arc::clone(&handle),
        ContextOptions {
            n_cells: pass_tokens as u32,
            n_batch: pass_tokens as u32,
            n_pass: pass_tokens as u32,
            n_seq: PASS_TEXTS as u32,
            n_threads: threads_for(&summary) as i32,
            flash_attention: options.gpu_layers > 0,
            f32_cache: false,
            states: true,
        },
    )?;
    let file_name = || path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let info = EncoderInfo {
        architecture: summary.architecture,
        name: if summary.name.is_empty() { file_name() } else { summary.name },
        fingerprint,
        dim: summary.n_embd,
        max_tokens,
        normalized,
        backend: "llama.cpp",
    };
    Ok(Arc::new(LlamaEncoder { info, handle, wrapping, pooling, pass_tokens, context: Mutex::new(context) }))
}

struct LlamaEncoder {
    info: EncoderInfo,
    handle: Arc<ModelHandle>,
    /// What stands before and after a text.
    wrapping: (TokenId, TokenId),
    pooling: u32,
    pass_tokens: usize,
    context: Mutex<Context>,
}

impl LlamaEncoder {
    fn tokens(&self, text: &str) -> Result<Vec<TokenId>> {
        let mut tokens = vec![self.wrapping.0];
        if !text.is_empty() {
            tokens.extend(self.handle.tokenize(text)?);
        }
        tokens.truncate(self.info.max_tokens - 1);
        tokens.push(self.wrapping.1);
        Ok(tokens)
    }

    /// The vector of a text out of its tokens' states.
    fn pool(&self, states: &[f32], out: &mut [f32]) {
        let n = states.len() / out.len();
        let rows = if self.pooling == CLS { 1 } else { n };
        for row in states.chunks_exact(out.len()).take(rows) {
            out.iter_mut().zip(row).for_each(|(out, value)| *out += value / rows as f32);
        }
        if self.info.normalized {
            let length = (out.iter().map(|value| value * value).sum::<f32>() + 1e-24).sqrt();
            out.iter_mut().for_each(|value| *value /= length);
        }
    }
}

impl TextEncoder for LlamaEncoder {
    fn info(&self) -> &EncoderInfo {
        &self.info
    }

    fn encode(&self, _role: Role, texts: &[&str], cancel: &CancelToken) -> Result<Vectors> {
        let dim = self.info.dim;
        let mut tokens = Vec::with_capacity(texts.len());
        for text in texts {
            cancel.check()?;
            tokens.push(self.tokens(text)?);
        }
        let lengths: Vec<usize> = tokens.iter().map(Vec::len).collect();
        let mut values = vec![0f32; texts.len() * dim];
        let mut context = self.context.lock().unwrap_or_else(PoisonError::into_inner);
        for pass in encode::passes(&lengths, self.pass_tokens, PASS_TEXTS) {
            cancel.check()?;
            let readers: Vec<u32> = (0..pass.len() as u32).collect();
            let batch: Vec<EncoderText<'_>> = pass
                .iter()
                .zip(&readers)
                .map(|(&i, reader)| EncoderText {
                    tokens: &tokens[i],
                    readers: std::slice::from_ref(reader),
                    start: 0,
                })
                .collect();
            match context.encode(&batch, cancel)? {
                Outcome::Done => {}
                Outcome::Aborted => {
                    cancel.check()?;
                    return Err(Error::new(ErrorKind::Cancelled, "cancelled"));
                }
                outcome => {
                    let what = format!("llama.cpp's encoder failed: {outcome:?} (see its log)");
                    return Err(Error::new(ErrorKind::Backend, what));
                }
            }
            let n_tokens: usize = pass.iter().map(|&i| lengths[i]).sum();
            let states = context
                .states(n_tokens, dim)
                .ok_or_else(|| Error::new(ErrorKind::Backend, "llama.cpp gave no states of the tokens"))?;
            let mut begin = 0;
            for &i in &pass {
                let end = begin + lengths[i] * dim;
                self.pool(&states[begin..end], &mut values[i * dim..][..dim]);
                begin = end;
            }
        }
        Ok(Vectors { dim, values })
    }
}
