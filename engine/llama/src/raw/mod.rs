//! llama.cpp's handles behind safe functions: everything unsafe of this crate is in this module ([`ModelHandle`] here, contexts in
//! `context`).
//!
//! llama-cpp-2's own context is not used: it has no abort callback, its batch writes past its memory when a token is
//! given more sequences than the batch was made for, and it borrows its model, which a decoder must keep alive instead.
//! llama-cpp-2 holds the process-wide state: the backend's start and the way of the log into `tracing`.
#![allow(unsafe_code)]

mod context;

use std::ffi::{CStr, CString, c_char};
use std::path::Path;
use std::ptr::{self, NonNull};
use std::sync::OnceLock;

use inhouse_core::decode::TokenId;
use inhouse_core::{Error, ErrorKind, Result};
use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_sys_2 as sys;

pub(crate) use context::{BatchToken, Context, ContextOptions, EncoderText, Outcome};

/// Starts llama.cpp once for the process and never stops it: models may live as long as the process does.
fn start() {
    static BACKEND: OnceLock<Option<LlamaBackend>> = OnceLock::new();
    BACKEND.get_or_init(|| {
        // First, since starting already logs. Nothing reaches stderr unless a `tracing` subscriber writes it there.
        llama_cpp_2::send_logs_to_tracing(llama_cpp_2::LogOptions::default());
        // Started by somebody else in this process: just as good.
        LlamaBackend::init().ok()
    });
}

/// llama.cpp is compiled for the processors of the last ten years (AVX2, FMA, F16C, BMI2), not for the one at hand, and
/// chooses nothing at run time: an older processor would end the process at the first such instruction. So it is asked
/// before.
///
/// # Errors
/// This processor lacks instructions that the build uses ([`ErrorKind::Unsupported`]).
fn check_processor() -> Result<()> {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as has;
        // SAFETY: the functions only return how they were compiled.
        let compiled = unsafe {
            [
                ("AVX", "GGML_AVX", sys::ggml_cpu_has_avx(), has!("avx")),
                ("AVX2", "GGML_AVX2", sys::ggml_cpu_has_avx2(), has!("avx2")),
                ("FMA", "GGML_FMA", sys::ggml_cpu_has_fma(), has!("fma")),
                ("F16C", "GGML_F16C", sys::ggml_cpu_has_f16c(), has!("f16c")),
                ("BMI2", "GGML_BMI2", sys::ggml_cpu_has_bmi2(), has!("bmi2")),
                ("AVX-512", "GGML_AVX512", sys::ggml_cpu_has_avx512(), has!("avx512f")),
            ]
        };
        let lacking = |&(_, _, compiled, present): &(&str, &str, i32, bool)| compiled != 0 && !present;
        let names: Vec<&str> = compiled.iter().filter(|item| lacking(item)).map(|item| item.0).collect();
        if !names.is_empty() {
            let options: Vec<String> =
                compiled.iter().filter(|item| lacking(item)).map(|item| format!("{}=OFF", item.1)).collect();
            let what = format!(
                "this build of llama.cpp needs {}, which this processor lacks: build with {} in the environment",
                names.join(", "),
                options.join(" ")
            );
            return Err(Error::new(ErrorKind::Unsupported, what));
        }
    }
    Ok(())
}

/// Sequences that one context may have (`LLAMA_MAX_SEQ`).
pub(crate) fn max_sequences() -> usize {
    // SAFETY: the function only returns a constant.
    unsafe { sys::llama_max_parallel_sequences() }
}

/// A loaded model.
#[derive(Debug)]
pub(crate) struct ModelHandle {
    model: NonNull<sys::llama_model>,
    vocab: NonNull<sys::llama_vocab>,
    n_vocab: usize,
    /// What contexts compute with beside the weights. It belongs to the model, which frees it.
    adapter: Option<NonNull<sys::llama_adapter_lora>>,
}

// SAFETY: after loading llama.cpp only reads a model: contexts of several threads share one by design, and the
// tokenizer builds its working state in each call.
unsafe impl Send for ModelHandle {}
// SAFETY: as above.
unsafe impl Sync for ModelHandle {}

