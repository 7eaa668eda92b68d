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

/// Rows of a tile: with two vectors each they fill 12 of 16 registers.
const TALL: usize = 6;
/// Inner dimension of a block: a panel of `b` stays in the first-level cache.
const DEEP: usize = 256;
/// Rows of a block of `a`: it stays in the second-level cache.
const HIGH: usize = 96;
/// Columns of a block of `b`.
const WIDE: usize = 2048;
/// Products below which a second thread costs more than it saves.
const MIN_PARALLEL: usize = 1 << 22;

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
    let blocks = m.div_ceil(HIGH);
    let threads = rayon::current_num_threads();
    if threads < 2 || blocks < 2 || m * n * k < MIN_PARALLEL {
        run(Target { data, row_stride, add }, a, b, m);
        return;
    }
    // Whole blocks of rows for each thread. (Each packs `b` for itself: that is little beside the products.)
    let height = blocks.div_ceil(threads) * HIGH;
    data.par_chunks_mut(height * row_stride).enumerate().for_each(|(part, out)| {
        let first = part * height;
        let m = height.min(m - first);
        let a = View { data: &a.data[first * a.row_stride..], rows: m, ..a };
        run(Target { data: out, row_stride, add }, a, b, m);
    });
}

struct Blocks<'a> {
    out: &'a mut [f32],
    row_stride: usize,
    add: bool,
    a: View<'a>,
    b: View<'a>,
    m: usize,
    packed: &'a mut Packed,
}

/// Packed blocks of `a` and `b`.
type Packed = (Vec<f32>, Vec<f32>);

std::thread_local! {
    /// Kept from one product to the next.
    static PACKED: Cell<Packed> = const { Cell::new((Vec::new(), Vec::new())) };
}

fn run(out: Target<'_>, a: View<'_>, b: View<'_>, m: usize) {
    let mut packed = PACKED.take();
    let Target { data, row_stride, add } = out;
    // Everything below is inlined into what is compiled for the wide instructions.
    dispatch(Blocks { out: data, row_stride, add, a, b, m, packed: &mut packed });
    PACKED.set(packed);
}

impl WithSimd for Blocks<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { out, row_stride, add, a, b, m, packed: (packed_a, packed_b) } = self;
        let (n, k) = (b.columns, a.columns.min(b.rows));
        let width = 2 * S::F32_LANES;
        if k == 0 && !add {
            out.chunks_mut(row_stride).for_each(|row| row[..n].fill(0.0));
        }
        for column in (0..n).step_by(WIDE) {
            let n = WIDE.min(n - column);
            for inner in (0..k).step_by(DEEP) {
                let k = DEEP.min(k - inner);
                let from = &b.data[inner * b.row_stride + column * b.column_stride..];
                // Panels of `width` columns: for each inner index its numbers lie together.
                pack(packed_b, from, [n, k], [b.column_stride, b.row_stride], width);
                let add = add || inner > 0;
                for row in (0..m).step_by(HIGH) {
                    let m = HIGH.min(m - row);
                    let from = &a.data[row * a.row_stride + inner * a.column_stride..];
                    pack(packed_a, from, [m, k], [a.row_stride, a.column_stride], TALL);
                    let out = &mut out[row * row_stride + column..];
                    for (j, b) in packed_b.chunks_exact(k * width).enumerate() {
                        let columns = width.min(n - j * width);
                        for (i, a) in packed_a.chunks_exact(k * TALL).enumerate() {
                            let rows = TALL.min(m - i * TALL);
                            let tile = tile(simd, a, b);
                            let out = &mut out[i * TALL * row_stride + j * width..];
                            store(simd, out, row_stride, tile, rows, columns, add);
                        }
                    }
                }
            }
        }
    }
}

