//! The engine: an open index and a loaded model, shared by any number of threads and sessions.

use std::mem::{offset_of, size_of};
use std::path::Path;

use inhouse::{Backend, EncoderChoice, Engine, EngineOptions, LoraChoice, Query, WorkerProgram};
use serde_json::{Value, json};

use crate::apis::{Apis, inhouse_apis};
use crate::boundary::{Out, act, create};
use crate::error::inhouse_error;
use crate::handle::{self, handle};
use crate::params::{self, Params, flag};
use crate::status::{Failure, inhouse_status};
use crate::strings::{
    INHOUSE_MAX_TEXT_BYTES, Text, check_input, inhouse_str, inhouse_text, installed, read_list,
};
use crate::version;

/// No engine runs with more threads.
pub const INHOUSE_MAX_THREADS: u32 = 1024;
/// No sequence has a longer context, in tokens.
pub const INHOUSE_MAX_CONTEXT_LENGTH: u32 = 1 << 20;
/// No model has more adapters.
pub const INHOUSE_MAX_ADAPTERS: usize = 64;
/// No list of APIs is asked for or passed with more entries.
pub const INHOUSE_MAX_APIS: usize = 10_000;

/// An open index, a loaded model, or both. Reference counted; may be used by any number of threads at the same time.
pub struct inhouse_engine {
    _private: [u8; 0],
}

handle!(inhouse_engine, Engine);

/// Which backend runs a model: values of `inhouse_engine_params.backend`.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum inhouse_backend {
    /// By what the path is: a file goes to llama.cpp, a folder to candle.
    INHOUSE_BACKEND_AUTO = 0,
    /// llama.cpp: a GGUF file.
    INHOUSE_BACKEND_LLAMA = 1,
    /// candle: a Hugging Face folder.
    INHOUSE_BACKEND_CANDLE = 2,
}

/// What inhouse_engine_open() opens. Set up with inhouse_engine_params_init(), then change fields.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct inhouse_engine_params {
    /// Size of the struct in bytes as the host knows it.
    pub struct_size: usize,
    /// Folder of an index that `inhouse index build` made; unset: no index, retrieval is refused. Default: unset.
    pub index: inhouse_str,
    /// GGUF file or Hugging Face folder; "default": the small model that is installed with the library; unset: no model,
    /// completion is refused. Default: unset.
    pub model: inhouse_str,
    /// One of inhouse_backend. Default: INHOUSE_BACKEND_AUTO.
    pub backend: i32,
    /// Layers of the model on the GPU, where the build and the machine have one. Default: 0.
    pub gpu_layers: u32,
    /// Threads for the model, at most INHOUSE_MAX_THREADS; 0: chosen by the size of the model and the cores. Default: 0.
    pub threads: u32,
    /// Tokens of context per sequence, at most INHOUSE_MAX_CONTEXT_LENGTH; 0: as the model was trained. Default: 0.
    pub context_length: u32,
    /// Tokens of prompts that each session keeps from one call to the next, so that what a new prompt shares with them
    /// (the APIs, the beginning of a file) is not read again; at most INHOUSE_MAX_CONTEXT_LENGTH. The logits after a
    /// shared beginning may differ in their last bits, so that a draw may rarely come out otherwise. 0: none. Default: 0.
    pub prefix_tokens: u32,
    /// 1: the model runs in a process of its own, so that whatever ends that (an assertion in C++, the kernel for want of
    /// memory) comes back as INHOUSE_STATUS_BACKEND. Its sessions then only say INHOUSE_STATUS_POISONED; the next one that
    /// is opened starts a new process. 0: it runs in this process. Default: 0.
    pub worker: i32,
    /// With `worker`: the program inhouse-worker, of the library's own version; unset: what INHOUSE_WORKER names, else the
    /// one beside the library or the program, or in ../libexec/inhouse-VERSION from there, else the one on PATH.
    /// Default: unset.
    pub worker_program: inhouse_str,
    /// Text encoder that the index is searched with. Unset: the one that the index was built with, where there was one; where
    /// that cannot be loaded, the index is searched by words alone, and the log says so. "none": by words alone. Else the path
    /// of an encoder, which must be the index's own or its conversion to another format. It runs in this process.
    /// Default: unset.
    pub encoder: inhouse_str,
    /// The `n_adapters` low-rank adapters (LoRA) of the model: a path (PEFT folder or GGUF adapter), or `PATH:SCALE` with what its
    /// effect is multiplied by. Effects add up. May be NULL where there are none. Default: NULL.
    pub adapters: *const inhouse_str,
    /// Length of `adapters`, at most INHOUSE_MAX_ADAPTERS. Default: 0.
    pub n_adapters: usize,
}

