//! Status codes, and [`Failure`]: a status with its one line of text on the way to the host.

use std::ffi::c_char;

use inhouse::{Error, ErrorKind};

/// What a call came to. A number is never changed or used again; hosts must expect numbers that they do not know.
///
/// 1 to 99 are faults of the engine or of what it was given; from 100 on are faults at the border between host and
/// library.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum inhouse_status {
    /// Done.
    INHOUSE_STATUS_OK = 0,
    /// An argument is out of range, empty, null, misaligned, not UTF-8, or contradicts another.
    INHOUSE_STATUS_INVALID_ARGUMENT = 1,
    /// A file or an item does not exist.
    INHOUSE_STATUS_NOT_FOUND = 2,
    /// The operating system refused to read or write.
    INHOUSE_STATUS_IO = 3,
    /// A file's content is not what its format says: truncated, corrupted, wrong encoding, bad value.
    INHOUSE_STATUS_INVALID_DATA = 4,
    /// A file is of a format version that this build does not read.
    INHOUSE_STATUS_UNSUPPORTED_VERSION = 5,
    /// The model, backend or feature is not part of this build, or cannot do what was asked.
    INHOUSE_STATUS_UNSUPPORTED = 6,
    /// Something exceeds a limit: a file's size, a text's length, the context length.
    INHOUSE_STATUS_LIMIT_EXCEEDED = 7,
    /// The host cancelled before there was anything to return.
    INHOUSE_STATUS_CANCELLED = 8,
    /// The deadline passed before there was anything to return.
    INHOUSE_STATUS_DEADLINE_EXCEEDED = 9,
    /// A model backend failed.
    INHOUSE_STATUS_BACKEND = 10,
    /// The sandbox daemon failed or refused.
    INHOUSE_STATUS_SANDBOX = 11,
    /// Another call, thread or process is using the object.
    INHOUSE_STATUS_BUSY = 12,
    /// An invariant of the library broke: a bug.
    INHOUSE_STATUS_INTERNAL = 13,
    /// A handle is of another type, was already freed, or never came from this library.
    INHOUSE_STATUS_INVALID_HANDLE = 100,
    /// The library panicked and the panic was caught at the border: a bug. Other objects stay usable.
    INHOUSE_STATUS_PANIC = 101,
    /// The session failed in an earlier call (a panic or a broken backend) and can only be closed.
    INHOUSE_STATUS_POISONED = 102,
}

use inhouse_status::*;

impl From<ErrorKind> for inhouse_status {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::InvalidArgument => INHOUSE_STATUS_INVALID_ARGUMENT,
            ErrorKind::NotFound => INHOUSE_STATUS_NOT_FOUND,
            ErrorKind::Io => INHOUSE_STATUS_IO,
            ErrorKind::InvalidData => INHOUSE_STATUS_INVALID_DATA,
            ErrorKind::UnsupportedVersion => INHOUSE_STATUS_UNSUPPORTED_VERSION,
            ErrorKind::Unsupported => INHOUSE_STATUS_UNSUPPORTED,
            ErrorKind::LimitExceeded => INHOUSE_STATUS_LIMIT_EXCEEDED,
            ErrorKind::Cancelled => INHOUSE_STATUS_CANCELLED,
            ErrorKind::DeadlineExceeded => INHOUSE_STATUS_DEADLINE_EXCEEDED,
            ErrorKind::Backend => INHOUSE_STATUS_BACKEND,
            ErrorKind::Sandbox => INHOUSE_STATUS_SANDBOX,
            ErrorKind::Busy => INHOUSE_STATUS_BUSY,
            // `ErrorKind` may grow; a kind without a status of its own is reported as the library's fault, not lost.
            _ => INHOUSE_STATUS_INTERNAL,
        }
    }
}

