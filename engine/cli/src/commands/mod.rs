//! One file per subcommand.

pub mod complete;
mod cursor;
pub mod docs;
mod encoder;
pub mod eval;
pub mod generate;
pub mod index;
mod installed;
mod number;
pub mod privatize;
pub mod retrieve;
mod source;
pub mod study;
#[cfg(feature = "candle")]
pub mod train;
#[cfg(not(feature = "candle"))]
#[path = "train_disabled.rs"]
pub mod train;
mod usage;
mod verified;

use anyhow::{Context, Result};
use inhouse::CancelToken;

/// A token that Ctrl-C (or a termination request) cancels. A second one ends the program at once, as if nothing caught it.
fn on_interrupt() -> Result<CancelToken> {
    let cancel = CancelToken::new();
    let token = cancel.clone();
    ctrlc::set_handler(move || {
        if token.is_cancelled() {
            #[allow(clippy::exit, reason = "the user asked twice; nothing half-written is left by it")]
            std::process::exit(130);
        }
        token.cancel();
    })
    .context("cannot watch for Ctrl-C")?;
    Ok(cancel)
}
