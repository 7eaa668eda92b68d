//! Contexts of llama.cpp: the KV cache and the buffers of a forward pass.

use std::ffi::c_void;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering};

use inhouse_core::decode::{CancelToken, SeqId, TokenId};
use inhouse_core::{Error, ErrorKind, Result};
use llama_cpp_sys_2 as sys;

use super::ModelHandle;

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
        let Some(context) = NonNull::new(context) else {
            let what = format!("llama.cpp cannot make a context of {} cells (see its log)", options.n_cells);
            return Err(Error::new(ErrorKind::Backend, what));
        };
        let adapter = model.adapter;
        let this = Self { context, cancel, options, model };
        if let Some(adapter) = adapter {
            // Its scale is in its matrices already.
            let (mut adapters, mut scales) = ([adapter.as_ptr()], [1.0f32]);
            // SAFETY: the context is valid; the adapter belongs to its model, which the context keeps alive; both arrays have the
            // one item that is promised and are only read during the call.
            let answer = unsafe {
                let context = this.context.as_ptr();
                sys::llama_set_adapters_lora(context, adapters.as_mut_ptr(), 1, scales.as_mut_ptr())
            };
            if answer != 0 {
                return Err(Error::new(
                    ErrorKind::Backend,
                    "llama.cpp does not take the adapter (see its log)",
                ));
            }
        }
        Ok(this)
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
