//! A GGUF file as a text encoder.
//!
//! llama.cpp computes the states of all tokens (its pooling off); how they become a vector is said by the file, and done here
//! as the candle backend does it, so that both give the same vectors.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use inhouse_core::decode::{CancelToken, TokenId};
use inhouse_core::encode::{self, EncoderInfo, FileSettings, Role, TextEncoder, Vectors};
use inhouse_core::{Error, ErrorKind, Result, gguf};

use crate::LoadOptions;
use crate::gguf::validate;
use crate::model::threads_for;
use crate::raw::{Context, ContextOptions, EncoderText, ModelHandle, Outcome};

/// Tokens of one pass. llama.cpp computes the attention of each token to all of them, whichever text they belong to.
const PASS_TOKENS: usize = 128;
/// Texts of one pass.
const PASS_TEXTS: usize = 64;

/// Loads a text encoder from a GGUF file after validating it.
///
/// # Errors
/// As [`validate`] and [`FileSettings::read`]; also when the model is none of `bert` ([`ErrorKind::Unsupported`]), or llama.cpp refuses it ([`ErrorKind::Backend`]).
pub fn load_encoder(path: &Path, options: &LoadOptions) -> Result<Arc<dyn TextEncoder>> {
    let summary = validate(path)?;
    let unsupported =
        |what: String| Error::new(ErrorKind::Unsupported, format!("{}: {what}", path.display()));
    if summary.architecture != "bert" {
        let what = format!("a `{}` model is no text encoder (supported: bert)", summary.architecture);
        return Err(unsupported(what));
    }
    let header = gguf::read(path)?;
    let settings = FileSettings::read(path, &header, summary.context_length)?;
    let handle = Arc::new(ModelHandle::load(path, options.gpu_layers, options.mmap)?);
    let Some(wrapping) = handle.encoder_wrapping() else {
        return Err(Error::data(path, "the vocabulary names no tokens to stand around a text"));
    };
    let pass_tokens = PASS_TOKENS.max(settings.max_tokens);
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
    let info = EncoderInfo {
        architecture: summary.architecture,
        name: settings.name.clone(),
        fingerprint: settings.fingerprint.clone(),
        dim: summary.n_embd,
        max_tokens: settings.max_tokens,
        normalized: settings.normalized,
        backend: "llama.cpp",
    };
    Ok(Arc::new(LlamaEncoder { info, handle, wrapping, settings, pass_tokens, context: Mutex::new(context) }))
}

struct LlamaEncoder {
    info: EncoderInfo,
    handle: Arc<ModelHandle>,
    /// What stands before and after a text.
    wrapping: (TokenId, TokenId),
    settings: FileSettings,
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
}

impl TextEncoder for LlamaEncoder {
    fn info(&self) -> &EncoderInfo {
        &self.info
    }

    fn encode(&self, _role: Role, texts: &[&str], cancel: &CancelToken) -> Result<Vectors> {
        let dim = self.info.dim;
        let tokens = encode::tokens_of(texts, cancel, |text| self.tokens(text))?;
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
                self.settings.pool(&states[begin..end], &mut values[i * dim..][..dim]);
                begin = end;
            }
        }
        Ok(Vectors { dim, values })
    }
}
