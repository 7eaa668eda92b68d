//! The cross-crate tests, in one binary.

mod benchmarks;
mod cli;
mod ffi;
mod generate;
mod introspect;
mod gguf;
mod journal;
mod naming;
mod parity;
