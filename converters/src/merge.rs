//! A GGUF model with low-rank adapters added to its weights, and stored as another type where that is asked for.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use inhouse_candle::gguf::{dequantize, ggml_dtype};
use inhouse_core::gguf::{self, Header, TensorEntry, TensorSpec, TensorType, Value, Writer};
use inhouse_core::lora::{Adapter, LoraChoice, Module, combined};
use inhouse_core::{Error, ErrorKind, Progress, Result, files};
use serde::Serialize;

use crate::convert::{CHUNK_VALUES, Failure, encode_rows, write_or_fail};
use crate::quantize::{Model, Quantization};

/// Bytes copied at a time.
const COPY_BYTES: usize = 4 << 20;

/// What to merge, and how.
#[derive(Debug, Clone)]
pub struct MergeOptions {
    /// The GGUF model.
    pub model: PathBuf,
    /// PEFT folders or GGUF adapters; their effects add up. None: the model is only stored anew.
    pub adapters: Vec<LoraChoice>,
    /// The GGUF file to write; an existing one is replaced once the new one is complete.
    pub out: PathBuf,
    /// How matrices are stored; `None`: as in the model.
    pub quantization: Option<Quantization>,
    /// `general.name`; `None`: the model's.
    pub name: Option<String>,
}

/// What was written.
#[derive(Debug, Clone, Serialize)]
pub struct MergeReport {
    /// `general.architecture`.
    pub architecture: String,
    /// Number of tensors.
    pub tensors: usize,
    /// Weights that an adapter changed.
    pub adapted: usize,
    /// Size of the tensors in the file.
    pub bytes: u64,
}

/// Adds adapters to a model. Everything is checked before the first byte is written, and the file appears only when complete.
///
/// # Errors
/// As [`gguf::read`] and [`Adapter::for_gguf`]; weights of a type that cannot be widened or stored; a weight that is not finite; the
/// output cannot be written.
pub fn merge(options: &MergeOptions, progress: &dyn Progress) -> Result<MergeReport> {
    let path = &options.model;
    let header = gguf::read(path)?;
    let mut parts = Vec::with_capacity(options.adapters.len());
    for choice in &options.adapters {
        parts.push((Adapter::read(&choice.path)?.for_gguf(&header)?, choice.scale));
    }
    let adapter = combined(parts)?;
    let module_of = |tensor: &TensorEntry| {
        let name = tensor.name.strip_suffix(".weight")?;
        adapter.as_ref()?.modules.get(name)
    };
    let specs = specs(path, &header, options.quantization, &module_of)?;
    let metadata = metadata(&header, options);
    let file = files::open_regular(path).map_err(|cause| Error::io("open", path, cause))?;
    let bytes = specs.iter().map(TensorSpec::bytes).sum();
    let report = MergeReport {
        architecture: header.text("general.architecture").unwrap_or_default().to_owned(),
        tensors: specs.len(),
        adapted: adapter.as_ref().map_or(0, |adapter| adapter.modules.len()),
        bytes,
    };
    progress.start("merging", Some(bytes));
    let written = write_or_fail(&options.out, |out| {
        let mut writer = Writer::new(out, &metadata, &specs)?;
        for (tensor, spec) in header.tensors.iter().zip(&specs) {
            progress.check().map_err(Failure::Input)?;
            writer.begin()?;
            let source = Stored { path, file: &file, begin: header.data_start + tensor.offset, tensor };
            match module_of(tensor) {
                None if *tensor.kind == *spec.kind => source.copy(&mut writer, progress)?,
                module => source.encode(spec, module, &mut writer, progress)?,
            }
        }
        writer.finish()?;
        Ok(())
    });
    progress.finish();
    written.map(|()| report)
}

