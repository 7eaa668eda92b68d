//! What `--encoder` stands for.

use std::convert::Infallible;

use inhouse::EncoderChoice;

/// `none`, or a path.
#[allow(clippy::unnecessary_wraps, reason = "clap wants a result")]
pub fn parse(text: &str) -> Result<EncoderChoice, Infallible> {
    Ok(if text == "none" { EncoderChoice::None } else { EncoderChoice::At(text.into()) })
}
