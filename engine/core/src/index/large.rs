//! Searching an index in which not every record is looked at: the best names by words and the best docs by vectors are found by
//! [`super::pruned`] and [`super::near`], and only these are scored by both, exactly.

use std::collections::BTreeMap;

use rustc_hash::{FxHashMap, FxHashSet};

use super::dense::{QueryCode, ROWS_AHEAD};
use super::fusion::{Fusion, Moments, NOT_FOUND};
use super::lists::List;
use super::near::SHORT_LIST;
use super::pruned::{Group, best_names};
use super::ranking::{Corpus, Place, inverse_frequency};
use super::segment::Segment;
use crate::Result;

/// Most names taken by words where vectors are asked as well. At a million records recall@10 is .961 with 64, .986 with 256, .991
/// with 1000, which takes half as long again.
const NAMES_BY_WORDS: usize = 256;
/// The nearest docs by vectors that are scored by words whatever they could reach. The more there are, the fewer postings can still
/// matter; but a doc in a list that was not visited may be nearer than the last of them, and must be good by words to be found.
const SURE_DOCS: usize = 64;

/// The terms of a query over all segments.
pub(super) struct Words<'s> {
    /// By segment, the lists of the terms that it has, in the order of the terms.
    lists: Vec<Vec<List<'s>>>,
    /// Of the scores of all names.
    pub moments: Moments,
}

impl<'s> Words<'s> {
    /// Looks up the query's `terms`. A name that lies in two segments counts twice in their frequencies until they are merged.
    pub fn open(corpus: &Corpus, segments: &'s [Segment], terms: &BTreeMap<String, f32>) -> Result<Self> {
        let mut lists: Vec<Vec<List>> = segments.iter().map(|_| Vec::new()).collect();
        let (mut mean, mut variance) = (0.0, 0.0);
        let names = corpus.n_names().max(1) as f64;
        for (term, weight) in terms {
            let mut of_term = Vec::new();
            for (s, segment) in segments.iter().enumerate() {
                let list = List::open(
                    term,
                    &segment.postings,
                    segment.impacts.as_ref(),
                    &segment.name_of,
                    &segment.lengths,
                    corpus.average_length(),
                    |doc| segment.deleted.contains(doc),
                )?;
                of_term.extend(list.map(|list| (s, list)));
            }
            let with_term = of_term.iter().map(|(_, list)| list.figures.names).sum::<usize>();
            let weight_idf = weight * inverse_frequency(corpus.n_names(), with_term.min(corpus.n_names()));
            // Terms are taken to be independent of each other.
            let scale = f64::from(weight_idf);
            let of_names =
                |figure: fn(&List) -> f64| of_term.iter().map(|(_, list)| figure(list)).sum::<f64>() / names;
            let (sum, squares) = (of_names(|list| list.figures.sum), of_names(|list| list.figures.squares));
            mean += scale * sum;
            variance += scale * scale * (squares - sum * sum).max(0.0);
            for (s, mut list) in of_term {
                list.weight_idf = weight_idf;
                lists[s].push(list);
            }
        }
        Ok(Self { lists, moments: Moments::new(mean, variance) })
    }

    /// Of each segment the `k` best names that exceed `least` by words, and what no other name exceeds.
    fn best(&mut self, segments: &[Segment], k: usize, least: f32) -> Result<Vec<(Vec<Group>, f32)>> {
        let both = self.lists.iter_mut().zip(segments);
        both.map(|(lists, segment)| {
            let deleted = |doc| segment.deleted.contains(doc);
            best_names(lists, segment.docs(), &segment.name_of, deleted, k, least)
        })
        .collect()
    }

    /// The best docs of the `k` best names by words, and their scores.
    pub fn best_docs(&mut self, segments: &[Segment], k: usize) -> Result<Vec<(Place, f32)>> {
        let of_segments = self.best(segments, k, 0.0)?;
        Ok(places(&of_segments).collect())
    }
}

