//! Activation functions, where candle computes each number by itself on one thread.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Tensor, bail};
use half::{bf16, f16};
use inhouse_core::vector::exp;
use rayon::prelude::*;

use super::{Element, PIECE, contiguous, dispatch, takes};
use crate::ops::Activation;

/// `function` of every number of `x`, where it is one that has a kernel here.
pub(crate) fn activate(x: &Tensor, function: Activation) -> Result<Option<Tensor>> {
    let known = matches!(function, Activation::GeluTanh | Activation::Silu);
    if !known || !takes(x) || !x.is_contiguous() {
        return Ok(None);
    }
    x.apply_op1_no_bwd(&Activate(function)).map(Some)
}

struct Activate(Activation);

impl CustomOp1 for Activate {
    fn name(&self) -> &'static str {
        "activate"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        fn typed<T: Element>(x: &[T], function: Activation) -> CpuStorage {
            T::to_cpu_storage_owned(run(x, function))
        }
        let y = match x.dtype() {
            DType::F32 => typed::<f32>(contiguous(x, layout)?, self.0),
            DType::F16 => typed::<f16>(contiguous(x, layout)?, self.0),
            DType::BF16 => typed::<bf16>(contiguous(x, layout)?, self.0),
            dtype => bail!("an activation of {dtype:?}"),
        };
        Ok((y, layout.shape().clone()))
    }
}

fn run<T: Element>(x: &[T], function: Activation) -> Vec<T> {
    let mut y = vec![T::narrow(0.0); x.len()];
    y.par_chunks_mut(PIECE).with_min_len(8).zip(x.par_chunks(PIECE)).for_each(|(y, x)| {
        dispatch(|| {
            let mut room = [0f32; PIECE];
            let x = T::widen(x, &mut room);
            match function {
                Activation::Silu => y.iter_mut().zip(x).for_each(|(y, &x)| *y = T::narrow(silu(x))),
                _ => y.iter_mut().zip(x).for_each(|(y, &x)| *y = T::narrow(gelu_tanh(x))),
            }
        });
    });
    y
}

/// `x / (1 + e^-x)`.
#[inline(always)]
fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// `x / 2 * (1 + tanh(z))` (Hendrycks and Gimpel 2016, arXiv 1606.08415, section 2), written as `x / (1 + e^-2z)`.
#[inline(always)]
fn gelu_tanh(x: f32) -> f32 {
    const TWICE_SQRT_2_OVER_PI: f32 = 1.595_769;
    x / (1.0 + exp(-TWICE_SQRT_2_OVER_PI * x * (1.0 + 0.044_715 * x * x)))
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn agrees_with_candle() {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let x = Tensor::arange_step(-40f32, 40.0, 0.003, &Device::Cpu).unwrap();
            for function in [Activation::GeluTanh, Activation::Silu] {
                let x = x.to_dtype(dtype).unwrap();
                let got = activate(&x, function).unwrap().unwrap();
                assert_eq!((got.dtype(), got.dims()), (dtype, x.dims()));
                let wide = x.to_dtype(DType::F64).unwrap();
                let want =
                    if function == Activation::Silu { wide.silu().unwrap() } else { wide.gelu().unwrap() };
                let bound = if dtype == DType::F32 { 1e-6 } else { 8e-3 };
                let off = (got.to_dtype(DType::F64).unwrap() - &want).unwrap().abs().unwrap();
                let off: Vec<f64> = off.to_vec1().unwrap();
                for (off, want) in off.iter().zip(want.to_vec1::<f64>().unwrap()) {
                    assert!(*off <= bound * want.abs().max(0.1), "{function:?} {dtype:?}: {off} at {want}");
                }
            }
        }
        let x = Tensor::zeros(3, DType::F32, &Device::Cpu).unwrap();
        assert!(activate(&x, Activation::Relu).unwrap().is_none());
    }
}
