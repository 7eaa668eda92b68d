//! From a Hugging Face folder to a GGUF file, streamed.

use std::io::Write;
use std::path::{Path, PathBuf};

use inhouse_candle::checkpoint::{Checkpoint, ElementType};
use inhouse_candle::config::ConfigFile;
use inhouse_candle::encoder_fingerprint;
use inhouse_candle::vocabulary::Vocabulary;
use inhouse_core::{Error, ErrorKind, Progress, Result, files};
use rayon::prelude::*;
use serde::Serialize;

use crate::arch::{self, Plan, Source, Tensor};
use crate::quantize::{self, Model, Quantization};
use crate::{tokenizer, wordpiece};
use inhouse_core::gguf::{TensorSpec, TensorType, Value, Writer};

/// Version of the quantised blocks' layouts (`GGML_QNT_VERSION` in `ggml.h`).
pub(crate) const QUANTIZATION_VERSION: u32 = 2;
/// Values read, encoded and written at a time: 8 MiB as f32.
pub(crate) const CHUNK_VALUES: usize = 2 << 20;
/// Values encoded by one thread at a time.
const TASK_VALUES: usize = 64 << 10;

/// What to convert, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// Hugging Face folder: `config.json`, weights, tokenizer files.
    pub from: PathBuf,
    /// The GGUF file to write; an existing one is replaced once the new one is complete.
    pub out: PathBuf,
    /// How matrices are stored; `None`: as in the checkpoint.
    pub quantization: Option<Quantization>,
    /// How the token embedding is stored; `None`: as `quantization` has it.
    pub token_embedding: Option<Quantization>,
    /// `general.name`; `None`: the folder's name.
    pub name: Option<String>,
}

/// What was written.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// `model_type` of the checkpoint.
    pub model_type: &'static str,
    /// `general.architecture` of the file.
    pub architecture: &'static str,
    /// How matrices are stored.
    pub file_type: &'static str,
    /// Number of tensors.
    pub tensors: usize,
    /// Elements of all tensors.
    pub parameters: u64,
    /// Size of the tensors in the file.
    pub bytes: u64,
    /// Tensors that do not fit the type asked for, and what they got.
    pub fallbacks: Vec<String>,
    /// What else the user may want to know.
    pub notes: Vec<String>,
}

/// Converts a checkpoint. Everything is checked before the first byte is written, and the file appears only when complete.
///
/// # Errors
/// The architecture is not known; a file is missing, truncated or malformed; a key or tensor is missing or of the wrong
/// shape; a weight is not finite or does not fit the type; the output cannot be written.
pub fn convert(options: &Options, progress: &dyn Progress) -> Result<Report> {
    let config = ConfigFile::read(&options.from)?;
    let architecture = arch::of(&config)?;
    let checkpoint = Checkpoint::open(&options.from)?;
    let plan = (architecture.plan)(&config, &checkpoint)?;
    let quantization = match options.quantization {
        Some(quantization) => quantization,
        None => stored_as(&plan, &checkpoint),
    };

    let (kinds, fallbacks) = choose(&plan, quantization, options.token_embedding);
    let specs: Vec<TensorSpec> = plan
        .tensors
        .iter()
        .zip(&kinds)
        .map(|(tensor, kind)| TensorSpec { name: tensor.name.clone(), shape: tensor.shape.clone(), kind })
        .collect();
    let mut metadata = general(options, &config, &plan, architecture.model_type, quantization)?;
    let mut notes = plan.notes.clone();
    match &plan.encoder {
        Some((bert, settings)) => {
            let fingerprint = encoder_fingerprint(&options.from)?;
            metadata.extend(wordpiece::metadata(&options.from, bert, settings, fingerprint)?);
        }
        None => {
            let vocabulary = Vocabulary::read(&options.from, plan.vocab_size, &config)?;
            let (tokenizer, of_tokenizer) = tokenizer::metadata(&options.from, &vocabulary)?;
            metadata.extend(tokenizer);
            notes.extend(vocabulary.notes.iter().cloned().chain(of_tokenizer));
        }
    }

    let bytes = specs.iter().map(TensorSpec::bytes).sum();
    let report = Report {
        model_type: architecture.model_type,
        architecture: plan.architecture,
        file_type: quantization.name(),
        tensors: specs.len(),
        parameters: specs.iter().map(|spec| spec.shape.iter().map(|&dim| dim as u64).product::<u64>()).sum(),
        bytes,
        fallbacks,
        notes,
    };
    for note in report.notes.iter().chain(&report.fallbacks) {
        progress.note(note);
    }

    progress.start("converting", Some(bytes));
    let written = write_or_fail(&options.out, |out| {
        let tensors = plan.tensors.iter().zip(&kinds);
        write(out, &metadata, &specs, tensors, &checkpoint, progress)
    });
    progress.finish();
    written.map(|()| report)
}

