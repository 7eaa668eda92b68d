//! Attention and pooling over texts of different lengths that lie one after the other in one matrix.
//!
//! On the CPU a custom operation looks at each text by itself, without padding or copies, and has a backward pass. Elsewhere,
//! and in half precision, texts are padded to the longest for the attention alone.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, CustomOp3, D, DType, Device, Layout, Result, Shape, Tensor, bail};
use inhouse_core::vector::{exp, vectorized};
use rayon::prelude::*;

use crate::kernels;
use crate::ops::Ops;

/// Below this many numbers a second thread costs more than it saves.
const MIN_PARALLEL: usize = 1 << 15;

/// How the rows of a pass are shared among texts.
pub(crate) struct Texts {
    lengths: Arc<[usize]>,
    device: Device,
}

impl Texts {
    /// Texts of these lengths, each at least 1.
    pub fn new(lengths: &[usize], device: &Device) -> Result<Self> {
        if lengths.is_empty() || lengths.contains(&0) {
            bail!("texts without a token");
        }
        Ok(Self { lengths: lengths.into(), device: device.clone() })
    }

    /// Rows of each text.
    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    fn begins(&self) -> impl Iterator<Item = usize> + '_ {
        self.lengths.iter().scan(0, |end, length| {
            *end += length;
            Some(*end - length)
        })
    }

    /// The first row of each text out of `x [rows, width]`: `[texts, width]`.
    pub fn first(&self, x: &Tensor) -> Result<Tensor> {
        let begins: Vec<u32> = self.begins().map(|begin| begin as u32).collect();
        x.index_select(&Tensor::new(begins, &self.device)?, 0)
    }

    /// The mean of the rows of each text of `x [rows, width] f32`: `[texts, width]`.
    pub fn mean(&self, x: &Tensor) -> Result<Tensor> {
        if x.device().is_cpu() && x.dtype() == DType::F32 {
            return x.contiguous()?.apply_op1(Mean { lengths: Arc::clone(&self.lengths) });
        }
        let rows = x.dim(0)?;
        let mut shares = vec![0f32; self.lengths.len() * rows];
        for (text, (begin, &length)) in self.begins().zip(self.lengths.iter()).enumerate() {
            shares[text * rows + begin..][..length].fill(1.0 / length as f32);
        }
        Tensor::from_vec(shares, (self.lengths.len(), rows), &self.device)?.matmul(x)
    }
}

/// The mean of each text's rows. As a product of matrices it would cost the square of the number of texts.
struct Mean {
    lengths: Arc<[usize]>,
}

impl CustomOp1 for Mean {
    fn name(&self) -> &'static str {
        "ragged-mean"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, width) = layout.shape().dims2()?;
        if rows != self.lengths.iter().sum::<usize>() {
            bail!("means of {} texts over {rows} rows", self.lengths.len());
        }
        let mut rows = kernels::slice(x, layout)?.chunks_exact(width);
        let mut means = vec![0f32; self.lengths.len() * width];
        for (mean, &length) in means.chunks_exact_mut(width).zip(self.lengths.iter()) {
            for row in rows.by_ref().take(length) {
                mean.iter_mut().zip(row).for_each(|(mean, value)| *mean += value);
            }
            mean.iter_mut().for_each(|mean| *mean /= length as f32);
        }
        Ok((CpuStorage::F32(means), (self.lengths.len(), width).into()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let (rows, width) = x.dims2()?;
        let contiguous = gradient.contiguous()?;
        let gradient = kernels::values(&contiguous);
        let mut of_rows = Vec::with_capacity(rows * width);
        for (mean, &length) in gradient.slice()?.chunks_exact(width).zip(self.lengths.iter()) {
            let begin = of_rows.len();
            of_rows.extend(mean.iter().map(|value| value / length as f32));
            for _ in 1..length {
                of_rows.extend_from_within(begin..begin + width);
            }
        }
        Tensor::from_vec(of_rows, (rows, width), x.device()).map(Some)
    }
}

