//! The best names of a segment by words, without looking at postings that cannot matter: block-max pruning (Mallia, Suel and
//! Tonellotto, SIGIR 2024), with the bounds of [`super::impacts`].
//!
//! The windows of docs with the highest bounds are searched first, which tells how good the best names are at least; then all that
//! may hold one, in the order of the docs. Scores are added up in the order of the terms, as an exhaustive search adds them, so that
//! they are equal to the last bit.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::impacts::WINDOW;
use super::lists::List;
use crate::Result;

/// Windows that are searched first, or as many as names are asked for.
const FIRST_WINDOWS: usize = 64;
/// How far ahead lengths are fetched.
const WINDOWS_AHEAD: usize = 8;
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
    fn new(k: usize, least: f32) -> Self {
        Self { k, heap: BinaryHeap::new(), groups: Vec::new(), least: least.max(0.0) }
    }

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
    let mut bounds = vec![0f32; docs.div_ceil(WINDOW)];
    lists.iter().for_each(|list| list.add_bounds(&mut bounds));
    // Without branches: which windows stay cannot be foretold.
    let (mut windows, mut n) = (vec![0u32; bounds.len()], 0);
    for (window, bound) in (0..).zip(&bounds) {
        windows[n] = window;
        n += usize::from(*bound > least.max(0.0));
    }
    windows.truncate(n);
    let mut search = Search { lists, docs, name_of, deleted };
    let mut best = Best::new(k, least);
    let n_first = FIRST_WINDOWS.max(k);
    if windows.len() > 2 * n_first {
        let mut first = windows.clone();
        first.select_nth_unstable_by(n_first, |a, b| {
            bounds[*b as usize].total_cmp(&bounds[*a as usize]).then(a.cmp(b))
        });
        first.truncate(n_first);
        first.sort_unstable();
        search.windows(&first, &bounds, &mut best)?;
        // They are found again below, with all docs of their names.
        let least = if best.least > least { best.least.next_down() } else { least };
        best = Best::new(k, least);
    }
    search.windows(&windows, &bounds, &mut best)?;
    Ok((best.groups, best.least))
}

/// What a search of windows works on.
struct Search<'l, 's, D> {
    lists: &'l mut [List<'s>],
    docs: usize,
    name_of: &'l [u32],
    deleted: D,
}

impl<D: Fn(usize) -> bool> Search<'_, '_, D> {
    /// Takes the names that exceed `best.least` in `windows`, which ascend; `bounds` are of all windows.
    fn windows(&mut self, windows: &[u32], bounds: &[f32], best: &mut Best) -> Result<()> {
        self.lists.iter_mut().for_each(List::rewind);
        let mut group = (u32::MAX, Group::default());
        for (i, &window) in windows.iter().enumerate() {
            if let (Some(list), Some(later)) = (self.lists.first(), windows.get(i + WINDOWS_AHEAD)) {
                list.prefetch_lengths(*later as usize);
            }
            let window = window as usize;
            if bounds[window] <= best.least {
                continue;
            }
            let (begin, end) = ((window * WINDOW) as u32, ((window + 1) * WINDOW).min(self.docs) as u32);
            let mut scores = [0f32; WINDOW];
            self.lists.iter_mut().try_for_each(|list| list.add_to_window(window, &mut scores))?;
            // Most windows have no such doc, and compilers compare several at once.
            if !scores.iter().fold(false, |any, score| any | (*score > best.least)) {
                continue;
            }
            for (doc, score) in (begin..end).zip(scores) {
                if score <= best.least || (self.deleted)(doc as usize) {
                    continue;
                }
                let name = self.name_of[doc as usize];
                if name != group.0 {
                    best.push(std::mem::replace(&mut group, (name, Group::default())).1);
                }
                group.1.push(doc, score);
            }
        }
        best.push(group.1);
        Ok(())
    }
}