impl Drop for ModelHandle {
    fn drop(&mut self) {
        // SAFETY: the pointer came from a successful load, is freed once, and contexts keep an `Arc` of this handle.
        unsafe { sys::llama_model_free(self.model.as_ptr()) }
    }
}

/// Sizes of a model as llama.cpp read them.
pub(crate) struct ModelSizes {
    pub(crate) n_blocks: usize,
    pub(crate) n_embd: usize,
    pub(crate) context_length: usize,
    /// Whether it is a decoder alone.
    pub(crate) generates: bool,
}

/// What a token is, from llama.cpp's attributes.
pub(crate) struct TokenKind {
    pub(crate) unused: bool,
    pub(crate) control: bool,
    pub(crate) end: bool,
}

/// Tokens for filling in the middle.
pub(crate) struct InfillTokens {
    /// Prefix, suffix, middle.
    pub(crate) markers: [Option<TokenId>; 3],
    /// What a model writes after a middle.
    pub(crate) ends: Vec<TokenId>,
}

/// A copy of a C string; `None` for null.
///
/// # Safety
/// `text` is null or points to a string that ends in a zero byte.
unsafe fn text_of(text: *const c_char) -> Option<String> {
    // SAFETY: the caller's promise.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
}

impl ModelHandle {
    /// Loads a file that [`crate::gguf::validate`] accepted.
    pub(crate) fn load(path: &Path, gpu_layers: u32, mmap: bool) -> Result<Self> {
        check_processor()?;
        start();
        let c_path = CString::new(path.as_os_str().as_encoded_bytes())
            .map_err(|_| Error::data(path, "the path contains a zero byte"))?;
        // SAFETY: plain constructor of a plain struct.
        let mut params = unsafe { sys::llama_model_default_params() };
        params.n_gpu_layers = i32::try_from(gpu_layers).unwrap_or(i32::MAX);
        params.load_mode = if mmap { sys::LLAMA_LOAD_MODE_MMAP } else { sys::LLAMA_LOAD_MODE_NONE };
        // SAFETY: the path is a C string that outlives the call; the parameters are the defaults with plain values
        // changed, so all pointers in them are null.
        let model = unsafe { sys::llama_model_load_from_file(c_path.as_ptr(), params) };
        let Some(model) = NonNull::new(model) else {
            let what = format!("{}: llama.cpp cannot load this model (see its log)", path.display());
            return Err(Error::new(ErrorKind::Backend, what));
        };
        // SAFETY: the model is valid; the vocabulary is part of it and lives as long.
        let vocab = unsafe { sys::llama_model_get_vocab(model.as_ptr()) };
        let Some(vocab) = NonNull::new(vocab.cast_mut()) else {
            // SAFETY: the model is valid and not used any more.
            unsafe { sys::llama_model_free(model.as_ptr()) };
            return Err(Error::new(ErrorKind::Backend, format!("{}: no vocabulary", path.display())));
        };
        // SAFETY: the vocabulary is valid.
        let n_vocab = unsafe { sys::llama_vocab_n_tokens(vocab.as_ptr()) };
        Ok(Self { model, vocab, n_vocab: usize::try_from(n_vocab).unwrap_or(0), adapter: None })
    }

    /// Takes in the adapter in a file that this crate wrote for the model ([`crate::adapter`]): contexts made from now on compute
    /// with it. There must be no context yet, since llama.cpp reserves room for the adapter when it makes one.
    pub(crate) fn load_adapter(&mut self, path: &Path) -> Result<()> {
        let c_path = CString::new(path.as_os_str().as_encoded_bytes())
            .map_err(|_| Error::data(path, "the path contains a zero byte"))?;
        // SAFETY: the model is valid and used by nobody else (`&mut self`); the path is a C string that outlives the call.
        // llama.cpp answers null for what it refuses, and otherwise frees the adapter with the model.
        let adapter = unsafe { sys::llama_adapter_lora_init(self.model.as_ptr(), c_path.as_ptr()) };
        self.adapter = Some(NonNull::new(adapter).ok_or_else(|| {
            Error::new(ErrorKind::Backend, "llama.cpp cannot load the adapter (see its log)")
        })?);
        Ok(())
    }