/// Copies `[lines, depth]` into panels of `width` lines, in each of which the numbers of one depth lie together; lines that
/// there are not are zero.
#[inline(always)]
fn pack(
    packed: &mut Vec<f32>,
    from: &[f32],
    [lines, depth]: [usize; 2],
    [stride, deep_stride]: [usize; 2],
    width: usize,
) {
    let length = lines.div_ceil(width) * width * depth;
    if packed.len() != length {
        packed.resize(length, 0.0);
    }
    for (panel, out) in packed.chunks_exact_mut(width * depth).enumerate() {
        let first = panel * width;
        let count = width.min(lines - first);
        let from = &from[first * stride..];
        if count < width {
            out.fill(0.0);
        }
        if stride == 1 && count == width && width == TALL {
            copy_lines::<TALL>(out, from, deep_stride);
        } else if stride == 1 && count == width && width == 16 {
            copy_lines::<16>(out, from, deep_stride);
        } else if stride == 1 {
            for (at, out) in out.chunks_exact_mut(width).enumerate() {
                out[..count].copy_from_slice(&from[at * deep_stride..][..count]);
            }
        } else if deep_stride == 1 && count == width && width == TALL {
            let [a, b, c, d, e, f]: [&[f32]; TALL] =
                std::array::from_fn(|line| &from[line * stride..][..depth]);
            let columns = a.iter().zip(b).zip(c.iter().zip(d)).zip(e.iter().zip(f));
            for (out, (((a, b), (c, d)), (e, f))) in out.as_chunks_mut::<TALL>().0.iter_mut().zip(columns) {
                *out = [*a, *b, *c, *d, *e, *f];
            }
        } else if deep_stride == 1 {
            for line in 0..count {
                let from = &from[line * stride..][..depth];
                for (out, &value) in out.chunks_exact_mut(width).zip(from) {
                    out[line] = value;
                }
            }
        } else {
            for (at, out) in out.chunks_exact_mut(width).enumerate() {
                for (line, out) in out[..count].iter_mut().enumerate() {
                    *out = from[at * deep_stride + line * stride];
                }
            }
        }
    }
}

/// Lines that lie side by side, for each depth `N` numbers: of a length that is known, so that no copy is a call.
#[inline(always)]
fn copy_lines<const N: usize>(out: &mut [f32], from: &[f32], deep_stride: usize) {
    for (out, from) in out.as_chunks_mut::<N>().0.iter_mut().zip(from.chunks(deep_stride)) {
        if let Some(from) = from.first_chunk::<N>() {
            *out = *from;
        }
    }
}

/// A tile of the product, from a panel of each side.
#[inline(always)]
fn tile<S: Simd>(simd: S, a: &[f32], b: &[f32]) -> [[S::f32s; 2]; TALL] {
    let mut sums = [[simd.splat_f32s(0.0); 2]; TALL];
    let (b, _) = S::as_simd_f32s(b);
    let (a, _) = a.as_chunks::<TALL>();
    let (b, _) = b.as_chunks::<2>();
    for (a, b) in a.iter().zip(b) {
        for i in 0..TALL {
            let a = simd.splat_f32s(a[i]);
            sums[i][0] = multiply_add(simd, a, b[0], sums[i][0]);
            sums[i][1] = multiply_add(simd, a, b[1], sums[i][1]);
        }
    }
    sums
}

#[inline(always)]
fn store<S: Simd>(
    simd: S,
    out: &mut [f32],
    row_stride: usize,
    tile: [[S::f32s; 2]; TALL],
    rows: usize,
    columns: usize,
    add: bool,
) {
    let width = 2 * S::F32_LANES;
    if rows == TALL && columns == width {
        // Of a size that is known, so that the tile goes from its registers to where it belongs.
        for i in 0..TALL {
            let (out, _) = S::as_mut_simd_f32s(&mut out[i * row_stride..][..width]);
            for j in 0..2 {
                out[j] = if add { simd.add_f32s(out[j], tile[i][j]) } else { tile[i][j] };
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
            vectors[..2].copy_from_slice(sums);
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
        for [m, n, k] in
            [[1, 1, 1], [6, 16, 8], [7, 17, 3], [5, 33, 300], [130, 40, 257], [100, 2100, 20], [3, 5, 0]]
        {
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
