//! What a completion call returned.

use inhouse::{Completion, CompletionResult};
use serde_json::json;

use crate::apis::{Apis, inhouse_apis};
use crate::boundary::{Out, act, check_aligned, create, put, read};
use crate::error::inhouse_error;
use crate::event::inhouse_finish_reason;
use crate::handle::{self, handle};
use crate::status::{Failure, inhouse_status};
use crate::strings::{Text, inhouse_str, inhouse_text};

/// The completions of one call, with the prompt and the APIs in it; freed with inhouse_completion_free(). It does not
/// depend on the session that made it.
pub struct inhouse_completion {
    _private: [u8; 0],
}

handle!(inhouse_completion, Completed);

/// What an `inhouse_completion` stands for.
pub(crate) struct Completed {
    result: CompletionResult,
    /// The texts as they are handed out.
    texts: Vec<Text>,
    prompt: Text,
}

impl From<CompletionResult> for Completed {
    fn from(result: CompletionResult) -> Self {
        let texts = result.completions.iter().map(|completion| completion.text.as_str().into()).collect();
        Self { texts, prompt: result.prompt.as_str().into(), result }
    }
}

impl Completed {
    fn at(&self, idx: usize) -> Result<(&Completion, &Text), Failure> {
        let missing = || Failure::invalid(format!("no completion {idx} of {}", self.texts.len()));
        self.result.completions.get(idx).zip(self.texts.get(idx)).ok_or_else(missing)
    }

    fn facts(&self) -> serde_json::Value {
        let result = &self.result;
        let one = |completion: &Completion| {
            let mut one = json!({
                "text": completion.text,
                "finish_reason": completion.finish_reason.as_str(),
                "completion_tokens": completion.completion_tokens,
            });
            if let Some(values) = &completion.log_probabilities {
                one["logprobs"] = json!(values);
            }
            one
        };
        json!({
            "completions": result.completions.iter().map(one).collect::<Vec<_>>(),
            "format": result.format,
            "apis": result.apis.iter().map(|api| &api.name).collect::<Vec<_>>(),
            "prompt_tokens": result.prompt_tokens,
            "prompt_tokens_shared": result.prompt_tokens_shared,
            "completion_tokens": result.completion_tokens(),
            "tokens_per_second": result.tokens_per_second(),
            "prefill_seconds": result.prefill_seconds,
            "decode_seconds": result.decode_seconds,
            "context_truncated": result.context_truncated,
            "constraint": result.constraint,
        })
    }
}

/// Number of completions: the call's `n_completions`.
///
/// Ownership: nothing changes hands.
/// Threads: any, also at the same time.
/// Errors: none; a stale handle gives 0.
/// Null: `completion` may be NULL: 0.
#[unsafe(no_mangle)]
pub extern "C" fn inhouse_completion_count(completion: *const inhouse_completion) -> usize {
    read(0, || Ok(handle::get(completion)?.texts.len()))
}

/// The text of completion `idx`: what follows the context.
///
/// Ownership: the view belongs to `completion` and is valid until inhouse_completion_free().
/// Threads: any, also at the same time.
/// Errors: none; a stale handle or an `idx` out of range gives a view with `data` NULL.
/// Null: `completion` may be NULL: a view with `data` NULL.
#[unsafe(no_mangle)]
pub extern "C" fn inhouse_completion_text(completion: *const inhouse_completion, idx: usize) -> inhouse_str {
    read(inhouse_str::ABSENT, || Ok(handle::get(completion)?.at(idx)?.1.view()))
}

/// Why completion `idx` ended.
///
/// Ownership: nothing changes hands.
/// Threads: any, also at the same time.
/// Errors: none; a stale handle or an `idx` out of range gives INHOUSE_FINISH_UNKNOWN.
/// Null: `completion` may be NULL: INHOUSE_FINISH_UNKNOWN.
#[unsafe(no_mangle)]
pub extern "C" fn inhouse_completion_finish_reason(
    completion: *const inhouse_completion,
    idx: usize,
) -> inhouse_finish_reason {
    let unknown = inhouse_finish_reason::INHOUSE_FINISH_UNKNOWN;
    read(unknown, || Ok(handle::get(completion)?.at(idx)?.0.finish_reason.into()))
}

/// Tokens that the model wrote for completion `idx`.
///
/// Ownership: nothing changes hands.
/// Threads: any, also at the same time.
/// Errors: none; a stale handle or an `idx` out of range gives 0.
/// Null: `completion` may be NULL: 0.
#[unsafe(no_mangle)]
pub extern "C" fn inhouse_completion_tokens(completion: *const inhouse_completion, idx: usize) -> usize {
    read(0, || Ok(handle::get(completion)?.at(idx)?.0.completion_tokens))
}

/// The natural logarithms of the probabilities of the tokens of completion `idx`, as the model gives them before
/// temperature and the other steps of sampling, and in `n` their number: inhouse_completion_tokens().
///
/// Ownership: the array belongs to `completion` and is valid until inhouse_completion_free().
/// Threads: any, also at the same time.
/// Errors: none; NULL, and 0 in `n`, for a stale handle, an `idx` out of range, a misaligned `n`, or where
/// `log_probabilities` was not asked for.
/// Null: `completion` and `n` may be NULL: NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inhouse_completion_log_probabilities(
    completion: *const inhouse_completion,
    idx: usize,
    n: *mut usize,
) -> *const f32 {
    let (values, length) = read((std::ptr::null(), 0), || {
        if n.is_null() {
            return Err(Failure::invalid("`n` is NULL"));
        }
        check_aligned(n, "n")?;
        let completed = handle::get(completion)?;
        // The array lives as long as the host keeps the handle, whatever this call's own hold on it does.
        let values = completed.at(idx)?.0.log_probabilities.as_deref();
        Ok(values.map_or((std::ptr::null(), 0), |values| (values.as_ptr(), values.len())))
    });
    // SAFETY: the host promises that `n` can be written.
    unsafe { put(n, length) };
    values
}

