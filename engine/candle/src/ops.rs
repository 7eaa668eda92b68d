//! The operations that come in two forms: fused for inference, and built of differentiable parts for training.
//!
//! candle's fused `layer_norm`, `rms_norm`, `softmax_last_dim` and `rope` have no backward pass and stop gradients silently.
//! Every forward pass takes an [`Ops`] and goes through here, so that a trainer gets the same network with gradients.

use candle_core::{D, DType, Result, Tensor};
use candle_nn::{ops, rotary_emb};

use crate::cpu;
use crate::kernels::{AddBias, Gelu, LayerNorm};

/// Which form of the operations a forward pass uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ops {
    /// Fused; no gradient passes.
    Fused,
    /// Of parts that each have a backward pass.
    Differentiable,
}

impl Ops {
    /// Layer norm over the last dimension (Ba et al. 2016, arXiv 1607.06450).
    pub fn layer_norm(self, x: &Tensor, weight: &Tensor, bias: &Tensor, epsilon: f64) -> Result<Tensor> {
        match self {
            Self::Fused => ops::layer_norm(&x.contiguous()?, weight, bias, epsilon as f32),
            Self::Differentiable if in_kernels(x) => {
                x.contiguous()?.apply_op3(weight, bias, LayerNorm { epsilon: epsilon as f32 })
            }
            Self::Differentiable => ops::layer_norm_slow(x, weight, bias, epsilon as f32),
        }
    }

    /// `x [.., width]` plus `bias [width]`.
    pub fn add_bias(self, x: &Tensor, bias: &Tensor) -> Result<Tensor> {
        if in_kernels(x) && x.is_contiguous() {
            return match self {
                Self::Fused => x.apply_op2_no_bwd(bias, &AddBias),
                Self::Differentiable => x.apply_op2(bias, AddBias),
            };
        }
        x.broadcast_add(bias)
    }

    /// An activation function.
    pub fn activate(self, activation: Activation, x: &Tensor) -> Result<Tensor> {
        if self == Self::Fused
            && let Some(y) = cpu::activate(x, activation)?
        {
            return Ok(y);
        }
        match (activation, self) {
            (Activation::Gelu, Self::Fused) if in_kernels(x) => x.contiguous()?.apply_op1_no_bwd(&Gelu),
            (Activation::Gelu, Self::Differentiable) if in_kernels(x) => x.contiguous()?.apply_op1(Gelu),
            _ => activation.apply(x),
        }
    }

    /// Root-mean-square norm over the last dimension (Zhang and Sennrich 2019, arXiv 1910.07467).
    pub fn rms_norm(self, x: &Tensor, weight: &Tensor, epsilon: f64) -> Result<Tensor> {
        match self {
            Self::Fused => ops::rms_norm(&x.contiguous()?, weight, epsilon as f32),
            Self::Differentiable => ops::rms_norm_slow(x, weight, epsilon as f32),
        }
    }

    /// Softmax over the last dimension.
    pub fn softmax(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Fused => ops::softmax_last_dim(&x.contiguous()?),
            Self::Differentiable => ops::softmax(x, D::Minus1),
        }
    }

    /// Rotates `x [heads, rows, dim]` by `cos` and `sin`, each `[rows, dim / 2]`.
    pub fn rotate(self, x: &Tensor, pairs: Pairs, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
        let x = x.contiguous()?.unsqueeze(0)?;
        let rotate = match (self, pairs) {
            (Self::Fused, Pairs::Halves) => rotary_emb::rope,
            (Self::Fused, Pairs::Neighbours) => rotary_emb::rope_i,
            (Self::Differentiable, Pairs::Halves) => rotary_emb::rope_slow,
            (Self::Differentiable, Pairs::Neighbours) => rotary_emb::rope_i_slow,
        };
        rotate(&x, cos, sin)?.squeeze(0)
    }

    /// `x [rows, in]` times the transpose of `weight [out, in]`, plus `bias [out]`.
    pub fn project(self, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        let few = x.device().is_cpu() && x.dim(0)? <= cpu::MAX_ROWS && weight.is_contiguous();
        if self == Self::Fused && few {
            return cpu::project(&x.contiguous()?, weight, bias);
        }
        let y = x.matmul(&weight.t()?)?;
        match bias {
            Some(bias) => self.add_bias(&y, bias),
            None => Ok(y),
        }
    }
}

