//! `libinhouse`: the engine behind a C ABI.
//!
//! The contract is `include/inhouse.h`, which cbindgen makes from the doc comments of this crate: they are written for
//! the reader of the header, and `cargo test -p inhouse-ffi --test header` fails when the two drift apart
//! (`INHOUSE_WRITE_HEADER=1` writes the header anew).
//!
//! How the parts keep the promise that no argument takes the host down:
//! - `handle`: a handle is a number in a table, not an address, so a stale or made-up one is told, not followed;
//! - `boundary`: every entry point runs inside `catch_unwind`, and writes its results last;
//! - `strings`, `params`: views and structs are checked (null, alignment, length, UTF-8, `struct_size`) and copied;
//! - `session`: a mutex makes a second call at a time BUSY and a panic POISONED;
//! - `status`, `error`: numbered statuses, and an error object instead of thread-local state.
//!
//! What no library can check stays the host's promise, and is the safety contract of every `unsafe` function here: a
//! non-null, aligned pointer points to what its type says, for the length that goes with it, during the call.
//!
//! # Names of the files
//! The crate's library is called `inhouse_ffi`, because a library called `inhouse` would collide in the target folder
//! with the Rust crate `inhouse`. Cargo makes `libinhouse_ffi.so` and `libinhouse_ffi.a`; the shared one carries the
//! SONAME `libinhouse.so.0` (build.rs), and whoever installs it renames both to `libinhouse.so.0` (with the link
//! `libinhouse.so`) and `libinhouse.a`. Only `inhouse_*` symbols are exported: rustc's version script for a cdylib hides
//! everything else, linked C and C++ code included.
// The names are C's, and the header states the contract of every function in C's words instead of a `# Safety` section.
#![allow(non_camel_case_types, clippy::missing_safety_doc, clippy::enum_variant_names)]

mod apis;
mod boundary;
mod cancel;
mod completion;
mod encoder;
mod engine;
mod error;
mod evaluate;
mod event;
mod handle;
mod index;
mod log;
mod params;
mod progress;
mod request;
mod session;
mod status;
mod strings;
mod version;

pub use apis::*;
pub use cancel::*;
pub use completion::*;
pub use encoder::*;
pub use engine::*;
pub use error::*;
pub use evaluate::*;
pub use event::*;
pub use index::*;
pub use log::*;
pub use progress::*;
pub use request::*;
pub use session::*;
pub use status::*;
pub use strings::*;
pub use version::*;
