//! Source packages as a stream of files, each with its blocks: what every training set is made from.
//!
//! A package is a wheel. Its Python files are read within bounds, parsed by the real grammar, and split into blocks:
//! functions with their docstrings, and groups of statements under a comment.

mod blocks;
pub mod coder;
mod wheel;

pub use blocks::{Block, BlockKind, blocks};
pub use wheel::{SourceFile, read_folder, read_wheel};
