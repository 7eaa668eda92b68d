//! One error type for the engine's libraries, with kinds that map 1:1 to the C status codes.

use std::path::{Path, PathBuf};

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, as a stable number: the C ABI hands these out, so a value is never renumbered or reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i32)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An argument is out of range, empty or contradicts another.
    InvalidArgument = 1,
    /// A file or an item does not exist.
    NotFound = 2,
    /// The operating system refused to read or write.
    Io = 3,
    /// A file's content is not what its format says: truncated, corrupted, wrong encoding, bad value.
    InvalidData = 4,
    /// A file is of a format version that this build does not read.
    UnsupportedVersion = 5,
    /// The model, backend or feature is not part of this build, or cannot do what was asked.
    Unsupported = 6,
    /// Something exceeds a limit: a file's size, the context length, a token budget.
    LimitExceeded = 7,
    /// The caller cancelled.
    Cancelled = 8,
    /// A deadline passed.
    DeadlineExceeded = 9,
    /// A model backend failed.
    Backend = 10,
    /// The sandbox daemon failed or refused.
    Sandbox = 11,
    /// Another process or session holds the resource.
    Busy = 12,
    /// An invariant of this program broke: a bug.
    Internal = 13,
}

impl ErrorKind {
    /// The kind of that number, where this build knows it.
    pub fn from_number(number: i32) -> Option<Self> {
        Some(match number {
            1 => Self::InvalidArgument,
            2 => Self::NotFound,
            3 => Self::Io,
            4 => Self::InvalidData,
            5 => Self::UnsupportedVersion,
            6 => Self::Unsupported,
            7 => Self::LimitExceeded,
            8 => Self::Cancelled,
            9 => Self::DeadlineExceeded,
            10 => Self::Backend,
            11 => Self::Sandbox,
            12 => Self::Busy,
            13 => Self::Internal,
            _ => return None,
        })
    }
}

/// An error of the engine: a [kind](ErrorKind) for programs and one lower-case line for people.
///
/// The line names the file, the position, the value and, where there is one, the mend.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: ErrorKind,
    message: String,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind` with one line of text.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// The same with the error that caused it (kept as `source`; the text should already say what matters).
    pub fn with_source(
        kind: ErrorKind,
        message: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { kind, message: message.into(), source: Some(source.into()) }
    }

    /// A failed file operation: `cannot {what} {path}: {cause}`.
    pub fn io(what: &str, path: &Path, cause: std::io::Error) -> Self {
        let kind = match cause.kind() {
            std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof => ErrorKind::InvalidData,
            _ => ErrorKind::Io,
        };
        Self::with_source(kind, format!("cannot {what} {}: {cause}", path.display()), cause)
    }

    /// A file whose content is not what it should be: `{path}: {what}`.
    pub fn data(path: &Path, what: impl std::fmt::Display) -> Self {
        Self::new(ErrorKind::InvalidData, format!("{}: {what}", path.display()))
    }

    /// The same with a 1-based line number: `{path}:{line}: {what}`.
    pub fn data_at(path: &Path, line: usize, what: impl std::fmt::Display) -> Self {
        Self::new(ErrorKind::InvalidData, format!("{}:{line}: {what}", path.display()))
    }

    /// What went wrong, as a stable number.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

/// A path for messages: standard input is shown as `<stdin>`.
pub fn display_path(path: &Path) -> String {
    if path == Path::new("-") { "<stdin>".into() } else { PathBuf::from(path).display().to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_found_by_its_number() {
        let kinds: Vec<ErrorKind> = (-1..200).filter_map(ErrorKind::from_number).collect();
        assert_eq!(kinds.len(), ErrorKind::Internal as usize);
        assert!(kinds.iter().all(|kind| ErrorKind::from_number(*kind as i32) == Some(*kind)));
    }
}
