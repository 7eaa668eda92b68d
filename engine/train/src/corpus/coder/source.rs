//! The documents of a part, drawn one by one: each kind from what it is made of.

use inhouse_core::Result;
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use super::blocks::CodeBlock;
use super::code::Coder;
use super::config::PartConfig;
use super::document::{Document, weight};
use super::examples::Example;
use super::tasks::{Maker, Size};
use super::tokenizer::Encoder;
use crate::pairs::Benchmarks;

/// Bytes of code that one token stands for, at most: longer blocks are not looked at.
pub(super) const BYTES_PER_TOKEN: usize = 4;
/// What documents there are, in the order of [`PartConfig::shares`].
pub(super) const KINDS: [&str; 8] =
    ["repeats", "one", "choice", "script", "code", "plain", "example", "unused"];

/// One document that was made.
pub(super) struct Made {
    pub tokens: Vec<u16>,
    pub weights: Vec<u8>,
    pub code: Option<(usize, usize, bool)>,
}

pub(super) enum Outcome {
    Made(Made),
    Overlapping(String, String),
    /// Longer than a row for sure.
    TooLong,
    None,
}

/// What the documents of a part are made from.
pub(super) struct Source<'a> {
    pub encoder: &'a Encoder,
    pub maker: &'a Maker<'a>,
    pub coder: &'a Coder<'a>,
    pub blocks: &'a [CodeBlock],
    pub examples: &'a [Example],
    /// Chances of the blocks, and of those that call APIs.
    pub chances: Chances,
    pub chances_with_calls: Chances,
    pub coder_merges: bool,
    pub benchmarks: Option<&'a Benchmarks>,
}

