//! What a completion call returned.

use inhouse::CompletionResult;

use crate::apis::{Apis, inhouse_apis};
use crate::boundary::{Out, act, create, read};
use crate::error::inhouse_error;
use crate::event::inhouse_finish_reason;
use crate::handle::{self, handle};
use crate::status::{Failure, inhouse_status};
use crate::strings::{Text, inhouse_str};

/// The completions of one call, with the prompt and the APIs in it; freed with inhouse_completion_free(). It does not
/// depend on the session that made it.
pub struct inhouse_completion {
    _private: [u8; 0],
}

handle!(inhouse_completion, Completed);

/// What an `inhouse_completion` stands for.
pub(crate) struct Completed {
    completions: Vec<One>,
    apis: Vec<inhouse::ApiDoc>,
    prompt: Text,
    context_truncated: bool,
    prompt_tokens: usize,
    prefill_seconds: f64,
    decode_seconds: f64,
}

struct One {
    text: Text,
    finish_reason: inhouse_finish_reason,
    tokens: usize,
}

impl From<CompletionResult> for Completed {
    fn from(result: CompletionResult) -> Self {
        let one = |completion: inhouse::Completion| One {
            text: completion.text.into(),
            finish_reason: completion.finish_reason.into(),
            tokens: completion.completion_tokens,
        };
        Self {
            completions: result.completions.into_iter().map(one).collect(),
            apis: result.apis,
            prompt: result.prompt.into(),
            context_truncated: result.context_truncated,
            prompt_tokens: result.prompt_tokens,
            prefill_seconds: result.prefill_seconds,
            decode_seconds: result.decode_seconds,
        }
    }
}

impl Completed {
    fn at(&self, idx: usize) -> Result<&One, Failure> {
        let missing = || Failure::invalid(format!("no completion {idx} of {}", self.completions.len()));
        self.completions.get(idx).ok_or_else(missing)
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
    read(0, || Ok(handle::get(completion)?.completions.len()))
}

/// The text of completion `idx`: what follows the context.
///
/// Ownership: the view belongs to `completion` and is valid until inhouse_completion_free().
/// Threads: any, also at the same time.
/// Errors: none; a stale handle or an `idx` out of range gives a view with `data` NULL.
/// Null: `completion` may be NULL: a view with `data` NULL.
#[unsafe(no_mangle)]
pub extern "C" fn inhouse_completion_text(completion: *const inhouse_completion, idx: usize) -> inhouse_str {
    read(inhouse_str::ABSENT, || Ok(handle::get(completion)?.at(idx)?.text.view()))
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
    read(unknown, || Ok(handle::get(completion)?.at(idx)?.finish_reason))
}

/// Tokens that the model wrote for completion `idx`.
///
/// Ownership: nothing changes hands.
/// Threads: any, also at the same time.
/// Errors: none; a stale handle or an `idx` out of range gives 0.
/// Null: `completion` may be NULL: 0.
#[unsafe(no_mangle)]
pub extern "C" fn inhouse_completion_tokens(completion: *const inhouse_completion, idx: usize) -> usize {
    read(0, || Ok(handle::get(completion)?.at(idx)?.tokens))
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
    read(0, || Ok(handle::get(completion)?.prompt_tokens))
}

/// 1 where the beginning of the context was cut so that it fits the model, else 0.
///
/// Ownership: nothing changes hands.
/// Threads: any, also at the same time.
/// Errors: none; a stale handle gives 0.
/// Null: `completion` may be NULL: 0.
#[unsafe(no_mangle)]
pub extern "C" fn inhouse_completion_context_truncated(completion: *const inhouse_completion) -> i32 {
    read(0, || Ok(i32::from(handle::get(completion)?.context_truncated)))
}

/// Seconds spent on reading the prompt.
///
/// Ownership: nothing changes hands.
/// Threads: any, also at the same time.
/// Errors: none; a stale handle gives 0.
/// Null: `completion` may be NULL: 0.
#[unsafe(no_mangle)]
pub extern "C" fn inhouse_completion_prefill_seconds(completion: *const inhouse_completion) -> f64 {
    read(0.0, || Ok(handle::get(completion)?.prefill_seconds))
}

/// Seconds spent on writing the completions.
///
/// Ownership: nothing changes hands.
/// Threads: any, also at the same time.
/// Errors: none; a stale handle gives 0.
/// Null: `completion` may be NULL: 0.
#[unsafe(no_mangle)]
pub extern "C" fn inhouse_completion_decode_seconds(completion: *const inhouse_completion) -> f64 {
    read(0.0, || Ok(handle::get(completion)?.decode_seconds))
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
    let list = || Ok(Apis::from(handle::get(completion)?.apis.as_slice()));
    // SAFETY: the host promises that out-parameters can be written.
    unsafe { create(out, Out::Required, error, list) }
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
