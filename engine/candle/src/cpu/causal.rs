//! Causal self-attention of whole texts that lie one after the other, forward and backward, for training.
//!
//! Queries, keys and values are columns of one matrix, as a fused projection gives them, and are read where they lie. Scores are
//! made for [`TALL`] queries at a time by the products of `product`, only up to the last cell that one of them sees, and again in
//! the backward pass: what is kept of them is one number per row and head.

use std::ops::Range;

use inhouse_core::vector::{exp, vectorized};
use rayon::prelude::*;

use super::product::{Target, View, multiply};
use crate::ops::Pairs;

/// Queries that are looked at together.
const TALL: usize = 48;
/// Below this many scores a second thread costs more than it saves.
const MIN_PARALLEL: usize = 1 << 16;

/// Columns of one head in the rows of the fused matrix. Heads of queries may share those of keys and values.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub query: Range<usize>,
    pub key: Range<usize>,
    pub value: Range<usize>,
    /// In the output's rows.
    pub output: Range<usize>,
}

/// Shapes of a pass.
pub(crate) struct Causal<'a> {
    /// Rows of each text.
    pub lengths: &'a [usize],
    pub heads: &'a [Head],
    /// Width of the fused rows.
    pub fused: usize,
    /// Width of the output's rows.
    pub width: usize,
    /// Of each place in a text, and of each pair of dimensions that is turned, cosine and sine.
    pub turns: Vec<(f32, f32)>,
    /// How many pairs of a head are turned, and which dimensions are one.
    pub pairs: usize,
    pub order: Pairs,
}

/// Turns of `longest` places by their number times `frequencies`.
pub(crate) fn turns(longest: usize, frequencies: &[f32]) -> Vec<(f32, f32)> {
    let angles = (0..longest).flat_map(|place| frequencies.iter().map(move |f| place as f32 * f));
    angles.map(|angle| (angle.cos(), angle.sin())).collect()
}

/// The parts of one text.
struct Text<'a, const N: usize> {
    /// Its rows in the whole matrices.
    rows: Range<usize>,
    written: [&'a mut [f32]; N],
}

