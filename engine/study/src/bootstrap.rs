//! Confidence intervals by the bootstrap: problems are drawn anew, with replacement, and the figure is computed of each draw
//! (Efron's percentile interval). What varies is which problems a benchmark happens to have, so problems are the unit.

use rand::Rng;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// The share of draws inside the interval.
pub const LEVEL: f64 = 0.95;

/// What one problem adds to a figure that is a quotient of sums: a mean has 1 below, recall its golden APIs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share {
    /// Added above the line.
    pub of: f64,
    /// Added below it.
    pub out_of: f64,
}

/// The quotient of the sums; `None` where nothing stands below the line.
pub fn quotient(shares: &[Share]) -> Option<f64> {
    let (above, below) =
        shares.iter().fold((0.0, 0.0), |(above, below), share| (above + share.of, below + share.out_of));
    (below > 0.0).then(|| above / below)
}

/// The interval of [`quotient`] at [`LEVEL`], from `resamples` draws of as many problems as there are. The same shares and
/// seed give the same interval. `None` where the quotient is, or without a draw.
pub fn interval(shares: &[Share], resamples: usize, seed: u64) -> Option<(f64, f64)> {
    quotient(shares)?;
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut drawn = Vec::with_capacity(shares.len());
    let mut figures: Vec<f64> = (0..resamples)
        .filter_map(|_| {
            drawn.clear();
            drawn.extend((0..shares.len()).map(|_| shares[random.random_range(0..shares.len())]));
            quotient(&drawn)
        })
        .collect();
    figures.sort_by(f64::total_cmp);
    let tail = (1.0 - LEVEL) / 2.0;
    Some((quantile(&figures, tail)?, quantile(&figures, 1.0 - tail)?))
}

/// The quantile `q` of sorted values, linear between them (numpy's default).
pub fn quantile(sorted: &[f64], q: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let at = q.clamp(0.0, 1.0) * last as f64;
    let (below, above) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    Some(below + (above - below) * at.fract())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn means(values: &[f64]) -> Vec<Share> {
        values.iter().map(|value| Share { of: *value, out_of: 1.0 }).collect()
    }

    #[test]
    fn hand_checked() {
        // Two problems: a draw is both of one (1/4 each) or one of each, so 95 % of draws span all of it.
        assert_eq!(interval(&means(&[0.0, 1.0]), 1000, 0), Some((0.0, 1.0)));
        // Without variation there is no width.
        assert_eq!(interval(&means(&[0.5; 7]), 100, 0), Some((0.5, 0.5)));
        assert_eq!((interval(&[], 100, 0), interval(&means(&[1.0]), 0, 0)), (None, None));
        assert_eq!(quotient(&[Share { of: 1.0, out_of: 2.0 }, Share { of: 0.0, out_of: 2.0 }]), Some(0.25));
        // Of three draws 0, 1, 2: a twentieth of the way is 0.1.
        assert_eq!(quantile(&[0.0, 1.0, 2.0], 0.05), Some(0.1));
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn a_binomial_mean_has_the_width_of_its_distribution() {
        // 400 problems, half of them solved: the standard error of the mean is 0.025.
        let values: Vec<f64> = (0..400).map(|i| f64::from(i % 2)).collect();
        let (low, high) = interval(&means(&values), 4000, 1).unwrap();
        assert!((low - (0.5 - 1.96 * 0.025)).abs() < 0.006 && (high - (0.5 + 1.96 * 0.025)).abs() < 0.006);
        assert_eq!(interval(&means(&values), 50, 1), interval(&means(&values), 50, 1));
        assert_ne!(interval(&means(&values), 50, 1), interval(&means(&values), 50, 2));
    }
}
