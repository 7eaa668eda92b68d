//! What training does to each row of a matrix by itself: norms, tanh-GELU, gated SiLU, cross-entropy, each with its backward pass
//! in place.

use inhouse_core::vector::{exp, lane_sum, vectorized};
use rayon::prelude::*;

use crate::kernels::piece;

/// Layer norm of rows, or without a bias root-mean-square norm: `weight`, `bias` `[width]`.
pub(crate) struct RowNorm<'a> {
    pub weight: &'a [f32],
    pub bias: Option<&'a [f32]>,
    pub epsilon: f32,
}

impl RowNorm<'_> {
    /// Mean, and one over the standard deviation; of a root-mean-square norm 0, and one over the root of the mean square.
    #[inline(always)]
    fn moments(&self, x: &[f32]) -> (f32, f32) {
        let n = x.len();
        let mean = if self.bias.is_some() { lane_sum(|i| x[i], n) / n as f32 } else { 0.0 };
        let variance = lane_sum(|i| (x[i] - mean) * (x[i] - mean), n) / n as f32;
        (mean, 1.0 / (variance + self.epsilon).sqrt())
    }

    pub fn forward(&self, x: &[f32], y: &mut [f32]) {
        let width = self.weight.len();
        let size = piece(width);
        y.par_chunks_mut(size).zip(x.par_chunks(size)).for_each(|(y, x)| {
            vectorized(|| {
                for (y, x) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
                    let (mean, rate) = self.moments(x);
                    for i in 0..width {
                        y[i] = (x[i] - mean) * rate * self.weight[i];
                    }
                    if let Some(bias) = self.bias {
                        y.iter_mut().zip(bias).for_each(|(y, bias)| *y += bias);
                    }
                }
            });
        });
    }

    /// Adds the gradient by `x` to `d_x`, and those by weight and bias to theirs.
    pub fn backward(
        &self,
        x: &[f32],
        d_y: &[f32],
        d_x: &mut [f32],
        d_weight: &mut [f32],
        d_bias: &mut [f32],
    ) {
        let width = self.weight.len();
        let size = piece(width);
        let rows = d_x.par_chunks_mut(size).zip(x.par_chunks(size)).zip(d_y.par_chunks(size));
        let parts: Vec<(Vec<f32>, Vec<f32>)> = rows
            .map(|((d_x, x), d_y)| {
                let (mut d_weight, mut d_bias) = (vec![0f32; width], vec![0f32; width]);
                vectorized(|| {
                    let rows = d_x.chunks_exact_mut(width).zip(x.chunks_exact(width));
                    for ((d_x, x), d_y) in rows.zip(d_y.chunks_exact(width)) {
                        let (mean, rate) = self.moments(x);
                        let normed = |i: usize| (x[i] - mean) * rate;
                        let direct = |i: usize| d_y[i] * self.weight[i];
                        let centred = self.bias.is_some();
                        let level = if centred { lane_sum(direct, width) / width as f32 } else { 0.0 };
                        let slope = lane_sum(|i| direct(i) * normed(i), width) / width as f32;
                        for i in 0..width {
                            d_x[i] += rate * (direct(i) - level - normed(i) * slope);
                            d_weight[i] += d_y[i] * normed(i);
                            d_bias[i] += d_y[i];
                        }
                    }
                });
                (d_weight, d_bias)
            })
            .collect();
        for (weight, bias) in &parts {
            d_weight.iter_mut().zip(weight).for_each(|(sum, more)| *sum += more);
            d_bias.iter_mut().zip(bias).for_each(|(sum, more)| *sum += more);
        }
    }
}

/// `2 * sqrt(2 / pi)`, see `activation`.
const TWICE_SQRT_2_OVER_PI: f32 = 1.595_769;
const CUBIC: f32 = 0.044_715;

/// Adds `bias` to the rows of `x` and writes tanh-GELU of them to `y`.
pub(crate) fn bias_gelu(x: &mut [f32], bias: &[f32], y: &mut [f32]) {
    let size = piece(bias.len());
    x.par_chunks_mut(size).zip(y.par_chunks_mut(size)).for_each(|(x, y)| {
        vectorized(|| {
            for (x, y) in x.chunks_exact_mut(bias.len()).zip(y.chunks_exact_mut(bias.len())) {
                for ((x, y), &bias) in x.iter_mut().zip(y).zip(bias) {
                    *x += bias;
                    let square = *x * *x;
                    *y = *x / (1.0 + exp(-TWICE_SQRT_2_OVER_PI * *x * (1.0 + CUBIC * square)));
                }
            }
        });
    });
}

