//! `pytorch_model.bin` as `torch.save` writes it since torch 1.6: a zip archive with `NAME/data.pkl` (the state dict) and
//! one uncompressed entry `NAME/data/KEY` per storage, so that a tensor is a range of bytes of the file.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use inhouse_core::safetensors::checked_extent;
use inhouse_core::{Error, Result};
use zip::{CompressionMethod, ZipArchive};

use super::pickle::{self, PickledTensor};
use super::{ElementType, TensorInfo};

/// A state dict of 100,000 tensors pickles to less.
const MAX_PICKLE_BYTES: u64 = 16 << 20;

/// Byte range of an entry's content in the archive.
#[derive(Clone, Copy)]
struct Extent {
    start: u64,
    bytes: u64,
}

pub(super) fn read_header(
    path: &Path,
    file: &File,
    file_index: usize,
) -> Result<BTreeMap<String, TensorInfo>> {
    let mut magic = [0u8; 4];
    let head = file.read_at(&mut magic, 0).map_err(|cause| Error::io("read", path, cause))?;
    if head >= 2 && magic[0] == 0x80 {
        let what =
            "torch's format from before 1.6 (a bare pickle); load and save it again with a newer torch";
        return Err(Error::data(path, what));
    }
    let bad =
        |cause: zip::result::ZipError| Error::data(path, format!("not a torch checkpoint (zip): {cause}"));
    let reader = file.try_clone().map_err(|cause| Error::io("read", path, cause))?;
    let mut archive = ZipArchive::new(BufReader::new(reader)).map_err(bad)?;
    let file_bytes = file.metadata().map_err(|cause| Error::io("read", path, cause))?.len();

    let mut extents: HashMap<String, Extent> = HashMap::new();
    let mut pickle_entry = None;
    for i in 0..archive.len() {
        let entry = archive.by_index_raw(i).map_err(bad)?;
        let name = entry.name().to_owned();
        if entry.compression() != CompressionMethod::Stored {
            return Err(Error::data(path, format!("entry {name:?} is compressed, as torch never writes it")));
        }
        if name.ends_with("/data.pkl") || name == "data.pkl" {
            if pickle_entry.is_some() {
                return Err(Error::data(path, "holds two data.pkl"));
            }
            pickle_entry = Some((i, name));
            continue;
        }
        let extent = Extent { start: entry.data_start(), bytes: entry.size() };
        if extent.start.checked_add(extent.bytes).is_none_or(|end| end > file_bytes) {
            return Err(Error::data(path, format!("truncated: entry {name:?} ends beyond the file")));
        }
        extents.insert(name, extent);
    }
    let (pickle_index, pickle_name) = pickle_entry
        .ok_or_else(|| Error::data(path, "not a torch checkpoint: the archive has no data.pkl"))?;
    let mut bytes = Vec::new();
    archive
        .by_index(pickle_index)
        .map_err(bad)?
        .take(MAX_PICKLE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|cause| Error::data(path, format!("{pickle_name}: {cause}")))?;
    if bytes.len() as u64 > MAX_PICKLE_BYTES {
        return Err(Error::data(path, format!("{pickle_name} is over {MAX_PICKLE_BYTES} bytes")));
    }
    let pickled =
        pickle::state_dict(&bytes).map_err(|what| Error::data(path, format!("{pickle_name}: {what}")))?;

    let folder = pickle_name.strip_suffix("data.pkl").unwrap_or_default();
    let mut tensors = BTreeMap::new();
    for (name, tensor) in pickled {
        let info = locate(&tensor, folder, &extents, file_index)
            .map_err(|what| Error::data(path, format!("tensor {name}: {what}")))?;
        tensors.insert(name.to_string(), info);
    }
    Ok(tensors)
}

/// Where a pickled tensor's elements lie, checked against its storage.
fn locate(
    tensor: &PickledTensor,
    folder: &str,
    extents: &HashMap<String, Extent>,
    file_index: usize,
) -> Result<TensorInfo, String> {
    let dtype = storage_type(&tensor.storage_type)
        .ok_or_else(|| format!("unsupported storage type {:?}", tensor.storage_type))?;
    let entry = format!("{folder}data/{}", tensor.storage_key);
    let extent = *extents.get(&entry).ok_or_else(|| format!("the archive has no entry {entry:?}"))?;
    let too_long = || format!("shape {:?} runs beyond its storage of {} bytes", tensor.shape, extent.bytes);
    let skipped = tensor.offset.checked_mul(dtype.size() as u64).ok_or_else(too_long)?;
    let available = extent.bytes.checked_sub(skipped).ok_or_else(too_long)?;
    checked_extent(&tensor.shape, dtype, available).ok_or_else(too_long)?;
    let contiguous = is_row_major(&tensor.shape, &tensor.strides);
    Ok(TensorInfo {
        dtype,
        shape: tensor.shape.clone(),
        offset: extent.start + skipped,
        file: file_index,
        contiguous,
        gguf: None,
    })
}

fn is_row_major(shape: &[usize], strides: &[usize]) -> bool {
    let mut expected = 1usize;
    shape.len() == strides.len()
        && shape.iter().zip(strides).rev().all(|(&dim, &stride)| {
            let fits = dim <= 1 || stride == expected;
            expected = expected.saturating_mul(dim);
            fits
        })
}

fn storage_type(class: &str) -> Option<ElementType> {
    Some(match class {
        "DoubleStorage" => ElementType::F64,
        "FloatStorage" => ElementType::F32,
        "HalfStorage" => ElementType::F16,
        "BFloat16Storage" => ElementType::BF16,
        "BoolStorage" | "ByteStorage" | "CharStorage" => ElementType::Other(1),
        "ShortStorage" => ElementType::Other(2),
        "IntStorage" => ElementType::Other(4),
        "LongStorage" => ElementType::Other(8),
        _ => return None,
    })
}
