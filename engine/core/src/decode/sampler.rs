//! Sampling one token from logits.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use super::{TokenId, Tokenizer};
use crate::{Error, ErrorKind, Result};

/// How tokens are drawn. Order of the steps: temperature, top-k, top-p, as Hugging Face's `generate` does.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingParams {
    /// Divides the logits; 0 means greedy.
    pub temperature: f32,
    /// Nucleus sampling: the smallest set of tokens whose probability reaches this; 1 switches it off.
    pub top_p: f32,
    /// Only this many most probable tokens; 0 switches it off.
    pub top_k: usize,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self { temperature: 0.8, top_p: 0.9, top_k: 0 }
    }
}

/// A set of tokens as one bit each: what may be sampled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSet {
    words: Vec<u64>,
    vocab: usize,
}

impl TokenSet {
    /// The tokens below `vocab` for which `contains` holds.
    pub fn new(vocab: usize, contains: impl Fn(TokenId) -> bool) -> Self {
        let mut words = vec![0; vocab.div_ceil(64)];
        for token in 0..vocab {
            if contains(token as TokenId) {
                words[token / 64] |= 1 << (token % 64);
            }
        }
        Self { words, vocab }
    }

    /// Every token that a tokenizer lets be sampled: no padding, no unused or control token but the end of text.
    pub fn sampleable(tokenizer: &dyn Tokenizer) -> Self {
        Self::new(tokenizer.vocab_size(), |token| tokenizer.is_sampleable(token))
    }

    /// Whether `token` is in the set.
    pub fn contains(&self, token: TokenId) -> bool {
        let token = token as usize;
        token < self.vocab && self.words[token / 64] >> (token % 64) & 1 == 1
    }

    /// No token of a vocabulary of `vocab`.
    pub fn empty(vocab: usize) -> Self {
        Self { words: vec![0; vocab.div_ceil(64)], vocab }
    }

    /// Puts a token in; one beyond the vocabulary is left out.
    pub fn insert(&mut self, token: TokenId) {
        let token = token as usize;
        if token < self.vocab {
            self.words[token / 64] |= 1 << (token % 64);
        }
    }

    /// Takes a token out.
    pub fn remove(&mut self, token: TokenId) {
        let token = token as usize;
        if token < self.vocab {
            self.words[token / 64] &= !(1 << (token % 64));
        }
    }

    /// The tokens that are in both, of the smaller vocabulary of the two.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let words = self.words.iter().zip(&other.words).map(|(a, b)| a & b).collect();
        Self { words, vocab: self.vocab.min(other.vocab) }
    }

    /// Number of tokens in the set.
    pub fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Tokens of the vocabulary, in the set or not: the length of the rows of logits it goes with.
    pub fn vocab_size(&self) -> usize {
        self.vocab
    }
}

/// Draws the tokens of one sample. It owns its stream of random numbers, one number a token, so that a sample depends
/// on nothing that happens to the others.
#[derive(Debug, Clone)]
pub struct Sampler {
    params: SamplingParams,
    rng: ChaCha8Rng,
    /// Candidates of the current token, kept for their allocation.
    candidates: Vec<Candidate>,
}

#[derive(Debug, Clone, Copy)]
struct Candidate {
    token: TokenId,
    logit: f32,
    /// `exp((logit - largest) / temperature)`: the probability up to a common factor.
    weight: f64,
}

impl Sampler {
    /// A sampler for sample number `index` of a run with `seed`: ChaCha8 keyed by the seed, the index its stream.
    ///
    /// # Errors
    /// The temperature is negative or not finite, or `top_p` is not in (0, 1].
    pub fn new(params: &SamplingParams, seed: u64, index: usize) -> Result<Self> {
        let invalid = |message| Err(Error::new(ErrorKind::InvalidArgument, message));
        if !(params.temperature.is_finite() && params.temperature >= 0.0) {
            return invalid(format!("temperature {} is not a number of at least 0", params.temperature));
        }
        if !(params.top_p > 0.0 && params.top_p <= 1.0) {
            return invalid(format!("top_p {} is not above 0 and at most 1", params.top_p));
        }
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        let mut rng = ChaCha8Rng::from_seed(key);
        rng.set_stream(index as u64);
        Ok(Self { params: params.clone(), rng, candidates: Vec::new() })
    }

