//! Sampling one token from logits.

use std::cell::RefCell;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use super::{TokenId, Tokenizer};
use crate::{Error, ErrorKind, Result};

/// How tokens are drawn. Order of the steps, as Hugging Face's `generate` has them: repetition penalty, temperature, top-k,
/// top-p, min-p.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingParams {
    /// Divides the logits; 0 means greedy.
    pub temperature: f32,
    /// Nucleus sampling: the smallest set of tokens whose probability reaches this; 1 switches it off.
    pub top_p: f32,
    /// Only this many most probable tokens; 0 switches it off.
    pub top_k: usize,
    /// Only tokens at least this many times as probable as the most probable one; 0 switches it off.
    pub min_p: f32,
    /// Logits of tokens that the prompt or the sample holds are divided by this where positive and multiplied where
    /// negative (CTRL, arXiv 1909.05858, section 4.1); 1 switches it off.
    pub repetition_penalty: f32,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self { temperature: 0.8, top_p: 0.9, top_k: 0, min_p: 0.0, repetition_penalty: 1.0 }
    }
}

impl SamplingParams {
    /// # Errors
    /// A value out of its range ([`ErrorKind::InvalidArgument`]).
    pub fn check(&self) -> Result<()> {
        let invalid = |message| Err(Error::new(ErrorKind::InvalidArgument, message));
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            return invalid(format!("temperature {} is not a number of at least 0", self.temperature));
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return invalid(format!("top_p {} is not above 0 and at most 1", self.top_p));
        }
        if !(self.min_p >= 0.0 && self.min_p <= 1.0) {
            return invalid(format!("min_p {} is not from 0 to 1", self.min_p));
        }
        if !(self.repetition_penalty.is_finite() && self.repetition_penalty > 0.0) {
            return invalid(format!(
                "repetition_penalty {} is not a number above 0",
                self.repetition_penalty
            ));
        }
        Ok(())
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

/// Draws the tokens of one sample. It owns its stream of random numbers, so that a sample depends on nothing that happens
/// to the others.
#[derive(Debug, Clone)]
pub struct Sampler {
    params: SamplingParams,
    rng: ChaCha8Rng,
    /// Tokens that the repetition penalty is for, sorted; empty without one.
    seen: Vec<TokenId>,
}

impl Sampler {
    /// A sampler for sample number `index` of a run with `seed`: ChaCha8 keyed by the seed, the index its stream.
    ///
    /// # Errors
    /// As [`SamplingParams::check`].
    pub fn new(params: &SamplingParams, seed: u64, index: usize) -> Result<Self> {
        params.check()?;
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        let mut rng = ChaCha8Rng::from_seed(key);
        rng.set_stream(index as u64);
        Ok(Self { params: params.clone(), rng, seen: Vec::new() })
    }

    /// Takes note of tokens of the text, for the repetition penalty.
    pub fn observe(&mut self, tokens: &[TokenId]) {
        if self.params.repetition_penalty == 1.0 {
            return;
        }
        for token in tokens {
            if let Err(at) = self.seen.binary_search(token) {
                self.seen.insert(at, *token);
            }
        }
    }

    /// Draws a token of `allowed` from `logits` (`[vocab] f32`). Ties are broken towards the smaller token number.
    ///
    /// A logit of minus infinity excludes its token.
    ///
    /// # Errors
    /// `logits` is not as long as the vocabulary, an allowed logit is NaN or plus infinity, or no token is left.
    pub fn sample(&mut self, logits: &[f32], allowed: &TokenSet) -> Result<TokenId> {
        SCRATCH.with_borrow_mut(|scratch| self.sample_with(logits, allowed, scratch))
    }