// SAFETY: `repr(C)`; a usize, two views, six 32-bit numbers, two views, a pointer and a usize leave no padding; every bit pattern is a value.
unsafe impl Params for inhouse_engine_params {
    const NAME: &'static str = "inhouse_engine_params";
    const FIRST_SIZE: usize = offset_of!(Self, prefix_tokens);

    fn defaults() -> Self {
        Self {
            struct_size: size_of::<Self>(),
            index: inhouse_str::ABSENT,
            model: inhouse_str::ABSENT,
            backend: inhouse_backend::INHOUSE_BACKEND_AUTO as i32,
            gpu_layers: 0,
            threads: 0,
            context_length: 0,
            prefix_tokens: 0,
            worker: 0,
            worker_program: inhouse_str::ABSENT,
            encoder: inhouse_str::ABSENT,
            adapters: std::ptr::null(),
            n_adapters: 0,
        }
    }
}

impl inhouse_engine_params {
    /// # Safety
    /// The views are as [`inhouse_str::read`] wants them, and `adapters` as [`read_list`] does.
    unsafe fn options(&self) -> Result<EngineOptions, Failure> {
        // SAFETY: the caller's promise, for all.
        let (index, model, program, encoder) = unsafe {
            (
                self.index.read_path("index")?,
                self.model.read_path("model")?,
                self.worker_program.read_path("worker_program")?,
                self.encoder.read_path("encoder")?,
            )
        };
        // SAFETY: the caller's promise.
        let adapters =
            unsafe { read_list(self.adapters, self.n_adapters, "adapters", INHOUSE_MAX_ADAPTERS) }?
                .iter()
                .enumerate()
                .map(|(at, text)| {
                    text.parse().map_err(|what| Failure::invalid(format!("`adapters[{at}]`: {what}")))
                })
                .collect::<Result<Vec<LoraChoice>, Failure>>()?;
        if model.is_none() && !adapters.is_empty() {
            return Err(Failure::invalid("`adapters` without a `model`"));
        }
        let model = match model {
            Some(path) => installed(&path, "model", inhouse::shipped_coder)?.or(Some(path)),
            None => None,
        };
        let worker =
            flag("worker", self.worker)?.then(|| program.map_or_else(Default::default, WorkerProgram::At));
        let encoder = match encoder {
            None => EncoderChoice::OfIndex,
            Some(path) if path == Path::new("none") => EncoderChoice::None,
            Some(path) => {
                check_input(&path, "encoder")?;
                EncoderChoice::At(path)
            }
        };
        let backend = match self.backend {
            0 => Backend::Auto,
            1 => Backend::Llama,
            2 => Backend::Candle,
            other => return Err(Failure::invalid(format!("`backend` {other} is no inhouse_backend"))),
        };
        Ok(EngineOptions {
            index,
            model,
            backend,
            gpu_layers: self.gpu_layers,
            worker,
            threads: at_most("threads", self.threads, INHOUSE_MAX_THREADS)?,
            context_length: at_most("context_length", self.context_length, INHOUSE_MAX_CONTEXT_LENGTH)?,
            prefix_tokens: at_most("prefix_tokens", self.prefix_tokens, INHOUSE_MAX_CONTEXT_LENGTH)?
                .unwrap_or(0),
            encoder,
            adapters,
        })
    }
}

/// `None` for 0.
fn at_most(name: &str, value: u32, limit: u32) -> Result<Option<usize>, Failure> {
    if value > limit {
        return Err(Failure::limit(format!("`{name}` {value} is over the limit of {limit}")));
    }
    Ok((value > 0).then_some(value as usize))
}

