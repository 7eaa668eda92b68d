//! What a killed run goes on from: weights, moments and the number of steps, written so that a half-written one is never read.
//!
//! A snapshot is a folder `step-N` with `state.json` and `model.safetensors` (`weights/NAME`, `mean/NAME` and `square/NAME` of each
//! tensor). It is made under another name and renamed when it is whole. The order of the data and all randomness follow from the seed and
//! the step's number, so that there is no more to keep.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use inhouse_candle::checkpoint::{Checkpoint, write_safetensors};
use inhouse_core::{Error, ErrorKind, Result, files};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::optimizer::{Optimizer, Slot, values};

const PREFIX: &str = "step-";
/// Snapshots kept beside the newest, in case a disk fails it.
const KEPT: usize = 2;

/// What a snapshot says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct State {
    version: u32,
    step: u64,
    /// Of everything that the steps depend on: a run with other data or settings is another run.
    run: String,
    /// What the trainer keeps beside the optimizer.
    #[serde(default)]
    rest: serde_json::Value,
}

/// Writes the state of `optimizer`, and `rest` of the trainer's own, below `folder`; older snapshots are removed, the two newest stay.
///
/// # Errors
/// A file cannot be written; older snapshots are then as they were.
pub fn write(folder: &Path, optimizer: &Optimizer, run: &str, rest: &impl Serialize) -> Result<()> {
    let rest = serde_json::to_value(rest)
        .map_err(|cause| Error::new(ErrorKind::Internal, format!("cannot write the state: {cause}")))?;
    std::fs::create_dir_all(folder).map_err(|cause| Error::io("create", folder, cause))?;
    let partial = folder.join(".partial");
    if partial.exists() {
        std::fs::remove_dir_all(&partial).map_err(|cause| Error::io("remove", &partial, cause))?;
    }
    std::fs::create_dir(&partial).map_err(|cause| Error::io("create", &partial, cause))?;
    let names: Vec<(String, &Slot, Part)> = PARTS
        .iter()
        .flat_map(|(part, of)| {
            optimizer.slots().map(move |(name, slot)| (format!("{part}/{name}"), slot, *of))
        })
        .collect();
    let tensors =
        names.iter().map(|(name, slot, of)| (name.as_str(), (slot.shape.clone(), of(slot).clone())));
    write_safetensors(&partial.join("model.safetensors"), &tensors.collect())?;
    let state = State { version: 1, step: optimizer.step(), run: run.to_owned(), rest };
    files::write_atomic(&partial.join("state.json"), |file| Ok(serde_json::to_writer(file, &state)?))?;
    let whole = folder.join(format!("{PREFIX}{}", optimizer.step()));
    if whole.exists() {
        std::fs::remove_dir_all(&whole).map_err(|cause| Error::io("remove", &whole, cause))?;
    }
    std::fs::rename(&partial, &whole).map_err(|cause| Error::io("rename", &partial, cause))?;
    if let Ok(folder) = std::fs::File::open(folder) {
        folder.sync_all().ok();
    }
    for (_, path) in list(folder)?.into_iter().rev().skip(KEPT) {
        std::fs::remove_dir_all(&path).map_err(|cause| Error::io("remove", &path, cause))?;
    }
    Ok(())
}

type Part = fn(&Slot) -> &Vec<f32>;
const PARTS: [(&str, Part); 3] =
    [("weights", |slot| &slot.weights), ("mean", |slot| &slot.mean), ("square", |slot| &slot.square)];

/// The snapshots of a folder, oldest first.
fn list(folder: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    if folder.exists() {
        for entry in std::fs::read_dir(folder).map_err(|cause| Error::io("read", folder, cause))? {
            let path = entry.map_err(|cause| Error::io("read", folder, cause))?.path();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if let Some(step) = name.strip_prefix(PREFIX).and_then(|step| step.parse().ok()) {
                found.push((step, path));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The folder of snapshots of the run in `out`, which is made.
///
/// # Errors
/// There are snapshots and the run is not to `resume` from them; a folder cannot be read or made.
pub fn folder_of_run(out: &Path, resume: bool) -> Result<PathBuf> {
    let snapshots = out.join("checkpoints");
    if !resume && !list(&snapshots)?.is_empty() {
        let what =
            format!("{}: there are checkpoints of a run; go on with --resume, or remove them", out.display());
        return Err(Error::new(ErrorKind::InvalidArgument, what));
    }
    std::fs::create_dir_all(out).map_err(|cause| Error::io("create", out, cause))?;
    Ok(snapshots)
}

/// Puts `optimizer` into the newest state below `folder`, and gives what else the trainer kept; `None`: there is none.
///
/// # Errors
/// A snapshot is damaged, or is of another run.
pub fn restore<T: DeserializeOwned>(
    folder: &Path,
    optimizer: &mut Optimizer,
    run: &str,
) -> Result<Option<T>> {
    let Some((_, newest)) = list(folder)?.pop() else { return Ok(None) };
    let path = newest.join("state.json");
    let state: State =
        serde_json::from_str(&files::read_text(&path)?).map_err(|cause| Error::data(&path, cause))?;
    if state.version != 1 {
        return Err(Error::new(
            ErrorKind::UnsupportedVersion,
            format!("{}: version {}", path.display(), state.version),
        ));
    }
    if state.run != run {
        let what = "is a snapshot of a run with other data, settings or weights; give it another `out`, or remove it";
        return Err(Error::data(&newest, what));
    }
    let checkpoint = Checkpoint::open(&newest)?;
    let read = |part: &str, name: &str, shape: &[usize]| -> Result<Vec<f32>> {
        let (dtype, device) = (candle_core::DType::F32, candle_core::Device::Cpu);
        values(&checkpoint.tensor(&format!("{part}/{name}"), shape, dtype, &device)?)
    };
    let mut slots = BTreeMap::new();
    for (name, slot) in optimizer.slots() {
        let shape = slot.shape.clone();
        let [weights, mean, square] =
            [PARTS[0].0, PARTS[1].0, PARTS[2].0].map(|part| read(part, name, &shape));
        slots.insert(name.to_owned(), Slot { weights: weights?, mean: mean?, square: square?, shape });
    }
    let rest = serde_json::from_value(state.rest).map_err(|cause| Error::data(&path, cause))?;
    optimizer.restore(state.step, slots)?;
    Ok(Some(rest))
}
