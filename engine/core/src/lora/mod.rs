//! Low-rank adapters of models (LoRA; Hu et al. 2021, arXiv 2106.09685): to the weight `W [outputs, inputs]` of a module comes
//! `scale * B A`, with `A [rank, inputs]` and `B [outputs, rank]`.
//!
//! [`Adapter::read`] takes a PEFT folder (`adapter_config.json`, `adapter_model.safetensors`) or a GGUF adapter as llama.cpp's; both are
//! checked completely. [`Adapter::for_gguf`] and [`Adapter::for_hugging_face`] put modules under the names of a base on either side,
//! checked against its shapes; [`combined`] makes one adapter of several. No backend sees a user's file: what was read is written anew.

mod gguf;
mod peft;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rayon::prelude::*;

use crate::gguf::{Counterparts, Header};
use crate::{Error, ErrorKind, Fingerprint, Result, files};

pub use peft::PeftSettings;

/// Highest rank that is read; real ones are a few hundred at most.
pub const MAX_RANK: usize = 4096;

/// Whose names the modules have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// Hugging Face's: `model.layers.0.self_attn.q_proj`.
    HuggingFace,
    /// GGUF's, with rows ordered as llama.cpp wants them: `blk.0.attn_q`.
    Gguf,
}

/// An adapter in memory.
#[derive(Debug, Clone)]
pub struct Adapter {
    /// Where it was read from, for messages; empty where it was made.
    pub path: PathBuf,
    /// Whose names the modules have.
    pub naming: Naming,
    /// What the adapter says that it was trained on: a name or path of Hugging Face, or a GGUF architecture.
    pub base: Option<String>,
    /// The modules by name, without `.weight`.
    pub modules: BTreeMap<String, Module>,
}

/// What comes to one weight.
#[derive(Debug, Clone, PartialEq)]
pub struct Module {
    /// Rows of `a`, columns of `b`.
    pub rank: usize,
    /// Columns of the weight.
    pub inputs: usize,
    /// Rows of the weight.
    pub outputs: usize,
    /// What `B A` is multiplied by: alpha / rank, or alpha / sqrt(rank) (rsLoRA, arXiv 2312.03732).
    pub scale: f32,
    /// `[rank, inputs]`, row-major.
    pub a: Vec<f32>,
    /// `[outputs, rank]`, row-major.
    pub b: Vec<f32>,
}

impl Module {
    /// Adds `scale * B A` to rows `first..` of the weight: `rows` is `[n, inputs]`, row-major.
    pub fn add_to_rows(&self, first: usize, rows: &mut [f32]) {
        rows.par_chunks_mut(self.inputs).enumerate().for_each(|(i, row)| {
            let Some(factors) = self.b.get((first + i) * self.rank..(first + i + 1) * self.rank) else {
                return;
            };
            for (factor, a) in factors.iter().zip(self.a.chunks_exact(self.inputs)) {
                let factor = factor * self.scale;
                row.iter_mut().zip(a).for_each(|(value, a)| *value += factor * a);
            }
        });
    }

    /// The module with other rows of the weight: row `i` is what `order[i]` was.
    fn reordered(mut self, order: &[usize]) -> Self {
        let rank = self.rank;
        let rows = order.iter().flat_map(|&row| self.b[row * rank..(row + 1) * rank].iter().copied());
        self.b = rows.collect();
        self
    }
}

/// An adapter as users name it: `PATH` or `PATH:SCALE`.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraChoice {
    /// PEFT folder or GGUF adapter.
    pub path: PathBuf,
    /// What its effect is multiplied by.
    pub scale: f32,
}

impl LoraChoice {
    /// An adapter with its whole effect.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), scale: 1.0 }
    }

    /// Takes what tells it from another into a digest.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn add_to(&self, fingerprint: &mut Fingerprint) -> Result<()> {
        fingerprint.add(&self.scale.to_le_bytes());
        self.files().iter().try_for_each(|file| fingerprint.add_file(file))
    }

    /// The files that it is made of.
    pub fn files(&self) -> Vec<PathBuf> {
        if self.path.is_dir() { peft::files(&self.path).into() } else { vec![self.path.clone()] }
    }
}

impl FromStr for LoraChoice {
    type Err = String;

