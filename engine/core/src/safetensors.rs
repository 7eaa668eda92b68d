//! `.safetensors` files: 8 bytes of length, a header in JSON, then the tensors' bytes
//! (<https://github.com/huggingface/safetensors#format>). The `safetensors` crate wants the whole file in memory or
//! mapped; here the header is read, and values where they are asked for.

use std::collections::BTreeMap;
use std::fmt::Formatter;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use half::{bf16, f16};
use serde::de::{Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::{Error, ErrorKind, Result, files};

/// No header is longer, as in the reference implementation.
const MAX_HEADER_BYTES: u64 = 100_000_000;
const LENGTH_BYTES: u64 = 8;

/// No weight of any model has more dimensions.
const MAX_DIMENSIONS: usize = 8;

/// Element type of a stored tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ElementType {
    /// 64-bit float.
    F64,
    /// 32-bit float.
    F32,
    /// IEEE half.
    F16,
    /// bfloat16.
    BF16,
    /// Anything that is no weight here (masks, counters, 8-bit floats), with its width in bytes.
    Other(usize),
}

impl ElementType {
    /// Bytes per element.
    pub fn size(self) -> usize {
        match self {
            Self::F64 => 8,
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::Other(size) => size,
        }
    }

    /// Widens stored elements, little endian, to f32: as many as `out` holds. False where they are no weights.
    pub fn widen(self, bytes: &[u8], out: &mut [f32]) -> bool {
        match self {
            Self::F32 => {
                let words = bytes.as_chunks::<4>().0;
                out.iter_mut().zip(words).for_each(|(out, word)| *out = f32::from_le_bytes(*word));
            }
            Self::F16 => {
                let words = bytes.as_chunks::<2>().0;
                out.iter_mut().zip(words).for_each(|(out, word)| *out = f16::from_le_bytes(*word).to_f32());
            }
            Self::BF16 => {
                let words = bytes.as_chunks::<2>().0;
                out.iter_mut().zip(words).for_each(|(out, word)| *out = bf16::from_le_bytes(*word).to_f32());
            }
            Self::F64 => {
                let words = bytes.as_chunks::<8>().0;
                out.iter_mut().zip(words).for_each(|(out, word)| *out = f64::from_le_bytes(*word) as f32);
            }
            Self::Other(_) => return false,
        }
        true
    }
}

/// Where a tensor lies in its file.
#[derive(Debug, Clone)]
pub struct StoredTensor {
    /// Element type.
    pub dtype: ElementType,
    /// Dimensions, outermost first; elements are row-major.
    pub shape: Vec<usize>,
    /// Byte offset of the first element in the file.
    pub offset: u64,
}

/// Checks that a tensor's elements lie inside `available` bytes; the number of bytes it takes.
pub fn checked_extent(shape: &[usize], dtype: ElementType, available: u64) -> Option<u64> {
    let elements = shape.iter().try_fold(1u64, |product, &dim| product.checked_mul(dim as u64))?;
    // A zero dimension must not hide an overflow of the others: products are made in the same order, so test them too.
    shape.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim))?;
    let bytes = elements.checked_mul(dtype.size() as u64)?;
    (bytes <= available).then_some(bytes)
}

/// The header, read without a tree in between: one of JSON values takes many times the text that it stands for.
struct Header(BTreeMap<String, Entry>);

#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Shape,
    data_offsets: (u64, u64),
}

struct Shape(Vec<usize>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;

    fn expecting(&self, out: &mut Formatter<'_>) -> std::fmt::Result {
        out.write_str("a map of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let mut entries = BTreeMap::new();
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let entry =
                map.next_value().map_err(|cause| A::Error::custom(format!("tensor {name}: {cause}")))?;
            if entries.contains_key(&name) {
                return Err(A::Error::custom(format!("tensor {name} is there twice")));
            }
            entries.insert(name, entry);
        }
        Ok(Header(entries))
    }
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ShapeVisitor)
    }
}

struct ShapeVisitor;

impl<'de> Visitor<'de> for ShapeVisitor {
    type Value = Shape;