impl Causal<'_> {
    fn texts<'m, const N: usize>(&self, whole: [(&'m mut [f32], usize); N]) -> Vec<Text<'m, N>> {
        let mut begin = 0;
        let mut rest = whole;
        self.lengths
            .iter()
            .map(|&length| {
                let written = rest.each_mut().map(|(rest, width)| {
                    let (taken, left) = std::mem::take(rest).split_at_mut(length * *width);
                    *rest = left;
                    taken
                });
                begin += length;
                Text { rows: begin - length..begin, written }
            })
            .collect()
    }

    fn each<const N: usize>(
        &self,
        whole: [(&mut [f32], usize); N],
        work: impl Fn(Text<'_, N>) + Send + Sync,
    ) {
        let texts = self.texts(whole);
        let scores: usize = self.lengths.iter().map(|n| n * n).sum();
        if rayon::current_num_threads() > 1 && scores * self.heads.len() >= MIN_PARALLEL {
            texts.into_par_iter().for_each(work);
        } else {
            texts.into_iter().for_each(work);
        }
    }

    /// Turns the leading dimensions of every query and key by their place in the text; `backwards` undoes it.
    pub fn rotate(&self, fused: &mut [f32], backwards: bool) {
        let sign = if backwards { -1.0 } else { 1.0 };
        // Keys that several heads share are turned once.
        let mut columns: Vec<usize> =
            self.heads.iter().flat_map(|head| [head.query.start, head.key.start]).collect();
        columns.sort_unstable();
        columns.dedup();
        self.each([(fused, self.fused)], |Text { written: [fused], .. }| {
            for (row, turns) in fused.chunks_exact_mut(self.fused).zip(self.turns.chunks_exact(self.pairs)) {
                for &begin in &columns {
                    let turned = &mut row[begin..begin + 2 * self.pairs];
                    match self.order {
                        Pairs::Neighbours => {
                            for ([x, y], turn) in turned.as_chunks_mut::<2>().0.iter_mut().zip(turns) {
                                turn_pair(x, y, turn, sign);
                            }
                        }
                        Pairs::Halves => {
                            let (xs, ys) = turned.split_at_mut(self.pairs);
                            for ((x, y), turn) in xs.iter_mut().zip(ys).zip(turns) {
                                turn_pair(x, y, turn, sign);
                            }
                        }
                    }
                }
            }
        });
    }

    fn scale(&self) -> f32 {
        1.0 / (self.heads.first().map_or(1, |head| head.query.len()) as f32).sqrt()
    }

    /// Writes `output [rows, width]` and `levels [rows, heads]`, the logarithm of each row's sum of exponentials.
    pub fn forward(&self, fused: &[f32], output: &mut [f32], levels: &mut [f32]) {
        let scale = self.scale();
        let n_heads = self.heads.len();
        self.each([(output, self.width), (levels, n_heads)], |Text { rows, written: [output, levels] }| {
            let n = rows.len();
            let fused = &fused[rows.start * self.fused..rows.end * self.fused];
            let mut scores = vec![0f32; TALL.min(n) * n];
            for (h, head) in self.heads.iter().enumerate() {
                for begin in (0..n).step_by(TALL) {
                    let count = TALL.min(n - begin);
                    let seen = begin + count;
                    self.scores(fused, head, begin, count, &mut scores);
                    let scores = &mut scores[..count * seen];
                    vectorized(|| {
                        for (i, row) in scores.chunks_exact_mut(seen).enumerate() {
                            let (row, unseen) = row.split_at_mut(begin + i + 1);
                            levels[(begin + i) * n_heads + h] = softmax(row, scale);
                            unseen.fill(0.0);
                        }
                    });
                    let target = Target {
                        data: &mut output[begin * self.width + head.output.start..],
                        row_stride: self.width,
                        add: false,
                    };
                    multiply(target, View::new(scores, count, seen), self.view(fused, &head.value, 0, seen));
                }
            }
        });
    }

    /// Writes the gradient by the fused matrix, from that by the output.
    pub fn backward(
        &self,
        fused: &[f32],
        output: &[f32],
        levels: &[f32],
        d_output: &[f32],
        d_fused: &mut [f32],
    ) {
        let scale = self.scale();
        let n_heads = self.heads.len();
        self.each([(d_fused, self.fused)], |Text { rows, written: [d_fused] }| {
            let n = rows.len();
            let fused = &fused[rows.start * self.fused..rows.end * self.fused];
            let output = &output[rows.start * self.width..rows.end * self.width];
            let d_output = &d_output[rows.start * self.width..rows.end * self.width];
            let levels = &levels[rows.start * n_heads..rows.end * n_heads];
            let mut scores = vec![0f32; TALL.min(n) * n];
            let mut d_scores = vec![0f32; TALL.min(n) * n];
            d_fused.fill(0.0);
            for (h, head) in self.heads.iter().enumerate() {
                for begin in (0..n).step_by(TALL) {
                    let count = TALL.min(n - begin);
                    let seen = begin + count;
                    self.scores(fused, head, begin, count, &mut scores);
                    let weights = &mut scores[..count * seen];
                    let d_scores = &mut d_scores[..count * seen];
                    let d_rows = View::strided(
                        &d_output[begin * self.width + head.output.start..],
                        count,
                        head.output.len(),
                        self.width,
                    );
                    let target = Target { data: d_scores, row_stride: seen, add: false };
                    multiply(target, d_rows, self.view(fused, &head.value, 0, seen).t());
                    vectorized(|| {
                        let rows = weights.chunks_exact_mut(seen).zip(d_scores.chunks_exact_mut(seen));
                        for (i, (weights, d_scores)) in rows.enumerate() {
                            let row = begin + i;
                            let at = row * self.width;
                            let [got, wanted] =
                                [output, d_output].map(|m| &m[at + head.output.start..at + head.output.end]);
                            // What the weights have in common: they sum to 1 whatever the scores.
                            let common: f32 = got.iter().zip(wanted).map(|(x, y)| x * y).sum();
                            let level = levels[row * n_heads + h];
                            let (weights, unseen) = weights.split_at_mut(row + 1);
                            let (d_scores, d_unseen) = d_scores.split_at_mut(row + 1);
                            for (weight, d) in weights.iter_mut().zip(d_scores) {
                                *weight = exp(*weight * scale - level);
                                *d = *weight * (*d - common) * scale;
                            }
                            unseen.fill(0.0);
                            d_unseen.fill(0.0);
                        }
                    });
                    let (weights, d_scores) =
                        (View::new(weights, count, seen), View::new(d_scores, count, seen));
                    let mut put = |columns: &Range<usize>, begin: usize, a: View<'_>, b: View<'_>| {
                        let data = &mut d_fused[begin * self.fused + columns.start..];
                        multiply(Target { data, row_stride: self.fused, add: true }, a, b);
                    };
                    put(&head.query, begin, d_scores, self.view(fused, &head.key, 0, seen));
                    put(&head.key, 0, d_scores.t(), self.view(fused, &head.query, begin, count));
                    put(&head.value, 0, weights.t(), d_rows);
                }
            }
        });
    }

    /// Some columns of some rows of one text.
    fn view<'m>(&self, fused: &'m [f32], columns: &Range<usize>, begin: usize, count: usize) -> View<'m> {
        View::strided(&fused[begin * self.fused + columns.start..], count, columns.len(), self.fused)
    }

    /// Products of `count` queries from `begin` on with all keys that the last of them sees, `[count, begin + count]`.
    fn scores(&self, fused: &[f32], head: &Head, begin: usize, count: usize, scores: &mut [f32]) {
        let seen = begin + count;
        let queries = self.view(fused, &head.query, begin, count);
        let keys = self.view(fused, &head.key, 0, seen);
        multiply(
            Target { data: &mut scores[..count * seen], row_stride: seen, add: false },
            queries,
            keys.t(),
        );
    }
}

#[inline(always)]
fn turn_pair(x: &mut f32, y: &mut f32, (cos, sin): &(f32, f32), sign: f32) {
    let sin = sign * sin;
    (*x, *y) = (*x * cos - *y * sin, *x * sin + *y * cos);
}

/// Softmax of `scale * row`; gives the logarithm of the sum of exponentials.
#[inline(always)]
fn softmax(row: &mut [f32], scale: f32) -> f32 {
    let mut largest = [f32::NEG_INFINITY; 8];
    let (whole, rest) = row.as_chunks::<8>();
    for values in whole {
        for (largest, &value) in largest.iter_mut().zip(values) {
            *largest = if value > *largest { value } else { *largest };
        }
    }
    let largest = largest.iter().chain(rest).fold(f32::NEG_INFINITY, |largest, &value| largest.max(value));
    row.iter_mut().for_each(|score| *score = exp((*score - largest) * scale));
    let mut sums = [0f32; 8];
    let (whole, rest) = row.as_chunks::<8>();
    for values in whole {
        sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
    }
    let sum = sums.iter().sum::<f32>() + rest.iter().sum::<f32>();
    let share = 1.0 / sum;
    row.iter_mut().for_each(|weight| *weight *= share);
    largest * scale + sum.ln()
}
