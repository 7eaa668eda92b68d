//! Attention of one row a sequence, which is what decoding asks for: all sequences and heads in one operation.
//!
//! The time is that of reading the cells. Heads are taken one after another and sequences within them, so that cells that
//! sequences share (samples of one prompt) are read from memory once for all of them.

use candle_core::{DType, Device, Layout, Result, Storage, Tensor, bail};
use half::{bf16, f16};
use inhouse_core::vector::exp;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::{Element, PIECE, dispatch, dots, multiply_add, on_cpu, takes};
use crate::cache::KeyValue;

/// Below this many numbers of keys and values a second thread costs more than it saves.
const MIN_PARALLEL: usize = 1 << 15;
/// Cells looked at together.
const CELLS: usize = 4;

/// What the one row of a sequence sees.
pub(crate) struct Seen<'a> {
    /// Cells in order, each part `[n_kv_head, cells, head_dim]`.
    pub cells: &'a [KeyValue],
    /// Added to the scores: `[1 or n_head, 1, cells] f32`.
    pub bias: Option<&'a Tensor>,
}

/// Attention of `queries [n_head, rows, head_dim]`, row i over what `seen[i]` says, with scores scaled by `scale`. Gives
/// `[rows, n_head * head_dim]`; nothing where there is no kernel for these tensors.
pub(crate) fn attend(queries: &Tensor, scale: f64, seen: &[Seen<'_>]) -> Result<Option<Tensor>> {
    let head_dim = queries.dim(2)?;
    if !takes(queries) || head_dim > PIECE {
        return Ok(None);
    }
    // A head's numbers must lie together; how far heads and rows are apart does not matter.
    let queries = &if queries.stride()[2] == 1 { queries.clone() } else { queries.contiguous()? };
    match queries.dtype() {
        DType::F32 => typed::<f32>(queries, scale as f32, seen),
        DType::F16 => typed::<f16>(queries, scale as f32, seen),
        DType::BF16 => typed::<bf16>(queries, scale as f32, seen),
        _ => return Ok(None),
    }
    .map(Some)
}

/// Rows of numbers in a storage, by head: keys, values or queries.
#[derive(Clone, Copy)]
struct Heads<'a, T> {
    values: &'a [T],
    begin: usize,
    head_stride: usize,
    row_stride: usize,
    rows: usize,
    width: usize,
}

impl<'a, T: Element> Heads<'a, T> {
    fn new(storage: &'a Storage, layout: &Layout) -> Result<Self> {
        let (_, rows, width) = layout.shape().dims3()?;
        match layout.stride() {
            &[head_stride, row_stride, step] if step == 1 || width == 1 => Ok(Self {
                values: on_cpu(storage)?,
                begin: layout.start_offset(),
                head_stride,
                row_stride,
                rows,
                width,
            }),
            strides => bail!("heads with strides {strides:?}"),
        }
    }

    #[inline(always)]
    fn row(&self, head: usize, row: usize) -> &'a [T] {
        &self.values[self.begin + head * self.head_stride + row * self.row_stride..][..self.width]
    }
}

/// The parts of one row's cells, and what is added to its scores.
struct Row<'a, T> {
    parts: Vec<(Heads<'a, T>, Heads<'a, T>)>,
    n_cells: usize,
    /// Numbers, where they begin and how far heads are apart.
    bias: Option<(&'a [f32], usize, usize)>,
}

