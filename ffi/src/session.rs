//! The session: one KV cache, one call at a time.

use std::mem::size_of;
use std::sync::{Mutex, TryLockError};

use inhouse::{ErrorKind, Session};

use crate::boundary::{Out, act, attempt, check_aligned, create, put};
use crate::completion::{Completed, inhouse_completion};
use crate::engine::inhouse_engine;
use crate::error::inhouse_error;
use crate::event::Listener;
use crate::handle::{self, handle};
use crate::params::{self, Params};
use crate::request::inhouse_complete_params;
use crate::status::{Failure, inhouse_status};
use crate::strings::{Text, inhouse_str, inhouse_text};

/// No session decodes more completions side by side.
pub const INHOUSE_MAX_SEQUENCES: u32 = 256;

/// A place to complete code in: the cache of a model. One call at a time; it keeps its engine open.
pub struct inhouse_session {
    _private: [u8; 0],
}

handle!(inhouse_session, Exclusive<Session>);

/// An object for one call at a time, which a failure in the middle of a call makes unusable.
pub(crate) struct Exclusive<T>(Mutex<State<T>>);

enum State<T> {
    Ready(T),
    /// What went wrong.
    Broken(String),
}

impl<T> Exclusive<T> {
    fn new(object: T) -> Self {
        Self(Mutex::new(State::Ready(object)))
    }

    /// Runs a call. An error for which `breaks` holds drops the object; so does a panic, through the mutex's poison.
    fn with<R>(
        &self,
        breaks: impl FnOnce(&inhouse::Error) -> bool,
        call: impl FnOnce(&mut T) -> inhouse::Result<R>,
    ) -> Result<R, Failure> {
        let poisoned = |why: &str| {
            let message = format!("the session failed in an earlier call ({why}): close it and open another");
            Failure::new(inhouse_status::INHOUSE_STATUS_POISONED, message)
        };
        let mut state = self.0.try_lock().map_err(|held| match held {
            TryLockError::Poisoned(_) => poisoned("a panic"),
            TryLockError::WouldBlock => Failure::new(
                inhouse_status::INHOUSE_STATUS_BUSY,
                "the session is in another call (one at a time; a callback must not use its own session)",
            ),
        })?;
        let object = match &mut *state {
            State::Ready(object) => object,
            State::Broken(why) => return Err(poisoned(why)),
        };
        let result = call(object);
        if let Err(error) = &result
            && breaks(error)
        {
            *state = State::Broken(error.to_string());
        }
        Ok(result?)
    }
}

/// How inhouse_session_open() opens. Set up with inhouse_session_params_init(), then change fields.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct inhouse_session_params {
    /// Size of the struct in bytes as the host knows it.
    pub struct_size: usize,
    /// Completions decoded side by side, 1 to INHOUSE_MAX_SEQUENCES; each costs memory for its cache. Default: 1.
    pub n_sequences: u32,
    /// Zero.
    pub reserved: u32,
}

// SAFETY: `repr(C)`; a usize and two 32-bit numbers leave no padding; every bit pattern is a value.
unsafe impl Params for inhouse_session_params {
    const NAME: &'static str = "inhouse_session_params";
    const FIRST_SIZE: usize = size_of::<Self>();

    fn defaults() -> Self {
        Self { struct_size: size_of::<Self>(), n_sequences: 1, reserved: 0 }
    }
}

/// Writes the defaults into `params`, of which the host says how long it is: `sizeof *params`.
///
/// Ownership: nothing changes hands.
/// Threads: any; the struct is the host's.
/// Errors: INHOUSE_STATUS_INVALID_ARGUMENT for a size that no version of the struct has; nothing is written then.
/// Null: `params` must not be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inhouse_session_params_init(
    params: *mut inhouse_session_params,
    struct_size: usize,
) -> inhouse_status {
    // SAFETY: the host promises `struct_size` writable bytes.
    act(|| unsafe { params::init(params, struct_size) })
}