/// Attention of every row to all rows of its text. Queries, keys and values are `[rows, heads * head_dim]`, and so is what
/// comes out.
pub(crate) fn attend(
    queries: &Tensor,
    keys: &Tensor,
    values: &Tensor,
    texts: &Texts,
    heads: usize,
    ops: Ops,
) -> Result<Tensor> {
    if queries.device().is_cpu() && queries.dtype() == DType::F32 {
        let op = Attention { lengths: Arc::clone(&texts.lengths), heads };
        return match ops {
            Ops::Fused => queries.apply_op3_no_bwd(keys, values, &op),
            Ops::Differentiable => queries.apply_op3(keys, values, op),
        };
    }
    padded(queries, keys, values, texts, heads, ops)
}

fn padded(
    queries: &Tensor,
    keys: &Tensor,
    values: &Tensor,
    texts: &Texts,
    heads: usize,
    ops: Ops,
) -> Result<Tensor> {
    let (rows, width) = queries.dims2()?;
    let head_dim = width / heads;
    let n = texts.lengths.len();
    let longest = texts.lengths.iter().copied().max().unwrap_or(1);
    let (mut there, mut back) = (vec![rows as u32; n * longest], Vec::with_capacity(rows));
    let mut bias = vec![f32::NEG_INFINITY; n * longest];
    for (text, (begin, &length)) in texts.begins().zip(texts.lengths.iter()).enumerate() {
        for row in 0..length {
            there[text * longest + row] = (begin + row) as u32;
            back.push((text * longest + row) as u32);
        }
        bias[text * longest..][..length].fill(0.0);
    }
    let device = &texts.device;
    let (there, back) = (Tensor::new(there, device)?, Tensor::new(back, device)?);
    let bias = Tensor::from_vec(bias, (n, 1, 1, longest), device)?;
    let nothing = Tensor::zeros((1, width), queries.dtype(), device)?;
    let split = |x: &Tensor| {
        let x = Tensor::cat(&[x, &nothing], 0)?.index_select(&there, 0)?;
        x.reshape((n, longest, heads, head_dim))?.transpose(1, 2)?.contiguous()
    };
    let queries = (split(queries)? * (1.0 / (head_dim as f64).sqrt()))?;
    let scores = queries.matmul(&split(keys)?.transpose(D::Minus1, D::Minus2)?)?;
    let scores = scores.to_dtype(DType::F32)?.broadcast_add(&bias)?;
    let weights = ops.softmax(&scores)?.to_dtype(queries.dtype())?;
    let output = weights.matmul(&split(values)?)?.transpose(1, 2)?.reshape((n * longest, width))?;
    output.index_select(&back, 0)
}

struct Attention {
    lengths: Arc<[usize]>,
    heads: usize,
}

impl Attention {
    /// Rows and width of the matrices, checked.
    fn check(&self, shape: &Shape) -> Result<(usize, usize)> {
        let (rows, width) = shape.dims2()?;
        if rows != self.lengths.iter().sum::<usize>() || !width.is_multiple_of(self.heads) {
            bail!("attention of {} heads over [{rows}, {width}]", self.heads);
        }
        Ok((rows, width))
    }

    /// Calls `work` with each text's part of `outputs` (matrices of `width` columns) and its range of elements.
    fn each_text<const N: usize>(
        &self,
        width: usize,
        outputs: [&mut [f32]; N],
        work: impl Fn(std::ops::Range<usize>, usize, [&mut [f32]; N]) + Sync,
    ) {
        let mut rest = outputs;
        let mut begin = 0;
        let mut texts = Vec::with_capacity(self.lengths.len());
        for &length in self.lengths.iter() {
            let mut parts: [&mut [f32]; N] = std::array::from_fn(|_| Default::default());
            for (rest, part) in rest.iter_mut().zip(&mut parts) {
                let (now, later) = std::mem::take(rest).split_at_mut(length * width);
                (*part, *rest) = (now, later);
            }
            texts.push((begin..begin + length * width, length, parts));
            begin += length * width;
        }
        if begin < MIN_PARALLEL {
            texts.into_iter().for_each(|(range, length, parts)| work(range, length, parts));
        } else {
            texts.into_par_iter().for_each(|(range, length, parts)| work(range, length, parts));
        }
    }
}

