//! pass@k, quantiles and the bootstrap against numpy's figures (`fixtures/make_estimates.py`).

use std::io::Read;

use serde::Deserialize;

use crate::bootstrap::{Share, interval, quantile};
use crate::pass_at_k::pass_at_k;

#[derive(Deserialize)]
struct Figures {
    pass_at_k: Vec<(u64, u64, u64, f64)>,
    published: Vec<(u64, u64, u64, u64, f64)>,
    quantiles: Vec<(Vec<f64>, f64, f64)>,
    bootstraps: Vec<(Vec<f64>, f64, f64)>,
}

fn figures() -> Figures {
    let bytes: &[u8] = include_bytes!("../fixtures/estimates.json.gz");
    let mut text = String::new();
    flate2::read::GzDecoder::new(bytes).read_to_string(&mut text).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn pass_at_k_is_numpys() {
    let figures = figures();
    assert_eq!(figures.pass_at_k.len(), 10_000);
    for (n, c, k, expected) in figures.pass_at_k {
        let got = pass_at_k(n, c, k).unwrap();
        assert!((got - expected).abs() < 1e-12, "n={n} c={c} k={k}: {got}, numpy {expected}");
    }
    for (drawn, repeats, c, k, expected) in figures.published {
        let got = pass_at_k(drawn * repeats, c * repeats, k).unwrap();
        assert!(
            (got - expected).abs() < 1e-12,
            "{c} of {drawn}, each {repeats} times, k={k}: {got}, numpy {expected}"
        );
    }
}

#[test]
fn quantiles_and_intervals_are_numpys() {
    let figures = figures();
    for (values, q, expected) in figures.quantiles {
        let got = quantile(&values, q).unwrap();
        assert!((got - expected).abs() < 1e-12, "{got}, numpy {expected}");
    }
    // Two streams of random numbers: equal but for what 20,000 draws leave open.
    for (values, low, high) in figures.bootstraps {
        let shares: Vec<Share> = values.iter().map(|value| Share { of: *value, out_of: 1.0 }).collect();
        let got = interval(&shares, 20_000, 3).unwrap();
        assert!((got.0 - low).abs() < 0.01 && (got.1 - high).abs() < 0.01, "{got:?}, numpy {low} {high}");
    }
}
