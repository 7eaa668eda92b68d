//! The GGUF format (<https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>): typed metadata, then tensors.
//!
//! [`read`] takes in everything before the tensors' bytes and checks every length and extent against the file; [`Writer`]
//! writes a file front to back; [`Counterparts`] are the names of weights on Hugging Face's side. Else nothing here knows what the keys mean: that is [`crate::bert`], the validation of
//! inhouse-llama and the converter. The order of tensors and what is allowed follows `gguf.cpp` of the llama.cpp that llama-cpp-sys-2 bundles.

mod counterpart;
mod read;
mod types;
mod write;

use std::fmt;

pub use counterpart::{Counterparts, HeadSizes, fused, interleaved};
pub use read::read;
pub use types::{FILE_TYPES, TENSOR_TYPES, TensorType};
pub use write::{TensorSpec, Writer};

/// The version that is written. Version 2 differs only in the number; 1 had 32-bit lengths.
pub const VERSION: u32 = 3;
/// Tensors begin at multiples of this in files that do not say otherwise.
pub const ALIGNMENT: u64 = 32;
/// Most dimensions of a tensor (`GGML_MAX_DIMS`).
pub const MAX_DIMS: usize = 4;

/// What stands before the tensors' bytes.
#[derive(Debug)]
pub struct Header {
    /// Version of the format: 2 or 3.
    pub version: u32,
    /// Keys and values, in the order of the file; keys are distinct.
    pub metadata: Vec<(String, Value)>,
    /// The tensors, in the order of the file; names are distinct.
    pub tensors: Vec<TensorEntry>,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Tensors begin at multiples of this.
    pub alignment: u64,
    /// Where the tensors' bytes begin.
    pub data_start: u64,
}

impl Header {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.metadata.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// The value of a key that holds text.
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.get(key) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }
}

/// A tensor in the table of a file.
#[derive(Debug, Clone)]
pub struct TensorEntry {
    /// Its name.
    pub name: String,
    /// How it is stored.
    pub kind: &'static TensorType,
    /// Byte offset from [`Header::data_start`].
    pub offset: u64,
    dims: [u64; MAX_DIMS],
    n_dims: u8,
}

impl TensorEntry {
    /// Dimensions, fastest first as ggml counts them: of a matrix the columns, then the rows. At least one, none is 0.
    pub fn dims(&self) -> &[u64] {
        &self.dims[..usize::from(self.n_dims)]
    }

    /// Number of elements.
    pub fn n_elements(&self) -> u64 {
        self.dims().iter().product()
    }

    /// Bytes of its elements.
    pub fn n_bytes(&self) -> u64 {
        self.kind.bytes(self.n_elements()).unwrap_or(u64::MAX)
    }
}

/// A metadata value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Unsigned 8-bit.
    U8(u8),
    /// Signed 8-bit.
    I8(i8),
    /// Unsigned 16-bit.
    U16(u16),
    /// Signed 16-bit.
    I16(i16),
    /// Unsigned 32-bit.
    U32(u32),
    /// Signed 32-bit.
    I32(i32),
    /// 32-bit float.
    F32(f32),
    /// True or false.
    Bool(bool),
    /// UTF-8 text.
    Text(String),
    /// Unsigned 64-bit.
    U64(u64),
    /// Signed 64-bit.
    I64(i64),
    /// 64-bit float.
    F64(f64),
    /// An array of texts. Boxed, as is the next: a file of many short values must not take several times its size.
    Texts(Box<Texts>),
    /// An array of numbers or truth values.
    Numbers(Box<Numbers>),
}

/// Kinds of values, as numbered by the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
#[allow(missing_docs, reason = "as in Value")]
pub enum Kind {
    U8 = 0,
    I8 = 1,
    U16 = 2,
    I16 = 3,
    U32 = 4,
    I32 = 5,
    F32 = 6,
    Bool = 7,
    Text = 8,
    Array = 9,
    U64 = 10,
    I64 = 11,
    F64 = 12,
}

impl Kind {
    const ALL: [Self; 13] = {
        use Kind::{Array, Bool, F32, F64, I8, I16, I32, I64, Text, U8, U16, U32, U64};
        [U8, I8, U16, I16, U32, I32, F32, Bool, Text, Array, U64, I64, F64]
    };

    fn by_id(id: u32) -> Option<Self> {
        Self::ALL.get(id as usize).copied()
    }

    /// Bytes of a value; 0 where they differ from value to value.
    fn width(self) -> u64 {
        match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
            Self::Text | Self::Array => 0,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::U8 => "u8",
            Self::I8 => "i8",
            Self::U16 => "u16",
            Self::I16 => "i16",
            Self::U32 => "u32",
            Self::I32 => "i32",
            Self::F32 => "f32",
            Self::Bool => "bool",
            Self::Text => "text",
            Self::Array => "array",
            Self::U64 => "u64",
            Self::I64 => "i64",
            Self::F64 => "f64",
        })
    }
}