impl CustomOp3 for Attention {
    fn name(&self) -> &'static str {
        "ragged-attention"
    }

    fn cpu_fwd(
        &self,
        queries: &CpuStorage,
        queries_layout: &Layout,
        keys: &CpuStorage,
        keys_layout: &Layout,
        values: &CpuStorage,
        values_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (rows, width) = self.check(queries_layout.shape())?;
        let queries = kernels::slice(queries, queries_layout)?;
        let keys = kernels::slice(keys, keys_layout)?;
        let values = kernels::slice(values, values_layout)?;
        let mut output = vec![0f32; rows * width];
        self.each_text(width, [&mut output], |range, n, [output]| {
            let text = Text {
                queries: &queries[range.clone()],
                keys: &keys[range.clone()],
                values: &values[range],
                n,
                width,
                head_dim: width / self.heads,
            };
            vectorized(|| text.forward(output));
        });
        Ok((CpuStorage::F32(output), (rows, width).into()))
    }

    fn bwd(
        &self,
        queries: &Tensor,
        keys: &Tensor,
        values: &Tensor,
        _output: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (rows, width) = self.check(queries.shape())?;
        let device = gradient.device();
        let read = [queries, keys, values, gradient].map(kernels::values);
        let [mut d_queries, mut d_keys, mut d_values]: [Vec<f32>; 3] =
            std::array::from_fn(|_| vec![0f32; rows * width]);
        let outputs: [&mut [f32]; 3] = [&mut d_queries, &mut d_keys, &mut d_values];
        let [queries, keys, values, gradient] = read.each_ref().map(|values| values.slice());
        let (queries, keys, values, gradient) = (queries?, keys?, values?, gradient?);
        self.each_text(width, outputs, |range, n, outputs| {
            let text = Text {
                queries: &queries[range.clone()],
                keys: &keys[range.clone()],
                values: &values[range.clone()],
                n,
                width,
                head_dim: width / self.heads,
            };
            vectorized(|| text.backward(&gradient[range], outputs));
        });
        let tensor = |values| Tensor::from_vec(values, (rows, width), device).map(Some);
        Ok((tensor(d_queries)?, tensor(d_keys)?, tensor(d_values)?))
    }
}

/// One text: matrices `[n, width]`.
struct Text<'a> {
    queries: &'a [f32],
    keys: &'a [f32],
    values: &'a [f32],
    n: usize,
    width: usize,
    head_dim: usize,
}

impl Text<'_> {
    #[inline(always)]
    fn scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }

    /// The columns of a head, transposed: `[head_dim, n]`.
    #[inline(always)]
    fn transposed(&self, matrix: &[f32], head: usize, out: &mut [f32]) {
        for (row, columns) in matrix.chunks_exact(self.width).enumerate() {
            for (column, &value) in columns[head * self.head_dim..][..self.head_dim].iter().enumerate() {
                out[column * self.n + row] = value;
            }
        }
    }

    #[inline(always)]
    fn row<'m>(&self, matrix: &'m [f32], row: usize, head: usize) -> &'m [f32] {
        &matrix[row * self.width + head * self.head_dim..][..self.head_dim]
    }

    #[inline(always)]
    fn row_mut<'m>(&self, matrix: &'m mut [f32], row: usize, head: usize) -> &'m mut [f32] {
        &mut matrix[row * self.width + head * self.head_dim..][..self.head_dim]
    }

    /// The attention weights of one row, `[n]`.
    #[inline(always)]
    fn weights(&self, row: usize, head: usize, keys: &[f32], weights: &mut [f32]) {
        products(self.row(self.queries, row, head), keys, weights);
        let scale = self.scale();
        let largest = weights.iter().fold(f32::NEG_INFINITY, |largest, &score| largest.max(score));
        weights.iter_mut().for_each(|score| *score = exp((*score - largest) * scale));
        let sum: f32 = weights.iter().sum();
        weights.iter_mut().for_each(|weight| *weight /= sum);
    }

    #[inline(always)]
    fn forward(&self, output: &mut [f32]) {
        let n = self.n;
        let mut keys = vec![0f32; self.head_dim * n];
        let mut weights = vec![0f32; n];
        for head in 0..self.width / self.head_dim {
            self.transposed(self.keys, head, &mut keys);
            for row in 0..n {
                self.weights(row, head, &keys, &mut weights);
                let output = self.row_mut(output, row, head);
                for (cell, &weight) in weights.iter().enumerate() {
                    add_scaled(output, weight, self.row(self.values, cell, head));
                }
            }
        }
    }

    #[inline(always)]
    fn backward(&self, gradient: &[f32], [d_queries, d_keys, d_values]: [&mut [f32]; 3]) {
        let (n, scale) = (self.n, self.scale());
        let (mut keys, mut values) = (vec![0f32; self.head_dim * n], vec![0f32; self.head_dim * n]);
        let (mut weights, mut d_scores) = (vec![0f32; n], vec![0f32; n]);
        for head in 0..self.width / self.head_dim {
            self.transposed(self.keys, head, &mut keys);
            self.transposed(self.values, head, &mut values);
            for row in 0..n {
                self.weights(row, head, &keys, &mut weights);
                let gradient = self.row(gradient, row, head);
                products(gradient, &values, &mut d_scores);
                let mean: f32 = weights.iter().zip(&d_scores).map(|(weight, d)| weight * d).sum();
                for (d, &weight) in d_scores.iter_mut().zip(&weights) {
                    *d = weight * (*d - mean) * scale;
                }
                let query = self.row(self.queries, row, head);
                let d_query = self.row_mut(d_queries, row, head);
                for (cell, (&weight, &d)) in weights.iter().zip(&d_scores).enumerate() {
                    add_scaled(d_query, d, self.row(self.keys, cell, head));
                    add_scaled(self.row_mut(d_keys, cell, head), d, query);
                    add_scaled(self.row_mut(d_values, cell, head), weight, gradient);
                }
            }
        }
    }
}

