//! Words and vectors in one score, and what a score says of a hit being right.
//!
//! Each half's scores are standardised (over all names their mean becomes 0 and their standard deviation 1), so that a half whose
//! best names stand out says more than one that finds all alike; then they are weighted and added. With an untrained encoder,
//! and nothing learned, this found more than the sum of reciprocal ranks (Cormack et al., SIGIR 2009), which forgets by how
//! much a name is first: recall@5 .66 against .64 over four pools.

use super::dense::QueryCode;
use super::ranking::Corpus;
use super::segment::Segment;
use crate::decode::CancelToken;
use crate::encode::{Role, TextEncoder};
use crate::{Error, ErrorKind, Result};

/// The share of the vectors: with the project's retriever, recall@5 over five libraries that it was not trained on was .420 at .5, .442
/// at .7, .452 at .75 and .8, .440 at .9 (benches/runs/2026-11-26-retriever.md).
pub(super) const DENSE_SHARE: f32 = 0.75;
/// The score of a record that answers nothing.
pub(super) const NOT_FOUND: f32 = f32::NEG_INFINITY;

/// From a score to the probability that its API is one that the task needs: a logistic curve over the standardised score,
/// fitted to the first five hits of the queries of several pools (words alone: 1,385 hits; words and vectors of the project's
/// retriever, twins once: 925; within tenths of probability it was off by at most .05 up to one half, and by up to .2 among
/// the 45 hits above).
#[derive(Debug)]
pub(super) struct Confidence {
    /// Of the scores, where they are not standardised.
    moments: Option<Moments>,
    slope: f32,
    offset: f32,
}

impl Confidence {
    /// Of scores by words alone, whose `moments` over all names are these.
    pub fn of_words(moments: Moments) -> Self {
        Self { moments: Some(moments), slope: 0.72, offset: -4.01 }
    }

    /// Of scores that need not be standardised.
    pub fn fitted(slope: f32, offset: f32) -> Self {
        Self { moments: None, slope, offset }
    }

    /// From 0 to 1.
    pub fn of(&self, score: f32) -> f32 {
        let standard = self.moments.as_ref().map_or(score, |moments| moments.standard(score));
        1.0 / (1.0 + (-(self.slope * standard + self.offset)).exp())
    }
}

/// The moments over all names of the BM25 `scores` of all records, by segment and doc.
pub(super) fn moments_of_words(corpus: &Corpus, segments: &[Segment], scores: &[Vec<f32>]) -> Moments {
    Moments::of(corpus.by_name(segments, |segment, doc| Some(scores[segment][doc].max(0.0))))
}

/// How the scores of a search came about.
#[derive(Debug)]
pub(super) enum Scale {
    /// By words alone, with these moments over all names.
    Words(Moments),
    /// By words and vectors.
    Both(Fusion),
}

/// The parts of a score, each in standard deviations over all names.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Parts {
    pub words: f32,
    /// 0 without vectors.
    pub vectors: f32,
}

impl Scale {
    /// What scores say of a hit.
    pub fn confidence(self) -> Confidence {
        match self {
            Self::Words(moments) => Confidence::of_words(moments),
            Self::Both(fusion) => fusion.confidence(),
        }
    }

    /// The parts of the `score` of a record; `by_vector` where it has a vector.
    pub fn parts(&self, score: f32, by_vector: Option<f32>) -> Parts {
        match (self, by_vector) {
            (Self::Words(moments), _) => Parts { words: moments.standard(score.max(0.0)), vectors: 0.0 },
            (Self::Both(fusion), by_vector) => {
                let vectors = by_vector.map_or(0.0, |value| fusion.vectors.standard(value));
                Parts { words: (score - DENSE_SHARE * vectors) / (1.0 - DENSE_SHARE), vectors }
            }
        }
    }
}

/// The vector of a query.
pub(super) fn vector_of(encoder: &dyn TextEncoder, query: &str) -> Result<Vec<f32>> {
    let vectors = encoder.encode(Role::Query, &[query], &CancelToken::new())?;
    let vector = vectors.rows().next().map(<[f32]>::to_vec);
    vector.ok_or_else(|| Error::new(ErrorKind::Backend, "the encoder gave no vector for the query"))
}

/// Adds to the BM25 `scores` of all records, by segment and doc, what the vectors say to `query`; `fusion` where it is known.
pub(super) fn add_dense(
    scores: &mut [Vec<f32>],
    corpus: &Corpus,
    segments: &[Segment],
    query: &QueryCode,
    fusion: Option<Fusion>,
) -> Result<Fusion> {
    let mut dense = Vec::with_capacity(segments.len());
    for segment in segments {
        dense.push(match &segment.dense {
            Some(dense) => dense.scores(query)?,
            None => vec![f32::NAN; segment.docs()],
        });
    }
    let vectors = |segment: usize, doc: usize| Some(dense[segment][doc]).filter(|score| !score.is_nan());
    let words = |segment: usize, doc: usize| {
        vectors(segment, doc)?;
        Some(scores[segment][doc].max(0.0))
    };
    let fusion = fusion.unwrap_or_else(|| Fusion {
        vectors: Moments::of(corpus.by_name(segments, vectors)),
        words: Moments::of(corpus.by_name(segments, words)),
    });
    for ((scores, dense), segment) in scores.iter_mut().zip(&dense).zip(segments) {
        for (doc, (score, &dense)) in scores.iter_mut().zip(dense).enumerate() {
            *score = if dense.is_nan() || segment.deleted.contains(doc) {
                NOT_FOUND
            } else {
                fusion.score(dense, *score)
            };
        }
    }
    Ok(fusion)
}