/// Writes the defaults into `params`, of which the host says how long it is: `sizeof *params`. Nothing is written
/// beyond that, so a host that was built against another version of this header is safe.
///
/// Ownership: nothing changes hands.
/// Threads: any; the struct is the host's.
/// Errors: INHOUSE_STATUS_INVALID_ARGUMENT for a size that no version of the struct has; nothing is written then.
/// Null: `params` must not be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inhouse_engine_params_init(
    params: *mut inhouse_engine_params,
    struct_size: usize,
) -> inhouse_status {
    // SAFETY: the host promises `struct_size` writable bytes.
    act(|| unsafe { params::init(params, struct_size) })
}

/// Opens an index, a model or both.
///
/// Ownership: the host owns one hold on `*out` and gives it back with inhouse_engine_release(). `params` and its texts
/// are copied.
/// Threads: any. It reads files and may take seconds: not for a user interface's thread.
/// Errors: INHOUSE_STATUS_NOT_FOUND, _IO, _INVALID_DATA, _UNSUPPORTED_VERSION for the files; _UNSUPPORTED for a backend
/// that this build lacks; _LIMIT_EXCEEDED; _BACKEND; _INVALID_ARGUMENT, also where neither index nor model is set, or
/// `encoder` is not the index's.
/// Null: `params` and `out` must not be NULL; `error` may be.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inhouse_engine_open(
    params: *const inhouse_engine_params,
    out: *mut *mut inhouse_engine,
    error: *mut *mut inhouse_error,
) -> inhouse_status {
    let open = || {
        // SAFETY: the host promises that `params` is as long as it says and that its views can be read.
        let options = unsafe { params::read(params)?.options()? };
        if options.index.is_none() && options.model.is_none() {
            return Err(Failure::invalid("nothing to open: neither `index` nor `model` is set"));
        }
        Ok(Engine::open(&options)?)
    };
    // SAFETY: the host promises that out-parameters can be written.
    unsafe { create(out, Out::Required, error, open) }
}

/// One more hold on an engine, for another owner.
///
/// Ownership: the host owns one hold more and gives it back with inhouse_engine_release().
/// Threads: any, at the same time.
/// Errors: INHOUSE_STATUS_INVALID_HANDLE; INHOUSE_STATUS_INVALID_ARGUMENT for NULL.
/// Null: `engine` must not be NULL.
#[unsafe(no_mangle)]
pub extern "C" fn inhouse_engine_retain(engine: *mut inhouse_engine) -> inhouse_status {
    act(|| handle::retain(engine))
}

/// Gives one hold back. With the last one the engine is closed once no call and no session uses it any more.
///
/// Ownership: takes one hold on `engine` back.
/// Threads: any, at the same time.
/// Errors: INHOUSE_STATUS_INVALID_HANDLE where all holds were given back already.
/// Null: `engine` may be NULL: nothing happens.
#[unsafe(no_mangle)]
pub extern "C" fn inhouse_engine_release(engine: *mut inhouse_engine) -> inhouse_status {
    act(|| handle::release(engine))
}

/// An engine with the model of another, which is not loaded again, and the index in `index` as it is now: after
/// inhouse_index_update(), or for another library. Its encoder is chosen as the other engine's was (`encoder`).
///
/// Ownership: the host owns one hold on `*out` and gives it back with inhouse_engine_release(). `engine` stays as it is,
/// and so do the sessions on it. `index` is copied.
/// Threads: any, at the same time.
/// Errors: INHOUSE_STATUS_INVALID_HANDLE; INHOUSE_STATUS_NOT_FOUND, _IO, _INVALID_DATA, _UNSUPPORTED_VERSION for the
/// index; INHOUSE_STATUS_INVALID_ARGUMENT, also where `index` is unset; INHOUSE_STATUS_LIMIT_EXCEEDED.
/// Null: `engine` and `out` must not be NULL; `error` may be.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inhouse_engine_with_index(
    engine: *const inhouse_engine,
    index: inhouse_str,
    out: *mut *mut inhouse_engine,
    error: *mut *mut inhouse_error,
) -> inhouse_status {
    let open = || {
        let engine = handle::get(engine)?;
        // SAFETY: the host promises that the view can be read.
        let index = unsafe { index.read_required_path("index") }?;
        Ok(engine.with_index(&index)?)
    };
    // SAFETY: the host promises that out-parameters can be written.
    unsafe { create(out, Out::Required, error, open) }
}

