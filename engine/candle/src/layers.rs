//! Weights as the architectures hold them, and the one way in which they are taken out of a checkpoint.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

use candle_core::{DType, Device, Tensor, Var};
use inhouse_core::lora::Adapter;
use inhouse_core::{Error, Result};

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
    adapter: Option<Adaptation>,
}

/// An adapter that is added to weights as they are loaded.
struct Adaptation {
    adapter: Adapter,
    /// Modules whose weight was not asked for yet.
    left: RefCell<BTreeSet<String>>,
}

impl<'a> Loader<'a> {
    pub fn new(checkpoint: &'a Checkpoint, dtype: DType, device: Device, trainable: bool) -> Self {
        let variables = trainable.then(RefCell::default);
        Self { checkpoint, dtype, device, parameters: Cell::new(0), variables, adapter: None }
    }

    /// The same with an adapter, under Hugging Face's names, that is added to the weights.
    pub fn with_adapter(mut self, adapter: Option<Adapter>) -> Self {
        self.adapter = adapter.map(|adapter| {
            let left = RefCell::new(adapter.modules.keys().cloned().collect());
            Adaptation { adapter, left }
        });
        self
    }

    /// Checks that all of the adapter was used.
    ///
    /// # Errors
    /// It has a module that the model has not.
    pub fn check_adapter(&self) -> Result<()> {
        let Some(Adaptation { adapter, left }) = &self.adapter else { return Ok(()) };
        match left.borrow().first() {
            Some(module) => {
                let what =
                    format!("the model has no linear layer {module}: was the adapter made for another base?");
                Err(Error::data(&adapter.path, what))
            }
            None => Ok(()),
        }
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
        self.keep(name, tensor)
    }

    /// A matrix `[outputs, inputs]`, or `[inputs, outputs]` where it is stored `turned`, with what an adapter adds to it.
    fn matrix(&self, name: &str, outputs: usize, inputs: usize, turned: bool) -> Result<Tensor> {
        let shape = if turned { [inputs, outputs] } else { [outputs, inputs] };
        let weight = format!("{name}.weight");
        let Some(Adaptation { adapter, left }) = &self.adapter else { return self.tensor(&weight, &shape) };
        // A model saved without its head has no prefix.
        let mut names = [name.to_owned(), format!("model.{name}"), format!("transformer.{name}")].into_iter();
        let Some((module, found)) =
            names.find_map(|name| adapter.modules.get(&name).map(|module| (module, name)))
        else {
            return self.tensor(&weight, &shape);
        };
        adapter.check_shape(&found, module, outputs, inputs)?;
        let tensor = self.checkpoint.tensor(&weight, &shape, DType::F32, &Device::Cpu)?;
        let adapted = || -> candle_core::Result<Tensor> {
            let upright = if turned { tensor.t()?.contiguous()? } else { tensor };
            let mut rows: Vec<f32> = upright.flatten_all()?.to_vec1()?;
            module.add_to_rows(0, &mut rows);
            let adapted = Tensor::from_vec(rows, (outputs, inputs), &Device::Cpu)?;
            let adapted = if turned { adapted.t()?.contiguous()? } else { adapted };
            adapted.to_dtype(self.dtype)?.to_device(&self.device)
        };
        left.borrow_mut().remove(&found);
        self.keep(&weight, adapted().map_err(backend_error)?)
    }

    /// Counts a tensor, and makes a variable of it where a trainer asks for it.
    fn keep(&self, name: &str, tensor: Tensor) -> Result<Tensor> {
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
        let weight = self.matrix(name, outputs, inputs, false)?;
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
        let weight = self.matrix(name, outputs, inputs, true)?;
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
