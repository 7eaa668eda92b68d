//! What is written of a trained adapter: a PEFT folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use inhouse_core::lora::{Adapter, Module, Naming, PeftSettings};
use inhouse_core::{Error, ErrorKind, Result};

use super::config::LoraConfig;
use crate::optimizer::Optimizer;

/// The parts of an update's variables' names behind that of its projection.
const A: &str = ".lora_A.weight";
const B: &str = ".lora_B.weight";

/// Writes the adapter as it is, in f16, below `dir`.
///
/// # Errors
/// A file cannot be written.
pub fn save(dir: &Path, optimizer: &Optimizer, lora: &LoraConfig, start: &Path) -> Result<()> {
    let slots: BTreeMap<&str, _> = optimizer.slots().collect();
    let mut modules = BTreeMap::new();
    for (name, a) in &slots {
        let Some(name) = name.strip_suffix(A) else { continue };
        let b = slots.get(format!("{name}{B}").as_str());
        let (Some(b), [rank, inputs], Some(&[outputs, _])) =
            (b, a.shape.as_slice(), b.map(|b| b.shape.as_slice()).and_then(|shape| shape.first_chunk()))
        else {
            return Err(Error::new(ErrorKind::Internal, format!("{name} has half an update")));
        };
        let scale = (lora.alpha / lora.rank as f64) as f32;
        let module = Module {
            rank: *rank,
            inputs: *inputs,
            outputs,
            scale,
            a: a.weights.clone(),
            b: b.weights.clone(),
        };
        modules.insert(name.to_owned(), module);
    }
    let adapter = Adapter { path: PathBuf::new(), naming: Naming::HuggingFace, base: None, modules };
    let base = lora.base.clone().unwrap_or_else(|| start.display().to_string());
    adapter.write_peft(dir, &PeftSettings { base, dropout: lora.dropout })
}
