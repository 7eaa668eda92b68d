//! Sampling one token from logits.

use std::cell::RefCell;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use super::{TokenId, TokenSet};
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
        if params.top_k > 0 && params.top_k < allowed.vocab_size() {
            self.keep_top_k(params.top_k)
        } else {
            total
        }
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
            logits.chunks(64).zip(self.weights.chunks_mut(64)).zip(allowed.words())
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
    if logits.len() != allowed.vocab_size() {
        return backend(format!(
            "{} logits for a vocabulary of {} tokens",
            logits.len(),
            allowed.vocab_size()
        ));
    }
    let mut lanes = [f32::NEG_INFINITY; 8];
    for (i, (chunk, &word)) in logits.chunks(64).zip(allowed.words()).enumerate() {
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
mod tests;
