//! The GGUF container: header, metadata, tensor directory. Little endian, every length checked against what is left of
//! the file before anything is allocated for it.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use inhouse_core::files::open_regular;
use inhouse_core::{Error, ErrorKind, Result};

use super::Fault;

/// More metadata pairs than this no model has (they number below a hundred).
const MAX_PAIRS: u64 = 4096;
/// More tensors than this no model has: 512 blocks of about 20.
const MAX_TENSORS: u64 = 1 << 16;
const MAX_KEY_BYTES: u64 = 1 << 10;
/// `GGML_MAX_NAME`, its final zero included.
const MAX_TENSOR_NAME_BYTES: u64 = 63;
const MAX_DIMS: u32 = 4;

/// A value of the metadata.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(String),
    U64(u64),
    I64(i64),
    F64(f64),
    /// Strings one after the other, with the end of each.
    Strings {
        bytes: Vec<u8>,
        ends: Vec<u64>,
    },
    /// Numbers as they are in the file.
    Numbers {
        kind: u32,
        bytes: Vec<u8>,
    },
}

const STRING: u32 = 8;
const ARRAY: u32 = 9;
pub(super) const INT8: u32 = 1;
pub(super) const UINT8: u32 = 0;
pub(super) const INT32: u32 = 5;
pub(super) const FLOAT32: u32 = 6;

impl Value {
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::U8(_) => "u8",
            Self::I8(_) => "i8",
            Self::U16(_) => "u16",
            Self::I16(_) => "i16",
            Self::U32(_) => "u32",
            Self::I32(_) => "i32",
            Self::F32(_) => "f32",
            Self::Bool(_) => "bool",
            Self::String(_) => "string",
            Self::U64(_) => "u64",
            Self::I64(_) => "i64",
            Self::F64(_) => "f64",
            Self::Strings { .. } => "array of strings",
            Self::Numbers { .. } => "array of numbers",
        }
    }

    /// The `i`-th string of an array of strings.
    pub(super) fn string_at(&self, i: usize) -> Option<&[u8]> {
        let Self::Strings { bytes, ends } = self else {
            return None;
        };
        let start = if i == 0 { 0 } else { *ends.get(i - 1)? as usize };
        bytes.get(start..*ends.get(i)? as usize)
    }
}

/// Types of tensors that llama.cpp computes with on every backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
#[allow(non_camel_case_types, reason = "ggml's names")]
pub(super) enum TensorType {
    F32 = 0,
    F16 = 1,
    Q4_0 = 2,
    Q4_1 = 3,
    Q5_0 = 6,
    Q5_1 = 7,
    Q8_0 = 8,
    Q2_K = 10,
    Q3_K = 11,
    Q4_K = 12,
    Q5_K = 13,
    Q6_K = 14,
    IQ4_NL = 20,
    IQ4_XS = 23,
    BF16 = 30,
}

impl TensorType {
    fn new(number: u32) -> Option<Self> {
        use TensorType::{
            BF16, F16, F32, IQ4_NL, IQ4_XS, Q2_K, Q3_K, Q4_0, Q4_1, Q4_K, Q5_0, Q5_1, Q5_K, Q6_K, Q8_0,
        };
        [F32, F16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_NL, IQ4_XS, BF16]
            .into_iter()
            .find(|kind| *kind as u32 == number)
    }

