use proptest::prelude::*;

use super::*;

fn params(temperature: f32, top_p: f32, top_k: usize) -> SamplingParams {
    SamplingParams { temperature, top_p, top_k, ..SamplingParams::default() }
}

fn all(vocab: usize) -> TokenSet {
    TokenSet::new(vocab, |_| true)
}

fn frequencies(params: &SamplingParams, logits: &[f32], draws: usize) -> Vec<f64> {
    let mut sampler = Sampler::new(params, 7, 0).unwrap();
    let mut counts = vec![0.0; logits.len()];
    for _ in 0..draws {
        counts[sampler.sample(logits, &all(logits.len())).unwrap() as usize] += 1.0 / draws as f64;
    }
    counts
}

/// The steps of Hugging Face's warpers written down directly: a full sort, probabilities, the kept set.
fn reference(params: &SamplingParams, logits: &[f32]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
    let scaled = |i: usize| f64::from(logits[i]) / f64::from(params.temperature);
    if params.top_k > 0 && params.top_k < order.len() {
        let smallest = logits[order[params.top_k - 1]];
        order.retain(|&i| logits[i] >= smallest);
    }
    let weights: Vec<f64> = order.iter().map(|&i| (scaled(i) - scaled(order[0])).exp()).collect();
    let total: f64 = weights.iter().sum();
    let mut out = vec![0.0; logits.len()];
    let mut before = 0.0;
    for (&i, weight) in order.iter().zip(&weights) {
        let heavy = *weight >= f64::from(params.min_p);
        if heavy && (before < f64::from(params.top_p) * total || params.top_p == 1.0) {
            out[i] = *weight;
        }
        before += weight;
    }
    let kept: f64 = out.iter().sum();
    out.iter_mut().for_each(|p| *p /= kept);
    out
}

fn narrowed(params: &SamplingParams, logits: &[f32], allowed: &TokenSet) -> (Scratch, Kept) {
    let mut scratch = Scratch::default();
    let total = scratch.prepare(params, logits, allowed, largest(logits, allowed).unwrap());
    let kept = scratch.narrow(params, total);
    (scratch, kept)
}

#[test]
fn a_narrow_nucleus_is_found_after_refused_draws() {
    // A hundred tokens of one weight: nearly every free draw is refused.
    for (top_p, min_p, last) in [(0.02, 0.0, 2), (0.001, 0.0, 1), (1.0, 0.99, 100)] {
        let mut logits = [0.0; 300];
        logits[100..].fill(if min_p > 0.0 { -1.0 } else { f32::NEG_INFINITY });
        let params = SamplingParams { min_p, ..params(1.0, top_p, 0) };
        let mut sampler = Sampler::new(&params, 3, 0).unwrap();
        let drawn: Vec<_> = (0..3000).map(|_| sampler.sample(&logits, &all(300)).unwrap()).collect();
        assert!(drawn.iter().all(|token| *token < last), "{params:?}");
        for token in 0..last {
            assert!(drawn.contains(&token), "{params:?}: {token}");
        }
    }
}

#[test]
fn weights_are_exponentials() {
    for i in 0..100_000 {
        let x = -(i as f32) * 9e-4;
        let (got, want) = (f64::from(exp_of_negative(x)), f64::from(x).exp());
        if x < -87.0 {
            assert_eq!(got, 0.0);
        } else {
            assert!((got - want).abs() <= 3e-7 * want, "exp({x}) = {want}, not {got}");
        }
        assert!(got <= 1.0);
    }
    assert_eq!((exp_of_negative(0.0), exp_of_negative(f32::NEG_INFINITY)), (1.0, 0.0));
}

