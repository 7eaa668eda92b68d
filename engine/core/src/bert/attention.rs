//! Attention of a text's tokens to each other, in f32.

use crate::Result;
use crate::decode::CancelToken;
use crate::vector::{exp, vectorized};

/// Numbers of a vector.
const LANES: usize = 8;
/// Rows of a tile.
const TALL: usize = 8;

/// Memory that is kept from one text to the next.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// Keys of a head: for each eight of them, for each element, that element of all eight.
    keys: Vec<[f32; LANES]>,
    /// Values of a head: for each eight elements, for each token, these elements.
    values: Vec<[f32; LANES]>,
    /// Of a tile's tokens, their attention to all.
    scores: Vec<f32>,
}

/// Writes the attention's outputs of a text to `out [n, heads * head]`; `projected [n, 3 * heads * head]` holds queries, keys and
/// values of its tokens.
///
/// # Errors
/// Cancelled.
pub(super) fn attend(
    projected: &[f32],
    heads: usize,
    head: usize,
    scratch: &mut Scratch,
    out: &mut [f32],
    cancel: &CancelToken,
) -> Result<()> {
    for i in 0..heads {
        cancel.check()?;
        vectorized(
            #[inline(always)]
            || one_head(projected, heads * head, [i * head, head], scratch, out),
        );
    }
    Ok(())
}

#[inline(always)]
fn one_head(
    projected: &[f32],
    width: usize,
    [begin, head]: [usize; 2],
    scratch: &mut Scratch,
    out: &mut [f32],
) {
    let n = projected.len() / (3 * width);
    let part = |token: usize, which: usize| &projected[(3 * token + which) * width + begin..][..head];
    let Scratch { keys, values, scores } = scratch;
    let scale = 1.0 / (head as f32).sqrt();
    keys.clear();
    keys.resize(n.div_ceil(LANES) * head, [0.0; LANES]);
    for token in 0..n {
        let block = &mut keys[token / LANES * head..][..head];
        for (to, key) in block.iter_mut().zip(part(token, 1)) {
            to[token % LANES] = key * scale;
        }
    }
    values.clear();
    for at in (0..head).step_by(LANES) {
        for token in 0..n {
            let part = &part(token, 2)[at..];
            let mut chunk = [0.0; LANES];
            match part.first_chunk() {
                Some(part) => chunk = *part,
                None => chunk[..part.len()].copy_from_slice(part),
            }
            values.push(chunk);
        }
    }
    for first in (0..n).step_by(TALL) {
        // Where there are fewer, the last one several times.
        let queries: [&[f32]; TALL] = std::array::from_fn(|i| part((first + i).min(n - 1), 0));
        let count = TALL.min(n - first);
        scores.resize(TALL * n, 0.0);
        for (at, keys) in (0..n).step_by(LANES).zip(keys.chunks_exact(head)) {
            let tile = tile(queries, keys);
            for (scores, tile) in scores.chunks_exact_mut(n).zip(&tile) {
                let scores = &mut scores[at..];
                match scores.first_chunk_mut() {
                    Some(scores) => *scores = *tile,
                    None => scores.copy_from_slice(&tile[..scores.len()]),
                }
            }
        }
        scores.chunks_exact_mut(n).for_each(softmax);
        let weights: [&[f32]; TALL] = std::array::from_fn(|i| &scores[i * n..][..n]);
        for (at, values) in (0..head).step_by(LANES).zip(values.chunks_exact(n)) {
            let tile = tile(weights, values);
            for (i, sums) in tile.iter().enumerate().take(count) {
                let out = &mut out[(first + i) * width + begin + at..];
                let room = LANES.min(head - at);
                out[..room].copy_from_slice(&sums[..room]);
            }
        }
    }
}

/// The sums over `i` of `rows[.][i] * columns[i]`.
#[inline(always)]
fn tile(rows: [&[f32]; TALL], columns: &[[f32; LANES]]) -> [[f32; LANES]; TALL] {
    let mut sums = [[0f32; LANES]; TALL];
    let rows: [&[f32]; TALL] = std::array::from_fn(|row| &rows[row][..columns.len()]);
    for (i, column) in columns.iter().enumerate() {
        for row in 0..TALL {
            for lane in 0..LANES {
                sums[row][lane] += rows[row][i] * column[lane];
            }
        }
    }
    sums
}

#[inline(always)]
fn softmax(row: &mut [f32]) {
    let most = row.iter().fold(f32::NEG_INFINITY, |most, &value| if value > most { value } else { most });
    row.iter_mut().for_each(|value| *value = exp(*value - most));
    let total: f32 = row.iter().sum();
    row.iter_mut().for_each(|value| *value /= total);
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};

    use super::*;

    #[test]
    fn agrees_with_sums_in_f64() {
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(5);
        let mut scratch = Scratch::default();
        for (n, heads, head) in [(1, 1, 1), (7, 2, 5), (8, 3, 16), (23, 12, 32), (70, 2, 64)] {
            let width = heads * head;
            let projected: Vec<f32> = (0..n * 3 * width).map(|_| random.random_range(-2.0..2.0)).collect();
            let mut out = vec![0f32; n * width];
            attend(&projected, heads, head, &mut scratch, &mut out, &CancelToken::new()).unwrap();
            let at =
                |token: usize, which: usize, i: usize| f64::from(projected[(3 * token + which) * width + i]);
            for token in 0..n {
                for begin in (0..width).step_by(head) {
                    let score = |other: usize| -> f64 {
                        let dot: f64 = (begin..begin + head).map(|i| at(token, 0, i) * at(other, 1, i)).sum();
                        (dot / (head as f64).sqrt()).exp()
                    };
                    let total: f64 = (0..n).map(score).sum();
                    for i in begin..begin + head {
                        let want = (0..n).map(|other| score(other) * at(other, 2, i)).sum::<f64>() / total;
                        let got = f64::from(out[token * width + i]);
                        assert!((got - want).abs() < 1e-5, "{n} {heads} {head}: {got} {want}");
                    }
                }
            }
        }
    }
}