/// Facts about an engine as a JSON object: `version`, `abi_version`, `backends` and `features` (names of those in this
/// build), `index` and `model` (objects, or null where none is open), `memory` (`resident_bytes`, of the whole process,
/// or null where the system does not say), `worker` (`pid` of the process that runs the model, or null),
/// `can_infill` (whether the model can be given a `suffix`), `has_chat_template`. Unknown members must be passed over: more may come.
///
/// Ownership: the host owns `*out` and frees it with inhouse_text_free().
/// Threads: any, at the same time.
/// Errors: INHOUSE_STATUS_INVALID_HANDLE; INHOUSE_STATUS_INVALID_ARGUMENT.
/// Null: `engine` and `out` must not be NULL; `error` may be.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inhouse_engine_info(
    engine: *const inhouse_engine,
    out: *mut *mut inhouse_text,
    error: *mut *mut inhouse_error,
) -> inhouse_status {
    let info = || {
        let engine = handle::get(engine)?;
        let facts = json!({
            "version": version::VERSION,
            "abi_version": version::INHOUSE_ABI_VERSION,
            "backends": inhouse::available_backends(),
            "features": features(),
            "index": engine.index().ok().map(|index| index.info()),
            "model": engine.model_info(),
            "memory": json!({"resident_bytes": resident_bytes()}),
            "worker": engine.worker_pid().map(|pid| json!({"pid": pid})),
            "can_infill": engine.conventions().is_some_and(|model| model.infill.is_some()),
            "has_chat_template": engine.conventions().is_some_and(|model| model.chat_template.is_some()),
        });
        Ok(Text::from(facts.to_string()))
    };
    // SAFETY: the host promises that out-parameters can be written.
    unsafe { create(out, Out::Required, error, info) }
}

/// The `k` APIs of the index that fit `query` best, distinct by name, best first. Fewer where the index has no more
/// that fit.
///
/// Ownership: the host owns `*out` and frees it with inhouse_apis_free(). `query` is copied.
/// Threads: any, at the same time.
/// Errors: INHOUSE_STATUS_INVALID_HANDLE; INHOUSE_STATUS_INVALID_ARGUMENT (no index is open, `k` is 0, `query` is unset
/// or not UTF-8); INHOUSE_STATUS_LIMIT_EXCEEDED (`k` over INHOUSE_MAX_APIS, `query` over INHOUSE_MAX_TEXT_BYTES);
/// INHOUSE_STATUS_IO, INHOUSE_STATUS_INVALID_DATA where the index cannot be read on.
/// Null: `engine` and `out` must not be NULL; `error` may be.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inhouse_engine_retrieve(
    engine: *const inhouse_engine,
    query: inhouse_str,
    k: usize,
    out: *mut *mut inhouse_apis,
    error: *mut *mut inhouse_error,
) -> inhouse_status {
    let retrieve = || {
        let engine = handle::get(engine)?;
        // SAFETY: the host promises that the view can be read.
        let query = unsafe { query.read_required("query", INHOUSE_MAX_TEXT_BYTES) }?;
        check_k("k", k)?;
        Ok(Apis::from(engine.retrieve(&Query::from(query.as_str()), k)?))
    };
    // SAFETY: the host promises that out-parameters can be written.
    unsafe { create(out, Out::Required, error, retrieve) }
}

/// The APIs to choose from for the code before the cursor (Figure 4 of arXiv 2210.17236): the `k` that fit `query`, a
/// person's own words, or the comments of `context` where `query` is unset. Show inhouse_apis_label() of each and "none of
/// the above"; let several be chosen, or another query be asked; then make a list of what was chosen with
/// inhouse_apis_select() (and inhouse_apis_join()), and complete with it: `api_choice` INHOUSE_APIS_GIVEN.
///
/// Ownership: the host owns `*out` and frees it with inhouse_apis_free(). `context` and `query` are copied.
/// Threads: any, at the same time.
/// Errors: as inhouse_engine_retrieve(); INHOUSE_STATUS_INVALID_ARGUMENT also where `context` and `query` are both unset.
/// Null: `engine` and `out` must not be NULL; `error` may be.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inhouse_engine_propose(
    engine: *const inhouse_engine,
    context: inhouse_str,
    query: inhouse_str,
    k: usize,
    out: *mut *mut inhouse_apis,
    error: *mut *mut inhouse_error,
) -> inhouse_status {
    let propose = || {
        let engine = handle::get(engine)?;
        // SAFETY: the host promises that the views can be read.
        let (context, query) = unsafe {
            (context.read("context", INHOUSE_MAX_TEXT_BYTES)?, query.read("query", INHOUSE_MAX_TEXT_BYTES)?)
        };
        if context.is_none() && query.is_none() {
            return Err(Failure::invalid("`context` and `query` are both unset"));
        }
        check_k("k", k)?;
        Ok(Apis::from(engine.propose(&context.unwrap_or_default(), query.as_deref(), k)?))
    };
    // SAFETY: the host promises that out-parameters can be written.
    unsafe { create(out, Out::Required, error, propose) }
}