    fn sample_with(&mut self, logits: &[f32], allowed: &TokenSet, scratch: &mut Scratch) -> Result<TokenId> {
        let mut penalised = std::mem::take(&mut scratch.logits);
        let logits = if self.seen.is_empty() {
            logits
        } else {
            penalised.clear();
            penalised.extend_from_slice(logits);
            for token in &self.seen {
                if let Some(logit) = penalised.get_mut(*token as usize) {
                    let penalty = self.params.repetition_penalty;
                    *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
                }
            }
            &penalised
        };
        let drawn = largest(logits, allowed).map(|largest| {
            if self.params.temperature == 0.0 {
                return first_with(logits, allowed, largest);
            }
            let total = scratch.prepare(&self.params, logits, allowed, largest);
            let rng = &mut self.rng;
            scratch.draw(&self.params, total, || (rng.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64))
        });
        scratch.logits = penalised;
        drawn
    }
}

/// Natural logarithm of the probability that the model itself, at temperature 1 and before any other step, gives `token`
/// among the `allowed` ones: `logits` is `[vocab] f32`. Minus infinity for a token that is not allowed.
///
/// # Errors
/// As [`Sampler::sample`].
pub fn log_probability(logits: &[f32], allowed: &TokenSet, token: TokenId) -> Result<f32> {
    let largest = largest(logits, allowed)?;
    if !allowed.contains(token) {
        return Ok(f32::NEG_INFINITY);
    }
    let total = SCRATCH.with_borrow_mut(|scratch| scratch.weigh(logits, allowed, largest, 1.0));
    Ok((f64::from(logits[token as usize] - largest) - total.ln()) as f32)
}

thread_local! {
    /// One for each thread that samples, whatever the number of samples: rows are as long as the vocabulary.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Working memory of a draw.
#[derive(Debug, Default)]
struct Scratch {
    /// Logits after the repetition penalty.
    logits: Vec<f32>,
    /// `exp((logit - largest) / temperature)` of every token, 0 for those that are not allowed: probabilities up to a
    /// common factor.
    weights: Vec<f32>,
    /// Sums of 64 weights each.
    sums: Vec<f64>,
    /// Mass of the tokens whose weights begin with the same bits.
    masses: Vec<f64>,
    /// Tokens at the border of the nucleus.
    border: Vec<(f32, TokenId)>,
}

/// The tokens that may be drawn: those heavier than `weight`, and of those that are as heavy the ones up to `last`.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Kept {
    weight: f32,
    last: TokenId,
    /// Their weights together.
    mass: f64,
}

impl Kept {
    fn contains(&self, token: usize, weight: f32) -> bool {
        weight > self.weight || (weight == self.weight && token <= self.last as usize && weight > 0.0)
    }
}

/// A weight's exponent and first five bits: the histogram that finds the nucleus has a place for each. The largest weight
/// is 1.
fn place(weight: f32) -> usize {
    ((weight.to_bits() >> 18) as usize).min(PLACES - 1)
}

const PLACES: usize = (0x3f80_0000 >> 18) + 1;

/// Draws that may fall outside of the kept tokens before these are determined.
const FREE_DRAWS: usize = 8;

impl Scratch {
    /// Fills in the weights and leaves what top-k does; their sum.
    fn prepare(&mut self, params: &SamplingParams, logits: &[f32], allowed: &TokenSet, largest: f32) -> f64 {
        let total = self.weigh(logits, allowed, largest, params.temperature);
        if params.top_k > 0 && params.top_k < allowed.vocab { self.keep_top_k(params.top_k) } else { total }
    }

    /// A token that top-p and min-p keep, with a probability as its weight; `uniform` gives numbers from 0 to 1.
    ///
    /// A token is drawn from all and refused where it is not kept, which is the same as drawing from the kept ones.
    /// Whether it is kept shows in the sum of all that are heavier; the whole nucleus need not be known. Where too many
    /// draws are refused it is found after all.
    fn draw(&mut self, params: &SamplingParams, total: f64, mut uniform: impl FnMut() -> f64) -> TokenId {
        for _ in 0..FREE_DRAWS {
            let token = self.pick(uniform() * total);
            let weight = self.weights[token];
            if weight >= params.min_p
                && (params.top_p >= 1.0 || self.mass_before(token, weight) < f64::from(params.top_p) * total)
            {
                return token as TokenId;
            }
        }
        let kept = self.narrow(params, total);
        self.draw_kept(&kept, uniform())
    }

    /// The first token at which the sum of weights passes `aim`, or the last that has any.
    fn pick(&self, mut aim: f64) -> usize {
        let last = self.sums.iter().rposition(|sum| *sum > 0.0).unwrap_or(0);
        let mut chunk = 0;
        while chunk < last && aim >= self.sums[chunk] {
            aim -= self.sums[chunk];
            chunk += 1;
        }
        let weights = &self.weights[64 * chunk..];
        let mut picked = 0;
        for (i, &weight) in weights.iter().take(64).enumerate().filter(|(_, weight)| **weight > 0.0) {
            picked = i;
            aim -= f64::from(weight);
            if aim < 0.0 {
                break;
            }
        }
        64 * chunk + picked
    }

