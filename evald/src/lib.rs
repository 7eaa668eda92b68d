//! `evald`: runs generated Python in a sandbox and says how it ended. It knows nothing of the engine.
//!
//! The same source is built twice: into the `evald` command, and into `libevald.so`, which the warm interpreters load.
//!
//! ```text
//! evald (daemon; parses nothing untrusted)
//!  └ frame: namespaces and a read-only root, once per environment          frame, mounts, interpreter
//!     └ master zygote: CPython with the libraries imported (libevald.so)   zygote, python
//!        └ slot zygote, one per core                                       zygote, supervise
//!           └ sample: one fork in namespaces of its own                    sample, limits, landlock, seccomp, record
//!              └ a candidate, a test, or both                             judging, testing
//! ```
//!
//! In T4 the master is a machine with CPython as WebAssembly in it ([`wasi`]); everything else is the same.
//!
//! The daemon's half: [`server`] (connections) -> [`scheduler`] (fair queues) -> [`sandbox`] (one job in, one verdict
//! out) -> [`slot`] and [`environment`] (zygotes) -> [`cgroup`] (T0, T1). [`check`] looks at the host ([`delegation`]) and
//! chooses the [`tier`].

// Each module that calls what the compiler cannot check is named here.
#![deny(unsafe_code)]

pub mod activation;
#[allow(unsafe_code, reason = "seccomp_unotify(2)")]
mod broker;
pub mod budget;
pub mod cgroup;
pub mod check;
pub mod connections;
pub mod cpython;
pub mod delegation;
pub mod environment;
pub mod error;
mod family;
pub mod frame;
#[allow(unsafe_code, reason = "a process that shares our memory")]
mod init;
pub mod interpreter;
mod judging;
#[allow(unsafe_code, reason = "landlock_create_ruleset(2) is asked for its version")]
pub mod landlock;
pub mod limits;
pub mod message;
pub mod metrics;
pub mod mounts;
#[allow(unsafe_code, reason = "one ioctl(2)")]
mod network;
mod pair;
mod permits;
pub mod program;
#[allow(unsafe_code, reason = "CPython's C API")]
pub mod python;
pub mod record;
#[allow(unsafe_code, reason = "the record is one write(2) to a plain descriptor")]
mod sample;
pub mod sandbox;
pub mod scheduler;
pub mod scratch;
#[allow(unsafe_code, reason = "seccomp(2) with a listener")]
pub mod seccomp;
pub mod server;
#[allow(unsafe_code, reason = "functions of the C library")]
pub mod shim;
pub mod slot;
mod supervise;
#[allow(unsafe_code, reason = "system calls")]
pub mod sys;
pub mod testing;
pub mod tier;
pub mod tree;
pub mod wasi;
pub mod wire_line;
#[allow(unsafe_code, reason = "called by CPython, on descriptors it was started with")]
pub mod zygote;

/// Marks the command and the library of one build, so that one never loads the other's leftovers.
pub const BUILD: &str = concat!("evald-build:", env!("EVALD_BUILD"));

/// The mark as bytes of the library: exported, or the linker would leave it out.
#[allow(unsafe_code, reason = "a fixed symbol name, which nothing else in the library has")]
#[unsafe(no_mangle)]
pub static EVALD_BUILD_MARK: [u8; BUILD.len()] = {
    let mut bytes = [0; BUILD.len()];
    let mut index = 0;
    while index < bytes.len() {
        bytes[index] = BUILD.as_bytes()[index];
        index += 1;
    }
    bytes
};