/// Opens a session on an engine's model.
///
/// Ownership: the host owns `*out` and closes it with inhouse_session_close(). The session keeps the engine open by
/// itself: the host may release its own hold. `params` is copied.
/// Threads: any, at the same time.
/// Errors: INHOUSE_STATUS_INVALID_HANDLE; INHOUSE_STATUS_INVALID_ARGUMENT, also where the engine has no model;
/// INHOUSE_STATUS_LIMIT_EXCEEDED; INHOUSE_STATUS_BACKEND where the memory for the cache is not to be had.
/// Null: `engine` and `out` must not be NULL; `params` may be (the defaults), `error` may be.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inhouse_session_open(
    engine: *const inhouse_engine,
    params: *const inhouse_session_params,
    out: *mut *mut inhouse_session,
    error: *mut *mut inhouse_error,
) -> inhouse_status {
    let open = || {
        let engine = handle::get(engine)?;
        // SAFETY: the host promises that `params` is as long as it says.
        let params = unsafe { params::read_or_defaults(params) }?;
        if params.reserved != 0 || params.n_sequences == 0 {
            let fault = "`n_sequences` is 0 or `reserved` is not: call inhouse_session_params_init first";
            return Err(Failure::invalid(fault));
        }
        if params.n_sequences > INHOUSE_MAX_SEQUENCES {
            let fault =
                format!("`n_sequences` {} is over the limit of {INHOUSE_MAX_SEQUENCES}", params.n_sequences);
            return Err(Failure::limit(fault));
        }
        Ok(Exclusive::new(engine.session(params.n_sequences as usize)?))
    };
    // SAFETY: the host promises that out-parameters can be written.
    unsafe { create(out, Out::Required, error, open) }
}

/// Writes the defaults into `params`, of which the host says how long it is: `sizeof *params`.
///
/// Ownership: nothing changes hands.
/// Threads: any; the struct is the host's.
/// Errors: INHOUSE_STATUS_INVALID_ARGUMENT for a size that no version of the struct has; nothing is written then.
/// Null: `params` must not be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inhouse_complete_params_init(
    params: *mut inhouse_complete_params,
    struct_size: usize,
) -> inhouse_status {
    // SAFETY: the host promises `struct_size` writable bytes.
    act(|| unsafe { params::init(params, struct_size) })
}

/// Completes `context`, the code before the cursor, with APIs in front of it as `params` say. Returns when every
/// completion has ended; meanwhile `params->on_event` is called on this thread.
///
/// A cancel or a deadline is no failure once the model is writing: the completions say INHOUSE_FINISH_CANCELLED or
/// INHOUSE_FINISH_DEADLINE and hold the text so far.
///
/// Ownership: the host owns `*out` and frees it with inhouse_completion_free(). `context`, `params` and its texts are
/// copied before the first callback; the session keeps none of them.
/// Threads: any, but one call at a time: a second one meanwhile, or from the callback, gets INHOUSE_STATUS_BUSY and
/// changes nothing. The session may be closed meanwhile; the call then ends as it would have.
/// Errors: INHOUSE_STATUS_INVALID_HANDLE; INHOUSE_STATUS_INVALID_ARGUMENT for a field out of range, or APIs asked of an
/// engine without an index; INHOUSE_STATUS_NOT_FOUND for a name that is not in the index;
/// INHOUSE_STATUS_LIMIT_EXCEEDED where no room is left for the context; INHOUSE_STATUS_CANCELLED,
/// INHOUSE_STATUS_DEADLINE_EXCEEDED before anything was written; INHOUSE_STATUS_BACKEND or INHOUSE_STATUS_PANIC, after
/// which the session can only be closed and says INHOUSE_STATUS_POISONED.
/// Null: `session` must not be NULL; `params` may be (the defaults), `out` may be (only the events are of interest),
/// `error` may be.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inhouse_session_complete(
    session: *const inhouse_session,
    context: inhouse_str,
    params: *const inhouse_complete_params,
    out: *mut *mut inhouse_completion,
    error: *mut *mut inhouse_error,
) -> inhouse_status {
    let complete = || {
        let session = handle::get(session)?;
        // SAFETY: the host promises that `params` is as long as it says.
        let params = unsafe { params::read_or_defaults(params) }?;
        // SAFETY: the host promises that the views and arrays can be read.
        let request = unsafe { params.request(context) }?;
        let cancel = params.token()?;
        let mut listener = Listener::new(params.on_event, params.user_data);
        let result = session.with(
            |error| error.kind() == ErrorKind::Backend,
            |session| {
                // SAFETY: the host promises that its callback can be called during the call.
                session.complete(&request, &cancel, &mut |event| unsafe { listener.tell(event) })
            },
        )?;
        Ok(Completed::from(result))
    };
    // SAFETY: the host promises that out-parameters can be written.
    unsafe { create(out, Out::Optional, error, complete) }
}

