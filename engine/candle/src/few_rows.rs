//! A projection of few rows on the CPU: what decoding does most, and what a general matrix product does badly.
//!
//! With one row the time is that of reading the weights. The `gemm` crate reads them on one thread then; here all threads take
//! a share of the outputs. With some rows it first packs the weights, that is reads them twice and writes them once; here they
//! are read once for all rows. Weights in half precision are widened a piece at a time, in the first-level cache, and all sums
//! are in f32.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;

/// Rows up to which this is faster than the general product.
pub(crate) const MAX_ROWS: usize = 8;
/// Inputs widened at a time.
const PIECE: usize = 1024;
/// Below this many weights a second thread costs more than it saves.
const MIN_PARALLEL: usize = 1 << 15;

/// `x [rows, in]` times the transpose of `weight [out, in]`, for contiguous CPU tensors of one dtype and at most
/// [`MAX_ROWS`] rows.
pub(crate) fn project(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    x.apply_op2_no_bwd(weight, &FewRows)
}

struct FewRows;

impl CustomOp2 for FewRows {
    fn name(&self) -> &'static str {
        "few-rows"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (rows, inputs) = x_layout.shape().dims2()?;
        let (outputs, columns) = weight_layout.shape().dims2()?;
        let (Some(x_range), Some(weight_range)) =
            (x_layout.contiguous_offsets(), weight_layout.contiguous_offsets())
        else {
            bail!("few-rows: a tensor is not contiguous");
        };
        if inputs != columns || rows == 0 || rows > MAX_ROWS {
            bail!("few-rows: [{rows}, {inputs}] by [{outputs}, {columns}]");
        }
        let storage = match (x, weight) {
            (CpuStorage::F32(x), CpuStorage::F32(weight)) => CpuStorage::F32(run(
                &x[x_range.0..x_range.1],
                &weight[weight_range.0..weight_range.1],
                inputs,
            )),
            (CpuStorage::F16(x), CpuStorage::F16(weight)) => CpuStorage::F16(run(
                &x[x_range.0..x_range.1],
                &weight[weight_range.0..weight_range.1],
                inputs,
            )),
            (CpuStorage::BF16(x), CpuStorage::BF16(weight)) => CpuStorage::BF16(run(
                &x[x_range.0..x_range.1],
                &weight[weight_range.0..weight_range.1],
                inputs,
            )),
            _ => bail!("few-rows: no such pair of types"),
        };
        Ok((storage, (rows, outputs).into()))
    }
}

/// An element that is widened to f32 for the sums.
trait Element: Copy + Send + Sync {
    /// `from` as f32: itself, or written into `room`.
    fn widen<'a>(from: &'a [Self], room: &'a mut [f32]) -> &'a [f32];
    fn narrow(value: f32) -> Self;
}

impl Element for f32 {
    #[inline(always)]
    fn widen<'a>(from: &'a [Self], _room: &'a mut [f32]) -> &'a [f32] {
        from
    }

    fn narrow(value: f32) -> Self {
        value
    }
}

impl Element for f16 {
    #[inline(always)]
    fn widen<'a>(from: &'a [Self], room: &'a mut [f32]) -> &'a [f32] {
        let room = &mut room[..from.len()];
        from.convert_to_f32_slice(room);
        room
    }

    fn narrow(value: f32) -> Self {
        Self::from_f32(value)
    }
}

impl Element for bf16 {
    #[inline(always)]
    fn widen<'a>(from: &'a [Self], room: &'a mut [f32]) -> &'a [f32] {
        let room = &mut room[..from.len()];
        // The upper half of an f32. (The conversion of the half crate looks at each number for NaN.)
        for (wide, narrow) in room.iter_mut().zip(from) {
            *wide = f32::from_bits(u32::from(narrow.to_bits()) << 16);
        }
        room
    }

    fn narrow(value: f32) -> Self {
        Self::from_f32(value)
    }
}

/// `[rows, outputs]`, row-major.
fn run<T: Element>(x: &[T], weight: &[T], inputs: usize) -> Vec<T> {
    let (rows, outputs) = (x.len() / inputs, weight.len() / inputs);
    let mut room = vec![0f32; x.len()];
    let x = T::widen(x, &mut room);
    // By output first, so that threads write apart from each other.
    let mut sums = vec![0f32; outputs * rows];
    let threads = if weight.len() < MIN_PARALLEL { 1 } else { rayon::current_num_threads() };
    if threads == 1 {
        share(x, weight, inputs, &mut sums);
    } else {
        // Several shares for each thread: one that is held up leaves its rest to the others.
        let share_of = outputs.div_ceil(4 * threads).max(1);
        sums.par_chunks_mut(share_of * rows)
            .zip(weight.par_chunks(share_of * inputs))
            .for_each(|(sums, weight)| share(x, weight, inputs, sums));
    }
    let row = |row: usize| sums.iter().skip(row).step_by(rows).map(|&sum| T::narrow(sum));
    (0..rows).flat_map(row).collect()
}

