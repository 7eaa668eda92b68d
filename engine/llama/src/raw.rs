//! llama.cpp's handles behind safe functions: everything unsafe of this crate is in this file.
//!
//! llama-cpp-2's own context is not used: it has no abort callback, its batch writes past its memory when a token is
//! given more sequences than the batch was made for, and it borrows its model, which a decoder must keep alive instead.
//! llama-cpp-2 holds the process-wide state: the backend's start and the way of the log into `tracing`.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_void};
use std::path::Path;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, OnceLock};

use inhouse_core::decode::{CancelToken, SeqId, TokenId};
use inhouse_core::{Error, ErrorKind, Result};
use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_sys_2 as sys;

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
        Ok(Self { model, vocab, n_vocab: usize::try_from(n_vocab).unwrap_or(0) })
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

/// How a context is made; see llama.cpp's `llama_context_params`.
#[derive(Debug, Clone)]
pub(crate) struct ContextOptions {
    pub(crate) n_cells: u32,
    /// Tokens of one call of [`Context::decode`].
    pub(crate) n_batch: u32,
    /// Tokens of one pass over the weights.
    pub(crate) n_pass: u32,
    pub(crate) n_seq: u32,
    pub(crate) n_threads: i32,
    pub(crate) flash_attention: bool,
    /// Keys and values in f32 instead of f16.
    pub(crate) f32_cache: bool,
    /// Whether the states of all tokens are wanted instead of logits: of a text encoder.
    pub(crate) states: bool,
}

/// One token of a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BatchToken {
    pub(crate) token: TokenId,
    pub(crate) position: usize,
    pub(crate) seq: SeqId,
    /// Whether the logits after it are wanted.
    pub(crate) output: bool,
}

/// A text for an encoder.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EncoderText<'a> {
    pub(crate) tokens: &'a [TokenId],
    /// The sequences whose decoder sees it. llama.cpp wants them to hold the same number of tokens.
    pub(crate) readers: &'a [SeqId],
    /// Where llama.cpp wants it to stand: after what the readers hold. T5 knows distances alone.
    pub(crate) start: usize,
}

/// How a forward pass ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    /// No cells for the batch; the cache is as before.
    Full,
    /// The cancel token was seen; part of the batch may be in the cache.
    Aborted,
    /// llama.cpp's error number; part of the batch may be in the cache.
    Failed(i32),
}

/// A context: one KV cache (unified: all sequences share its cells) and the buffers of a forward pass.
pub(crate) struct Context {
    context: NonNull<sys::llama_context>,
    /// What [`should_abort`] looks at; null outside of [`Context::decode`]. Boxed, since llama.cpp keeps its address.
    cancel: Box<AtomicPtr<CancelToken>>,
    options: ContextOptions,
    /// Keeps the model alive; declared last only for reading, `Drop` frees the context before any field.
    model: Arc<ModelHandle>,
}

// SAFETY: a context may be used from any thread, one at a time; `&mut self` on everything that changes it sees to that,
// and nothing takes `&self` but `logits`, which only reads.
unsafe impl Send for Context {}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: the pointer came from a successful creation and is freed once; the model is still alive, as its `Arc`
        // is dropped after this.
        unsafe { sys::llama_free(self.context.as_ptr()) }
    }
}

/// llama.cpp asks this between the operations of a forward pass.
unsafe extern "C" fn should_abort(data: *mut c_void) -> bool {
    // SAFETY: `data` is the address of the context's boxed `AtomicPtr`, which lives until after the context is freed.
    let slot = unsafe { &*data.cast::<AtomicPtr<CancelToken>>() };
    let token = slot.load(Ordering::Acquire);
    // SAFETY: not null only while `decode` runs, which holds a reference to the token.
    !token.is_null() && unsafe { (*token).is_cancelled() }
}