/// Tanh-GELU of `x` once more, in its place, and its slopes there.
pub(crate) fn gelu_again(x: &mut [f32], slopes: &mut [f32]) {
    let size = piece(1);
    x.par_chunks_mut(size).zip(slopes.par_chunks_mut(size)).for_each(|(x, slopes)| {
        vectorized(|| {
            for (x, slope) in x.iter_mut().zip(slopes) {
                let value = *x;
                let square = value * value;
                let share = 1.0 / (1.0 + exp(-TWICE_SQRT_2_OVER_PI * value * (1.0 + CUBIC * square)));
                let change = TWICE_SQRT_2_OVER_PI * (1.0 + 3.0 * CUBIC * square);
                *slope = share + value * share * (1.0 - share) * change;
                *x = value * share;
            }
        });
    });
}

/// Writes `silu(gate) * up` to `y` (Shazeer 2020, arXiv 2002.05202).
pub(crate) fn gated_silu(gate: &[f32], up: &[f32], y: &mut [f32]) {
    let size = piece(1);
    y.par_chunks_mut(size).zip(gate.par_chunks(size)).zip(up.par_chunks(size)).for_each(|((y, gate), up)| {
        vectorized(|| {
            for ((y, &gate), &up) in y.iter_mut().zip(gate).zip(up) {
                *y = gate / (1.0 + exp(-gate)) * up;
            }
        });
    });
}

/// The gradients by `gate` and `up` in their places, from that by [`gated_silu`]'s output.
pub(crate) fn gated_silu_backward(gate: &mut [f32], up: &mut [f32], gradient: &[f32]) {
    let size = piece(1);
    let rows = gate.par_chunks_mut(size).zip(up.par_chunks_mut(size)).zip(gradient.par_chunks(size));
    rows.for_each(|((gate, up), gradient)| {
        vectorized(|| {
            for ((gate, up), &gradient) in gate.iter_mut().zip(up).zip(gradient) {
                let share = 1.0 / (1.0 + exp(-*gate));
                let silu = *gate * share;
                let slope = share + silu * (1.0 - share);
                *gate = gradient * *up * slope;
                *up = gradient * silu;
            }
        });
    });
}

/// Cross-entropy of rows of logits.
pub(crate) struct CrossEntropy<'a> {
    /// Of each row.
    pub targets: &'a [u32],
    /// Of each row.
    pub weights: &'a [f32],
}

impl CrossEntropy<'_> {
    /// Puts `scale * weight` times the gradient of each row's loss in the place of its `logits [rows, vocab]`. Gives the weighted
    /// sum of losses in nats, and the weight of the rows whose target has the highest logit.
    pub fn differentiate(&self, logits: &mut [f32], scale: f32) -> (f64, f64) {
        let vocab = logits.len() / self.targets.len().max(1);
        let rows = logits.par_chunks_mut(vocab.max(1)).zip(self.targets).zip(self.weights);
        let each: Vec<(f64, f64)> = rows
            .map(|((row, &target), &weight)| {
                let target = target as usize;
                let score = row[target];
                let (largest, sum) = vectorized(|| {
                    let mut largest = [f32::NEG_INFINITY; 16];
                    let (whole, rest) = row.as_chunks::<16>();
                    for values in whole {
                        for (largest, &value) in largest.iter_mut().zip(values) {
                            *largest = if value > *largest { value } else { *largest };
                        }
                    }
                    let all = largest.iter().chain(rest);
                    let largest = all.fold(f32::NEG_INFINITY, |largest, &value| largest.max(value));
                    row.iter_mut().for_each(|value| *value = exp(*value - largest));
                    (largest, lane_sum(|i| row[i], row.len()))
                });
                let factor = scale * weight;
                let share = factor / sum;
                row.iter_mut().for_each(|value| *value *= share);
                row[target] -= factor;
                let loss = f64::from(largest - score) + f64::from(sum).ln();
                (f64::from(weight) * loss, if score >= largest { f64::from(weight) } else { 0.0 })
            })
            .collect();
        each.iter().fold((0.0, 0.0), |(loss, right), (l, r)| (loss + l, right + r))
    }
}