/// What a session has done since it was opened, and what it holds, as a JSON object: `calls`, `completions`,
/// `prompt_tokens`, `prompt_tokens_shared`, `completion_tokens`, `prefill_seconds`, `decode_seconds`, `cache_cells` (of
/// the KV cache), `kept_prompts` and `kept_tokens` (of the prefix cache), `context_length` (tokens). Unknown members must
/// be passed over: more may come.
///
/// Ownership: the host owns `*out` and frees it with inhouse_text_free().
/// Threads: any, but one call on a session at a time: INHOUSE_STATUS_BUSY meanwhile.
/// Errors: INHOUSE_STATUS_INVALID_HANDLE; INHOUSE_STATUS_INVALID_ARGUMENT; INHOUSE_STATUS_BUSY; INHOUSE_STATUS_POISONED.
/// Null: `session` and `out` must not be NULL; `error` may be.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inhouse_session_info(
    session: *const inhouse_session,
    out: *mut *mut inhouse_text,
    error: *mut *mut inhouse_error,
) -> inhouse_status {
    let info = || {
        let session = handle::get(session)?;
        Text::json(&session.with(|_| false, |session| Ok(session.statistics()))?)
    };
    // SAFETY: the host promises that out-parameters can be written.
    unsafe { create(out, Out::Required, error, info) }
}

/// Writes the prompts that a session keeps (`prefix_tokens` of the engine), with what the model made of them, to the file
/// `path`, for inhouse_session_load_prefixes(). A file that is there is replaced in one step.
///
/// Ownership: nothing changes hands; `path` is copied.
/// Threads: any, but one call on a session at a time: INHOUSE_STATUS_BUSY meanwhile. It writes a file of some MiB.
/// Errors: INHOUSE_STATUS_INVALID_HANDLE; INHOUSE_STATUS_INVALID_ARGUMENT, also where there is nothing to save;
/// INHOUSE_STATUS_UNSUPPORTED where the backend cannot; INHOUSE_STATUS_IO; INHOUSE_STATUS_BUSY; INHOUSE_STATUS_POISONED.
/// Null: `session` must not be NULL; `error` may be.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inhouse_session_save_prefixes(
    session: *const inhouse_session,
    path: inhouse_str,
    error: *mut *mut inhouse_error,
) -> inhouse_status {
    let save = || {
        let session = handle::get(session)?;
        // SAFETY: the host promises that the view can be read.
        let path = unsafe { path.read_required_path("path") }?;
        session.with(|_| false, |session| session.save_prefixes(&path))
    };
    // SAFETY: the host promises that `error` can be written.
    unsafe { attempt(error, save) }
}

