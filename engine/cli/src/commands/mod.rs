//! One file per subcommand.

pub mod complete;
pub mod docs;
pub mod eval;
pub mod generate;
pub mod index;
pub mod retrieve;
mod source;
