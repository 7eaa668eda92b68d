//! Row-wise operations on the CPU that have a backward pass of their own: layer norm, bias, GELU.
//!
//! Built of candle's parts each of them is ten passes over memory and a chain of temporaries, which costs a small model as much as
//! its matrix products. Here each is one pass forward and one backward, on all threads.

use std::ops::Deref;

use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Storage, Tensor, bail,
};
use inhouse_core::vector::{erf, exp, vectorized};
use rayon::prelude::*;

use crate::cpu::rows::RowNorm;

/// The elements of a contiguous f32 tensor.
pub(crate) fn slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(values), Some((begin, end))) => Ok(&values[begin..end]),
        _ => bail!("expected a contiguous f32 tensor"),
    }
}

/// Read access to a CPU tensor's elements.
pub(crate) struct Values<'a> {
    storage: Box<dyn Deref<Target = Storage> + 'a>,
    layout: &'a Layout,
}

/// Read access to `tensor`.
pub(crate) fn values(tensor: &Tensor) -> Values<'_> {
    let (storage, layout) = tensor.storage_and_layout();
    Values { storage: Box::new(storage), layout }
}

impl Values<'_> {
    pub fn slice(&self) -> Result<&[f32]> {
        match &**self.storage {
            Storage::Cpu(storage) => slice(storage, self.layout),
            _ => bail!("expected a tensor on the CPU"),
        }
    }
}

/// Elements that a thread takes at a time.
const PIECE: usize = 1 << 14;

/// Rows of `width` that a thread takes at a time, in elements.
pub(crate) fn piece(width: usize) -> usize {
    width * (PIECE / width.max(1)).max(1)
}

fn result(values: Vec<f32>, layout: &Layout) -> (CpuStorage, Shape) {
    (CpuStorage::F32(values), layout.shape().clone())
}

/// GELU by the error function.
pub(crate) struct Gelu;

impl CustomOp1 for Gelu {
    fn name(&self) -> &'static str {
        "gelu"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = slice(x, layout)?;
        let mut y = vec![0f32; x.len()];
        y.par_chunks_mut(PIECE).zip(x.par_chunks(PIECE)).for_each(|(y, x)| {
            vectorized(|| {
                for (y, &x) in y.iter_mut().zip(x) {
                    *y = 0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2));
                }
            });
        });
        Ok(result(y, layout))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        const FRAC_1_SQRT_2PI: f32 = 0.398_942_3;
        let (input, gradients) = (values(x), values(gradient));
        let (input, gradients) = (input.slice()?, gradients.slice()?);
        let mut out = vec![0f32; input.len()];
        let parts = out.par_chunks_mut(PIECE).zip(input.par_chunks(PIECE)).zip(gradients.par_chunks(PIECE));
        parts.for_each(|((out, x), gradient)| {
            vectorized(|| {
                for ((out, &x), &gradient) in out.iter_mut().zip(x).zip(gradient) {
                    let below = 0.5 * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2));
                    let density = FRAC_1_SQRT_2PI * exp(-0.5 * x * x);
                    *out = gradient * (below + x * density);
                }
            });
        });
        Tensor::from_vec(out, x.shape(), x.device()).map(Some)
    }
}

/// The sum of the rows of a matrix of `width` columns.
pub(crate) fn sum_of_rows(matrix: &[f32], width: usize) -> Vec<f32> {
    let add = |mut sum: Vec<f32>, row: &[f32]| {
        sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
        sum
    };
    // Pieces in a fixed order, so that the sum does not depend on how threads were scheduled.
    let parts: Vec<Vec<f32>> = matrix
        .par_chunks(piece(width))
        .map(|rows| vectorized(|| rows.chunks_exact(width).fold(vec![0f32; width], add)))
        .collect();
    parts.iter().fold(vec![0f32; width], |sum, part| add(sum, part))
}

/// `x [.., width] + bias [width]`.
pub(crate) struct AddBias;

impl CustomOp2 for AddBias {
    fn name(&self) -> &'static str {
        "add-bias"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, bias) = (slice(x, layout)?, slice(bias, bias_layout)?);
        if layout.dims().last() != Some(&bias.len()) {
            bail!("a bias of {} for {:?}", bias.len(), layout.shape());
        }
        let mut y = vec![0f32; x.len()];
        let size = piece(bias.len());
        y.par_chunks_mut(size).zip(x.par_chunks(size)).for_each(|(y, x)| {
            for (y, x) in y.chunks_exact_mut(bias.len()).zip(x.chunks_exact(bias.len())) {
                y.iter_mut().zip(x).zip(bias).for_each(|((y, x), bias)| *y = x + bias);
            }
        });
        Ok(result(y, layout))
    }

    fn bwd(
        &self,
        _x: &Tensor,
        bias: &Tensor,
        _y: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let width = bias.dim(0)?;
        let sum = sum_of_rows(values(gradient).slice()?, width);
        Ok((Some(gradient.clone()), Some(Tensor::from_vec(sum, width, bias.device())?)))
    }
}