/// Takes in the prompts of a file that inhouse_session_save_prefixes() wrote with the same model, and puts their number
/// in `n`. What the session kept before is dropped, also where the call fails.
///
/// Ownership: nothing changes hands; `path` is copied.
/// Threads: any, but one call on a session at a time: INHOUSE_STATUS_BUSY meanwhile. It reads a file of some MiB.
/// Errors: INHOUSE_STATUS_INVALID_HANDLE; INHOUSE_STATUS_NOT_FOUND; INHOUSE_STATUS_INVALID_DATA for a file that is damaged
/// or of another model; INHOUSE_STATUS_INVALID_ARGUMENT; INHOUSE_STATUS_UNSUPPORTED; INHOUSE_STATUS_IO;
/// INHOUSE_STATUS_BUSY; INHOUSE_STATUS_POISONED. `n` is then 0.
/// Null: `session` must not be NULL; `n` may be, `error` may be.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inhouse_session_load_prefixes(
    session: *const inhouse_session,
    path: inhouse_str,
    n: *mut usize,
    error: *mut *mut inhouse_error,
) -> inhouse_status {
    let mut loaded = 0;
    let load = || {
        check_aligned(n, "n")?;
        let session = handle::get(session)?;
        // SAFETY: the host promises that the view can be read.
        let path = unsafe { path.read_input_path("path") }?;
        loaded = session
            .with(|error| error.kind() == ErrorKind::Backend, |session| session.load_prefixes(&path))?;
        Ok(())
    };
    // SAFETY: the host promises that `error` and `n` can be written.
    unsafe {
        let status = attempt(error, load);
        put(n, loaded);
        status
    }
}

/// Closes a session. A call that is still running on another thread ends as it would have; cancel it first to end it
/// early.
///
/// Ownership: takes `session` back. Completions made by it stay valid.
/// Threads: any, also from a callback of the session.
/// Errors: INHOUSE_STATUS_INVALID_HANDLE where it was closed already.
/// Null: `session` may be NULL: nothing happens.
#[unsafe(no_mangle)]
pub extern "C" fn inhouse_session_close(session: *mut inhouse_session) -> inhouse_status {
    act(|| handle::release(session))
}

#[cfg(test)]
mod tests {
    use inhouse::Error;

    use super::*;
    use crate::boundary::guard;
    use crate::status::inhouse_status::*;

    fn call(
        session: &Exclusive<u32>,
        body: impl FnOnce(&mut u32) -> inhouse::Result<u32>,
    ) -> Result<u32, Failure> {
        guard(|| session.with(|error| error.kind() == ErrorKind::Backend, body))
    }

    fn status(result: &Result<u32, Failure>) -> inhouse_status {
        result.as_ref().map_or_else(|failure| failure.status, |_| INHOUSE_STATUS_OK)
    }

    #[test]
    fn one_call_at_a_time() {
        let session = Exclusive::new(1);
        let outer = call(&session, |_| {
            let inner = call(&session, |value| Ok(*value));
            assert_eq!(status(&inner), INHOUSE_STATUS_BUSY);
            Ok(2)
        });
        assert_eq!(status(&outer), INHOUSE_STATUS_OK);
        assert_eq!(status(&call(&session, |value| Ok(*value))), INHOUSE_STATUS_OK);
    }

    #[test]
    fn a_bad_request_leaves_the_session_usable_and_a_broken_backend_does_not() {
        let session = Exclusive::new(1);
        let bad = call(&session, |_| Err(Error::new(ErrorKind::LimitExceeded, "too long")));
        assert_eq!(status(&bad), INHOUSE_STATUS_LIMIT_EXCEEDED);
        assert_eq!(status(&call(&session, |value| Ok(*value))), INHOUSE_STATUS_OK);
        let broken = call(&session, |_| Err(Error::new(ErrorKind::Backend, "cache lost")));
        assert_eq!(status(&broken), INHOUSE_STATUS_BACKEND);
        let after = call(&session, |value| Ok(*value));
        assert_eq!(status(&after), INHOUSE_STATUS_POISONED);
        assert!(after.is_err_and(|failure| failure.message.contains("cache lost")));
    }

    #[test]
    fn a_panic_poisons_the_session() {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let session = Exclusive::new(1);
        let panicked = call(&session, |_| panic!("on purpose"));
        std::panic::set_hook(hook);
        assert_eq!(status(&panicked), INHOUSE_STATUS_PANIC);
        assert_eq!(status(&call(&session, |value| Ok(*value))), INHOUSE_STATUS_POISONED);
    }
}