    fn expecting(&self, out: &mut Formatter<'_>) -> std::fmt::Result {
        out.write_str("a list of dimensions")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Shape, A::Error> {
        let mut shape = Vec::new();
        while let Some(dimension) = items.next_element()? {
            if shape.len() == MAX_DIMENSIONS {
                return Err(A::Error::custom(format!("more than {MAX_DIMENSIONS} dimensions")));
            }
            shape.push(dimension);
        }
        Ok(Shape(shape))
    }
}

/// Reads the header of a file: its tensors by name, each within the file.
///
/// # Errors
/// The file cannot be read, is truncated, or its header is not what the format says.
pub fn read_header(path: &Path, file: &File) -> Result<BTreeMap<String, StoredTensor>> {
    let io = |cause| Error::io("read", path, cause);
    let file_bytes = file.metadata().map_err(io)?.len();
    if file_bytes < LENGTH_BYTES {
        return Err(Error::data(path, format!("{file_bytes} bytes is too short for a safetensors file")));
    }
    let mut length = [0u8; LENGTH_BYTES as usize];
    file.read_exact_at(&mut length, 0).map_err(io)?;
    let header_bytes = u64::from_le_bytes(length);
    if header_bytes > MAX_HEADER_BYTES {
        return Err(Error::data(path, format!("header of {header_bytes} bytes: not a safetensors file")));
    }
    if header_bytes > file_bytes - LENGTH_BYTES {
        return Err(Error::data(
            path,
            format!("truncated: a header of {header_bytes} bytes in {file_bytes} bytes"),
        ));
    }
    let mut header = vec![0u8; header_bytes as usize];
    file.read_exact_at(&mut header, LENGTH_BYTES).map_err(io)?;
    let Header(entries) = serde_json::from_slice(&header)
        .map_err(|cause| Error::data(path, format!("bad safetensors header: {cause}")))?;
    drop(header);

    let data_start = LENGTH_BYTES + header_bytes;
    let data_bytes = file_bytes - data_start;
    let mut tensors = BTreeMap::new();
    for (name, entry) in entries {
        let dtype = element_type(&entry.dtype).ok_or_else(|| {
            Error::data(path, format!("tensor {name} has the unknown type {:?}", entry.dtype))
        })?;
        let (start, end) = entry.data_offsets;
        if start > end || end > data_bytes {
            let what =
                format!("tensor {name} lies at bytes {start}..{end} of {data_bytes}: the file is truncated");
            return Err(Error::data(path, what));
        }
        if checked_extent(&entry.shape.0, dtype, end - start) != Some(end - start) {
            let what = format!(
                "tensor {name} of shape {:?} and type {} does not fill its {} bytes",
                entry.shape.0,
                entry.dtype,
                end - start
            );
            return Err(Error::data(path, what));
        }
        tensors.insert(name, StoredTensor { dtype, shape: entry.shape.0, offset: data_start + start });
    }
    Ok(tensors)
}

fn element_type(name: &str) -> Option<ElementType> {
    Some(match name {
        "F64" => ElementType::F64,
        "F32" => ElementType::F32,
        "F16" => ElementType::F16,
        "BF16" => ElementType::BF16,
        "BOOL" | "U8" | "I8" | "F8_E4M3" | "F8_E5M2" | "F8_E8M0" => ElementType::Other(1),
        "U16" | "I16" => ElementType::Other(2),
        "U32" | "I32" => ElementType::Other(4),
        "U64" | "I64" | "C64" => ElementType::Other(8),
        _ => return None,
    })
}

/// Writes tensors of f32, each with its shape and row-major values, as a safetensors file.
///
/// # Errors
/// The file cannot be written; one that is there is then left as it was.
pub fn write_safetensors(path: &Path, tensors: &BTreeMap<&str, (Vec<usize>, Vec<f32>)>) -> Result<()> {
    let shapes: Vec<(&str, &[usize])> =
        tensors.iter().map(|(name, (shape, _))| (*name, shape.as_slice())).collect();
    write_as(path, ElementType::F32, &shapes, |name, put| match tensors.get(name) {
        Some((_, values)) => put(values),
        None => Ok(()),
    })
}

/// Writes tensors as `dtype`, a float. `values` is asked for each tensor in turn and puts its row-major values, in pieces of any
/// length: no tensor need be in memory whole.
///
/// # Errors
/// The file cannot be written, or `values` fails; a file that is there is then left as it was.
pub fn write_as(
    path: &Path,
    dtype: ElementType,
    tensors: &[(&str, &[usize])],
    mut values: impl FnMut(&str, &mut dyn FnMut(&[f32]) -> std::io::Result<()>) -> std::io::Result<()>,
) -> Result<()> {
    let kind = match dtype {
        ElementType::F64 => "F64",
        ElementType::F32 => "F32",
        ElementType::F16 => "F16",
        ElementType::BF16 => "BF16",
        ElementType::Other(_) => {
            return Err(Error::new(ErrorKind::InvalidArgument, "weights are written as floats"));
        }
    };
    let mut header = serde_json::Map::new();
    header.insert("__metadata__".into(), serde_json::json!({"format": "pt"}));
    let mut end = 0usize;
    for (name, shape) in tensors {
        let begin = end;
        end += shape.iter().product::<usize>() * dtype.size();
        let entry = serde_json::json!({"dtype": kind, "shape": shape, "data_offsets": [begin, end]});
        header.insert((*name).to_owned(), entry);
    }
    let mut header = serde_json::Value::Object(header).to_string().into_bytes();
    // The values begin at a multiple of 8 bytes, as the format asks.
    header.resize(header.len().next_multiple_of(LENGTH_BYTES as usize), b' ');
    files::write_atomic(path, |file| {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        let mut bytes = Vec::new();
        for (name, shape) in tensors {
            let mut left: usize = shape.iter().product();
            values(name, &mut |piece| {
                left = left
                    .checked_sub(piece.len())
                    .ok_or_else(|| std::io::Error::other(format!("{name} has more values than its shape")))?;
                for piece in piece.chunks(1 << 14) {
                    bytes.clear();
                    for &value in piece {
                        match dtype {
                            ElementType::F64 => bytes.extend_from_slice(&f64::from(value).to_le_bytes()),
                            ElementType::F16 => bytes.extend_from_slice(&f16::from_f32(value).to_le_bytes()),
                            ElementType::BF16 => {
                                bytes.extend_from_slice(&bf16::from_f32(value).to_le_bytes())
                            }
                            ElementType::F32 | ElementType::Other(_) => {
                                bytes.extend_from_slice(&value.to_le_bytes());
                            }
                        }
                    }
                    file.write_all(&bytes)?;
                }
                Ok(())
            })?;
            if left > 0 {
                return Err(std::io::Error::other(format!("{name} lacks {left} values")));
            }
        }
        Ok(())
    })
}
