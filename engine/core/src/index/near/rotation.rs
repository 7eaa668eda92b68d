//! A random rotation that is cheap to apply: signs turned at random and Walsh-Hadamard transforms, in turns. After it a vector's
//! elements are alike in size, so that their signs alone say much (Ailon and Chazelle, "The fast Johnson-Lindenstrauss transform", 2009).

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Rounds; where the width is no power of two each covers a part, the front and the back in turns.
const ROUNDS: usize = 4;

/// A rotation of vectors of one width. The same width and seed give the same one.
#[derive(Debug)]
pub(super) struct Rotation {
    dim: usize,
    /// `[ROUNDS, dim]`, 1 or -1, scaled so that lengths stay.
    signs: Vec<f32>,
}

impl Rotation {
    pub fn new(dim: usize, seed: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let signs = (0..ROUNDS * dim).map(|_| if random.random::<bool>() { 1.0 } else { -1.0 }).collect();
        Self { dim, signs }
    }

    /// Rotates `vector`, of the rotation's width.
    #[inline(always)]
    pub fn apply(&self, vector: &mut [f32]) {
        let block = if self.dim == 0 { return } else { 1 << self.dim.ilog2() };
        let scale = 1.0 / (block as f32).sqrt();
        for (round, signs) in self.signs.chunks_exact(self.dim).enumerate() {
            vector.iter_mut().zip(signs).for_each(|(value, sign)| *value *= sign);
            let start = if round % 2 == 0 { 0 } else { self.dim - block };
            let part = &mut vector[start..start + block];
            hadamard(part);
            part.iter_mut().for_each(|value| *value *= scale);
        }
    }
}

/// The Walsh-Hadamard transform of a power of two of values, not normalised.
#[inline(always)]
fn hadamard(values: &mut [f32]) {
    let mut half = 1;
    while half < values.len() {
        for pair in values.chunks_exact_mut(half * 2) {
            let (left, right) = pair.split_at_mut(half);
            for (a, b) in left.iter_mut().zip(right) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        half *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_and_angles_stay_and_one_element_spreads() {
        for dim in [1, 2, 31, 64, 384] {
            let rotation = Rotation::new(dim, 5);
            let mut random = ChaCha8Rng::seed_from_u64(dim as u64);
            let mut vector = || -> Vec<f32> { (0..dim).map(|_| random.random_range(-1.0..1.0)).collect() };
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
            let (a, b) = (vector(), vector());
            let turned = |v: &[f32]| {
                let mut v = v.to_vec();
                rotation.apply(&mut v);
                v
            };
            assert!((dot(&a, &b) - dot(&turned(&a), &turned(&b))).abs() < 1e-3 * dim as f32);
            let mut one = vec![0.0; dim];
            one[0] = 1.0;
            let largest = turned(&one).iter().fold(0f32, |most, value| most.max(value.abs()));
            assert!(dim < 64 || largest < 0.5, "{dim}: {largest}");
        }
    }
}
