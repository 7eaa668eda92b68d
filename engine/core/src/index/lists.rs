//! The postings of a query's words in one segment, of which those of single windows and docs are read.

use std::borrow::Cow;

use super::impacts::{Figures, Impacts, STEP, WINDOW};
use super::packed::{GROUP, Packed};
use super::postings::Postings;
use super::ranking::contribution;
use crate::Result;
use crate::vector::{prefetch, vectorized};

/// Bounds and scores are sums in different orders.
const ROUNDING: f32 = 1.0 + 1e-5;
/// How far ahead what is known of docs is fetched.
const POSTINGS_AHEAD: usize = 16;
const WINDOWS_IN_GROUP: usize = GROUP / WINDOW;

/// The postings of one term in one segment.
#[derive(Debug)]
pub(super) struct List<'s> {
    source: Source<'s>,
    lengths: &'s [u32],
    /// The most that the term adds in each window, in steps.
    bounds: Cow<'s, [u8]>,
    /// What bounds are multiplied by to be bounds for a weight of 1.
    bound_scale: f32,
    average_length: f32,
    /// What is known of the term.
    pub figures: Figures,
    /// Its weight.
    pub weight_idf: f32,
}

#[derive(Debug)]
enum Source<'s> {
    /// Those of a common term.
    Packed(&'s Impacts, Packed<'s>),
    /// Docs and frequencies; the first of them that may still be of interest.
    Read { found: Vec<(u32, u32)>, at: usize },
}

impl<'s> List<'s> {
    /// The postings of `term`; `None` where the segment has none.
    pub fn open(
        term: &str,
        postings: &'s Postings,
        impacts: Option<&'s Impacts>,
        name_of: &[u32],
        lengths: &'s [u32],
        average_length: f32,
        deleted: impl Fn(usize) -> bool,
    ) -> Result<Option<Self>> {
        let Some(number) = postings.find(term)? else { return Ok(None) };
        let mut list = Self {
            source: Source::Read { found: Vec::new(), at: 0 },
            lengths,
            bounds: Cow::Borrowed(&[]),
            bound_scale: STEP * ROUNDING,
            average_length,
            figures: Figures::default(),
            weight_idf: 0.0,
        };
        if let Some(impacts) = impacts
            && let Some((figures, packed, bounds)) = impacts.find(number, lengths.len())?
        {
            (list.source, list.bounds, list.figures) =
                (Source::Packed(impacts, packed), Cow::Borrowed(bounds), figures);
            // What a posting adds grows at most as the average length does.
            list.bound_scale *= (average_length / impacts.average_length()).max(1.0);
        } else {
            list.read_all(postings, number, name_of, deleted)?;
        }
        Ok(Some(list))
    }

    /// Computes from all postings what impacts would say.
    fn read_all(
        &mut self,
        postings: &Postings,
        number: usize,
        name_of: &[u32],
        deleted: impl Fn(usize) -> bool,
    ) -> Result<()> {
        let (mut bytes, mut next) = (postings.list(number)?, 0);
        let mut found = Vec::with_capacity(bytes.len() / 2);
        while !bytes.is_empty() {
            found.push(postings.take(&mut bytes, &mut next)?);
        }
        let adds = found.iter().enumerate().filter_map(|(i, &(doc, frequency))| {
            if let Some((later, _)) = found.get(i + POSTINGS_AHEAD) {
                prefetch(&self.lengths[*later as usize..][..1]);
                prefetch(&name_of[*later as usize..][..1]);
            }
            (!deleted(doc as usize))
                .then(|| (doc, contribution(1.0, frequency, self.lengths[doc as usize], self.average_length)))
        });
        let mut bounds = vec![0u8; self.lengths.len().div_ceil(WINDOW)];
        self.figures = Figures::of(adds, name_of, &mut bounds);
        (self.source, self.bounds) = (Source::Read { found, at: 0 }, Cow::Owned(bounds));
        Ok(())
    }

    /// Adds the most that the term adds to the score of a doc of each window to `sums`.
    pub fn add_bounds(&self, sums: &mut [f32]) {
        let scale = self.bound_scale * self.weight_idf;
        vectorized(
            #[inline(always)]
            || {
                for (sum, steps) in sums.iter_mut().zip(&*self.bounds) {
                    *sum += f32::from(*steps) * scale;
                }
            },
        );
    }

    /// Has the lengths of the docs of `window` fetched, which will be asked for soon.
    pub fn prefetch_lengths(&self, window: usize) {
        let lengths = self.lengths.get(window * WINDOW..).unwrap_or(&[]);
        prefetch(&lengths[..lengths.len().min(WINDOW)]);
    }

    /// Back to the first posting.
    pub fn rewind(&mut self) {
        if let Source::Read { at, .. } = &mut self.source {
            *at = 0;
        }
    }