    /// Values of a block, and its bytes (`ggml_blck_size`, `ggml_type_size`).
    fn block(self) -> (u64, u64) {
        match self {
            Self::F32 => (1, 4),
            Self::F16 | Self::BF16 => (1, 2),
            Self::Q4_0 | Self::IQ4_NL => (32, 18),
            Self::Q4_1 => (32, 20),
            Self::Q5_0 => (32, 22),
            Self::Q5_1 => (32, 24),
            Self::Q8_0 => (32, 34),
            Self::Q2_K => (256, 84),
            Self::Q3_K => (256, 110),
            Self::Q4_K => (256, 144),
            Self::Q5_K => (256, 176),
            Self::Q6_K => (256, 210),
            Self::IQ4_XS => (256, 136),
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q8_0 => "Q8_0",
            Self::Q2_K => "Q2_K",
            Self::Q3_K => "Q3_K",
            Self::Q4_K => "Q4_K",
            Self::Q5_K => "Q5_K",
            Self::Q6_K => "Q6_K",
            Self::IQ4_NL => "IQ4_NL",
            Self::IQ4_XS => "IQ4_XS",
            Self::BF16 => "BF16",
        }
    }
}

/// An entry of the tensor directory.
#[derive(Debug, Clone)]
pub(super) struct Tensor {
    pub(super) name: String,
    /// Fastest dimension first, as ggml counts them; without trailing ones beyond the first.
    pub(super) shape: Vec<u64>,
    pub(super) kind: TensorType,
    pub(super) n_elements: u64,
    offset: u64,
    n_bytes: u64,
}

/// A container whose directory fits the file.
#[derive(Debug)]
pub(super) struct Container {
    pub(super) version: u32,
    pub(super) metadata: Vec<(String, Value)>,
    pub(super) tensors: Vec<Tensor>,
    pub(super) file_bytes: u64,
}

impl Container {
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.metadata.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    pub(super) fn string(&self, key: &str) -> Result<&str, Fault> {
        match self.get(key) {
            Some(Value::String(text)) => Ok(text),
            Some(other) => {
                Err(Fault::data(format!("`{key}` is of type {}, expected a string", other.type_name())))
            }
            None => Err(Fault::data(format!("`{key}` is missing"))),
        }
    }
}

/// Reads the container at `path`.
pub(super) fn read(path: &Path) -> Result<Container> {
    let file = open_regular(path).map_err(|cause| Error::io("open", path, cause))?;
    let meta = file.metadata().map_err(|cause| Error::io("read", path, cause))?;
    let input = Input { file: BufReader::with_capacity(1 << 16, file), position: 0, length: meta.len() };
    input.container().map_err(|failure| match failure {
        Failure::Fault(fault) => fault.at(path),
        Failure::Io(cause) => Error::io("read", path, cause),
    })
}