/// Writes a file as a whole, or fails with what kept it from being written: errors of the input keep their kind and text.
pub(crate) fn write_or_fail(
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> Result<(), Failure>,
) -> Result<()> {
    // The writer's closure speaks of I/O errors alone: ours are kept aside.
    let mut failure = None;
    let written = files::write_atomic(path, |out| {
        fill(out).map_err(|error| match error {
            Failure::Output(cause) => cause,
            Failure::Input(error) => {
                failure = Some(error);
                std::io::Error::other("the input cannot be read")
            }
        })
    });
    match failure {
        Some(error) => Err(error),
        None => written,
    }
}

/// The type that most of the checkpoint's weights have: of the first matrix.
fn stored_as(plan: &Plan, checkpoint: &Checkpoint) -> Quantization {
    let matrices = plan.tensors.iter().filter(|tensor| tensor.shape.len() > 1);
    let matrix = matrices.filter_map(|tensor| tensor.source.tensor()).find_map(|name| checkpoint.get(name));
    match matrix.map(|info| info.dtype) {
        Some(ElementType::F16) => Quantization::F16,
        Some(ElementType::BF16) => Quantization::BF16,
        _ => Quantization::F32,
    }
}

/// The type of each tensor, and a line for each group of tensors that cannot have the one asked for.
fn choose(
    plan: &Plan,
    quantization: Quantization,
    token_embedding: Option<Quantization>,
) -> (Vec<&'static TensorType>, Vec<String>) {
    let mut fallbacks: std::collections::BTreeMap<(usize, &str, &str), usize> =
        std::collections::BTreeMap::new();
    let model = Model::new(plan.tensors.iter().map(|tensor| tensor.name.as_str()));
    let mut kinds = Vec::with_capacity(plan.tensors.len());
    for tensor in &plan.tensors {
        let chosen = token_embedding.filter(|_| tensor.name == "token_embd.weight");
        let (wanted, kind) = match chosen {
            Some(chosen) => chosen.for_matrix(&tensor.shape),
            None => quantization.for_tensor(&tensor.name, &tensor.shape, &model),
        };
        if wanted != kind {
            let columns = tensor.shape.last().copied().unwrap_or(0);
            *fallbacks.entry((columns, wanted.name, kind.name)).or_default() += 1;
        }
        kinds.push(kind);
    }
    let line = |((columns, wanted, kind), count): ((usize, &str, &str), usize)| {
        format!("{count} tensors have rows of {columns}, no whole blocks of {wanted}: stored as {kind}")
    };
    (kinds, fallbacks.into_iter().map(line).collect())
}