impl Value {
    /// The kind as numbered by the format.
    pub fn kind(&self) -> Kind {
        match self {
            Self::U8(_) => Kind::U8,
            Self::I8(_) => Kind::I8,
            Self::U16(_) => Kind::U16,
            Self::I16(_) => Kind::I16,
            Self::U32(_) => Kind::U32,
            Self::I32(_) => Kind::I32,
            Self::F32(_) => Kind::F32,
            Self::Bool(_) => Kind::Bool,
            Self::Text(_) => Kind::Text,
            Self::U64(_) => Kind::U64,
            Self::I64(_) => Kind::I64,
            Self::F64(_) => Kind::F64,
            Self::Texts(_) | Self::Numbers(_) => Kind::Array,
        }
    }

    /// The kind for messages: `u32`, `array of f32`.
    pub fn kind_name(&self) -> String {
        match self {
            Self::Texts(_) => "array of text".to_owned(),
            Self::Numbers(numbers) => format!("array of {}", numbers.kind),
            other => other.kind().to_string(),
        }
    }

    /// A whole number that is not negative, of whatever width.
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Self::U8(number) => Some(number.into()),
            Self::U16(number) => Some(number.into()),
            Self::U32(number) => Some(number.into()),
            Self::U64(number) => Some(number),
            Self::I8(number) => u64::try_from(number).ok(),
            Self::I16(number) => u64::try_from(number).ok(),
            Self::I32(number) => u64::try_from(number).ok(),
            Self::I64(number) => u64::try_from(number).ok(),
            _ => None,
        }
    }

    /// An array of texts.
    pub fn texts<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> Self {
        let mut texts = Texts::default();
        for item in items {
            texts.bytes.extend_from_slice(item.as_ref().as_bytes());
            texts.ends.push(texts.bytes.len());
        }
        Self::Texts(Box::new(texts))
    }

    /// An array of signed 32-bit numbers.
    pub fn i32s(items: impl IntoIterator<Item = i32>) -> Self {
        let bytes = items.into_iter().flat_map(i32::to_le_bytes).collect();
        Self::Numbers(Box::new(Numbers { kind: Kind::I32, bytes }))
    }

    /// An array of 32-bit floats.
    pub fn f32s(items: impl IntoIterator<Item = f32>) -> Self {
        let bytes = items.into_iter().flat_map(f32::to_le_bytes).collect();
        Self::Numbers(Box::new(Numbers { kind: Kind::F32, bytes }))
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// An array of texts, one after the other. As read they are bytes: whether they are UTF-8 is the reader's to ask.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Texts {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Texts {
    /// Number of texts.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The `i`-th text.
    pub fn get(&self, i: usize) -> Option<&[u8]> {
        let start = if i == 0 { 0 } else { *self.ends.get(i - 1)? };
        self.bytes.get(start..*self.ends.get(i)?)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).filter_map(|i| self.get(i))
    }
}

/// An array of numbers or truth values, as bytes of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numbers {
    kind: Kind,
    bytes: Vec<u8>,
}

impl Numbers {
    /// An array of `kind` from its bytes, little endian; `None` where they are no whole number of items, or the kind is no
    /// number.
    pub fn new(kind: Kind, bytes: Vec<u8>) -> Option<Self> {
        let whole = kind.width() > 0 && (bytes.len() as u64).is_multiple_of(kind.width());
        whole.then_some(Self { kind, bytes })
    }

    /// The kind of all items.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        self.bytes.len() / self.kind.width().max(1) as usize
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The `i`-th item.
    pub fn get(&self, i: usize) -> Option<Value> {
        let width = self.kind.width() as usize;
        let item = self.bytes.get(i.checked_mul(width)?..)?.get(..width)?;
        Some(match self.kind {
            Kind::U8 => Value::U8(*item.first()?),
            Kind::I8 => Value::I8(*item.first()? as i8),
            Kind::Bool => Value::Bool(*item.first()? != 0),
            Kind::U16 => Value::U16(u16::from_le_bytes(item.try_into().ok()?)),
            Kind::I16 => Value::I16(i16::from_le_bytes(item.try_into().ok()?)),
            Kind::U32 => Value::U32(u32::from_le_bytes(item.try_into().ok()?)),
            Kind::I32 => Value::I32(i32::from_le_bytes(item.try_into().ok()?)),
            Kind::F32 => Value::F32(f32::from_le_bytes(item.try_into().ok()?)),
            Kind::U64 => Value::U64(u64::from_le_bytes(item.try_into().ok()?)),
            Kind::I64 => Value::I64(i64::from_le_bytes(item.try_into().ok()?)),
            Kind::F64 => Value::F64(f64::from_le_bytes(item.try_into().ok()?)),
            Kind::Text | Kind::Array => return None,
        })
    }

    /// The items, where they are of kind [`Kind::I32`].
    pub fn i32s(&self) -> Option<impl ExactSizeIterator<Item = i32>> {
        let words = self.bytes.as_chunks::<4>().0;
        (self.kind == Kind::I32).then(|| words.iter().map(|word| i32::from_le_bytes(*word)))
    }

    /// The items, where they are of kind [`Kind::F32`].
    pub fn f32s(&self) -> Option<impl ExactSizeIterator<Item = f32>> {
        let words = self.bytes.as_chunks::<4>().0;
        (self.kind == Kind::F32).then(|| words.iter().map(|word| f32::from_le_bytes(*word)))
    }
}

#[cfg(test)]
mod tests;