#[test]
fn repeated_tokens_are_penalised_as_hugging_face_does() {
    let params = SamplingParams { repetition_penalty: 2.0, ..params(0.0, 1.0, 0) };
    let mut sampler = Sampler::new(&params, 0, 0).unwrap();
    let logits = [3.0, 2.0, -1.0, -1.5];
    assert_eq!(sampler.sample(&logits, &all(4)).unwrap(), 0);
    sampler.observe(&[0, 0, 9]);
    assert_eq!(sampler.sample(&logits, &all(4)).unwrap(), 1);
    sampler.observe(&[1, 2]);
    // 1.5, 1, -2, -1.5
    assert_eq!(sampler.sample(&logits, &all(4)).unwrap(), 0);
    let only = TokenSet::new(4, |token| token >= 2);
    assert_eq!(sampler.sample(&logits, &only).unwrap(), 3);
}

#[test]
fn log_probabilities_are_the_models_own() {
    let logits = [1.0f32, 2.0, -1.0, 30.0];
    let allowed = TokenSet::new(4, |token| token < 3);
    let total: f32 = logits[..3].iter().map(|logit| logit.exp()).sum();
    for token in 0..3 {
        let want = (logits[token].exp() / total).ln();
        assert!((log_probability(&logits, &allowed, token as TokenId).unwrap() - want).abs() < 1e-5);
    }
    assert_eq!(log_probability(&logits, &allowed, 3).unwrap(), f32::NEG_INFINITY);
}

#[test]
fn a_long_row_is_drawn_as_a_short_one() {
    // Several words of the allowed set, full, half full and empty.
    let logits: Vec<f32> = (0..1000).map(|i| ((i * 7919) % 101) as f32 * 0.1).collect();
    let allowed = TokenSet::new(1000, |token| !(64..192).contains(&token) && token % 300 != 7);
    let params = SamplingParams { min_p: 0.02, ..params(0.9, 0.8, 300) };
    let masked: Vec<f32> =
        (0..1000).map(|i| if allowed.contains(i) { logits[i as usize] } else { f32::NEG_INFINITY }).collect();
    let expected = reference(&params, &masked);
    let (scratch, kept) = narrowed(&params, &logits, &allowed);
    for (i, expected) in expected.iter().enumerate() {
        assert_eq!(kept.contains(i, scratch.weights[i]), *expected > 0.0, "token {i}");
    }
}

#[test]
fn greedy_takes_the_first_largest() {
    let mut sampler = Sampler::new(&params(0.0, 0.9, 0), 0, 0).unwrap();
    assert_eq!(sampler.sample(&[0.0, 3.0, 3.0, 1.0], &all(4)).unwrap(), 1);
}

#[test]
fn frequencies_follow_the_warped_distribution() {
    let logits = [2.0, 1.0, 0.5, -1.0, 0.5, -4.0];
    for params in [
        params(1.0, 1.0, 0),
        params(0.8, 0.9, 0),
        params(0.8, 0.9, 3),
        params(2.0, 1.0, 3),
        params(0.1, 0.9, 0),
        params(1.0, 0.01, 0),
        params(f32::MIN_POSITIVE, 1.0, 0),
    ] {
        let seen = frequencies(&params, &logits, 20_000);
        for (seen, expected) in seen.iter().zip(reference(&params, &logits)) {
            // Four standard deviations of a binomial frequency.
            assert!(
                (seen - expected).abs() <= 4.0 * (0.25f64 / 20_000.0).sqrt(),
                "{params:?} {seen} {expected}"
            );
            assert!(expected > 0.0 || *seen == 0.0, "{params:?}: a token outside the set was drawn");
        }
    }
}

#[test]
fn seeds_and_indices_give_different_streams_and_repeat() {
    let draw = |seed, index| -> Vec<TokenId> {
        let mut sampler = Sampler::new(&params(1.0, 1.0, 0), seed, index).unwrap();
        (0..32).map(|_| sampler.sample(&[0.0; 100], &all(100)).unwrap()).collect()
    };
    assert_eq!(draw(1, 2), draw(1, 2));
    let mut streams: Vec<_> =
        (0..200).map(|index| draw(1, index)).chain((2..50).map(|seed| draw(seed, 0))).collect();
    let n = streams.len();
    streams.sort();
    streams.dedup();
    assert_eq!(streams.len(), n);
}

