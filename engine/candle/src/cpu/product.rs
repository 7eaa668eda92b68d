//! Products of f32 matrices for training, where the operands are parts of larger ones, turned or not, and the result is added to
//! what is there.
//!
//! Blocks as in Goto and van de Geijn 2008 ("Anatomy of high-performance matrix multiplication"): a block of `b` is packed into
//! panels as wide as two vectors, a block of `a` into panels of [`TALL`] rows, and a kernel that keeps its tile of the result in
//! registers walks along both. candle's own product makes a new tensor each time, and is slower at these shapes.

use std::cell::Cell;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::{dispatch, multiply_add};

/// Rows of a tile: with two vectors each they fill 12 registers.
const TALL: usize = 6;
/// Rows of a tile of a product that is no wider than one vector.
const TALLER: usize = 12;
/// Inner dimension of a block: a panel of `b` stays in the first-level cache.
const DEEP: usize = 256;
/// Rows of a block of `a`, a multiple of both: it stays in the second-level cache.
const HIGH: usize = 96;
/// Columns of a block of `b`.
const WIDE: usize = 2048;
/// Products below which a second thread costs more than it saves.
const MIN_PARALLEL: usize = 1 << 22;
/// Blocks of rows for each thread: a thread that the machine gives less time then does fewer of them.
const SHARES: usize = 4;

/// A matrix, or part of one, in a slice.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> View<'a> {
    /// `[rows, columns]`, row after row.
    pub fn new(data: &'a [f32], rows: usize, columns: usize) -> Self {
        Self::strided(data, rows, columns, columns)
    }

    /// `[rows, columns]` whose rows begin `row_stride` numbers apart.
    pub fn strided(data: &'a [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        Self { data, rows, columns, row_stride, column_stride: 1 }
    }

    /// Elements of row `i` of a matrix that is not turned.
    pub fn row(&self, i: usize) -> &'a [f32] {
        &self.data[i * self.row_stride..][..self.columns]
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Turned.
    pub fn t(self) -> Self {
        Self {
            data: self.data,
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
        }
    }
}

/// Where a product goes: rows that begin `row_stride` numbers apart.
pub(crate) struct Target<'a> {
    pub data: &'a mut [f32],
    pub row_stride: usize,
    /// Whether the product is added to what is there.
    pub add: bool,
}

/// `a [m, k]` by `b [k, n]`, written or added to `[m, n]`.
pub(crate) fn multiply(out: Target<'_>, a: View<'_>, b: View<'_>) {
    let (m, n, k) = (a.rows, b.columns, a.columns.min(b.rows));
    if m == 0 || n == 0 {
        return;
    }
    let Target { data, row_stride, add } = out;
    let data = &mut data[..(m - 1) * row_stride + n];
    if k == 0 {
        if !add {
            data.chunks_mut(row_stride).for_each(|row| row[..n].fill(0.0));
        }
        return;
    }
    let lanes = dispatch(Lanes);
    let narrow = n <= lanes;
    let (tall, width) = if narrow { (TALLER, lanes) } else { (TALL, 2 * lanes) };
    let threads = rayon::current_num_threads();
    let parallel = threads > 1 && m > tall && m * n * k >= MIN_PARALLEL;
    let height =
        if parallel { m.div_ceil(SHARES * threads).next_multiple_of(TALLER).min(HIGH) } else { HIGH };
    let mut packed_b = PACKED_B.take();
    for column in (0..n).step_by(WIDE) {
        let columns = WIDE.min(n - column);
        for inner in (0..k).step_by(DEEP) {
            let depth = DEEP.min(k - inner);
            let panel = width * depth;
            packed_b.resize(columns.div_ceil(width) * panel, 0.0);
            // Panels of `width` columns: for each inner index its numbers lie together.
            let pack_b = |(j, panel): (usize, &mut [f32])| {
                let from = &b.data[inner * b.row_stride + (column + j * width) * b.column_stride..];
                let lines = width.min(columns - j * width);
                dispatch(Pack {
                    panel,
                    from,
                    lines,
                    stride: b.column_stride,
                    deep_stride: b.row_stride,
                    width,
                });
            };
            if parallel {
                packed_b.par_chunks_mut(panel).enumerate().for_each(pack_b);
            } else {
                packed_b.chunks_mut(panel).enumerate().for_each(pack_b);
            }
            let block = |(part, out): (usize, &mut [f32])| {
                let first = part * height;
                let a = View {
                    data: &a.data[first * a.row_stride + inner * a.column_stride..],
                    rows: height.min(m - first),
                    columns: depth,
                    ..a
                };
                let target = Target { data: &mut out[column..], row_stride, add: add || inner > 0 };
                dispatch(Block { out: target, a, panels: &packed_b, columns, narrow });
            };
            if parallel {
                data.par_chunks_mut(height * row_stride).enumerate().for_each(block);
            } else {
                data.chunks_mut(height * row_stride).enumerate().for_each(block);
            }
        }
    }
    PACKED_B.set(packed_b);
}

