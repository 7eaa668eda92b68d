//! Versions, for hosts that load the library at run time.

use std::ffi::{CStr, CString, c_char};
use std::sync::OnceLock;

/// Version of the ABI that this header describes. It grows when functions or fields are added; a change that breaks
/// hosts changes the SONAME (libinhouse.so.0) instead.
pub const INHOUSE_ABI_VERSION: u32 = 3;

/// The library's version.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Version of the ABI that the loaded library has. A host that was built against INHOUSE_ABI_VERSION runs with every
/// library of the same SONAME that returns at least that.
///
/// Ownership: nothing changes hands.
/// Threads: any.
/// Errors: none.
/// Null: takes no pointer.
#[unsafe(no_mangle)]
pub extern "C" fn inhouse_abi_version() -> u32 {
    INHOUSE_ABI_VERSION
}

/// The library's version, such as "0.1.0".
///
/// Ownership: the text is static and ends in a NUL byte; it is never freed.
/// Threads: any.
/// Errors: none.
/// Null: never returns NULL.
#[unsafe(no_mangle)]
pub extern "C" fn inhouse_version() -> *const c_char {
    const TEXT: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(text) => text,
        Err(_) => c"",
    };
    TEXT.as_ptr()
}

/// Names of the backends in this build, separated by commas: "llama.cpp,candle"; empty where there is none.
///
/// Ownership: the text is static and ends in a NUL byte; it is never freed.
/// Threads: any.
/// Errors: none.
/// Null: never returns NULL.
#[unsafe(no_mangle)]
pub extern "C" fn inhouse_backends() -> *const c_char {
    // Asked of the engine: another crate of the same build may have switched a backend on there.
    static BACKENDS: OnceLock<CString> = OnceLock::new();
    let join = || CString::new(inhouse::available_backends().join(",")).unwrap_or_default();
    BACKENDS.get_or_init(join).as_ptr()
}
