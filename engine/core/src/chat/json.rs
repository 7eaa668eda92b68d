//! The filter `tojson` as transformers has it: Python's `json.dumps`, without escapes for HTML.

use std::io::{Error as IoError, Result as IoResult, Write};

use minijinja::value::{Kwargs, Value};
use minijinja::{Error, ErrorKind};
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

/// A small value may hold itself many times over.
const MAX_BYTES: usize = 1 << 22;
const MAX_INDENT: usize = 16;

/// `value` as JSON; `indent` is the only argument that changes anything for what prompts hold.
pub(super) fn to_json(value: &Value, arguments: Kwargs) -> Result<String, Error> {
    let mut out = Bounded(Vec::new());
    let written = match arguments.get::<Option<usize>>("indent")? {
        Some(indent) => {
            let spaces = " ".repeat(indent.min(MAX_INDENT));
            let formatter = PrettyFormatter::with_indent(spaces.as_bytes());
            value.serialize(&mut Serializer::with_formatter(&mut out, formatter))
        }
        None => value.serialize(&mut Serializer::with_formatter(&mut out, Spaced)),
    };
    let failed = |cause: String| Error::new(ErrorKind::BadSerialization, cause);
    written.map_err(|cause| failed(cause.to_string()))?;
    String::from_utf8(out.0).map_err(|cause| failed(cause.to_string()))
}

struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> IoResult<usize> {
        if self.0.len() + bytes.len() > MAX_BYTES {
            return Err(IoError::other(format!("JSON of more than {MAX_BYTES} bytes")));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> IoResult<()> {
        Ok(())
    }
}

/// Python's separators: `, ` and `: `.
struct Spaced;

impl Spaced {
    fn separate<W: ?Sized + Write>(writer: &mut W, first: bool) -> IoResult<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }
}

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> IoResult<()> {
        Self::separate(writer, first)
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> IoResult<()> {
        Self::separate(writer, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> IoResult<()> {
        writer.write_all(b": ")
    }
}
