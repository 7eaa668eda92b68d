//! A model in a process of its own, so that whatever ends that process (an assertion in C++, a signal, the kernel for want
//! of memory) reaches the host as an error.
//!
//! The host's side is a [`Model`](inhouse_core::decode::Model) like any other: [`Worker`] starts the program and gives it
//! out, and the decode loop, sampling, constraints and callbacks stay in the host. The other side is [`serve`], which the
//! program `inhouse-worker` calls with the backends.
//!
//! ```text
//! host                                             worker
//! Worker (start, restart)    process, search       setup: descriptors, end with the host
//!  └ RemoteModel, decoder    model, decoder         └ serve: one thread leads, reads, and hands the lead on
//!     └ Connection           connection                └ Model, Decoder of a backend
//!          frames over a Unix socket pair: hello, message, frame, vocabulary
//! ```
//!
//! Both sides take the other's bytes for hostile: every length is bounded, nothing is allocated before its bytes have come,
//! and what does not follow the protocol ends the connection with an error.
#![forbid(unsafe_code)]

mod connection;
mod decoder;
mod frame;
mod hello;
mod message;
mod model;
mod process;
mod search;
mod serve;
mod setup;
mod vocabulary;

#[cfg(test)]
mod tests;

pub use message::Load;
pub use model::{Worker, WorkerProgram};
pub use serve::serve;
pub use setup::channel;