/// How scores of both halves become one.
#[derive(Debug)]
pub(super) struct Fusion {
    pub vectors: Moments,
    pub words: Moments,
}

impl Fusion {
    /// The score of a record.
    pub fn score(&self, by_vector: f32, by_words: f32) -> f32 {
        let words = self.words.standard(by_words.max(0.0));
        DENSE_SHARE * self.vectors.standard(by_vector) + (1.0 - DENSE_SHARE) * words
    }

    /// The score by words above which a record scores more than `score`, where it has at most `by_vector` by its vector.
    pub fn words_above(&self, by_vector: f32, score: f32) -> f32 {
        let standard = (score - DENSE_SHARE * self.vectors.standard(by_vector)) / (1.0 - DENSE_SHARE);
        // Nothing is lost by bounds that are a little low, and the way back is rounded too.
        let slack = 1e-3;
        match self.words.value(standard - slack) {
            Some(value) => value,
            None if standard <= slack => f32::NEG_INFINITY,
            None => f32::INFINITY,
        }
    }

    /// What fused scores say of a hit.
    pub fn confidence(&self) -> Confidence {
        Confidence::fitted(0.99, -4.22)
    }
}

/// Mean and standard deviation.
#[derive(Debug, Clone)]
pub(super) struct Moments {
    mean: f64,
    deviation: f64,
}

impl Moments {
    pub fn new(mean: f64, variance: f64) -> Self {
        Self { mean, deviation: f64::max(variance, 0.0).sqrt() }
    }

    pub fn of(values: impl Iterator<Item = f32>) -> Self {
        let (mut n, mut sum, mut squares) = (0.0, 0.0, 0.0);
        for value in values.map(f64::from) {
            n += 1.0;
            sum += value;
            squares += value * value;
        }
        let n: f64 = f64::max(n, 1.0);
        let mean = sum / n;
        Self::new(mean, squares / n - mean * mean)
    }

    /// How many standard deviations `value` is above the mean; 0 where all values are alike.
    pub fn standard(&self, value: f32) -> f32 {
        if self.varies() { ((f64::from(value) - self.mean) / self.deviation) as f32 } else { 0.0 }
    }

    /// The value that is so many standard deviations above the mean; `None` where all values are alike.
    fn value(&self, standard: f32) -> Option<f32> {
        self.varies().then(|| (self.mean + f64::from(standard) * self.deviation) as f32)
    }

    fn varies(&self) -> bool {
        self.deviation > 1e-9
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_standardised() {
        let moments = Moments::of([1.0, 2.0, 3.0, 6.0].into_iter());
        assert_eq!(moments.mean, 3.0);
        assert_eq!(moments.value(moments.standard(5.0)), Some(5.0));
        assert!((moments.standard(6.0) - 3.0 / 3.5f32.sqrt()).abs() < 1e-6);
        assert_eq!(Moments::of([5.0; 3].into_iter()).standard(5.0), 0.0);
        assert_eq!(Moments::of(std::iter::empty()).standard(1.0), 0.0);
    }

    #[test]
    fn confidence_grows_with_the_score() {
        let confidence = Confidence { moments: None, slope: 1.0, offset: -4.0 };
        assert!(confidence.of(NOT_FOUND) == 0.0 && confidence.of(1e9) == 1.0);
        assert!((confidence.of(4.0) - 0.5).abs() < 1e-6 && confidence.of(1.0) < confidence.of(2.0));
    }

    #[test]
    fn what_words_must_add_is_the_way_back_from_a_score() {
        let moments = |mean, variance| Moments::new(mean, variance);
        let fusion = Fusion { vectors: moments(0.1, 0.01), words: moments(2.0, 9.0) };
        for (by_vector, score) in [(0.5, 4.0), (0.1, 0.5), (-0.2, 3.0)] {
            let words = fusion.words_above(by_vector, score);
            assert!(fusion.score(by_vector, words) <= score && fusion.score(by_vector, words + 0.05) > score);
        }
        let alike = Fusion { vectors: moments(0.1, 0.01), words: moments(0.0, 0.0) };
        assert_eq!(alike.words_above(0.5, 4.0), f32::INFINITY);
        assert_eq!(alike.words_above(0.5, 2.0), f32::NEG_INFINITY);
    }
}
