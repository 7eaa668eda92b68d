//! Writing to stdout as a well-behaved Unix tool.

use std::io::Write;

use anyhow::Result;

/// Prints one line; a closed pipe becomes an error that [`is_closed_pipe`] knows.
pub fn line(text: impl std::fmt::Display) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")?;
    Ok(())
}

/// Prints one JSON value as one line.
pub fn json(value: &impl serde::Serialize) -> Result<()> {
    line(serde_json::to_string(value)?)
}

/// Whether the work ended because nobody reads stdout any more.
pub fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
    })
}
