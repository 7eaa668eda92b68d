//! How the elements of tensors are stored.

/// A storage type (`ggml_type`).
#[derive(Debug, PartialEq, Eq)]
pub struct TensorType {
    /// `F32`, `Q8_0`, ...
    pub name: &'static str,
    /// The number of the type in the file.
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

    /// The type with this name, where it is one of [`TENSOR_TYPES`].
    pub fn by_name(name: &str) -> Option<&'static Self> {
        TENSOR_TYPES.iter().find(|kind| kind.name == name)
    }
}

/// Every type that files hold; blocks as in `ggml-common.h`.
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
    TensorType { name: "TQ1_0", id: 34, block_len: 256, block_bytes: 54 },
    TensorType { name: "TQ2_0", id: 35, block_len: 256, block_bytes: 66 },
    TensorType { name: "MXFP4", id: 39, block_len: 32, block_bytes: 17 },
    TensorType { name: "NVFP4", id: 40, block_len: 64, block_bytes: 36 },
    TensorType { name: "Q1_0", id: 41, block_len: 128, block_bytes: 18 },
    TensorType { name: "Q2_0", id: 42, block_len: 64, block_bytes: 18 },
];

/// Names of `general.file_type` (`llama_ftype` in `llama.h`): what llama.cpp's users call a file of these types.
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
    (19, "IQ2_XXS"),
    (20, "IQ2_XS"),
    (21, "Q2_K_S"),
    (22, "IQ3_XS"),
    (23, "IQ3_XXS"),
    (24, "IQ1_S"),
    (25, "IQ4_NL"),
    (26, "IQ3_S"),
    (27, "IQ3_M"),
    (28, "IQ2_S"),
    (29, "IQ2_M"),
    (30, "IQ4_XS"),
    (31, "IQ1_M"),
    (32, "BF16"),
    (36, "TQ1_0"),
    (37, "TQ2_0"),
    (38, "MXFP4_MOE"),
    (39, "NVFP4"),
    (40, "Q1_0"),
    (41, "Q2_0"),
];