std::thread_local! {
    /// Packed blocks of `a` and `b`, kept from one product to the next.
    static PACKED_A: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
    static PACKED_B: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// How many numbers a vector holds.
struct Lanes;

impl WithSimd for Lanes {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) -> usize {
        S::F32_LANES
    }
}

/// Fills one panel, see [`pack`].
struct Pack<'a> {
    panel: &'a mut [f32],
    from: &'a [f32],
    lines: usize,
    stride: usize,
    deep_stride: usize,
    width: usize,
}

impl WithSimd for Pack<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) {
        let Self { panel, from, lines, stride, deep_stride, width } = self;
        // The width as a constant, so that copies are no calls.
        match width {
            8 => pack::<8>(panel, from, lines, stride, deep_stride),
            16 => pack::<16>(panel, from, lines, stride, deep_stride),
            32 => pack::<32>(panel, from, lines, stride, deep_stride),
            _ => pack_any(panel, from, lines, [stride, deep_stride], width),
        }
    }
}

/// Some rows of the result by a block of `b` in panels.
struct Block<'a> {
    out: Target<'a>,
    a: View<'a>,
    panels: &'a [f32],
    columns: usize,
    narrow: bool,
}

impl WithSimd for Block<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        if self.narrow { self.run::<S, TALLER, 1>(simd) } else { self.run::<S, TALL, 2>(simd) }
    }
}

impl Block<'_> {
    /// In tiles of `T` rows and `V` vectors. (Everything is inlined into what is compiled for the wide instructions.)
    #[inline(always)]
    fn run<S: Simd, const T: usize, const V: usize>(self, simd: S) {
        let Self { out: Target { data, row_stride, add }, a, panels, columns, .. } = self;
        let (m, k) = (a.rows, a.columns);
        let width = V * S::F32_LANES;
        let mut packed = PACKED_A.take();
        packed.resize(m.div_ceil(T) * T * k, 0.0);
        for (i, panel) in packed.chunks_exact_mut(T * k).enumerate() {
            let from = &a.data[i * T * a.row_stride..];
            pack::<T>(panel, from, T.min(m - i * T), a.row_stride, a.column_stride);
        }
        for (j, b) in panels.chunks_exact(k * width).enumerate() {
            let columns = width.min(columns - j * width);
            for (i, a) in packed.chunks_exact(k * T).enumerate() {
                let rows = T.min(m - i * T);
                let tile = tile::<S, T, V>(simd, a, b);
                let out = &mut data[i * T * row_stride + j * width..];
                store(simd, out, row_stride, tile, rows, columns, add);
            }
        }
        PACKED_A.set(packed);
    }
}

/// Copies `lines` of some depth into a panel of `N`, in which the numbers of one depth lie together; lines that there are not are
/// zero.
#[inline(always)]
fn pack<const N: usize>(panel: &mut [f32], from: &[f32], lines: usize, stride: usize, deep_stride: usize) {
    if lines < N {
        pack_any(panel, from, lines, [stride, deep_stride], N);
    } else if stride == 1 {
        for (out, from) in panel.as_chunks_mut::<N>().0.iter_mut().zip(from.chunks(deep_stride)) {
            if let Some(from) = from.first_chunk::<N>() {
                *out = *from;
            }
        }
    } else if deep_stride == 1 {
        // In squares: what is read lies together, and what is written stays in the first-level cache.
        const SQUARE: usize = 16;
        let depth = panel.len() / N;
        for begin in (0..depth).step_by(SQUARE) {
            let count = SQUARE.min(depth - begin);
            let out = &mut panel[begin * N..][..count * N];
            for line in 0..N {
                let from = &from[line * stride + begin..][..count];
                for (out, &value) in out.as_chunks_mut::<N>().0.iter_mut().zip(from) {
                    out[line] = value;
                }
            }
        }
    } else {
        pack_any(panel, from, lines, [stride, deep_stride], N);
    }
}

