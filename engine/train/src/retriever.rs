//! The retriever's trainer: a dual encoder that puts a query near the APIs that answer it (arXiv 2210.17236, section 3.1).
//!
//! Reading order: `config` (the TOML file) -> `examples` (pairs, pools and hard negatives) -> `batch` (what one step sees) ->
//! `distil` (an encoder without layers to begin with) -> `loss` (cross-entropy over all APIs of a batch, and its gradient) -> `step` (gradient caching) -> `run` (the loop) ;
//! `evaluation` (recall on held-out libraries and on pools).

mod batch;
mod config;
mod distil;
mod evaluation;
mod examples;
mod loss;
mod run;
mod step;
#[cfg(test)]
mod tests;

pub use config::{Config, DataConfig, EvaluationConfig, ModelConfig, PoolConfig, TrainingConfig};
pub use evaluation::Recall;
pub use run::{Outcome, Report, StepReport, run};
