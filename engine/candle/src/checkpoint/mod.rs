//! Checkpoints on disk: which tensors there are, and their values, read piece by piece. A GGUF file of the llama family is read as
//! the Hugging Face folder that it was made of (see [`crate::gguf`]).
//!
//! `model.safetensors` and `pytorch_model.bin`, whole or in shards with an index. Opening reads headers only; values are
//! read from their place in the file when asked for, so that a converter needs memory for a few rows and not for the
//! model. Nothing in a checkpoint is ever executed (see [`pickle`]), and every size is checked against the file before
//! memory is asked for.

mod pickle;
mod torch;

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use inhouse_core::safetensors::{StoredTensor, read_header};
use inhouse_core::{Error, ErrorKind, Result, files};
use serde::Deserialize;

use crate::{backend_error, gguf};

pub use inhouse_core::safetensors::{ElementType, write_safetensors};

/// Where a tensor lies and how it is shaped.
#[derive(Debug, Clone)]
pub struct TensorInfo {
    /// Element type.
    pub dtype: ElementType,
    /// Dimensions, outermost first; elements are row-major.
    pub shape: Vec<usize>,
    /// Byte offset of the first element in its file.
    offset: u64,
    /// Index into the checkpoint's files.
    file: usize,
    /// False for a transposed or strided view of a torch storage, which is not read.
    contiguous: bool,
    /// Of a GGUF file: how its rows are stored. `dtype` is then what they are read as.
    gguf: Option<gguf::Rows>,
}

impl TensorInfo {
    /// Number of elements. It fits: the extent was checked against the file when the checkpoint was opened.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it has no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// An opened checkpoint.
#[derive(Debug)]
pub struct Checkpoint {
    dir: PathBuf,
    files: Vec<(PathBuf, File)>,
    tensors: BTreeMap<String, TensorInfo>,
}

/// The files that may hold the weights of a folder, in the order in which they are looked for.
const LAYOUTS: [(&str, bool); 4] = [
    ("model.safetensors", false),
    ("model.safetensors.index.json", true),
    ("pytorch_model.bin", false),
    ("pytorch_model.bin.index.json", true),
];

#[derive(Deserialize)]
struct ShardIndex {
    weight_map: BTreeMap<String, String>,
}

impl Checkpoint {
    /// Opens the weights of a Hugging Face folder, or a GGUF file, and reads their headers.
    ///
    /// # Errors
    /// No weights in `dir`; a header that is truncated, corrupted or disagrees with its file; a pickle that holds
    /// anything beside tensors; a shard that is missing.
    pub fn open(dir: &Path) -> Result<Self> {
        let mut checkpoint = Self { dir: dir.to_path_buf(), files: Vec::new(), tensors: BTreeMap::new() };
        if dir.is_file() {
            checkpoint.open_gguf(dir)?;
            return Ok(checkpoint);
        }
        for (name, is_index) in LAYOUTS {
            let path = dir.join(name);
            if !path.exists() {
                continue;
            }
            if is_index {
                checkpoint.open_shards(&path)?;
            } else {
                let tensors = checkpoint.open_file(path)?;
                checkpoint.tensors = tensors;
            }
            return Ok(checkpoint);
        }
        let names = LAYOUTS.map(|(name, _)| name).join(", ");
        if !dir.is_dir() {
            return Err(Error::new(ErrorKind::NotFound, format!("{}: no such folder", dir.display())));
        }
        Err(Error::new(
            ErrorKind::NotFound,
            format!("{}: holds no weights (looked for {names})", dir.display()),
        ))
    }

    fn open_gguf(&mut self, path: &Path) -> Result<()> {
        let file = files::open_regular(path).map_err(|cause| Error::io("open", path, cause))?;
        for gguf::NamedTensor { name, shape, offset, dtype, rows } in gguf::Gguf::open(path)?.tensors()? {
            let info = TensorInfo { dtype, shape, offset, file: 0, contiguous: true, gguf: Some(rows) };
            self.tensors.insert(name, info);
        }
        self.files.push((path.to_path_buf(), file));
        Ok(())
    }

    fn open_shards(&mut self, index_path: &Path) -> Result<()> {
        let text = files::read_text(index_path)?;
        let index: ShardIndex = serde_json::from_str(&text)
            .map_err(|cause| Error::data(index_path, format!("not an index of shards: {cause}")))?;
        let mut by_file: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (tensor, file) in &index.weight_map {
            by_file.entry(file).or_default().push(tensor);
        }
        for (file, names) in by_file {
            // A shard lies beside its index: a path out of the folder is no shard.
            if file.is_empty() || file.contains(['/', '\\', '\0']) || file == ".." {
                return Err(Error::data(index_path, format!("shard {file:?} is not a plain file name")));
            }
            let path = self.dir.join(file);
            let mut tensors = self.open_file(path.clone())?;
            for name in names {
                let info = tensors.remove(name).ok_or_else(|| {
                    Error::data(
                        &path,
                        format!("tensor {name} is missing ({} says it is here)", index_path.display()),
                    )
                })?;
                self.tensors.insert(name.to_owned(), info);
            }
        }
        Ok(())
    }