/// The sums of some outputs, `[outputs, rows]`, with the widest instructions that the processor has of those known here.
fn share<T: Element>(x: &[f32], weight: &[T], inputs: usize, sums: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = pulp::x86::V3::try_new() {
        return simd.vectorize(Share { x, weight, inputs, sums });
    }
    Share { x, weight, inputs, sums }.compute();
}

struct Share<'a, T> {
    x: &'a [f32],
    weight: &'a [T],
    inputs: usize,
    sums: &'a mut [f32],
}

impl<T: Element> pulp::NullaryFnOnce for Share<'_, T> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        self.compute();
    }
}

impl<T: Element> Share<'_, T> {
    #[inline(always)]
    fn compute(self) {
        let rows = self.x.len() / self.inputs;
        let mut room = [0f32; PIECE];
        for (weight, sums) in self.weight.chunks_exact(self.inputs).zip(self.sums.chunks_exact_mut(rows)) {
            for (piece, weight) in weight.chunks(PIECE).enumerate() {
                let weight = T::widen(weight, &mut room);
                let begin = piece * PIECE;
                let x = |row: usize| &self.x[row * self.inputs + begin..][..weight.len()];
                let mut row = 0;
                while row + 4 <= rows {
                    let four = dot_of_four([x(row), x(row + 1), x(row + 2), x(row + 3)], weight);
                    sums[row..row + 4].iter_mut().zip(four).for_each(|(sum, part)| *sum += part);
                    row += 4;
                }
                for (row, sum) in sums.iter_mut().enumerate().skip(row) {
                    *sum += dot(x(row), weight);
                }
            }
        }
    }
}

/// Sums that are kept apart, so that additions need not wait for each other.
const LANES: usize = 32;

#[inline(always)]
fn dot(x: &[f32], weight: &[f32]) -> f32 {
    let mut sums = [0f32; LANES];
    let ((x, x_rest), (weight, weight_rest)) = (x.as_chunks::<LANES>(), weight.as_chunks::<LANES>());
    for (x, weight) in x.iter().zip(weight) {
        for lane in 0..LANES {
            sums[lane] += x[lane] * weight[lane];
        }
    }
    let rest: f32 = x_rest.iter().zip(weight_rest).map(|(x, weight)| x * weight).sum();
    sums.iter().sum::<f32>() + rest
}

const FOUR_LANES: usize = 16;

#[inline(always)]
fn dot_of_four(x: [&[f32]; 4], weight: &[f32]) -> [f32; 4] {
    let mut sums = [[0f32; FOUR_LANES]; 4];
    let (weight, weight_rest) = weight.as_chunks::<FOUR_LANES>();
    let [(a, a_rest), (b, b_rest), (c, c_rest), (d, d_rest)] = x.map(|x| x.as_chunks::<FOUR_LANES>());
    for ((((weight, a), b), c), d) in weight.iter().zip(a).zip(b).zip(c).zip(d) {
        for lane in 0..FOUR_LANES {
            sums[0][lane] += a[lane] * weight[lane];
            sums[1][lane] += b[lane] * weight[lane];
            sums[2][lane] += c[lane] * weight[lane];
            sums[3][lane] += d[lane] * weight[lane];
        }
    }
    let mut totals = sums.map(|sums| sums.iter().sum::<f32>());
    for (total, rest) in totals.iter_mut().zip([a_rest, b_rest, c_rest, d_rest]) {
        *total += rest.iter().zip(weight_rest).map(|(x, weight)| x * weight).sum::<f32>();
    }
    totals
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    #[test]
    fn agrees_with_the_general_product() {
        // Widths around the pieces and lanes; outputs below and above what is shared among threads.
        for (inputs, outputs) in [(1, 1), (7, 3), (32, 64), (33, 65), (1023, 40), (1024, 41), (2100, 70)] {
            for rows in 1..=MAX_ROWS {
                for (dtype, bound) in [(DType::F32, 1e-5), (DType::F16, 2e-3), (DType::BF16, 1e-2)] {
                    let random = |shape: (usize, usize)| {
                        Tensor::randn(0f32, 1.0, shape, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
                    };
                    let (x, weight) = (random((rows, inputs)), random((outputs, inputs)));
                    let wide = |tensor: &Tensor| tensor.to_dtype(DType::F32).unwrap();
                    let want = wide(&x).matmul(&wide(&weight).t().unwrap()).unwrap();
                    let got = project(&x, &weight).unwrap();
                    assert_eq!((got.dtype(), got.dims()), (dtype, want.dims()));
                    let worst = (wide(&got) - &want).unwrap().abs().unwrap().max_all().unwrap();
                    let scale = want.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
                    let worst = worst.to_scalar::<f32>().unwrap();
                    assert!(
                        worst <= bound * scale.max(1.0),
                        "{rows} x {inputs} x {outputs} {dtype:?}: {worst}"
                    );
                }
            }
        }
        let x = Tensor::zeros((2, 3), DType::F32, &Device::Cpu).unwrap();
        assert!(project(&x.t().unwrap(), &x).is_err());
        assert!(project(&Tensor::zeros((9, 3), DType::F32, &Device::Cpu).unwrap(), &x).is_err());
    }
}