#[inline(always)]
fn pack_any(panel: &mut [f32], from: &[f32], lines: usize, [stride, deep_stride]: [usize; 2], width: usize) {
    for (at, out) in panel.chunks_exact_mut(width).enumerate() {
        let (out, missing) = out.split_at_mut(lines);
        for (line, out) in out.iter_mut().enumerate() {
            *out = from[at * deep_stride + line * stride];
        }
        missing.fill(0.0);
    }
}

/// A tile of the product, from a panel of each side.
#[inline(always)]
fn tile<S: Simd, const T: usize, const V: usize>(simd: S, a: &[f32], b: &[f32]) -> [[S::f32s; V]; T] {
    let mut sums = [[simd.splat_f32s(0.0); V]; T];
    let (b, _) = S::as_simd_f32s(b);
    let (a, _) = a.as_chunks::<T>();
    let (b, _) = b.as_chunks::<V>();
    for (a, b) in a.iter().zip(b) {
        for i in 0..T {
            let a = simd.splat_f32s(a[i]);
            for v in 0..V {
                sums[i][v] = multiply_add(simd, a, b[v], sums[i][v]);
            }
        }
    }
    sums
}

#[inline(always)]
fn store<S: Simd, const T: usize, const V: usize>(
    simd: S,
    out: &mut [f32],
    row_stride: usize,
    tile: [[S::f32s; V]; T],
    rows: usize,
    columns: usize,
    add: bool,
) {
    let width = V * S::F32_LANES;
    if rows == T && columns == width {
        // Of a size that is known, so that the tile goes from its registers to where it belongs.
        for i in 0..T {
            let (out, _) = S::as_mut_simd_f32s(&mut out[i * row_stride..][..width]);
            for v in 0..V {
                out[v] = if add { simd.add_f32s(out[v], tile[i][v]) } else { tile[i][v] };
            }
        }
        return;
    }
    for (i, sums) in tile.iter().enumerate().take(rows) {
        let out = &mut out[i * row_stride..][..columns];
        if columns == width {
            let (out, _) = S::as_mut_simd_f32s(out);
            for (out, &sum) in out.iter_mut().zip(sums) {
                *out = if add { simd.add_f32s(*out, sum) } else { sum };
            }
        } else {
            let mut row = [0f32; 64];
            let (vectors, _) = S::as_mut_simd_f32s(&mut row);
            vectors[..V].copy_from_slice(sums);
            for (out, &sum) in out.iter_mut().zip(&row) {
                *out = if add { *out + sum } else { sum };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_sums_in_f64() {
        let number = |i: usize| ((i * 7919 % 1009) as f32 / 504.5) - 1.0;
        for [m, n, k] in [
            [1, 1, 1],
            [6, 16, 8],
            [7, 17, 3],
            [5, 33, 300],
            [130, 40, 257],
            [100, 2100, 20],
            [3, 5, 0],
            [400, 16, 700],
            [16, 400, 700],
        ] {
            let a: Vec<f32> = (0..m * k).map(number).collect();
            let b: Vec<f32> = (0..k * n).map(|i| number(i + 5)).collect();
            let turned = |data: &[f32], rows: usize, columns: usize| -> Vec<f32> {
                (0..rows * columns).map(|i| data[i % rows * columns + i / rows]).collect()
            };
            let (a_turned, b_turned) = (turned(&a, m, k), turned(&b, k, n));
            let sides = [
                (View::new(&a, m, k), View::new(&b, k, n)),
                (View::new(&a_turned, k, m).t(), View::new(&b_turned, n, k).t()),
            ];
            for (a_view, b_view) in sides {
                for add in [false, true] {
                    let row_stride = n + 3;
                    let before: Vec<f32> = (0..m * row_stride).map(|i| number(i + 9)).collect();
                    let mut out = before.clone();
                    multiply(Target { data: &mut out, row_stride, add }, a_view, b_view);
                    for row in 0..m {
                        for column in 0..row_stride {
                            let at = row * row_stride + column;
                            if column >= n {
                                assert_eq!(out[at], before[at]);
                                continue;
                            }
                            let sum: f64 = (0..k)
                                .map(|i| f64::from(a[row * k + i]) * f64::from(b[i * n + column]))
                                .sum();
                            let want = sum + if add { f64::from(before[at]) } else { 0.0 };
                            assert!(
                                (f64::from(out[at]) - want).abs() < 1e-4,
                                "{m} {n} {k}: {} {want}",
                                out[at]
                            );
                        }
                    }
                }
            }
        }
    }
}
