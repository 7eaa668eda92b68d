//! A projection of few rows: what decoding does most, and what a general matrix product does badly.
//!
//! With one row the time is that of reading the weights. The `gemm` crate reads them on one thread then; here all threads take
//! a share of the outputs. With some rows it first packs the weights, that is reads them twice and writes them once; here they
//! are read once, and each is multiplied with all rows, which lie side by side in vectors.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, CustomOp3, DType, Layout, Result, Shape, Tensor, bail};
use half::{bf16, f16};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::{Element, PIECE, contiguous, dispatch, dots, multiply_add};

/// Rows up to which this is faster than the general product.
pub(crate) const MAX_ROWS: usize = 32;
/// Below this many products a second thread costs more than it saves.
const MIN_PARALLEL: usize = 1 << 15;
/// Outputs computed together for one row.
const OUTPUTS: usize = 4;
/// Outputs computed together for several rows: with two vectors of rows their sums, the rows and a weight fill the 16 registers
/// of AVX2.
const OUTPUTS_OF_ROWS: usize = 6;

/// `x [rows, in]` times the transpose of `weight [out, in]`, plus `bias [out]` where there is one, for contiguous CPU tensors of
/// one dtype and at most [`MAX_ROWS`] rows.
pub(crate) fn project(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    match bias {
        Some(bias) => x.apply_op3_no_bwd(weight, bias, &FewRows),
        None => x.apply_op2_no_bwd(weight, &FewRows),
    }
}

struct FewRows;

/// A tensor on the CPU.
type Stored<'a> = (&'a CpuStorage, &'a Layout);

impl CustomOp2 for FewRows {
    fn name(&self) -> &'static str {
        "few-rows"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        weight: &CpuStorage,
        wl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        checked((x, xl), (weight, wl), None)
    }
}

impl CustomOp3 for FewRows {
    fn name(&self) -> &'static str {
        "few-rows-bias"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        weight: &CpuStorage,
        wl: &Layout,
        bias: &CpuStorage,
        bl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        checked((x, xl), (weight, wl), Some((bias, bl)))
    }
}

fn checked(x: Stored<'_>, weight: Stored<'_>, bias: Option<Stored<'_>>) -> Result<(CpuStorage, Shape)> {
    fn typed<T: Element>(
        x: Stored<'_>,
        weight: Stored<'_>,
        bias: Option<Stored<'_>>,
        inputs: usize,
    ) -> Result<CpuStorage> {
        let bias = bias.map(|bias| contiguous::<T>(bias.0, bias.1)).transpose()?;
        let (x, weight) = (contiguous::<T>(x.0, x.1)?, contiguous::<T>(weight.0, weight.1)?);
        Ok(T::to_cpu_storage_owned(run(x, weight, bias, inputs)))
    }
    let (rows, inputs) = x.1.shape().dims2()?;
    let (outputs, columns) = weight.1.shape().dims2()?;
    if inputs != columns || rows == 0 || inputs == 0 || rows > MAX_ROWS {
        bail!("few-rows: [{rows}, {inputs}] by [{outputs}, {columns}]");
    }
    if bias.is_some_and(|(_, layout)| layout.dims() != [outputs]) {
        bail!("few-rows: a bias that is not [{outputs}]");
    }
    let storage = match x.0.dtype() {
        DType::F32 => typed::<f32>(x, weight, bias, inputs)?,
        DType::F16 => typed::<f16>(x, weight, bias, inputs)?,
        DType::BF16 => typed::<bf16>(x, weight, bias, inputs)?,
        dtype => bail!("few-rows: {dtype:?}"),
    };
    Ok((storage, (rows, outputs).into()))
}

/// `[rows, outputs]`, row-major.
fn run<T: Element>(x: &[T], weight: &[T], bias: Option<&[T]>, inputs: usize) -> Vec<T> {
    let (rows, outputs) = (x.len() / inputs, weight.len() / inputs);
    let x = if rows == 1 {
        let mut wide = vec![0f32; inputs];
        widen_all(x, &mut wide);
        Input::Row(wide)
    } else {
        Input::pack(x, inputs, dispatch(Lanes))
    };
    let mut y = vec![T::narrow(0.0); rows * outputs];
    let threads = if rows * weight.len() < MIN_PARALLEL { 1 } else { rayon::current_num_threads() };
    // Several shares for each thread: one that is held up leaves its rest to the others.
    let count = if threads == 1 { outputs } else { outputs.div_ceil(4 * threads).next_multiple_of(12) };
    // The shares of a row lie apart from each other, so that threads write without waiting.
    let mut shares: Vec<Vec<&mut [T]>> =
        weight.chunks(count * inputs).map(|_| Vec::with_capacity(rows)).collect();
    for row in y.chunks_exact_mut(outputs) {
        for (share, y) in shares.iter_mut().zip(row.chunks_mut(count)) {
            share.push(y);
        }
    }
    let compute = |(at, y): (usize, Vec<&mut [T]>)| {
        let outputs = at * count..((at + 1) * count).min(outputs);
        let weight = &weight[outputs.start * inputs..outputs.end * inputs];
        dispatch(Share { x: &x, weight, bias: bias.map(|bias| &bias[outputs]), inputs, y });
    };
    if threads == 1 {
        shares.into_iter().enumerate().for_each(compute);
    } else {
        shares.into_par_iter().enumerate().for_each(compute);
    }
    y
}