enum Failure {
    Fault(Fault),
    Io(std::io::Error),
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

fn fault<T>(what: impl Into<String>) -> Result<T, Failure> {
    Err(Failure::Fault(Fault::data(what)))
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

    fn bytes(&mut self, n: u64, what: &str) -> Result<Vec<u8>, Failure> {
        if n > self.left() {
            let (position, left) = (self.position, self.left());
            return fault(format!("truncated: {what} at byte {position} takes {n} bytes, {left} are left"));
        }
        // The file may shrink while it is read, so memory follows what is really there.
        let mut bytes = Vec::new();
        (&mut self.file).take(n).read_to_end(&mut bytes).map_err(Failure::Io)?;
        if bytes.len() as u64 != n {
            return fault(format!("truncated while reading {what} at byte {}", self.position));
        }
        self.position += n;
        Ok(bytes)
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

    fn string(&mut self, limit: u64, what: &str) -> Result<String, Failure> {
        let position = self.position;
        let n = self.u64(what)?;
        if n > limit {
            return fault(format!(
                "{what} at byte {position} is {n} bytes long, at most {limit} are allowed"
            ));
        }
        match String::from_utf8(self.bytes(n, what)?) {
            Ok(text) => Ok(text),
            Err(_) => fault(format!("{what} at byte {position} is not UTF-8")),
        }
    }

    fn container(mut self) -> Result<Container, Failure> {
        let magic: [u8; 4] = self.fixed("the magic bytes")?;
        if &magic != b"GGUF" {
            return fault("is not a GGUF file (it does not begin with `GGUF`)");
        }
        let version = self.u32("the version")?;
        if version != 2 && version != 3 {
            let big_endian = if version.swap_bytes() <= 3 { " (a big-endian file)" } else { "" };
            let what = format!("GGUF version {version}{big_endian} is not supported, expected 2 or 3");
            return Err(Failure::Fault(Fault { kind: ErrorKind::UnsupportedVersion, what }));
        }
        let n_tensors = self.u64("the number of tensors")?;
        let n_pairs = self.u64("the number of metadata pairs")?;
        if n_tensors == 0 || n_tensors > MAX_TENSORS {
            return fault(format!("{n_tensors} tensors, expected 1 to {MAX_TENSORS}"));
        }
        if n_pairs > MAX_PAIRS {
            return fault(format!("{n_pairs} metadata pairs, expected at most {MAX_PAIRS}"));
        }
        let mut metadata: Vec<(String, Value)> = Vec::new();
        for _ in 0..n_pairs {
            let key = self.string(MAX_KEY_BYTES, "a metadata key")?;
            if key.is_empty() || key.contains('\0') {
                return fault(format!("an empty or malformed metadata key before byte {}", self.position));
            }
            if metadata.iter().any(|(other, _)| *other == key) {
                return fault(format!("the metadata key `{key}` is there twice"));
            }
            let kind = self.u32(&key)?;
            let value = self.value(kind, &key)?;
            metadata.push((key, value));
        }
        let alignment = match metadata.iter().find(|(key, _)| key == "general.alignment") {
            None => 32,
            // Tensors are read where they lie, so they must be aligned for ggml's vector loads too.
            Some((_, Value::U32(alignment)))
                if alignment.is_power_of_two() && (32..=1 << 16).contains(alignment) =>
            {
                u64::from(*alignment)
            }
            Some((_, value)) => {
                return fault(format!(
                    "`general.alignment` is {value:?}, expected a power of two from 32 to 65536"
                ));
            }
        };
        let mut tensors: Vec<Tensor> = Vec::new();
        for _ in 0..n_tensors {
            tensors.push(self.tensor()?);
        }
        let mut names: Vec<&str> = tensors.iter().map(|tensor| tensor.name.as_str()).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return fault(format!("the tensor `{}` is there twice", twice[0]));
        }
        self.check_extents(&tensors, alignment)?;
        Ok(Container { version, metadata, tensors, file_bytes: self.length })
    }

    fn value(&mut self, kind: u32, key: &str) -> Result<Value, Failure> {
        Ok(match kind {
            0 => Value::U8(u8::from_le_bytes(self.fixed(key)?)),
            1 => Value::I8(i8::from_le_bytes(self.fixed(key)?)),
            2 => Value::U16(u16::from_le_bytes(self.fixed(key)?)),
            3 => Value::I16(i16::from_le_bytes(self.fixed(key)?)),
            4 => Value::U32(u32::from_le_bytes(self.fixed(key)?)),
            5 => Value::I32(i32::from_le_bytes(self.fixed(key)?)),
            6 => Value::F32(f32::from_le_bytes(self.fixed(key)?)),
            7 => match self.fixed::<1>(key)? {
                [0] => Value::Bool(false),
                [1] => Value::Bool(true),
                [other] => return fault(format!("`{key}` is a bool of value {other}")),
            },
            STRING => Value::String(self.string(u64::MAX, key)?),
            ARRAY => {
                let kind = self.u32(key)?;
                let n = self.u64(key)?;
                self.array(kind, n, key)?
            }
            10 => Value::U64(u64::from_le_bytes(self.fixed(key)?)),
            11 => Value::I64(i64::from_le_bytes(self.fixed(key)?)),
            12 => Value::F64(f64::from_le_bytes(self.fixed(key)?)),
            other => return fault(format!("`{key}` has the unknown type {other}")),
        })
    }

    fn array(&mut self, kind: u32, n: u64, key: &str) -> Result<Value, Failure> {
        let item = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            10..=12 => 8,
            STRING => {
                let mut bytes = Vec::new();
                let mut ends = Vec::new();
                if n > self.left() / 8 {
                    return fault(format!("`{key}`: {n} strings do not fit into the file"));
                }
                for _ in 0..n {
                    let length = self.u64(key)?;
                    bytes.extend_from_slice(&self.bytes(length, key)?);
                    ends.push(bytes.len() as u64);
                }
                return Ok(Value::Strings { bytes, ends });
            }
            other => return fault(format!("`{key}` is an array of the unknown type {other}")),
        };
        match n.checked_mul(item) {
            Some(n_bytes) => Ok(Value::Numbers { kind, bytes: self.bytes(n_bytes, key)? }),
            None => fault(format!("`{key}`: {n} numbers do not fit into the file")),
        }
    }