    /// Adds what the term adds to the scores of the docs of `window`; calls come in ascending order.
    pub fn add_to_window(&mut self, window: usize, scores: &mut [f32; WINDOW]) -> Result<()> {
        if self.bounds.get(window).is_none_or(|steps| *steps == 0) {
            return Ok(());
        }
        let begin = window * WINDOW;
        let lengths = &self.lengths[begin..self.lengths.len().min(begin + WINDOW)];
        match &mut self.source {
            Source::Packed(impacts, packed) => {
                let mut add = || {
                    let (docs, codes) = packed.group(window / WINDOWS_IN_GROUP)?;
                    let part = (window % WINDOWS_IN_GROUP) as u8;
                    let first = docs.partition_point(|doc| doc / (WINDOW as u8) < part);
                    for (doc, code) in docs[first..].iter().zip(&codes[first..]) {
                        if doc / (WINDOW as u8) != part {
                            break;
                        }
                        let i = usize::from(*doc) % WINDOW;
                        let frequency = packed.frequency(*code, (begin + i) as u32)?;
                        scores[i] +=
                            contribution(self.weight_idf, frequency, *lengths.get(i)?, self.average_length);
                    }
                    Some(())
                };
                add().ok_or_else(|| impacts.bad_postings())
            }
            Source::Read { found, at } => {
                skip(found, at, begin as u32);
                for (doc, frequency) in &found[*at..] {
                    let i = *doc as usize - begin;
                    if i >= WINDOW {
                        break;
                    }
                    scores[i] += contribution(self.weight_idf, *frequency, lengths[i], self.average_length);
                }
                Ok(())
            }
        }
    }

    /// What the term adds to the score of `doc`, 0 where the doc lacks it; calls come in ascending order.
    pub fn adds_to(&mut self, doc: u32) -> Result<f32> {
        let frequency = match &mut self.source {
            Source::Packed(impacts, packed) => {
                let find = || {
                    let (docs, codes) = packed.group(doc as usize / GROUP)?;
                    Some(match docs.binary_search(&((doc as usize % GROUP) as u8)) {
                        Ok(i) => Some(packed.frequency(codes[i], doc)?),
                        Err(_) => None,
                    })
                };
                find().ok_or_else(|| impacts.bad_postings())?
            }
            Source::Read { found, at } => {
                skip(found, at, doc);
                found.get(*at).filter(|posting| posting.0 == doc).map(|posting| posting.1)
            }
        };
        let adds = |frequency| {
            contribution(self.weight_idf, frequency, self.lengths[doc as usize], self.average_length)
        };
        Ok(frequency.map_or(0.0, adds))
    }
}

/// Moves `at` on to the first posting of `doc` or of a later one.
fn skip(found: &[(u32, u32)], at: &mut usize, doc: u32) {
    // Galloping: it is often near.
    let mut step = 1;
    while found.get(*at + step - 1).is_some_and(|posting| posting.0 < doc) {
        *at += step;
        step *= 2;
    }
    let last = found.len().min(*at + step - 1);
    *at += found[*at..last].partition_point(|posting| posting.0 < doc);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::{FieldWeights, impacts, postings};
    use crate::{ApiDoc, progress::Silent};

    #[test]
    fn packed_postings_add_what_those_that_are_read_add() {
        const DOCS: usize = 1000;
        let api = |i: usize| ApiDoc {
            name: format!("f{i}{}", if i.is_multiple_of(3) { "_often" } else { "" }),
            description: "some often ".repeat(i * i % 11)
                + if i.is_multiple_of(97) { "seldom" } else { "other words" },
            ..ApiDoc::default()
        };
        let apis: Vec<ApiDoc> = (0..DOCS).map(api).collect();
        let apis: Vec<&ApiDoc> = apis.iter().collect();
        let dir = tempfile::tempdir().unwrap();
        let entry = postings::write(dir.path(), "s", &apis, &FieldWeights::default(), &Silent).unwrap();
        let postings = Postings::open(dir.path(), &entry, DOCS).unwrap();
        let (lengths, name_of) = (postings.lengths().unwrap(), (0..DOCS as u32).collect::<Vec<_>>());
        let entry = impacts::write(dir.path(), "i", &postings, &name_of, &lengths).unwrap();
        let impacts = Impacts::open(dir.path(), &entry).unwrap().unwrap();
        let open = |term: &str, impacts, average| {
            let list = List::open(term, &postings, impacts, &name_of, &lengths, average, |_| false).unwrap();
            list.map(|list| List { weight_idf: 1.7, ..list })
        };
        assert!(open("never", Some(&impacts), 30.0).is_none());
        for (term, is_packed) in [("often", true), ("seldom", false)] {
            // With the average length that the file was written with and with that of a grown index.
            for average in [impacts.average_length(), 2.0 * impacts.average_length()] {
                let mut lists = [Some(&impacts), None].map(|impacts| open(term, impacts, average).unwrap());
                assert_eq!(matches!(lists[0].source, Source::Packed(..)), is_packed);
                let names = lists.each_ref().map(|list| list.figures.names);
                assert_eq!(names[0], names[1]);
                let mut bounds = vec![0f32; DOCS.div_ceil(WINDOW)];
                lists[0].add_bounds(&mut bounds);
                for step in [1, 3, 7] {
                    lists.iter_mut().for_each(List::rewind);
                    for window in (0..bounds.len()).step_by(step) {
                        let scores = lists.each_mut().map(|list| {
                            let mut scores = [0f32; WINDOW];
                            list.add_to_window(window, &mut scores).unwrap();
                            scores
                        });
                        assert_eq!(scores[0], scores[1]);
                        assert!(scores[0].iter().all(|score| *score <= bounds[window]));
                    }
                    lists.iter_mut().for_each(List::rewind);
                    let mut found = 0;
                    for doc in (0..DOCS as u32).step_by(step) {
                        let adds = lists.each_mut().map(|list| list.adds_to(doc).unwrap());
                        assert_eq!(adds[0], adds[1]);
                        found += usize::from(adds[0] > 0.0);
                    }
                    assert!(step > 1 || found == names[0]);
                }
            }
        }
    }
}