/// Whether `kernels` has operations for such a tensor.
fn in_kernels(x: &Tensor) -> bool {
    x.device().is_cpu() && x.dtype() == DType::F32
}

/// Which dimensions of a head the rotary embedding turns together (Su et al. 2021, arXiv 2104.09864).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pairs {
    /// i and i + dim / 2: GPT-NeoX, llama.
    Halves,
    /// 2i and 2i + 1: GPT-J, CodeGen.
    Neighbours,
}

/// An activation function, by the name it has in `config.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// GELU by its tanh approximation.
    GeluTanh,
    /// GELU by the error function.
    Gelu,
    /// max(x, 0).
    Relu,
    /// x times its sigmoid.
    Silu,
}

impl Activation {
    /// Names in `config.json`.
    pub const NAMES: &str = "gelu_new, gelu_fast, gelu_pytorch_tanh, gelu, relu, silu, swish";

    /// The function of that name, where it is known.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            // Three names of one formula (transformers' activations.py).
            "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" => Self::GeluTanh,
            "gelu" => Self::Gelu,
            "relu" => Self::Relu,
            "silu" | "swish" => Self::Silu,
            _ => return None,
        })
    }

    fn apply(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::GeluTanh => x.gelu(),
            Self::Gelu => x.gelu_erf(),
            Self::Relu => x.relu(),
            Self::Silu => x.silu(),
        }
    }
}

/// Rotary frequencies of a head, one for each pair of dimensions, in radians per position.
#[derive(Debug, Clone)]
pub(crate) struct Rotary {
    frequencies: Vec<f32>,
    pairs: Pairs,
}

impl Rotary {
    /// `base^(-2i / dim)` for each pair.
    pub fn new(dim: usize, base: f64, pairs: Pairs) -> Self {
        let frequencies = (0..dim / 2).map(|i| base.powf(-((2 * i) as f64) / dim as f64) as f32).collect();
        Self { frequencies, pairs }
    }

    /// One for each pair of dimensions, in radians per position.
    pub fn frequencies(&self) -> &[f32] {
        &self.frequencies
    }

    /// Changes each frequency, for models whose context was stretched after training.
    pub fn map(mut self, change: impl Fn(f64) -> f64) -> Self {
        for frequency in &mut self.frequencies {
            *frequency = change(f64::from(*frequency)) as f32;
        }
        self
    }

    /// Cosines and sines for the positions of a pass, each `[positions, dim / 2]`. There is no table of all positions: its
    /// size would be what config.json claims.
    pub fn turns(&self, positions: &[usize], dtype: DType, device: &candle_core::Device) -> Result<Turns> {
        let angle = |&position: &usize| self.frequencies.iter().map(move |f| position as f32 * f);
        let angles: Vec<f32> = positions.iter().flat_map(angle).collect();
        let angles = Tensor::from_vec(angles, (positions.len(), self.frequencies.len()), device)?;
        Ok(Turns {
            cos: angles.cos()?.to_dtype(dtype)?,
            sin: angles.sin()?.to_dtype(dtype)?,
            pairs: self.pairs,
        })
    }
}

/// How far each row of a pass is turned.
pub(crate) struct Turns {
    cos: Tensor,
    sin: Tensor,
    pairs: Pairs,
}

impl Turns {
    /// Turns the leading dimensions of `x [heads, rows, head_dim]`, as many as there are frequencies for.
    pub fn apply(&self, x: &Tensor, ops: Ops) -> Result<Tensor> {
        let (dim, rotated) = (x.dim(D::Minus1)?, 2 * self.cos.dim(1)?);
        if dim == rotated {
            return ops.rotate(x, self.pairs, &self.cos, &self.sin);
        }
        let turned = ops.rotate(&x.narrow(D::Minus1, 0, rotated)?, self.pairs, &self.cos, &self.sin)?;
        Tensor::cat(&[&turned, &x.narrow(D::Minus1, rotated, dim - rotated)?], D::Minus1)
    }
}