    /// The sum of the weights above `weight`, and of those equal to it before `token`.
    fn mass_before(&self, token: usize, weight: f32) -> f64 {
        let mut mass = 0.0;
        let mut n_equal = 0;
        for chunk in self.weights.chunks(64) {
            let mut sums = [0f32; 8];
            let mut equal = [0u32; 8];
            for eight in chunk.chunks(8) {
                for ((sum, equal), &other) in sums.iter_mut().zip(&mut equal).zip(eight) {
                    *sum += if other > weight { other } else { 0.0 };
                    *equal += u32::from(other == weight);
                }
            }
            mass += sums.iter().map(|sum| f64::from(*sum)).sum::<f64>();
            n_equal += equal.iter().sum::<u32>();
        }
        if n_equal > 1 {
            let before = self.weights[..token].iter().filter(|other| **other == weight).count();
            mass += before as f64 * f64::from(weight);
        }
        mass
    }

    /// Finds the tokens that top-p and min-p leave.
    fn narrow(&mut self, params: &SamplingParams, total: f64) -> Kept {
        let mut kept = Kept { weight: 0.0, last: 0, mass: total };
        if params.top_p < 1.0 {
            kept = self.nucleus(f64::from(params.top_p), total);
        }
        if params.min_p > kept.weight {
            // The most probable token weighs 1.
            kept = Kept { weight: params.min_p, last: TokenId::MAX, mass: 0.0 };
            let weights = self.weights.iter().enumerate();
            kept.mass = weights.filter(|(i, w)| kept.contains(*i, **w)).map(|(_, w)| f64::from(*w)).sum();
        }
        kept
    }

    /// Fills in the weights; their sum.
    fn weigh(&mut self, logits: &[f32], allowed: &TokenSet, largest: f32, temperature: f32) -> f64 {
        self.weights.clear();
        self.weights.resize(logits.len(), 0.0);
        for ((logits, weights), &word) in
            logits.chunks(64).zip(self.weights.chunks_mut(64)).zip(&allowed.words)
        {
            if word == 0 {
                continue;
            }
            for (weight, logit) in weights.iter_mut().zip(logits) {
                *weight = exp_of_negative((logit - largest) / temperature);
            }
            if word != u64::MAX {
                for (i, weight) in weights.iter_mut().enumerate() {
                    if word >> i & 1 == 0 {
                        *weight = 0.0;
                    }
                }
            }
        }
        self.sum_up()
    }

    /// Sums the weights, by 64 and altogether.
    fn sum_up(&mut self) -> f64 {
        self.sums.clear();
        self.sums.extend(self.weights.chunks(64).map(|weights| {
            let mut sums = [0f32; 8];
            for eight in weights.chunks(8) {
                for (sum, weight) in sums.iter_mut().zip(eight) {
                    *sum += weight;
                }
            }
            sums.iter().map(|sum| f64::from(*sum)).sum::<f64>()
        }));
        self.sums.iter().sum()
    }

    /// Keeps the `k` heaviest tokens, with all that tie with the last of them; the sum of their weights.
    fn keep_top_k(&mut self, k: usize) -> f64 {
        self.border.clear();
        self.border.extend(self.weights.iter().filter(|weight| **weight > 0.0).map(|weight| (*weight, 0)));
        if k < self.border.len() {
            let (_, &mut (smallest, _), _) =
                self.border.select_nth_unstable_by(k - 1, |a, b| b.0.total_cmp(&a.0));
            for weight in &mut self.weights {
                if *weight < smallest {
                    *weight = 0.0;
                }
            }
        }
        self.sum_up()
    }