fn typed<T: Element>(queries: &Tensor, scale: f32, seen: &[Seen<'_>]) -> Result<Tensor> {
    let (n_head, n_rows, head_dim) = queries.dims3()?;
    if seen.len() != n_rows {
        bail!("{n_rows} queries for {} sequences", seen.len());
    }
    // The guards of the storages must live as long as the slices that are taken from them.
    let query_guard = queries.storage_and_layout();
    let guards: Vec<Vec<_>> = seen
        .iter()
        .map(|seen| {
            let parts = seen.cells.iter();
            parts.map(|part| (part.keys.storage_and_layout(), part.values.storage_and_layout())).collect()
        })
        .collect();
    let bias_guards: Vec<_> = seen.iter().map(|seen| seen.bias.map(Tensor::storage_and_layout)).collect();
    let queries = Heads::<T>::new(&query_guard.0, query_guard.1)?;
    let mut rows = Vec::with_capacity(n_rows);
    let mut n_kv_head = None;
    for ((parts, bias), seen) in guards.iter().zip(&bias_guards).zip(seen) {
        let mut row = Row { parts: Vec::with_capacity(parts.len()), n_cells: 0, bias: None };
        for ((keys, values), part) in parts.iter().zip(seen.cells) {
            let heads = part.keys.dim(0)?;
            if part.keys.dims() != part.values.dims() || *n_kv_head.get_or_insert(heads) != heads {
                bail!("keys {:?} and values {:?}", part.keys.shape(), part.values.shape());
            }
            let (keys, values) = (Heads::new(&keys.0, keys.1)?, Heads::new(&values.0, values.1)?);
            if keys.width != head_dim {
                bail!("keys of width {} for queries of width {head_dim}", keys.width);
            }
            row.n_cells += keys.rows;
            row.parts.push((keys, values));
        }
        if let Some((storage, layout)) = bias {
            let (heads, one, cells) = layout.shape().dims3()?;
            if one != 1 || cells != row.n_cells || heads != 1 && heads != n_head || !layout.is_contiguous() {
                bail!("a bias {:?} for {} cells", layout.shape(), row.n_cells);
            }
            let stride = if heads == 1 { 0 } else { cells };
            row.bias = Some((on_cpu(storage)?, layout.start_offset(), stride));
        }
        if row.n_cells == 0 {
            bail!("attention over no cells");
        }
        rows.push(row);
    }
    let n_kv_head = n_kv_head.unwrap_or(1);
    if !n_head.is_multiple_of(n_kv_head) {
        bail!("{n_head} heads share {n_kv_head} heads of keys");
    }
    let group = n_head / n_kv_head;
    let mut output = vec![T::narrow(0.0); n_rows * n_head * head_dim];
    let mut tasks: Vec<(usize, &mut [T])> = output.chunks_exact_mut(group * head_dim).enumerate().collect();
    tasks.sort_by_key(|(at, _)| (at % n_kv_head, at / n_kv_head));
    let compute = |(at, output): (usize, &mut [T])| {
        let (row, kv_head) = (at / n_kv_head, at % n_kv_head);
        dispatch(One { queries, row_index: row, row: &rows[row], kv_head, group, scale, output });
    };
    let numbers: usize = rows.iter().map(|row| row.n_cells * n_kv_head * head_dim).sum();
    if numbers < MIN_PARALLEL {
        tasks.into_iter().for_each(compute);
    } else {
        tasks.into_par_iter().for_each(compute);
    }
    Tensor::from_vec(output, (n_rows, n_head * head_dim), &Device::Cpu)
}

/// The heads of one row that share a head of keys.
struct One<'a, 'b, T> {
    queries: Heads<'a, T>,
    row_index: usize,
    row: &'b Row<'a, T>,
    kv_head: usize,
    group: usize,
    scale: f32,
    /// `[group, head_dim]`.
    output: &'b mut [T],
}

impl<T: Element> WithSimd for One<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let width = self.queries.width;
        let output = std::mem::take(&mut self.output);
        let mut room = [[0f32; PIECE]; CELLS];
        let mut scores = vec![0f32; self.row.n_cells];
        let mut sums = vec![0f32; width];
        for (i, output) in output.chunks_exact_mut(width).enumerate() {
            let head = self.kv_head * self.group + i;
            self.scores(simd, head, &mut scores, &mut room);
            let total = softmax_numerators(&mut scores);
            sums.fill(0.0);
            self.weigh(simd, &scores, &mut sums, &mut room);
            output.iter_mut().zip(&sums).for_each(|(output, sum)| *output = T::narrow(sum / total));
        }
    }
}

