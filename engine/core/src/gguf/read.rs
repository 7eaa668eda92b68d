//! Reads what stands before the tensors' bytes. Little endian; every length is checked against what is left of the file
//! before anything is allocated for it, so that the memory taken stays below four times the file's size.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use super::{ALIGNMENT, Header, Kind, MAX_DIMS, Numbers, TensorEntry, TensorType, Texts, Value};
use crate::files::open_regular;
use crate::{Error, ErrorKind, Result};

/// More metadata pairs than this no model has (they number below a hundred).
const MAX_PAIRS: u64 = 4096;
/// More tensors than this no model has: 512 blocks of about 20.
const MAX_TENSORS: u64 = 1 << 16;
const MAX_KEY_BYTES: u64 = 1 << 10;
/// `GGML_MAX_NAME`, its final zero included.
const MAX_NAME_BYTES: u64 = 63;
const MAX_ALIGNMENT: u32 = 1 << 16;
const BUFFER_BYTES: u64 = 1 << 13;
/// Bytes of the shortest entry of the tensors' table.
const MIN_TENSOR_BYTES: u64 = 8 + 1 + 4 + 8 + 4 + 8;

/// Reads the header of a GGUF file.
///
/// # Errors
/// The file is missing, no regular file, no GGUF, truncated or contradicts itself ([`ErrorKind::InvalidData`]); its version
/// is not 2 or 3 ([`ErrorKind::UnsupportedVersion`]); a tensor is of a type that this build does not know
/// ([`ErrorKind::Unsupported`]). The line names the file and the key, tensor or byte.
pub fn read(path: &Path) -> Result<Header> {
    let file = open_regular(path).map_err(|cause| Error::io("open", path, cause))?;
    let meta = file.metadata().map_err(|cause| Error::io("read", path, cause))?;
    let buffer = meta.len().clamp(64, BUFFER_BYTES) as usize;
    let input = Input { file: BufReader::with_capacity(buffer, file), position: 0, length: meta.len() };
    input.header().map_err(|failure| match failure {
        Failure::Fault(kind, what) => Error::new(kind, format!("{}: {what}", path.display())),
        Failure::Io(cause) => Error::io("read", path, cause),
    })
}

enum Failure {
    Fault(ErrorKind, String),
    Io(std::io::Error),
}

fn fault<T>(what: impl Into<String>) -> Result<T, Failure> {
    Err(Failure::Fault(ErrorKind::InvalidData, what.into()))
}

/// An empty vector with room for `n` items, which the file was seen to be long enough for.
fn with_room<T>(n: u64) -> Result<Vec<T>, Failure> {
    let mut items = Vec::new();
    let room = usize::try_from(n).ok().and_then(|n| items.try_reserve_exact(n).ok());
    match room {
        Some(()) => Ok(items),
        None => Err(Failure::Fault(ErrorKind::LimitExceeded, format!("no memory for {n} items"))),
    }
}

struct Input {
    file: BufReader<File>,
    position: u64,
    length: u64,
}

impl Input {
    fn left(&self) -> u64 {
        self.length.saturating_sub(self.position)
    }

    /// Appends `n` bytes of the file to `bytes`.
    fn append(&mut self, bytes: &mut Vec<u8>, n: u64, what: &str) -> Result<(), Failure> {
        if n > self.left() {
            let (position, left) = (self.position, self.left());
            return fault(format!("truncated: {what} at byte {position} takes {n} bytes, {left} are left"));
        }
        let before = bytes.len();
        (&mut self.file).take(n).read_to_end(bytes).map_err(Failure::Io)?;
        // The file may shrink while it is read.
        if (bytes.len() - before) as u64 != n {
            return fault(format!("truncated while reading {what} at byte {}", self.position));
        }
        self.position += n;
        Ok(())
    }

    fn fixed<const N: usize>(&mut self, what: &str) -> Result<[u8; N], Failure> {
        if N as u64 > self.left() {
            return fault(format!("truncated: the file ends in {what} at byte {}", self.position));
        }
        let mut bytes = [0; N];
        self.file.read_exact(&mut bytes).map_err(Failure::Io)?;
        self.position += N as u64;
        Ok(bytes)
    }

    fn u32(&mut self, what: &str) -> Result<u32, Failure> {
        self.fixed(what).map(u32::from_le_bytes)
    }

    fn u64(&mut self, what: &str) -> Result<u64, Failure> {
        self.fixed(what).map(u64::from_le_bytes)
    }

    fn text(&mut self, limit: u64, what: &str) -> Result<String, Failure> {
        let position = self.position;
        let n = self.u64(what)?;
        if n > limit {
            let what = format!("{what} at byte {position} is {n} bytes long, at most {limit} are allowed");
            return fault(what);
        }
        let mut bytes = with_room(n.min(self.left()))?;
        self.append(&mut bytes, n, what)?;
        match String::from_utf8(bytes) {
            Ok(text) => Ok(text),
            Err(_) => fault(format!("{what} at byte {position} is not UTF-8")),
        }
    }