    /// What llama.cpp read of the model's sizes.
    pub(crate) fn sizes(&self) -> ModelSizes {
        let model = self.model.as_ptr();
        // SAFETY: the model is valid; the functions only read it.
        let (n_blocks, n_embd, context_length, has_encoder, has_decoder) = unsafe {
            (
                sys::llama_model_n_layer(model),
                sys::llama_model_n_embd(model),
                sys::llama_model_n_ctx_train(model),
                sys::llama_model_has_encoder(model),
                sys::llama_model_has_decoder(model),
            )
        };
        let size = |n: i32| usize::try_from(n).unwrap_or(0);
        ModelSizes {
            n_blocks: size(n_blocks),
            n_embd: size(n_embd),
            context_length: size(context_length),
            generates: has_decoder && !has_encoder,
        }
    }

    pub(crate) fn n_vocab(&self) -> usize {
        self.n_vocab
    }

    /// The tokens that the file asks for before and after a text that an encoder reads.
    pub(crate) fn wrapping(&self) -> (Option<TokenId>, Option<TokenId>) {
        let vocab = self.vocab.as_ptr();
        // SAFETY: the vocabulary is valid.
        let (before, after) = unsafe {
            let before = sys::llama_vocab_get_add_bos(vocab).then(|| sys::llama_vocab_bos(vocab));
            let after = sys::llama_vocab_get_add_eos(vocab).then(|| sys::llama_vocab_eos(vocab));
            (before, after)
        };
        let known = |token: i32| TokenId::try_from(token).ok().filter(|&token| self.known(token).is_some());
        (before.and_then(known), after.and_then(known))
    }

    /// The tokens for filling in the middle that the file names, or that llama.cpp knows by their spelling.
    pub(crate) fn infill_tokens(&self) -> InfillTokens {
        let vocab = self.vocab.as_ptr();
        let known = |token: i32| TokenId::try_from(token).ok().filter(|&token| self.known(token).is_some());
        // SAFETY: the vocabulary is valid; a token that there is not is negative.
        let (markers, ends) = unsafe {
            let markers = [
                sys::llama_vocab_fim_pre(vocab),
                sys::llama_vocab_fim_suf(vocab),
                sys::llama_vocab_fim_mid(vocab),
            ];
            let ends = [
                sys::llama_vocab_fim_pad(vocab),
                sys::llama_vocab_fim_rep(vocab),
                sys::llama_vocab_fim_sep(vocab),
                sys::llama_vocab_eot(vocab),
            ];
            (markers, ends)
        };
        InfillTokens { markers: markers.map(known), ends: ends.into_iter().filter_map(known).collect() }
    }

    /// The begin and the end of a text, as tokens.
    pub(crate) fn bos_and_eos(&self) -> (Option<TokenId>, Option<TokenId>) {
        let known = |token: i32| TokenId::try_from(token).ok().filter(|&token| self.known(token).is_some());
        let vocab = self.vocab.as_ptr();
        // SAFETY: the vocabulary is valid; a token that there is not is negative.
        unsafe { (known(sys::llama_vocab_bos(vocab)), known(sys::llama_vocab_eos(vocab))) }
    }

    /// How the vocabulary spells `token`; `None` beyond it.
    pub(crate) fn token_text(&self, token: TokenId) -> Option<String> {
        let token = self.known(token)?;
        // SAFETY: the vocabulary is valid and the token is in it; the text belongs to the vocabulary and is copied here.
        unsafe { text_of(sys::llama_vocab_get_text(self.vocab.as_ptr(), token)) }
    }

    /// The model's chat template, where the file has one.
    pub(crate) fn chat_template(&self) -> Option<String> {
        // SAFETY: the model is valid, a null name asks for the default template, and its text belongs to the model.
        unsafe { text_of(sys::llama_model_chat_template(self.model.as_ptr(), ptr::null())) }
    }