    /// Draws a token of `allowed` from `logits` (`[vocab] f32`). Ties are broken towards the smaller token number.
    ///
    /// A logit of minus infinity excludes its token.
    ///
    /// # Errors
    /// `logits` is not as long as the vocabulary, an allowed logit is NaN or plus infinity, or no token is left.
    pub fn sample(&mut self, logits: &[f32], allowed: &TokenSet) -> Result<TokenId> {
        self.gather(logits, allowed)?;
        let mut best = self.candidates[0];
        for candidate in &self.candidates[1..] {
            if candidate.logit > best.logit {
                best = *candidate;
            }
        }
        if self.params.temperature == 0.0 {
            return Ok(best.token);
        }
        self.keep_top_k();
        self.keep_top_p(best.logit);
        Ok(self.draw())
    }

    fn gather(&mut self, logits: &[f32], allowed: &TokenSet) -> Result<()> {
        let backend = |message| Err(Error::new(ErrorKind::Backend, message));
        if logits.len() != allowed.vocab {
            return backend(format!("{} logits for a vocabulary of {} tokens", logits.len(), allowed.vocab));
        }
        self.candidates.clear();
        for (token, &logit) in logits.iter().enumerate() {
            let token = token as TokenId;
            if !allowed.contains(token) || logit == f32::NEG_INFINITY {
                continue;
            }
            if !logit.is_finite() {
                return backend(format!(
                    "the logit of token {token} is {logit}: broken weights or numeric overflow"
                ));
            }
            self.candidates.push(Candidate { token, logit, weight: 0.0 });
        }
        if self.candidates.is_empty() {
            return backend("no token may be sampled: every logit is masked or minus infinity".to_owned());
        }
        Ok(())
    }

    /// Keeps the `top_k` largest logits, with all that tie with the last of them.
    fn keep_top_k(&mut self) {
        let k = self.params.top_k;
        if k == 0 || k >= self.candidates.len() {
            return;
        }
        let mut logits: Vec<f32> = self.candidates.iter().map(|candidate| candidate.logit).collect();
        let (_, &mut smallest, _) = logits.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
        self.candidates.retain(|candidate| candidate.logit >= smallest);
    }

    /// Fills in the weights and keeps the nucleus: a token stays when those before it (by probability) have less than
    /// `top_p` together. The order of the candidates stays by token number.
    fn keep_top_p(&mut self, largest: f32) {
        let temperature = f64::from(self.params.temperature);
        let mut total = 0.0;
        for candidate in &mut self.candidates {
            candidate.weight = (f64::from(candidate.logit - largest) / temperature).exp();
            total += candidate.weight;
        }
        let top_p = f64::from(self.params.top_p);
        if top_p >= 1.0 {
            return;
        }
        // A token lighter than an even share of the mass outside the nucleus is outside: all tokens that are no heavier
        // cannot fill that mass. This leaves few candidates to be sorted.
        let share = (1.0 - top_p) * total / self.candidates.len() as f64;
        self.candidates.retain(|candidate| candidate.weight >= share);
        self.candidates.sort_unstable_by(|a, b| b.weight.total_cmp(&a.weight).then(a.token.cmp(&b.token)));
        let mut before = 0.0;
        let inside = self
            .candidates
            .iter()
            .take_while(|candidate| {
                let inside = before < top_p * total;
                before += candidate.weight;
                inside
            })
            .count();
        self.candidates.truncate(inside.max(1));
        // By number again: rounding differences between two near-equal tokens must not reorder the draw.
        self.candidates.sort_unstable_by_key(|candidate| candidate.token);
    }

    fn draw(&mut self) -> TokenId {
        let total: f64 = self.candidates.iter().map(|candidate| candidate.weight).sum();
        let uniform = (self.rng.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64);
        let mut left = uniform * total;
        let mut drawn = self.candidates[0].token;
        for candidate in &self.candidates {
            if candidate.weight > 0.0 {
                drawn = candidate.token;
                left -= candidate.weight;
                if left < 0.0 {
                    break;
                }
            }
        }
        drawn
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn params(temperature: f32, top_p: f32, top_k: usize) -> SamplingParams {
        SamplingParams { temperature, top_p, top_k }
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
            if before < f64::from(params.top_p) * total || params.top_p == 1.0 {
                out[i] = *weight;
            }
            before += weight;
        }
        let kept: f64 = out.iter().sum();
        out.iter_mut().for_each(|p| *p /= kept);
        out
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
            let mut sampler = Sampler::new(&params, 0, 0).unwrap();
            sampler.sample(&logits, &all(logits.len())).unwrap();
            let kept: Vec<usize> = sampler.candidates.iter().map(|c| c.token as usize).collect();
            let expected: Vec<usize> =
                reference(&params, &logits).iter().enumerate().filter(|(_, p)| **p > 0.0).map(|(i, _)| i).collect();
            prop_assert_eq!(kept, expected);
        }
    }
}