/// Replaces scores by e to the power of their distance to the largest; gives the sum.
#[inline(always)]
fn softmax_numerators(scores: &mut [f32]) -> f32 {
    let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    scores.iter_mut().for_each(|score| *score = exp(*score - largest));
    scores.iter().sum()
}

impl<T: Element> One<'_, '_, T> {
    #[inline(always)]
    fn scores<S: Simd>(&self, simd: S, head: usize, scores: &mut [f32], room: &mut [[f32; PIECE]; CELLS]) {
        let mut query = [0f32; PIECE];
        let width = self.queries.width;
        let wide = T::widen(self.queries.row(head, self.row_index), &mut room[0]);
        for (query, wide) in query.iter_mut().zip(wide) {
            *query = wide * self.scale;
        }
        let query = &query[..width];
        let mut rest = &mut *scores;
        for (keys, _) in &self.row.parts {
            let (part, after) = rest.split_at_mut(keys.rows);
            rest = after;
            let whole = keys.rows / CELLS * CELLS;
            for cell in (0..whole).step_by(CELLS) {
                let four = cells::<T, CELLS>(keys, self.kv_head, cell, room);
                part[cell..cell + CELLS].copy_from_slice(&dots(simd, query, four));
            }
            for (cell, score) in part.iter_mut().enumerate().skip(whole) {
                let one = cells::<T, 1>(keys, self.kv_head, cell, room);
                *score = dots(simd, query, one)[0];
            }
        }
        if let Some((values, begin, stride)) = self.row.bias {
            let bias = &values[begin + head * stride..][..scores.len()];
            scores.iter_mut().zip(bias).for_each(|(score, bias)| *score += bias);
        }
    }

    /// Adds up the values, each times its weight.
    #[inline(always)]
    fn weigh<S: Simd>(&self, simd: S, weights: &[f32], sums: &mut [f32], room: &mut [[f32; PIECE]; CELLS]) {
        let mut rest = weights;
        for (_, values) in &self.row.parts {
            let (part, after) = rest.split_at(values.rows);
            rest = after;
            let whole = values.rows / CELLS * CELLS;
            for cell in (0..whole).step_by(CELLS) {
                let four = cells::<T, CELLS>(values, self.kv_head, cell, room);
                add::<S, CELLS>(simd, sums, four, &part[cell..cell + CELLS]);
            }
            for cell in whole..values.rows {
                let one = cells::<T, 1>(values, self.kv_head, cell, room);
                add::<S, 1>(simd, sums, one, &part[cell..=cell]);
            }
        }
    }
}

/// `N` cells from `cell` on, as f32.
#[inline(always)]
fn cells<'a, T: Element, const N: usize>(
    heads: &Heads<'a, T>,
    head: usize,
    cell: usize,
    room: &'a mut [[f32; PIECE]; CELLS],
) -> [&'a [f32]; N] {
    let mut rows: [&[f32]; N] = [&[]; N];
    for ((n, row), room) in rows.iter_mut().enumerate().zip(room) {
        *row = T::widen(heads.row(head, cell + n), room);
    }
    rows
}

/// `sums += weights[n] * rows[n]`.
#[inline(always)]
fn add<S: Simd, const N: usize>(simd: S, sums: &mut [f32], rows: [&[f32]; N], weights: &[f32]) {
    let (vectors, rest) = S::as_mut_simd_f32s(sums);
    let mut row_vectors: [&[S::f32s]; N] = [&[]; N];
    let mut row_rests: [&[f32]; N] = [&[]; N];
    for n in 0..N {
        let (row, row_rest) = S::as_simd_f32s(rows[n]);
        (row_vectors[n], row_rests[n]) = (&row[..vectors.len()], row_rest);
    }
    for (at, sum) in vectors.iter_mut().enumerate() {
        for n in 0..N {
            *sum = multiply_add(simd, simd.splat_f32s(weights[n]), row_vectors[n][at], *sum);
        }
    }
    for (n, row_rest) in row_rests.iter().enumerate() {
        rest.iter_mut().zip(*row_rest).for_each(|(sum, value)| *sum += weights[n] * value);
    }
}
