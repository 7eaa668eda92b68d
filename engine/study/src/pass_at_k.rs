//! The unbiased pass@k estimator of "Evaluating Large Language Models Trained on Code" (arXiv 2107.03374, equation 1).

/// Probability that at least one of `k` samples drawn without replacement from `n`, of which `c` pass, passes:
/// `1 - C(n-c, k) / C(n, k)`, computed as `1 - prod(1 - k/i)` for `i` in `n-c+1 ..= n`, which does not overflow.
///
/// `None` when `k` is 0 or larger than `n`: such a figure would be a guess. `c` is at most `n`.
pub fn pass_at_k(n: u64, c: u64, k: u64) -> Option<f64> {
    if k == 0 || k > n || c > n {
        return None;
    }
    if n - c < k {
        return Some(1.0);
    }
    let all_fail: f64 = ((n - c + 1)..=n).map(|i| 1.0 - k as f64 / i as f64).product();
    Some(1.0 - all_fail)
}

/// Mean of [`pass_at_k`] over problems, given `(n, c)` for each. `None` when there is no problem or one of them has fewer
/// than `k` samples.
pub fn mean_pass_at_k(counts: impl IntoIterator<Item = (u64, u64)>, k: u64) -> Option<f64> {
    let mut sum = 0.0;
    let mut problems = 0u64;
    for (n, c) in counts {
        sum += pass_at_k(n, c, k)?;
        problems += 1;
    }
    (problems > 0).then(|| sum / problems as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `C(n-c, k) / C(n, k)` with exact integers.
    fn by_counting(n: u64, c: u64, k: u64) -> f64 {
        let choose = |n: u64, k: u64| -> u128 {
            (0..k).fold(1u128, |acc, i| acc * u128::from(n - i) / u128::from(i + 1))
        };
        if n - c < k { 1.0 } else { 1.0 - choose(n - c, k) as f64 / choose(n, k) as f64 }
    }

    #[test]
    fn equals_the_closed_form() {
        for n in 1..=24 {
            for c in 0..=n {
                for k in 1..=n {
                    let got = pass_at_k(n, c, k).unwrap();
                    assert!((got - by_counting(n, c, k)).abs() < 1e-12, "n={n} c={c} k={k}: {got}");
                }
            }
        }
    }

    #[test]
    fn hand_checked() {
        assert_eq!(pass_at_k(200, 0, 1), Some(0.0));
        assert_eq!(pass_at_k(200, 200, 100), Some(1.0));
        assert!((pass_at_k(200, 10, 1).unwrap() - 0.05).abs() < 1e-12);
        assert_eq!(pass_at_k(5, 1, 6), None);
        assert_eq!(pass_at_k(5, 1, 0), None);
    }

    #[test]
    fn a_mean_needs_k_samples_everywhere() {
        assert_eq!(mean_pass_at_k([(2, 1), (1, 1)], 1), Some(0.75));
        assert_eq!(mean_pass_at_k([(2, 1), (1, 1)], 2), None);
        assert_eq!(mean_pass_at_k([], 1), None);
    }
}
