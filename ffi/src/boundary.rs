//! The border: every exported function runs inside one of the functions below, so that no panic crosses into C and
//! results are written in one order.
//!
//! Nothing is written through a host's pointer before all of its arguments have been read and copied: overlapping
//! arguments are the host's mistake, but not a way to change a string under a borrow.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use crate::error::{ErrorObject, inhouse_error};
use crate::handle::{self, Handle};
use crate::status::{Failure, inhouse_status};

#[cfg(panic = "abort")]
compile_error!("libinhouse must be built with panic = \"unwind\": a panic would take the host process down");

/// Runs a body, turning a panic into a [`Failure`].
///
/// `AssertUnwindSafe`: what a body shares with later calls is either immutable behind an `Arc`, a table that tolerates
/// unwinding ([`crate::handle`]), or a session, whose mutex is poisoned by the panic and refuses later calls.
pub(crate) fn guard<T>(body: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|payload| {
        let message = describe(payload.as_ref());
        // An unknown payload is leaked: its destructor is foreign code that could panic again, outside the guard.
        if !(payload.is::<String>() || payload.is::<&'static str>()) {
            std::mem::forget(payload);
        }
        Err(Failure::new(
            inhouse_status::INHOUSE_STATUS_PANIC,
            format!("caught a panic (a bug in libinhouse): {message}"),
        ))
    })
}