/// `row [dim]` by `matrix [dim, n]`.
#[inline(always)]
fn products(row: &[f32], matrix: &[f32], out: &mut [f32]) {
    out.fill(0.0);
    for (&value, line) in row.iter().zip(matrix.chunks_exact(out.len())) {
        add_scaled(out, value, line);
    }
}

#[inline(always)]
fn add_scaled(to: &mut [f32], factor: f32, from: &[f32]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to += factor * from);
}

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::*;

    #[test]
    fn means_are_of_each_text() {
        let device = Device::Cpu;
        let texts = Texts::new(&[1, 3, 2], &device).unwrap();
        let x = Var::randn(0f32, 1.0, (6, 4), &device).unwrap();
        let target = Tensor::randn(0f32, 1.0, (3, 4), &device).unwrap();
        let parts =
            [(0, 1), (1, 3), (4, 2)].map(|(begin, n)| x.narrow(0, begin, n).unwrap().mean(0).unwrap());
        let (got, want) = (texts.mean(&x).unwrap(), Tensor::stack(&parts, 0).unwrap());
        let gradient = |output: &Tensor| {
            let store = (output * &target).unwrap().sum_all().unwrap().backward().unwrap();
            store.get(x.as_tensor()).unwrap().clone()
        };
        for (got, want) in [(&got, &want), (&gradient(&got), &gradient(&want))] {
            let worst = (got - want).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(worst < 1e-6, "{worst}");
        }
    }

    /// The operation and the padded form, forward and backward.
    #[test]
    fn agrees_with_padded_attention() {
        let device = Device::Cpu;
        for (lengths, heads, head_dim) in
            [(&[1usize][..], 1, 4), (&[5, 1, 17, 2], 3, 8), (&[40, 33], 2, 32), (&[9, 120, 300], 4, 32)]
        {
            let texts = Texts::new(lengths, &device).unwrap();
            let shape = (lengths.iter().sum::<usize>(), heads * head_dim);
            let random = || Var::randn(0f32, 1.0, shape, &device).unwrap();
            let (queries, keys, values, target) = (random(), random(), random(), random());
            let form = |padding: bool| {
                let attend = if padding { padded } else { attend };
                attend(&queries, &keys, &values, &texts, heads, Ops::Differentiable).unwrap()
            };
            let (got, want) = (form(false), form(true));
            let gradients = |output: &Tensor| {
                let store = (output * target.as_tensor()).unwrap().sum_all().unwrap().backward().unwrap();
                [&queries, &keys, &values].map(|variable| store.get(variable).unwrap().clone())
            };
            let (got_gradients, want_gradients) = (gradients(&got), gradients(&want));
            let pairs = got_gradients.iter().zip(&want_gradients).chain([(&got, &want)]);
            for (got, want) in pairs {
                let worst = (got - want).unwrap().abs().unwrap().max_all().unwrap();
                let worst = worst.to_scalar::<f32>().unwrap();
                assert!(worst < 2e-5, "{lengths:?}: {worst}");
            }
        }
        assert!(Texts::new(&[], &device).is_err() && Texts::new(&[3, 0], &device).is_err());
    }
}
