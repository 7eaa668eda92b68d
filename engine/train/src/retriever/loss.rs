//! Cross-entropy of each query's positive among all APIs of the batch, and its gradient in closed form.

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
pub fn cross_entropy(vectors: Vectors<'_>, masked: &[(usize, usize)], temperature: f64) -> Loss {
    let Vectors { queries, apis, dim } = vectors;
    let n_queries = queries.len() / dim;
    let mut loss = Loss {
        value: 0.0,
        accuracy: 0.0,
        d_queries: vec![0.0; queries.len()],
        d_apis: vec![0.0; apis.len()],
    };
    let mut is_masked = vec![false; n_queries * (apis.len() / dim)];
    let n_apis = apis.len() / dim;
    for &(q, a) in masked {
        is_masked[q * n_apis + a] = true;
    }
    for (q, query) in queries.chunks_exact(dim).enumerate() {
        let masked = &is_masked[q * n_apis..][..n_apis];
        let scores: Vec<f64> = apis
            .chunks_exact(dim)
            .zip(masked)
            .map(|(api, &masked)| {
                let dot: f32 = query.iter().zip(api).map(|(x, y)| x * y).sum();
                if masked { f64::NEG_INFINITY } else { f64::from(dot) / temperature }
            })
            .collect();
        let highest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = scores.iter().map(|score| (score - highest).exp()).sum();
        loss.value += (highest + sum.ln() - scores[q]) / n_queries as f64;
        loss.accuracy += f64::from(u8::from(scores[q] >= highest)) / n_queries as f64;
        for (a, score) in scores.iter().enumerate() {
            let share = (score - highest).exp() / sum - f64::from(u8::from(a == q));
            let factor = (share / (temperature * n_queries as f64)) as f32;
            if factor == 0.0 {
                continue;
            }
            let (d_query, d_api) =
                (&mut loss.d_queries[q * dim..][..dim], &mut loss.d_apis[a * dim..][..dim]);
            let api = &apis[a * dim..][..dim];
            for i in 0..dim {
                d_query[i] += factor * api[i];
                d_api[i] += factor * query[i];
            }
        }
    }
    loss
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
        let at = |queries: &[f32], apis: &[f32]| cross_entropy(Vectors { queries, apis, dim }, &masked, 0.5);
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
        let loss = cross_entropy(Vectors { queries: &[1.0], apis: &[2.0, 1.0], dim: 1 }, &[], 1.0);
        assert!((loss.value - (1.0 + (-1f64).exp()).ln()).abs() < 1e-9 && loss.accuracy == 1.0);
    }
}
