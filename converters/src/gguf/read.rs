//! Reads the header of a GGUF file: metadata and the table of tensors, with every extent checked against the file.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use inhouse_core::files::open_regular;
use inhouse_core::{Error, ErrorKind, Result};

use super::{ALIGNMENT, Array, TensorType, Value, kind};

/// Items kept of an array of the metadata.
const ARRAY_HEAD: usize = 8;
/// Bounds far above any real file, so that a corrupted count costs neither time nor memory.
const MAX_KEYS: u64 = 1 << 16;
const MAX_TENSORS: u64 = 1 << 18;
const MAX_TEXT_BYTES: u64 = 16 << 20;
const MAX_NAME_BYTES: u64 = 1 << 16;
/// Depth of arrays in arrays.
const MAX_DEPTH: usize = 4;

/// What stands before the tensors' bytes.
#[derive(Debug)]
pub struct Header {
    /// Version of the format: 2 or 3.
    pub version: u32,
    /// Keys and values, in the order of the file; arrays with their first items only.
    pub metadata: Vec<(String, Value)>,
    /// The tensors, in the order of the file.
    pub tensors: Vec<TensorEntry>,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Where the tensors' bytes begin.
    pub data_start: u64,
}

/// A tensor in the table.
#[derive(Debug, Clone)]
pub struct TensorEntry {
    /// Its name.
    pub name: String,
    /// Dimensions, outermost first.
    pub shape: Vec<u64>,
    /// How it is stored.
    pub kind: &'static TensorType,
    /// Byte offset from [`Header::data_start`].
    pub offset: u64,
    /// Bytes of its elements.
    pub bytes: u64,
}

impl Header {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.metadata.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }
}

/// Reads the header of a GGUF file.
///
/// # Errors
/// The file is missing, no GGUF, of another version, truncated or inconsistent.
pub fn read_header(path: &Path) -> Result<Header> {
    let file = open_regular(path).map_err(|cause| Error::io("open", path, cause))?;
    let meta = file.metadata().map_err(|cause| Error::io("read", path, cause))?;
    let mut input = Input { file: BufReader::with_capacity(1 << 16, file), path, at: 0, len: meta.len() };
    if input.len < 4 || input.bytes::<4>()? != *b"GGUF" {
        return Err(Error::data(path, "not a GGUF file (it does not begin with \"GGUF\")"));
    }
    let version = input.u32()?;
    match version {
        2 | 3 => {}
        1 => return Err(unsupported(path, "GGUF version 1 is not supported (2 and 3 are)")),
        other if other.swap_bytes() <= 3 => {
            return Err(unsupported(path, "a big-endian GGUF file is not supported"));
        }
        other => {
            return Err(unsupported(path, &format!("GGUF version {other} is not supported (2 and 3 are)")));
        }
    }
    let n_tensors = input.count("tensors", MAX_TENSORS)?;
    let n_keys = input.count("metadata keys", MAX_KEYS)?;
    let mut metadata = Vec::new();
    let mut keys = std::collections::HashSet::new();
    for _ in 0..n_keys {
        let key = input.text(MAX_NAME_BYTES)?;
        let kind = input.u32()?;
        let value = input.value(kind, 0)?;
        if !keys.insert(key.clone()) {
            return Err(Error::data(path, format!("metadata key {key:?} stands twice")));
        }
        metadata.push((key, value));
    }
    let alignment = match metadata.iter().find(|(key, _)| key == "general.alignment") {
        None => ALIGNMENT,
        Some((_, Value::U32(bytes))) if bytes.is_power_of_two() => u64::from(*bytes),
        Some((_, other)) => {
            return Err(Error::data(path, format!("general.alignment is {other:?}, no power of two")));
        }
    };
    let mut tensors = Vec::new();
    let mut names = std::collections::HashSet::new();
    for _ in 0..n_tensors {
        let tensor = input.tensor()?;
        if !names.insert(tensor.name.clone()) {
            return Err(Error::data(path, format!("tensor {:?} stands twice", tensor.name)));
        }
        tensors.push(tensor);
    }
    let data_start = input.at.next_multiple_of(alignment);
    for tensor in &tensors {
        let end = data_start.checked_add(tensor.offset).and_then(|start| start.checked_add(tensor.bytes));
        if end.is_none_or(|end| end > input.len) {
            let what =
                format!("truncated: tensor {:?} ends beyond the file's {} bytes", tensor.name, input.len);
            return Err(Error::data(path, what));
        }
        if !tensor.offset.is_multiple_of(alignment) {
            return Err(Error::data(
                path,
                format!("tensor {:?} is not aligned to {alignment} bytes", tensor.name),
            ));
        }
    }
    Ok(Header { version, metadata, tensors, file_bytes: input.len, data_start })
}

fn unsupported(path: &Path, what: &str) -> Error {
    Error::new(ErrorKind::UnsupportedVersion, format!("{}: {what}", path.display()))
}

struct Input<'a> {
    file: BufReader<File>,
    path: &'a Path,
    at: u64,
    len: u64,
}