/// The whole prompt as the model read it: the APIs, then the context.
///
/// Ownership: the view belongs to `completion` and is valid until inhouse_completion_free().
/// Threads: any, also at the same time.
/// Errors: none; a stale handle gives a view with `data` NULL.
/// Null: `completion` may be NULL: a view with `data` NULL.
#[unsafe(no_mangle)]
pub extern "C" fn inhouse_completion_prompt(completion: *const inhouse_completion) -> inhouse_str {
    read(inhouse_str::ABSENT, || Ok(handle::get(completion)?.prompt.view()))
}

/// Tokens of the prompt.
///
/// Ownership: nothing changes hands.
/// Threads: any, also at the same time.
/// Errors: none; a stale handle gives 0.
/// Null: `completion` may be NULL: 0.
#[unsafe(no_mangle)]
pub extern "C" fn inhouse_completion_prompt_tokens(completion: *const inhouse_completion) -> usize {
    read(0, || Ok(handle::get(completion)?.result.prompt_tokens))
}

/// Of the tokens of the prompt, those that the session still held from earlier calls and did not read again.
///
/// Ownership: nothing changes hands.
/// Threads: any, also at the same time.
/// Errors: none; a stale handle gives 0.
/// Null: `completion` may be NULL: 0.
#[unsafe(no_mangle)]
pub extern "C" fn inhouse_completion_prompt_tokens_shared(completion: *const inhouse_completion) -> usize {
    read(0, || Ok(handle::get(completion)?.result.prompt_tokens_shared))
}

/// 1 where the beginning of the context was cut so that it fits the model, else 0.
///
/// Ownership: nothing changes hands.
/// Threads: any, also at the same time.
/// Errors: none; a stale handle gives 0.
/// Null: `completion` may be NULL: 0.
#[unsafe(no_mangle)]
pub extern "C" fn inhouse_completion_context_truncated(completion: *const inhouse_completion) -> i32 {
    read(0, || Ok(i32::from(handle::get(completion)?.result.context_truncated)))
}

/// Seconds spent on reading the prompt.
///
/// Ownership: nothing changes hands.
/// Threads: any, also at the same time.
/// Errors: none; a stale handle gives 0.
/// Null: `completion` may be NULL: 0.
#[unsafe(no_mangle)]
pub extern "C" fn inhouse_completion_prefill_seconds(completion: *const inhouse_completion) -> f64 {
    read(0.0, || Ok(handle::get(completion)?.result.prefill_seconds))
}

/// Seconds spent on writing the completions.
///
/// Ownership: nothing changes hands.
/// Threads: any, also at the same time.
/// Errors: none; a stale handle gives 0.
/// Null: `completion` may be NULL: 0.
#[unsafe(no_mangle)]
pub extern "C" fn inhouse_completion_decode_seconds(completion: *const inhouse_completion) -> f64 {
    read(0.0, || Ok(handle::get(completion)?.result.decode_seconds))
}

/// The APIs that stand in the prompt, in its order; their scores are 0.
///
/// Ownership: the host owns `*out` and frees it with inhouse_apis_free(); it does not depend on `completion`.
/// Threads: any, also at the same time.
/// Errors: INHOUSE_STATUS_INVALID_HANDLE; INHOUSE_STATUS_INVALID_ARGUMENT.
/// Null: `completion` and `out` must not be NULL; `error` may be.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inhouse_completion_apis(
    completion: *const inhouse_completion,
    out: *mut *mut inhouse_apis,
    error: *mut *mut inhouse_error,
) -> inhouse_status {
    let list = || Ok(Apis::from(handle::get(completion)?.result.apis.as_slice()));
    // SAFETY: the host promises that out-parameters can be written.
    unsafe { create(out, Out::Required, error, list) }
}

/// All that is known of the call as a JSON object: `completions` (each with `text`, `finish_reason`, `completion_tokens`
/// and, where asked for, `logprobs`), `format` ("continue", "infill" or "chat"), `apis` (names of those in the prompt), `prompt_tokens`, `prompt_tokens_shared`,
/// `completion_tokens`, `tokens_per_second`, `prefill_seconds`, `decode_seconds`, `context_truncated`, and `constraint`:
/// null, or where `constrain` was asked for what it did (`steps`, `masked`, `refused`, `gave_way`: tokens). Unknown members
/// must be passed over: more may come.
///
/// Ownership: the host owns `*out` and frees it with inhouse_text_free(); it does not depend on `completion`.
/// Threads: any, also at the same time.
/// Errors: INHOUSE_STATUS_INVALID_HANDLE; INHOUSE_STATUS_INVALID_ARGUMENT.
/// Null: `completion` and `out` must not be NULL; `error` may be.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inhouse_completion_json(
    completion: *const inhouse_completion,
    out: *mut *mut inhouse_text,
    error: *mut *mut inhouse_error,
) -> inhouse_status {
    let facts = || Ok(Text::from(handle::get(completion)?.facts().to_string()));
    // SAFETY: the host promises that out-parameters can be written.
    unsafe { create(out, Out::Required, error, facts) }
}

/// Frees the completions of a call.
///
/// Ownership: takes `completion` back; views of its texts end.
/// Threads: any; not while another thread still reads its texts.
/// Errors: INHOUSE_STATUS_INVALID_HANDLE where it was freed already.
/// Null: `completion` may be NULL: nothing happens.
#[unsafe(no_mangle)]
pub extern "C" fn inhouse_completion_free(completion: *mut inhouse_completion) -> inhouse_status {
    act(|| handle::release(completion))
}
