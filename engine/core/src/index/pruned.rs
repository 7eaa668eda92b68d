//! The best names of a segment by words, without looking at postings that cannot matter: MaxScore (Turtle and Flood, "Query
//! evaluation: strategies and optimizations", 1995) over windows of docs, with the bounds of [`super::impacts`].
//!
//! In a window the terms that even together cannot lift a doc over the bound are only looked up for docs that others have found.
//! Scores are added up in the order of the terms, as an exhaustive search adds them, so that they are equal to the last bit.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::impacts::List;
use crate::Result;

/// Docs looked at together.
const WINDOW: usize = 2048;
/// Docs of a window that are passed over together.
const SUMS_AT_ONCE: usize = 16;
/// Records of one name that are kept.
const DOCS_OF_NAME: usize = 8;

/// A name's best docs and their scores, in no order.
#[derive(Debug, Clone, Default)]
pub(super) struct Group {
    pub docs: Vec<(u32, f32)>,
}

impl Group {
    fn best(&self) -> f32 {
        self.docs.iter().map(|(_, score)| *score).fold(0.0, f32::max)
    }

    /// Keeps the best; of equal ones the first.
    fn push(&mut self, doc: u32, score: f32) {
        if self.docs.len() < DOCS_OF_NAME {
            self.docs.push((doc, score));
            return;
        }
        let least = self.docs.iter().enumerate().min_by(|a, b| a.1.1.total_cmp(&b.1.1).then(b.0.cmp(&a.0)));
        if let Some((i, &(_, least))) = least
            && score > least
        {
            self.docs.remove(i);
            self.docs.push((doc, score));
        }
    }
}

/// The names found so far, the worst on top.
struct Best {
    k: usize,
    /// Score, first doc and place in `groups`; of equal scores the last doc is the worst.
    heap: BinaryHeap<Reverse<(OrderedScore, Reverse<u32>, usize)>>,
    groups: Vec<Group>,
    /// What a name's score must exceed.
    least: f32,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct OrderedScore(f32);

impl Eq for OrderedScore {}

impl PartialOrd for OrderedScore {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for OrderedScore {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl Best {
    fn push(&mut self, group: Group) {
        let score = group.best();
        let Some(&(first, _)) = group.docs.first().filter(|_| score > self.least) else { return };
        let slot = if self.heap.len() < self.k {
            self.groups.push(group);
            self.groups.len() - 1
        } else {
            let Some(Reverse((_, _, slot))) = self.heap.pop() else { return };
            self.groups[slot] = group;
            slot
        };
        self.heap.push(Reverse((OrderedScore(score), Reverse(first), slot)));
        if self.heap.len() == self.k
            && let Some(Reverse((score, _, _))) = self.heap.peek()
        {
            self.least = score.0;
        }
    }
}

/// The `k` names with the best records among `docs` records of which a score exceeds `least`, each with its best docs, in no order;
/// and the score that no other name exceeds. `lists` are of the query's terms, in the order in which scores are added up.
pub(super) fn best_names(
    lists: &mut [List<'_>],
    docs: usize,
    name_of: &[u32],
    deleted: impl Fn(usize) -> bool,
    k: usize,
    least: f32,
) -> Result<(Vec<Group>, f32)> {
    let mut best = Best { k, heap: BinaryHeap::new(), groups: Vec::new(), least: least.max(0.0) };
    let mut group = (u32::MAX, Group::default());
    let mut bounds = vec![0f32; lists.len()];
    let mut order: Vec<usize> = (0..lists.len()).collect();
    // [term, doc of the window]
    let mut adds = vec![0f32; lists.len() * WINDOW];
    let mut sums = [0f32; WINDOW];
    for begin in (0..docs).step_by(WINDOW) {
        let (begin, end) = (begin as u32, (begin + WINDOW).min(docs) as u32);
        let mut all = 0.0;
        for (bound, list) in bounds.iter_mut().zip(lists.iter_mut()) {
            *bound = list.bound_within(begin, end)?;
            all += *bound;
        }
        if all <= best.least {
            continue;
        }
        order.sort_unstable_by(|a, b| bounds[*a].total_cmp(&bounds[*b]).then(a.cmp(b)));
        let mut rest = 0.0;
        let mut looked_up = 0;
        while looked_up < order.len() && rest + bounds[order[looked_up]] <= best.least {
            rest += bounds[order[looked_up]];
            looked_up += 1;
        }
        let (looked_up, read) = order.split_at(looked_up);
        sums.fill(0.0);
        for &term in read {
            let adds = &mut adds[term * WINDOW..(term + 1) * WINDOW];
            adds.fill(0.0);
            if bounds[term] > 0.0 {
                lists[term].each_within(begin, end, |doc, score| {
                    let i = (doc - begin) as usize;
                    adds[i] = score;
                    sums[i] += score;
                })?;
            }
        }
        for (c, some) in sums.chunks(SUMS_AT_ONCE).enumerate() {
            // Written so that compilers compare several at once: most docs are none of the best. Sums are rounded differently below.
            let none = 0f32.max(best.least - rest - best.least * 1e-6);
            if !some.iter().fold(false, |any, sum| any | (*sum > none)) {
                continue;
            }
            for (i, sum) in (c * SUMS_AT_ONCE..).zip(some).filter(|(_, sum)| **sum > none) {
                let mut bound = sum + rest;
                if bound <= best.least {
                    continue;
                }
                let doc = begin + i as u32;
                if deleted(doc as usize) {
                    continue;
                }
                for &term in looked_up.iter().rev() {
                    let score = if bounds[term] > 0.0 { lists[term].adds_to(doc)? } else { 0.0 };
                    adds[term * WINDOW + i] = score;
                    bound -= bounds[term] - score;
                    if bound <= best.least {
                        break;
                    }
                }
                if bound <= best.least {
                    continue;
                }
                let score = (0..lists.len()).fold(0.0, |score, term| score + adds[term * WINDOW + i]);
                if score <= best.least {
                    continue;
                }
                let name = name_of[doc as usize];
                if name != group.0 {
                    best.push(std::mem::replace(&mut group, (name, Group::default())).1);
                }
                group.1.push(doc, score);
            }
        }
    }
    best.push(group.1);
    Ok((best.groups, best.least))
}
