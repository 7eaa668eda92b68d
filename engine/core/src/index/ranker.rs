//! The order of what a search found, where the index knows how code uses the APIs.
//!
//! A linear score over few signals, each of which can be told to a person ([`Signal`]): what words and vectors say, and what usage
//! does. `models/inhouse-ranker` has the weights, and says where they come from. Only the best by words and vectors are ranked; they hold
//! nearly everything.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use super::fusion::{Confidence, DENSE_SHARE, Parts};
use super::ranking::Scored;
use super::segment::Segment;
use super::usage::Usage;
use crate::{Error, ErrorKind, Result};

/// How many names are ranked.
pub(super) const POOL: usize = 150;
/// The file of weights.
const WEIGHTS: &str = include_str!("../../../../models/inhouse-ranker/ranker.json");

/// What is known of a hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Signal {
    /// BM25 of the documentation, in standard deviations over all names.
    Words,
    /// Likeness of the query's vector and the record's, in standard deviations over all names.
    Meaning,
    /// ln(1 + files of code that use the name / 5): a few files are little evidence.
    Files,
    /// BM25 of the words around the uses, over the root of the query's length.
    Around,
    /// 1 where the query says the name as one word.
    Named,
}

/// All signals.
pub(super) const SIGNALS: [Signal; 5] =
    [Signal::Words, Signal::Meaning, Signal::Files, Signal::Around, Signal::Named];
/// So many files that use a name are some evidence.
const FILES: f32 = 5.0;

/// A signal, and what it adds to a hit's score.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Share {
    /// The signal.
    pub signal: Signal,
    /// Its value.
    pub value: f32,
    /// What it adds to the score: the value times its weight.
    pub share: f32,
}

/// Weights.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ranker {
    version: u32,
    weights: BTreeMap<Signal, f32>,
    confidence: Logistic,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Logistic {
    slope: f32,
    offset: f32,
}

/// The weights; they are a part of the program, so that they cannot be missing.
fn weights() -> Result<&'static Ranker> {
    static RANKER: OnceLock<Option<Ranker>> = OnceLock::new();
    let read = || serde_json::from_str(WEIGHTS).ok().filter(|ranker: &Ranker| ranker.version == 1);
    let ranker = RANKER.get_or_init(read).as_ref();
    ranker.ok_or_else(|| {
        Error::new(ErrorKind::Internal, "the ranker that is a part of this program does not parse")
    })
}

/// What a hit's score says of it.
pub(super) fn confidence() -> Result<Confidence> {
    let logistic = &weights()?.confidence;
    Ok(Confidence::fitted(logistic.slope, logistic.offset))
}

/// What is asked, and what the usage says to it.
pub(super) struct Asked<'i> {
    usage: &'i Usage,
    text: String,
    around: rustc_hash::FxHashMap<u32, f32>,
}

impl<'i> Asked<'i> {
    pub fn new(usage: &'i Usage, text: &str, terms: &BTreeMap<String, f32>) -> Result<Self> {
        Ok(Self { usage, text: text.to_owned(), around: usage.scores(terms)? })
    }

    /// The shares of a record's signals in its score.
    pub fn shares(&self, segments: &[Segment], scored: &Scored, parts: &Parts) -> Result<Vec<Share>> {
        let weights = &weights()?.weights;
        let segment = &segments[scored.place.segment];
        let number = segment.name_of[scored.place.doc] as usize;
        let name = segment.records.name(number)?;
        let found = self.usage.find(name)?;
        let figures = found.map(|i| self.usage.figures(i)).transpose()?.unwrap_or_default();
        let around = found.and_then(|i| self.around.get(&(i as u32))).copied().unwrap_or_default();
        let value = |signal| match signal {
            Signal::Words => parts.words,
            Signal::Meaning => parts.vectors,
            Signal::Files => (figures.files as f32 / FILES).ln_1p(),
            Signal::Around => around,
            Signal::Named => f32::from(says(&self.text, name)),
        };
        let share = |signal: Signal| {
            let value = value(signal);
            Share { signal, value, share: value * weights.get(&signal).copied().unwrap_or_default() }
        };
        Ok(SIGNALS.into_iter().map(share).collect())
    }
}

/// The shares of a score by words, and by vectors where there are any.
pub(super) fn of_parts(parts: &Parts, with_vectors: bool) -> Vec<Share> {
    let share = |signal, value: f32, weight: f32| Share { signal, value, share: value * weight };
    match with_vectors {
        true => vec![
            share(Signal::Words, parts.words, 1.0 - DENSE_SHARE),
            share(Signal::Meaning, parts.vectors, DENSE_SHARE),
        ],
        false => vec![share(Signal::Words, parts.words, 1.0)],
    }
}

/// The score of the shares.
pub(super) fn score(shares: &[Share]) -> f32 {
    shares.iter().map(|share| share.share).sum()
}

/// Whether a text says a name as a word of its own.
fn says(text: &str, name: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    !name.is_empty()
        && text
            .match_indices(name)
            .any(|(at, _)| !text[..at].ends_with(is_part) && !text[at + name.len()..].starts_with(is_part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_has_a_weight_for_every_signal_and_no_other() {
        let ranker = weights().unwrap();
        assert_eq!(ranker.weights.keys().copied().collect::<Vec<_>>(), SIGNALS);
        assert!(ranker.weights.values().all(|weight| weight.is_finite()) && ranker.confidence.slope > 0.0);
    }

    #[test]
    fn a_name_is_said_as_a_word() {
        assert!(says("use `pivot` here", "pivot") && says("pivot", "pivot"));
        assert!(
            !says("pivot_table", "pivot")
                && !says("unpivot", "pivot")
                && !says("", "pivot")
                && !says("a", "")
        );
    }
}
