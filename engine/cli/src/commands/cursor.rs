//! Where the cursor stands in a file.

use std::path::Path;
use std::str::FromStr;

use anyhow::{Result, bail};

/// The value of `--cursor`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cursor {
    /// Before the character at this column of this line, both counted from 1.
    At { line: usize, column: usize },
    /// Where this text stands, which is no part of the code.
    Marker(String),
}

impl FromStr for Cursor {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number =
            |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?;
        match text.split_once(':') {
            Some((line, column)) if !line.is_empty() && !column.is_empty() => {
                match (number(line), number(column)) {
                    (Some(line), Some(column)) if line > 0 && column > 0 => Ok(Self::At { line, column }),
                    (Some(_), Some(_)) => Err("lines and columns are counted from 1".into()),
                    _ => Ok(Self::Marker(text.to_owned())),
                }
            }
            _ if text.is_empty() => Err("expected LINE:COLUMN or a text that stands in the file".into()),
            _ => Ok(Self::Marker(text.to_owned())),
        }
    }
}

impl Cursor {
    /// The code before and after the cursor; nothing after it where the code ends there.
    pub fn split(&self, code: &str, file: &Path) -> Result<(String, Option<String>)> {
        let (before, after) = match self {
            Self::At { line, column } => {
                let at = position(code, *line, *column, file)?;
                (&code[..at], &code[at..])
            }
            Self::Marker(marker) => {
                let mut found = code.match_indices(marker.as_str());
                let Some((at, _)) = found.next() else {
                    bail!("{}: the marker {marker:?} of --cursor does not stand in it", file.display());
                };
                if found.next().is_some() {
                    bail!(
                        "{}: the marker {marker:?} of --cursor stands in it more than once",
                        file.display()
                    );
                }
                (&code[..at], &code[at + marker.len()..])
            }
        };
        Ok((before.to_owned(), (!after.is_empty()).then(|| after.to_owned())))
    }
}

fn position(code: &str, line: usize, column: usize, file: &Path) -> Result<usize> {
    let mut lines = code.split('\n');
    let Some(before) = (1..line).try_fold(0, |at, _| lines.next().map(|text| at + text.len() + 1)) else {
        bail!(
            "{}: --cursor {line}:{column}: the file has {} lines",
            file.display(),
            code.split('\n').count()
        );
    };
    let Some(text) = lines.next() else {
        bail!("{}: --cursor {line}:{column}: the file has {} lines", file.display(), line - 1);
    };
    let text = text.strip_suffix('\r').unwrap_or(text);
    let mut ends = text.char_indices().map(|(at, _)| at).chain([text.len()]);
    match ends.nth(column - 1) {
        Some(at) => Ok(before + at),
        None => bail!(
            "{}: --cursor {line}:{column}: the line has {} characters",
            file.display(),
            text.chars().count()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(cursor: &str, code: &str) -> Result<(String, Option<String>), String> {
        let cursor: Cursor = cursor.parse()?;
        cursor.split(code, Path::new("draft.py")).map_err(|error| error.to_string())
    }

    #[test]
    fn cursors() {
        let code = "x = é1\r\ny = [HERE]\n";
        for (cursor, before, after) in [
            ("1:1", "", Some(code)),
            ("1:6", "x = é", Some("1\r\ny = [HERE]\n")),
            ("1:7", "x = é1", Some("\r\ny = [HERE]\n")),
            ("2:1", "x = é1\r\n", Some("y = [HERE]\n")),
            ("2:11", "x = é1\r\ny = [HERE]", Some("\n")),
            ("3:1", code, None),
            ("[HERE]", "x = é1\r\ny = ", Some("\n")),
            ("1\r", "x = é", Some("\ny = [HERE]\n")),
        ] {
            assert_eq!(
                split(cursor, code).unwrap(),
                (before.to_owned(), after.map(str::to_owned)),
                "{cursor}"
            );
        }
        for (cursor, what) in [
            ("4:1", "the file has 3 lines"),
            ("9:1", "the file has 3 lines"),
            ("1:8", "the line has 6 characters"),
            ("0:1", "counted from 1"),
            ("", "expected LINE:COLUMN"),
            ("<FILL>", "does not stand in it"),
            ("é:", "does not stand in it"),
            (" ", "more than once"),
        ] {
            let error = split(cursor, code).unwrap_err();
            assert!(error.contains(what), "{cursor}: {error}");
        }
    }
}
