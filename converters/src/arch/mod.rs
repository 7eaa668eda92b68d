//! The architectures that can be converted: one file each, one row each in [`ARCHITECTURES`].
//!
//! An architecture reads `config.json` and says, without touching a weight, what the GGUF file will hold: hyperparameters,
//! and for each tensor which rows of which tensor of the checkpoint it is made of.

mod bert;
mod codegen;
mod gpt2;
mod llama;
mod t5;

use std::ops::Range;

use inhouse_candle::EncoderSettings;
use inhouse_candle::checkpoint::Checkpoint;
use inhouse_candle::config::ConfigFile;
use inhouse_core::{Error, ErrorKind, Result};

use inhouse_core::gguf::Value;

/// An architecture of Hugging Face that this converter knows.
pub struct Architecture {
    /// `model_type` in `config.json`.
    pub model_type: &'static str,
    /// Plans a conversion; every tensor of the plan is checked to be in the checkpoint with the shape it must have.
    pub plan: fn(&ConfigFile, &Checkpoint) -> Result<Plan>,
}

/// All of them.
pub const ARCHITECTURES: &[Architecture] = &[
    Architecture { model_type: "bert", plan: bert::plan },
    Architecture { model_type: "codegen", plan: codegen::plan },
    Architecture { model_type: "gpt2", plan: gpt2::plan },
    Architecture { model_type: "llama", plan: llama::plan },
    Architecture { model_type: "mistral", plan: llama::plan },
    Architecture { model_type: "qwen2", plan: llama::plan },
    Architecture { model_type: "t5", plan: t5::plan },
];

/// What a GGUF file will hold.
#[derive(Debug)]
pub struct Plan {
    /// `general.architecture`: the graph of llama.cpp that computes the model.
    pub architecture: &'static str,
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Hyperparameters, without the architecture's prefix.
    pub hyperparameters: Vec<(&'static str, Value)>,
    /// The tensors, in the order of the file.
    pub tensors: Vec<Tensor>,
    /// What the user may want to know.
    pub notes: Vec<String>,
    /// Of a text encoder: what its tokenizer and its vectors depend on.
    pub encoder: Option<(inhouse_candle::bert::Config, EncoderSettings)>,
}

/// A tensor of the plan.
#[derive(Debug)]
pub struct Tensor {
    /// Its name in the GGUF file.
    pub name: String,
    /// Its dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Where its values come from.
    pub source: Source,
}

/// Where a tensor's values come from.
#[derive(Debug)]
pub enum Source {
    /// Zeros, for a bias that the graph wants and the model has not.
    Zeros,
    /// A tensor of the checkpoint as it is.
    Whole(String),
    /// These rows of a matrix of the checkpoint (elements of a vector), in this order.
    Rows(String, Vec<usize>),
    /// A matrix of the checkpoint with rows and columns exchanged.
    Turned(String),
    /// Another source, with these rows (of a vector: elements) multiplied by a number.
    Scaled(Box<Source>, Range<usize>, f32),
    /// These values.
    Values(Vec<f32>),
}

impl Source {
    /// This source with some rows multiplied by `scale`.
    fn scaled(self, rows: Range<usize>, scale: f32) -> Self {
        if scale == 1.0 { self } else { Self::Scaled(Box::new(self), rows, scale) }
    }

    /// The tensor of the checkpoint that the values come from.
    pub fn tensor(&self) -> Option<&str> {
        match self {
            Self::Zeros | Self::Values(_) => None,
            Self::Whole(name) | Self::Rows(name, _) | Self::Turned(name) => Some(name),
            Self::Scaled(source, ..) => source.tensor(),
        }
    }
}

/// The list of a plan's tensors as it grows; each is checked to be in the checkpoint with the shape it must have.
struct Tensors<'a> {
    checkpoint: &'a Checkpoint,
    list: Vec<Tensor>,
}

