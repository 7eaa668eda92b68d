//! The architectures that can be converted: one file each, one row each in [`ARCHITECTURES`].
//!
//! An architecture reads `config.json` and says, without touching a weight, what the GGUF file will hold: hyperparameters,
//! and for each tensor which rows of which tensor of the checkpoint it is made of.

mod codegen;

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
pub const ARCHITECTURES: &[Architecture] = &[Architecture { model_type: "codegen", plan: codegen::plan }];

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
    /// These rows of a matrix of the checkpoint, in this order.
    Rows(String, Vec<usize>),
}

/// The architecture of a `config.json`.
///
/// # Errors
/// `model_type` is missing, or unknown: the message lists what is known.
pub fn of(config: &ConfigFile) -> Result<&'static Architecture> {
    let model_type = config.model_type()?;
    ARCHITECTURES.iter().find(|known| known.model_type == model_type).ok_or_else(|| {
        let known: Vec<&str> = ARCHITECTURES.iter().map(|known| known.model_type).collect();
        let what =
            format!("architecture {model_type:?} cannot be converted (supported: {})", known.join(", "));
        Error::new(ErrorKind::Unsupported, format!("{}: {what}", config.path().display()))
    })
}
