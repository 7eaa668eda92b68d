//! One file per subcommand.

pub mod complete;
pub mod docs;
pub mod eval;
pub mod generate;
pub mod index;
pub mod retrieve;
mod source;

use anyhow::{Context, Result};
use inhouse::CancelToken;

/// A token that Ctrl-C (or a termination request) cancels.
fn on_interrupt() -> Result<CancelToken> {
    let cancel = CancelToken::new();
    let token = cancel.clone();
    ctrlc::set_handler(move || token.cancel()).context("cannot watch for Ctrl-C")?;
    Ok(cancel)
}