#[test]
fn never_leaves_the_allowed_set() {
    let allowed = TokenSet::new(130, |token| token % 2 == 1 && token < 100);
    let mut logits = vec![0.0; 130];
    logits[128] = 50.0;
    logits[2] = f32::NAN; // not allowed, so not looked at
    for temperature in [0.0, 1.0] {
        let mut sampler = Sampler::new(&params(temperature, 0.9, 0), 3, 0).unwrap();
        for _ in 0..500 {
            let token = sampler.sample(&logits, &allowed).unwrap();
            assert!(token % 2 == 1 && token < 100);
        }
    }
    assert!(!allowed.contains(130) && !allowed.contains(TokenId::MAX));
}

#[test]
fn broken_logits_are_errors() {
    let mut sampler = Sampler::new(&SamplingParams::default(), 0, 0).unwrap();
    let infinite = [f32::NEG_INFINITY; 3];
    for (logits, what) in [
        (&[0.0, f32::NAN, 0.0][..], "token 1 is NaN"),
        (&[0.0, 0.0, f32::INFINITY], "token 2 is inf"),
        (&infinite, "no token may be sampled"),
        (&[0.0], "1 logits for a vocabulary of 3"),
    ] {
        let error = sampler.sample(logits, &all(3)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Backend);
        assert!(error.to_string().contains(what), "{error}");
    }
    assert_eq!(sampler.sample(&[f32::NEG_INFINITY, -5.0, f32::NEG_INFINITY], &all(3)).unwrap(), 1);
}

#[test]
fn bad_parameters_are_errors() {
    for bad in [
        params(-1.0, 0.9, 0),
        params(f32::NAN, 0.9, 0),
        params(1.0, 0.0, 0),
        params(1.0, 1.1, 0),
        params(1.0, f32::NAN, 0),
        SamplingParams { min_p: 1.1, ..SamplingParams::default() },
        SamplingParams { min_p: f32::NAN, ..SamplingParams::default() },
        SamplingParams { repetition_penalty: 0.0, ..SamplingParams::default() },
    ] {
        assert_eq!(Sampler::new(&bad, 0, 0).unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
}

proptest! {
    #[test]
    fn the_kept_set_is_the_reference_set(
        logits in proptest::collection::vec(prop_oneof![-8i8..8, -3i8..3], 1..60),
        temperature in 0.1f32..2.0, top_p in 0.05f32..1.0, top_k in 0usize..10,
    ) {
        // Distinct logits: the order among equal ones is ours, Hugging Face leaves it to the sort.
        let logits: Vec<f32> = logits.iter().enumerate().map(|(i, &l)| f32::from(l) + i as f32 * 1e-3).collect();
        let params = params(temperature, top_p, top_k);
        let (scratch, kept) = narrowed(&params, &logits, &all(logits.len()));
        let total = scratch.sums.iter().sum::<f64>();
        for (token, &weight) in scratch.weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
            let inside = scratch.mass_before(token, weight) < f64::from(params.top_p) * total;
            prop_assert_eq!(inside, kept.contains(token, weight));
        }
        let mass: f64 = (0..logits.len()).filter(|&i| kept.contains(i, scratch.weights[i])).map(|i| f64::from(scratch.weights[i])).sum();
        prop_assert!((mass - kept.mass).abs() <= 1e-6 * mass);
        let kept: Vec<usize> = (0..logits.len()).filter(|&i| kept.contains(i, scratch.weights[i])).collect();
        let expected: Vec<usize> =
            reference(&params, &logits).iter().enumerate().filter(|(_, p)| **p > 0.0).map(|(i, _)| i).collect();
        prop_assert_eq!(kept, expected);
    }
}