    /// A number after the last colon is the scale; a path that ends in one is written `PATH:1`.
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (path, scale) = match text.rsplit_once(':') {
            Some((path, number)) => match number.parse::<f32>() {
                Ok(scale) if scale.is_finite() => (path, scale),
                Ok(scale) => return Err(format!("the adapter's scale is {scale}, expected a finite number")),
                Err(_) => (text, 1.0),
            },
            None => (text, 1.0),
        };
        if path.is_empty() {
            return Err(format!(
                "{text:?} names no adapter, expected a path, or a path and a scale (PATH:0.5)"
            ));
        }
        Ok(Self { path: PathBuf::from(path), scale })
    }
}

impl Adapter {
    /// Reads a PEFT folder or a GGUF adapter.
    ///
    /// # Errors
    /// Nothing at `path`; a file that is truncated, malformed or contradicts itself ([`ErrorKind::InvalidData`]); more than low-rank
    /// matrices of linear layers (DoRA, trained biases, whole layers; [`ErrorKind::Unsupported`]). The message names the file, and the
    /// key or tensor.
    pub fn read(path: &Path) -> Result<Self> {
        let meta = std::fs::metadata(path).map_err(|cause| Error::io("open adapter", path, cause))?;
        if meta.is_dir() { peft::read(path) } else { gguf::read(path) }
    }

    /// Writes a PEFT folder; the modules must have Hugging Face's names.
    ///
    /// # Errors
    /// The names are GGUF's, or the folder cannot be written. The weights are written first, the configuration last.
    pub fn write_peft(&self, dir: &Path, settings: &PeftSettings) -> Result<()> {
        peft::write(self, dir, settings)
    }

    /// Writes a GGUF adapter, its matrices in f16 where `half` says so, else in f32; the modules must have GGUF's names.
    ///
    /// # Errors
    /// As [`Adapter::write_gguf_to`].
    pub fn write_gguf(&self, path: &Path, architecture: &str, half: bool) -> Result<()> {
        files::write_atomic(path, |out| gguf::write(self, out, architecture, half))
    }

    /// The same to any sink.
    ///
    /// # Errors
    /// The names are Hugging Face's, a value is beyond the range of f16, or `out` cannot be written.
    pub fn write_gguf_to(&self, out: &mut dyn Write, architecture: &str, half: bool) -> std::io::Result<()> {
        gguf::write(self, out, architecture, half)
    }

    /// Number of parameters.
    pub fn parameters(&self) -> u64 {
        self.modules.values().map(|module| (module.a.len() + module.b.len()) as u64).sum()
    }

    fn misfit(&self, what: String) -> Error {
        Error::data(&self.path, format!("{what}: was the adapter made for another base?"))
    }

    /// The adapter under the names of a GGUF model, checked against its tensors.
    ///
    /// # Errors
    /// A module that the model has not, or one of another shape ([`ErrorKind::InvalidData`]); an architecture whose names are not
    /// known here ([`ErrorKind::Unsupported`]).
    pub fn for_gguf(self, base: &Header) -> Result<Self> {
        let architecture = base.text("general.architecture").unwrap_or_default();
        let mut named = self.clone();
        if self.naming == Naming::HuggingFace {
            let counterparts = Counterparts::of_header(base).ok_or_else(|| {
                let what = format!("names of `{architecture}` models in PEFT adapters are not known here: give a GGUF adapter");
                Error::new(ErrorKind::Unsupported, format!("{}: {what}", self.path.display()))
            })?;
            named.rename(Naming::Gguf, "GGUF model", |name| counterparts.in_gguf(name))?;
        } else if let Some(of) = self.base.as_deref().filter(|of| *of != architecture) {
            return Err(
                self.misfit(format!("the adapter is for `{of}` models, this one is `{architecture}`"))
            );
        }
        for (name, module) in &named.modules {
            let weight = format!("{name}.weight");
            let Some(tensor) = base.tensors.iter().find(|tensor| tensor.name == weight) else {
                return Err(named.misfit(format!("the model has no tensor `{weight}`")));
            };
            let dims: Vec<usize> = tensor.dims().iter().map(|&dim| dim as usize).collect();
            named.check_shape(&weight, module, dims.get(1).copied().unwrap_or(1), dims[0])?;
            if dims.len() > 2 {
                let what = format!("`{weight}` holds several experts: adapters of those are not supported");
                return Err(Error::new(ErrorKind::Unsupported, format!("{}: {what}", named.path.display())));
            }
        }
        Ok(named)
    }

