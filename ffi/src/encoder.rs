//! Text encoders: texts in, vectors out.

use std::sync::Arc;

use inhouse::{Role, TextEncoder, Vectors};
use serde_json::json;

use crate::boundary::{Out, act, create, read};
use crate::cancel::inhouse_cancel;
use crate::error::inhouse_error;
use crate::handle::{self, handle};
use crate::status::{Failure, inhouse_status};
use crate::strings::{Text, inhouse_str, inhouse_text, read_list};

/// No call encodes more texts.
pub const INHOUSE_MAX_TEXTS: usize = 65_536;

/// A loaded text encoder: it turns texts into vectors of one width. May be used by any number of threads at the same time.
pub struct inhouse_encoder {
    _private: [u8; 0],
}

handle!(inhouse_encoder, Arc<dyn TextEncoder>);

/// Vectors of one width, a row for each text; freed with inhouse_vectors_free(). They do not depend on the encoder that
/// made them.
pub struct inhouse_vectors {
    _private: [u8; 0],
}

handle!(inhouse_vectors, Vectors);

/// Which side of retrieval a text stands on: values of `role` of inhouse_encoder_encode(). A model may have an encoder for
/// each.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum inhouse_text_role {
    /// What is asked.
    INHOUSE_ROLE_QUERY = 1,
    /// What is found.
    INHOUSE_ROLE_DOCUMENT = 2,
}

fn role(number: i32) -> Result<Role, Failure> {
    match number {
        1 => Ok(Role::Query),
        2 => Ok(Role::Document),
        other => Err(Failure::invalid(format!("`role` {other} is no inhouse_text_role"))),
    }
}

/// Loads a text encoder of a BERT model: a GGUF file (of Q8_0 by any build, else by llama.cpp) or a Hugging Face folder (by
/// candle). An index finds its encoder by itself (`encoder` of inhouse_index_params and inhouse_engine_params): this is for
/// vectors of the host's own.
///
/// Ownership: the host owns `*out` and frees it with inhouse_encoder_free(). `path` is copied.
/// Threads: any. It reads files and may take seconds: not for a user interface's thread.
/// Errors: INHOUSE_STATUS_NOT_FOUND, _IO, _INVALID_DATA, _UNSUPPORTED_VERSION for the files; INHOUSE_STATUS_UNSUPPORTED for a
/// model that is no encoder, or a backend that this build lacks; INHOUSE_STATUS_INVALID_ARGUMENT, also where `path` is
/// unset; INHOUSE_STATUS_LIMIT_EXCEEDED; INHOUSE_STATUS_BACKEND.
/// Null: `out` must not be NULL; `error` may be.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inhouse_encoder_open(
    path: inhouse_str,
    out: *mut *mut inhouse_encoder,
    error: *mut *mut inhouse_error,
) -> inhouse_status {
    let open = || {
        // SAFETY: the host promises that the view can be read.
        let path = unsafe { path.read_input_path("path") }?;
        Ok(inhouse::load_encoder(&path)?)
    };
    // SAFETY: the host promises that out-parameters can be written.
    unsafe { create(out, Out::Required, error, open) }
}

/// Facts about an encoder as a JSON object: `name`, `architecture`, `backend`, `dim` (width of its vectors), `max_tokens`
/// (of a text that are read; the rest is cut off), `normalized` (whether vectors have length 1), `fingerprint` (what tells
/// its vectors from another model's; a conversion to another format keeps it). Unknown members must be passed over: more may
/// come.
///
/// Ownership: the host owns `*out` and frees it with inhouse_text_free().
/// Threads: any, at the same time.
/// Errors: INHOUSE_STATUS_INVALID_HANDLE; INHOUSE_STATUS_INVALID_ARGUMENT.
/// Null: `encoder` and `out` must not be NULL; `error` may be.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inhouse_encoder_info(
    encoder: *const inhouse_encoder,
    out: *mut *mut inhouse_text,
    error: *mut *mut inhouse_error,
) -> inhouse_status {
    let info = || {
        let encoder = handle::get(encoder)?;
        let info = encoder.info();
        let facts = json!({
            "name": info.name,
            "architecture": info.architecture,
            "backend": info.backend,
            "dim": info.dim,
            "max_tokens": info.max_tokens,
            "normalized": info.normalized,
            "fingerprint": info.fingerprint,
        });
        Ok(Text::from(facts.to_string()))
    };
    // SAFETY: the host promises that out-parameters can be written.
    unsafe { create(out, Out::Required, error, info) }
}