impl Input<'_> {
    fn truncated(&self, wanted: u64) -> Error {
        let what = format!("truncated: {wanted} bytes wanted at byte {} of {}", self.at, self.len);
        Error::data(self.path, what)
    }

    fn claim(&mut self, bytes: u64) -> Result<()> {
        if bytes > self.len - self.at {
            return Err(self.truncated(bytes));
        }
        self.at += bytes;
        Ok(())
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.claim(N as u64)?;
        let mut bytes = [0u8; N];
        self.file.read_exact(&mut bytes).map_err(|cause| Error::io("read", self.path, cause))?;
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32> {
        self.bytes().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64> {
        self.bytes().map(u64::from_le_bytes)
    }

    fn count(&mut self, what: &str, limit: u64) -> Result<u64> {
        let count = self.u64()?;
        if count > limit {
            return Err(Error::data(self.path, format!("corrupted: {count} {what} (at most {limit})")));
        }
        Ok(count)
    }

    fn text(&mut self, limit: u64) -> Result<String> {
        let length = self.u64()?;
        if length > limit {
            let what = format!("corrupted: a text of {length} bytes at byte {} (at most {limit})", self.at);
            return Err(Error::data(self.path, what));
        }
        let at = self.at;
        self.claim(length)?;
        let mut bytes = vec![0u8; length as usize];
        self.file.read_exact(&mut bytes).map_err(|cause| Error::io("read", self.path, cause))?;
        String::from_utf8(bytes)
            .map_err(|_| Error::data(self.path, format!("a text at byte {at} is not UTF-8")))
    }

    fn skip(&mut self, bytes: u64) -> Result<()> {
        self.claim(bytes)?;
        self.file.seek(SeekFrom::Start(self.at)).map_err(|cause| Error::io("read", self.path, cause))?;
        Ok(())
    }

    fn value(&mut self, kind: u32, depth: usize) -> Result<Value> {
        Ok(match kind {
            0 => Value::U8(u8::from_le_bytes(self.bytes()?)),
            1 => Value::I8(i8::from_le_bytes(self.bytes()?)),
            2 => Value::U16(u16::from_le_bytes(self.bytes()?)),
            3 => Value::I16(i16::from_le_bytes(self.bytes()?)),
            4 => Value::U32(self.u32()?),
            5 => Value::I32(i32::from_le_bytes(self.bytes()?)),
            6 => Value::F32(f32::from_le_bytes(self.bytes()?)),
            7 => match self.bytes::<1>()? {
                [0] => Value::Bool(false),
                [1] => Value::Bool(true),
                [other] => {
                    return Err(Error::data(
                        self.path,
                        format!("a truth value of {other} at byte {}", self.at),
                    ));
                }
            },
            kind::TEXT => Value::Text(self.text(MAX_TEXT_BYTES)?),
            kind::ARRAY => Value::Array(self.array(depth)?),
            10 => Value::U64(self.u64()?),
            11 => Value::I64(i64::from_le_bytes(self.bytes()?)),
            12 => Value::F64(f64::from_le_bytes(self.bytes()?)),
            other => {
                return Err(Error::data(
                    self.path,
                    format!("unknown kind of value {other} at byte {}", self.at),
                ));
            }
        })
    }

    fn array(&mut self, depth: usize) -> Result<Array> {
        let kind = self.u32()?;
        let len = self.u64()?;
        if depth >= MAX_DEPTH {
            return Err(Error::data(self.path, format!("arrays nested more than {MAX_DEPTH} deep")));
        }
        let mut items = Vec::new();
        let head = len.min(ARRAY_HEAD as u64);
        for _ in 0..head {
            items.push(self.value(kind, depth + 1)?);
        }
        let rest = len - head;
        match kind {
            0 | 1 | 7 => self.skip(rest)?,
            2 | 3 => self.skip_items(rest, 2)?,
            4..=6 => self.skip_items(rest, 4)?,
            10..=12 => self.skip_items(rest, 8)?,
            // Every item takes bytes of the file, so a false length ends at the file's end.
            _ => {
                for _ in 0..rest {
                    self.value(kind, depth + 1)?;
                }
            }
        }
        Ok(Array { kind, len, items })
    }

    fn skip_items(&mut self, items: u64, width: u64) -> Result<()> {
        let bytes = items.checked_mul(width).ok_or_else(|| self.truncated(u64::MAX))?;
        self.skip(bytes)
    }

    fn tensor(&mut self) -> Result<TensorEntry> {
        let name = self.text(MAX_NAME_BYTES)?;
        let n_dims = self.u32()?;
        if n_dims == 0 || n_dims > 4 {
            return Err(Error::data(self.path, format!("tensor {name:?} has {n_dims} dimensions")));
        }
        let mut shape = Vec::new();
        for _ in 0..n_dims {
            shape.push(self.u64()?);
        }
        let row = shape[0];
        shape.reverse();
        let id = self.u32()?;
        let offset = self.u64()?;
        let kind = TensorType::by_id(id)
            .ok_or_else(|| Error::data(self.path, format!("tensor {name:?} has the unknown type {id}")))?;
        let elements = shape.iter().try_fold(1u64, |product, &dim| product.checked_mul(dim));
        let whole_blocks = row.is_multiple_of(kind.block_len as u64);
        let bytes =
            elements.filter(|_| whole_blocks).and_then(|elements| kind.bytes(elements)).ok_or_else(|| {
                let what = format!("tensor {name:?} of shape {shape:?} cannot be stored as {}", kind.name);
                Error::data(self.path, what)
            })?;
        Ok(TensorEntry { name, shape, kind, offset, bytes })
    }
}
