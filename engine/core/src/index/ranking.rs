//! BM25 over the segments of an index (Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and
//! Beyond", 2009), with field weights as in BM25F: the frequency of a term in a record is its weighted sum over fields.
//!
//! What is retrieved are API *names*: the records of one name (the same method of several classes) compete as one. So
//! document frequency counts names too; a word that is only in the twenty records of `mean` is as telling as a word that
//! is in one record. A name scores as its best record.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use super::analysis::{Analyzer, StopWords};
use super::fields::UNITS_PER_OCCURRENCE;
use super::fusion::NOT_FOUND;
use super::segment::Segment;
use crate::Result;

/// Saturation of repeated terms, the textbook's value.
const K1: f32 = 1.2;
/// Normalisation by length, the textbook's value.
const B: f32 = 0.75;

/// The terms of a query and their weights: a term said twice counts more, but not twice (1 + ln n).
pub(super) fn query_terms(text: &str) -> BTreeMap<String, f32> {
    let mut counts = BTreeMap::<String, u32>::new();
    let mut analyzer = Analyzer::new();
    for stop_words in [StopWords::Drop, StopWords::Keep] {
        analyzer.terms(text, stop_words, |term| *counts.entry(term.to_owned()).or_default() += 1);
        // a query of stop words alone is searched as it stands
        if !counts.is_empty() {
            break;
        }
    }
    counts.into_iter().map(|(term, n)| (term, 1.0 + (n as f32).ln())).collect()
}

/// Which records share a name, over all segments.
#[derive(Debug, Default)]
pub(super) struct NameMap {
    /// Per segment: the index-wide number of each of its names.
    numbers: Vec<Vec<u32>>,
    /// Index-wide numbers handed out.
    total: usize,
    /// Names with at least one record that is not deleted.
    pub live: usize,
}

impl NameMap {
    /// Numbers the names of `segments`.
    pub fn new(segments: &[Segment]) -> Result<Self> {
        let mut map = Self::default();
        let mut live = Vec::new();
        for (s, segment) in segments.iter().enumerate() {
            let mut numbers = Vec::with_capacity(segment.records.n_names());
            for i in 0..segment.records.n_names() {
                let mut number = None;
                for (earlier, known) in segments.iter().zip(&map.numbers) {
                    if let Some(there) = earlier.records.find_name(segment.records.name(i)?)? {
                        number = Some(known[there]);
                        break;
                    }
                }
                numbers.push(number.unwrap_or(map.total as u32));
                map.total += usize::from(number.is_none());
            }
            live.resize(map.total, false);
            map.numbers.push(numbers);
            for doc in segment.live() {
                live[map.number(segments, s, doc)] = true;
            }
        }
        map.live = live.iter().filter(|live| **live).count();
        Ok(map)
    }

    fn number(&self, segments: &[Segment], segment: usize, doc: usize) -> usize {
        self.numbers[segment][segments[segment].name_of[doc] as usize] as usize
    }
}

/// A record by segment and doc.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Place {
    /// Index of the segment.
    pub segment: usize,
    /// Doc in the segment.
    pub doc: usize,
}

/// A name's best record and its score.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scored {
    /// The record.
    pub place: Place,
    /// Its score.
    pub score: f32,
}

/// Corpus figures that BM25 needs.
#[derive(Debug)]
pub(super) struct Corpus {
    names: NameMap,
    average_length: f64,
}

impl Corpus {
    /// Gathers the figures of `segments`.
    pub fn new(segments: &[Segment]) -> Result<Self> {
        let (mut docs, mut length) = (0u64, 0u64);
        for segment in segments {
            for doc in segment.live() {
                docs += 1;
                length += u64::from(segment.lengths[doc]);
            }
        }
        let average_length = (length as f64 / docs.max(1) as f64).max(1.0);
        Ok(Self { names: NameMap::new(segments)?, average_length })
    }

    /// Mean length of records, in units.
    pub fn average_length(&self) -> f32 {
        self.average_length as f32
    }

    /// The index-wide number of the name of `doc`.
    pub fn name(&self, segments: &[Segment], segment: usize, doc: usize) -> usize {
        self.names.number(segments, segment, doc)
    }

    /// Distinct names of records that are not deleted.
    pub fn n_names(&self) -> usize {
        self.names.live
    }

    /// The BM25 score of every record for `terms`, by segment and doc; [`NOT_FOUND`] for those that share no term with them.
    pub fn sparse_scores(
        &self,
        segments: &[Segment],
        terms: &BTreeMap<String, f32>,
    ) -> Result<Vec<Vec<f32>>> {
        let mut scores: Vec<Vec<f32>> = segments.iter().map(|segment| vec![0.0; segment.docs()]).collect();
        let mut last_term_of_name = vec![0u32; self.names.total];
        let mut postings: Vec<(Place, u32)> = Vec::new();
        for (term_number, (term, weight)) in (1u32..).zip(terms) {
            postings.clear();
            let mut name_frequency = 0usize;
            for (s, segment) in segments.iter().enumerate() {
                segment.postings.each(term, |doc, frequency| {
                    if segment.deleted.contains(doc) {
                        return;
                    }
                    let seen = &mut last_term_of_name[self.names.number(segments, s, doc)];
                    name_frequency += usize::from(*seen != term_number);
                    *seen = term_number;
                    postings.push((Place { segment: s, doc }, frequency));
                })?;
            }
            let idf = inverse_frequency(self.names.live, name_frequency);
            for (place, frequency) in &postings {
                let length = segments[place.segment].lengths[place.doc];
                scores[place.segment][place.doc] +=
                    contribution(weight * idf, *frequency, length, self.average_length as f32);
            }
        }
        scores.iter_mut().flatten().filter(|score| **score <= 0.0).for_each(|score| *score = NOT_FOUND);
        Ok(scores)
    }

