//! Weights as the architectures hold them, and the one way in which they are taken out of a checkpoint.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor, Var};
use inhouse_core::Result;

use crate::backend_error;
use crate::checkpoint::Checkpoint;
use crate::ops::Ops;

/// A projection `x [rows, in] -> [rows, out]`.
pub(crate) struct Linear {
    weight: Tensor,
    /// Whether `weight` is stored `[in, out]`; else `[out, in]`.
    inputs_first: bool,
    /// `[out]`, where there is one.
    bias: Option<Tensor>,
}

impl Linear {
    /// `[out, in]`, or `[in, out]` for GPT-2.
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// `[out]`, where there is one.
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }

    /// A projection that shares the weight `[out, in]` of an embedding.
    pub fn tied(weight: &Tensor, bias: Option<Tensor>) -> Self {
        Self { weight: weight.clone(), inputs_first: false, bias }
    }

    pub fn apply(&self, x: &Tensor, ops: Ops) -> candle_core::Result<Tensor> {
        if !self.inputs_first {
            return ops.project(x, &self.weight, self.bias.as_ref());
        }
        let y = x.matmul(&self.weight)?;
        match &self.bias {
            Some(bias) => ops.add_bias(&y, bias),
            None => Ok(y),
        }
    }
}

/// A layer norm, or without a bias a root-mean-square norm.
pub(crate) struct Norm {
    weight: Tensor,
    bias: Option<Tensor>,
    epsilon: f64,
}

impl Norm {
    /// Weight, bias where there is one, and epsilon.
    pub fn parts(&self) -> (&Tensor, Option<&Tensor>, f64) {
        (&self.weight, self.bias.as_ref(), self.epsilon)
    }

    pub fn apply(&self, x: &Tensor, ops: Ops) -> candle_core::Result<Tensor> {
        match &self.bias {
            Some(bias) => ops.layer_norm(x, &self.weight, bias, self.epsilon),
            None => ops.rms_norm(x, &self.weight, self.epsilon),
        }
    }
}

/// Takes tensors out of a checkpoint: checks their shapes, converts them, counts them, and makes variables of them where a
/// trainer asks for it.
pub(crate) struct Loader<'a> {
    checkpoint: &'a Checkpoint,
    pub dtype: DType,
    pub device: Device,
    parameters: Cell<u64>,
    /// What was loaded, by its name in the checkpoint; `None`: nothing is trained.
    variables: Option<RefCell<BTreeMap<String, Var>>>,
}

impl<'a> Loader<'a> {
    pub fn new(checkpoint: &'a Checkpoint, dtype: DType, device: Device, trainable: bool) -> Self {
        let variables = trainable.then(RefCell::default);
        Self { checkpoint, dtype, device, parameters: Cell::new(0), variables }
    }

    /// Elements loaded so far, shared ones once.
    pub fn parameters(&self) -> u64 {
        self.parameters.get()
    }

    pub fn into_variables(self) -> BTreeMap<String, Var> {
        self.variables.map(RefCell::into_inner).unwrap_or_default()
    }

    /// `prefix` where the checkpoint's names begin with it (the model was saved with its head), else nothing.
    pub fn prefix(&self, prefix: &'static str, first: &str) -> &'static str {
        if self.checkpoint.get(first).is_some() && self.checkpoint.get(&format!("{prefix}{first}")).is_none()
        {
            ""
        } else {
            prefix
        }
    }

    /// Whether the checkpoint holds a tensor.
    pub fn has(&self, name: &str) -> bool {
        self.checkpoint.get(name).is_some()
    }

    /// A tensor of exactly this shape.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let tensor = self.checkpoint.tensor(name, shape, self.dtype, &self.device)?;
        self.parameters.set(self.parameters.get() + tensor.elem_count() as u64);
        match &self.variables {
            None => Ok(tensor),
            Some(variables) => {
                let variable = Var::from_tensor(&tensor).map_err(backend_error)?;
                let tensor = variable.as_tensor().clone();
                variables.borrow_mut().insert(name.to_owned(), variable);
                Ok(tensor)
            }
        }
    }

    /// `NAME.weight [outputs, inputs]`, and `NAME.bias [outputs]` where `bias` says so.
    pub fn linear(&self, name: &str, outputs: usize, inputs: usize, bias: bool) -> Result<Linear> {
        let weight = self.tensor(&format!("{name}.weight"), &[outputs, inputs])?;
        let bias = if bias { Some(self.tensor(&format!("{name}.bias"), &[outputs])?) } else { None };
        Ok(Linear { weight, inputs_first: false, bias })
    }

    /// The output layer of a model: `embedding [vocab, width]` itself where it is `tied`, else `lm_head.weight` of the same
    /// shape.
    pub fn head(&self, tied: bool, embedding: &Tensor) -> Result<Linear> {
        if tied {
            return Ok(Linear::tied(embedding, None));
        }
        let (vocab, width) = embedding.dims2().map_err(backend_error)?;
        self.linear("lm_head", vocab, width, false)
    }

    /// GPT-2's `Conv1D`: `NAME.weight [inputs, outputs]` and `NAME.bias [outputs]`.
    pub fn conv1d(&self, name: &str, outputs: usize, inputs: usize) -> Result<Linear> {
        let weight = self.tensor(&format!("{name}.weight"), &[inputs, outputs])?;
        let bias = Some(self.tensor(&format!("{name}.bias"), &[outputs])?);
        if self.variables.is_some() {
            return Ok(Linear { weight, inputs_first: true, bias });
        }
        // Turned once, here: a row of outputs then lies together, as everywhere else.
        let weight = weight.t().and_then(|weight| weight.contiguous()).map_err(backend_error)?;
        Ok(Linear { weight, inputs_first: false, bias })
    }

    /// `NAME.weight` and `NAME.bias`, each `[size]`.
    /// (Old checkpoints of BERT call them `gamma` and `beta`.)
    pub fn layer_norm(&self, name: &str, size: usize, epsilon: f64) -> Result<Norm> {
        let old = self.has(&format!("{name}.gamma"));
        let (weight, bias) = if old { ("gamma", "beta") } else { ("weight", "bias") };
        let weight = self.tensor(&format!("{name}.{weight}"), &[size])?;
        let bias = Some(self.tensor(&format!("{name}.{bias}"), &[size])?);
        Ok(Norm { weight, bias, epsilon })
    }

    /// `NAME.weight [size]`.
    pub fn rms_norm(&self, name: &str, size: usize, epsilon: f64) -> Result<Norm> {
        Ok(Norm { weight: self.tensor(&format!("{name}.weight"), &[size])?, bias: None, epsilon })
    }
}