    /// Reads the header of one file of weights and keeps the file open.
    fn open_file(&mut self, path: PathBuf) -> Result<BTreeMap<String, TensorInfo>> {
        let file = files::open_regular(&path).map_err(|cause| Error::io("open", &path, cause))?;
        let index = self.files.len();
        let tensors = if path.extension().is_some_and(|extension| extension == "safetensors") {
            let of = |StoredTensor { dtype, shape, offset }| TensorInfo {
                dtype,
                shape,
                offset,
                file: index,
                contiguous: true,
                gguf: None,
            };
            read_header(&path, &file)?.into_iter().map(|(name, stored)| (name, of(stored))).collect()
        } else {
            torch::read_header(&path, &file, index)?
        };
        self.files.push((path, file));
        Ok(tensors)
    }

    /// The files that hold the weights.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|(path, _)| path.as_path())
    }

    /// The folder it was opened from.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// All tensors by name.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &TensorInfo)> {
        self.tensors.iter().map(|(name, info)| (name.as_str(), info))
    }

    /// A tensor's place and shape, where there is such a tensor.
    pub fn get(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name)
    }

    /// A floating-point tensor that must be there with exactly this shape.
    ///
    /// # Errors
    /// It is missing, of another shape, of a type that is no weight, or strided.
    pub fn require(&self, name: &str, shape: &[usize]) -> Result<&TensorInfo> {
        let info = self
            .get(name)
            .ok_or_else(|| Error::data(&self.dir, format!("tensor {name} is missing from the checkpoint")))?;
        let path = &self.files[info.file].0;
        if info.shape != shape {
            let what = format!("tensor {name} has shape {:?}, config.json asks for {shape:?}", info.shape);
            return Err(Error::data(path, what));
        }
        if matches!(info.dtype, ElementType::Other(_)) {
            return Err(Error::data(
                path,
                format!("tensor {name} is not of a floating-point type (F32, F16, BF16, F64)"),
            ));
        }
        if !info.contiguous {
            let what = format!("tensor {name} is a strided view; save the model with contiguous tensors");
            return Err(Error::data(path, what));
        }
        Ok(info)
    }

    /// The file that holds a tensor, for messages.
    pub fn path_of(&self, info: &TensorInfo) -> &Path {
        &self.files[info.file].0
    }

    /// Reads elements `start..start + out.len()` (row-major) of a tensor as f32.
    ///
    /// # Errors
    /// The range is outside the tensor, its type is no weight, or the file cannot be read.
    pub fn read_f32(&self, info: &TensorInfo, start: usize, out: &mut [f32]) -> Result<()> {
        if let Some(rows) = &info.gguf {
            self.check_range(info, start, out.len())?;
            let (path, file) = &self.files[info.file];
            return rows.read(path, file, info.offset, &info.shape, start, out);
        }
        let mut bytes = vec![0u8; out.len() * info.dtype.size()];
        self.read_bytes(info, start, &mut bytes)?;
        if info.dtype.widen(&bytes, out) {
            return Ok(());
        }
        Err(Error::data(self.path_of(info), "a tensor of this type is no weight"))
    }

    fn check_range(&self, info: &TensorInfo, start: usize, count: usize) -> Result<()> {
        if start.checked_add(count).is_some_and(|end| end <= info.len()) {
            return Ok(());
        }
        let what = format!("elements {start}.. ({count} of them) are outside a tensor of {}", info.len());
        Err(Error::new(ErrorKind::Internal, format!("{}: {what}", self.path_of(info).display())))
    }

    fn read_bytes(&self, info: &TensorInfo, start: usize, bytes: &mut [u8]) -> Result<()> {
        let (path, file) = &self.files[info.file];
        self.check_range(info, start, bytes.len() / info.dtype.size())?;
        let offset = info.offset + (start * info.dtype.size()) as u64;
        file.read_exact_at(bytes, offset).map_err(|cause| Error::io("read", path, cause))
    }

    /// Loads a whole tensor of the given shape in `dtype` onto `device`.
    ///
    /// # Errors
    /// As [`Checkpoint::require`], and when the file cannot be read or memory is not to be had.
    pub fn tensor(&self, name: &str, shape: &[usize], dtype: DType, device: &Device) -> Result<Tensor> {
        let info = self.require(name, shape)?;
        if info.gguf.is_some() {
            let mut values = vec![0f32; info.len()];
            self.read_f32(info, 0, &mut values)?;
            return Tensor::from_vec(values, shape, device)
                .and_then(|tensor| tensor.to_dtype(dtype))
                .map_err(backend_error);
        }
        let mut bytes = vec![0u8; info.len() * info.dtype.size()];
        self.read_bytes(info, 0, &mut bytes)?;
        let stored = match info.dtype {
            ElementType::F64 => DType::F64,
            ElementType::F32 => DType::F32,
            ElementType::F16 => DType::F16,
            ElementType::BF16 | ElementType::Other(_) => DType::BF16,
        };
        Tensor::from_raw_buffer(&bytes, stored, shape, device)
            .and_then(|tensor| tensor.to_dtype(dtype))
            .map_err(backend_error)
    }
}

#[cfg(test)]
mod tests;