    /// The `k` names with the best records of `scored`, best first; equal scores in the order of the names.
    pub fn best(
        &self,
        segments: &[Segment],
        scored: impl Iterator<Item = (Place, f32)>,
        k: usize,
    ) -> Result<Vec<Scored>> {
        let best = self.best_records(segments, scored)?;
        top(segments, best, k)
    }

    /// The highest of the `scores` of each name's records that are not deleted; a name without any is left out.
    pub fn by_name(
        &self,
        segments: &[Segment],
        score: impl Fn(usize, usize) -> Option<f32>,
    ) -> impl Iterator<Item = f32> {
        let mut best = vec![NOT_FOUND; self.names.total];
        for (s, segment) in segments.iter().enumerate() {
            for doc in segment.live() {
                if let Some(score) = score(s, doc) {
                    let known = &mut best[self.names.number(segments, s, doc)];
                    *known = known.max(score);
                }
            }
        }
        best.into_iter().filter(|score| *score > NOT_FOUND)
    }

    /// Of each name the record with the highest score, among equals the first in the order of records: which segment a
    /// record lies in must not show.
    fn best_records(
        &self,
        segments: &[Segment],
        scored: impl Iterator<Item = (Place, f32)>,
    ) -> Result<Vec<Scored>> {
        let mut slot_of_name: FxHashMap<usize, usize> = FxHashMap::default();
        let mut best: Vec<Scored> = Vec::new();
        for (place, score) in scored {
            let name = self.names.number(segments, place.segment, place.doc);
            let slot = *slot_of_name.entry(name).or_insert(best.len());
            let Some(known) = best.get_mut(slot) else {
                best.push(Scored { place, score });
                continue;
            };
            let order = |place: Place| segments[place.segment].records.order(place.doc);
            let tie = score == known.score && place != known.place;
            let first = || match place.segment == known.place.segment {
                // within a segment the docs are in order
                true => Ok::<bool, crate::Error>(place.doc < known.place.doc),
                false => Ok(order(place)? < order(known.place)?),
            };
            if score > known.score || (tie && first()?) {
                *known = Scored { place, score };
            }
        }
        Ok(best)
    }
}

/// The records that were found, of the `scores` of all, by segment and doc.
pub(super) fn found(scores: &[Vec<f32>]) -> impl Iterator<Item = (Place, f32)> {
    scores.iter().enumerate().flat_map(|(segment, scores)| {
        let found = scores.iter().enumerate().filter(|(_, score)| **score > NOT_FOUND);
        found.map(move |(doc, score)| (Place { segment, doc }, *score))
    })
}

/// No term adds more than so many times its weight.
pub(super) const MOST_OF_WEIGHT: f32 = K1 + 1.0;

/// What a term of this weight adds to the score of a record of this `length`, in which it has this `frequency` (both in units).
#[inline]
pub(super) fn contribution(weight_idf: f32, frequency: u32, length: u32, average_length: f32) -> f32 {
    // Divisions by what is the same for all records, which compilers take out of loops.
    let norm = K1 * (1.0 - B + length as f32 * (B / average_length));
    let frequency = frequency as f32 * (1.0 / UNITS_PER_OCCURRENCE);
    weight_idf * frequency * MOST_OF_WEIGHT / (frequency + norm)
}

/// ln(1 + (N - n + 1/2) / (n + 1/2)), above 0 for every n.
pub(super) fn inverse_frequency(names: usize, with_term: usize) -> f32 {
    let (all, with) = (names as f64, with_term as f64);
    (1.0 + (all - with + 0.5).max(0.0) / (with + 0.5)).ln() as f32
}

/// The `k` best, ordered.
fn top(segments: &[Segment], mut best: Vec<Scored>, k: usize) -> Result<Vec<Scored>> {
    if best.len() > k {
        best.select_nth_unstable_by(k - 1, |a, b| b.score.total_cmp(&a.score));
        let least = best[k - 1].score;
        // those that tie with the last one must all be ordered by name before the cut
        best.retain(|scored| scored.score >= least);
    }
    let name = |place: Place| {
        let segment = &segments[place.segment];
        segment.records.name(segment.name_of[place.doc] as usize)
    };
    let mut named =
        best.into_iter().map(|scored| Ok((name(scored.place)?, scored))).collect::<Result<Vec<_>>>()?;
    named.sort_unstable_by(|(a_name, a), (b_name, b)| {
        b.score.total_cmp(&a.score).then_with(|| a_name.cmp(b_name))
    });
    Ok(named.into_iter().take(k).map(|(_, scored)| scored).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_terms_weigh_repetition_and_keep_lone_stop_words() {
        let terms = query_terms("sort the sorted rows");
        assert_eq!(terms.keys().collect::<Vec<_>>(), ["row", "sort"]);
        assert!((terms["sort"] - 1.693).abs() < 1e-3 && terms["row"] == 1.0);
        assert!(query_terms("where").contains_key("where"));
        assert!(query_terms("?! ...").is_empty());
    }

    #[test]
    fn rare_words_count_more() {
        assert!(inverse_frequency(100, 1) > inverse_frequency(100, 50));
        assert!(inverse_frequency(100, 100) > 0.0);
        assert!(inverse_frequency(0, 0) >= 0.0);
    }
}
