//! What is spoken with `evald`: JSON lines over a Unix socket, and the blocking client.
//!
//! One request a line, one reply a line; replies to `run` carry the job's `id` and come in any order.
//! This crate is the only evald code that other crates link; it knows nothing of the engine.

#![forbid(unsafe_code)]

mod client;
mod environment;
mod limits;
mod wire;

pub use client::{Client, ClientError, Info, SpawnOptions};
pub use environment::{EnvSpec, NamedEnv, is_identifier};
pub use limits::Limits;
pub use wire::*;
