//! A GGUF model as a Hugging Face folder: what transformers, PEFT and this engine's trainers read.

use std::path::{Path, PathBuf};

use inhouse_candle::checkpoint::Checkpoint;
use inhouse_candle::config::ConfigFile;
use inhouse_candle::gguf::read_tokenizer;
use inhouse_core::safetensors::{ElementType, write_as};
use inhouse_core::{Error, ErrorKind, Progress, Result, files};
use serde::Serialize;

use crate::convert::CHUNK_VALUES;

/// What to convert.
#[derive(Debug, Clone)]
pub struct FolderOptions {
    /// The GGUF model, of an architecture that [`inhouse_candle::gguf`] reads.
    pub from: PathBuf,
    /// The folder to write; files of these names in it are replaced.
    pub out: PathBuf,
    /// Element type of the weights.
    pub dtype: ElementType,
}

/// What was written.
#[derive(Debug, Clone, Serialize)]
pub struct FolderReport {
    /// Number of tensors.
    pub tensors: usize,
    /// Their elements.
    pub parameters: u64,
}

/// Writes `config.json`, `tokenizer.json`, `tokenizer_config.json` and `model.safetensors`, the weights last. Quantised weights are
/// widened; what they lost when they were quantised does not come back.
///
/// # Errors
/// The file cannot be read as a checkpoint; the folder cannot be written.
pub fn write_folder(options: &FolderOptions, progress: &dyn Progress) -> Result<FolderReport> {
    let FolderOptions { from, out, dtype } = options;
    if !from.is_file() {
        return Err(Error::new(ErrorKind::NotFound, format!("{}: no such file", from.display())));
    }
    let config = ConfigFile::read(from)?;
    let checkpoint = Checkpoint::open(from)?;
    let tokenizer = read_tokenizer(from)?;
    std::fs::create_dir_all(out).map_err(|cause| Error::io("create", out, cause))?;
    let mut settings: serde_json::Value = serde_json::from_str(&config.to_json())
        .map_err(|cause| Error::new(ErrorKind::Internal, format!("no configuration: {cause}")))?;
    settings["torch_dtype"] = match dtype {
        ElementType::F16 => "float16",
        ElementType::BF16 => "bfloat16",
        _ => "float32",
    }
    .into();
    write_json(&out.join("config.json"), &settings)?;
    write_json(&out.join("tokenizer.json"), &tokenizer.tree)?;
    write_json(&out.join("tokenizer_config.json"), &tokenizer.settings())?;

    let tensors: Vec<(&str, &[usize])> =
        checkpoint.tensors().map(|(name, info)| (name, info.shape.as_slice())).collect();
    let n_values: u64 = checkpoint.tensors().map(|(_, info)| info.len() as u64).sum();
    progress.start("widening", Some(n_values));
    let mut failure = None;
    let written = write_as(&out.join("model.safetensors"), *dtype, &tensors, |name, put| {
        let Some(info) = checkpoint.get(name) else { return Ok(()) };
        let mut values = vec![0f32; CHUNK_VALUES.min(info.len())];
        let mut begin = 0;
        while begin < info.len() {
            let n = values.len().min(info.len() - begin);
            let read = progress.check().and_then(|()| checkpoint.read_f32(info, begin, &mut values[..n]));
            if let Err(error) = read {
                failure = Some(error);
                return Err(std::io::Error::other("the input cannot be read"));
            }
            put(&values[..n])?;
            progress.advance(n as u64);
            begin += n;
        }
        Ok(())
    });
    progress.finish();
    match failure {
        Some(error) => Err(error),
        None => written.map(|()| FolderReport { tensors: tensors.len(), parameters: n_values }),
    }
}

fn write_json(path: &Path, value: &serde_json::Value) -> Result<()> {
    let text = serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string());
    files::write_atomic(path, |file| writeln!(file, "{text}"))
}
