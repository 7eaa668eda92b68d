//! The sparse file of a segment: for each term the records that contain it, with weighted frequencies. Sections:
//!
//! ```text
//! 0 length of each doc [docs] u32     1, 2 string table: terms     3 offsets [terms + 1] u64 into 4
//! 4 postings: per term, LEB128 pairs (doc minus the doc before, minus 1 after the first; frequency)
//! ```
//!
//! Lengths and frequencies are in [units](super::fields::UNITS_PER_OCCURRENCE).

use std::path::Path;

use rustc_hash::FxHashMap;

use super::analysis::Analyzer;
use super::fields::{FieldWeights, term_frequencies};
use super::section_file::{FileEntry, SectionFile, SectionWriter, StringTable, offsets, u32_at};
use crate::{ApiDoc, Progress, Result};

const KIND: [u8; 4] = *b"SPRS";
/// Steps of progress are told in bunches.
const PROGRESS_EVERY: usize = 1024;

/// Analyses records, sorted by [`super::records::sort`], and writes their postings as `dir/name`.
pub(super) fn write(
    dir: &Path,
    name: &str,
    apis: &[&ApiDoc],
    weights: &FieldWeights,
    progress: &dyn Progress,
) -> Result<FileEntry> {
    #[derive(Default)]
    struct List {
        bytes: Vec<u8>,
        next: u32,
    }
    let mut lists: FxHashMap<String, List> = FxHashMap::default();
    let mut lengths = Vec::with_capacity(apis.len());
    let mut analyzer = Analyzer::new();
    let mut terms = FxHashMap::default();
    for (doc, api) in (0u32..).zip(apis) {
        lengths.push(term_frequencies(api, weights, &mut analyzer, &mut terms));
        for (term, frequency) in &terms {
            if !lists.contains_key(term) {
                lists.insert(term.clone(), List::default());
            }
            if let Some(list) = lists.get_mut(term) {
                put_varint(&mut list.bytes, doc - list.next);
                put_varint(&mut list.bytes, *frequency);
                list.next = doc + 1;
            }
        }
        if doc as usize % PROGRESS_EVERY == PROGRESS_EVERY - 1 {
            progress.advance(PROGRESS_EVERY as u64);
            progress.check()?;
        }
    }
    progress.advance((apis.len() % PROGRESS_EVERY) as u64);

    let mut sorted: Vec<(&String, &List)> = lists.iter().collect();
    sorted.sort_unstable_by_key(|(term, _)| *term);
    let mut out = SectionWriter::create(dir, name, KIND)?;
    out.u32s(lengths)?;
    StringTable::write(&mut out, sorted.iter().map(|(term, _)| term.as_str()))?;
    let mut end = 0u64;
    out.u64s(std::iter::once(0).chain(sorted.iter().map(|(_, list)| {
        end += list.bytes.len() as u64;
        end
    })))?;
    out.section();
    sorted.iter().try_for_each(|(_, list)| out.write(&list.bytes))?;
    out.finish()
}

fn put_varint(bytes: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// Reads one LEB128 number off the front; `None` where it is cut off or over 32 bits.
#[inline]
fn take_varint(bytes: &mut &[u8]) -> Option<u32> {
    if let [byte @ 0..0x80, rest @ ..] = *bytes {
        *bytes = rest;
        return Some(u32::from(*byte));
    }
    let mut value = 0u64;
    for (i, byte) in bytes.iter().enumerate().take(5) {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            *bytes = &bytes[i + 1..];
            return u32::try_from(value).ok();
        }
    }
    None
}

/// An open sparse file.
#[derive(Debug)]
pub(super) struct Postings {
    file: SectionFile,
    docs: usize,
    terms: StringTable,
}

impl Postings {
    /// Opens `dir/entry.name`, which must be about `docs` records.
    pub fn open(dir: &Path, entry: &FileEntry, docs: usize) -> Result<Self> {
        let file = SectionFile::open(dir, entry, KIND, 5)?;
        let terms = StringTable::open(&file, 1)?;
        if file.section_len(0) != docs * 4 || file.section_len(3) != terms.len() * 8 + 8 {
            return Err(file.corrupted(format!("its sections do not fit {docs} records")));
        }
        Ok(Self { file, docs, terms })
    }

    /// The length of every doc.
    pub fn lengths(&self) -> Result<Vec<u32>> {
        let bytes = self.file.section(0)?;
        Ok((0..self.docs).map(|doc| u32_at(bytes, doc)).collect())
    }

    /// Number of terms.
    pub fn n_terms(&self) -> usize {
        self.terms.len()
    }

    /// The number of `term`.
    pub fn find(&self, term: &str) -> Result<Option<usize>> {
        self.terms.find(&self.file, term)
    }

    /// The stored postings of the term numbered `i`.
    pub fn list(&self, i: usize) -> Result<&[u8]> {
        self.file.bytes(4, offsets(&self.file, 3, i)?)
    }

    /// Takes the next posting off the front of `bytes`, part of a [list](Self::list): doc and frequency. `next` is the least that
    /// the doc may be, and is moved on.
    #[inline]
    pub fn take(&self, bytes: &mut &[u8], next: &mut u32) -> Result<(u32, u32)> {
        let pair = take_varint(bytes).zip(take_varint(bytes));
        let posting = pair.and_then(|(gap, frequency)| Some((next.checked_add(gap)?, frequency)));
        match posting.filter(|(doc, _)| (*doc as usize) < self.docs) {
            Some(posting) => {
                *next = posting.0 + 1;
                Ok(posting)
            }
            None => Err(self.file.corrupted("postings do not parse")),
        }
    }

    /// Calls `each(doc, frequency)` for the records with `term`, ascending.
    pub fn each(&self, term: &str, mut each: impl FnMut(usize, u32)) -> Result<()> {
        let Some(i) = self.find(term)? else { return Ok(()) };
        let mut bytes = self.list(i)?;
        let mut next = 0;
        while !bytes.is_empty() {
            let (doc, frequency) = self.take(&mut bytes, &mut next)?;
            each(doc as usize, frequency);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_round_trip_and_cut_ones_are_refused() {
        for value in [0, 1, 127, 128, 300, 1 << 20, u32::MAX] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            for cut in 0..bytes.len() {
                assert_eq!(take_varint(&mut &bytes[..cut]), None);
            }
            bytes.push(7);
            let mut rest = bytes.as_slice();
            assert_eq!((take_varint(&mut rest), rest), (Some(value), &[7u8][..]));
        }
        assert_eq!(take_varint(&mut &[0xff; 9][..]), None);
    }
}
