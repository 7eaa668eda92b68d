//! The header of a `.safetensors` file: 8 bytes of length, JSON, then the tensors' bytes
//! (<https://github.com/huggingface/safetensors#format>). The `safetensors` crate wants the whole file in memory or
//! mapped; here only the header is read.

use std::collections::BTreeMap;
use std::fmt::Formatter;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use inhouse_core::{Error, files};
use serde::de::{Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::{ElementType, TensorInfo, checked_extent};

/// No header is longer, as in the reference implementation.
const MAX_HEADER_BYTES: u64 = 100_000_000;
const LENGTH_BYTES: u64 = 8;

/// No weight of any model has more dimensions.
const MAX_DIMENSIONS: usize = 8;

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

pub(super) fn read_header(
    path: &Path,
    file: &File,
    file_bytes: u64,
    file_index: usize,
) -> inhouse_core::Result<BTreeMap<String, TensorInfo>> {
    let io = |cause| Error::io("read", path, cause);
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
        let info = TensorInfo {
            dtype,
            shape: entry.shape.0,
            offset: data_start + start,
            file: file_index,
            contiguous: true,
        };
        tensors.insert(name, info);
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
pub fn write_safetensors(
    path: &Path,
    tensors: &BTreeMap<&str, (Vec<usize>, Vec<f32>)>,
) -> inhouse_core::Result<()> {
    let mut header = serde_json::Map::new();
    header.insert("__metadata__".into(), serde_json::json!({"format": "pt"}));
    let mut end = 0usize;
    for (name, (shape, values)) in tensors {
        let begin = end;
        end += values.len() * 4;
        let entry = serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [begin, end]});
        header.insert((*name).to_owned(), entry);
    }
    let mut header = serde_json::Value::Object(header).to_string().into_bytes();
    // The values begin at a multiple of 8 bytes, as the format asks.
    header.resize(header.len().next_multiple_of(LENGTH_BYTES as usize), b' ');
    files::write_atomic(path, |file| {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        let mut bytes = Vec::new();
        for (_, values) in tensors.values() {
            for piece in values.chunks(1 << 14) {
                bytes.clear();
                piece.iter().for_each(|value| bytes.extend_from_slice(&value.to_le_bytes()));
                file.write_all(&bytes)?;
            }
        }
        Ok(())
    })
}