impl Context {
    pub(crate) fn new(model: Arc<ModelHandle>, options: ContextOptions) -> Result<Self> {
        let cancel = Box::new(AtomicPtr::new(ptr::null_mut()));
        // SAFETY: plain constructor of a plain struct.
        let mut params = unsafe { sys::llama_context_default_params() };
        params.n_ctx = options.n_cells;
        params.n_batch = options.n_batch;
        params.n_ubatch = options.n_pass.min(options.n_batch);
        params.n_seq_max = options.n_seq;
        params.n_outputs_max = options.n_seq.min(options.n_batch);
        params.n_outputs_max_per_seq = 1;
        params.n_threads = options.n_threads;
        params.n_threads_batch = options.n_threads;
        params.kv_unified = true;
        params.flash_attn_type = if options.flash_attention {
            sys::LLAMA_FLASH_ATTN_TYPE_AUTO
        } else {
            sys::LLAMA_FLASH_ATTN_TYPE_DISABLED
        };
        if options.f32_cache {
            params.type_k = sys::GGML_TYPE_F32;
            params.type_v = sys::GGML_TYPE_F32;
        }
        if options.states {
            params.embeddings = true;
            params.pooling_type = sys::LLAMA_POOLING_TYPE_NONE;
            params.n_outputs_max = options.n_batch;
            params.n_outputs_max_per_seq = options.n_batch;
        }
        params.no_perf = true;
        params.abort_callback = Some(should_abort);
        params.abort_callback_data = ptr::from_ref(&*cancel).cast_mut().cast();
        // SAFETY: the model is valid and outlives the context (the `Arc` is kept beside it); the callback's data is
        // boxed and outlives it too; all other pointers are the defaults' nulls.
        let context = unsafe { sys::llama_init_from_model(model.model.as_ptr(), params) };
        match NonNull::new(context) {
            Some(context) => Ok(Self { context, cancel, options, model }),
            None => Err(Error::new(
                ErrorKind::Backend,
                format!("llama.cpp cannot make a context of {} cells (see its log)", options.n_cells),
            )),
        }
    }

    pub(crate) fn n_batch(&self) -> usize {
        // SAFETY: the context is valid. llama.cpp makes batches smaller where the cache is, and aborts on a larger one.
        let most = unsafe { sys::llama_n_batch(self.context.as_ptr()) };
        most.min(self.options.n_batch) as usize
    }

    /// Cells of the cache; llama.cpp rounds them up.
    pub(crate) fn n_cells(&self) -> usize {
        // SAFETY: the context is valid.
        unsafe { sys::llama_n_ctx(self.context.as_ptr()) as usize }
    }

    /// Runs a forward pass over `tokens`, at most [`Context::n_batch`] of them, one output a sequence.
    pub(crate) fn decode(&mut self, tokens: &[BatchToken], cancel: &CancelToken) -> Result<Outcome> {
        let invalid = |what: String| Err(Error::new(ErrorKind::Internal, what));
        if tokens.is_empty() || tokens.len() > self.n_batch() {
            return invalid(format!("a batch of {} tokens, at most {} fit", tokens.len(), self.n_batch()));
        }
        let mut ids = Vec::with_capacity(tokens.len());
        let mut positions = Vec::with_capacity(tokens.len());
        let mut seqs = Vec::with_capacity(tokens.len());
        let mut outputs = Vec::with_capacity(tokens.len());
        for item in tokens {
            let Some(token) = self.model.known(item.token) else {
                return invalid(format!("token {} is not in the vocabulary", item.token));
            };
            if item.seq >= self.options.n_seq {
                return invalid(format!("sequence {} of {}", item.seq, self.options.n_seq));
            }
            let Ok(position) = i32::try_from(item.position) else {
                return invalid(format!("position {}", item.position));
            };
            ids.push(token);
            positions.push(position);
            seqs.push(item.seq as i32);
            outputs.push(i8::from(item.output));
        }
        let mut n_seqs = vec![1i32; tokens.len()];
        let mut seq_pointers: Vec<*mut i32> = seqs.iter_mut().map(ptr::from_mut).collect();
        let batch = sys::llama_batch {
            n_tokens: tokens.len() as i32,
            token: ids.as_mut_ptr(),
            embd: ptr::null_mut(),
            pos: positions.as_mut_ptr(),
            n_seq_id: n_seqs.as_mut_ptr(),
            seq_id: seq_pointers.as_mut_ptr(),
            logits: outputs.as_mut_ptr(),
        };
        self.cancel.store(ptr::from_ref(cancel).cast_mut(), Ordering::Release);
        // SAFETY: the context is valid; all arrays of the batch have `n_tokens` items and outlive the call; tokens and
        // sequences are in range, and no token has more than the one sequence it has room for.
        let answer = unsafe { sys::llama_decode(self.context.as_ptr(), batch) };
        self.cancel.store(ptr::null_mut(), Ordering::Release);
        Ok(match answer {
            0 => Outcome::Done,
            1 => Outcome::Full,
            2 => Outcome::Aborted,
            other => Outcome::Failed(other),
        })
    }