fn general(
    options: &Options,
    config: &ConfigFile,
    plan: &Plan,
    model_type: &str,
    quantization: Quantization,
) -> Result<Vec<(String, Value)>> {
    let folder = options.from.canonicalize().unwrap_or_else(|_| options.from.clone());
    let name = match &options.name {
        Some(name) => name.clone(),
        None => folder.file_name().unwrap_or(folder.as_os_str()).to_string_lossy().into_owned(),
    };
    let mut metadata: Vec<(String, Value)> = [
        ("general.architecture", Value::from(plan.architecture)),
        ("general.type", Value::from("model")),
        ("general.name", Value::Text(name)),
        ("general.file_type", Value::U32(quantization.file_type())),
        ("general.quantization_version", Value::U32(QUANTIZATION_VERSION)),
        ("general.source.architecture", Value::from(model_type)),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into();
    // Folders of published models say where they come from; a path on somebody's disk is nobody's business.
    if let Some(origin) = config.text("_name_or_path")?
        && origin.split('/').count() == 2
        && !origin.starts_with(['/', '.', '~'])
    {
        metadata.push(("general.source.huggingface.repository".into(), Value::from(origin)));
    }
    let prefixed = |(key, value): &(&str, Value)| (format!("{}.{key}", plan.architecture), value.clone());
    metadata.extend(plan.hyperparameters.iter().map(prefixed));
    Ok(metadata)
}

/// Why a file could not be written.
pub(crate) enum Failure {
    Output(std::io::Error),
    Input(Error),
}

impl From<std::io::Error> for Failure {
    fn from(cause: std::io::Error) -> Self {
        Self::Output(cause)
    }
}

fn write<'a>(
    out: &mut dyn Write,
    metadata: &[(String, Value)],
    specs: &[TensorSpec],
    tensors: impl Iterator<Item = (&'a Tensor, &'a &'static TensorType)>,
    checkpoint: &Checkpoint,
    progress: &dyn Progress,
) -> Result<(), Failure> {
    let mut writer = Writer::new(out, metadata, specs)?;
    for (tensor, kind) in tensors {
        writer.begin()?;
        let columns = tensor.shape.last().copied().unwrap_or(1);
        let rows: usize = tensor.shape.iter().rev().skip(1).product();
        let chunk_rows = (CHUNK_VALUES / columns).max(1);
        let mut begin = 0;
        while begin < rows {
            let count = chunk_rows.min(rows - begin);
            let mut values = vec![0f32; count * columns];
            read_rows(&tensor.source, checkpoint, begin, columns, &mut values).map_err(Failure::Input)?;
            for bytes in encode(kind, &values, columns, tensor, checkpoint).map_err(Failure::Input)? {
                writer.write(&bytes)?;
                progress.advance(bytes.len() as u64);
            }
            begin += count;
        }
    }
    writer.finish()?;
    Ok(())
}

/// Reads rows `begin..` of a source, each of `columns` values. Of a vector everything is one row.
fn read_rows(
    source: &Source,
    checkpoint: &Checkpoint,
    begin: usize,
    columns: usize,
    out: &mut [f32],
) -> Result<()> {
    let info = |name: &str| {
        checkpoint.get(name).ok_or_else(|| {
            Error::new(ErrorKind::Internal, format!("tensor {name} was planned but is not in the checkpoint"))
        })
    };
    match source {
        Source::Zeros => Ok(()),
        Source::Values(values) => {
            out.copy_from_slice(&values[begin * columns..][..out.len()]);
            Ok(())
        }
        Source::Whole(name) => checkpoint.read_f32(info(name)?, begin * columns, out),
        Source::Rows(name, order) => {
            let info = info(name)?;
            // The rows of a vector are its elements.
            let width = if info.shape.len() > 1 { columns } else { 1 };
            let rows = &order[begin * columns / width..][..out.len() / width];
            let mut rest = out;
            // A run of adjacent rows of the checkpoint is one read.
            for run in rows.chunk_by(|row, next| row + 1 == *next) {
                let (head, tail) = rest.split_at_mut(run.len() * width);
                checkpoint.read_f32(info, run[0] * width, head)?;
                rest = tail;
            }
            Ok(())
        }
        Source::Turned(name) => {
            let info = info(name)?;
            let n_rows = out.len() / columns;
            let stride = info.shape.last().copied().unwrap_or(1);
            let mut values = vec![0f32; n_rows];
            for column in 0..columns {
                checkpoint.read_f32(info, column * stride + begin, &mut values)?;
                out[column..].iter_mut().step_by(columns).zip(&values).for_each(|(out, value)| *out = *value);
            }
            Ok(())
        }
        Source::Scaled(source, rows, scale) => {
            read_rows(source, checkpoint, begin, columns, out)?;
            let vector = source
                .tensor()
                .and_then(|name| checkpoint.get(name))
                .is_none_or(|info| info.shape.len() == 1);
            let width = if vector { 1 } else { columns };
            let first = begin * columns / width;
            for (row, values) in out.chunks_mut(width).enumerate() {
                if rows.contains(&(first + row)) {
                    values.iter_mut().for_each(|value| *value *= scale);
                }
            }
            Ok(())
        }
    }
}

/// Encodes whole rows on all cores; the pieces are in order.
///
/// # Errors
/// One line without the tensor's name.
pub(crate) fn encode_rows(
    kind: &'static TensorType,
    values: &[f32],
    columns: usize,
) -> Result<Vec<Vec<u8>>, String> {
    let task_values = (TASK_VALUES / columns).max(1) * columns;
    values.par_chunks(task_values).map(|piece| quantize::encode(kind, piece)).collect()
}

/// The same, with errors that name the tensor and its file.
fn encode(
    kind: &'static TensorType,
    values: &[f32],
    columns: usize,
    tensor: &Tensor,
    checkpoint: &Checkpoint,
) -> Result<Vec<Vec<u8>>> {
    encode_rows(kind, values, columns).map_err(|what| {
        let (path, name) = match tensor.source.tensor() {
            Some(name) => {
                (checkpoint.get(name).map_or(checkpoint.dir(), |info| checkpoint.path_of(info)), name)
            }
            None => (checkpoint.dir(), tensor.name.as_str()),
        };
        Error::data(path, format!("tensor {name} {what}"))
    })
}