/// Layer norm over the last dimension.
pub(crate) struct LayerNorm {
    pub epsilon: f32,
}

impl CustomOp3 for LayerNorm {
    fn name(&self) -> &'static str {
        "layer-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, weight, bias) = (slice(x, layout)?, slice(weight, weight_layout)?, slice(bias, bias_layout)?);
        if layout.dims().last() != Some(&weight.len()) || bias.len() != weight.len() {
            bail!("a layer norm of {} over {:?}", weight.len(), layout.shape());
        }
        let mut y = vec![0f32; x.len()];
        RowNorm { weight, bias: Some(bias), epsilon: self.epsilon }.forward(x, &mut y);
        Ok(result(y, layout))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _y: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [input, weights, biases, gradients] = [x, weight, bias, gradient].map(values);
        let (input, weights) = (input.slice()?, weights.slice()?);
        let norm = RowNorm { weight: weights, bias: Some(biases.slice()?), epsilon: self.epsilon };
        let mut d_x = vec![0f32; input.len()];
        let (mut d_weight, mut d_bias) = (vec![0f32; weights.len()], vec![0f32; weights.len()]);
        norm.backward(input, gradients.slice()?, &mut d_x, &mut d_weight, &mut d_bias);
        let tensor = |values, like: &Tensor| Tensor::from_vec(values, like.shape(), like.device()).map(Some);
        Ok((tensor(d_x, x)?, tensor(d_weight, weight)?, tensor(d_bias, bias)?))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};
    use candle_nn::ops::layer_norm_slow;

    use super::*;

    #[test]
    fn elementary_functions() {
        for i in -9000..9000 {
            let x = i as f32 / 100.0;
            let want = f64::from(x).exp();
            if x.abs() < 87.0 {
                assert!((f64::from(exp(x)) / want - 1.0).abs() < 3e-7, "exp({x}) = {}", exp(x));
            }
            assert!(exp(x).is_finite());
            let x = x / 20.0;
            let want = candle_core::cpu::erf::erf_f32(x);
            assert!((erf(x) - want).abs() < 5e-7, "erf({x}) = {}, {want}", erf(x));
        }
        assert!(exp(f32::NEG_INFINITY) < 1e-37);
    }

    /// Values and gradients against candle's own parts.
    #[test]
    fn agree_with_candle() {
        let device = Device::Cpu;
        for (rows, width) in [(1, 1), (3, 7), (70, 384), (2, 40_000)] {
            let x = Var::randn(0f32, 2.0, (rows, width), &device).unwrap();
            let weight = Var::randn(1f32, 0.5, width, &device).unwrap();
            let bias = Var::randn(0f32, 0.5, width, &device).unwrap();
            let target = Tensor::randn(0f32, 1.0, (rows, width), &device).unwrap();
            let forms: [[Tensor; 2]; 3] = [
                [x.apply_op1(Gelu).unwrap(), x.gelu_erf().unwrap()],
                [x.apply_op2(&bias, AddBias).unwrap(), x.broadcast_add(&bias).unwrap()],
                [
                    x.apply_op3(&weight, &bias, LayerNorm { epsilon: 1e-3 }).unwrap(),
                    layer_norm_slow(&x, &weight, &bias, 1e-3).unwrap(),
                ],
            ];
            for (i, [got, want]) in forms.iter().enumerate() {
                let gradients = |y: &Tensor| {
                    let store = (y * &target).unwrap().sum_all().unwrap().backward().unwrap();
                    [&x, &weight, &bias].map(|variable| store.get(variable).cloned())
                };
                let pairs = gradients(got).into_iter().zip(gradients(want));
                for (got, want) in pairs.chain([(Some(got.clone()), Some(want.clone()))]) {
                    assert_eq!(got.is_some(), want.is_some(), "{i}");
                    let (Some(got), Some(want)) = (got, want) else { continue };
                    let scale = want.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap().max(1.0);
                    let worst = (got - want).unwrap().abs().unwrap().max_all().unwrap();
                    let worst = worst.to_scalar::<f32>().unwrap();
                    assert!(worst <= 3e-5 * scale, "{i} of {rows} x {width}: {worst}");
                }
            }
        }
    }
}
