//! Low-rank updates of projections (LoRA; Hu et al. 2021, arXiv 2106.09685), to be trained beside weights that stay as they are.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use candle_core::{Result, Tensor};
use rayon::prelude::*;

/// What is trained of a network whose own weights stay.
#[derive(Debug, Clone, PartialEq)]
pub struct LowRankOptions {
    /// Rows of A, columns of B.
    pub rank: usize,
    /// The update is `alpha / rank` times the product of B and A.
    pub alpha: f64,
    /// Chance of an input of A to be left out of a training step.
    pub dropout: f64,
    /// Projections by the last part of their names (`q_proj`); none: all but the output layer.
    pub targets: Vec<String>,
    /// Of the first values of A.
    pub seed: u64,
}

/// The update of one projection `x [rows, in] -> [rows, out]`: `scale * B (A x)`.
pub(crate) struct LowRank {
    /// Of its projection, in PEFT's way; `NAME.lora_A.weight` and `NAME.lora_B.weight` are its variables.
    pub name: String,
    /// `[rank, in]`.
    pub a: Tensor,
    /// `[out, rank]`.
    pub b: Tensor,
    pub scale: f64,
    pub dropout: Option<Dropout>,
}

impl LowRank {
    /// Adds the update for `x` to `y`; with `training` inputs are dropped.
    pub fn add_to(&self, y: &Tensor, x: &Tensor, training: bool) -> Result<Tensor> {
        let dropped = match &self.dropout {
            Some(dropout) if training => Some((x * dropout.mask_like(x)?)?),
            _ => None,
        };
        let low = dropped.as_ref().unwrap_or(x).matmul(&self.a.t()?)?;
        y + (low.matmul(&self.b.t()?)? * self.scale)?
    }
}

/// Which inputs of an update a step leaves out. It follows from the step's draw and the input's place alone, so that a run that goes
/// on sees what an undisturbed one sees.
#[derive(Clone)]
pub(crate) struct Dropout {
    /// Chance of each input.
    pub rate: f64,
    /// Which of the network's updates this is.
    pub index: u64,
    /// Set by the trainer for each pass.
    pub draw: Arc<AtomicU64>,
}

impl Dropout {
    /// Zeros, and what makes up for them.
    pub fn mask(&self, out: &mut [f32], columns: usize) {
        let kept = (1.0 / (1.0 - self.rate)) as f32;
        let limit = (self.rate * (u64::MAX as f64)) as u64;
        let start = mixed(self.draw.load(Ordering::Relaxed) ^ mixed(self.index));
        out.par_chunks_mut(columns.max(1)).enumerate().for_each(|(row, out)| {
            let row = mixed(start ^ row as u64);
            for (column, out) in out.iter_mut().enumerate() {
                *out = if mixed(row ^ column as u64) < limit { 0.0 } else { kept };
            }
        });
    }

    fn mask_like(&self, x: &Tensor) -> Result<Tensor> {
        let (rows, columns) = x.dims2()?;
        let mut mask = vec![0f32; rows * columns];
        self.mask(&mut mask, columns);
        Tensor::from_vec(mask, (rows, columns), x.device())?.to_dtype(x.dtype())
    }
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood 2014), with the sequence's increment.
#[inline(always)]
fn mixed(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// First values of A `[rank, in]`, as PEFT has them: uniform within one over the root of `inputs`. B begins with zeros.
pub(crate) fn first_values(options: &LowRankOptions, index: u64, inputs: usize) -> Vec<f32> {
    let bound = 1.0 / (inputs as f64).sqrt();
    let start = mixed(options.seed ^ mixed(index));
    let share = |at: usize| (mixed(start ^ at as u64) >> 11) as f64 / (1u64 << 53) as f64;
    (0..options.rank * inputs).map(|at| (bound * (2.0 * share(at) - 1.0)) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropout_leaves_out_its_share_and_follows_from_the_draw() {
        let dropout = Dropout { rate: 0.25, index: 3, draw: Arc::new(AtomicU64::new(7)) };
        let draw = |number: u64| {
            dropout.draw.store(number, Ordering::Relaxed);
            let mut mask = vec![1f32; 100 * 64];
            dropout.mask(&mut mask, 64);
            mask
        };
        let mask = draw(7);
        assert!(mask.iter().all(|&kept| kept == 0.0 || (kept - 4.0 / 3.0).abs() < 1e-6));
        let dropped = mask.iter().filter(|&&kept| kept == 0.0).count();
        assert!((1450..1750).contains(&dropped), "{dropped} of 6400");
        assert!(draw(8) != mask && draw(7) == mask);
        let rows: Vec<&[f32]> = mask.chunks(64).collect();
        assert!(rows[0] != rows[1]);
    }

    #[test]
    fn first_values_are_uniform_within_their_bound() {
        let options = LowRankOptions { rank: 16, alpha: 32.0, dropout: 0.0, targets: Vec::new(), seed: 5 };
        let values = first_values(&options, 0, 400);
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        let square = values.iter().map(|value| value * value).sum::<f32>() / values.len() as f32;
        assert!(values.iter().all(|value| value.abs() <= 0.05) && mean.abs() < 2e-3);
        assert!((square * 3.0 * 400.0 - 1.0).abs() < 0.05, "{square}");
        assert!(first_values(&options, 1, 400) != values);
    }
}