    /// The nucleus: a token stays when those before it (by weight, then by number) have less than `top_p` together.
    ///
    /// Instead of sorting the vocabulary, masses are summed by the weights' first bits from the heaviest down; only the
    /// tokens of the place where the sum passes `top_p` are sorted.
    fn nucleus(&mut self, top_p: f64, total: f64) -> Kept {
        // A token lighter than an even share of the mass outside the nucleus is outside: all tokens that are no heavier
        // cannot fill that mass.
        let share = ((1.0 - top_p) * total / self.weights.len() as f64 * 0.999) as f32;
        self.masses.clear();
        self.masses.resize(PLACES, 0.0);
        for &weight in &self.weights {
            if weight >= share && weight > 0.0 {
                self.masses[place(weight)] += f64::from(weight);
            }
        }
        let aim = top_p * total;
        let (mut mass, mut at) = (0.0, PLACES - 1);
        while at > 0 && mass + self.masses[at] < aim {
            mass += self.masses[at];
            at -= 1;
        }
        self.border.clear();
        let weights = self.weights.iter().enumerate().filter(|(_, weight)| place(**weight) == at);
        self.border.extend(weights.map(|(token, weight)| (*weight, token as TokenId)));
        self.border.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let mut kept = Kept { weight: f32::from_bits((at as u32 + 1) << 18), last: 0, mass };
        for &(weight, token) in &self.border {
            if kept.mass >= aim && kept.mass > 0.0 {
                break;
            }
            kept = Kept { weight, last: token, mass: kept.mass + f64::from(weight) };
        }
        kept
    }

    /// The kept token at `uniform` (from 0 to 1) of their mass, in the order of their numbers.
    fn draw_kept(&self, kept: &Kept, uniform: f64) -> TokenId {
        let mut left = uniform * kept.mass;
        let mut drawn = 0;
        for (token, &weight) in self.weights.iter().enumerate() {
            if kept.contains(token, weight) {
                drawn = token;
                left -= f64::from(weight);
                if left < 0.0 {
                    break;
                }
            }
        }
        drawn as TokenId
    }
}

/// `exp(x)` for `x` of at most 0, to 2 units in the last place; 0 below -87. Written without branches and calls, so that
/// the compiler makes vector code of a loop over it (range reduction and polynomial of Cephes' `expf`).
fn exp_of_negative(x: f32) -> f32 {
    /// Adding it leaves a number's integer part in the lowest bits.
    const SHIFT: f32 = 12_582_912.0;
    let shifted = x.max(-87.0) * std::f32::consts::LOG2_E + SHIFT;
    let n = shifted - SHIFT;
    // ln 2 in two parts.
    let r = x.max(-87.0) - n * 0.693_359_4 - n * -2.121_944_4e-4;
    let mut y = 1.987_569_1e-4;
    for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5e-1] {
        y = y * r + c;
    }
    y = y * r * r + r + 1.0;
    let scale = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000));
    if x < -87.0 { 0.0 } else { y * scale }
}

/// The largest logit of the allowed tokens.
fn largest(logits: &[f32], allowed: &TokenSet) -> Result<f32> {
    let backend = |message| Err(Error::new(ErrorKind::Backend, message));
    if logits.len() != allowed.vocab {
        return backend(format!("{} logits for a vocabulary of {} tokens", logits.len(), allowed.vocab));
    }
    let mut lanes = [f32::NEG_INFINITY; 8];
    for (i, (chunk, &word)) in logits.chunks(64).zip(&allowed.words).enumerate() {
        if word == u64::MAX {
            let mut sound = [true; 8];
            for eight in chunk.chunks_exact(8) {
                for ((lane, sound), &logit) in lanes.iter_mut().zip(&mut sound).zip(eight) {
                    *lane = if logit > *lane { logit } else { *lane };
                    *sound &= logit < f32::INFINITY;
                }
            }
            if sound == [true; 8] {
                continue;
            }
        }
        for (j, &logit) in chunk.iter().enumerate().filter(|(j, _)| word >> j & 1 == 1) {
            if logit.is_nan() || logit == f32::INFINITY {
                let token = 64 * i + j;
                return backend(format!(
                    "the logit of token {token} is {logit}: broken weights or numeric overflow"
                ));
            }
            lanes[0] = lanes[0].max(logit);
        }
    }
    let largest = lanes.into_iter().fold(f32::NEG_INFINITY, f32::max);
    if largest == f32::NEG_INFINITY {
        return backend("no token may be sampled: every logit is masked or minus infinity".to_owned());
    }
    Ok(largest)
}

/// The first allowed token with this logit.
fn first_with(logits: &[f32], allowed: &TokenSet, wanted: f32) -> TokenId {
    let found = logits.iter().enumerate().position(|(i, &l)| l == wanted && allowed.contains(i as TokenId));
    found.unwrap_or_default() as TokenId
}

#[cfg(test)]
mod tests {
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
        let masked: Vec<f32> = (0..1000)
            .map(|i| if allowed.contains(i) { logits[i as usize] } else { f32::NEG_INFINITY })
            .collect();
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
}