/// What the retriever is asked for `context` where no query is given, for a person to change: its comments, else its
/// docstring, else its last line.
///
/// Ownership: the host owns `*out` and frees it with inhouse_text_free(). `context` is copied.
/// Threads: any.
/// Errors: INHOUSE_STATUS_INVALID_ARGUMENT where `context` is unset or not UTF-8; INHOUSE_STATUS_LIMIT_EXCEEDED.
/// Null: `out` must not be NULL; `error` may be.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inhouse_query_of_context(
    context: inhouse_str,
    out: *mut *mut inhouse_text,
    error: *mut *mut inhouse_error,
) -> inhouse_status {
    let query = || {
        // SAFETY: the host promises that the view can be read.
        let context = unsafe { context.read_required("context", INHOUSE_MAX_TEXT_BYTES) }?;
        Ok(Text::from(inhouse::query_from_context(&context)))
    };
    // SAFETY: the host promises that out-parameters can be written.
    unsafe { create(out, Out::Required, error, query) }
}

/// How `completion`, code that follows `context`, uses the APIs of the index, read without running it, as a JSON object:
/// `uses` (each with `name`, `verdict`: "indexed", "undocumented", "unknown_member", "impossible_arity" or
/// "unknown_keyword", `detail`, `line` and `column`, both from 1), the counts `indexed`, `unknown` and `misused`, and
/// `parses`.
///
/// Ownership: the host owns `*out` and frees it with inhouse_text_free(). The texts are copied.
/// Threads: any, at the same time.
/// Errors: INHOUSE_STATUS_INVALID_HANDLE; INHOUSE_STATUS_INVALID_ARGUMENT (no index is open, `completion` is unset, a text
/// is not UTF-8); INHOUSE_STATUS_LIMIT_EXCEEDED; INHOUSE_STATUS_IO, INHOUSE_STATUS_INVALID_DATA where the index cannot be
/// read on.
/// Null: `engine` and `out` must not be NULL; `context` may be unset; `error` may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inhouse_engine_api_report(
    engine: *const inhouse_engine,
    context: inhouse_str,
    completion: inhouse_str,
    out: *mut *mut inhouse_text,
    error: *mut *mut inhouse_error,
) -> inhouse_status {
    let report = || {
        let engine = handle::get(engine)?;
        // SAFETY: the host promises that the views can be read.
        let (context, completion) = unsafe {
            (
                context.read("context", INHOUSE_MAX_TEXT_BYTES)?.unwrap_or_default(),
                completion.read_required("completion", INHOUSE_MAX_TEXT_BYTES)?,
            )
        };
        Text::json(&engine.api_report(&context, &completion)?)
    };
    // SAFETY: the host promises that out-parameters can be written.
    unsafe { create(out, Out::Required, error, report) }
}

/// What this build has beside the backends.
fn features() -> Vec<&'static str> {
    [("cuda", cfg!(feature = "cuda")), ("evald", cfg!(feature = "evald"))]
        .into_iter()
        .filter_map(|(name, there)| there.then_some(name))
        .collect()
}

/// Memory of the process that is in RAM; null where the system does not say.
fn resident_bytes() -> Value {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.map_or(Value::Null, |kib| Value::from(kib * 1024))
}

/// A number of APIs to retrieve.
pub(crate) fn check_k(name: &str, k: usize) -> Result<(), Failure> {
    match k {
        0 => Err(Failure::invalid(format!("`{name}` is 0, expected at least 1"))),
        k if k > INHOUSE_MAX_APIS => {
            Err(Failure::limit(format!("`{name}` {k} is over the limit of {INHOUSE_MAX_APIS}")))
        }
        _ => Ok(()),
    }
}
