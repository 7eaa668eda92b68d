//! The coder's trainer: continual pre-training of a language model on code with API information in front (the paper's CodeGenAPI,
//! section 4), a low-rank adapter of one, or a small model from nothing.
//!
//! Reading order: `config` (the TOML file) -> `corpus` (rows of a prepared corpus, drawn by the step's number) -> `start` (a new
//! model's weights) and `circuit` (a start in which copying half works) -> `adapter` (what is written of an adapter) -> `scale` (loss scaling in half precision) -> `run` (the
//! loop) ; `evaluation` (perplexity, and calls on held-out libraries), `curve` (the loss as CSV and SVG).

mod adapter;
mod circuit;
mod config;
mod corpus;
mod curve;
mod evaluation;
mod run;
mod scale;
mod start;
#[cfg(test)]
mod tests;

pub use config::{
    Config, EvaluationConfig, LoraConfig, ModelConfig, NewModel, Phase, Precision, TrainingConfig,
};
pub use evaluation::{Measured, TaskScore};
pub use run::{Outcome, Report, StepReport, run};