    /// The adapter under Hugging Face's names. Shapes are the loader's to check ([`Adapter::check_shape`]).
    ///
    /// # Errors
    /// Its names are GGUF's, and one has no counterpart ([`ErrorKind::InvalidData`]) or `counterparts` is `None`
    /// ([`ErrorKind::Unsupported`]).
    pub fn for_hugging_face(self, counterparts: Option<&Counterparts>) -> Result<Self> {
        if self.naming == Naming::HuggingFace {
            return Ok(self);
        }
        let Some(counterparts) = counterparts else {
            let what = "a GGUF adapter does not go with this architecture here: give the PEFT folder";
            return Err(Error::new(ErrorKind::Unsupported, format!("{}: {what}", self.path.display())));
        };
        let mut named = self;
        named.rename(Naming::HuggingFace, "model", |name| counterparts.in_hugging_face(name))?;
        Ok(named)
    }

    fn rename(
        &mut self,
        naming: Naming,
        what: &str,
        find: impl Fn(&str) -> Option<(String, Option<Vec<usize>>)>,
    ) -> Result<()> {
        for (name, module) in std::mem::take(&mut self.modules) {
            let Some((new, order)) = find(&name) else {
                return Err(self.misfit(format!("module {name} has no counterpart in the {what}")));
            };
            let module = match order {
                Some(order) if order.len() != module.outputs => {
                    let (outputs, rows) = (module.outputs, order.len());
                    return Err(self.misfit(format!("module {name} has {outputs} outputs, the model {rows}")));
                }
                Some(order) => module.reordered(&order),
                None => module,
            };
            self.modules.insert(new, module);
        }
        self.naming = naming;
        Ok(())
    }

    /// Checks that a module fits a weight `[outputs, inputs]`.
    ///
    /// # Errors
    /// It does not.
    pub fn check_shape(&self, weight: &str, module: &Module, outputs: usize, inputs: usize) -> Result<()> {
        if (module.outputs, module.inputs) == (outputs, inputs) {
            return Ok(());
        }
        let (rows, columns) = (module.outputs, module.inputs);
        let what = format!(
            "the adapter's matrices for `{weight}` are for [{rows}, {columns}], the model's is [{outputs}, {inputs}]"
        );
        Err(self.misfit(what))
    }
}

/// One adapter that has the effect of all together, each with its scale: factors of a module are put side by side. `None` for none.
///
/// # Errors
/// The adapters name or shape a module differently.
pub fn combined(parts: Vec<(Adapter, f32)>) -> Result<Option<Adapter>> {
    let mut all: Option<Adapter> = None;
    for (mut part, scale) in parts {
        part.modules.values_mut().for_each(|module| module.scale *= scale);
        let Some(sum) = &mut all else {
            all = Some(part);
            continue;
        };
        if sum.naming != part.naming {
            return Err(Error::new(ErrorKind::Internal, "adapters with names of two kinds"));
        }
        for (name, module) in std::mem::take(&mut part.modules) {
            match sum.modules.get_mut(&name) {
                None => {
                    sum.modules.insert(name, module);
                }
                Some(known) => {
                    part.check_shape(&name, &module, known.outputs, known.inputs)?;
                    *known = side_by_side(known, &module);
                }
            }
        }
    }
    Ok(all)
}

fn side_by_side(left: &Module, right: &Module) -> Module {
    let rank = left.rank + right.rank;
    let mut b = Vec::with_capacity(left.outputs * rank);
    for (one, other) in left.b.chunks_exact(left.rank).zip(right.b.chunks_exact(right.rank)) {
        b.extend(one.iter().map(|value| value * left.scale));
        b.extend(other.iter().map(|value| value * right.scale));
    }
    let a = left.a.iter().chain(&right.a).copied().collect();
    Module { rank, inputs: left.inputs, outputs: left.outputs, scale: 1.0, a, b }
}

#[cfg(test)]
mod tests;
