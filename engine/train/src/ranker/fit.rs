//! Weights by a softmax over the candidates of each question, and a probability by logistic regression; both by Newton's method.

use super::rows::Row;

/// Steps after which Newton's method has long ended: the losses are convex.
const STEPS: usize = 60;

/// Candidates of one question: values of the chosen signals, and which of them answer it.
pub struct Example<'r> {
    row: &'r Row,
    right: Vec<usize>,
}

/// The examples of a package: questions that some candidates answer, and others do not.
pub fn examples(rows: &[Row]) -> Vec<Example<'_>> {
    let of_row = |row| {
        let right = Row::right(row);
        (!right.is_empty() && right.len() < row.candidates.len()).then_some(Example { row, right })
    };
    rows.iter().filter_map(of_row).collect()
}

/// The weights of the `chosen` signals (numbers in [`Row`]'s values) that make the golden candidates of a question most probable, by
/// the mean over the golden ones, each question of a package alike, and each package alike from `enough` questions on.
///
/// The loss is the cross-entropy against the uniform distribution over the golden candidates, which is convex, with half of `ridge` times the
/// squared weights.
pub fn weights(packages: &[&[Example<'_>]], chosen: &[usize], enough: usize, ridge: f64) -> Vec<f64> {
    let share = |package: &[Example<'_>]| (package.len() as f64 / enough as f64).min(1.0);
    let total: f64 = packages.iter().map(|package| share(package)).sum();
    newton(vec![0.0; chosen.len()], |weights| {
        let mut at = Point::of_ridge(weights, ridge);
        for package in packages {
            let counts = share(package) / (package.len().max(1) as f64 * total.max(1e-12));
            package.iter().for_each(|example| example.add(weights, chosen, counts, &mut at));
        }
        at
    })
}

/// A loss with its derivatives.
struct Point {
    loss: f64,
    gradient: Vec<f64>,
    curvature: Vec<Vec<f64>>,
}

impl Point {
    /// Of half of `ridge` times the squared weights.
    fn of_ridge(weights: &[f64], ridge: f64) -> Self {
        let n = weights.len();
        let row = |i: usize| (0..n).map(|j| if i == j { ridge } else { 0.0 }).collect();
        Self {
            loss: weights.iter().map(|weight| ridge / 2.0 * weight * weight).sum(),
            gradient: weights.iter().map(|weight| ridge * weight).collect(),
            curvature: (0..n).map(row).collect(),
        }
    }

    /// Adds `counts` times the outer product of `values` with itself to the curvature.
    fn add_square(&mut self, values: &[f64], counts: f64) {
        for (row, a) in self.curvature.iter_mut().zip(values) {
            row.iter_mut().zip(values).for_each(|(slot, b)| *slot += counts * a * b);
        }
    }
}

/// The minimum of a convex loss by Newton's method. Far from it a whole step may lead uphill, where everything is so sure that the
/// curvature says nothing: steps are halved until the loss falls.
fn newton(mut weights: Vec<f64>, loss: impl Fn(&[f64]) -> Point) -> Vec<f64> {
    let mut at = loss(&weights);
    for _ in 0..STEPS {
        let Some(step) = solve(at.curvature, at.gradient) else { break };
        let longest = step.iter().fold(0.0f64, |most, value| most.max(value.abs()));
        let mut scale = 1.0;
        let next = loop {
            let there: Vec<f64> =
                weights.iter().zip(&step).map(|(weight, step)| weight - scale * step).collect();
            let point = loss(&there);
            if point.loss < at.loss {
                break Some((there, point));
            }
            scale /= 2.0;
            if scale * longest < 1e-9 {
                break None;
            }
        };
        let Some((there, point)) = next else { break };
        (weights, at) = (there, point);
    }
    weights
}

impl Example<'_> {
    /// Adds its part of the loss, the gradient and the Hessian.
    fn add(&self, weights: &[f64], chosen: &[usize], counts: f64, at: &mut Point) {
        let candidates = &self.row.candidates;
        let value = |c: usize, i: usize| f64::from(candidates[c].values[chosen[i]]);
        let n = chosen.len();
        let score = |c: usize| (0..n).map(|i| weights[i] * value(c, i)).sum::<f64>();
        let scores: Vec<f64> = (0..candidates.len()).map(score).collect();
        let most = scores.iter().fold(f64::NEG_INFINITY, |most, score| most.max(*score));
        let mut probabilities: Vec<f64> = scores.iter().map(|score| (score - most).exp()).collect();
        let sum: f64 = probabilities.iter().sum();
        probabilities.iter_mut().for_each(|p| *p /= sum);
        let right: f64 = self.right.iter().map(|c| scores[*c]).sum::<f64>() / self.right.len() as f64;
        at.loss += counts * (most + sum.ln() - right);
        let mut mean = vec![0.0; n];
        for (c, p) in probabilities.iter().enumerate() {
            mean.iter_mut().enumerate().for_each(|(i, mean)| *mean += p * value(c, i));
        }
        for (i, mean) in mean.iter().enumerate() {
            let golden: f64 = self.right.iter().map(|c| value(*c, i)).sum::<f64>() / self.right.len() as f64;
            at.gradient[i] += counts * (mean - golden);
        }
        for (c, p) in probabilities.iter().enumerate() {
            let apart: Vec<f64> = mean.iter().enumerate().map(|(i, mean)| value(c, i) - mean).collect();
            at.add_square(&apart, counts * p);
        }
    }
}

/// Slope and offset of the logistic curve from a score to the probability that the candidate is golden.
pub fn logistic(scored: &[(f64, bool)]) -> (f64, f64) {
    // A little regularisation: where everything is right, or wrong, there is no curve.
    const RIDGE: f64 = 1e-3;
    let n = scored.len().max(1) as f64;
    let found = newton(vec![0.0; 2], |curve| {
        let mut at = Point::of_ridge(curve, RIDGE);
        for (score, right) in scored {
            let z = curve[0] * score + curve[1];
            let p = 1.0 / (1.0 + (-z).exp());
            let (target, values) = (f64::from(u8::from(*right)), [*score, 1.0]);
            // ln(1 + exp(z)) without an overflow.
            at.loss += (z.max(0.0) + (-z.abs()).exp().ln_1p() - target * z) / n;
            at.gradient.iter_mut().zip(values).for_each(|(slot, value)| *slot += (p - target) * value / n);
            at.add_square(&values, p * (1.0 - p) / n);
        }
        at
    });
    (found[0], found[1])
}

/// Solves a small system by elimination with pivoting; `None` where it has no one solution.
fn solve(mut matrix: Vec<Vec<f64>>, mut right: Vec<f64>) -> Option<Vec<f64>> {
    let n = right.len();
    for column in 0..n {
        let pivot =
            (column..n).max_by(|a, b| matrix[*a][column].abs().total_cmp(&matrix[*b][column].abs()))?;
        if matrix[pivot][column].abs() < 1e-12 {
            return None;
        }
        matrix.swap(column, pivot);
        right.swap(column, pivot);
        for row in column + 1..n {
            let factor = matrix[row][column] / matrix[column][column];
            for i in column..n {
                matrix[row][i] -= factor * matrix[column][i];
            }
            right[row] -= factor * right[column];
        }
    }
    for row in (0..n).rev() {
        let known: f64 = (row + 1..n).map(|i| matrix[row][i] * right[i]).sum();
        right[row] = (right[row] - known) / matrix[row][row];
    }
    Some(right)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ranker::rows::RowCandidate;

    /// Questions whose golden candidate is drawn by the softmax of known weights.
    fn drawn(truth: &[f64], n: usize, seed: u64) -> Vec<Row> {
        use rand::{Rng, SeedableRng};
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        let mut question = |i: usize| {
            let values: Vec<Vec<f32>> =
                (0..12).map(|_| truth.iter().map(|_| random.random_range(-2.0..2.0)).collect()).collect();
            let weight = |values: &Vec<f32>| {
                values.iter().zip(truth).map(|(value, weight)| f64::from(*value) * weight).sum::<f64>().exp()
            };
            let mut left = random.random_range(0.0..1.0) * values.iter().map(weight).sum::<f64>();
            let golden = values.iter().position(|values| {
                left -= weight(values);
                left <= 0.0
            });
            let candidate = |(c, values): (usize, Vec<f32>)| RowCandidate {
                name: format!("n{c}"),
                answers: if Some(c) == golden { vec!["gold".into()] } else { Vec::new() },
                values,
            };
            Row {
                query: format!("question {i}"),
                gold: vec!["gold".into()],
                candidates: values.into_iter().enumerate().map(candidate).collect(),
            }
        };
        (0..n).map(&mut question).collect()
    }

    #[test]
    fn weights_that_made_the_data_are_found() {
        let truth = [0.9, -0.4, 0.0];
        let (a, b) = (drawn(&truth, 1500, 1), drawn(&truth, 1500, 2));
        let (a, b) = (examples(&a), examples(&b));
        let found = weights(&[&a, &b], &[0, 1, 2], 60, 1e-4);
        for (found, truth) in found.iter().zip(truth) {
            assert!((found - truth).abs() < 0.08, "{found} {truth}");
        }
        // Of a part of the signals, and in another order.
        let part = weights(&[&a, &b], &[2, 0], 60, 1e-4);
        assert!(part[0].abs() < 0.08 && part[1] > 0.5, "{part:?}");
        // Nothing to learn from is no reason to fail.
        assert_eq!(weights(&[], &[0, 1], 60, 0.01), [0.0, 0.0]);
    }

    #[test]
    fn values_far_apart_do_not_lead_astray() {
        // As BM25's deviations are: a whole Newton step from nothing leads to where every answer is sure, and wrong.
        let truth = [0.3, 0.0];
        let mut rows = drawn(&truth, 800, 4);
        for row in &mut rows {
            row.candidates.iter_mut().for_each(|candidate| candidate.values[1] *= 40.0);
        }
        let examples = examples(&rows);
        let found = weights(&[&examples], &[0, 1], 60, 1e-3);
        assert!((found[0] - 0.3).abs() < 0.1 && found[1].abs() < 0.01, "{found:?}");
        // One golden candidate that stands far out, and one question that says the contrary.
        rows[0].candidates[0].values[0] = 300.0;
        let found = weights(&[&super::examples(&rows)], &[0], 60, 1e-3);
        assert!(found[0].is_finite() && found[0].abs() < 1.0, "{found:?}");
    }

    #[test]
    fn a_probability_is_calibrated() {
        use rand::{Rng, SeedableRng};
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(3);
        let mut point = || {
            let score: f64 = random.random_range(-2.0..6.0);
            (score, random.random_range(0.0..1.0) < 1.0 / (1.0 + (-(0.8 * score - 2.0)).exp()))
        };
        let scored: Vec<(f64, bool)> = (0..6000).map(|_| point()).collect();
        let (slope, offset) = logistic(&scored);
        assert!((slope - 0.8).abs() < 0.1 && (offset + 2.0).abs() < 0.2, "{slope} {offset}");
        let (slope, offset) = logistic(&[(1.0, false), (2.0, false)]);
        assert!(slope.is_finite() && offset < 0.0);
    }
}