impl<'a> Tensors<'a> {
    fn new(checkpoint: &'a Checkpoint) -> Self {
        Self { checkpoint, list: Vec::new() }
    }

    /// `prefix` where the checkpoint's names begin with it (the model was saved with its head), else nothing.
    fn prefix(&self, prefix: &'static str, first: &str) -> &'static str {
        let bare = self.checkpoint.get(first).is_some();
        if bare && self.checkpoint.get(&format!("{prefix}{first}")).is_none() { "" } else { prefix }
    }

    fn add(&mut self, name: String, shape: &[usize], source: Source) {
        self.list.push(Tensor { name, shape: shape.to_vec(), source });
    }

    /// A tensor as it is.
    fn whole(&mut self, to: &str, from: &str, shape: &[usize]) -> Result<()> {
        self.checkpoint.require(from, shape)?;
        self.add(to.to_owned(), shape, Source::Whole(from.to_owned()));
        Ok(())
    }

    /// Weight and bias of a layer norm.
    fn norm(&mut self, to: &str, from: &str, width: usize) -> Result<()> {
        self.whole(&format!("{to}.weight"), &format!("{from}.weight"), &[width])?;
        self.whole(&format!("{to}.bias"), &format!("{from}.bias"), &[width])
    }

    /// Weight `[outputs, inputs]` and, where there is one, bias of a projection; the number of tensors.
    fn linear(&mut self, to: &str, from: &str, inputs: usize, outputs: usize, bias: bool) -> Result<usize> {
        self.whole(&format!("{to}.weight"), &format!("{from}.weight"), &[outputs, inputs])?;
        if bias {
            self.whole(&format!("{to}.bias"), &format!("{from}.bias"), &[outputs])?;
        }
        Ok(1 + usize::from(bias))
    }

    /// Weight, stored `[inputs, outputs]`, and bias of a projection.
    fn turned(&mut self, to: &str, from: &str, inputs: usize, outputs: usize) -> Result<()> {
        let weight = format!("{from}.weight");
        self.checkpoint.require(&weight, &[inputs, outputs])?;
        self.add(format!("{to}.weight"), &[outputs, inputs], Source::Turned(weight));
        self.whole(&format!("{to}.bias"), &format!("{from}.bias"), &[outputs])
    }

    /// The `n` tensors added last.
    fn last(&mut self, n: usize) -> &mut [Tensor] {
        let begin = self.list.len().saturating_sub(n);
        &mut self.list[begin..]
    }

    fn plan(
        self,
        architecture: &'static str,
        vocab_size: usize,
        hyperparameters: Vec<(&'static str, Value)>,
    ) -> Plan {
        Plan {
            architecture,
            vocab_size,
            hyperparameters,
            tensors: self.list,
            notes: Vec::new(),
            encoder: None,
        }
    }
}

fn number(value: usize) -> Value {
    Value::U32(value as u32)
}

fn unsupported(file: &ConfigFile, what: &str) -> Error {
    Error::new(ErrorKind::Unsupported, format!("{}: {what}", file.path().display()))
}

/// The architecture of a `config.json`.
///
/// # Errors
/// `model_type` is missing, or unknown: the message lists what is known.
pub fn of(config: &ConfigFile) -> Result<&'static Architecture> {
    let model_type = config.model_type()?;
    if model_type == "gpt_neo" {
        let what = "llama.cpp has no graph for gpt_neo (every other block sees a window, and scores are not scaled): \
                    give the folder itself to inhouse, whose candle backend runs it";
        return Err(unsupported(config, what));
    }
    ARCHITECTURES.iter().find(|known| known.model_type == model_type).ok_or_else(|| {
        let known: Vec<&str> = ARCHITECTURES.iter().map(|known| known.model_type).collect();
        let what =
            format!("architecture {model_type:?} cannot be converted (supported: {})", known.join(", "));
        Error::new(ErrorKind::Unsupported, format!("{}: {what}", config.path().display()))
    })
}