fn widen_all<T: Element>(from: &[T], to: &mut [f32]) {
    let mut room = [0f32; PIECE];
    for (to, from) in to.chunks_mut(PIECE).zip(from.chunks(PIECE)) {
        to.copy_from_slice(T::widen(from, &mut room));
    }
}

/// Numbers in a vector.
struct Lanes;

impl WithSimd for Lanes {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) -> usize {
        S::F32_LANES
    }
}

/// The rows that are projected, widened.
enum Input {
    /// `[in]`.
    Row(Vec<f32>),
    /// Groups of rows, each `[in, vectors * lanes]`: a number of every row side by side, zeros for rows that are not there.
    Groups { vectors: usize, width: usize, values: Vec<f32> },
}

impl Input {
    fn pack<T: Element>(x: &[T], inputs: usize, lanes: usize) -> Self {
        let rows = x.len() / inputs;
        let vectors = if rows <= lanes { 1 } else { 2 };
        let width = vectors * lanes;
        let mut values = vec![0f32; rows.div_ceil(width) * width * inputs];
        let mut wide = vec![0f32; inputs];
        for (row, x) in x.chunks_exact(inputs).enumerate() {
            widen_all(x, &mut wide);
            let group = &mut values[row / width * width * inputs..][..width * inputs];
            for (slot, value) in group.iter_mut().skip(row % width).step_by(width).zip(&wide) {
                *slot = *value;
            }
        }
        Self::Groups { vectors, width, values }
    }
}

/// Some outputs of all rows.
struct Share<'a, T> {
    x: &'a Input,
    /// `[outputs of the share, in]`.
    weight: &'a [T],
    /// `[outputs of the share]`.
    bias: Option<&'a [T]>,
    inputs: usize,
    /// By row, the share's outputs.
    y: Vec<&'a mut [T]>,
}

impl<T: Element> WithSimd for Share<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let mut room = [[0f32; PIECE]; OUTPUTS_OF_ROWS];
        match self.x {
            Input::Row(x) => self.one_row(simd, x, &mut room),
            Input::Groups { vectors: 1, width, values } => {
                self.groups::<S, 1>(simd, *width, values, &mut room);
            }
            Input::Groups { width, values, .. } => self.groups::<S, 2>(simd, *width, values, &mut room),
        }
    }
}

