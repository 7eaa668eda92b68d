//! AdamW (Loshchilov and Hutter 2017, arXiv 1711.05101) as PyTorch computes it, with a schedule and clipping.
//!
//! Weights and moments are kept here in f32, whatever the network computes in; the network's variables are copies.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor, Var};
use inhouse_candle::checkpoint::Checkpoint;
use inhouse_core::{Error, ErrorKind, Result};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::backend_error;

/// Elements that one thread works on at a time.
const CHUNK: usize = 1 << 14;

/// AdamW's constants.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AdamW {
    /// Decay of the mean of gradients.
    pub beta1: f64,
    /// Decay of the mean of their squares.
    pub beta2: f64,
    /// Added to the root of the latter.
    pub epsilon: f64,
    /// Share of a weight that is taken away per step and unit of learning rate. Biases and layer norms (tensors of one
    /// dimension) do not decay.
    pub weight_decay: f64,
}

impl Default for AdamW {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.01 }
    }
}

/// The learning rate over a run: up in a line, then down along a half cosine.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// The highest rate.
    pub peak: f64,
    /// Steps until it is reached.
    pub warmup_steps: u64,
    /// Steps of the run.
    pub total_steps: u64,
    /// Share of the peak that is left at the end.
    pub floor: f64,
}

impl Schedule {
    /// The rate of a step; the first is 1.
    pub fn rate(&self, step: u64) -> f64 {
        if step <= self.warmup_steps {
            return self.peak * step as f64 / self.warmup_steps.max(1) as f64;
        }
        let length = self.total_steps.saturating_sub(self.warmup_steps).max(1);
        let done = ((step - self.warmup_steps) as f64 / length as f64).min(1.0);
        let cosine = 0.5 * (1.0 + (std::f64::consts::PI * done).cos());
        self.peak * (self.floor + (1.0 - self.floor) * cosine)
    }
}

/// One trained tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Slot {
    /// Its shape.
    pub shape: Vec<usize>,
    /// The weights.
    pub weights: Vec<f32>,
    /// Mean of gradients.
    pub mean: Vec<f32>,
    /// Mean of their squares.
    pub square: Vec<f32>,
}

/// The state of training a set of tensors.
pub struct Optimizer {
    constants: AdamW,
    slots: BTreeMap<String, (Var, Slot)>,
    step: u64,
}

impl Optimizer {
    /// Trains these variables from their values.
    ///
    /// # Errors
    /// A variable cannot be read.
    pub fn new(variables: impl IntoIterator<Item = (String, Var)>, constants: AdamW) -> Result<Self> {
        let mut slots = BTreeMap::new();
        for (name, variable) in variables {
            let weights = values(variable.as_tensor())?;
            let n = weights.len();
            let shape = variable.dims().to_vec();
            slots.insert(name, (variable, Slot { shape, weights, mean: vec![0.0; n], square: vec![0.0; n] }));
        }
        if slots.is_empty() {
            return Err(Error::new(ErrorKind::InvalidArgument, "nothing to train"));
        }
        Ok(Self { constants, slots, step: 0 })
    }

    /// Takes the weights out of a checkpoint in f32: the variables of a network in half precision are rounded copies.
    ///
    /// # Errors
    /// The folder cannot be read, or lacks a tensor.
    pub fn master_weights(&mut self, dir: &Path) -> Result<()> {
        let checkpoint = Checkpoint::open(dir)?;
        for (name, (_, slot)) in &mut self.slots {
            slot.weights = values(&checkpoint.tensor(name, &slot.shape, DType::F32, &Device::Cpu)?)?;
        }
        Ok(())
    }

    /// Steps done.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// The state of every tensor.
    pub fn slots(&self) -> impl Iterator<Item = (&str, &Slot)> {
        self.slots.iter().map(|(name, (_, slot))| (name.as_str(), slot))
    }

    /// The variables by name.
    pub fn variables(&self) -> impl Iterator<Item = (&str, &Var)> {
        self.slots.iter().map(|(name, (variable, _))| (name.as_str(), variable))
    }

    /// Goes on from a state: the tensors are those of `slots`, after `step` steps.
    ///
    /// # Errors
    /// A tensor is missing or has another shape.
    pub fn restore(&mut self, step: u64, mut slots: BTreeMap<String, Slot>) -> Result<()> {
        for (name, (variable, slot)) in &mut self.slots {
            let stored = slots.remove(name).filter(|stored| stored.shape == slot.shape);
            let Some(stored) = stored else {
                let what = format!("the checkpoint has no tensor {name} of shape {:?}", slot.shape);
                return Err(Error::new(ErrorKind::InvalidData, what));
            };
            *slot = stored;
            write(variable, slot)?;
        }
        self.step = step;
        Ok(())
    }