/// The tensors of the new file, checked to be possible.
fn specs<'m>(
    path: &Path,
    header: &Header,
    quantization: Option<Quantization>,
    module_of: &dyn Fn(&TensorEntry) -> Option<&'m Module>,
) -> Result<Vec<TensorSpec>> {
    let model = Model::new(header.tensors.iter().map(|tensor| tensor.name.as_str()));
    let mut specs = Vec::with_capacity(header.tensors.len());
    for tensor in &header.tensors {
        let shape: Vec<usize> = tensor.dims().iter().rev().map(|&dim| dim as usize).collect();
        let kind: &'static TensorType = match quantization {
            Some(quantization) if shape.len() > 1 => quantization.for_tensor(&tensor.name, &shape, &model).1,
            _ => tensor.kind,
        };
        let plain = |kind: &TensorType| matches!(kind.name, "F32" | "F16" | "BF16");
        let known = |kind: &TensorType| plain(kind) || ggml_dtype(kind).is_some();
        let changes = *kind != *tensor.kind || module_of(tensor).is_some();
        if changes && let Some(kind) = [tensor.kind, kind].into_iter().find(|kind| !known(kind)) {
            let what = format!("tensor `{}` is {}, which cannot be converted here", tensor.name, kind.name);
            return Err(Error::new(ErrorKind::Unsupported, format!("{}: {what}", path.display())));
        }
        specs.push(TensorSpec { name: tensor.name.clone(), shape, kind });
    }
    Ok(specs)
}

fn metadata(header: &Header, options: &MergeOptions) -> Vec<(String, Value)> {
    // The file is written with the format's own alignment.
    let kept = header.metadata.iter().filter(|(key, _)| key != "general.alignment");
    let mut metadata: Vec<(String, Value)> = kept.cloned().collect();
    let mut set = |key: &str, value: Value| match metadata.iter_mut().find(|(known, _)| known == key) {
        Some((_, old)) => *old = value,
        None => metadata.push((key.to_owned(), value)),
    };
    if let Some(quantization) = options.quantization {
        set("general.file_type", Value::U32(quantization.file_type()));
        set("general.quantization_version", Value::U32(crate::convert::QUANTIZATION_VERSION));
    }
    if let Some(name) = &options.name {
        set("general.name", Value::from(name.as_str()));
    }
    metadata
}

/// A tensor where it lies.
struct Stored<'s> {
    path: &'s Path,
    file: &'s File,
    begin: u64,
    tensor: &'s TensorEntry,
}

impl Stored<'_> {
    fn read(&self, at: u64, bytes: &mut [u8]) -> Result<(), Failure> {
        self.file
            .read_exact_at(bytes, self.begin + at)
            .map_err(|cause| Failure::Input(Error::io("read", self.path, cause)))
    }

    fn copy(&self, writer: &mut Writer<'_>, progress: &dyn Progress) -> Result<(), Failure> {
        let n_bytes = self.tensor.n_bytes();
        let mut at = 0;
        let mut piece = vec![0u8; COPY_BYTES.min(n_bytes as usize)];
        while at < n_bytes {
            let n = piece.len().min((n_bytes - at) as usize);
            self.read(at, &mut piece[..n])?;
            writer.write(&piece[..n])?;
            progress.advance(n as u64);
            at += n as u64;
        }
        Ok(())
    }

    /// Writes the tensor as `spec` has it, with what `module` adds.
    fn encode(
        &self,
        spec: &TensorSpec,
        module: Option<&Module>,
        writer: &mut Writer<'_>,
        progress: &dyn Progress,
    ) -> Result<(), Failure> {
        let columns = self.tensor.dims()[0] as usize;
        let rows = (self.tensor.n_elements() / columns as u64) as usize;
        let kind = self.tensor.kind;
        let row_bytes = kind.bytes(columns as u64).unwrap_or(0) as usize;
        let chunk = (CHUNK_VALUES / columns).max(1);
        let mut begin = 0;
        while begin < rows {
            let n = chunk.min(rows - begin);
            let mut bytes = vec![0u8; n * row_bytes];
            self.read((begin * row_bytes) as u64, &mut bytes)?;
            let mut values = vec![0f32; n * columns];
            dequantize(kind, &bytes, &mut values).map_err(Failure::Input)?;
            if let Some(module) = module {
                module.add_to_rows(begin, &mut values);
            }
            let encoded = encode_rows(spec.kind, &values, columns).map_err(|what| {
                Failure::Input(Error::data(self.path, format!("tensor `{}` {what}", self.tensor.name)))
            })?;
            for piece in encoded {
                writer.write(&piece)?;
                progress.advance(piece.len() as u64);
            }
            begin += n;
        }
        Ok(())
    }
}