    /// The tokens before and after a text that a text encoder reads (`[CLS]`, `[SEP]`), where the vocabulary has them.
    pub(crate) fn encoder_wrapping(&self) -> Option<(TokenId, TokenId)> {
        let vocab = self.vocab.as_ptr();
        // SAFETY: the vocabulary is valid.
        let (before, after) = unsafe { (sys::llama_vocab_bos(vocab), sys::llama_vocab_sep(vocab)) };
        let known = |token: i32| TokenId::try_from(token).ok().filter(|&token| self.known(token).is_some());
        known(before).zip(known(after))
    }

    /// What `token` is; `None` beyond the vocabulary.
    pub(crate) fn token_kind(&self, token: TokenId) -> Option<TokenKind> {
        let token = self.known(token)?;
        // SAFETY: the vocabulary is valid and the token is in it.
        let (attributes, end) = unsafe {
            let vocab = self.vocab.as_ptr();
            (sys::llama_vocab_get_attr(vocab, token), sys::llama_vocab_is_eog(vocab, token))
        };
        let has = |bits| attributes & bits != 0;
        Some(TokenKind {
            unused: has(sys::LLAMA_TOKEN_ATTR_UNUSED) || attributes == sys::LLAMA_TOKEN_ATTR_UNDEFINED,
            control: has(sys::LLAMA_TOKEN_ATTR_CONTROL | sys::LLAMA_TOKEN_ATTR_UNKNOWN),
            end,
        })
    }

    fn known(&self, token: TokenId) -> Option<i32> {
        i32::try_from(token).ok().filter(|_| (token as usize) < self.n_vocab)
    }

    /// The bytes that `token` stands for; none for control tokens and beyond the vocabulary.
    pub(crate) fn token_bytes(&self, token: TokenId) -> Vec<u8> {
        let Some(token) = self.known(token) else {
            return Vec::new();
        };
        let mut bytes = vec![0u8; 32];
        loop {
            let room = i32::try_from(bytes.len()).unwrap_or(i32::MAX);
            // SAFETY: the vocabulary is valid, the token is in it, and the buffer holds `room` bytes. A negative answer
            // is the size that is needed.
            let n = unsafe {
                let buffer = bytes.as_mut_ptr().cast();
                sys::llama_token_to_piece(self.vocab.as_ptr(), token, buffer, room, 0, false)
            };
            match usize::try_from(n) {
                Ok(n) => {
                    bytes.truncate(n);
                    return bytes;
                }
                Err(_) if (n.unsigned_abs() as usize) > bytes.len() => {
                    bytes.resize(n.unsigned_abs() as usize, 0)
                }
                Err(_) => return Vec::new(),
            }
        }
    }

    /// Tokens of `text`: no BOS, control tokens in the text not recognised, added tokens (runs of spaces) recognised.
    pub(crate) fn tokenize(&self, text: &str) -> Result<Vec<TokenId>> {
        let too_long = || {
            let what = format!("{} bytes of text are too many to tokenise", text.len());
            Error::new(ErrorKind::LimitExceeded, what)
        };
        let length = i32::try_from(text.len()).map_err(|_| too_long())?;
        // Rarely more tokens than bytes (a prefix space), so one call is enough nearly always.
        let mut tokens = vec![0i32; text.len() + 16];
        for _ in 0..2 {
            let room = i32::try_from(tokens.len()).map_err(|_| too_long())?;
            // SAFETY: the vocabulary is valid; `text` has `length` bytes and `tokens` room for `room`. A negative answer
            // is the number of tokens there are.
            let n = unsafe {
                let (text, tokens) = (text.as_ptr().cast(), tokens.as_mut_ptr());
                sys::llama_tokenize(self.vocab.as_ptr(), text, length, tokens, room, false, false)
            };
            match usize::try_from(n) {
                Ok(n) => {
                    tokens.truncate(n);
                    return tokens
                        .into_iter()
                        .map(|token| {
                            TokenId::try_from(token).map_err(|_| {
                                Error::new(ErrorKind::Backend, format!("llama.cpp gave token {token}"))
                            })
                        })
                        .collect();
                }
                Err(_) if n != i32::MIN => tokens.resize(n.unsigned_abs() as usize, 0),
                Err(_) => break,
            }
        }
        Err(too_long())
    }
}
