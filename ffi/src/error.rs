//! The error object.

use crate::boundary::{act, read};
use crate::handle::{self, handle};
use crate::status::{Failure, inhouse_status};
use crate::strings::{Text, inhouse_str};

/// Why a call failed: a status and one line of text that names the file, the position, the value and, where there is
/// one, the mend. Made by a call with a parameter `inhouse_error **error`; the host frees it with
/// inhouse_error_free().
pub struct inhouse_error {
    _private: [u8; 0],
}

/// What an `inhouse_error` stands for.
pub(crate) struct ErrorObject {
    status: inhouse_status,
    message: Text,
}

impl ErrorObject {
    pub(crate) fn new(failure: Failure) -> Self {
        Self { status: failure.status, message: failure.message.into() }
    }
}

handle!(inhouse_error, ErrorObject);

/// The status of an error: the one that the failed call returned.
///
/// Ownership: nothing changes hands.
/// Threads: any, also at the same time.
/// Errors: none; a stale handle gives INHOUSE_STATUS_INVALID_HANDLE.
/// Null: `error` may be NULL (no error): INHOUSE_STATUS_OK.
#[unsafe(no_mangle)]
pub extern "C" fn inhouse_error_status(error: *const inhouse_error) -> inhouse_status {
    if error.is_null() {
        return inhouse_status::INHOUSE_STATUS_OK;
    }
    read(inhouse_status::INHOUSE_STATUS_INVALID_HANDLE, || Ok(handle::get(error)?.status))
}

/// The text of an error: one line, lower case, for people.
///
/// Ownership: the view belongs to `error` and is valid until inhouse_error_free().
/// Threads: any, also at the same time.
/// Errors: none; a stale handle gives a view with `data` NULL.
/// Null: `error` may be NULL (no error): a view with `data` NULL.
#[unsafe(no_mangle)]
pub extern "C" fn inhouse_error_message(error: *const inhouse_error) -> inhouse_str {
    read(inhouse_str::ABSENT, || Ok(handle::get(error)?.message.view()))
}

/// Frees an error and its text.
///
/// Ownership: takes `error` back; views of its text end.
/// Threads: any; not while another thread still reads its text.
/// Errors: INHOUSE_STATUS_INVALID_HANDLE where it was freed already.
/// Null: `error` may be NULL: nothing happens.
#[unsafe(no_mangle)]
pub extern "C" fn inhouse_error_free(error: *mut inhouse_error) -> inhouse_status {
    act(|| handle::release(error))
}
