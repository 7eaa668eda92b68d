//! The cancel token: one flag between whoever waits for a completion and whoever may end it.

use inhouse::CancelToken;

use crate::boundary::{Out, act, create, read};
use crate::error::inhouse_error;
use crate::handle::{self, handle};
use crate::status::inhouse_status;

/// A flag that ends a running completion. Any thread may set it; one token may serve many calls, one after another or
/// at the same time.
pub struct inhouse_cancel {
    _private: [u8; 0],
}

handle!(inhouse_cancel, CancelToken);

/// Makes a token that nobody has set.
///
/// Ownership: the host owns `*out` and frees it with inhouse_cancel_free().
/// Threads: any.
/// Errors: INHOUSE_STATUS_INVALID_ARGUMENT.
/// Null: `out` must not be NULL; `error` may be.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inhouse_cancel_new(
    out: *mut *mut inhouse_cancel,
    error: *mut *mut inhouse_error,
) -> inhouse_status {
    // SAFETY: the host promises that out-parameters can be written.
    unsafe { create(out, Out::Required, error, || Ok(CancelToken::new())) }
}

/// Sets the flag: every completion that was given the token ends within about one step of the model.
///
/// Ownership: nothing changes hands.
/// Threads: any, at any time, also from inside a callback; not from a signal handler.
/// Errors: INHOUSE_STATUS_INVALID_HANDLE; INHOUSE_STATUS_INVALID_ARGUMENT for NULL.
/// Null: `cancel` must not be NULL.
#[unsafe(no_mangle)]
pub extern "C" fn inhouse_cancel_set(cancel: *const inhouse_cancel) -> inhouse_status {
    act(|| {
        handle::get(cancel)?.cancel();
        Ok(())
    })
}

/// Clears the flag, so that the token can be used again.
///
/// Ownership: nothing changes hands.
/// Threads: any; a completion that is still running under the token may or may not end.
/// Errors: INHOUSE_STATUS_INVALID_HANDLE; INHOUSE_STATUS_INVALID_ARGUMENT for NULL.
/// Null: `cancel` must not be NULL.
#[unsafe(no_mangle)]
pub extern "C" fn inhouse_cancel_reset(cancel: *const inhouse_cancel) -> inhouse_status {
    act(|| {
        handle::get(cancel)?.reset();
        Ok(())
    })
}

/// 1 where the flag is set, else 0.
///
/// Ownership: nothing changes hands.
/// Threads: any.
/// Errors: none; a stale handle gives 0.
/// Null: `cancel` may be NULL: 0.
#[unsafe(no_mangle)]
pub extern "C" fn inhouse_cancel_is_set(cancel: *const inhouse_cancel) -> i32 {
    read(0, || Ok(i32::from(handle::get(cancel)?.is_cancelled())))
}

/// Frees a token. A completion that is running under it goes on and can no longer be cancelled.
///
/// Ownership: takes `cancel` back.
/// Threads: any.
/// Errors: INHOUSE_STATUS_INVALID_HANDLE where it was freed already.
/// Null: `cancel` may be NULL: nothing happens.
#[unsafe(no_mangle)]
pub extern "C" fn inhouse_cancel_free(cancel: *mut inhouse_cancel) -> inhouse_status {
    act(|| handle::release(cancel))
}

#[cfg(test)]
mod tests {
    use std::ptr;

    use super::*;
    use crate::status::inhouse_status::*;

    #[test]
    fn a_token_is_set_from_another_thread() {
        let mut cancel = ptr::null_mut();
        // SAFETY: `out` is a local.
        let status = unsafe { inhouse_cancel_new(&mut cancel, ptr::null_mut()) };
        assert_eq!(status, INHOUSE_STATUS_OK);
        assert_eq!(inhouse_cancel_is_set(cancel), 0);
        let address = cancel.addr();
        let set = move || inhouse_cancel_set(ptr::without_provenance(address));
        assert_eq!(std::thread::spawn(set).join().unwrap(), INHOUSE_STATUS_OK);
        assert_eq!(inhouse_cancel_is_set(cancel), 1);
        assert_eq!(inhouse_cancel_reset(cancel), INHOUSE_STATUS_OK);
        assert_eq!(inhouse_cancel_is_set(cancel), 0);
        assert_eq!(inhouse_cancel_free(cancel), INHOUSE_STATUS_OK);
        assert_eq!(inhouse_cancel_free(cancel), INHOUSE_STATUS_INVALID_HANDLE);
        assert_eq!(inhouse_cancel_set(cancel), INHOUSE_STATUS_INVALID_HANDLE);
        assert_eq!(inhouse_cancel_is_set(cancel), 0);
    }
}
