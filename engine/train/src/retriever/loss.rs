//! Cross-entropy of each query's positive among all APIs of the batch, and its gradient in closed form.

use candle_core::{Device, Tensor};
use inhouse_core::Result;

use crate::backend_error;

/// Vectors of one batch, row-major.
#[derive(Debug, Clone, Copy)]
pub struct Vectors<'a> {
    /// `[queries, dim]`.
    pub queries: &'a [f32],
    /// `[apis, dim]`; row i is the positive of query i.
    pub apis: &'a [f32],
    /// Width of a row.
    pub dim: usize,
}

/// The loss and what it asks of the vectors.
#[derive(Debug, Clone, PartialEq)]
pub struct Loss {
    /// Mean cross-entropy in nats.
    pub value: f64,
    /// Share of queries whose positive has the highest score.
    pub accuracy: f64,
    /// `[queries, dim]`.
    pub d_queries: Vec<f32>,
    /// `[apis, dim]`.
    pub d_apis: Vec<f32>,
}

/// Scores are dot products over `temperature`; pairs in `masked` count for nothing.
///
/// # Errors
/// The rows are not whole, or the backend fails.
pub fn cross_entropy(vectors: Vectors<'_>, masked: &[(usize, usize)], temperature: f64) -> Result<Loss> {
    products(vectors, masked, temperature).map_err(backend_error)
}

fn products(vectors: Vectors<'_>, masked: &[(usize, usize)], temperature: f64) -> candle_core::Result<Loss> {
    let dim = vectors.dim;
    let (n_queries, n_apis) = (vectors.queries.len() / dim, vectors.apis.len() / dim);
    let queries = Tensor::from_slice(vectors.queries, (n_queries, dim), &Device::Cpu)?;
    let apis = Tensor::from_slice(vectors.apis, (n_apis, dim), &Device::Cpu)?;
    // [queries, apis]: scores, which then become the gradient of the loss by them.
    let mut scores: Vec<f32> = queries.matmul(&apis.t()?)?.flatten_all()?.to_vec1()?;
    for &(q, a) in masked {
        scores[q * n_apis + a] = f32::NEG_INFINITY;
    }
    let (mut value, mut accuracy) = (0.0, 0.0);
    for (q, row) in scores.chunks_exact_mut(n_apis).enumerate() {
        let positive = row[q];
        let highest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let exponential = |score: f32| (f64::from(score - highest) / temperature).exp();
        let sum: f64 = row.iter().map(|&score| exponential(score)).sum();
        value += f64::from(highest - positive) / temperature + sum.ln();
        accuracy += f64::from(u8::from(positive >= highest));
        for (a, score) in row.iter_mut().enumerate() {
            let share = exponential(*score) / sum - f64::from(u8::from(a == q));
            *score = (share / (temperature * n_queries as f64)) as f32;
        }
    }
    let by_scores = Tensor::from_vec(scores, (n_queries, n_apis), &Device::Cpu)?;
    Ok(Loss {
        value: value / n_queries as f64,
        accuracy: accuracy / n_queries as f64,
        d_queries: by_scores.matmul(&apis)?.flatten_all()?.to_vec1()?,
        d_apis: by_scores.t()?.matmul(&queries)?.flatten_all()?.to_vec1()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradient_is_the_slope() {
        let dim = 3;
        let queries: Vec<f32> = (0..6).map(|i| (i as f32 * 0.7).sin()).collect();
        let apis: Vec<f32> = (0..12).map(|i| (i as f32 * 1.3).cos()).collect();
        let masked = [(0, 3)];
        let at = |queries: &[f32], apis: &[f32]| {
            cross_entropy(Vectors { queries, apis, dim }, &masked, 0.5).unwrap()
        };
        let loss = at(&queries, &apis);
        let step = 1e-2;
        for i in 0..queries.len() + apis.len() {
            let shifted = |by: f32| {
                let (mut q, mut a) = (queries.clone(), apis.clone());
                if i < 6 {
                    q[i] += by
                } else {
                    a[i - 6] += by
                }
                at(&q, &a).value
            };
            let slope = (shifted(step) - shifted(-step)) / (2.0 * f64::from(step));
            let gradient = if i < 6 { loss.d_queries[i] } else { loss.d_apis[i - 6] };
            assert!((slope - f64::from(gradient)).abs() < 1e-3, "{i}: {slope} {gradient}");
        }
        // By hand: with one API beside the positive the loss is ln(1 + e^(s - s+)).
        let loss = cross_entropy(Vectors { queries: &[1.0], apis: &[2.0, 1.0], dim: 1 }, &[], 1.0).unwrap();
        assert!((loss.value - (1.0 + (-1f64).exp()).ln()).abs() < 1e-9 && loss.accuracy == 1.0);
    }
}