fn describe(payload: &(dyn Any + Send)) -> String {
    let text = payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| payload.downcast_ref::<&'static str>().copied())
        .unwrap_or("no message");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether an out-parameter may be NULL.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Out {
    Required,
    Optional,
}

/// An entry point that makes an object: on success `*out` is its handle and `*error` NULL, on failure `*out` is NULL
/// and `*error` says why. Where `out` is NULL and may be, the object is dropped.
///
/// # Safety
/// `out` and `error`, where not null and aligned, can be written.
pub(crate) unsafe fn create<H: Handle>(
    out: *mut *mut H,
    null: Out,
    error: *mut *mut inhouse_error,
    body: impl FnOnce() -> Result<H::Object, Failure>,
) -> inhouse_status {
    let made = guard(|| {
        check_out(out, "out", null)?;
        check_out(error, "error", Out::Optional)?;
        let object = body()?;
        if out.is_null() { Ok(ptr::null_mut()) } else { handle::insert::<H>(object) }
    });
    match made {
        Ok(handle) => {
            // SAFETY: the caller's promise. `out` last: where both are the same place, the object is not lost.
            unsafe {
                put(error, ptr::null_mut());
                put(out, handle);
            }
            inhouse_status::INHOUSE_STATUS_OK
        }
        Err(failure) => {
            // SAFETY: the caller's promise.
            unsafe {
                put(out, ptr::null_mut());
                report(failure, error)
            }
        }
    }
}

/// An entry point that makes nothing, but says why it fails: on success `*error` is NULL.
///
/// # Safety
/// `error`, where not null and aligned, can be written.
pub(crate) unsafe fn attempt(
    error: *mut *mut inhouse_error,
    body: impl FnOnce() -> Result<(), Failure>,
) -> inhouse_status {
    let done = guard(|| {
        check_out(error, "error", Out::Optional)?;
        body()
    });
    // SAFETY: the caller's promise, for both.
    unsafe {
        match done {
            Ok(()) => {
                put(error, ptr::null_mut());
                inhouse_status::INHOUSE_STATUS_OK
            }
            Err(failure) => report(failure, error),
        }
    }
}

/// An entry point that makes nothing.
pub(crate) fn act(body: impl FnOnce() -> Result<(), Failure>) -> inhouse_status {
    guard(body).map_or_else(|failure| failure.status, |()| inhouse_status::INHOUSE_STATUS_OK)
}

/// A getter: misuse gives `neutral`.
pub(crate) fn read<T>(neutral: T, body: impl FnOnce() -> Result<T, Failure>) -> T {
    guard(body).unwrap_or(neutral)
}

fn check_out<T>(out: *mut T, name: &str, null: Out) -> Result<(), Failure> {
    if out.is_null() && null == Out::Required {
        return Err(Failure::invalid(format!("`{name}` is NULL")));
    }
    check_aligned(out, name)
}

/// Refuses a misaligned pointer.
pub(crate) fn check_aligned<T>(pointer: *const T, name: &str) -> Result<(), Failure> {
    if pointer.is_aligned() {
        return Ok(());
    }
    Err(Failure::invalid(format!("`{name}` {pointer:p} is not aligned to {} bytes", align_of::<T>())))
}

/// # Safety
/// `error`, where not null and aligned, can be written.
unsafe fn report(failure: Failure, error: *mut *mut inhouse_error) -> inhouse_status {
    let status = failure.status;
    if !error.is_null() {
        let object = guard(|| handle::insert::<inhouse_error>(ErrorObject::new(failure)));
        // SAFETY: the caller's promise.
        unsafe { put(error, object.unwrap_or(ptr::null_mut())) };
    }
    status
}

/// # Safety
/// `place`, where not null and aligned, can be written.
pub(crate) unsafe fn put<T>(place: *mut T, value: T) {
    if !place.is_null() && place.is_aligned() {
        // SAFETY: not null, aligned, and the caller promises that it can be written.
        unsafe { place.write(value) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::inhouse_status::*;
    use crate::strings::{Text, inhouse_text, inhouse_text_free};

    fn silent<T>(body: impl FnOnce() -> T) -> T {
        // The default hook would print the panics that these tests cause on purpose.
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let result = body();
        std::panic::set_hook(hook);
        result
    }

    #[test]
    fn panics_become_statuses() {
        silent(|| {
            let failure = guard::<()>(|| panic!("two\nlines {}", 1)).err().map(|failure| failure.message);
            assert!(failure.is_some_and(|message| message.ends_with("two lines 1")));
            assert_eq!(act(|| panic!("static")), INHOUSE_STATUS_PANIC);
            assert_eq!(act(|| std::panic::panic_any(7)), INHOUSE_STATUS_PANIC);
            assert_eq!(read(5, || panic!("getter")), 5);
            let mut error = ptr::null_mut();
            let mut out: *mut inhouse_text = ptr::dangling_mut();
            // SAFETY: both out-parameters are locals.
            let status = unsafe { create(&mut out, Out::Required, &mut error, || panic!("made nothing")) };
            assert_eq!(status, INHOUSE_STATUS_PANIC);
            assert!(out.is_null() && !error.is_null());
            assert_eq!(crate::error::inhouse_error_free(error), INHOUSE_STATUS_OK);
        });
    }

    #[test]
    fn out_parameters_are_checked() {
        let body = || Ok(Text::from("x"));
        let mut out: *mut inhouse_text = ptr::null_mut();
        let misaligned = (&raw mut out).wrapping_byte_add(1);
        let null = ptr::null_mut();
        // SAFETY: the pointers are null, misaligned (and then not written) or locals.
        unsafe {
            assert_eq!(
                create::<inhouse_text>(null, Out::Required, ptr::null_mut(), body),
                INHOUSE_STATUS_INVALID_ARGUMENT
            );
            assert_eq!(
                create(misaligned, Out::Required, ptr::null_mut(), body),
                INHOUSE_STATUS_INVALID_ARGUMENT
            );
            assert_eq!(
                create(&mut out, Out::Required, misaligned.cast(), body),
                INHOUSE_STATUS_INVALID_ARGUMENT
            );
            assert!(out.is_null());
            assert_eq!(create::<inhouse_text>(null, Out::Optional, ptr::null_mut(), body), INHOUSE_STATUS_OK);
            // One place for both: the object wins.
            let both = &raw mut out;
            assert_eq!(create(both, Out::Required, both.cast(), body), INHOUSE_STATUS_OK);
        }
        assert_eq!(inhouse_text_free(out), INHOUSE_STATUS_OK);
    }
}