    /// Runs the encoder over texts, replacing what it read before; each is seen by the decoder of its sequences. All tokens
    /// together are at most the [`ContextOptions::n_pass`] of this context.
    pub(crate) fn encode(&mut self, texts: &[EncoderText<'_>], cancel: &CancelToken) -> Result<Outcome> {
        let invalid = |what: String| Err(Error::new(ErrorKind::Internal, what));
        let n_tokens: usize = texts.iter().map(|text| text.tokens.len()).sum();
        if n_tokens == 0 || n_tokens > self.n_batch().min(self.options.n_pass as usize) {
            return invalid(format!("{n_tokens} tokens to encode at once"));
        }
        let (mut ids, mut positions) = (Vec::with_capacity(n_tokens), Vec::with_capacity(n_tokens));
        let (mut n_seqs, mut seq_pointers) = (Vec::with_capacity(n_tokens), Vec::with_capacity(n_tokens));
        let mut seqs: Vec<Vec<i32>> = Vec::with_capacity(texts.len());
        for EncoderText { tokens, readers, start } in texts {
            if readers.is_empty() || readers.iter().any(|&seq| seq >= self.options.n_seq) {
                return invalid(format!("a text for the sequences {readers:?} of {}", self.options.n_seq));
            }
            let mut readers: Vec<i32> = readers.iter().map(|&seq| seq as i32).collect();
            for (i, &token) in tokens.iter().enumerate() {
                let (Some(token), Ok(position)) = (self.model.known(token), i32::try_from(start + i)) else {
                    return invalid(format!("token {token} is not in the vocabulary, or too far on"));
                };
                ids.push(token);
                positions.push(position);
                n_seqs.push(readers.len() as i32);
                seq_pointers.push(readers.as_mut_ptr());
            }
            // The list's items do not move with it.
            seqs.push(readers);
        }
        let mut outputs = vec![1i8; n_tokens];
        let batch = sys::llama_batch {
            n_tokens: n_tokens as i32,
            token: ids.as_mut_ptr(),
            embd: ptr::null_mut(),
            pos: positions.as_mut_ptr(),
            n_seq_id: n_seqs.as_mut_ptr(),
            seq_id: seq_pointers.as_mut_ptr(),
            logits: outputs.as_mut_ptr(),
        };
        self.cancel.store(ptr::from_ref(cancel).cast_mut(), Ordering::Release);
        // SAFETY: the context is valid; all arrays of the batch have `n_tokens` items, each list of sequences as many as its
        // token says, and all outlive the call; tokens and sequences are in range, and they fit one pass.
        let answer = unsafe { sys::llama_encode(self.context.as_ptr(), batch) };
        self.cancel.store(ptr::null_mut(), Ordering::Release);
        drop(seqs);
        Ok(match answer {
            0 => Outcome::Done,
            2 => Outcome::Aborted,
            other => Outcome::Failed(other),
        })
    }

    /// Logits `[vocab] f32` after the `i`-th token of the last batch, which must have been an output.
    pub(crate) fn logits(&self, i: usize) -> Option<&[f32]> {
        let i = i32::try_from(i).ok()?;
        // SAFETY: the context is valid; llama.cpp answers null for a token without output.
        let row = unsafe { sys::llama_get_logits_ith(self.context.as_ptr(), i) };
        // SAFETY: a row has as many floats as the vocabulary tokens; it stays until the next pass, which takes `&mut`.
        NonNull::new(row).map(|row| unsafe { std::slice::from_raw_parts(row.as_ptr(), self.model.n_vocab) })
    }

    /// The states `[n_tokens, width] f32` of the tokens of the last [`Context::encode`], which had as many; only of a context
    /// with [`ContextOptions::states`].
    pub(crate) fn states(&self, n_tokens: usize, width: usize) -> Option<&[f32]> {
        // SAFETY: the model is valid.
        let n_embd = unsafe { sys::llama_model_n_embd(self.model.model.as_ptr()) };
        if !self.options.states || usize::try_from(n_embd) != Ok(width) {
            return None;
        }
        // SAFETY: the context is valid; llama.cpp answers null where there are no states.
        let states = unsafe { sys::llama_get_embeddings(self.context.as_ptr()) };
        // SAFETY: without pooling there is a row of `n_embd` floats for each token of the last batch, in its order; they stay
        // until the next pass, which takes `&mut`.
        NonNull::new(states)
            .map(|states| unsafe { std::slice::from_raw_parts(states.as_ptr(), n_tokens * width) })
    }

    /// Makes `to` share the cells of `from`, dropping what it held.
    pub(crate) fn copy_sequence(&mut self, from: SeqId, to: SeqId) {
        if from == to || from >= self.options.n_seq || to >= self.options.n_seq {
            return;
        }
        // SAFETY: the context is valid and both sequences are below its maximum; -1 means the whole range.
        unsafe {
            let memory = sys::llama_get_memory(self.context.as_ptr());
            sys::llama_memory_seq_rm(memory, to as i32, -1, -1);
            sys::llama_memory_seq_cp(memory, from as i32, to as i32, -1, -1);
        }
    }

    /// The cells of `seq` in llama.cpp's own format; `None` where it gives none.
    pub(crate) fn save_sequence(&self, seq: SeqId) -> Option<Vec<u8>> {
        if seq >= self.options.n_seq {
            return None;
        }
        // SAFETY: the context is valid and the sequence below its maximum; llama.cpp only reads the cells.
        let size = unsafe { sys::llama_state_seq_get_size(self.context.as_ptr(), seq as i32) };
        let mut bytes = vec![0u8; size];
        // SAFETY: as above; the buffer has `size` bytes.
        let written = unsafe {
            sys::llama_state_seq_get_data(self.context.as_ptr(), bytes.as_mut_ptr(), size, seq as i32)
        };
        (written > 0 && written == size).then_some(bytes)
    }

    /// Makes `seq` hold what [`Context::save_sequence`] gave: `length` tokens from position 0. Otherwise it is empty, and
    /// the answer false.
    pub(crate) fn restore_sequence(&mut self, seq: SeqId, length: usize, bytes: &[u8]) -> bool {
        if seq >= self.options.n_seq || length == 0 {
            return false;
        }
        // SAFETY: the context is valid and the sequence below its maximum; the bytes are read up to their length, where
        // llama.cpp gives up (it answers 0). Ranges are of positions; -1 is the end.
        unsafe {
            let memory = sys::llama_get_memory(self.context.as_ptr());
            sys::llama_memory_seq_rm(memory, seq as i32, -1, -1);
            let read =
                sys::llama_state_seq_set_data(self.context.as_ptr(), bytes.as_ptr(), bytes.len(), seq as i32);
            let fits = read == bytes.len()
                && sys::llama_memory_seq_pos_min(memory, seq as i32) == 0
                && usize::try_from(sys::llama_memory_seq_pos_max(memory, seq as i32)).ok()
                    == Some(length - 1);
            if !fits {
                sys::llama_memory_seq_rm(memory, seq as i32, -1, -1);
            }
            fits
        }
    }

    /// Drops the cells of `seq` from position `length` on. False where the cache cannot do that.
    pub(crate) fn truncate_sequence(&mut self, seq: SeqId, length: usize) -> bool {
        let Ok(length) = i32::try_from(length) else {
            return true;
        };
        if seq >= self.options.n_seq {
            return false;
        }
        // SAFETY: the context is valid and the sequence below its maximum; -1 means to the end.
        unsafe {
            let memory = sys::llama_get_memory(self.context.as_ptr());
            sys::llama_memory_seq_rm(memory, seq as i32, length, -1)
        }
    }
}
