//! The postings of a common word, packed so that those of a few docs are found without reading others.
//!
//! Docs lie in groups of [`GROUP`], so that within one a doc takes a byte. Frequencies are sums of the few weights that fields
//! have: the most usual ones of a word are listed, and a posting says which of them it has in another byte.
//!
//! ```text
//! number of frequencies, of exceptions u32     frequencies u32     exceptions, postings of other frequencies: doc, frequency u32,
//! ascending     first posting of each group, number of all [groups + 1] u32     per group: docs [n] u8, ascending; codes [n] u8
//! ```
//!
//! A code that is no frequency's marks an exception.

use rustc_hash::FxHashMap;

use super::section_file::u32_at;

/// Docs in a group.
pub(super) const GROUP: usize = 256;
/// Most frequencies that are listed.
const MOST_LISTED: usize = 255;

/// Appends the packed `found`, docs (below `docs`, ascending) and frequencies, to `out`.
pub(super) fn pack(found: impl Iterator<Item = (u32, u32)> + Clone, docs: usize, out: &mut Vec<u8>) {
    let mut counts: FxHashMap<u32, u32> = FxHashMap::default();
    found.clone().for_each(|(_, frequency)| *counts.entry(frequency).or_default() += 1);
    let mut listed: Vec<(u32, u32)> =
        counts.into_iter().map(|(frequency, n)| (u32::MAX - n, frequency)).collect();
    listed.sort_unstable();
    listed.truncate(MOST_LISTED);
    let codes: FxHashMap<u32, u8> = listed.iter().map(|(_, frequency)| *frequency).zip(0..).collect();
    let exceptions: Vec<(u32, u32)> =
        found.clone().filter(|posting| !codes.contains_key(&posting.1)).collect();

    let mut put = |word: u32| out.extend_from_slice(&word.to_le_bytes());
    put(listed.len() as u32);
    put(exceptions.len() as u32);
    listed.iter().for_each(|(_, frequency)| put(*frequency));
    exceptions.iter().flat_map(|(doc, frequency)| [doc, frequency]).for_each(|word| put(*word));
    let mut counts = vec![0u32; docs.div_ceil(GROUP)];
    found.clone().for_each(|(doc, _)| counts[doc as usize / GROUP] += 1);
    let mut first = 0;
    put(first);
    for count in &counts {
        first += count;
        put(first);
    }
    let mut found = found;
    let (mut low, mut code) = (Vec::with_capacity(GROUP), Vec::with_capacity(GROUP));
    for count in counts {
        low.clear();
        code.clear();
        for (doc, frequency) in found.by_ref().take(count as usize) {
            low.push((doc as usize % GROUP) as u8);
            code.push(codes.get(&frequency).copied().unwrap_or(MOST_LISTED as u8));
        }
        out.extend_from_slice(&low);
        out.extend_from_slice(&code);
    }
}

/// The packed postings of a term.
#[derive(Debug)]
pub(super) struct Packed<'s> {
    frequencies: &'s [[u8; 4]],
    exceptions: &'s [[u8; 8]],
    starts: &'s [[u8; 4]],
    /// Of all groups.
    postings: &'s [u8],
}

impl<'s> Packed<'s> {
    /// Those at `bytes`, of a segment of `docs`; `None` where they are none.
    pub fn new(bytes: &'s [u8], docs: usize) -> Option<Self> {
        let (head, rest) = bytes.split_at_checked(8)?;
        let (frequencies, rest) = rest.split_at_checked(u32_at(head, 0) as usize * 4)?;
        let (exceptions, rest) = rest.split_at_checked(u32_at(head, 1) as usize * 8)?;
        let (starts, postings) = rest.split_at_checked((docs.div_ceil(GROUP) + 1) * 4)?;
        let fits = frequencies.len() <= MOST_LISTED * 4
            && postings.len() == 2 * u32_at(starts, docs.div_ceil(GROUP)) as usize;
        fits.then_some(Self {
            frequencies: frequencies.as_chunks().0,
            exceptions: exceptions.as_chunks().0,
            starts: starts.as_chunks().0,
            postings,
        })
    }

    /// The docs of a group, within it, and their codes. `None` where that is impossible.
    #[inline]
    pub fn group(&self, group: usize) -> Option<(&'s [u8], &'s [u8])> {
        let start = |group: usize| self.starts.get(group).map(|word| u32::from_le_bytes(*word) as usize);
        let postings = self.postings.get(2 * start(group)?..2 * start(group + 1)?)?;
        Some(postings.split_at(postings.len() / 2))
    }

    /// The frequency that `code` stands for at `doc`; `None` where it has none.
    #[inline]
    pub fn frequency(&self, code: u8, doc: u32) -> Option<u32> {
        match self.frequencies.get(usize::from(code)) {
            Some(word) => Some(u32::from_le_bytes(*word)),
            None => {
                let at = self.exceptions.binary_search_by_key(&doc, |exception| u32_at(exception, 0)).ok()?;
                Some(u32_at(&self.exceptions[at], 1))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};

    use super::*;

    const DOCS: usize = 3000;

    fn unpacked(bytes: &[u8]) -> Option<Vec<(u32, u32)>> {
        let packed = Packed::new(bytes, DOCS)?;
        let mut found = Vec::new();
        for group in 0..DOCS.div_ceil(GROUP) {
            let (docs, codes) = packed.group(group)?;
            for (low, code) in docs.iter().zip(codes) {
                let doc = (group * GROUP) as u32 + u32::from(*low);
                found.push((doc, packed.frequency(*code, doc)?));
            }
        }
        assert!(packed.group(DOCS.div_ceil(GROUP)).is_none());
        Some(found)
    }

    #[test]
    fn postings_come_back_and_others_are_refused() {
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(4);
        for (share, frequencies) in [(1.0, 1), (0.5, 40), (0.9, 100_000), (0.001, 3), (0.0, 1)] {
            let docs: Vec<u32> = (0..DOCS as u32).filter(|_| random.random::<f32>() < share).collect();
            let found: Vec<(u32, u32)> =
                docs.into_iter().map(|doc| (doc, random.random_range(0..frequencies) * 40_007)).collect();
            let mut bytes = Vec::new();
            pack(found.iter().copied(), DOCS, &mut bytes);
            assert_eq!(unpacked(&bytes).as_ref(), Some(&found));
            for cut in 0..bytes.len().min(500) {
                assert!(Packed::new(&bytes[..cut], DOCS).is_none());
            }
            bytes.push(0);
            assert!(Packed::new(&bytes, DOCS).is_none());
            bytes.pop();
            // Other bytes are other postings or none, and never more than a refusal.
            for _ in 0..2000 {
                let mut bad = bytes.clone();
                let at = random.random_range(0..bad.len());
                bad[at] = random.random();
                let _ = unpacked(&bad);
            }
        }
    }
}
