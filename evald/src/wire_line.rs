//! Lines off the wire, bounded: one line's length, and what all connections together may hold of unfinished lines.

use std::io::{self, BufRead};
use std::sync::atomic::{AtomicUsize, Ordering};

use evald_proto::MAX_LINE_BYTES;

/// What all connections may hold of unfinished lines; ordinary lines are far shorter.
const MAX_UNFINISHED_BYTES: usize = 16 * MAX_LINE_BYTES;

static UNFINISHED: AtomicUsize = AtomicUsize::new(0);

/// Why no line was read.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// The connection failed.
    #[error("cannot read: {0}")]
    Io(#[from] io::Error),
    /// The line is over [`MAX_LINE_BYTES`].
    #[error("a line is longer than {MAX_LINE_BYTES} bytes")]
    TooLong,
    /// Too many connections send long lines at once.
    #[error("the daemon holds too many unfinished lines; try again later")]
    Busy,
    /// The connection ended within a line.
    #[error("the connection ended within a line")]
    Cut,
    /// The line is not UTF-8.
    #[error("a line is not UTF-8")]
    NotUtf8,
}

struct Held(usize);

impl Held {
    fn grow(&mut self, by: usize) -> Result<(), LineError> {
        if UNFINISHED.fetch_add(by, Ordering::Relaxed) + by > MAX_UNFINISHED_BYTES {
            UNFINISHED.fetch_sub(by, Ordering::Relaxed);
            return Err(LineError::Busy);
        }
        self.0 += by;
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        UNFINISHED.fetch_sub(self.0, Ordering::Relaxed);
    }
}

/// Reads one line without its end; `None` at the end of the stream.
///
/// # Errors
/// See [`LineError`]; after any of them the stream is of no more use.
pub fn read_line(reader: &mut impl BufRead) -> Result<Option<String>, LineError> {
    let mut line = Vec::new();
    let mut held = Held(0);
    loop {
        let chunk = match reader.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        if chunk.is_empty() {
            return if line.is_empty() { Ok(None) } else { Err(LineError::Cut) };
        }
        let end = chunk.iter().position(|byte| *byte == b'\n');
        let part = &chunk[..end.unwrap_or(chunk.len())];
        if line.len() + part.len() > MAX_LINE_BYTES {
            return Err(LineError::TooLong);
        }
        held.grow(part.len())?;
        line.extend_from_slice(part);
        let used = part.len() + usize::from(end.is_some());
        reader.consume(used);
        if end.is_some() {
            return String::from_utf8(line).map(Some).map_err(|_| LineError::NotUtf8);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufReader, Read};

    #[test]
    fn lines_are_split_and_ends_are_seen() {
        let mut reader = BufReader::with_capacity(3, &b"one\n\ntwo two\n"[..]);
        let mut lines = Vec::new();
        while let Some(line) = read_line(&mut reader).expect("a line") {
            lines.push(line);
        }
        assert_eq!(lines, ["one", "", "two two"]);
        assert!(matches!(read_line(&mut &b"half"[..]), Err(LineError::Cut)));
        assert!(matches!(read_line(&mut &b"\xff\n"[..]), Err(LineError::NotUtf8)));
    }

    #[test]
    fn an_endless_line_is_refused_early() {
        // A terabyte of spaces: only MAX_LINE_BYTES of it are ever held.
        let mut endless = BufReader::new(io::repeat(b' ').take(1 << 40));
        assert!(matches!(read_line(&mut endless), Err(LineError::TooLong)));
        assert_eq!(UNFINISHED.load(Ordering::Relaxed), 0);
    }
}
