//! The cross-crate tests, in one binary.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests, where a panic is the report

mod asking;
mod benchmarks;
mod cli;
mod constrained;
mod daemon;
mod encoders;
mod ffi;
mod generate;
mod gguf;
mod introspect;
mod journal;
mod naming;
mod parity;
mod prefixes;
mod privatize;
mod rows;
mod streams;
mod study;
mod trained;
mod worker;
