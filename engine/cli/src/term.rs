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

/// The error and its causes in one line. A cause that the text before it already ends with is not said again.
pub fn message(error: &anyhow::Error) -> String {
    let mut message = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if message.is_empty() {
            message = cause;
        } else if !message.contains(&cause) {
            message.push_str(": ");
            message.push_str(&cause);
        }
    }
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_said_once() {
        let io = std::io::Error::other("no such thing");
        let engine = inhouse_core::Error::io("open", std::path::Path::new("x"), io);
        assert_eq!(message(&engine.into()), "cannot open x: no such thing");
        let context = anyhow::Error::from(std::io::Error::other("no\nterminal")).context("cannot ask");
        assert_eq!(message(&context), "cannot ask: no terminal");
    }
}
