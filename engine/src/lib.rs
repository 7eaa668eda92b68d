//! `inhouse`: the embedded engine. [`Engine`] holds an index and a model; a [`Session`] completes code with them.
//!
//! This crate is the facade that the C ABI and the command line share, and the one place where backends are chosen
//! (features `llama` and `candle`; with neither, everything but generation works).
//!
//! ```no_run
//! use inhouse::{ApiChoice, CompletionRequest, Engine, EngineOptions};
//!
//! let engine = Engine::open(&EngineOptions {
//!     index: Some("docs.index".into()),
//!     model: Some("model.gguf".into()),
//!     ..EngineOptions::default()
//! })?;
//! let mut session = engine.session(1)?;
//! let request = CompletionRequest { apis: ApiChoice::Top(2), ..CompletionRequest::new("# read the ledger\nledger =") };
//! let result = session.complete(&request, &inhouse::CancelToken::new(), &mut |_| std::ops::ControlFlow::Continue(()))?;
//! println!("{}", result.completions[0].text);
//! # Ok::<(), inhouse::Error>(())
//! ```
#![forbid(unsafe_code)]

mod asked;
mod backend;
mod encoder;
mod engine;
mod prefix_file;
mod rank;
mod refine;
mod session;
mod shipped;
mod stream;
mod worker;

pub use asked::Chat;
pub use backend::{Backend, available_backends};
pub use encoder::{
    EncoderChoice, encoder_for_update, index_encoder, load_encoder, load_encoder_on, open_index,
};
pub use engine::{Engine, EngineOptions, MAX_THREADS};
pub use inhouse_core::constrain::{ApiReport, ConstraintStatistics};
pub use inhouse_core::decode::{
    CancelToken, Completion, Conventions, Event, FinishReason, ModelInfo, SamplingParams, StopRules,
};
pub use inhouse_core::encode::{EncoderInfo, Role, TextEncoder, Vectors};
pub use inhouse_core::index::{Explanation, Hit, Index, IndexInfo, Query};
pub use inhouse_core::lora::LoraChoice;
pub use inhouse_core::prompt::{query_from_context, query_from_draft};
pub use inhouse_core::{ApiDoc, Error, ErrorKind, Progress, Result, api, docs, index, progress};
pub use inhouse_remote::WorkerProgram;
pub use rank::Ranked;
pub use session::{ApiChoice, CompletionRequest, CompletionResult, Session, SessionStatistics};
pub use shipped::{shipped_coder, shipped_retriever};
pub use stream::CompletionClient;
pub use worker::serve_worker;
