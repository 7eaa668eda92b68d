//! The coder's corpus: packages in, rows of tokens out (Section 4.2 and Appendix B of arXiv 2210.17236, and what small models need).
//!
//! Reading order: [`config`] (what is asked for) -> `blocks` (code and the APIs it calls), `examples` (the same of docstrings), `dedup`
//! (what repeats) and `library` (the APIs that tasks are made of) -> `code` (blocks and examples below API lines, renamed twins) and
//! `tasks` (documentation to calls; `names`, `parameters`, `values`, `wording` are their words) -> `document` and `tokenizer` (text to
//! weighted tokens) -> `source` (documents of a part, one by one), `held_out` (evaluation) and `rows` (packing, files) -> `build` (the
//! pipeline, restartable), `report` and `card` (what a corpus says of itself).

mod blocks;
mod build;
mod card;
mod code;
mod config;
mod dedup;
mod document;
mod examples;
mod held_out;
mod library;
mod names;
mod parameters;
mod report;
mod rows;
mod source;
mod tasks;
#[cfg(test)]
mod tests;
mod tokenizer;
mod values;
mod wording;

pub use build::build;
pub use config::{DataConfig, PartConfig, Resampling, Resolution};
pub use report::{Evaluation, Manifest, Overlap, PartStatistics, Statistics, TaskRow};
pub use rows::Shard;
pub use tokenizer::END;
