//! The GGUF format (<https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>): typed metadata, then tensors.

mod read;
mod write;

pub use read::{Header, TensorEntry, read_header};
pub use write::{TensorSpec, Writer};

use serde::Serialize;

/// The version that is written. Version 2 differs only in the number; 1 had 32-bit lengths.
pub const VERSION: u32 = 3;
/// Tensors begin at multiples of this.
pub const ALIGNMENT: u64 = 32;

/// A metadata value.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
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
    /// Values of one kind.
    Array(Array),
    /// Unsigned 64-bit.
    U64(u64),
    /// Signed 64-bit.
    I64(i64),
    /// 64-bit float.
    F64(f64),
}

/// An array of the metadata. As read, `items` are only its first few.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Array {
    /// Kind of the items, as numbered by the format.
    #[serde(skip)]
    pub kind: u32,
    /// Number of items in the file.
    pub len: u64,
    /// The items: all of them when written, the first few when read.
    pub items: Vec<Value>,
}

impl Value {
    /// The kind as numbered by the format.
    pub fn kind(&self) -> u32 {
        match self {
            Self::U8(_) => 0,
            Self::I8(_) => 1,
            Self::U16(_) => 2,
            Self::I16(_) => 3,
            Self::U32(_) => 4,
            Self::I32(_) => 5,
            Self::F32(_) => 6,
            Self::Bool(_) => 7,
            Self::Text(_) => kind::TEXT,
            Self::Array(_) => kind::ARRAY,
            Self::U64(_) => 10,
            Self::I64(_) => 11,
            Self::F64(_) => 12,
        }
    }

    /// An array of texts.
    pub fn texts(items: impl IntoIterator<Item = String>) -> Self {
        let items: Vec<Value> = items.into_iter().map(Value::Text).collect();
        Self::Array(Array { kind: kind::TEXT, len: items.len() as u64, items })
    }

    /// An array of signed 32-bit numbers.
    pub fn i32s(items: impl IntoIterator<Item = i32>) -> Self {
        let items: Vec<Value> = items.into_iter().map(Value::I32).collect();
        Self::Array(Array { kind: 5, len: items.len() as u64, items })
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// Numbers of the kinds that are not fixed in size.
mod kind {
    pub const TEXT: u32 = 8;
    pub const ARRAY: u32 = 9;
}

/// How a tensor's elements are stored.
#[derive(Debug, PartialEq, Eq)]
pub struct TensorType {
    /// `F32`, `Q8_0`, ...
    pub name: &'static str,
    /// The number of the type in the file (`ggml_type`).
    pub id: u32,
    /// Elements per block.
    pub block_len: usize,
    /// Bytes per block.
    pub block_bytes: usize,
}

impl TensorType {
    /// Bytes of `elements` elements, a multiple of the block.
    pub fn bytes(&self, elements: u64) -> Option<u64> {
        (elements / self.block_len as u64).checked_mul(self.block_bytes as u64)
    }

    /// The type with this number, where it is one of [`TENSOR_TYPES`].
    pub fn by_id(id: u32) -> Option<&'static Self> {
        TENSOR_TYPES.iter().find(|kind| kind.id == id)
    }
}

/// Every type that llama.cpp reads; blocks as in `ggml.c`.
pub const TENSOR_TYPES: &[TensorType] = &[
    TensorType { name: "F32", id: 0, block_len: 1, block_bytes: 4 },
    TensorType { name: "F16", id: 1, block_len: 1, block_bytes: 2 },
    TensorType { name: "Q4_0", id: 2, block_len: 32, block_bytes: 18 },
    TensorType { name: "Q4_1", id: 3, block_len: 32, block_bytes: 20 },
    TensorType { name: "Q5_0", id: 6, block_len: 32, block_bytes: 22 },
    TensorType { name: "Q5_1", id: 7, block_len: 32, block_bytes: 24 },
    TensorType { name: "Q8_0", id: 8, block_len: 32, block_bytes: 34 },
    TensorType { name: "Q2_K", id: 10, block_len: 256, block_bytes: 84 },
    TensorType { name: "Q3_K", id: 11, block_len: 256, block_bytes: 110 },
    TensorType { name: "Q4_K", id: 12, block_len: 256, block_bytes: 144 },
    TensorType { name: "Q5_K", id: 13, block_len: 256, block_bytes: 176 },
    TensorType { name: "Q6_K", id: 14, block_len: 256, block_bytes: 210 },
    TensorType { name: "IQ2_XXS", id: 16, block_len: 256, block_bytes: 66 },
    TensorType { name: "IQ2_XS", id: 17, block_len: 256, block_bytes: 74 },
    TensorType { name: "IQ3_XXS", id: 18, block_len: 256, block_bytes: 98 },
    TensorType { name: "IQ1_S", id: 19, block_len: 256, block_bytes: 50 },
    TensorType { name: "IQ4_NL", id: 20, block_len: 32, block_bytes: 18 },
    TensorType { name: "IQ3_S", id: 21, block_len: 256, block_bytes: 110 },
    TensorType { name: "IQ2_S", id: 22, block_len: 256, block_bytes: 82 },
    TensorType { name: "IQ4_XS", id: 23, block_len: 256, block_bytes: 136 },
    TensorType { name: "I8", id: 24, block_len: 1, block_bytes: 1 },
    TensorType { name: "I16", id: 25, block_len: 1, block_bytes: 2 },
    TensorType { name: "I32", id: 26, block_len: 1, block_bytes: 4 },
    TensorType { name: "I64", id: 27, block_len: 1, block_bytes: 8 },
    TensorType { name: "F64", id: 28, block_len: 1, block_bytes: 8 },
    TensorType { name: "IQ1_M", id: 29, block_len: 256, block_bytes: 56 },
    TensorType { name: "BF16", id: 30, block_len: 1, block_bytes: 2 },
];

/// Names of `general.file_type` (`llama_ftype` in `llama.h`), for what is written here and what is common.
pub const FILE_TYPES: &[(u32, &str)] = &[
    (0, "F32"),
    (1, "F16"),
    (2, "Q4_0"),
    (3, "Q4_1"),
    (7, "Q8_0"),
    (8, "Q5_0"),
    (9, "Q5_1"),
    (10, "Q2_K"),
    (11, "Q3_K_S"),
    (12, "Q3_K_M"),
    (13, "Q3_K_L"),
    (14, "Q4_K_S"),
    (15, "Q4_K_M"),
    (16, "Q5_K_S"),
    (17, "Q5_K_M"),
    (18, "Q6_K"),
    (32, "BF16"),
];

#[cfg(test)]
mod tests;
