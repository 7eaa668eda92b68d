//! Lines off the wire, bounded in length, in the memory that they take (see [`crate::budget`]) and in time.

use std::io::{self, BufRead};
use std::time::{Duration, Instant};

use evald_proto::MAX_LINE_BYTES;

/// A line that has begun must end within this time: whoever sends one byte a minute takes up memory all the while.
pub const LINE_PATIENCE: Duration = Duration::from_secs(30);

/// Why no line was read.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// The connection failed.
    #[error("cannot read: {0}")]
    Io(#[from] io::Error),
    /// The line is over [`MAX_LINE_BYTES`].
    #[error("a line is longer than {MAX_LINE_BYTES} bytes")]
    TooLong,
    /// Too many connections of this process send long lines at once.
    #[error("this process has too many unfinished lines; try again later")]
    Busy,
    /// It has begun and does not end.
    #[error("a line did not end within {} s", LINE_PATIENCE.as_secs())]
    Slow,
    /// The connection ended within a line.
    #[error("the connection ended within a line")]
    Cut,
    /// The line is not UTF-8.
    #[error("a line is not UTF-8")]
    NotUtf8,
}

/// Reads one line without its end; `None` at the end of the stream. `hold` is told of every piece that is kept (it may
/// refuse it), and all of it is the caller's to give back. A stream with a read timeout looks at the clock that often.
///
/// # Errors
/// See [`LineError`]; after any of them the stream is of no more use.
pub fn read_line(
    reader: &mut impl BufRead,
    hold: &mut impl FnMut(usize) -> bool,
) -> Result<Option<String>, LineError> {
    let mut line = Vec::new();
    let mut begun = None;
    loop {
        if begun.is_some_and(|begun: Instant| begun.elapsed() > LINE_PATIENCE) {
            return Err(LineError::Slow);
        }
        let chunk = match reader.fill_buf() {
            Err(error) => match error.kind() {
                io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => continue,
                _ => return Err(error.into()),
            },
            Ok(chunk) => chunk,
        };
        if chunk.is_empty() {
            return if line.is_empty() { Ok(None) } else { Err(LineError::Cut) };
        }
        begun = begun.or_else(|| Some(Instant::now()));
        let end = chunk.iter().position(|byte| *byte == b'\n');
        let part = &chunk[..end.unwrap_or(chunk.len())];
        if line.len() + part.len() > MAX_LINE_BYTES {
            return Err(LineError::TooLong);
        }
        if !hold(part.len()) {
            return Err(LineError::Busy);
        }
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
        let mut held = 0;
        let mut hold = |bytes| {
            held += bytes;
            true
        };
        while let Some(line) = read_line(&mut reader, &mut hold).expect("a line") {
            lines.push(line);
        }
        assert_eq!((lines, held), (["one", "", "two two"].map(str::to_owned).to_vec(), 10));
        let mut all = |_| true;
        assert!(matches!(read_line(&mut &b"half"[..], &mut all), Err(LineError::Cut)));
        assert!(matches!(read_line(&mut &b"\xff\n"[..], &mut all), Err(LineError::NotUtf8)));
        assert!(matches!(read_line(&mut &b"line\n"[..], &mut |_| false), Err(LineError::Busy)));
    }

    #[test]
    fn an_endless_line_is_refused_early() {
        // A terabyte of spaces: only MAX_LINE_BYTES of it are ever held.
        let mut endless = BufReader::new(io::repeat(b' ').take(1 << 40));
        let mut held = 0;
        let mut hold = |bytes| {
            held += bytes;
            true
        };
        assert!(matches!(read_line(&mut endless, &mut hold), Err(LineError::TooLong)));
        assert!(held <= MAX_LINE_BYTES);
    }
}