    /// One step with gradients by name; a tensor without one is left alone. Gradients whose norm over all tensors is above
    /// `clip_norm` are scaled down to it. Gives that norm before scaling.
    ///
    /// # Errors
    /// A gradient is not finite, of another shape or unreadable; nothing is changed then.
    pub fn update(
        &mut self,
        gradients: &BTreeMap<String, Vec<f32>>,
        rate: f64,
        clip_norm: Option<f64>,
    ) -> Result<f64> {
        let squares: f64 = gradients.values().map(|gradient| sum_of_squares(gradient)).sum();
        let norm = squares.sqrt();
        if !norm.is_finite() {
            let what = "the gradient is not finite: lower the learning rate or raise the temperature";
            return Err(Error::new(ErrorKind::Backend, what));
        }
        for (name, gradient) in gradients {
            if self.slots.get(name).is_none_or(|(_, slot)| slot.weights.len() != gradient.len()) {
                let what = format!("a gradient of {} elements for {name}", gradient.len());
                return Err(Error::new(ErrorKind::Internal, what));
            }
        }
        let scale = match clip_norm {
            Some(limit) if norm > limit => (limit / norm) as f32,
            _ => 1.0,
        };
        self.step += 1;
        let AdamW { beta1, beta2, epsilon, weight_decay } = self.constants;
        let exponent = i32::try_from(self.step).unwrap_or(i32::MAX);
        let (correction1, correction2) = (1.0 - beta1.powi(exponent), 1.0 - beta2.powi(exponent));
        let step_size = (rate / correction1) as f32;
        let root_correction = correction2.sqrt() as f32;
        let (beta1, beta2, epsilon) = (beta1 as f32, beta2 as f32, epsilon as f32);
        for (name, (variable, slot)) in &mut self.slots {
            let Some(gradient) = gradients.get(name) else { continue };
            let decay = if slot.shape.len() > 1 { (1.0 - rate * weight_decay) as f32 } else { 1.0 };
            let Slot { weights, mean, square, .. } = &mut *slot;
            weights
                .par_chunks_mut(CHUNK)
                .zip(mean.par_chunks_mut(CHUNK))
                .zip(square.par_chunks_mut(CHUNK))
                .zip(gradient.par_chunks(CHUNK))
                .for_each(|(((weights, means), squares), gradients)| {
                    for (((weight, mean), square), gradient) in
                        weights.iter_mut().zip(means).zip(squares).zip(gradients)
                    {
                        let gradient = gradient * scale;
                        *mean += (gradient - *mean) * (1.0 - beta1);
                        *square = *square * beta2 + gradient * gradient * (1.0 - beta2);
                        *weight =
                            *weight * decay - step_size * *mean / (square.sqrt() / root_correction + epsilon);
                    }
                });
            write(variable, slot)?;
        }
        Ok(norm)
    }
}

fn sum_of_squares(values: &[f32]) -> f64 {
    // Partial sums of fixed pieces, added in order: the same at any number of threads.
    let parts: Vec<f64> = values
        .par_chunks(CHUNK)
        .map(|chunk| chunk.iter().map(|value| f64::from(*value) * f64::from(*value)).sum())
        .collect();
    parts.iter().sum()
}

/// The elements of a tensor in f32.
///
/// # Errors
/// It cannot be read from its device.
pub fn values(tensor: &Tensor) -> Result<Vec<f32>> {
    tensor.to_dtype(DType::F32).and_then(|tensor| tensor.flatten_all()?.to_vec1()).map_err(backend_error)
}

fn write(variable: &Var, slot: &Slot) -> Result<()> {
    Tensor::from_slice(&slot.weights, slot.shape.as_slice(), variable.device())
        .and_then(|tensor| variable.set(&tensor.to_dtype(variable.dtype())?))
        .map_err(backend_error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_go_up_and_down() {
        let schedule = Schedule { peak: 2.0, warmup_steps: 10, total_steps: 110, floor: 0.1 };
        let near = |step, rate: f64| (schedule.rate(step) - rate).abs() < 1e-9;
        assert!(near(1, 0.2) && near(10, 2.0) && near(60, 1.1) && near(110, 0.2) && near(500, 0.2));
    }

    #[test]
    fn clips_refuses_and_restores() {
        let variable = Var::new(&[[1f32, 2.0]], &Device::Cpu).unwrap();
        let make = || Optimizer::new([("w".to_owned(), variable.clone())], AdamW::default()).unwrap();
        let mut optimizer = make();
        let gradient = |values: &[f32]| BTreeMap::from([("w".to_owned(), values.to_vec())]);
        assert!(optimizer.update(&gradient(&[f32::NAN, 0.0]), 0.1, None).is_err());
        assert!(optimizer.update(&gradient(&[1.0]), 0.1, None).is_err());
        assert_eq!(optimizer.step(), 0);
        assert!((optimizer.update(&gradient(&[3.0, 4.0]), 0.1, Some(1.0)).unwrap() - 5.0).abs() < 1e-9);
        // The first step of Adam is the rate in the direction of the sign; decay comes before.
        let moved = values(variable.as_tensor()).unwrap();
        assert!(
            (moved[0] - (0.999 - 0.1)).abs() < 1e-6 && (moved[1] - (1.998 - 0.1)).abs() < 1e-6,
            "{moved:?}"
        );
        let slots: BTreeMap<String, Slot> =
            optimizer.slots().map(|(n, s)| (n.to_owned(), s.clone())).collect();
        let mut other = make();
        other.restore(1, slots.clone()).unwrap();
        optimizer.update(&gradient(&[-1.0, 2.0]), 0.1, None).unwrap();
        let first = values(variable.as_tensor()).unwrap();
        other.update(&gradient(&[-1.0, 2.0]), 0.1, None).unwrap();
        assert_eq!(values(variable.as_tensor()).unwrap(), first);
        assert!(make().restore(1, BTreeMap::new()).is_err());
    }
}