/// The vectors of `n_texts` texts at `texts`, in their order. `role` is one of inhouse_text_role: the dot product of a
/// query's and a document's vector says how well they fit. The same texts give the same vectors; the empty text has one,
/// too. What is longer than the encoder reads is cut off. With `n_texts` 0 the result has no row.
///
/// Ownership: the host owns `*out` and frees it with inhouse_vectors_free(). `texts` is copied.
/// Threads: any, at the same time; calls on one encoder may wait for one another. Many texts take seconds: not for a user
/// interface's thread.
/// Errors: INHOUSE_STATUS_INVALID_HANDLE (`encoder`, `cancel`); INHOUSE_STATUS_INVALID_ARGUMENT (`role` is no
/// inhouse_text_role, a text is unset or not UTF-8); INHOUSE_STATUS_LIMIT_EXCEEDED (`n_texts` over INHOUSE_MAX_TEXTS, all
/// texts together over INHOUSE_MAX_TEXT_BYTES); INHOUSE_STATUS_CANCELLED where `cancel` was set, seen between passes of
/// the model; INHOUSE_STATUS_BACKEND.
/// Null: `encoder` and `out` must not be NULL; `texts` may be where `n_texts` is 0; `cancel` may be (nothing ends the call),
/// and `error`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inhouse_encoder_encode(
    encoder: *const inhouse_encoder,
    role: i32,
    texts: *const inhouse_str,
    n_texts: usize,
    cancel: *const inhouse_cancel,
    out: *mut *mut inhouse_vectors,
    error: *mut *mut inhouse_error,
) -> inhouse_status {
    let encode = || {
        let encoder = handle::get(encoder)?;
        let role = self::role(role)?;
        // SAFETY: the host promises `n_texts` readable views.
        let texts = unsafe { read_list(texts, n_texts, "texts", INHOUSE_MAX_TEXTS) }?;
        let cancel = if cancel.is_null() { Arc::default() } else { handle::get(cancel)? };
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        Ok(encoder.encode(role, &texts, &cancel)?)
    };
    // SAFETY: the host promises that out-parameters can be written.
    unsafe { create(out, Out::Required, error, encode) }
}

/// Frees an encoder. Calls that use it meanwhile end as they would have.
///
/// Ownership: takes `encoder` back.
/// Threads: any, at the same time.
/// Errors: INHOUSE_STATUS_INVALID_HANDLE where it was freed already.
/// Null: `encoder` may be NULL: nothing happens.
#[unsafe(no_mangle)]
pub extern "C" fn inhouse_encoder_free(encoder: *mut inhouse_encoder) -> inhouse_status {
    act(|| handle::release(encoder))
}

/// Number of vectors: the call's `n_texts`.
///
/// Ownership: nothing changes hands.
/// Threads: any, also at the same time.
/// Errors: none; a stale handle gives 0.
/// Null: `vectors` may be NULL: 0.
#[unsafe(no_mangle)]
pub extern "C" fn inhouse_vectors_count(vectors: *const inhouse_vectors) -> usize {
    read(0, || Ok(handle::get(vectors)?.len()))
}

/// Width of the vectors, in numbers.
///
/// Ownership: nothing changes hands.
/// Threads: any, also at the same time.
/// Errors: none; a stale handle gives 0.
/// Null: `vectors` may be NULL: 0.
#[unsafe(no_mangle)]
pub extern "C" fn inhouse_vectors_dim(vectors: *const inhouse_vectors) -> usize {
    read(0, || Ok(handle::get(vectors)?.dim))
}

/// Vector `idx`: inhouse_vectors_dim() numbers. The rows follow one another in memory, so that row 0 is all of them.
///
/// Ownership: the array belongs to `vectors` and is valid until inhouse_vectors_free().
/// Threads: any, also at the same time.
/// Errors: none; a stale handle or an `idx` out of range gives NULL.
/// Null: `vectors` may be NULL: NULL.
#[unsafe(no_mangle)]
pub extern "C" fn inhouse_vectors_row(vectors: *const inhouse_vectors, idx: usize) -> *const f32 {
    read(std::ptr::null(), || {
        let vectors = handle::get(vectors)?;
        if idx >= vectors.len() {
            return Err(Failure::invalid(format!("no vector {idx} of {}", vectors.len())));
        }
        // From the whole, which lives as long as the host keeps the handle: the host may read on into the next row.
        Ok(vectors.values.as_ptr().wrapping_add(idx * vectors.dim))
    })
}

/// Frees vectors.
///
/// Ownership: takes `vectors` back; their rows end.
/// Threads: any; not while another thread still reads their rows.
/// Errors: INHOUSE_STATUS_INVALID_HANDLE where they were freed already.
/// Null: `vectors` may be NULL: nothing happens.
#[unsafe(no_mangle)]
pub extern "C" fn inhouse_vectors_free(vectors: *mut inhouse_vectors) -> inhouse_status {
    act(|| handle::release(vectors))
}