    fn tensor(&mut self) -> Result<Tensor, Failure> {
        let name = self.string(MAX_TENSOR_NAME_BYTES, "a tensor's name")?;
        if name.is_empty() || name.contains('\0') {
            return fault(format!("an empty or malformed tensor name before byte {}", self.position));
        }
        let n_dims = self.u32(&name)?;
        if n_dims == 0 || n_dims > MAX_DIMS {
            return fault(format!("tensor `{name}` has {n_dims} dimensions, expected 1 to {MAX_DIMS}"));
        }
        let mut shape = Vec::new();
        for _ in 0..n_dims {
            shape.push(self.u64(&name)?);
        }
        let number = self.u32(&name)?;
        let offset = self.u64(&name)?;
        let Some(kind) = TensorType::new(number) else {
            let what = format!("tensor `{name}` has ggml type {number}, which this build does not run");
            return Err(Failure::Fault(Fault::unsupported(what)));
        };
        let (block, block_bytes) = kind.block();
        let elements =
            shape.iter().try_fold(1u64, |n, &dim| if dim == 0 { None } else { n.checked_mul(dim) });
        let Some(n_elements) = elements.filter(|n| *n <= i64::MAX as u64 / 4) else {
            return fault(format!("tensor `{name}` has the impossible shape {shape:?}"));
        };
        if shape[0] % block != 0 {
            let (row, kind) = (shape[0], kind.name());
            return fault(format!(
                "tensor `{name}`: rows of {row} values are no whole blocks of {kind} ({block})"
            ));
        }
        while shape.len() > 1 && shape.last() == Some(&1) {
            shape.pop();
        }
        // No overflow: blocks have at most 4 bytes a value.
        let n_bytes = n_elements / block * block_bytes;
        Ok(Tensor { name, shape, kind, n_elements, offset, n_bytes })
    }

    /// Tensors lie one after the other, in the order of the directory, padded to the alignment (as `gguf.cpp` demands),
    /// and end inside the file.
    fn check_extents(&self, tensors: &[Tensor], alignment: u64) -> Result<(), Failure> {
        let padded = |n: u64| n.checked_next_multiple_of(alignment);
        let mut expected = Some(0);
        let Some(start) = padded(self.position).filter(|start| *start <= self.length) else {
            return fault(format!(
                "truncated: the file ends before the tensors' data at byte {}",
                self.position
            ));
        };
        for Tensor { name, offset, n_bytes, .. } in tensors {
            if Some(*offset) != expected {
                return fault(format!(
                    "tensor `{name}` is at offset {offset}, expected {}",
                    expected.unwrap_or(0)
                ));
            }
            if n_bytes.checked_add(*offset).is_none_or(|end| end > self.length - start) {
                let data = self.length - start;
                return fault(format!(
                    "truncated: tensor `{name}` takes {n_bytes} bytes from offset {offset}, the file has {data} bytes of data"
                ));
            }
            expected = padded(*n_bytes).and_then(|n| n.checked_add(*offset));
        }
        Ok(())
    }
}