impl Source<'_> {
    /// One document of a kind.
    ///
    /// # Errors
    /// The tokenizer fails.
    pub fn document(&self, kind: &str, part: &PartConfig, rng: &mut ChaCha8Rng) -> Result<Outcome> {
        let small = part.row_tokens <= 192;
        let size = if rng.random_bool(if small { 0.96 } else { 0.15 }) { Size::Small } else { Size::Full };
        let mut code = None;
        let document: Option<Document> = match kind {
            "repeats" => {
                let (tokens, weights) = self.repeats(part.row_tokens, rng);
                return Ok(Outcome::Made(Made { tokens, weights, code }));
            }
            "one" => self.maker.task(1, size, rng).map(|task| task.document),
            "choice" => {
                let n_apis = several(small, rng);
                self.maker.task(n_apis, size, rng).map(|task| task.document)
            }
            "script" => {
                let n_apis = several(small, rng);
                self.maker.script(n_apis, size, rng)
            }
            "code" if self.coder_merges => return self.merged(part, rng),
            "code" => self.chances_with_calls.draw(rng).and_then(|i| {
                let sheet = self.coder.sheet(&self.blocks[i], rng)?;
                code = Some((sheet.n_apis, sheet.n_noise, sheet.is_twin));
                Some(sheet.document(true))
            }),
            "example" => self.examples.choose(rng).and_then(|example| {
                let sheet = self.coder.example(example, rng)?;
                code = Some((sheet.n_apis, sheet.n_noise, sheet.is_twin));
                Some(sheet.document(true))
            }),
            "unused" => self.chances.draw(rng).and_then(|i| {
                let block = Some(&self.blocks[i]).filter(|block| block.calls.is_empty())?;
                let sheet = self.coder.unused(block, rng)?;
                code = Some((0, sheet.n_noise, sheet.is_twin));
                Some(sheet.document(true))
            }),
            _ => self.chances.draw(rng).map(|i| plain(&self.blocks[i])),
        };
        let Some(document) = document else { return Ok(Outcome::None) };
        if document.text().len() > part.row_tokens * BYTES_PER_TOKEN {
            return Ok(Outcome::TooLong);
        }
        if let Some(problem) = self.benchmarks.and_then(|benchmarks| benchmarks.overlap(document.text())) {
            return Ok(Outcome::Overlapping(document.text().to_owned(), problem.to_owned()));
        }
        let (tokens, weights) = document.encode(self.encoder)?;
        Ok(Outcome::Made(Made { tokens, weights, code }))
    }

    /// As many blocks of one file as a row holds, each below its API lines (A1, d1, A2, d2, ...).
    fn merged(&self, part: &PartConfig, rng: &mut ChaCha8Rng) -> Result<Outcome> {
        let Some(first) = self.chances_with_calls.draw(rng) else { return Ok(Outcome::None) };
        let path = &self.blocks[first].path;
        let (mut tokens, mut weights): (Vec<u16>, Vec<u8>) = (Vec::new(), Vec::new());
        let mut counts = (0, 0, true);
        for block in self.blocks[first..].iter().take_while(|block| block.path == *path) {
            let sheet = self.coder.sheet(block, rng);
            let document = match &sheet {
                Some(sheet) => sheet.document(true),
                None => plain(block),
            };
            if let Some(problem) = self.benchmarks.and_then(|benchmarks| benchmarks.overlap(document.text()))
            {
                return Ok(Outcome::Overlapping(document.text().to_owned(), problem.to_owned()));
            }
            let (more, their) = document.encode(self.encoder)?;
            // The end token of a block gives way to the next one.
            let kept = tokens.len().saturating_sub(1);
            if kept + more.len() > part.row_tokens {
                break;
            }
            tokens.truncate(kept);
            weights.truncate(kept);
            tokens.extend(more);
            weights.extend(their);
            if let Some(sheet) = &sheet {
                counts = (counts.0 + sheet.n_apis, counts.1 + sheet.n_noise, counts.2 && sheet.is_twin);
            }
        }
        Ok(if tokens.is_empty() {
            Outcome::None
        } else {
            Outcome::Made(Made { tokens, weights, code: Some(counts) })
        })
    }

    /// Random tokens said over and over: all that can be learned from it is to copy.
    fn repeats(&self, row_tokens: usize, rng: &mut ChaCha8Rng) -> (Vec<u16>, Vec<u8>) {
        let size = self.encoder.vocab_size().min(usize::from(u16::MAX)) as u16;
        let run: Vec<u16> = (0..rng.random_range(3..=16))
            .map(|_| {
                loop {
                    let token = rng.random_range(0..size);
                    if token != self.encoder.end {
                        break token;
                    }
                }
            })
            .collect();
        let length = rng.random_range(24..=64).min(row_tokens - 1);
        let times = (length / run.len()).max(2);
        let mut tokens = run.repeat(times);
        let mut weights = vec![weight::NONE; run.len()];
        weights.resize(tokens.len(), weight::CALL);
        tokens.push(self.encoder.end);
        weights.push(weight::FREE);
        (tokens, weights)
    }
}

/// A block alone.
fn plain(block: &CodeBlock) -> Document {
    let mut document = Document::default();
    document.push(&block.text, weight::PLAIN);
    document
}

/// Sums of weights, to draw by.
pub(super) struct Chances {
    sums: Vec<f64>,
    what: Vec<usize>,
}

impl Chances {
    pub fn new(weights: impl Iterator<Item = (usize, f64)>) -> Self {
        let (mut sums, mut what, mut sum) = (Vec::new(), Vec::new(), 0.0);
        for (i, weight) in weights.filter(|(_, weight)| *weight > 0.0) {
            sum += weight;
            sums.push(sum);
            what.push(i);
        }
        Self { sums, what }
    }

    fn draw(&self, rng: &mut impl Rng) -> Option<usize> {
        let at = rng.random_range(0.0..*self.sums.last()?);
        self.what.get(self.sums.partition_point(|sum| *sum <= at)).copied()
    }
}

fn several(small: bool, rng: &mut impl Rng) -> usize {
    match rng.random_range(0..100) {
        _ if small => {
            if rng.random_bool(0.75) {
                2
            } else {
                3
            }
        }
        0..35 => 2,
        35..65 => 3,
        65..85 => 4,
        _ => 5,
    }
}