/// The name of a status, for logs: "INHOUSE_STATUS_NOT_FOUND". A number that is no status of this library gives
/// "INHOUSE_STATUS_UNKNOWN".
///
/// Ownership: the text is static and ends in a NUL byte; it is never freed.
/// Threads: any.
/// Errors: none.
/// Null: never returns NULL.
#[unsafe(no_mangle)]
pub extern "C" fn inhouse_status_name(status: i32) -> *const c_char {
    let name = match status {
        0 => c"INHOUSE_STATUS_OK",
        1 => c"INHOUSE_STATUS_INVALID_ARGUMENT",
        2 => c"INHOUSE_STATUS_NOT_FOUND",
        3 => c"INHOUSE_STATUS_IO",
        4 => c"INHOUSE_STATUS_INVALID_DATA",
        5 => c"INHOUSE_STATUS_UNSUPPORTED_VERSION",
        6 => c"INHOUSE_STATUS_UNSUPPORTED",
        7 => c"INHOUSE_STATUS_LIMIT_EXCEEDED",
        8 => c"INHOUSE_STATUS_CANCELLED",
        9 => c"INHOUSE_STATUS_DEADLINE_EXCEEDED",
        10 => c"INHOUSE_STATUS_BACKEND",
        11 => c"INHOUSE_STATUS_SANDBOX",
        12 => c"INHOUSE_STATUS_BUSY",
        13 => c"INHOUSE_STATUS_INTERNAL",
        100 => c"INHOUSE_STATUS_INVALID_HANDLE",
        101 => c"INHOUSE_STATUS_PANIC",
        102 => c"INHOUSE_STATUS_POISONED",
        _ => c"INHOUSE_STATUS_UNKNOWN",
    };
    name.as_ptr()
}

/// Why a call failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: inhouse_status,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(status: inhouse_status, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(INHOUSE_STATUS_INVALID_ARGUMENT, message)
    }

    pub(crate) fn limit(message: impl Into<String>) -> Self {
        Self::new(INHOUSE_STATUS_LIMIT_EXCEEDED, message)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::new(error.kind().into(), error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;

    #[test]
    fn engine_kinds_keep_their_numbers() {
        use ErrorKind::*;
        let kinds = [
            InvalidArgument,
            NotFound,
            Io,
            InvalidData,
            UnsupportedVersion,
            Unsupported,
            LimitExceeded,
            Cancelled,
            DeadlineExceeded,
            Backend,
            Sandbox,
            Busy,
            Internal,
        ];
        for (at, kind) in kinds.into_iter().enumerate() {
            assert_eq!(kind as i32, at as i32 + 1);
            assert_eq!(inhouse_status::from(kind) as i32, kind as i32, "{kind:?}");
        }
    }

    #[test]
    fn every_status_has_its_name() {
        let all = [
            INHOUSE_STATUS_OK,
            INHOUSE_STATUS_INVALID_ARGUMENT,
            INHOUSE_STATUS_NOT_FOUND,
            INHOUSE_STATUS_IO,
            INHOUSE_STATUS_INVALID_DATA,
            INHOUSE_STATUS_UNSUPPORTED_VERSION,
            INHOUSE_STATUS_UNSUPPORTED,
            INHOUSE_STATUS_LIMIT_EXCEEDED,
            INHOUSE_STATUS_CANCELLED,
            INHOUSE_STATUS_DEADLINE_EXCEEDED,
            INHOUSE_STATUS_BACKEND,
            INHOUSE_STATUS_SANDBOX,
            INHOUSE_STATUS_BUSY,
            INHOUSE_STATUS_INTERNAL,
            INHOUSE_STATUS_INVALID_HANDLE,
            INHOUSE_STATUS_PANIC,
            INHOUSE_STATUS_POISONED,
        ];
        let name = |number| {
            // SAFETY: the function returns static NUL-terminated text.
            unsafe { CStr::from_ptr(inhouse_status_name(number)) }.to_str().unwrap()
        };
        for status in all {
            assert_eq!(name(status as i32), format!("{status:?}"));
        }
        for number in [-1, 14, 99, 103, i32::MIN, i32::MAX] {
            assert_eq!(name(number), "INHOUSE_STATUS_UNKNOWN");
        }
    }
}