    fn header(mut self) -> Result<Header, Failure> {
        let magic: [u8; 4] = self.fixed("the magic bytes")?;
        if &magic != b"GGUF" {
            return fault("is not a GGUF file (it does not begin with `GGUF`)");
        }
        let version = self.u32("the version")?;
        if version != 2 && version != 3 {
            let big_endian = if version.swap_bytes() <= 3 { " (a big-endian file)" } else { "" };
            let what = format!("GGUF version {version}{big_endian} is not supported, expected 2 or 3");
            return Err(Failure::Fault(ErrorKind::UnsupportedVersion, what));
        }
        let n_tensors = self.u64("the number of tensors")?;
        let n_pairs = self.u64("the number of metadata pairs")?;
        if n_tensors > MAX_TENSORS {
            return fault(format!("{n_tensors} tensors, expected at most {MAX_TENSORS}"));
        }
        if n_pairs > MAX_PAIRS {
            return fault(format!("{n_pairs} metadata pairs, expected at most {MAX_PAIRS}"));
        }
        let metadata = self.metadata(n_pairs)?;
        let alignment = match metadata.iter().find(|(key, _)| key == "general.alignment") {
            None => ALIGNMENT,
            Some((_, Value::U32(alignment)))
                if alignment.is_power_of_two() && *alignment <= MAX_ALIGNMENT =>
            {
                u64::from(*alignment)
            }
            Some((_, value)) => {
                let what = "expected a power of two up to 65536 (u32)";
                return fault(format!("`general.alignment` is {value:?}, {what}"));
            }
        };
        let tensors = self.tensors(n_tensors)?;
        let data_start = self.check_extents(&tensors, alignment)?;
        Ok(Header { version, metadata, tensors, file_bytes: self.length, alignment, data_start })
    }

    fn metadata(&mut self, n_pairs: u64) -> Result<Vec<(String, Value)>, Failure> {
        // Once to see that the pairs are there, once to keep them: room for as many as the header claims, beside what some of
        // them hold, could be more than four times the file.
        let start = self.position;
        for _ in 0..n_pairs {
            self.pair()?;
        }
        self.file.seek(SeekFrom::Start(start)).map_err(Failure::Io)?;
        self.position = start;
        let mut metadata: Vec<(String, Value)> = with_room(n_pairs)?;
        for _ in 0..n_pairs {
            metadata.push(self.pair()?);
        }
        match first_twice(metadata.len(), |i| metadata[i].0.as_str()) {
            Some(key) => fault(format!("the metadata key `{key}` is there twice")),
            None => Ok(metadata),
        }
    }

    fn pair(&mut self) -> Result<(String, Value), Failure> {
        let key = self.text(MAX_KEY_BYTES, "a metadata key")?;
        if key.is_empty() || key.contains(char::is_control) {
            return fault(format!("an empty or malformed metadata key before byte {}", self.position));
        }
        let kind = self.u32(&key)?;
        let value = self.value(kind, &key)?;
        Ok((key, value))
    }

    fn value(&mut self, id: u32, key: &str) -> Result<Value, Failure> {
        let unknown = || fault(format!("`{key}` has the unknown type {id}"));
        let Some(kind) = Kind::by_id(id) else { return unknown() };
        Ok(match kind {
            Kind::U8 => Value::U8(u8::from_le_bytes(self.fixed(key)?)),
            Kind::I8 => Value::I8(i8::from_le_bytes(self.fixed(key)?)),
            Kind::U16 => Value::U16(u16::from_le_bytes(self.fixed(key)?)),
            Kind::I16 => Value::I16(i16::from_le_bytes(self.fixed(key)?)),
            Kind::U32 => Value::U32(u32::from_le_bytes(self.fixed(key)?)),
            Kind::I32 => Value::I32(i32::from_le_bytes(self.fixed(key)?)),
            Kind::F32 => Value::F32(f32::from_le_bytes(self.fixed(key)?)),
            Kind::Bool => match self.fixed::<1>(key)? {
                [0] => Value::Bool(false),
                [1] => Value::Bool(true),
                [other] => return fault(format!("`{key}` is a bool of value {other}")),
            },
            Kind::Text => Value::Text(self.text(u64::MAX, key)?),
            Kind::Array => {
                let id = self.u32(key)?;
                let n = self.u64(key)?;
                self.array(id, n, key)?
            }
            Kind::U64 => Value::U64(u64::from_le_bytes(self.fixed(key)?)),
            Kind::I64 => Value::I64(i64::from_le_bytes(self.fixed(key)?)),
            Kind::F64 => Value::F64(f64::from_le_bytes(self.fixed(key)?)),
        })
    }