impl<T: Element> Share<'_, T> {
    #[inline(always)]
    fn bias(&self, output: usize) -> f32 {
        self.bias.map_or(0.0, |bias| T::widen(&bias[output..=output], &mut [0.0])[0])
    }

    #[inline(always)]
    fn one_row<S: Simd>(&mut self, simd: S, x: &[f32], room: &mut [[f32; PIECE]]) {
        let inputs = self.inputs;
        let Some(y) = self.y.first_mut().map(std::mem::take) else { return };
        let piece = T::PIECE.min(inputs);
        let whole = y.len() / OUTPUTS * OUTPUTS;
        for output in (0..whole).step_by(OUTPUTS) {
            let mut sums = [0f32; OUTPUTS];
            sums.iter_mut().enumerate().for_each(|(n, sum)| *sum = self.bias(output + n));
            for begin in (0..inputs).step_by(piece) {
                let length = piece.min(inputs - begin);
                let rows = weights::<T, OUTPUTS>(self.weight, inputs, output, begin, length, room);
                let parts = dots(simd, &x[begin..begin + length], rows);
                sums.iter_mut().zip(parts).for_each(|(sum, part)| *sum += part);
            }
            y[output..output + OUTPUTS].iter_mut().zip(sums).for_each(|(y, sum)| *y = T::narrow(sum));
        }
        for (output, y) in y.iter_mut().enumerate().skip(whole) {
            let mut sum = self.bias(output);
            for begin in (0..inputs).step_by(piece) {
                let length = piece.min(inputs - begin);
                let rows = weights::<T, 1>(self.weight, inputs, output, begin, length, room);
                sum += dots(simd, &x[begin..begin + length], rows)[0];
            }
            *y = T::narrow(sum);
        }
    }

    #[inline(always)]
    fn groups<S: Simd, const V: usize>(
        &mut self,
        simd: S,
        width: usize,
        values: &[f32],
        room: &mut [[f32; PIECE]],
    ) {
        let outputs = self.weight.len() / self.inputs;
        let whole = outputs / OUTPUTS_OF_ROWS * OUTPUTS_OF_ROWS;
        for output in (0..whole).step_by(OUTPUTS_OF_ROWS) {
            for (group, x) in values.chunks_exact(width * self.inputs).enumerate() {
                self.tile::<S, V, OUTPUTS_OF_ROWS>(simd, output, group * width, x, room);
            }
        }
        for output in whole..outputs {
            for (group, x) in values.chunks_exact(width * self.inputs).enumerate() {
                self.tile::<S, V, 1>(simd, output, group * width, x, room);
            }
        }
    }

    /// `N` outputs from `output` on, for the rows of a group, `first` and those after it.
    #[inline(always)]
    fn tile<S: Simd, const V: usize, const N: usize>(
        &mut self,
        simd: S,
        output: usize,
        first: usize,
        x: &[f32],
        room: &mut [[f32; PIECE]],
    ) {
        let piece = T::PIECE.min(self.inputs);
        let mut sums = [[simd.splat_f32s(0.0); V]; N];
        for (n, sums) in sums.iter_mut().enumerate() {
            *sums = [simd.splat_f32s(self.bias(output + n)); V];
        }
        let x = S::as_simd_f32s(x).0.as_chunks::<V>().0;
        for begin in (0..self.inputs).step_by(piece) {
            let length = piece.min(self.inputs - begin);
            let mut rows = weights::<T, N>(self.weight, self.inputs, output, begin, length, room);
            for row in &mut rows {
                *row = &row[..length];
            }
            for (k, x) in x[begin..begin + length].iter().enumerate() {
                for n in 0..N {
                    let weight = simd.splat_f32s(rows[n][k]);
                    for v in 0..V {
                        sums[n][v] = multiply_add(simd, weight, x[v], sums[n][v]);
                    }
                }
            }
        }
        for (n, sums) in sums.iter().enumerate() {
            let mut lanes = [0f32; 64];
            let (vectors, _) = S::as_mut_simd_f32s(&mut lanes);
            vectors[..V].copy_from_slice(sums);
            for (y, sum) in self.y[first..].iter_mut().zip(&lanes[..V * S::F32_LANES]) {
                y[output + n] = T::narrow(*sum);
            }
        }
    }
}

/// A piece of the weights of `N` outputs, as f32.
#[inline(always)]
fn weights<'a, T: Element, const N: usize>(
    weight: &'a [T],
    inputs: usize,
    output: usize,
    begin: usize,
    length: usize,
    room: &'a mut [[f32; PIECE]],
) -> [&'a [f32]; N] {
    // Loops and not closures over arrays, which the compiler leaves as calls: what is called has no wide instructions.
    let mut rows: [&[f32]; N] = [&[]; N];
    for ((n, row), room) in rows.iter_mut().enumerate().zip(room) {
        *row = T::widen(&weight[(output + n) * inputs + begin..][..length], room);
    }
    rows
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn agrees_with_the_general_product() {
        // Widths around the pieces and lanes; outputs below and above what is shared among threads.
        for (inputs, outputs) in [(1, 1), (7, 3), (32, 64), (33, 65), (1023, 40), (1024, 41), (2100, 70)] {
            for rows in (1..=10).chain([15, 16, 17, 31, MAX_ROWS]) {
                for (dtype, bound) in [(DType::F32, 1e-5), (DType::F16, 2e-3), (DType::BF16, 1e-2)] {
                    let random = |shape: (usize, usize)| {
                        Tensor::randn(0f32, 1.0, shape, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
                    };
                    let (x, weight) = (random((rows, inputs)), random((outputs, inputs)));
                    let wide = |tensor: &Tensor| tensor.to_dtype(DType::F32).unwrap();
                    let bias = random((1, outputs)).squeeze(0).unwrap();
                    let want = wide(&x).matmul(&wide(&weight).t().unwrap()).unwrap();
                    let (want, got) = if rows % 2 == 0 {
                        (want, project(&x, &weight, None).unwrap())
                    } else {
                        (
                            want.broadcast_add(&wide(&bias)).unwrap(),
                            project(&x, &weight, Some(&bias)).unwrap(),
                        )
                    };
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
        assert!(project(&x.t().unwrap(), &x, None).is_err() && project(&x, &x, Some(&x)).is_err());
        let many = Tensor::zeros((MAX_ROWS + 1, 3), DType::F32, &Device::Cpu).unwrap();
        assert!(project(&many, &x, None).is_err());
    }
}