fn places(of_segments: &[(Vec<Group>, f32)]) -> impl Iterator<Item = (Place, f32)> {
    let groups = of_segments.iter().enumerate().flat_map(|(segment, (groups, _))| {
        groups.iter().flat_map(move |group| group.docs.iter().map(move |found| (segment, *found)))
    });
    groups.map(|(segment, (doc, score))| (Place { segment, doc: doc as usize }, score))
}

/// The docs that are nearest to the vector of a query, best first.
fn nearest(segments: &[Segment], vector: &[f32], code: &QueryCode) -> Result<Vec<(Place, f32)>> {
    let mut found = Vec::new();
    for (s, segment) in segments.iter().enumerate() {
        let Some(dense) = &segment.dense else { continue };
        let place = |doc| Place { segment: s, doc };
        match &segment.near {
            Some(near) => {
                let docs = near.search(vector, code, dense, |doc| segment.deleted.contains(doc))?;
                found.extend(docs.into_iter().map(|(doc, score)| (place(doc as usize), score)));
            }
            None => {
                let scores = dense.scores(code)?;
                let live = segment.live().filter(|doc| !scores[*doc].is_nan());
                found.extend(live.map(|doc| (place(doc), scores[doc])));
            }
        }
    }
    let order = |a: &(Place, f32), b: &(Place, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    if found.len() > SHORT_LIST {
        found.select_nth_unstable_by(SHORT_LIST - 1, order);
        found.truncate(SHORT_LIST);
    }
    found.sort_unstable_by(order);
    Ok(found)
}

/// The names of the samples by which scores by vectors are standardised.
#[derive(Debug, Default)]
pub(super) struct Sample {
    /// By segment, of each doc of its sample: the place of its name among those of all samples; `None` for a deleted one.
    name_of: Vec<Vec<Option<u32>>>,
    n_names: usize,
}

impl Sample {
    /// The names of the samples of `segments`.
    pub fn new(corpus: &Corpus, segments: &[Segment]) -> Self {
        // Two segments may share names.
        let numbers = |s: usize, segment: &Segment| -> Vec<Option<usize>> {
            let docs = segment.near.as_ref().map_or(&[][..], |near| near.sample());
            let live = |doc: usize| Some(doc).filter(|doc| !segment.deleted.contains(*doc));
            docs.iter().map(|doc| live(*doc as usize).map(|doc| corpus.name(segments, s, doc))).collect()
        };
        let numbers: Vec<_> = segments.iter().enumerate().map(|(s, segment)| numbers(s, segment)).collect();
        let mut names: Vec<usize> = numbers.iter().flatten().copied().flatten().collect();
        names.sort_unstable();
        names.dedup();
        let place = |number: usize| names.binary_search(&number).ok().map(|place| place as u32);
        let places = |numbers: Vec<Option<usize>>| numbers.into_iter().map(|number| place(number?)).collect();
        Self { name_of: numbers.into_iter().map(places).collect(), n_names: names.len() }
    }

    /// Of the scores of all names by vectors.
    fn moments(&self, segments: &[Segment], code: &QueryCode) -> Result<Moments> {
        let mut best = vec![NOT_FOUND; self.n_names];
        for (segment, name_of) in segments.iter().zip(&self.name_of) {
            let Some(near) = &segment.near else { continue };
            for (name, score) in name_of.iter().zip(near.sample_scores(code)?) {
                if let Some(name) = name {
                    let known = &mut best[*name as usize];
                    // what is not a number is no score
                    *known = known.max(score);
                }
            }
        }
        Ok(Moments::of(best.into_iter().filter(|score| *score > NOT_FOUND)))
    }
}

/// How a query's scores by both become one.
pub(super) fn fusion(
    words: &Words<'_>,
    sample: &Sample,
    segments: &[Segment],
    code: &QueryCode,
) -> Result<Fusion> {
    Ok(Fusion { vectors: sample.moments(segments, code)?, words: words.moments.clone() })
}

/// Docs that may be among the `k` best names by words and vectors, with their scores.
pub(super) fn best_fused(
    words: &mut Words<'_>,
    corpus: &Corpus,
    sample: &Sample,
    segments: &[Segment],
    vector: &[f32],
    k: usize,
) -> Result<(Vec<(Place, f32)>, Fusion)> {
    let code = &QueryCode::of(vector)?;
    let nearest = nearest(segments, vector, code)?;
    let fusion = fusion(words, sample, segments, code)?;
    let (sure, unsure) = nearest.split_at(nearest.len().min(SURE_DOCS));
    let mut fused = Vec::new();
    add_words(words, sure.to_vec(), &fusion, &mut fused)?;
    // What is no nearer than the first of the unsure ones must have that much by words (Fagin, Lotem and Naor, "Optimal aggregation
    // algorithms for middleware", 2003).
    let least = least_of_names(&fused, corpus, segments, k);
    let least_by_words = match unsure.first() {
        Some((_, by_vector)) if least > f32::NEG_INFINITY => fusion.words_above(*by_vector, least),
        _ => 0.0,
    };
    let by_words = words.best(segments, NAMES_BY_WORDS.max(k), least_by_words)?;
    let near: FxHashMap<Place, f32> = nearest.iter().copied().collect();
    let mut done: FxHashSet<Place> = sure.iter().map(|(place, _)| *place).collect();
    let mut names_found = FxHashSet::default();
    let found: Vec<(Place, f32)> = places(&by_words).collect();
    for (i, &(place, score)) in found.iter().enumerate() {
        if let Some((later, _)) = found.get(i + ROWS_AHEAD)
            && let Some(dense) = &segments[later.segment].dense
        {
            dense.prefetch(later.doc)?;
        }
        names_found.insert(corpus.name(segments, place.segment, place.doc));
        if !done.insert(place) {
            continue;
        }
        let Some(dense) = &segments[place.segment].dense else { continue };
        let by_vector = match near.get(&place) {
            Some(score) => *score,
            None => dense.score(code, place.doc)?,
        };
        if !by_vector.is_nan() {
            fused.push((place, fusion.score(by_vector, score)));
        }
    }
    let least = least_of_names(&fused, corpus, segments, k);
    let reaches = |(place, by_vector): &(Place, f32)| {
        // Of a name that words have found, only the best docs are known.
        let most = match names_found.contains(&corpus.name(segments, place.segment, place.doc)) {
            true => f32::INFINITY,
            false => by_words[place.segment].1,
        };
        !done.contains(place) && fusion.score(*by_vector, most) >= least
    };
    let left = unsure.iter().copied().filter(reaches).collect();
    add_words(words, left, &fusion, &mut fused)?;
    Ok((fused, fusion))
}

/// Scores docs by words as well, and adds them to `fused`.
fn add_words(
    words: &mut Words<'_>,
    mut docs: Vec<(Place, f32)>,
    fusion: &Fusion,
    fused: &mut Vec<(Place, f32)>,
) -> Result<()> {
    docs.sort_unstable_by_key(|(place, _)| *place);
    words.lists.iter_mut().flatten().for_each(List::rewind);
    for (place, by_vector) in docs {
        let mut score = 0.0;
        for list in &mut words.lists[place.segment] {
            score += list.adds_to(place.doc as u32)?;
        }
        fused.push((place, fusion.score(by_vector, score)));
    }
    Ok(())
}

/// The score of the `k`-th best name in `fused`.
fn least_of_names(fused: &[(Place, f32)], corpus: &Corpus, segments: &[Segment], k: usize) -> f32 {
    let mut of_names: FxHashMap<usize, f32> = FxHashMap::default();
    for (place, score) in fused {
        let known = of_names.entry(corpus.name(segments, place.segment, place.doc)).or_insert(*score);
        *known = known.max(*score);
    }
    let mut scores: Vec<f32> = of_names.into_values().collect();
    if scores.len() < k {
        return f32::NEG_INFINITY;
    }
    *scores.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a)).1
}