    fn array(&mut self, id: u32, n: u64, key: &str) -> Result<Value, Failure> {
        match Kind::by_id(id) {
            Some(Kind::Text) => {
                if n > self.left() / 8 {
                    return fault(format!("truncated: `{key}`: {n} texts do not fit into the file"));
                }
                let mut texts = Texts { bytes: Vec::new(), ends: with_room(n)? };
                for _ in 0..n {
                    let length = self.u64(key)?;
                    self.append(&mut texts.bytes, length, key)?;
                    texts.ends.push(texts.bytes.len());
                }
                texts.bytes.shrink_to_fit();
                Ok(Value::Texts(Box::new(texts)))
            }
            // llama.cpp reads no arrays of arrays either.
            None | Some(Kind::Array) => fault(format!("`{key}` is an array of the unknown type {id}")),
            Some(kind) => {
                let Some(n_bytes) = n.checked_mul(kind.width()).filter(|n_bytes| *n_bytes <= self.left())
                else {
                    return fault(format!("truncated: `{key}`: {n} numbers do not fit into the file"));
                };
                let mut bytes = with_room(n_bytes)?;
                self.append(&mut bytes, n_bytes, key)?;
                if kind == Kind::Bool && bytes.iter().any(|byte| *byte > 1) {
                    return fault(format!("`{key}` is an array of bools that holds something else"));
                }
                Ok(Value::Numbers(Box::new(Numbers { kind, bytes })))
            }
        }
    }

    fn tensors(&mut self, n_tensors: u64) -> Result<Vec<TensorEntry>, Failure> {
        let mut tensors = with_room(n_tensors.min(self.left() / MIN_TENSOR_BYTES))?;
        for _ in 0..n_tensors {
            tensors.push(self.tensor()?);
        }
        match first_twice(tensors.len(), |i| tensors[i].name.as_str()) {
            Some(name) => fault(format!("the tensor `{name}` is there twice")),
            None => Ok(tensors),
        }
    }

    fn tensor(&mut self) -> Result<TensorEntry, Failure> {
        let name = self.text(MAX_NAME_BYTES, "a tensor's name")?;
        if name.is_empty() || name.contains(char::is_control) {
            return fault(format!("an empty or malformed tensor name before byte {}", self.position));
        }
        let n_dims = self.u32(&name)?;
        if n_dims == 0 || n_dims > MAX_DIMS as u32 {
            return fault(format!("tensor `{name}` has {n_dims} dimensions, expected 1 to {MAX_DIMS}"));
        }
        let mut dims = [1; MAX_DIMS];
        for dim in &mut dims[..n_dims as usize] {
            *dim = self.u64(&name)?;
        }
        let shape = &dims[..n_dims as usize];
        let id = self.u32(&name)?;
        let offset = self.u64(&name)?;
        let Some(kind) = TensorType::by_id(id) else {
            let what = format!("tensor `{name}` has ggml type {id}, which is not known");
            return Err(Failure::Fault(ErrorKind::Unsupported, what));
        };
        let elements =
            shape.iter().try_fold(1u64, |n, &dim| if dim == 0 { None } else { n.checked_mul(dim) });
        // No overflow below the bound: blocks have at most 8 bytes a value.
        if elements.is_none_or(|n| n > i64::MAX as u64 / 8) {
            return fault(format!("tensor `{name}` has the impossible shape {shape:?}"));
        }
        if !shape[0].is_multiple_of(kind.block_len as u64) {
            let (row, block) = (shape[0], kind.block_len);
            let what = format!("rows of {row} values are no whole blocks of {} ({block})", kind.name);
            return fault(format!("tensor `{name}`: {what}"));
        }
        Ok(TensorEntry { name, kind, offset, dims, n_dims: n_dims as u8 })
    }

    /// Tensors lie one after the other, in the order of the table, padded to the alignment (as `gguf.cpp` demands), and end
    /// inside the file. Gives where their bytes begin.
    fn check_extents(&self, tensors: &[TensorEntry], alignment: u64) -> Result<u64, Failure> {
        let padded = |n: u64| n.checked_next_multiple_of(alignment);
        let start = match padded(self.position) {
            Some(start) if start <= self.length => start,
            // A file with a vocabulary alone need not be padded.
            _ if tensors.is_empty() => return Ok(self.length),
            _ => {
                let at = self.position;
                return fault(format!("truncated: the file ends before the tensors' data at byte {at}"));
            }
        };
        let mut expected = Some(0);
        for tensor in tensors {
            let (name, offset, n_bytes) = (&tensor.name, tensor.offset, tensor.n_bytes());
            if Some(offset) != expected {
                let expected = expected.unwrap_or(0);
                return fault(format!("tensor `{name}` is at offset {offset}, expected {expected}"));
            }
            if n_bytes.checked_add(offset).is_none_or(|end| end > self.length - start) {
                let data = self.length - start;
                return fault(format!(
                    "truncated: tensor `{name}` takes {n_bytes} bytes from offset {offset}, the file has {data} bytes of data"
                ));
            }
            expected = padded(n_bytes).and_then(|n| n.checked_add(offset));
        }
        Ok(start)
    }
}

/// A name that two of `n` items share.
fn first_twice<'a>(n: usize, name: impl Fn(usize) -> &'a str) -> Option<&'a str> {
    let mut order: Vec<u32> = (0..n as u32).collect();
    order.sort_unstable_by_key(|&i| name(i as usize));
    let twice = order.windows(2).find(|pair| name(pair[0] as usize) == name(pair[1] as usize))?;
    Some(name(twice[0] as usize))
}
