//! Loss scaling for gradients in half precision (Micikevicius et al. 2018, arXiv 1710.03740, section 3.2).

use serde::{Deserialize, Serialize};

/// The loss is multiplied by this before the backward pass, so that small gradients do not vanish, and gradients divided by it
/// after. It halves when one overflows and doubles when none has for long.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LossScale {
    /// The factor; a power of two.
    pub factor: f64,
    /// Steps since it last changed.
    pub steady: u32,
    /// Whether it changes: in f32 and bf16 it is 1.
    pub dynamic: bool,
}

/// Steps without an overflow after which the factor doubles.
const PATIENCE: u32 = 2000;
const LARGEST: f64 = 16_777_216.0;

impl LossScale {
    /// For half precision, or a constant 1.
    pub fn new(dynamic: bool) -> Self {
        Self { factor: if dynamic { 65_536.0 } else { 1.0 }, steady: 0, dynamic }
    }

    /// Says whether a step's gradients were finite; false means that the step is to be done again.
    pub fn accept(&mut self, finite: bool) -> bool {
        if !self.dynamic {
            return true;
        }
        if !finite {
            self.factor = (self.factor / 2.0).max(1.0);
            self.steady = 0;
            return false;
        }
        self.steady += 1;
        if self.steady >= PATIENCE {
            self.factor = (self.factor * 2.0).min(LARGEST);
            self.steady = 0;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_on_overflow_and_doubles_when_steady() {
        let mut scale = LossScale::new(true);
        assert!(!scale.accept(false) && !scale.accept(false));
        assert_eq!(scale.factor, 16_384.0);
        for _ in 0..PATIENCE {
            assert!(scale.accept(true));
        }
        assert_eq!((scale.factor, scale.steady), (32_768.0, 0));
        for _ in 0..40 {
            scale.accept(false);
        }
        assert_eq!(scale.factor, 1.0);
        let mut constant = LossScale::new(false);
        assert!(constant.accept(false));
        assert_eq!(constant.factor, 1.0);
    }
}
