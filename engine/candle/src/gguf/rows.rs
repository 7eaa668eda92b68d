//! Stored rows of a GGUF file as f32.

use std::borrow::Cow;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{Device, Tensor};
use inhouse_core::gguf::TensorType;
use inhouse_core::safetensors::ElementType;
use inhouse_core::{Error, ErrorKind, Result};

/// Rows read at a time: 4 MiB as f32.
const CHUNK_VALUES: usize = 1 << 20;

/// How the rows of a tensor lie in the file.
#[derive(Debug, Clone)]
pub(crate) struct Rows {
    kind: &'static TensorType,
    /// The stored row of each; `None`: in their order.
    order: Option<Vec<usize>>,
}

impl Rows {
    /// # Errors
    /// The type is none that is widened.
    pub fn new(kind: &'static TensorType, order: Option<Vec<usize>>) -> std::result::Result<Self, String> {
        if element(kind).is_none() && ggml_dtype(kind).is_none() {
            return Err(format!("is stored as {}, which cannot be widened to f32 here", kind.name));
        }
        Ok(Self { kind, order })
    }

    /// Elements `start..start + out.len()` (row-major) of a tensor of `shape` whose first row lies at `offset`.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(
        &self,
        path: &Path,
        file: &File,
        offset: u64,
        shape: &[usize],
        start: usize,
        out: &mut [f32],
    ) -> Result<()> {
        // The rows of a vector that is re-ordered are its elements.
        let columns = match (&self.order, shape) {
            (Some(_), [_]) => 1,
            (_, shape) => shape.last().copied().unwrap_or(1),
        };
        if out.is_empty() || columns == 0 {
            return Ok(());
        }
        let row_bytes = self.kind.bytes(columns as u64).unwrap_or(0);
        let end = start + out.len();
        let rows: Vec<usize> = (start / columns..end.div_ceil(columns)).collect();
        let stored = |row: usize| self.order.as_ref().map_or(row, |order| order[row]);
        let (mut bytes, mut values) = (Vec::new(), Vec::new());
        // A run of rows that lie one after the other is one read.
        for run in rows.chunk_by(|&row, &next| stored(row) + 1 == stored(next)) {
            for piece in run.chunks((CHUNK_VALUES / columns).max(1)) {
                let first = piece[0];
                bytes.resize(piece.len() * row_bytes as usize, 0);
                values.resize(piece.len() * columns, 0f32);
                file.read_exact_at(&mut bytes, offset + stored(first) as u64 * row_bytes)
                    .map_err(|cause| Error::io("read", path, cause))?;
                dequantize(self.kind, &bytes, &mut values)?;
                let (from, to) = ((first * columns).max(start), ((first + piece.len()) * columns).min(end));
                out[from - start..to - start]
                    .copy_from_slice(&values[from - first * columns..to - first * columns]);
            }
        }
        Ok(())
    }
}

/// The type of plain elements.
fn element(kind: &TensorType) -> Option<ElementType> {
    Some(match kind.name {
        "F32" => ElementType::F32,
        "F16" => ElementType::F16,
        "BF16" => ElementType::BF16,
        "F64" => ElementType::F64,
        _ => return None,
    })
}

/// candle's type of quantised blocks, where it has one.
pub fn ggml_dtype(kind: &TensorType) -> Option<GgmlDType> {
    Some(match kind.name {
        "Q4_0" => GgmlDType::Q4_0,
        "Q4_1" => GgmlDType::Q4_1,
        "Q5_0" => GgmlDType::Q5_0,
        "Q5_1" => GgmlDType::Q5_1,
        "Q8_0" => GgmlDType::Q8_0,
        "Q2_K" => GgmlDType::Q2K,
        "Q3_K" => GgmlDType::Q3K,
        "Q4_K" => GgmlDType::Q4K,
        "Q5_K" => GgmlDType::Q5K,
        "Q6_K" => GgmlDType::Q6K,
        _ => return None,
    })
}

/// Widens whole blocks of a storage type to f32: as many values as `out` holds.
///
/// # Errors
/// A type that candle does not know ([`ErrorKind::Unsupported`]), or bytes that are no whole blocks.
pub fn dequantize(kind: &TensorType, bytes: &[u8], out: &mut [f32]) -> Result<()> {
    if kind.bytes(out.len() as u64) != Some(bytes.len() as u64) || !out.len().is_multiple_of(kind.block_len) {
        let what = format!("{} bytes of {} for {} values", bytes.len(), kind.name, out.len());
        return Err(Error::new(ErrorKind::Internal, what));
    }
    if element(kind).is_some_and(|element| element.widen(bytes, out)) {
        return Ok(());
    }
    let Some(dtype) = ggml_dtype(kind) else {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!("{} cannot be widened to f32 here", kind.name),
        ));
    };
    // Blocks hold 16-bit scales, which candle reads in place.
    let copy: Vec<u8>;
    let bytes = match bytes.as_ptr().align_offset(8) {
        0 => bytes,
        _ => {
            copy = bytes.to_vec();
            &copy
        }
    };
    let widen = || -> candle_core::Result<Vec<f32>> {
        let storage = QStorage::from_data(Cow::Borrowed(bytes), &Device::Cpu, dtype)?;
        let widened: Tensor = QTensor::new(storage, out.len())?.dequantize(&Device::Cpu)?;
        widened.to_vec1()
    };
    out.copy_from_slice(&widen().map_err(crate::backend_error)?);
    Ok(())
}
